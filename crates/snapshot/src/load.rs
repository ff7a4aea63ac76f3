//! A snapshot back into a store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_core::expected::MAX_SAMPLE;
use mainstay_core::parts::parts;
use mainstay_core::{
    CollectionName, CollectionRef, Context, Error, ErrorKind, Expected, Record, RestoreStep, Result,
    VectorStore,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::buckets::{bucket_hash, bucket_of};
use crate::graphs;
use crate::layout::{self, SnapshotId};
use crate::manifest::{Bucket, CollectionManifest, Manifest};
use crate::repository::Repository;

/// One step of loading may take so long.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);
/// Buckets that are read ahead; the first ones while the store takes its graphs.
const AHEAD: usize = 6;
/// Points that the store is given at once.
const STEP: usize = 4_000;
/// Bytes of points that it is given at once.
const STEP_BYTES: usize = 64 << 20;
/// How often the mark of a restore is renewed.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// Which side of a load failed.
#[derive(Debug)]
pub enum LoadError {
    /// The snapshot could not be read.
    Snapshot(Error),
    /// The store could not be loaded.
    Store(Error),
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Snapshot(error) | LoadError::Store(error) => error,
        }
    }
}

/// Loads the collections of a snapshot into a store: everything but the last step, [`RestoreStep::Finish`] with
/// the snapshot's `from`, which is the caller's. Until then the store counts as empty. `only` names the collections that
/// are wanted, if not all are.
///
/// # Errors
/// Which of both failed, and why: `Corrupt` with the file's name if the snapshot is damaged, `NotFound` for a collection that
/// is not in it, and whatever the store runs into.
pub async fn load(
    repository: &Repository,
    manifest: &Manifest,
    into: &dyn VectorStore,
    only: Option<&BTreeSet<CollectionName>>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), LoadError> {
    let mut mark = Mark::set(repository, manifest.id).await;
    let loaded = load_marked(&mut mark, manifest, into, only, progress).await;
    mark.remove().await;
    loaded
}

/// The same under a mark that is set, for who has more to read than the snapshot.
///
/// # Errors
/// As [`load`].
pub async fn load_marked(
    mark: &mut Mark<'_>,
    manifest: &Manifest,
    into: &dyn VectorStore,
    only: Option<&BTreeSet<CollectionName>>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), LoadError> {
    use LoadError::{Snapshot, Store};
    let (repository, wanted) = (mark.repository, wanted(manifest, only).map_err(Snapshot)?);
    let mut expected = Vec::new();
    for collection in &wanted {
        expected.push(expect(repository, collection).await.map_err(Snapshot)?);
    }
    into.expect(&step(), &expected).await.map_err(Store)?;
    into.restore(&step(), RestoreStep::Begin).await.map_err(Store)?;
    let total = wanted.iter().map(|collection| collection.points()).sum();
    let mut done = 0;
    for collection in wanted {
        let (spec, incarnation) = (&collection.spec, collection.incarnation);
        into.restore(&step(), RestoreStep::Collection { spec, incarnation }).await.map_err(Store)?;
        let mut reading = Reading::new(repository, collection);
        graphs::load(repository, collection, into, &step()).await.map_err(Store)?;
        let target = CollectionRef { name: spec.name.clone(), incarnation };
        loop {
            let sized = reading.step().await.map_err(Snapshot)?;
            if sized.is_empty() {
                break;
            }
            for records in parts(sized, STEP, STEP_BYTES) {
                done += records.len() as u64;
                into.restore(&step(), RestoreStep::Points { collection: &target, records })
                    .await
                    .map_err(Store)?;
                progress(done, total);
            }
            mark.renew().await;
        }
    }
    Ok(())
}

/// The collections of a snapshot that are wanted.
fn wanted<'a>(
    manifest: &'a Manifest,
    only: Option<&BTreeSet<CollectionName>>,
) -> Result<Vec<&'a CollectionManifest>> {
    let Some(only) = only else { return Ok(manifest.collections.values().collect()) };
    let find = |name| {
        manifest.collections.get(name).ok_or_else(|| {
            let there: Vec<_> = manifest.collections.keys().map(CollectionName::as_str).collect();
            let text =
                format!("snapshot {} has no collection `{name}`; it has: {}", manifest.id, there.join(", "));
            Error::new(ErrorKind::NotFound, text)
        })
    };
    only.iter().map(find).collect()
}

/// Buckets on their way, which are read while the store is busy with those before; in no order.
struct Reading {
    repository: Repository,
    collection: Arc<CollectionManifest>,
    next: usize,
    tasks: JoinSet<Result<Vec<Record>>>,
}

