//! A point as JSON: `id`, `vector`, `payload`, `text`.
//!
//! `vector` is a list of numbers (the default vector), or an object of named vectors, each a list
//! of numbers or, for a sparse one, an object of `indices` and `values`.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::name::VectorName;
use crate::point::{Payload, Point, SparseVector, Vector, Vectors};

use super::{id_from_json, id_to_json};

/// Reads a point.
///
/// ```
/// use mainstay_core::json::{point_from_json, point_to_json};
/// let value = serde_json::json!({"id": 7, "vector": [0.5, -1.0], "payload": {"lang": "rust"}, "text": "fn"});
/// assert_eq!(point_to_json(&point_from_json(&value)?), value);
/// # Ok::<(), mainstay_core::Error>(())
/// ```
///
/// # Errors
/// `Invalid` with the field that is wrong. Whether the vectors suit a collection is its spec's
/// to say.
pub fn point_from_json(value: &Value) -> Result<Point> {
    let Value::Object(fields) = value else {
        return Err(Error::invalid(format!("a point is an object with an `id`, not {}", kind(value))));
    };
    let id = fields.get("id").ok_or_else(|| Error::invalid("the point has no `id`"))?;
    let mut point =
        Point { id: id_from_json(id)?, vectors: Vectors::new(), payload: Payload::new(), text: None };
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("id", _) | ("vector" | "payload" | "text", Value::Null) => {}
            ("vector", _) => point.vectors = vectors_from_json(value)?,
            ("payload", Value::Object(payload)) => point.payload.clone_from(payload),
            ("payload", _) => {
                return Err(Error::invalid(format!("the `payload` is not an object but {}", kind(value))));
            }
            ("text", Value::String(text)) => point.text = Some(text.clone()),
            ("text", _) => return Err(Error::invalid(format!("the `text` is not text but {}", kind(value)))),
            _ => {
                return Err(Error::invalid(format!(
                    "unknown field {key:?}; a point has `id`, `vector`, `payload` and `text`, and other values belong into the payload"
                )));
            }
        }
    }
    Ok(point)
}

/// Writes a point; what it lacks is left out. Its text reads back as the same point to the bit, as long as its
/// numbers are finite.
pub fn point_to_json(point: &Point) -> Value {
    let mut fields = Map::new();
    fields.insert("id".into(), id_to_json(point.id));
    if !point.vectors.is_empty() {
        fields.insert("vector".into(), vectors_to_json(&point.vectors));
    }
    if !point.payload.is_empty() {
        fields.insert("payload".into(), Value::Object(point.payload.clone()));
    }
    if let Some(text) = &point.text {
        fields.insert("text".into(), text.as_str().into());
    }
    Value::Object(fields)
}

/// Reads what stands as `vector`.
///
/// # Errors
/// `Invalid` with the vector that is wrong.
pub fn vectors_from_json(value: &Value) -> Result<Vectors> {
    match value {
        Value::Array(_) => Ok([(VectorName::default(), Vector::Dense(floats(value, "vector")?))].into()),
        Value::Object(named) => named
            .iter()
            .map(|(name, value)| Ok((VectorName::new(name)?, vector_from_json(name, value)?)))
            .collect(),
        _ => Err(Error::invalid(format!(
            "the `vector` is neither a list of numbers nor an object of named vectors, but {}",
            kind(value)
        ))),
    }
}

/// Writes vectors as they stand as `vector`.
pub fn vectors_to_json(vectors: &Vectors) -> Value {
    let one = |vector: &Vector| match vector {
        Vector::Dense(values) => json!(values),
        Vector::Sparse(sparse) => json!({ "indices": sparse.indices, "values": sparse.values }),
    };
    match vectors.get(&VectorName::default()) {
        Some(vector @ Vector::Dense(_)) if vectors.len() == 1 => one(vector),
        _ => vectors.iter().map(|(name, vector)| (name.to_string(), one(vector))).collect(),
    }
}

