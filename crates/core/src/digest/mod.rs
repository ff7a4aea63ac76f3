//! Content hashes that compare stores.
//!
//! A collection is read in the order of its ids and cut into ranges; each range has a hash, and the
//! hashes of the ranges fold into the root. Two stores hold the same points exactly if their roots
//! are equal, and where they are not, the ranges say in which ids to look.
//!
//! ```text
//! point   = BLAKE3(id key, version)             or, deep, of everything that the point holds
//! range   = BLAKE3(id key, point, id key, point, …)
//! root    = BLAKE3(incarnation, points, range, range, …)
//! ```
//!
//! A range ends behind an id whose own hash says so (about every [`RANGE_POINTS`] points), not after
//! a fixed number of points. So one missing point changes one range and not all that follow.
//!
//! The plain digest covers ids and versions, which no rounding can disturb. The deep one also covers
//! vectors bit by bit, payloads in canonical form (keys sorted) and texts; its root is never equal to
//! a plain one.
//!
//! A digest of a store that is written to meanwhile is of no one moment: compare stores at rest.

mod compare;
mod hash;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::compare::{Difference, compare};
pub use self::hash::PointDigest;
use self::hash::{RangeHasher, fold};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::point::Record;
use crate::query::{Fields, MAX_LIMIT, ScrollQuery};
use crate::store::{Context, VectorStore};

/// How many points a range has on average.
pub const RANGE_POINTS: u64 = 1_024;
/// How many points one page of a plain digest asks for.
const PAGE: usize = MAX_LIMIT;
/// As much for a deep digest, whose points are large.
const DEEP_PAGE: usize = 256;

/// A BLAKE3 hash; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The hash of the points whose ids lie between two ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDigest {
    /// The lowest id that is there.
    pub first: PointId,
    /// The highest id that is there.
    pub last: PointId,
    /// How many points there are.
    pub points: u64,
    /// Their hash.
    pub hash: Digest,
}

/// The hash of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionDigest {
    /// The collection.
    pub name: CollectionName,
    /// The LSN that created it.
    pub incarnation: Lsn,
    /// How many points it holds.
    pub points: u64,
    /// The root: equal roots, equal points.
    pub hash: Digest,
    /// The ranges, ids ascending.
    pub ranges: Vec<RangeDigest>,
}

impl fmt::Display for CollectionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} points)", self.hash, self.name, self.points)
    }
}

/// The digest of ids and versions of one collection.
///
/// # Errors
/// `NotFound`; `Unavailable` if the collection was dropped and created again meanwhile; `Internal` if
/// the store does not scroll in the order of ids; and whatever the store runs into.
pub async fn digest_collection<S: VectorStore + ?Sized>(
    store: &S,
    cx: &Context,
    name: &CollectionName,
) -> Result<CollectionDigest> {
    read(store, cx, name, Depth::Versions).await
}

/// The digest of everything that the points of one collection hold.
///
/// # Errors
/// As [`digest_collection`].
pub async fn deep_digest<S: VectorStore + ?Sized>(
    store: &S,
    cx: &Context,
    name: &CollectionName,
) -> Result<CollectionDigest> {
    read(store, cx, name, Depth::Content).await
}

/// The digests of ids and versions of all collections, by name.
///
/// # Errors
/// As [`digest_collection`].
pub async fn digest_store<S: VectorStore + ?Sized>(store: &S, cx: &Context) -> Result<Vec<CollectionDigest>> {
    read_all(store, cx, Depth::Versions).await
}

/// The digests of everything in all collections, by name.
///
/// # Errors
/// As [`digest_collection`].
pub async fn deep_digest_store<S: VectorStore + ?Sized>(
    store: &S,
    cx: &Context,
) -> Result<Vec<CollectionDigest>> {
    read_all(store, cx, Depth::Content).await
}

#[derive(Clone, Copy)]
enum Depth {
    Versions,
    Content,
}

async fn read_all<S: VectorStore + ?Sized>(
    store: &S,
    cx: &Context,
    depth: Depth,
) -> Result<Vec<CollectionDigest>> {
    let mut digests = Vec::new();
    for collection in store.collections(cx).await? {
        digests.push(read(store, cx, &collection.spec.name, depth).await?);
    }
    digests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(digests)
}

async fn read<S: VectorStore + ?Sized>(
    store: &S,
    cx: &Context,
    name: &CollectionName,
    depth: Depth,
) -> Result<CollectionDigest> {
    let (fields, limit) = match depth {
        Depth::Versions => (Fields::NONE, PAGE),
        Depth::Content => (Fields::ALL, DEEP_PAGE),
    };
    let mut query = ScrollQuery { after: None, limit, filter: None, fields };
    let mut incarnation = None;
    let mut hasher = RangeHasher::default();
    loop {
        let page = store.scroll(cx, name, &query).await?;
        if *incarnation.get_or_insert(page.incarnation) != page.incarnation {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the collection was dropped and created again while it was read; read it again",
            )
            .with_collection(name));
        }
        for record in &page.records {
            check_order(query.after, record, name)?;
            query.after = Some(record.point.id);
            let point = match depth {
                Depth::Versions => PointDigest::of(record.point.id, record.version),
                Depth::Content => PointDigest::deep(record),
            };
            hasher.add(record.point.id, &point);
        }
        if page.next.is_none() {
            break;
        }
        if page.records.is_empty() {
            return Err(out_of_order(name, "an empty page that is not the last"));
        }
    }
    let incarnation = incarnation.unwrap_or(Lsn::ZERO);
    let ranges = hasher.finish();
    let points = ranges.iter().map(|range| range.points).sum();
    let hash = fold(matches!(depth, Depth::Content), incarnation, points, &ranges);
    Ok(CollectionDigest { name: name.clone(), incarnation, points, hash, ranges })
}

fn check_order(after: Option<PointId>, record: &Record, name: &CollectionName) -> Result<()> {
    let id = record.point.id;
    match after {
        Some(after) if id <= after => Err(out_of_order(name, &format!("point {id} after point {after}"))),
        _ => Ok(()),
    }
}

fn out_of_order(name: &CollectionName, what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the store scrolled out of order: {what}")).with_collection(name)
}
