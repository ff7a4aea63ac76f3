//! Making a snapshot while writes go on.
//!
//! The source is read while it moves from entry `from` to entry `to`. Its ids and versions are read first; a bucket
//! whose ids and versions are those of the snapshot before needs no points, and its files are listed again. The points of
//! the others are read by id. Replaying `from` to `to` makes the result exact, as after a load from another member.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use mainstay_core::{
    CollectionInfo, CollectionName, CollectionSpec, Context, Error, ErrorKind, Fields, Lsn, PointId,
    Position, Record, Result, VectorSpec, VectorStore, VersionsPage,
};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::buckets::{bucket_hash, bucket_of, fitting_bits};
use crate::columns;
use crate::graphs;
use crate::layout::{self, ContentHash, SnapshotId, to_millis};
use crate::manifest::{Bucket, BucketFile, CollectionManifest, GraphManifest, Manifest, Source};
use crate::repository::Repository;
use crate::work::{Priority, blocking};

/// About what payload and text of a point take, before anything is known of them.
const PAYLOAD_BYTES: u64 = 512;
/// Points of about so many bytes make a file; a bucket with more has several.
const FILE_BYTES: usize = 32 << 20;
/// How many ids are asked for at once.
const GET: usize = 512;
/// How many ids and versions are read at once; few in tests, so that they come in pages there too.
const PAGE: usize = if cfg!(test) { 16 } else { 4_000 };
/// Ids and versions held in memory at once; a larger collection is gone through several times.
const MAX_IDS: u64 = 8 << 20;
/// Buckets under way: one is read while another is packed, and others wait for the disk. So many pages of ids too.
const AHEAD: usize = 6;
/// The same where others have work to do: with low priority one is packed while another is read or waits for the disk, and
/// without it no more than one processor is taken.
const AHEAD_AT_A_RATE: usize = if cfg!(target_os = "linux") { 2 } else { 1 };
/// Sizes may change so many times over before the number of buckets does, and with it every bucket.
const SLACK_BITS: u32 = 2;

/// How a snapshot is made.
#[derive(Clone, Copy, Debug)]
pub struct TakeOptions {
    /// Most bytes of points that are read each second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// One page of the source may take so long.
    pub page_timeout: Duration,
    /// About how many bytes of points a bucket has; down to a quarter of it in a collection that would have fewer than 128
    /// buckets. 2 MiB, by default: files of about a megabyte suit disks and object stores, and a few changed points cost
    /// few of them. The number of buckets stays as it is until the one that fits is four times as large or as small.
    pub bucket_bytes: u64,
    /// Whether search graphs are saved too, if the store has some that can be. Yes, by default.
    pub graphs: bool,
}

impl Default for TakeOptions {
    fn default() -> Self {
        Self { rate: None, page_timeout: Duration::from_secs(60), bucket_bytes: 2 << 20, graphs: true }
    }
}

/// What was written for a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// New files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the snapshot before that are listed again.
    pub reused: u64,
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.reused += other.reused;
    }
}

/// A snapshot whose files are written and whose manifest is not yet.
#[derive(Debug)]
pub struct Draft {
    manifest: Manifest,
    written: Written,
    /// Nothing is removed before the manifest says what is needed.
    _alone: Option<OwnedSemaphorePermit>,
}

impl Draft {
    /// What was written for it so far.
    pub fn written(&self) -> Written {
        self.written
    }

    /// Makes it a snapshot. `to` is a position that the source had after its last point was read.
    ///
    /// # Errors
    /// `Invalid` if `to` is before the snapshot; whatever the place runs into.
    pub async fn commit(self, repository: &Repository, to: Position) -> Result<Manifest> {
        if to.log != self.manifest.from.log || to.lsn < self.manifest.from.lsn {
            return Err(Error::invalid("a snapshot cannot end before it begins"));
        }
        let Self { mut manifest, _alone, .. } = self;
        manifest.to = to;
        manifest.ended = to_millis(Utc::now());
        let (manifest, bytes) = blocking(move || {
            let bytes = manifest.print()?;
            Ok((manifest, bytes))
        })
        .await?;
        let path = layout::manifest(manifest.id, ContentHash::of(&bytes));
        repository.write(&path, bytes.into()).await?;
        Ok(manifest)
    }
}