fn vector_from_json(name: &str, value: &Value) -> Result<Vector> {
    let Value::Object(parts) = value else {
        return Ok(Vector::Dense(floats(value, name)?));
    };
    let (Some(indices), Some(values), 2) = (parts.get("indices"), parts.get("values"), parts.len()) else {
        return Err(Error::invalid(format!(
            "sparse vector {name:?} needs `indices` and `values` and nothing else"
        )));
    };
    let wrong =
        |at: usize| Error::invalid(format!("index {at} of sparse vector {name:?} is no number of 32 bits"));
    let Value::Array(indices) = indices else {
        return Err(Error::invalid(format!("the `indices` of sparse vector {name:?} are no list")));
    };
    let indices = indices.iter().enumerate().map(|(at, index)| {
        index.as_u64().and_then(|index| u32::try_from(index).ok()).ok_or_else(|| wrong(at))
    });
    Ok(Vector::Sparse(SparseVector {
        indices: indices.collect::<Result<_>>()?,
        values: floats(values, name)?,
    }))
}

fn floats(value: &Value, name: &str) -> Result<Vec<f32>> {
    let Value::Array(values) = value else {
        return Err(Error::invalid(format!("vector {name:?} is not a list of numbers but {}", kind(value))));
    };
    let number = |(at, value): (usize, &Value)| {
        let number = value.as_f64().ok_or_else(|| {
            Error::invalid(format!("vector {name:?} holds {} at dimension {at}", kind(value)))
        })?;
        let float = number as f32;
        if float.is_finite() {
            Ok(float)
        } else {
            Err(Error::invalid(format!(
                "vector {name:?} holds {number} at dimension {at}, beyond a 32-bit float"
            )))
        }
    };
    values.iter().enumerate().map(number).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_reads_back_the_same() {
        for value in [
            json!({"id": 18_446_744_073_709_551_615_u64}),
            json!({"id": "00000000-0000-0000-0000-000000000007", "vector": [0.5, -1.0], "text": ""}),
            json!({"id": 0, "vector": {"": [1.0], "s": {"indices": [0, 4_294_967_295_u32], "values": [0.5, 2.0]}},
                "payload": {"a": {"b": [null, 1]}}}),
            json!({"id": 1, "vector": {"": {"indices": [], "values": []}}}),
        ] {
            assert_eq!(point_to_json(&point_from_json(&value).unwrap()), value);
        }
    }

    #[test]
    fn each_bad_point_is_refused_with_its_field() {
        for (value, fragment) in [
            (json!([1]), "not a list"),
            (json!({"vector": [1]}), "no `id`"),
            (json!({"id": null}), "null"),
            (json!({"id": -1}), "-1"),
            (json!({"id": 1.5}), "1.5"),
            (json!({"id": "7"}), "number in quotes"),
            (json!({"id": [1]}), "a list is not a point id"),
            (json!({"id": "x"}), "`x`"),
            (json!({"id": 1, "vector": 5}), "neither a list"),
            (json!({"id": 1, "vector": [1, "x"]}), "text at dimension 1"),
            (json!({"id": 1, "vector": [1e39]}), "beyond a 32-bit float"),
            (json!({"id": 1, "vector": {"a b": [1]}}), "' '"),
            (json!({"id": 1, "vector": {"a": 5}}), "\"a\" is not a list"),
            (json!({"id": 1, "vector": {"a": {"indices": [1]}}}), "needs `indices` and `values`"),
            (json!({"id": 1, "vector": {"a": {"indices": [-1], "values": [1]}}}), "index 0"),
            (json!({"id": 1, "vector": {"a": {"indices": 1, "values": [1]}}}), "no list"),
            (json!({"id": 1, "payload": []}), "`payload`"),
            (json!({"id": 1, "text": 1}), "`text`"),
            (json!({"id": 1, "embedding": [1]}), "unknown field \"embedding\""),
        ] {
            let error = point_from_json(&value).unwrap_err();
            assert!(error.message().contains(fragment), "{value}: {error}");
        }
    }
}
