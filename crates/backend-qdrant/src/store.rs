//! The store, whichever engine is below.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mainstay_core::store::{closed, with_deadline};
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, Condition, Context, Distance, Durability, Error, ErrorKind,
    Fields, Filter, Hit, Pipelining, PointId, Position, Record, RestoreStep, Result, Run, ScrollPage,
    ScrollQuery, SearchCapabilities, SearchQuery, StoreId, VectorStore, score,
};
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};

use crate::changes;
use crate::control::{Control, Known, UNKNOWN_CEILING};
use crate::engine::{Batch, Engine, Evaluation, Scroll};
use crate::session::Session;

/// The collections by name, as reads see them.
type Catalog = BTreeMap<CollectionName, Arc<Known>>;

/// Points that one request of a scan asks for.
pub(crate) const SCAN_PAGE: usize = 1_000;

/// A server of two cores and the conversion of the points keep each other busy with this many; a quarter of a megabyte
/// is some hundred points of usual vectors, which cost a server more than the request does.
const PIPELINING: Pipelining = Pipelining { runs: 4, least_bytes: 256 << 10 };

/// Beyond so many hits of one score, which of them come is left to Qdrant.
const MOST_TIED: usize = 200_000;

/// A store on Qdrant.
pub struct QdrantStore {
    pub(crate) engine: Arc<dyn Engine>,
    /// `None` until the place of the store was read.
    session: Mutex<Option<Session>>,
    /// Whoever has it is the next run: runs begin one after the other.
    pub(crate) next_run: Mutex<()>,
    catalog: RwLock<Option<Arc<Catalog>>>,
    /// Something happened that the place of the store has to be read anew for.
    suspect: AtomicBool,
    closed: AtomicBool,
    /// How long a write with an unknown outcome may still take effect.
    grace: Duration,
}

impl QdrantStore {
    /// A store on an engine. Nothing is asked of the engine yet, so that a tier can be opened while it is away.
    pub(crate) fn new(engine: Arc<dyn Engine>, grace: Duration) -> Self {
        Self {
            engine,
            session: Mutex::new(None),
            next_run: Mutex::new(()),
            catalog: RwLock::new(None),
            suspect: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            grace,
        }
    }

    /// A store behind a Qdrant server or cluster. Connections are made when they are needed.
    ///
    /// # Errors
    /// `Invalid` for an option out of its range or a URL that is none.
    ///
    /// ```no_run
    /// use mainstay_qdrant::{QdrantStore, ServerOptions};
    /// # async fn example() -> mainstay_core::Result<()> {
    /// let store = QdrantStore::connect(ServerOptions::new("http://localhost:6334")).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "server")]
    pub async fn connect(options: crate::ServerOptions) -> Result<Self> {
        let grace = options.grace;
        Ok(Self::new(Arc::new(crate::server::Server::new(options)?), grace))
    }

    /// A store in this process, on a directory of its own.
    ///
    /// # Errors
    /// `Invalid` for a directory that holds something else, `Unavailable` if another process has it or it cannot
    /// be read.
    #[cfg(feature = "edge")]
    pub async fn open(options: crate::EdgeOptions) -> Result<Self> {
        // A write that was given up goes on in its thread, and ends with it.
        const GRACE: Duration = Duration::from_secs(2);
        Ok(Self::new(Arc::new(crate::edge::Edge::open(options).await?), GRACE))
    }

