//! Which points two stores hold differently.
//!
//! Both are read once, ids and versions alone, and hashed in ranges of ids; only ranges whose hashes differ are read
//! again, to say which points it is. Two equal stores cost a scan of each.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay::{CollectionName, Fields, Lsn, PointId, Result, ScrollQuery, VectorStore};
use mainstay_core::digest::{compare, deep_digest_store, digest_store};
use mainstay_core::{Context, Difference, Digest, PointDigest};

/// Points of one page.
const PAGE: usize = 1_000;
/// One page, or the digest of a store.
const TIMEOUT: Duration = Duration::from_secs(3_600);

/// How two stores differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDiff {
    /// Collections that only the first has.
    pub only_in_a: Vec<CollectionName>,
    /// Collections that only the second has.
    pub only_in_b: Vec<CollectionName>,
    /// Collections of one name that were created by different entries.
    pub other_incarnation: Vec<(CollectionName, Lsn, Lsn)>,
    /// Points that differ, by collection.
    pub points: BTreeMap<CollectionName, PointsDiff>,
    /// Points in the first and in the second store.
    pub counts: (u64, u64),
}

/// How the points of a collection differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointsDiff {
    /// Only the first store has them.
    pub only_in_a: Vec<PointId>,
    /// Only the second store has them.
    pub only_in_b: Vec<PointId>,
    /// Both have them, with other versions (or contents, in a deep comparison).
    pub changed: Vec<PointId>,
}

impl StoreDiff {
    /// Whether the stores are equal.
    pub fn is_empty(&self) -> bool {
        self.only_in_a.is_empty()
            && self.only_in_b.is_empty()
            && self.other_incarnation.is_empty()
            && self.points.is_empty()
    }
}

/// Compares two stores that nobody writes to meanwhile: by ids and versions, or deep, by everything.
///
/// # Errors
/// Whatever a store runs into.
pub async fn diff(a: &dyn VectorStore, b: &dyn VectorStore, deep: bool) -> Result<StoreDiff> {
    let cx = Context::within(TIMEOUT);
    let (left, right) = if deep {
        (deep_digest_store(a, &cx).await?, deep_digest_store(b, &cx).await?)
    } else {
        (digest_store(a, &cx).await?, digest_store(b, &cx).await?)
    };
    let count = |digests: &[mainstay::CollectionDigest]| digests.iter().map(|digest| digest.points).sum();
    let mut found = StoreDiff { counts: (count(&left), count(&right)), ..StoreDiff::default() };
    for difference in compare(&left, &right) {
        match difference {
            Difference::OnlyInA(name) => found.only_in_a.push(name),
            Difference::OnlyInB(name) => found.only_in_b.push(name),
            Difference::Incarnation { name, a, b } => found.other_incarnation.push((name, a, b)),
            Difference::Points { name, spans, .. } => {
                let mut points = PointsDiff::default();
                for span in spans {
                    let (in_a, in_b) =
                        (hashes(a, &name, span, deep).await?, hashes(b, &name, span, deep).await?);
                    points.add(&in_a, &in_b);
                }
                found.points.insert(name, points);
            }
        }
    }
    Ok(found)
}

impl PointsDiff {
    fn add(&mut self, a: &BTreeMap<PointId, Digest>, b: &BTreeMap<PointId, Digest>) {
        for (id, hash) in a {
            match b.get(id) {
                None => self.only_in_a.push(*id),
                Some(other) if other != hash => self.changed.push(*id),
                Some(_) => {}
            }
        }
        self.only_in_b.extend(b.keys().filter(|id| !a.contains_key(id)));
    }
}

/// The hashes of the points in a span of ids.
async fn hashes(
    store: &dyn VectorStore,
    name: &CollectionName,
    (first, last): (PointId, PointId),
    deep: bool,
) -> Result<BTreeMap<PointId, Digest>> {
    let fields = if deep { Fields::ALL } else { Fields::NONE };
    let mut query = ScrollQuery { limit: PAGE, fields, after: before(first), ..ScrollQuery::default() };
    let mut hashes = BTreeMap::new();
    loop {
        let page = store.scroll(&Context::within(TIMEOUT), name, &query).await?;
        for record in page.records {
            if record.point.id > last {
                return Ok(hashes);
            }
            if record.point.id >= first {
                let hash = if deep {
                    PointDigest::deep(&record)
                } else {
                    PointDigest::of(record.point.id, record.version)
                };
                hashes.insert(record.point.id, hash.0);
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(hashes),
        }
    }
}

/// An id that a scroll starts after to begin with this one; `None` for the first of all.
fn before(id: PointId) -> Option<PointId> {
    match id {
        PointId::Num(id) => id.checked_sub(1).map(PointId::Num),
        PointId::Uuid(id) => Some(
            id.as_u128()
                .checked_sub(1)
                .map_or(PointId::Num(u64::MAX), |id| PointId::Uuid(uuid::Uuid::from_u128(id))),
        ),
    }
}
