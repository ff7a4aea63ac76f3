//! User payloads, and what is kept beside them under reserved keys.

use mainstay_core::{CollectionSpec, Error, ErrorKind, Lsn, Payload, PayloadIndex, PointId, Result};
use serde_json::{Number, Value};

/// The LSN of the entry that wrote the point, an integer.
pub const VERSION: &str = "__mainstay_version";
/// The text of the point.
pub const TEXT: &str = "__mainstay_text";
/// The payload as JSON text, where Qdrant would not give it back exactly.
pub const EXACT: &str = "__mainstay_payload";
/// The indexed paths at which the payload has a value that is not of the index's type, a list of texts.
pub const MIXED: &str = "__mainstay_mixed";
/// What every reserved key starts with.
const RESERVED: &str = "__mainstay_";

/// Digits that any reader of JSON gives back exactly.
const SAFE_DIGITS: usize = 15;

/// The key of ours that Qdrant is to index, if one is: only a declared index has values of another type than its own, and
/// an index costs each upsert, also without values.
pub fn own_index(spec: &CollectionSpec) -> Option<&'static str> {
    (!spec.payload_indexes.is_empty()).then_some(MIXED)
}

/// Whether a key is one of ours.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with(RESERVED)
}

/// The indexed paths at which a payload has a value that is not of the index's type. Null is no value to any test.
pub fn mixed(spec: &CollectionSpec, payload: &Payload) -> Vec<String> {
    let indexes = spec.payload_indexes.iter();
    let mixed = indexes.filter(|(path, index)| {
        path.each(payload).into_iter().any(|value| match index {
            _ if value.is_null() => false,
            PayloadIndex::Keyword => !value.is_string(),
            PayloadIndex::Integer => !value.is_i64(),
            PayloadIndex::Float => !value.is_number(),
            PayloadIndex::Bool => !value.is_boolean(),
            PayloadIndex::Datetime => {
                value.as_str().and_then(mainstay_core::filter::parse_datetime).is_none()
            }
        })
    });
    mixed.map(|(path, _)| path.to_string()).collect()
}

/// What of a payload is stored in Qdrant as it is.
pub fn plain(payload: &Payload) -> impl Iterator<Item = (&str, &Value)> {
    payload.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !is_reserved(key))
}

/// What is stored in Qdrant beside [`plain`].
pub fn reserved(
    spec: &CollectionSpec,
    version: Lsn,
    payload: &Payload,
    text: Option<&str>,
) -> Vec<(&'static str, Value)> {
    let mut stored = vec![(VERSION, Value::Number(version.0.into()))];
    if !payload.iter().all(|(key, value)| !is_reserved(key) && is_exact(value)) {
        stored.push((EXACT, Value::String(Value::Object(payload.clone()).to_string())));
    }
    if let Some(text) = text {
        stored.push((TEXT, Value::String(text.to_owned())));
    }
    let mixed = mixed(spec, payload);
    if !mixed.is_empty() {
        stored.push((MIXED, mixed.into()));
    }
    stored
}

/// The payload that is stored in Qdrant.
#[cfg(any(feature = "edge", test))]
pub fn pack(spec: &CollectionSpec, version: Lsn, payload: &Payload, text: Option<&str>) -> Payload {
    let plain = plain(payload).map(|(key, value)| (key.to_owned(), value.clone()));
    let reserved = reserved(spec, version, payload, text).into_iter();
    plain.chain(reserved.map(|(key, value)| (key.to_owned(), value))).collect()
}

/// What is read of a stored payload.
pub struct Unpacked {
    /// The version; 0 for a point that Mainstay did not write.
    pub version: Lsn,
    /// The payload.
    pub payload: Payload,
    /// The text.
    pub text: Option<String>,
}

