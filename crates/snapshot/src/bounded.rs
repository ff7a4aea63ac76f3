//! What may take so much memory and no more: JSON values, because a few bytes of text, such as `0,`, take many as a value,
//! and what zstd packed.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What a value itself takes; lists grow by doubling.
pub(crate) const VALUE_BYTES: u64 = 2 * size_of::<Value>() as u64;

/// Reads a value from so many bytes of memory, and takes away what it needs.
pub(crate) struct Bounded<'a>(pub(crate) &'a mut u64);

/// Reads text of JSON.
pub(crate) fn parse(text: &str, left: &mut u64) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Bounded(left).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a value that takes 1 MiB at most.
pub(crate) fn small<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Bounded(&mut (1 << 20)).deserialize(deserializer)
}

/// Unpacks what says that it takes `size` bytes, of which there may be `most`.
pub(crate) fn unpack(packed: &[u8], size: u64, most: usize) -> Result<Vec<u8>, String> {
    let fits = usize::try_from(size).ok().filter(|size| *size <= most);
    let fits = fits.ok_or_else(|| format!("unpacked it would take {size} bytes"))?;
    let unpacked = zstd::bulk::decompress(packed, fits).map_err(|error| error.to_string())?;
    if unpacked.len() == fits { Ok(unpacked) } else { Err("it is shorter than it says".to_owned()) }
}

/// About what a value takes, as [`Bounded`] counts it.
pub(crate) fn memory_bytes(value: &Value) -> u64 {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len() as u64,
            Value::Array(values) => values.iter().map(memory_bytes).sum(),
            Value::Object(object) => map_bytes(object),
            _ => 0,
        }
}

/// About what the entries of an object take.
pub(crate) fn map_bytes(object: &Map<String, Value>) -> u64 {
    object.iter().map(|(key, value)| key.len() as u64 + VALUE_BYTES + memory_bytes(value)).sum()
}

impl Bounded<'_> {
    fn take<E: Error>(&mut self, bytes: u64) -> Result<(), E> {
        *self.0 = self.0.checked_sub(bytes).ok_or_else(|| E::custom("it takes more memory than it may"))?;
        Ok(())
    }

    fn scalar<E: Error>(mut self, value: Value) -> Result<Value, E> {
        self.take(VALUE_BYTES)?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<Value, E> {
        self.take(VALUE_BYTES + value.len() as u64)?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        self.take(VALUE_BYTES)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Bounded(self.0))? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Value, A::Error> {
        self.take(VALUE_BYTES)?;
        let mut values = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            self.take(VALUE_BYTES + key.len() as u64)?;
            values.insert(key, object.next_value_seed(Bounded(self.0))?);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_as_it_always_does_and_costs_what_it_is_counted_as() {
        for text in [
            "null",
            "[1,-1,18446744073709551615,0.1,1e300,-0.0,true]",
            r#"{"a":{"b":["x","\u0000é",{}]},"c":null,"a":2}"#,
            "[[[[[]]]]]",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            let mut left = u64::MAX;
            assert_eq!(parse(text, &mut left).unwrap(), expected);
            assert!(u64::MAX - left >= memory_bytes(&expected), "{text}");
            let cost = u64::MAX - left;
            assert!(parse(text, &mut cost.clone()).is_ok());
            assert!(parse(text, &mut (cost - 1)).is_err());
        }
        assert!(parse("1 2", &mut 1_000_000).is_err());
        assert!(parse(&"[".repeat(100_000), &mut u64::MAX.clone()).is_err());
    }
}