/// Reads a store that holds everything up to `from`, or more, and writes what is not in the repository yet. `parent` is an
/// earlier snapshot of the same log. `progress` is told how many points are done, and of how many.
///
/// # Errors
/// Whatever the source or the repository run into; what was written is then garbage, which a later prune removes.
pub async fn take(
    repository: &Repository,
    store: &dyn VectorStore,
    source: Source,
    from: Position,
    parent: Option<&Manifest>,
    options: TakeOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Draft> {
    repository.check_writable()?;
    let alone = repository.alone().await;
    // Ids ascend also when a clock goes back.
    let newest = repository.snapshots().await?.last().map(|listed| listed.id.time());
    let after = newest.map_or(DateTime::UNIX_EPOCH, |time| time + TimeDelta::milliseconds(1));
    let started = to_millis(Utc::now()).max(after);
    let collections = store.collections(&Context::within(options.page_timeout)).await?;
    let parent = parent.filter(|parent| parent.from.log == from.log && parent.from.lsn <= from.lsn);
    let taking = Taking {
        repository,
        store,
        options,
        from: from.lsn,
        there: OnceCell::new(),
        progress,
        began: Instant::now(),
        total: collections.iter().map(|info| info.points).sum(),
        done: AtomicU64::new(0),
        read_bytes: AtomicU64::new(0),
    };
    let (mut taken, mut written) = (BTreeMap::new(), Written::default());
    for info in &collections {
        let name = &info.spec.name;
        let before = parent.and_then(|parent| parent.collections.get(name));
        match taking.collection(info, before).await {
            Ok((collection, part)) => {
                written += part;
                taken.insert(name.clone(), collection);
            }
            // Dropped meanwhile, perhaps created again: the replay does the same.
            Err(_) if taking.is_gone(info).await? => {}
            Err(error) => return Err(error),
        }
    }
    let id = SnapshotId::new(started, from.lsn);
    let tool = concat!("mainstay ", env!("CARGO_PKG_VERSION")).to_owned();
    let manifest = Manifest { id, tool, source, ended: started, from, to: from, collections: taken };
    Ok(Draft { manifest, written, _alone: alone })
}

type Ids = Vec<(PointId, Lsn)>;

struct Taking<'a> {
    repository: &'a Repository,
    store: &'a dyn VectorStore,
    options: TakeOptions,
    from: Lsn,
    /// The files that can be listed again, once they are needed.
    there: OnceCell<BTreeMap<ContentHash, u64>>,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    began: Instant,
    total: u64,
    done: AtomicU64,
    read_bytes: AtomicU64,
}

