//! Points: what a collection holds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::id::{Lsn, PointId};
use crate::name::VectorName;

/// A JSON object.
pub type Payload = serde_json::Map<String, serde_json::Value>;

/// The vectors of a point by name; the default vector has the empty name.
pub type Vectors = BTreeMap<VectorName, Vector>;

/// One vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// One number per dimension.
    Dense(Vec<f32>),
    /// Only the dimensions that are not zero.
    Sparse(SparseVector),
}

/// A sparse vector: `values[i]` stands at dimension `indices[i]`. Indices are strictly ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector {
    /// Dimensions, strictly ascending.
    pub indices: Vec<u32>,
    /// As many values as indices.
    pub values: Vec<f32>,
}

impl SparseVector {
    /// The dot product with another sparse vector, summed in f64, in the order of dimensions.
    pub fn dot(&self, other: &Self) -> f32 {
        let (mut i, mut j, mut sum) = (0, 0, 0.0_f64);
        while let (Some(a), Some(b)) = (self.indices.get(i), other.indices.get(j)) {
            match a.cmp(b) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => {
                    sum += f64::from(self.values[i]) * f64::from(other.values[j]);
                    i += 1;
                    j += 1;
                }
            }
        }
        sum as f32
    }

    /// Whether the two vectors share a dimension; only then is one a hit of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.indices.get(i), other.indices.get(j)) {
            match a.cmp(b) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => return true,
            }
        }
        false
    }
}

/// A point: what a caller writes and reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The id, unique in its collection.
    pub id: PointId,
    /// Vectors by name; a point may lack some of the collection's.
    pub vectors: Vectors,
    /// The payload; empty if there is none.
    pub payload: Payload,
    /// The text that the point stands for, if it is kept.
    pub text: Option<String>,
}

impl Point {
    /// A point with one dense default vector and nothing else.
    ///
    /// ```
    /// let point = mainstay_core::Point::new(7, vec![0.6, 0.8]);
    /// assert_eq!(point.vectors.len(), 1);
    /// ```
    pub fn new(id: impl Into<PointId>, vector: Vec<f32>) -> Self {
        Self {
            id: id.into(),
            vectors: [(VectorName::default(), Vector::Dense(vector))].into(),
            payload: Payload::new(),
            text: None,
        }
    }

    /// The same point with this payload; anything but a JSON object leaves the payload empty.
    #[must_use]
    pub fn with_payload(mut self, payload: serde_json::Value) -> Self {
        self.payload = match payload {
            serde_json::Value::Object(map) => map,
            _ => Payload::new(),
        };
        self
    }

    /// The same point with this text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The same point with one more named vector.
    #[must_use]
    pub fn with_vector(mut self, name: VectorName, vector: Vector) -> Self {
        self.vectors.insert(name, vector);
        self
    }

    /// About how many bytes the point takes in memory and in the log (vectors, text and payload).
    pub fn size_bytes(&self) -> usize {
        let vectors: usize = self
            .vectors
            .iter()
            .map(|(name, vector)| {
                16 + name.as_str().len()
                    + match vector {
                        Vector::Dense(values) => values.len() * 4,
                        Vector::Sparse(sparse) => sparse.indices.len() * 8,
                    }
            })
            .sum();
        32 + vectors + payload_bytes(&self.payload) + self.text.as_ref().map_or(0, String::len)
    }
}

/// Numbers as formats and protocols hold them: four bytes each, the lowest first. Copied only where the processor holds
/// them in another order.
///
/// ```
/// assert_eq!(*mainstay_core::point::le_bytes(&[1.0]), [0, 0, 0x80, 0x3f]);
/// ```
pub fn le_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

/// About how many bytes a payload takes as JSON text.
pub fn payload_bytes(payload: &Payload) -> usize {
    2 + payload.iter().map(|(key, value)| key.len() + 4 + value_bytes(value)).sum::<usize>()
}

fn value_bytes(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => text.len() + 2,
        Value::Array(values) => 2 + values.iter().map(|v| value_bytes(v) + 1).sum::<usize>(),
        Value::Object(map) => payload_bytes(map),
    }
}

/// A point as a store holds it: with the version, the LSN of the last entry that changed it.
///
/// Inside a scroll that asks for fewer fields, what was not asked for is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The LSN that last wrote this point.
    pub version: Lsn,
    /// The point.
    pub point: Point,
}
