//! A point of an older file.

use std::collections::BTreeMap;
use std::fmt;

use mainstay_core::json::id_from_json;
use mainstay_core::spec::{MAX_DIMENSION, MAX_VECTORS, check_payload_depth};
use mainstay_core::{Error, Payload, PointId, Result, SparseVector, Vector, VectorName};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::walk::{Part, Walk};
use crate::bounded::Bounded;

/// A point with its vectors under the names of the file.
#[derive(Debug)]
pub(super) struct FilePoint {
    pub(super) id: PointId,
    pub(super) vectors: FileVectors,
    pub(super) payload: Payload,
    pub(super) text: Option<String>,
}

/// What stands as `vector`.
#[derive(Debug, Default)]
pub(super) enum FileVectors {
    #[default]
    None,
    /// A list: a vector without a name.
    Plain(Vec<f32>),
    Named(BTreeMap<VectorName, Vector>),
}

/// Names of fields that were passed over, at most so many.
pub(super) const MAX_IGNORED: usize = 16;

/// Reads a point; the names of fields that no point has go into the list. An error of [`Error`] is a text in serde's.
pub(super) struct PointSeed<'a> {
    pub(super) ignored: &'a mut Vec<String>,
    /// Bytes that its payload may take in memory.
    pub(super) memory: u64,
}

impl<'de> DeserializeSeed<'de> for PointSeed<'_> {
    type Value = FilePoint;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FilePoint, D::Error> {
        match deserializer.deserialize_any(Walk(self))? {
            Ok(point) => Ok(point),
            Err(kind) => Err(D::Error::custom(format!("a point is an object with an `id`, not {kind}"))),
        }
    }
}

impl<'de> Part<'de> for PointSeed<'_> {
    type Out = Result<FilePoint, &'static str>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Out, A::Error> {
        let wrong = |error: Error| A::Error::custom(error.message());
        let mut memory = self.memory;
        let (mut id, mut vectors, mut payload, mut text, mut text_key) = (None, None, None, None, None);
        while let Some(key) = object.next_key::<String>()? {
            let twice = match key.as_str() {
                "id" => id
                    .replace(id_from_json(&object.next_value_seed(Bounded(&mut memory))?).map_err(wrong)?)
                    .is_some(),
                "vector" | "vectors" => vectors.replace(object.next_value_seed(VectorsSeed)?).is_some(),
                "payload" => {
                    payload.replace(object_or_null(object.next_value_seed(Bounded(&mut memory))?)).is_some()
                }
                "text" => text.replace(object.next_value::<Option<String>>()?).is_some(),
                "text_key" => text_key.replace(object.next_value::<Option<String>>()?).is_some(),
                _ => {
                    object.next_value::<IgnoredAny>()?;
                    if self.ignored.len() < MAX_IGNORED && !self.ignored.contains(&key) {
                        self.ignored.push(key.chars().take(64).collect());
                    }
                    false
                }
            };
            if twice {
                return Err(A::Error::custom(format!("the point has `{key}` twice")));
            }
        }
        let mut point = FilePoint {
            id: id.ok_or_else(|| A::Error::custom("the point has no `id`"))?,
            vectors: vectors.unwrap_or_default(),
            payload: payload.unwrap_or(Ok(Payload::new())).map_err(A::Error::custom)?,
            text: text.flatten(),
        };
        check_payload_depth(&point.payload).map_err(wrong)?;
        if let Some(key) = text_key.flatten() {
            match point.payload.shift_remove(&key) {
                Some(Value::String(text)) if point.text.is_none() => point.text = Some(text),
                _ => {
                    let text =
                        format!("its `text_key` is {key:?}, where its payload should have its only text");
                    return Err(A::Error::custom(text));
                }
            }
        }
        Ok(Ok(point))
    }

    fn other(self, kind: &'static str) -> Self::Out {
        Err(kind)
    }
}