impl Reading {
    fn new(repository: &Repository, collection: &CollectionManifest) -> Self {
        let (repository, collection) = (repository.clone(), Arc::new(collection.clone()));
        let mut reading = Self { repository, collection, next: 0, tasks: JoinSet::new() };
        (0..AHEAD).for_each(|_| reading.begin());
        reading
    }

    fn begin(&mut self) {
        let Some(bucket) = self.collection.buckets.get(self.next).cloned() else { return };
        let (repository, collection) = (self.repository.clone(), Arc::clone(&self.collection));
        self.next += 1;
        self.tasks.spawn(async move { records(&repository, &collection, &bucket).await });
    }

    /// Points enough for a step, each with its size in bytes, of as many buckets as that takes; none after the last one.
    async fn step(&mut self) -> Result<Vec<(usize, Record)>> {
        let (mut sized, mut bytes) = (Vec::new(), 0);
        while sized.len() < STEP && bytes < STEP_BYTES {
            let Some(records) = self.next().await? else { break };
            sized.extend(records.into_iter().map(|record| {
                let size = record.point.size_bytes();
                bytes += size;
                (size, record)
            }));
        }
        Ok(sized)
    }

    /// The points of a bucket; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        let Some(read) = self.tasks.join_next().await else { return Ok(None) };
        self.begin();
        let broken = |error| Error::new(ErrorKind::Internal, "reading a bucket broke off").with_source(error);
        read.map_err(broken)?.map(Some)
    }
}

/// The points of a bucket, ids ascending; exactly those that the manifest speaks of.
///
/// # Errors
/// `Corrupt` with the file's name.
pub async fn records(
    repository: &Repository,
    collection: &CollectionManifest,
    bucket: &Bucket,
) -> Result<Vec<Record>> {
    let mut found: Vec<Record> = Vec::new();
    for file in &bucket.files {
        let records = repository.records(&collection.spec, *file).await?;
        // Noticed before there are many of them in memory.
        if let (Some(last), Some(first)) = (found.last(), records.first())
            && first.point.id <= last.point.id
        {
            let path = layout::bucket(file.hash).to_string();
            return Err(repository.damaged(&path, "its ids are not beyond those of the file before it"));
        }
        found.extend(records);
    }
    let of_this = |record: &Record| bucket_of(record.point.id, collection.bits) == bucket.number;
    if !found.iter().all(of_this)
        || bucket_hash(found.iter().map(|record| (record.point.id, record.version))) != bucket.hash
    {
        let first = bucket.files.first().map(|file| layout::bucket(file.hash).to_string());
        let text =
            format!("it does not hold the points of bucket {} of `{}`", bucket.number, collection.spec.name);
        return Err(repository.damaged(&first.unwrap_or_default(), &text));
    }
    Ok(found)
}

async fn expect(repository: &Repository, collection: &CollectionManifest) -> Result<Expected> {
    let sample = match collection.buckets.first().and_then(|bucket| bucket.files.first()) {
        Some(file) => repository.records(&collection.spec, *file).await?,
        None => Vec::new(),
    };
    let sample = sample.into_iter().take(MAX_SAMPLE).map(|record| Arc::new(record.point)).collect();
    Ok(Expected { spec: collection.spec.clone(), points: collection.points(), sample })
}

fn step() -> Context {
    Context::within(STEP_TIMEOUT)
}

/// Tells whoever prunes the repository, in whatever process, that a snapshot is being read. A place that cannot be
/// written to is read all the same.
pub struct Mark<'a> {
    repository: &'a Repository,
    path: object_store::path::Path,
    renewed: Instant,
}

impl<'a> Mark<'a> {
    /// Sets one.
    pub async fn set(repository: &'a Repository, id: SnapshotId) -> Self {
        let path = layout::in_use(id, Uuid::new_v4());
        let mark = Self { repository, path, renewed: Instant::now() };
        mark.write().await;
        mark
    }

    async fn write(&self) {
        if let Err(error) = self.repository.touch(&self.path, Bytes::new()).await {
            tracing::debug!(%error, "a restore could not be marked");
        }
    }

    /// Sets it again once it is a minute old, because an old one counts for nothing.
    pub async fn renew(&mut self) {
        if self.renewed.elapsed() >= MARK_EVERY {
            self.write().await;
            self.renewed = Instant::now();
        }
    }

    /// The snapshot is read.
    pub async fn remove(self) {
        if let Err(error) = self.repository.remove(&self.path).await {
            tracing::debug!(%error, "the mark of a restore stays until it is old");
        }
    }
}