impl Taking<'_> {
    async fn collection(
        &self,
        info: &CollectionInfo,
        before: Option<&CollectionManifest>,
    ) -> Result<(CollectionManifest, Written)> {
        let before =
            before.filter(|before| before.incarnation == info.incarnation && before.spec == info.spec);
        let fitting = fitting_bits(info.points, self.bucket_points(&info.spec));
        let bits = match before {
            Some(before) if before.bits.abs_diff(fitting) <= SLACK_BITS => before.bits,
            _ => fitting,
        };
        let buckets = 1_u32 << bits;
        let passes = u32::try_from(info.points.div_ceil(MAX_IDS)).unwrap_or(buckets).clamp(1, buckets);
        let graph_before = before.and_then(|before| before.graph.as_ref());
        let (mut points, mut newer) = (0, 0);
        let (mut taken, mut graph, mut written) = (Vec::new(), None, Written::default());
        for pass in 0..passes {
            let share = |n: u32| (u64::from(buckets) * u64::from(n) / u64::from(passes)) as u32;
            let range = share(pass)..share(pass + 1);
            let name = &info.spec.name;
            let ids = each_bucket(self.store, name, bits, range.clone(), || self.page(), self.priority());
            let files = async {
                match before {
                    Some(_) => self.find_files().await,
                    None => Ok(()),
                }
            };
            let (ids, ()) = futures::try_join!(ids, files)?;
            points += ids.iter().map(Vec::len).sum::<usize>() as u64;
            if let Some(graph) = graph_before {
                newer += ids.iter().flatten().filter(|(_, version)| *version > graph.lsn).count() as u64;
            }
            let work = range.zip(ids).filter(|(_, ids)| !ids.is_empty()).map(|(number, ids)| {
                let before = before.filter(|before| before.bits == bits).and_then(|before| {
                    let at = before.buckets.binary_search_by_key(&number, |bucket| bucket.number).ok()?;
                    before.buckets.get(at)
                });
                self.bucket(&info.spec, number, ids, before)
            });
            // In no order, so that what did not change is found out while the first that did is packed.
            let mut done = stream::iter(work).buffer_unordered(ahead(self.priority()));
            let buckets = async {
                while let Some((bucket, part)) = done.try_next().await? {
                    written += part;
                    taken.extend(bucket);
                }
                Ok(())
            };
            if pass + 1 < passes {
                buckets.await?;
                continue;
            }
            let before = graph_before.filter(|graph| self.has_all(graph));
            let found = graphs::Found { info, from: self.from, points, newer, before };
            let graphs = self.graphs(found);
            let (saved, part) = match self.priority() {
                // Beside the last buckets: who counts what changed has read the ids of all.
                Priority::Normal => futures::try_join!(buckets, graphs)?.1,
                Priority::Low => {
                    buckets.await?;
                    graphs.await?
                }
            };
            graph = saved;
            written += part;
        }
        taken.sort_unstable_by_key(|bucket: &Bucket| bucket.number);
        if self.is_gone(info).await? {
            return Err(Error::new(ErrorKind::Unavailable, "the collection was dropped while it was read"));
        }
        let (spec, incarnation) = (info.spec.clone(), info.incarnation);
        Ok((CollectionManifest { spec, incarnation, bits, buckets: taken, graph }, written))
    }

    /// Of packing: where others have work to do, at a rate, theirs comes first.
    fn priority(&self) -> Priority {
        if self.options.rate.is_some() { Priority::Low } else { Priority::Normal }
    }

    /// The graphs, if they are wanted.
    async fn graphs(&self, found: graphs::Found<'_>) -> Result<(Option<GraphManifest>, Written)> {
        match self.options.graphs {
            true => graphs::save(self.repository, self.store, found, self.priority()).await,
            false => Ok((None, Written::default())),
        }
    }

    /// Looks for the files that can be listed again.
    async fn find_files(&self) -> Result<()> {
        let find = || async {
            let files = self.repository.content_files().await?;
            Ok(files.into_iter().map(|file| (file.hash, file.bytes)).collect())
        };
        self.there.get_or_try_init(find).await.map(|_| ())
    }

    fn has_all(&self, graph: &GraphManifest) -> bool {
        graph.files.iter().all(|file| self.has(file.hash, file.bytes))
    }

    /// Whether a file is there that can be listed again.
    fn has(&self, hash: ContentHash, bytes: u64) -> bool {
        self.there.get().and_then(|there| there.get(&hash)) == Some(&bytes)
    }

    /// How many points of a collection make a bucket.
    fn bucket_points(&self, spec: &CollectionSpec) -> u64 {
        let vectors = spec.vectors.values().map(|vector| match vector {
            VectorSpec::Dense { dimension, .. } => *dimension as u64 * 4,
            VectorSpec::Sparse => PAYLOAD_BYTES,
        });
        (self.options.bucket_bytes / (PAYLOAD_BYTES + vectors.sum::<u64>())).max(1)
    }

    /// Whether the collection is no longer the one that it was.
    async fn is_gone(&self, info: &CollectionInfo) -> Result<bool> {
        let now = self.store.collections(&self.page()).await?;
        Ok(!now.iter().any(|n| n.spec.name == info.spec.name && n.incarnation == info.incarnation))
    }

    fn page(&self) -> Context {
        Context::within(self.options.page_timeout)
    }

    async fn bucket(
        &self,
        spec: &CollectionSpec,
        number: u32,
        ids: Ids,
        before: Option<&Bucket>,
    ) -> Result<(Option<Bucket>, Written)> {
        let mut written = Written::default();
        if let Some(before) = before
            && before.points == ids.len() as u64
            && before.hash == bucket_hash(ids.iter().copied())
            && before.files.iter().all(|file| self.has(file.hash, file.bytes))
        {
            written.reused = before.files.len() as u64;
            self.tell(before.points);
            return Ok((Some(before.clone()), written));
        }
        let (mut files, mut known): (Vec<BucketFile>, Ids) = (Vec::new(), Vec::with_capacity(ids.len()));
        let (mut records, mut bytes, mut memory) = (Vec::new(), 0, 0);
        for ids in ids.chunks(GET) {
            let wanted: Vec<_> = ids.iter().map(|(id, _)| *id).collect();
            let found = self.store.get(&self.page(), &spec.name, &wanted, &Fields::ALL).await?;
            let mut read = 0;
            known.extend(found.iter().map(|record| (record.point.id, record.version)));
            for record in found {
                let size = record.point.size_bytes();
                (read, bytes) = (read + size, bytes + size);
                memory += columns::memory_bytes(spec, &record);
                records.push(record);
                if bytes >= FILE_BYTES || memory >= columns::FILE_MEMORY_BYTES {
                    files.push(self.file(spec, std::mem::take(&mut records)).await?);
                    (bytes, memory) = (0, 0);
                }
            }
            self.pace(read).await;
            self.tell(ids.len() as u64);
        }
        if !records.is_empty() {
            files.push(self.file(spec, records).await?);
        }
        written.files = files.len() as u64;
        written.bytes = files.iter().map(|file| file.bytes).sum();
        let (points, hash) = (known.len() as u64, bucket_hash(known));
        // Every point of it may have been deleted meanwhile.
        Ok(((points > 0).then_some(Bucket { number, points, hash, files }), written))
    }

    async fn file(&self, spec: &CollectionSpec, records: Vec<Record>) -> Result<BucketFile> {
        let (points, spec) = (records.len() as u64, spec.clone());
        let packed = self.priority().run(move || {
            let bytes = columns::encode(&spec, &records)?;
            Ok((ContentHash::of(&bytes), bytes))
        });
        let (hash, bytes) = packed.await?;
        let file = BucketFile { hash, bytes: bytes.len() as u64, points };
        // Also if it is there: it may be damaged, or about to be removed.
        self.repository.write(&layout::bucket(hash), bytes.into()).await?;
        Ok(file)
    }

    fn tell(&self, points: u64) {
        let done = self.done.fetch_add(points, Ordering::Relaxed) + points;
        (self.progress)(done, self.total.max(done));
    }

    /// Waits until so many bytes may have been read.
    async fn pace(&self, bytes: usize) {
        let read = self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(rate) = self.options.rate {
            sleep_until(self.began + Duration::from_secs_f64(read as f64 / rate.max(1) as f64)).await;
        }
    }
}