fn object_or_null(payload: Value) -> Result<Payload, &'static str> {
    match payload {
        Value::Object(payload) => Ok(payload),
        Value::Null => Ok(Payload::new()),
        _ => Err("the `payload` is no object"),
    }
}

/// Reads what stands as `vector`. Numbers are read as the 32-bit floats that they are, each rounded once.
struct VectorsSeed;

impl<'de> DeserializeSeed<'de> for VectorsSeed {
    type Value = FileVectors;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FileVectors, D::Error> {
        match deserializer.deserialize_any(Walk(self))? {
            Ok(vectors) => Ok(vectors),
            Err(kind) => Err(D::Error::custom(format!(
                "the `vector` is neither a list of numbers nor an object of named vectors, but {kind}"
            ))),
        }
    }
}

impl<'de> Part<'de> for VectorsSeed {
    type Out = Result<FileVectors, &'static str>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Out, A::Error> {
        let mut vectors = BTreeMap::new();
        while let Some(name) = object.next_key::<String>()? {
            let name = VectorName::new(&name).map_err(|error| A::Error::custom(error.message()))?;
            let found = object.next_value_seed(Walk(OneVector))?;
            let vector = found.map_err(|what| A::Error::custom(format!("vector {name:?}: {what}")))?;
            if vectors.len() == MAX_VECTORS {
                return Err(A::Error::custom(format!("more than {MAX_VECTORS} vectors")));
            }
            if vectors.contains_key(&name) {
                return Err(A::Error::custom(format!("the point has vector {name:?} twice")));
            }
            vectors.insert(name, vector);
        }
        Ok(Ok(FileVectors::Named(vectors)))
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Out, A::Error> {
        dense(list).map(|dense| Ok(FileVectors::Plain(dense)))
    }

    fn other(self, kind: &'static str) -> Self::Out {
        if kind == "null" { Ok(FileVectors::None) } else { Err(kind) }
    }
}

struct OneVector;

impl<'de> Part<'de> for OneVector {
    type Out = Result<Vector, String>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Out, A::Error> {
        const FORM: &str = "a sparse vector has `indices` and `values` and nothing else";
        let (mut indices, mut values) = (None, None);
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "indices" if indices.is_none() => indices = Some(object.next_value::<Vec<u32>>()?),
                "values" if values.is_none() => values = Some(object.next_value_seed(Floats(usize::MAX))?),
                _ => return Err(A::Error::custom(FORM)),
            }
        }
        let (Some(indices), Some(values)) = (indices, values) else { return Err(A::Error::custom(FORM)) };
        if indices.len() != values.len() {
            return Ok(Err(format!("it has {} indices but {} values", indices.len(), values.len())));
        }
        let mut pairs: Vec<_> = indices.into_iter().zip(values).collect();
        // Older files need not keep an order.
        pairs.sort_by_key(|(index, _)| *index);
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Ok(Err(format!("it has index {} twice", pair[0].0)));
        }
        let (indices, values) = pairs.into_iter().unzip();
        Ok(Ok(Vector::Sparse(SparseVector { indices, values })))
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Out, A::Error> {
        dense(list).map(|values| Ok(Vector::Dense(values)))
    }

    fn other(self, kind: &'static str) -> Self::Out {
        Err(format!("it is neither a list of numbers nor a sparse vector, but {kind}"))
    }
}

fn dense<'de, A: SeqAccess<'de>>(list: A) -> Result<Vec<f32>, A::Error> {
    Floats(MAX_DIMENSION).visit_seq(list)
}

/// A list of finite numbers, at most so many.
struct Floats(usize);

impl<'de> DeserializeSeed<'de> for Floats {
    type Value = Vec<f32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<f32>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Floats {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<f32>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<f32>()? {
            if !value.is_finite() {
                let text = format!("a number is beyond a 32-bit float at dimension {}", values.len());
                return Err(A::Error::custom(text));
            }
            if values.len() == self.0 {
                return Err(A::Error::custom(format!("a vector of more than {} dimensions", self.0)));
            }
            values.push(value);
        }
        Ok(values)
    }
}
