//! The store: entries in, answers out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use mainstay_core::store::closed;
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, CollectionRef, CollectionSpec, Context, Distance,
    Durability, Entry, Error, ErrorKind, Expected, Fields, Filter, Graphs, Hit, Op, Pipelining, PointId,
    Position, Record, RestoreStep, Result, Run, SavedGraphs, ScrollPage, ScrollQuery, SearchCapabilities,
    SearchQuery, VectorStore, VersionsPage,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::collection::Collection;
use crate::options::MemoryOptions;
use crate::room::Room;
use crate::saved::{self, Load, Writer};
use crate::{estimate, machine, room, search};

/// A store in memory: gone with its process, and the fastest to search.
pub struct MemoryStore {
    inner: Arc<Inner>,
    /// Rebuilds under way; ended by `close` or by dropping the store.
    rebuilds: Mutex<JoinSet<()>>,
}

struct Inner {
    /// As they were given.
    options: MemoryOptions,
    /// What new collections go by: a quantization that takes less, where what is expected would not fit otherwise.
    effective: RwLock<Arc<MemoryOptions>>,
    collections: RwLock<BTreeMap<CollectionName, Arc<Collection>>>,
    position: Mutex<Option<Position>>,
    restoring: AtomicBool,
    /// The collection that is being restored, if its graphs came before its points.
    load: Mutex<Option<Arc<Load>>>,
    closed: AtomicBool,
    room: Room,
    rebuilding: watch::Sender<Rebuilds>,
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
            effective: RwLock::new(Arc::new(options.clone())),
            options,
            collections: RwLock::default(),
            position: Mutex::default(),
            restoring: AtomicBool::new(false),
            load: Mutex::default(),
            closed: AtomicBool::new(false),
            room: Room::default(),
            rebuilding: watch::Sender::default(),
        };
        Ok(Self { inner: Arc::new(inner), rebuilds: Mutex::default() })
    }

    /// Whether a collection is being built anew.
    pub fn is_rebuilding(&self) -> bool {
        self.inner.rebuilding.borrow().running > 0
    }

    /// Starts a rebuild of every collection that wants one and has the room, unless some are under way. Answers whether it
    /// started any.
    fn start_rebuilds(&self) -> bool {
        let mut rebuilds = self.rebuilds.lock();
        while rebuilds.try_join_next().is_some() {}
        if self.is_rebuilding() || self.inner.closed.load(Ordering::Relaxed) {
            return false;
        }
        let due = self.inner.room.rebuilds(&self.inner.options, &self.inner.all());
        let starts_any = !due.is_empty();
        for collection in due {
            let inner = Arc::clone(&self.inner);
            let running = Running::new(&inner);
            rebuilds.spawn_blocking(move || {
                let _running = running;
                let stop = || inner.closed.load(Ordering::Relaxed);
                if let Err(error) = collection.rebuild(&stop) {
                    tracing::warn!(collection = %collection.spec.name, %error, "rebuild failed; the old index serves on");
                }
            });
        }
        starts_any
    }

    /// Waits until no rebuild is under way.
    async fn rebuilds_ended(&self, cx: &Context) -> Result<()> {
        let mut rebuilding = self.inner.rebuilding.subscribe();
        let ended = timeout_at(cx.deadline, rebuilding.wait_for(|rebuilds| rebuilds.running == 0)).await;
        // That nobody counts any more means that none is under way either.
        ended.map(|_| ()).map_err(|_| Error::new(ErrorKind::Timeout, "a rebuild goes on beyond the deadline"))
    }

    /// Does work that takes room. If there is none it waits for rebuilds that are under way and tries again.
    async fn with_room<T, F>(&self, cx: &Context, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        loop {
            let ended = self.inner.rebuilding.borrow().ended;
            let done = work().await;
            self.start_rebuilds();
            let Err(error) = done else { return done };
            let now = *self.inner.rebuilding.borrow();
            // One that ended since the work began may have freed the room.
            let may_free = now.running > 0 || now.ended != ended;
            if error.kind() != ErrorKind::StorageFull || !may_free {
                return Err(error);
            }
            // So that the answer is back before nobody waits for it any more.
            let soon = Context::within(cx.remaining().mul_f64(0.9));
            if self.rebuilds_ended(&soon).await.is_err() {
                let text = "the member is full until a rebuild that is under way has freed room";
                return Err(Error::new(ErrorKind::Overloaded, text).with_source(error));
            }
        }
    }

    /// Takes room for points of a load, where there is a limit; reckoning what they take is work for a blocking thread.
    async fn take_room_for(
        &self,
        cx: &Context,
        load: &Arc<Load>,
        records: Vec<Record>,
    ) -> Result<Vec<Record>> {
        if self.inner.options.max_memory.is_none() {
            return Ok(records);
        }
        let records = Arc::new(records);
        self.with_room(cx, || {
            let (load, records) = (Arc::clone(load), Arc::clone(&records));
            self.blocking(move |inner| inner.open().and_then(|()| inner.take_room_beside(&load, &records)))
        })
        .await?;
        Ok(Arc::unwrap_or_clone(records))
    }

    /// Puts points where the graphs of their collection have them, two halves side by side but for their vectors.
    async fn load_points(&self, load: &Arc<Load>, mut records: Vec<Record>) -> Result<()> {
        let half = records.split_off(records.len() / 2);
        let put = |records: Vec<Record>| {
            let load = Arc::clone(load);
            self.blocking(move |_| load.put(records))
        };
        tokio::try_join!(put(records), put(half)).map(|_| ())
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

/// How many rebuilds are under way, and how many have ended.
#[derive(Clone, Copy, Default)]
struct Rebuilds {
    running: usize,
    ended: u64,
}

/// A rebuild that is under way.
struct Running(Arc<Inner>);

impl Running {
    fn new(inner: &Arc<Inner>) -> Self {
        inner.rebuilding.send_modify(|rebuilds| rebuilds.running += 1);
        Self(Arc::clone(inner))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.rebuilding.send_modify(|rebuilds| {
            rebuilds.running = rebuilds.running.saturating_sub(1);
            rebuilds.ended += 1;
        });
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
        let (options, clock) = (Arc::clone(&self.effective.read()), self.room.clock(&self.options));
        let created = Arc::new(Collection::new(spec.clone(), incarnation, options, clock)?);
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
                    self.take_room(|| points.iter().map(|point| room::most_bytes(point)).sum())?;
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
                    self.take_room(|| room::patch_bytes(patch).saturating_mul(ids.len() as u64))?;
                    collection.patch(entry.lsn, ids, |payload| patch.apply_to(payload));
                }
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<Arc<Collection>> {
        self.collections.read().values().cloned().collect()
    }

    /// Takes room for what a write adds at most, or refuses it.
    fn take_room(&self, bytes: impl FnOnce() -> u64) -> Result<()> {
        if self.options.max_memory.is_none() {
            return Ok(());
        }
        self.room.take(&self.options, &self.all(), bytes())
    }

    fn measure(&self) -> u64 {
        self.room.measure(&self.all())
    }

    /// Begins a load of a collection whose graphs are known.
    fn begin_load(&self, collection: &CollectionRef, points: u64, parts: &[Vec<u8>]) -> Result<()> {
        let meant = self.meant(collection).filter(|meant| meant.len() == 0);
        let meant = meant.ok_or_else(|| Error::invalid("graphs come before the points of a collection"))?;
        // Its bytes are counted no more.
        *self.load.lock() = None;
        let load = Load::new(meant, parts, points)?;
        // At the end usearch copies what it is given, beside all points of the collection.
        let others = self.measure().saturating_sub(load.bytes());
        let whole = load.bytes().max(self.room.expected(&collection.name));
        let most = others.saturating_add(whole).saturating_add(load.image_bytes());
        if let Some(max) = self.options.max_memory.filter(|max| most > *max) {
            let text = format!(
                "with saved graphs a load takes {} for a moment; max_memory allows {}",
                estimate::mebibytes(most),
                estimate::mebibytes(max)
            );
            return Err(Error::new(ErrorKind::StorageFull, text));
        }
        *self.load.lock() = Some(Arc::new(load));
        Ok(())
    }

    /// The load of this collection, if its points go to where its graphs have them.
    fn load_of(&self, collection: &CollectionRef) -> Option<Arc<Load>> {
        self.load.lock().clone().filter(|load| load.is_of(collection))
    }

    /// Puts the points of a load in place.
    fn end_load(&self) -> Result<()> {
        let load = self.load.lock().clone();
        load.map_or(Ok(()), |load| load.finish())?;
        // Not before: one that failed takes no position.
        *self.load.lock() = None;
        Ok(())
    }

    /// Forgets everything.
    fn clear(&self) {
        *self.position.lock() = None;
        *self.load.lock() = None;
        self.collections.write().clear();
        self.room.clear();
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

    /// Takes points of a restore into a collection that no graphs were loaded for.
    fn restore_points(&self, collection: &CollectionRef, records: &[Record]) -> Result<()> {
        let meant = self.meant(collection).ok_or_else(|| {
            Error::invalid(format!("a restore brings points of `{}` before the collection", collection.name))
        })?;
        self.take_room(|| records.iter().map(|record| room::most_bytes(&record.point)).sum())?;
        records.iter().try_for_each(|record| meant.upsert(record.version, &record.point))
    }

    /// Takes room for points whose dense vectors go where a load has room for them already.
    fn take_room_beside(&self, load: &Load, records: &[Record]) -> Result<()> {
        let most = |record| match load.knows(record) {
            true => room::body_bytes(&record.point),
            false => room::most_bytes(&record.point),
        };
        self.take_room(|| records.iter().map(most).sum())
    }
}

/// Runs with more points than this go to a blocking thread; adding a point takes some hundred microseconds.
const INLINE_POINTS: usize = 4;
/// The same for points that are read; copying one takes some microseconds.
const INLINE_IDS: usize = 32;

#[async_trait]
impl VectorStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: true },
            durability: Durability::Volatile,
            pipelining: Pipelining::NONE,
        }
    }

    async fn position(&self, _: &Context) -> Result<Option<Position>> {
        self.inner.open()?;
        Ok(if self.inner.restoring.load(Ordering::Relaxed) { None } else { *self.inner.position.lock() })
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let points: usize = run.entries().iter().map(|entry| entry.op.points()).sum();
        self.with_room(cx, || async move {
            if points <= INLINE_POINTS {
                return self.inner.apply(run);
            }
            let run = run.clone();
            self.blocking(move |inner| inner.apply(&run)).await
        })
        .await
    }

    async fn flush(&self, _: &Context) -> Result<Option<Position>> {
        self.inner.open()?;
        Ok(None)
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let inner = &self.inner;
        inner.open()?;
        step.check(inner.restoring.load(Ordering::Relaxed), *inner.position.lock())?;
        let ends_load = !matches!(step, RestoreStep::Begin | RestoreStep::Points { .. });
        if ends_load && inner.load.lock().is_some() {
            self.blocking(Inner::end_load).await?;
        }
        match step {
            RestoreStep::Begin => {
                inner.restoring.store(true, Ordering::Relaxed);
                inner.clear();
            }
            RestoreStep::Collection { spec, incarnation } => inner.create(spec, incarnation)?,
            RestoreStep::Points { collection, records } => match inner.load_of(collection) {
                Some(load) => {
                    let records = self.take_room_for(cx, &load, records).await?;
                    self.load_points(&load, records).await?;
                }
                None => {
                    let points = Arc::new((collection.clone(), records));
                    self.with_room(cx, || async {
                        let points = Arc::clone(&points);
                        self.blocking(move |inner| inner.restore_points(&points.0, &points.1)).await
                    })
                    .await?;
                }
            },
            RestoreStep::Save => {}
            RestoreStep::Resume => inner.restoring.store(true, Ordering::Relaxed),
            RestoreStep::Finish { position } => {
                *inner.position.lock() = Some(position);
                inner.restoring.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
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
        let collection = self.inner.collection(collection)?;
        if ids.len() <= INLINE_IDS {
            return Ok(collection.get(ids, fields));
        }
        let (ids, fields) = (ids.to_vec(), fields.clone());
        self.blocking(move |_| Ok(collection.get(&ids, &fields))).await
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

    async fn versions(
        &self,
        _: &Context,
        collection: &CollectionName,
        after: Option<PointId>,
        limit: usize,
    ) -> Result<VersionsPage> {
        let collection = self.inner.collection(collection)?;
        self.blocking(move |_| Ok(collection.versions(after, limit))).await
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

    async fn expect(&self, _: &Context, expected: &[Expected]) -> Result<()> {
        let expected = expected.to_vec();
        self.blocking(move |inner| {
            let plan = estimate::plan(&inner.options, &expected, machine::free_bytes());
            tracing::info!(plan = plan.text(), "filling");
            plan.accept()?;
            let options = MemoryOptions { quantization: plan.quantization, ..inner.options.clone() };
            let of_each = expected.iter().map(|expected| {
                (expected.spec.name.clone(), estimate::bytes(&options, std::slice::from_ref(expected)))
            });
            inner.room.note(of_each.collect(), plan.notice());
            *inner.effective.write() = Arc::new(options);
            Ok(())
        })
        .await
    }

    async fn prepare_snapshot(&self, cx: &Context) -> Result<()> {
        self.inner.open()?;
        self.rebuilds_ended(cx).await?;
        // One that there is no room for beside another comes in a later round, and one that fails is not tried for ever.
        for _ in 0..self.inner.all().len() {
            if !self.start_rebuilds() {
                break;
            }
            self.rebuilds_ended(cx).await?;
        }
        Ok(())
    }

    fn is_partial(&self) -> bool {
        self.inner.room.is_partial()
    }

    fn notice(&self) -> Option<String> {
        self.inner.room.notice()
    }

    fn graphs(&self) -> Option<&dyn Graphs> {
        Some(self)
    }
}

#[async_trait]
impl Graphs for MemoryStore {
    fn parameters(&self, spec: &CollectionSpec) -> Option<String> {
        saved::parameters(spec, &self.inner.effective.read())
    }

    fn save(&self, collection: &CollectionRef) -> Option<SavedGraphs> {
        let collection = self.inner.meant(collection)?;
        let parameters = collection.graph_parameters()?;
        Some(SavedGraphs { parameters, parts: Box::new(Writer::new(collection)) })
    }

    async fn load(
        &self,
        _: &Context,
        collection: &CollectionRef,
        points: u64,
        parts: Vec<Vec<u8>>,
    ) -> Result<()> {
        let collection = collection.clone();
        self.blocking(move |inner| inner.begin_load(&collection, points, &parts)).await
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
