//! An entry as bytes.
//!
//! ```text
//! version u8 = 1 | lsn u64 BE | hash of the entry before, 32 bytes | body | hash, 32 bytes
//! ```
//!
//! The hash is BLAKE3 over everything before it, and is the entry's hash in positions and in the entry
//! after it. The body is postcard; payloads are JSON text in it, vectors little-endian f32.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::point::le_bytes;
use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Distance, Entry, EntryHash, Error, ErrorKind, Lsn, Op,
    Payload, PayloadIndex, PayloadPatch, Point, PointId, Result, SparseVector, StoreId, Vector, VectorName,
    VectorSpec,
};
use serde::{Deserialize, Serialize};

use crate::catalog::{Collection, Collections};
use crate::sabotage::{self, Bug};

const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 8 + HASH_BYTES;

/// Encodes an entry and answers its hash.
pub fn encode(lsn: Lsn, before: EntryHash, op: &Op) -> Result<(Vec<u8>, EntryHash)> {
    let mut bytes = Vec::with_capacity(about(op));
    bytes.push(VERSION);
    bytes.extend(lsn.0.to_be_bytes());
    bytes.extend(before.0);
    // Slices at once; `to_extend` takes them as iterators of bytes.
    let mut bytes = postcard::to_io(&WireOp::of(op)?, bytes).map_err(unencodable)?;
    let hash = EntryHash(*blake3::hash(&bytes).as_bytes());
    bytes.extend(hash.0);
    Ok((bytes, hash))
}

/// About how many bytes an entry takes; a larger one only costs a copy.
fn about(op: &Op) -> usize {
    const FRAME: usize = 256;
    match op {
        Op::Upsert { points, .. } => {
            FRAME + points.iter().map(|point| point.size_bytes() + 16).sum::<usize>()
        }
        _ => FRAME,
    }
}

/// Decodes the entry `lsn` that must follow the hash `before`; `None` checks the entry alone.
///
/// # Errors
/// `Corrupt` with the LSN.
pub fn decode(lsn: Lsn, before: Option<EntryHash>, bytes: &[u8]) -> Result<Entry> {
    let corrupt = |what: &str| {
        Error::new(ErrorKind::Corrupt, format!("entry {lsn} of the log is damaged: {what}")).with_lsn(lsn)
    };
    if bytes.len() < HEAD_BYTES + HASH_BYTES {
        return Err(corrupt("it is too short"));
    }
    let (covered, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
    if blake3::hash(covered).as_bytes() != hash && !sabotage::on(Bug::ChecksumIgnored) {
        return Err(corrupt("its checksum does not match"));
    }
    if covered[0] != VERSION {
        return Err(corrupt(&format!("its format is version {}, this program reads {VERSION}", covered[0])));
    }
    if covered[1..9] != lsn.0.to_be_bytes() {
        return Err(corrupt("it carries the number of another entry"));
    }
    if before.is_some_and(|before| covered[9..HEAD_BYTES] != before.0) {
        return Err(corrupt("it does not follow the entry before it"));
    }
    let wire: WireOp =
        postcard::from_bytes(&covered[HEAD_BYTES..]).map_err(|error| corrupt(&error.to_string()))?;
    let op = wire.into_op().map_err(|error| corrupt(&error.to_string()))?;
    let hash = EntryHash(hash.try_into().map_err(|_| corrupt("its checksum is short"))?);
    Ok(Entry { lsn, hash, op, size_bytes: bytes.len() })
}

/// Encodes the collections of a checkpoint.
pub fn encode_collections(collections: &Collections) -> Result<Vec<u8>> {
    let wire: Vec<(u64, WireSpec)> =
        collections.values().map(|c| (c.incarnation.0, WireSpec::of(&c.spec))).collect();
    postcard::to_stdvec(&wire).map_err(unencodable)
}

/// Decodes the collections of a checkpoint.
///
/// # Errors
/// `Corrupt`.
pub fn decode_collections(bytes: &[u8]) -> Result<Collections> {
    let corrupt =
        |error: String| Error::new(ErrorKind::Corrupt, format!("the log's checkpoint is damaged: {error}"));
    let wire: Vec<(u64, WireSpec)> =
        postcard::from_bytes(bytes).map_err(|error| corrupt(error.to_string()))?;
    wire.into_iter()
        .map(|(incarnation, spec)| {
            let spec = spec.into_spec()?;
            Ok((spec.name.clone(), Collection { spec: Arc::new(spec), incarnation: Lsn(incarnation) }))
        })
        .collect::<Result<_>>()
        .map_err(|error| corrupt(error.to_string()))
}

fn unencodable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "an entry could not be encoded").with_source(error)
}

