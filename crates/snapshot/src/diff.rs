//! What changed between two snapshots, or between a snapshot and a living store.
//!
//! The hashes are compared from the top: equal ones need nothing to be read. Only buckets that differ are read, for the
//! ids in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_core::{CollectionName, Context, Lsn, PointId, Result, VectorStore};

use crate::buckets::bucket_hash;
use crate::load;
use crate::manifest::{Bucket, CollectionManifest, Manifest};
use crate::repository::Repository;
use crate::take::each_bucket;
use crate::work::Priority;

/// One page of a living store may take so long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// The points of one collection that differ, ids ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointsDiff {
    /// Only the first has them.
    pub removed: Vec<PointId>,
    /// Only the second has them.
    pub added: Vec<PointId>,
    /// Both have them, with different versions.
    pub changed: Vec<PointId>,
}

/// What differs from the first to the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotDiff {
    /// Collections that only the first has, or that were dropped and created again.
    pub removed: BTreeSet<CollectionName>,
    /// Collections that only the second has, or that were dropped and created again.
    pub added: BTreeSet<CollectionName>,
    /// Collections of both whose points differ.
    pub points: BTreeMap<CollectionName, PointsDiff>,
}

impl SnapshotDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

type Versions = BTreeMap<PointId, Lsn>;

/// What changed from snapshot `a` to snapshot `b`.
///
/// # Errors
/// `Corrupt` with the file's name if a bucket that must be read is damaged; whatever the place runs into.
pub async fn between(repository: &Repository, a: &Manifest, b: &Manifest) -> Result<SnapshotDiff> {
    let mut diff = names(a, b.collections.values().map(|c| (c.spec.name.clone(), c.incarnation)));
    for (name, first) in &a.collections {
        let Some(second) = b.collections.get(name).filter(|_| !diff.removed.contains(name)) else { continue };
        if first.hash() == second.hash() {
            continue;
        }
        let bits = first.bits.min(second.bits);
        let (firsts, seconds) = (by_number(first, bits), by_number(second, bits));
        let mut points = PointsDiff::default();
        for number in firsts.keys().chain(seconds.keys()).collect::<BTreeSet<_>>() {
            let [x, y] = [&firsts, &seconds].map(|all| all.get(number).map_or(&[][..], Vec::as_slice));
            // Only buckets of the same bits have hashes of the same points.
            if first.bits == second.bits && x.iter().map(|b| b.hash).eq(y.iter().map(|b| b.hash)) {
                continue;
            }
            let x = read(repository, first, x).await?;
            let y = read(repository, second, y).await?;
            points.compare(&x, &y);
        }
        diff.take(name, points);
    }
    Ok(diff)
}

/// What changed from a snapshot to what a store holds now. Nobody should write to it meanwhile.
///
/// # Errors
/// As [`between`], and whatever the store runs into.
pub async fn since(repository: &Repository, a: &Manifest, store: &dyn VectorStore) -> Result<SnapshotDiff> {
    let page = || Context::within(PAGE_TIMEOUT);
    let now = store.collections(&page()).await?;
    let mut diff = names(a, now.iter().map(|info| (info.spec.name.clone(), info.incarnation)));
    for (name, collection) in &a.collections {
        if diff.removed.contains(name) {
            continue;
        }
        let buckets = by_number(collection, collection.bits);
        let range = 0..1 << collection.bits;
        let ids = each_bucket(store, name, collection.bits, range, page, Priority::Normal).await?;
        let mut points = PointsDiff::default();
        for (number, ids) in (0..).zip(ids) {
            let before = buckets.get(&number).map_or(&[][..], Vec::as_slice);
            let same = match before {
                [] => ids.is_empty(),
                [bucket, ..] => bucket.hash == bucket_hash(ids.iter().copied()),
            };
            if !same {
                let before = read(repository, collection, before).await?;
                points.compare(&before, &ids.into_iter().collect());
            }
        }
        diff.take(name, points);
    }
    Ok(diff)
}

fn names(a: &Manifest, b: impl Iterator<Item = (CollectionName, Lsn)>) -> SnapshotDiff {
    let first: BTreeSet<_> = a.collections.values().map(|c| (c.spec.name.clone(), c.incarnation)).collect();
    let second: BTreeSet<_> = b.collect();
    let only = |x: &BTreeSet<(CollectionName, Lsn)>, y: &BTreeSet<(CollectionName, Lsn)>| {
        x.difference(y).map(|(name, _)| name.clone()).collect()
    };
    SnapshotDiff { removed: only(&first, &second), added: only(&second, &first), points: BTreeMap::new() }
}

/// The buckets by number as they would be numbered with fewer bits.
fn by_number(collection: &CollectionManifest, bits: u32) -> BTreeMap<u32, Vec<&Bucket>> {
    let mut buckets: BTreeMap<u32, Vec<&Bucket>> = BTreeMap::new();
    for bucket in &collection.buckets {
        buckets.entry(bucket.number >> (collection.bits - bits)).or_default().push(bucket);
    }
    buckets
}

async fn read(
    repository: &Repository,
    collection: &CollectionManifest,
    buckets: &[&Bucket],
) -> Result<Versions> {
    let mut versions = Versions::new();
    for bucket in buckets {
        let records = load::records(repository, collection, bucket).await?;
        versions.extend(records.into_iter().map(|record| (record.point.id, record.version)));
    }
    Ok(versions)
}

impl PointsDiff {
    fn compare(&mut self, a: &Versions, b: &Versions) {
        self.removed.extend(a.keys().filter(|id| !b.contains_key(id)));
        self.added.extend(b.keys().filter(|id| !a.contains_key(id)));
        let changed = a.iter().filter(|(id, version)| b.get(id).is_some_and(|other| other != *version));
        self.changed.extend(changed.map(|(id, _)| *id));
    }
}

impl SnapshotDiff {
    fn take(&mut self, name: &CollectionName, mut points: PointsDiff) {
        for ids in [&mut points.removed, &mut points.added, &mut points.changed] {
            ids.sort_unstable();
        }
        if points != PointsDiff::default() {
            self.points.insert(name.clone(), points);
        }
    }
}