/// How much is under way at once with this priority.
fn ahead(priority: Priority) -> usize {
    match priority {
        Priority::Normal => AHEAD,
        Priority::Low => AHEAD_AT_A_RATE,
    }
}

/// The ids and versions of a store in each bucket of a range, ids ascending.
pub(crate) async fn each_bucket(
    store: &dyn VectorStore,
    name: &CollectionName,
    bits: u32,
    range: Range<u32>,
    page: impl Fn() -> Context + Sync,
    priority: Priority,
) -> Result<Vec<Ids>> {
    let mut buckets: Vec<Ids> = vec![Vec::new(); range.len()];
    // Hashed while the next are read.
    let pages = stream::try_unfold(Some(None), |after: Option<Option<PointId>>| {
        let cx = page();
        async move {
            let Some(after) = after else { return Ok(None) };
            let VersionsPage { versions, next, .. } = store.versions(&cx, name, after, PAGE).await?;
            Ok(Some((versions, next.map(Some))))
        }
    });
    let numbered = pages.map_ok(|versions| {
        priority.run(move || {
            Ok(versions.into_iter().map(|point| (bucket_of(point.0, bits), point)).collect::<Vec<_>>())
        })
    });
    let mut numbered = numbered.try_buffered(ahead(priority)).boxed();
    let mut last: Option<PointId> = None;
    while let Some(points) = numbered.try_next().await? {
        for (number, (id, version)) in points {
            if last.is_some_and(|last| id <= last) {
                let text = format!("the store scrolled out of order, to point {id}");
                return Err(Error::new(ErrorKind::Internal, text).with_collection(name));
            }
            last = Some(id);
            let at = number.checked_sub(range.start);
            if let Some(bucket) = at.and_then(|at| buckets.get_mut(at as usize)) {
                bucket.push((id, version));
            }
        }
    }
    Ok(buckets)
}