/// Reads what is stored in Qdrant.
///
/// # Errors
/// `Corrupt` if a reserved key holds what it never should.
pub fn unpack(id: PointId, mut stored: Payload) -> Result<Unpacked> {
    let corrupt = |key: &str| {
        Error::new(
            ErrorKind::Corrupt,
            format!("point {id}: the reserved payload key `{key}` was changed by somebody else"),
        )
    };
    let version = match stored.remove(VERSION) {
        None => Lsn::ZERO,
        Some(value) => Lsn(value.as_u64().ok_or_else(|| corrupt(VERSION))?),
    };
    stored.remove(MIXED);
    let text = match stored.remove(TEXT) {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(corrupt(TEXT)),
    };
    let payload = match stored.remove(EXACT) {
        None => stored,
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(payload)) => payload,
            _ => return Err(corrupt(EXACT)),
        },
        Some(_) => return Err(corrupt(EXACT)),
    };
    Ok(Unpacked { version, payload, text })
}

/// Whether Qdrant gives a value back as it was. Its integers are i64, and it keeps payloads as JSON text
/// whose long fractions may come back changed in the last bit.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_i64() || is_exact_float(number),
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(map) => map.values().all(is_exact),
    }
}

fn is_exact_float(number: &Number) -> bool {
    let text = number.to_string();
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let digits = digits.chars().filter(char::is_ascii_digit).count();
    number.is_f64() && digits <= SAFE_DIGITS && exponent.parse().is_ok_and(|e: i32| e.abs() <= 6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> CollectionSpec {
        let name = mainstay_core::CollectionName::new("c").unwrap();
        CollectionSpec::dense(name, 1, mainstay_core::Distance::Dot)
            .with_payload_index("k[].x".parse().unwrap(), PayloadIndex::Keyword)
            .with_payload_index("i".parse().unwrap(), PayloadIndex::Integer)
    }

    fn pack(version: Lsn, payload: &Payload, text: Option<&str>) -> Payload {
        super::pack(&spec(), version, payload, text)
    }

    #[test]
    fn values_that_an_index_leaves_out_are_told() {
        let told = |value: Value| mixed(&spec(), &object(value));
        assert!(told(json!({"k": [{"x": "a"}, {"x": null}, {}], "i": [1, -2, null]})).is_empty());
        assert_eq!(told(json!({"k": [{"x": "a"}, {"x": 1}], "i": 1.5})), ["i", "k[].x"]);
        assert_eq!(told(json!({"i": [1, [2]]})), ["i"]);
    }

    fn object(value: Value) -> Payload {
        if let Value::Object(map) = value { map } else { Payload::new() }
    }

    #[test]
    fn what_is_packed_comes_back_and_plain_values_stay_plain() {
        let payload = object(json!({"a": 1, "b": [true, null, 0.5], "c": {"d": "x"}}));
        let stored = pack(Lsn(7), &payload, Some("text"));
        assert!(!stored.contains_key(EXACT));
        assert_eq!(stored["a"], 1);
        let back = unpack(PointId::Num(1), stored).unwrap();
        assert_eq!((back.version, back.payload, back.text), (Lsn(7), payload, Some("text".to_owned())));
    }

    #[test]
    fn numbers_that_qdrant_would_change_are_kept_as_text_too() {
        for value in [json!(u64::MAX), json!(0.123_456_789_012_345_68), json!(1e300), json!([{"x": 1e-200}])]
        {
            let payload = object(json!({ "a": value }));
            let mut stored = pack(Lsn(1), &payload, None);
            assert!(stored.contains_key(EXACT), "{payload:?}");
            stored.insert("a".into(), json!(0));
            assert_eq!(unpack(PointId::Num(1), stored).unwrap().payload, payload);
        }
    }

    #[test]
    fn a_payload_with_reserved_keys_is_given_back_with_them() {
        let payload = object(json!({VERSION: "mine", TEXT: 3, "a": 1}));
        let back = unpack(PointId::Num(1), pack(Lsn(9), &payload, None)).unwrap();
        assert_eq!((back.version, back.payload, back.text), (Lsn(9), payload, None));
    }

    #[test]
    fn a_reserved_key_that_somebody_changed_is_noticed() {
        for key in [VERSION, TEXT, EXACT] {
            let mut stored = pack(Lsn(1), &Payload::new(), None);
            stored.insert(key.into(), json!([1]));
            assert_eq!(unpack(PointId::Num(1), stored).err().map(|e| e.kind()), Some(ErrorKind::Corrupt));
        }
    }
}
