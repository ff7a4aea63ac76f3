//! The store: entries in, answers out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use mainstay_core::store::closed;
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, CollectionRef, Context, Distance, Durability, Entry, Error,
    ErrorKind, Fields, Filter, Hit, Op, PointId, Position, Record, RestoreStep, Result, Run, ScrollPage,
    ScrollQuery, SearchCapabilities, SearchQuery, VectorStore,
};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;

use crate::collection::Collection;
use crate::options::MemoryOptions;
use crate::search;

/// A store in memory: gone with its process, and the fastest to search.
pub struct MemoryStore {
    inner: Arc<Inner>,
    /// Rebuilds under way; ended by `close` or by dropping the store.
    rebuilds: Mutex<JoinSet<()>>,
}

struct Inner {
    options: Arc<MemoryOptions>,
    collections: RwLock<BTreeMap<CollectionName, Arc<Collection>>>,
    position: Mutex<Option<Position>>,
    restoring: AtomicBool,
    closed: AtomicBool,
    /// Bytes as of the last measurement, and what was added since.
    bytes: AtomicU64,
}

/// Measured again after this many points were written.
const MEASURE_EVERY: u64 = 256;

impl MemoryStore {
    /// An empty store.
    ///
    /// # Errors
    /// `Invalid` as [`MemoryOptions::check`].
    pub fn new(options: MemoryOptions) -> Result<Self> {
        options.check()?;
        let inner = Inner {
            options: Arc::new(options),
            collections: RwLock::default(),
            position: Mutex::default(),
            restoring: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner), rebuilds: Mutex::default() })
    }

    /// Starts a rebuild of every collection that wants one and is not being rebuilt.
    fn start_rebuilds(&self) {
        let mut rebuilds = self.rebuilds.lock();
        while rebuilds.try_join_next().is_some() {}
        if !rebuilds.is_empty() {
            return;
        }
        let wanting: Vec<_> =
            self.inner.collections.read().values().filter(|c| c.wants_rebuild()).cloned().collect();
        for collection in wanting {
            let inner = Arc::clone(&self.inner);
            rebuilds.spawn_blocking(move || {
                let stop = || inner.closed.load(Ordering::Relaxed);
                if let Err(error) = collection.rebuild(&stop) {
                    tracing::warn!(collection = %collection.spec.name, %error, "rebuild failed; the old index serves on");
                }
            });
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "the memory store's work ended").with_source(error))
        })
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        // Tells a running rebuild to stop.
        self.inner.closed.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(closed()) } else { Ok(()) }
    }

    fn collection(&self, name: &CollectionName) -> Result<Arc<Collection>> {
        self.open()?;
        self.collections.read().get(name).cloned().ok_or_else(|| Error::collection_not_found(name))
    }

    /// The collection that an entry means; `None` if it is gone or another one.
    fn meant(&self, collection: &CollectionRef) -> Option<Arc<Collection>> {
        let collections = self.collections.read();
        collections.get(&collection.name).filter(|c| c.incarnation == collection.incarnation).cloned()
    }

    fn create(&self, spec: &mainstay_core::CollectionSpec, incarnation: mainstay_core::Lsn) -> Result<()> {
        let created = Arc::new(Collection::new(spec.clone(), incarnation, Arc::clone(&self.options))?);
        let mut collections = self.collections.write();
        if collections.get(&spec.name).is_none_or(|known| known.incarnation < incarnation) {
            collections.insert(spec.name.clone(), created);
        }
        Ok(())
    }

    fn apply_entry(&self, entry: &Entry) -> Result<()> {
        match &entry.op {
            Op::CreateCollection(spec) => self.create(spec, entry.lsn)?,
            Op::AdoptCollection { spec, .. } => {
                let held = self.collections.read().get(&spec.name).map(|known| known.incarnation);
                Op::check_adopted(spec, entry.lsn, held)?;
            }
            Op::DropCollection(dropped) => {
                let mut collections = self.collections.write();
                if collections.get(&dropped.name).is_some_and(|c| c.incarnation == dropped.incarnation) {
                    collections.remove(&dropped.name);
                }
            }
            Op::Upsert { collection, points } => {
                if let Some(collection) = self.meant(collection) {
                    let bytes = points.iter().map(|point| point.size_bytes() as u64).sum();
                    self.check_memory(bytes, points.len() as u64)?;
                    points.iter().try_for_each(|point| collection.upsert(entry.lsn, point))?;
                }
            }
            Op::Delete { collection, ids } => {
                if let Some(collection) = self.meant(collection) {
                    collection.delete(entry.lsn, ids);
                }
            }
            Op::PatchPayload { collection, ids, patch } => {
                if let Some(collection) = self.meant(collection) {
                    collection.patch(entry.lsn, ids, |payload| patch.apply_to(payload));
                }
            }
        }
        Ok(())
    }

    /// Refuses points that would not fit.
    fn check_memory(&self, bytes: u64, points: u64) -> Result<()> {
        let Some(max) = self.options.max_memory else { return Ok(()) };
        // What the graph and the maps take beside a point itself, measured at about 300 bytes.
        let added = bytes + points * 300;
        let before = self.bytes.load(Ordering::Relaxed);
        if before + added <= max {
            self.bytes.fetch_add(added, Ordering::Relaxed);
            return Ok(());
        }
        let measured = self.measure();
        if measured + added <= max {
            self.bytes.fetch_add(added, Ordering::Relaxed);
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::StorageFull,
            format!(
                "{points} more points would take the memory member to {} bytes; max_memory allows {max}: \
                 raise it, or give the member fewer points",
                measured + added
            ),
        ))
    }

    fn measure(&self) -> u64 {
        let bytes = self.collections.read().values().map(|collection| collection.bytes()).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    fn apply(&self, run: &Run) -> Result<Position> {
        self.open()?;
        if self.restoring.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::LogGap, "the store is being loaded"));
        }
        let position = *self.position.lock();
        let mut reached = position.unwrap_or(Position::start(run.after().log));
        let mut written = 0;
        for entry in run.remaining(position.as_ref())? {
            self.apply_entry(entry).map_err(|error| error.with_lsn(entry.lsn))?;
            reached = Position { lsn: entry.lsn, hash: entry.hash, ..reached };
            // Entry by entry, so that an error leaves a position that is true.
            *self.position.lock() = Some(reached);
            written += entry.op.points() as u64;
        }
        if written >= MEASURE_EVERY && self.options.max_memory.is_some() {
            self.measure();
        }
        Ok(reached)
    }

    fn restore(&self, step: RestoreStep<'_>) -> Result<()> {
        self.open()?;
        step.check(self.restoring.load(Ordering::Relaxed), *self.position.lock())?;
        match step {
            RestoreStep::Begin => {
                self.restoring.store(true, Ordering::Relaxed);
                *self.position.lock() = None;
                self.collections.write().clear();
                self.bytes.store(0, Ordering::Relaxed);
            }
            RestoreStep::Collection { spec, incarnation } => self.create(spec, incarnation)?,
            RestoreStep::Points { collection, records } => {
                let meant = self.meant(collection);
                let meant = meant.ok_or_else(|| {
                    Error::invalid(format!(
                        "a restore brings points of `{}` before the collection",
                        collection.name
                    ))
                })?;
                let bytes = records.iter().map(|record| record.point.size_bytes() as u64).sum();
                self.check_memory(bytes, records.len() as u64)?;
                records.iter().try_for_each(|record| meant.upsert(record.version, &record.point))?;
            }
            RestoreStep::Save => {}
            RestoreStep::Resume => self.restoring.store(true, Ordering::Relaxed),
            RestoreStep::Finish { position } => {
                *self.position.lock() = Some(position);
                self.restoring.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Runs with more points than this go to a blocking thread; adding a point takes some hundred microseconds.
const INLINE_POINTS: usize = 4;

#[async_trait]
impl VectorStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: true },
            durability: Durability::Volatile,
        }
    }

    async fn position(&self, _: &Context) -> Result<Option<Position>> {
        self.inner.open()?;
        Ok(if self.inner.restoring.load(Ordering::Relaxed) { None } else { *self.inner.position.lock() })
    }

    async fn apply(&self, _: &Context, run: &Run) -> Result<Position> {
        let points: usize = run.entries().iter().map(|entry| entry.op.points()).sum();
        let applied = if points <= INLINE_POINTS {
            self.inner.apply(run)
        } else {
            let run = run.clone();
            self.blocking(move |inner| inner.apply(&run)).await
        };
        self.start_rebuilds();
        applied
    }

    async fn flush(&self, _: &Context) -> Result<Option<Position>> {
        self.inner.open()?;
        Ok(None)
    }

    async fn restore(&self, _: &Context, step: RestoreStep<'_>) -> Result<()> {
        match step {
            RestoreStep::Points { collection, records } => {
                let (collection, records) = (collection.clone(), records.to_vec());
                self.blocking(move |inner| {
                    inner.restore(RestoreStep::Points { collection: &collection, records: &records })
                })
                .await
            }
            step => self.inner.restore(step),
        }
    }

    async fn search(
        &self,
        _: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let collection = self.inner.collection(collection)?;
        if search::is_quick(&collection, query) {
            return search::search(&collection, query);
        }
        let query = query.clone();
        self.blocking(move |_| search::search(&collection, &query)).await
    }

    async fn get(
        &self,
        _: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        Ok(self.inner.collection(collection)?.get(ids, fields))
    }

    async fn scroll(
        &self,
        _: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        let collection = self.inner.collection(collection)?;
        let query = query.clone();
        self.blocking(move |_| Ok(collection.scroll(&query))).await
    }

    async fn count(&self, _: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let collection = self.inner.collection(collection)?;
        let Some(filter) = filter.cloned() else { return Ok(collection.len()) };
        self.blocking(move |_| Ok(collection.count(&filter))).await
    }

    async fn collections(&self, _: &Context) -> Result<Vec<CollectionInfo>> {
        self.inner.open()?;
        let info = |c: &Arc<Collection>| CollectionInfo {
            spec: (*c.spec).clone(),
            incarnation: c.incarnation,
            points: c.len(),
        };
        Ok(self.inner.collections.read().values().map(info).collect())
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        self.inner.open()
    }

    async fn close(&self, _: &Context) -> Result<()> {
        self.inner.closed.store(true, Ordering::Relaxed);
        let mut rebuilds = std::mem::take(&mut *self.rebuilds.lock());
        while rebuilds.join_next().await.is_some() {}
        Ok(())
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(self.inner.measure())
    }
}