    fn open_or_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(closed()) } else { Ok(()) }
    }

    /// The place of the store, read anew if it is in doubt.
    pub(crate) async fn session(&self, cx: &Context) -> Result<MutexGuard<'_, Option<Session>>> {
        self.open_or_closed()?;
        let mut session = self.known_session(cx).await?;
        let suspect = self.suspect.swap(false, Ordering::Relaxed);
        let fresh = match &*session {
            Some(known) if !suspect && !known.is_in_doubt() => None,
            Some(known) => Some(known.reopen(cx, &*self.engine, self.grace).await),
            None => Some(Session::open(cx, &*self.engine).await),
        };
        match fresh {
            None => {}
            Some(Ok(fresh)) => {
                self.show(&fresh);
                *session = Some(fresh);
            }
            Some(Err(error)) => {
                self.suspect.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(session)
    }

    /// The place of the store as it was read, in doubt or not.
    pub(crate) async fn known_session(&self, cx: &Context) -> Result<MutexGuard<'_, Option<Session>>> {
        with_deadline(cx, async { Ok(self.session.lock().await) }).await
    }

    pub(crate) fn show(&self, session: &Session) {
        *self.catalog.write() = Some(Arc::new(session.control.collections.clone()));
    }

    /// What this store calls itself, written down so that it stays.
    pub(crate) async fn id(&self, cx: &Context) -> Result<StoreId> {
        let mut guard = self.session(cx).await?;
        let Some(session) = guard.as_mut() else { return Err(closed()) };
        session.prove(cx, &*self.engine).await?;
        if self.engine.control(cx).await?.is_none() {
            session.save(cx, &*self.engine).await?;
        }
        Ok(session.control.id)
    }

    pub(crate) async fn catalog(&self, cx: &Context) -> Result<Arc<Catalog>> {
        self.open_or_closed()?;
        if let Some(catalog) = self.catalog.read().clone() {
            return Ok(catalog);
        }
        drop(self.session(cx).await?);
        self.catalog
            .read()
            .clone()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the store is not read yet"))
    }

    async fn known(&self, cx: &Context, name: &CollectionName) -> Result<Arc<Known>> {
        let catalog = self.catalog(cx).await?;
        catalog.get(name).cloned().ok_or_else(|| Error::collection_not_found(name))
    }

    /// A collection that the catalog has and the engine has not was taken away underneath.
    fn seen<T>(&self, answer: Result<T>) -> Result<T> {
        answer.map_err(|error| {
            if error.kind() != ErrorKind::NotFound {
                return error;
            }
            self.suspect.store(true, Ordering::Relaxed);
            Error::new(ErrorKind::Unavailable, "a collection of the Qdrant store is gone").with_source(error)
        })
    }

    /// Whether the engine evaluates a filter exactly.
    async fn is_evaluated(&self, cx: &Context, known: &Known, filter: &Filter) -> Result<bool> {
        let Evaluation { differs, mixed } = Evaluation::of(filter, &known.spec);
        if differs {
            return Ok(false);
        }
        for path in mixed {
            let counted = known.mixed.lock().get(&path).copied();
            let is_mixed = match counted {
                Some(is_mixed) => is_mixed,
                None => {
                    let is_mixed = self.engine.count_mixed(cx, &known.spec.name, &path).await? > 0;
                    known.mixed.lock().insert(path, is_mixed);
                    is_mixed
                }
            };
            if is_mixed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A filter that the engine evaluates exactly: the given one, or the ids that it accepts.
    async fn evaluable(
        &self,
        cx: &Context,
        known: &Known,
        filter: Option<&Filter>,
    ) -> Result<Option<Filter>> {
        let Some(filter) = filter.filter(|filter| !filter.is_empty()) else { return Ok(None) };
        if self.is_evaluated(cx, known, filter).await? {
            return Ok(Some(filter.clone()));
        }
        let mut ids = std::collections::BTreeSet::new();
        let mut from = None;
        let fields = Fields { payload: mainstay_core::Selector::All, ..Fields::NONE };
        loop {
            let scroll = Scroll { from, limit: SCAN_PAGE, filter: None, fields: &fields };
            let page = self.engine.scroll(cx, &known.spec, &scroll).await?;
            let last = page.last().map(|record| record.point.id);
            let full = page.len() == SCAN_PAGE;
            let accepted = page.into_iter().map(|record| record.point);
            ids.extend(accepted.filter(|p| filter.accepts(p.id, &p.payload)).map(|p| p.id));
            from = last.and_then(successor);
            if !full || from.is_none() {
                break;
            }
        }
        Ok(Some(Filter::all([Condition::HasId(ids)])))
    }

    async fn restore_step(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let engine = &*self.engine;
        let mut guard = self.session(cx).await?;
        let Some(session) = guard.as_mut() else { return Err(closed()) };
        step.check(session.restoring, session.position)?;
        match step {
            RestoreStep::Begin => {
                session.begin(cx, engine).await?;
                self.show(session);
            }
            RestoreStep::Collection { spec, incarnation } => {
                let known = Known::new(spec.clone(), incarnation);
                if let Some(refused) = session.create(cx, engine, known).await? {
                    return Err(refused);
                }
                self.show(session);
            }
            RestoreStep::Points { collection, records } => {
                let Some(known) = session.control.meant(collection).cloned() else {
                    return Err(Error::invalid(format!(
                        "a restore brings points of `{}` before the collection",
                        collection.name
                    )));
                };
                let puts = records.into_iter().map(|record| (record.version, Arc::new(record.point)));
                let batch = Batch { puts: puts.collect(), ..Batch::default() };
                changes::write(cx, engine, &known, batch).await?;
            }
            RestoreStep::Save => flushed(engine, cx).await?,
            RestoreStep::Resume => session.restoring = true,
            RestoreStep::Finish { position } => {
                flushed(engine, cx).await?;
                session.finish(cx, engine, position).await?;
            }
        }
        Ok(())
    }
}

/// Makes everything durable, or says that it has to be tried again.
async fn flushed(engine: &dyn Engine, cx: &Context) -> Result<()> {
    if engine.flush(cx).await? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the engine is busy; try this step again"))
}

/// The id after another one, in the order of ids.
pub(crate) fn successor(id: PointId) -> Option<PointId> {
    match id {
        PointId::Num(id) => Some(id.checked_add(1).map_or(PointId::Uuid(uuid::Uuid::nil()), PointId::Num)),
        PointId::Uuid(id) => id.as_u128().checked_add(1).map(|id| PointId::Uuid(uuid::Uuid::from_u128(id))),
    }
}

#[async_trait]
impl VectorStore for QdrantStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: true },
            durability: Durability::OnFlush,
            // What is not durable at once has to be flushed in the order of the log.
            pipelining: if self.engine.is_durable() { PIPELINING } else { Pipelining::NONE },
        }
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        let mut guard = self.session(cx).await?;
        let Some(session) = guard.as_mut() else { return Ok(None) };
        if session.restoring {
            return Ok(None);
        }
        if !session.is_current(cx, &*self.engine).await? {
            tracing::warn!("the Qdrant store was changed underneath; its position is read anew");
            let fresh = if session.pipeline().is_empty() {
                Session::open(cx, &*self.engine).await?
            } else {
                session.reopen(cx, &*self.engine, self.grace).await?
            };
            self.show(&fresh);
            *session = fresh;
        }
        Ok(session.position)
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let applied = self.apply_run(cx, run).await;
        if applied
            .as_ref()
            .is_err_and(|error| !matches!(error.kind(), ErrorKind::LogGap | ErrorKind::Rejected))
        {
            self.suspect.store(true, Ordering::Relaxed);
        }
        self.seen(applied)
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        let mut guard = self.session(cx).await?;
        let Some(session) = guard.as_mut() else { return Ok(None) };
        if session.restoring {
            return Ok(None);
        }
        session.recheck(cx, &*self.engine).await?;
        if session.is_unsaved() && self.engine.flush(cx).await? {
            let engine = &*self.engine;
            let saved = async {
                session.prove(cx, engine).await?;
                session.save_at_rest(cx, engine).await
            };
            saved.await.inspect_err(|_| self.suspect.store(true, Ordering::Relaxed))?;
        }
        Ok(session.control.position)
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        self.restore_step(cx, step).await
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let known = self.known(cx, collection).await?;
        let spec = known.spec.vector(&query.using)?;
        known.spec.check_vector(&query.using, &query.vector)?;
        let filter = self.seen(self.evaluable(cx, &known, query.filter.as_ref()).await)?;
        if filter.as_ref().is_some_and(accepts_nothing) {
            return Ok(Vec::new());
        }
        let asked = SearchQuery { filter, ..query.clone() };
        let wanted = query.offset.saturating_add(query.limit);
        // One more than wanted tells whether hits of one score lie on both sides of the end; then all of them
        // are needed to give those with the lowest ids, but not what they hold.
        let mut limit = wanted.saturating_add(1);
        let mut hits = self.seen(self.engine.search(cx, &known.spec, &asked, limit).await)?;
        let bare = SearchQuery { fields: Fields::NONE, ..asked.clone() };
        let mut tied = false;
        while is_cut(&hits, wanted, limit) && limit < MOST_TIED {
            tied = true;
            limit = limit.saturating_mul(4);
            hits = self.seen(self.engine.search(cx, &known.spec, &bare, limit).await)?;
        }
        let order = |a: &Hit, b: &Hit| score::order(spec, (a.score, a.point.id), (b.score, b.point.id));
        hits.retain(|hit| score::passes(spec, hit.score, query.score_threshold));
        hits.sort_by(order);
        let mut hits: Vec<Hit> = hits.into_iter().skip(query.offset).take(query.limit).collect();
        if tied {
            let ids: Vec<PointId> = hits.iter().map(|hit| hit.point.id).collect();
            let records = self.seen(self.engine.get(cx, &known.spec, &ids, &query.fields).await)?;
            let mut held: BTreeMap<PointId, Record> =
                records.into_iter().map(|record| (record.point.id, record)).collect();
            // A point that was deleted between the two requests is no hit.
            hits = hits
                .into_iter()
                .filter_map(|hit| {
                    let Record { version, point } = held.remove(&hit.point.id)?;
                    Some(Hit { score: hit.score, version, point })
                })
                .collect();
        }
        Ok(hits.into_iter().map(|hit| Hit { point: query.fields.select(&hit.point), ..hit }).collect())
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let known = self.known(cx, collection).await?;
        let records = self.seen(self.engine.get(cx, &known.spec, ids, fields).await)?;
        let mut found: BTreeMap<PointId, Record> =
            records.into_iter().map(|record| (record.point.id, record)).collect();
        Ok(ids.iter().filter_map(|id| found.remove(id)).map(|record| selected(record, fields)).collect())
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        let known = self.known(cx, collection).await?;
        let incarnation = known.incarnation;
        let nothing = ScrollPage { incarnation, records: Vec::new(), next: None };
        let from = match query.after {
            None => None,
            Some(after) => match successor(after) {
                None => return Ok(nothing),
                from => from,
            },
        };
        let filter = self.seen(self.evaluable(cx, &known, query.filter.as_ref()).await)?;
        if filter.as_ref().is_some_and(accepts_nothing) {
            return Ok(nothing);
        }
        let limit = query.limit.saturating_add(1);
        let scroll = Scroll { from, limit, filter: filter.as_ref(), fields: &query.fields };
        let mut records = self.seen(self.engine.scroll(cx, &known.spec, &scroll).await)?;
        let more = records.len() > query.limit;
        records.truncate(query.limit);
        let records: Vec<Record> =
            records.into_iter().map(|record| selected(record, &query.fields)).collect();
        let next = if more { records.last().map(|record| record.point.id) } else { None };
        Ok(ScrollPage { incarnation, records, next })
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let known = self.known(cx, collection).await?;
        let filter = self.seen(self.evaluable(cx, &known, filter).await)?;
        if filter.as_ref().is_some_and(accepts_nothing) {
            return Ok(0);
        }
        self.seen(self.engine.count(cx, &known.spec.name, filter.as_ref()).await)
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        let catalog = self.catalog(cx).await?;
        let mut collections = Vec::new();
        for known in catalog.values() {
            let points = self.seen(self.engine.count(cx, &known.spec.name, None).await)?;
            collections.push(CollectionInfo {
                spec: known.spec.clone(),
                incarnation: known.incarnation,
                points,
            });
        }
        Ok(collections)
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.open_or_closed()?;
        self.engine.ping(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let flushed = self.flush(cx).await;
        self.closed.store(true, Ordering::Relaxed);
        self.engine.close().await;
        flushed.map(|_| ())
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// Whether hits of one score lie on both sides of the end of a page.
fn is_cut(hits: &[Hit], wanted: usize, limit: usize) -> bool {
    let end = hits.get(wanted.saturating_sub(1));
    hits.len() == limit && hits.last().zip(end).is_some_and(|(last, end)| last.score == end.score)
}

fn selected(record: Record, fields: &Fields) -> Record {
    Record { point: fields.select(&record.point), ..record }
}

/// Whether a filter by ids names none, which Qdrant need not be asked for.
fn accepts_nothing(filter: &Filter) -> bool {
    matches!(&filter.must[..], [Condition::HasId(ids)] if ids.is_empty())
}

impl Session {
    /// Forgets everything that the store holds.
    async fn begin(&mut self, cx: &Context, engine: &dyn Engine) -> Result<()> {
        self.forget_doubts();
        self.restoring = true;
        self.position = None;
        self.newest = UNKNOWN_CEILING;
        let empty = Control { position: None, ceiling: UNKNOWN_CEILING, ..self.control.clone() };
        self.set_control(cx, engine, empty).await?;
        for name in self.control.collections.keys() {
            engine.remove(cx, name).await?;
        }
        self.control.collections.clear();
        self.save(cx, engine).await
    }

    /// Takes a position for what was restored.
    async fn finish(&mut self, cx: &Context, engine: &dyn Engine, position: Position) -> Result<()> {
        let before = (self.position, self.newest);
        // Nothing that was restored is newer than its position.
        (self.position, self.newest) = (Some(position), position.lsn);
        let saved = self.save(cx, engine).await;
        match saved {
            Ok(()) => self.restoring = false,
            Err(_) => (self.position, self.newest) = before,
        }
        saved
    }
}
