//! What values take on the heap, as the allocator sees it.

use mainstay_core::Payload;
use roaring::RoaringBitmap;
use serde_json::Value;

/// What an allocation of so many bytes takes: a word of the allocator's own, in steps of 16, at least 32 (glibc).
pub const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

/// A payload that has room for what is in it only; one that grew has room for up to twice as much.
pub fn compact(entries: impl IntoIterator<Item = (String, Value)>) -> Payload {
    let compact_key = |(mut key, value): (String, Value)| {
        key.shrink_to_fit();
        (key, compact_value(value))
    };
    entries.into_iter().map(compact_key).collect()
}

fn compact_value(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            text.shrink_to_fit();
            text.into()
        }
        Value::Array(values) => {
            let mut values: Vec<_> = values.into_iter().map(compact_value).collect();
            values.shrink_to_fit();
            values.into()
        }
        Value::Object(map) => compact(map).into(),
        value => value,
    }
}

/// What a payload made by [`compact`] takes on the heap: many times its JSON text if its values are short.
pub fn payload_bytes(payload: &Payload) -> usize {
    if payload.is_empty() {
        return 0;
    }
    let entries = allocated(payload.len() * size_of::<(u64, String, Value)>());
    // A place in the entries and a byte of control for each bucket, and a group of control bytes.
    let table = allocated(buckets(payload.len()) * (size_of::<usize>() + 1) + 16);
    let values = payload.iter().map(|(key, value)| allocated(key.len()) + value_bytes(value));
    entries + table + values.sum::<usize>()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => allocated(text.len()),
        Value::Array(values) => {
            allocated(values.len() * size_of::<Value>()) + values.iter().map(value_bytes).sum::<usize>()
        }
        Value::Object(map) => payload_bytes(map),
    }
}

/// The buckets of a hash table for so many entries.
fn buckets(entries: usize) -> usize {
    match entries {
        0..=3 => 4,
        4..=7 => 8,
        _ => (entries * 8 / 7 + 1).next_power_of_two(),
    }
}

/// About what a bitmap takes on the heap.
pub fn bitmap_bytes(bitmap: &RoaringBitmap) -> usize {
    let stats = bitmap.statistics();
    let containers = stats.n_containers as usize;
    // The containers in a vector that has room for four at first, and each one's own values, whose vector grows by
    // doubling.
    let each =
        (stats.n_bytes_array_containers as usize).checked_div(containers).map_or(0, |each| each.max(8) * 2);
    allocated(containers.max(4).next_power_of_two() * 32)
        + containers * allocated(each)
        + (stats.n_bytes_bitset_containers + stats.n_bytes_run_containers) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_allocation_takes_what_glibc_takes() {
        assert_eq!([0, 1, 24, 25, 40, 41].map(allocated), [0, 32, 32, 48, 48, 64]);
    }

    #[test]
    fn a_payload_takes_more_than_its_text() {
        let payload =
            json!({ "source": "src", "path": "a/b.rs", "chunk": 1, "chunks": 2, "lang": { "n": 1 } });
        let Value::Object(payload) = payload else { unreachable!() };
        let text = serde_json::to_string(&payload).unwrap().len();
        assert!(payload_bytes(&compact(payload.clone())) > 5 * text);
        assert_eq!(compact(payload.clone()), payload);
        assert_eq!(payload_bytes(&Payload::new()), 0);
    }
}
