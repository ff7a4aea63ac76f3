//! What goes into the hashes. Everything of variable length is preceded by its length and every
//! choice by a tag, so that no two contents give the same bytes.

use serde_json::Value;

use super::{Digest, RANGE_POINTS, RangeDigest};
use crate::id::{Lsn, PointId};
use crate::point::{Payload, Record, Vector};

/// The hash of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointDigest(pub Digest);

impl PointDigest {
    /// Of its id and version.
    pub fn of(id: PointId, version: Lsn) -> Self {
        let mut bytes = [0; 25];
        bytes[..17].copy_from_slice(&id.to_key());
        bytes[17..].copy_from_slice(&version.0.to_be_bytes());
        Self(Digest(blake3::hash(&bytes).into()))
    }

    /// Of everything that it holds.
    pub fn deep(record: &Record) -> Self {
        let mut bytes = Vec::new();
        let point = &record.point;
        bytes.extend_from_slice(&point.id.to_key());
        put_u64(&mut bytes, record.version.0);
        put_len(&mut bytes, point.vectors.len());
        for (name, vector) in &point.vectors {
            put_text(&mut bytes, name.as_str());
            match vector {
                Vector::Dense(values) => {
                    bytes.push(0);
                    put_floats(&mut bytes, values);
                }
                Vector::Sparse(sparse) => {
                    bytes.push(1);
                    put_len(&mut bytes, sparse.indices.len());
                    sparse.indices.iter().for_each(|i| bytes.extend_from_slice(&i.to_be_bytes()));
                    put_floats(&mut bytes, &sparse.values);
                }
            }
        }
        put_object(&mut bytes, &point.payload);
        match &point.text {
            None => bytes.push(0),
            Some(text) => {
                bytes.push(1);
                put_text(&mut bytes, text);
            }
        }
        Self(Digest(blake3::hash(&bytes).into()))
    }
}

fn put_u64(bytes: &mut Vec<u8>, n: u64) {
    bytes.extend_from_slice(&n.to_be_bytes());
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    put_u64(bytes, len as u64);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_floats(bytes: &mut Vec<u8>, values: &[f32]) {
    put_len(bytes, values.len());
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_bits().to_be_bytes()));
}

fn put_object(bytes: &mut Vec<u8>, object: &Payload) {
    // The map may keep the order of insertion, which stores do not.
    let mut pairs: Vec<_> = object.iter().collect();
    pairs.sort_unstable_by_key(|(key, _)| *key);
    put_len(bytes, pairs.len());
    for (key, value) in pairs {
        put_text(bytes, key);
        put_value(bytes, value);
    }
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(0),
        Value::Bool(false) => bytes.push(1),
        Value::Bool(true) => bytes.push(2),
        Value::Number(number) => {
            bytes.push(3);
            put_text(bytes, &number.to_string());
        }
        Value::String(text) => {
            bytes.push(4);
            put_text(bytes, text);
        }
        Value::Array(values) => {
            bytes.push(5);
            put_len(bytes, values.len());
            values.iter().for_each(|value| put_value(bytes, value));
        }
        Value::Object(object) => {
            bytes.push(6);
            put_object(bytes, object);
        }
    }
}

/// Cuts points, ids ascending, into ranges.
#[derive(Default)]
pub(super) struct RangeHasher {
    done: Vec<RangeDigest>,
    open: Option<(PointId, PointId, u64, blake3::Hasher)>,
}

impl RangeHasher {
    pub(super) fn add(&mut self, id: PointId, point: &PointDigest) {
        let (_, last, points, hasher) = self.open.get_or_insert_with(|| (id, id, 0, blake3::Hasher::new()));
        *last = id;
        *points += 1;
        hasher.update(&id.to_key());
        hasher.update(&point.0.0);
        if ends_range(id) {
            self.close();
        }
    }

    pub(super) fn finish(mut self) -> Vec<RangeDigest> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if let Some((first, last, points, hasher)) = self.open.take() {
            let hash = Digest(hasher.finalize().into());
            self.done.push(RangeDigest { first, last, points, hash });
        }
    }
}

/// Whether a range ends behind this id. Looks at the id alone, so that all stores agree.
fn ends_range(id: PointId) -> bool {
    // FNV-1a with a final mix, since FNV alone leaves the last bits of similar keys similar.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.to_key() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ (hash >> 33)).is_multiple_of(RANGE_POINTS)
}

pub(super) fn fold(deep: bool, incarnation: Lsn, points: u64, ranges: &[RangeDigest]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(deep)]);
    hasher.update(&incarnation.0.to_be_bytes());
    hasher.update(&points.to_be_bytes());
    for range in ranges {
        hasher.update(&range.hash.0);
    }
    Digest(hasher.finalize().into())
}