/// An operation; what is large in it stays where it is, in the operation or in the encoded bytes.
#[derive(Serialize, Deserialize)]
enum WireOp<'a> {
    Create(WireSpec),
    Drop(WireRef<'a>),
    Upsert(#[serde(borrow)] WireRef<'a>, #[serde(borrow)] Vec<WirePoint<'a>>),
    Delete(WireRef<'a>, Vec<WireId>),
    Patch(WireRef<'a>, Vec<WireId>, WirePatch),
    /// The spec, and the id of the store that holds the points.
    Adopt(WireSpec, u128),
}

#[derive(Serialize, Deserialize)]
struct WireRef<'a> {
    name: &'a str,
    incarnation: u64,
}

#[derive(Serialize, Deserialize)]
enum WireId {
    Num(u64),
    Uuid(u128),
}

#[derive(Serialize, Deserialize)]
struct WireSpec {
    name: String,
    vectors: BTreeMap<String, WireVectorSpec>,
    payload_indexes: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
enum WireVectorSpec {
    Dense(u32, String),
    Sparse,
}

#[derive(Serialize, Deserialize)]
struct WirePoint<'a> {
    id: WireId,
    #[serde(borrow)]
    vectors: Vec<(&'a str, WireVector<'a>)>,
    /// JSON text; empty stands for no payload.
    #[serde(borrow)]
    payload: Cow<'a, str>,
    text: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
enum WireVector<'a> {
    Dense(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
    Sparse(Cow<'a, [u32]>, #[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
}

#[derive(Serialize, Deserialize)]
enum WirePatch {
    Set(String),
    Delete(Vec<String>),
    Overwrite(String),
}

impl<'a> WireOp<'a> {
    fn of(op: &'a Op) -> Result<Self> {
        Ok(match op {
            Op::CreateCollection(spec) => Self::Create(WireSpec::of(spec)),
            Op::AdoptCollection { spec, store } => Self::Adopt(WireSpec::of(spec), store.0.as_u128()),
            Op::DropCollection(collection) => Self::Drop(WireRef::of(collection)),
            Op::Upsert { collection, points } => {
                let points = points.iter().map(|point| WirePoint::of(point)).collect::<Result<_>>()?;
                Self::Upsert(WireRef::of(collection), points)
            }
            Op::Delete { collection, ids } => Self::Delete(WireRef::of(collection), wire_ids(ids)),
            Op::PatchPayload { collection, ids, patch } => {
                Self::Patch(WireRef::of(collection), wire_ids(ids), WirePatch::of(patch)?)
            }
        })
    }

    fn into_op(self) -> Result<Op> {
        let ids = |wire: Vec<WireId>| wire.into_iter().map(PointId::from).collect();
        Ok(match self {
            Self::Create(spec) => Op::CreateCollection(spec.into_spec()?),
            Self::Adopt(spec, store) => {
                Op::AdoptCollection { spec: spec.into_spec()?, store: StoreId(uuid::Uuid::from_u128(store)) }
            }
            Self::Drop(collection) => Op::DropCollection(collection.into_ref()?),
            Self::Upsert(collection, points) => Op::Upsert {
                collection: collection.into_ref()?,
                points: points.into_iter().map(|p| p.into_point().map(Arc::new)).collect::<Result<_>>()?,
            },
            Self::Delete(collection, wire) => {
                Op::Delete { collection: collection.into_ref()?, ids: ids(wire) }
            }
            Self::Patch(collection, wire, patch) => Op::PatchPayload {
                collection: collection.into_ref()?,
                ids: ids(wire),
                patch: patch.into_patch()?,
            },
        })
    }
}

fn wire_ids(ids: &[PointId]) -> Vec<WireId> {
    ids.iter().copied().map(WireId::from).collect()
}

impl From<PointId> for WireId {
    fn from(id: PointId) -> Self {
        match id {
            PointId::Num(n) => Self::Num(n),
            PointId::Uuid(u) => Self::Uuid(u.as_u128()),
        }
    }
}

impl From<WireId> for PointId {
    fn from(id: WireId) -> Self {
        match id {
            WireId::Num(n) => Self::Num(n),
            WireId::Uuid(u) => Self::Uuid(uuid::Uuid::from_u128(u)),
        }
    }
}

impl<'a> WireRef<'a> {
    fn of(collection: &'a CollectionRef) -> Self {
        Self { name: collection.name.as_str(), incarnation: collection.incarnation.0 }
    }

    fn into_ref(self) -> Result<CollectionRef> {
        Ok(CollectionRef { name: CollectionName::new(self.name)?, incarnation: Lsn(self.incarnation) })
    }
}

impl WireSpec {
    fn of(spec: &CollectionSpec) -> Self {
        let vector = |vector: &VectorSpec| match vector {
            // Dimensions are at most 65,536.
            VectorSpec::Dense { dimension, distance } => WireVectorSpec::Dense(
                u32::try_from(*dimension).unwrap_or(u32::MAX),
                distance.as_str().to_owned(),
            ),
            VectorSpec::Sparse => WireVectorSpec::Sparse,
        };
        Self {
            name: spec.name.as_str().to_owned(),
            vectors: spec.vectors.iter().map(|(n, v)| (n.as_str().to_owned(), vector(v))).collect(),
            payload_indexes: spec
                .payload_indexes
                .iter()
                .map(|(p, k)| (p.to_string(), k.as_str().to_owned()))
                .collect(),
        }
    }

    fn into_spec(self) -> Result<CollectionSpec> {
        let vector = |wire: WireVectorSpec| -> Result<VectorSpec> {
            Ok(match wire {
                WireVectorSpec::Dense(dimension, distance) => {
                    VectorSpec::Dense { dimension: dimension as usize, distance: Distance::parse(&distance)? }
                }
                WireVectorSpec::Sparse => VectorSpec::Sparse,
            })
        };
        let spec = CollectionSpec {
            name: CollectionName::new(&self.name)?,
            vectors: self
                .vectors
                .into_iter()
                .map(|(n, v)| Ok((VectorName::new(&n)?, vector(v)?)))
                .collect::<Result<_>>()?,
            payload_indexes: self
                .payload_indexes
                .into_iter()
                .map(|(path, kind)| Ok((path.parse()?, PayloadIndex::parse(&kind)?)))
                .collect::<Result<_>>()?,
        };
        spec.check()?;
        Ok(spec)
    }
}

impl<'a> WirePoint<'a> {
    fn of(point: &'a Point) -> Result<Self> {
        let vectors = point.vectors.iter().map(|(name, vector)| (name.as_str(), WireVector::of(vector)));
        Ok(Self {
            id: point.id.into(),
            vectors: vectors.collect(),
            payload: payload_text(&point.payload)?.into(),
            text: point.text.as_deref(),
        })
    }

    fn into_point(self) -> Result<Point> {
        let vectors = self.vectors.into_iter();
        Ok(Point {
            id: self.id.into(),
            vectors: vectors
                .map(|(n, v)| Ok((VectorName::new(n)?, v.into_vector())))
                .collect::<Result<_>>()?,
            payload: payload_of(&self.payload)?,
            text: self.text.map(str::to_owned),
        })
    }
}

fn payload_text(payload: &Payload) -> Result<String> {
    if payload.is_empty() { Ok(String::new()) } else { serde_json::to_string(payload).map_err(unencodable) }
}

fn payload_of(text: &str) -> Result<Payload> {
    if text.is_empty() {
        return Ok(Payload::new());
    }
    serde_json::from_str(text)
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("its payload: {error}")))
}

fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

impl<'a> WireVector<'a> {
    fn of(vector: &'a Vector) -> Self {
        match vector {
            Vector::Dense(values) => Self::Dense(le_bytes(values)),
            Vector::Sparse(sparse) => Self::Sparse(Cow::Borrowed(&sparse.indices), le_bytes(&sparse.values)),
        }
    }

    fn into_vector(self) -> Vector {
        match self {
            Self::Dense(bytes) => Vector::Dense(f32_values(&bytes)),
            Self::Sparse(indices, bytes) => {
                Vector::Sparse(SparseVector { indices: indices.into_owned(), values: f32_values(&bytes) })
            }
        }
    }
}

impl WirePatch {
    fn of(patch: &PayloadPatch) -> Result<Self> {
        Ok(match patch {
            PayloadPatch::Set(payload) => Self::Set(payload_text(payload)?),
            PayloadPatch::Delete(paths) => Self::Delete(paths.iter().map(ToString::to_string).collect()),
            PayloadPatch::Overwrite(payload) => Self::Overwrite(payload_text(payload)?),
        })
    }

    fn into_patch(self) -> Result<PayloadPatch> {
        Ok(match self {
            Self::Set(text) => PayloadPatch::Set(payload_of(&text)?),
            Self::Delete(paths) => {
                PayloadPatch::Delete(paths.iter().map(|p| p.parse()).collect::<Result<_>>()?)
            }
            Self::Overwrite(text) => PayloadPatch::Overwrite(payload_of(&text)?),
        })
    }
}
