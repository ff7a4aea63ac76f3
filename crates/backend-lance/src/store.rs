//! [`LanceStore`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::store::{closed, with_deadline};
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, CollectionRef, CollectionSpec, Context, Distance,
    Durability, Effect, Error, ErrorKind, Fields, Filter, Hit, Lsn, Op, PointId, Position, Record,
    RestoreStep, Result, Run, ScrollPage, ScrollQuery, SearchCapabilities, SearchQuery, VectorStore,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::LanceOptions;
use crate::effects::{Changes, check_spec};
use crate::error;
use crate::maintenance;
use crate::session::{Progress, Session};

/// A store in a directory on local disk, kept by LanceDB.
///
/// ```no_run
/// # async fn open() -> mainstay_core::Result<()> {
/// use mainstay_lance::{LanceOptions, LanceStore};
/// let store = LanceStore::open(LanceOptions::new("data/lance")).await?;
/// # Ok(())
/// # }
/// ```
pub struct LanceStore {
    inner: Arc<Inner>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
}

/// What the calls and the maintenance task share.
pub(crate) struct Inner {
    pub options: LanceOptions,
    path: PathBuf,
    state: Mutex<State>,
    /// Held by whoever writes.
    pub writer: Arc<tokio::sync::Mutex<()>>,
    /// Held while an index is built, which writers need not wait for. Taken after `writer`.
    pub indexing: tokio::sync::Mutex<()>,
    /// Wakes maintenance.
    pub wake: Arc<Notify>,
}

enum State {
    Open(Arc<Session>),
    /// The directory changed or a write failed; the next `position` opens it again.
    Lost(String),
    Closed,
}

/// A restore step that owns what it writes.
enum OwnedStep {
    Begin,
    Collection(CollectionSpec, Lsn),
    Points(CollectionRef, Vec<Record>),
    Finish(Position),
}

impl LanceStore {
    /// Opens the store in a directory, or makes a new one there. What an earlier process wrote after
    /// its last flush is dropped; [`position`](VectorStore::position) says where the store stands.
    ///
    /// # Errors
    /// `Invalid` for bad options or a directory that holds something else, `Unsupported` for an
    /// object store, `Unavailable` if the directory cannot be used or another process has it,
    /// `Corrupt` if it is damaged.
    pub async fn open(options: LanceOptions) -> Result<Self> {
        options.check()?;
        let path = options.path()?;
        let session = Box::pin(Session::open(&path, true)).await.map_err(|e| e.with_operation("open"))?;
        let inner = Arc::new(Inner {
            options,
            path,
            state: Mutex::new(State::Open(Arc::new(session))),
            writer: Arc::default(),
            indexing: tokio::sync::Mutex::default(),
            wake: Arc::default(),
        });
        let task = inner.options.maintenance.then(|| maintenance::spawn(&inner));
        Ok(Self { inner, maintenance: Mutex::new(task) })
    }

    /// Runs a write to its end even if the caller stops waiting, so that no write is ever half
    /// done because somebody lost patience; the next one waits for it.
    async fn exclusive<T, F>(&self, cx: &Context, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let waiting = async { Ok(self.inner.writer.clone().lock_owned().await) };
        let guard = with_deadline(cx, waiting).await?;
        let work = work(self.inner.clone());
        let task = tokio::spawn(async move {
            let _guard = guard;
            work.await
        });
        let done = async {
            task.await.map_err(|panicked| {
                let error = error::task(panicked).with_effect(Effect::Unknown);
                self.inner.lose_current(&error);
                error
            })?
        };
        with_deadline(cx, done).await.map_err(|e| match e.kind() {
            ErrorKind::Timeout => e.with_effect(Effect::Unknown),
            _ => e,
        })
    }

    async fn read<T>(
        &self,
        cx: &Context,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let answer = with_deadline(cx, work).await;
        answer.map_err(|e| {
            // A missing file is the directory's fault if the directory is not ours any more.
            match self.inner.session() {
                Err(lost) if !matches!(e.kind(), ErrorKind::Timeout) => lost,
                _ => e,
            }
            .with_operation(operation)
        })
    }
}

#[cfg(test)]
impl LanceStore {
    /// One round of maintenance, now.
    pub(crate) async fn maintain(&self) -> Result<()> {
        maintenance::maintain(&self.inner).await
    }

    /// How LanceDB would look for the nearest points.
    pub(crate) async fn search_plan(&self, name: &CollectionName, vector: &[f32]) -> String {
        use lancedb::query::ExecutableQuery;
        let table = self.inner.session().unwrap().table(name).unwrap();
        table.native().query().nearest_to(vector).unwrap().explain_plan(true).await.unwrap()
    }

    pub(crate) fn is_indexed(&self, name: &CollectionName) -> bool {
        let table = self.inner.session().and_then(|session| session.table(name));
        table.is_ok_and(|table| table.indexed.load(std::sync::atomic::Ordering::Acquire))
    }
}

impl Drop for LanceStore {
    fn drop(&mut self) {
        if let Some(task) = self.maintenance.lock().take() {
            task.abort();
        }
    }
}

impl Inner {
    /// What is open, if the directory is still the one that was opened.
    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        let session = match &*self.state.lock() {
            State::Open(session) => session.clone(),
            State::Lost(why) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the store must be opened again by reading its position: {why}"),
                ));
            }
            State::Closed => return Err(closed()),
        };
        session.verify().inspect_err(|e| self.lose(&session, e))?;
        Ok(session)
    }

    /// Ends a session: what it believes can no longer be relied on.
    pub(crate) fn lose(&self, session: &Arc<Session>, why: &Error) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, session)) {
            tracing::warn!(error = %why, "the LanceDB store is re-read from its directory");
            *state = State::Lost(why.to_string());
            session.release();
        }
    }

    /// Ends whatever session is open.
    fn lose_current(&self, why: &Error) {
        let session = match &*self.state.lock() {
            State::Open(session) => session.clone(),
            State::Lost(_) | State::Closed => return,
        };
        self.lose(&session, why);
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(&*self.state.lock(), State::Closed)
    }

    /// Opens the directory again if it was lost.
    async fn reopen(&self) -> Result<Arc<Session>> {
        let _indexing = self.indexing.lock().await;
        match self.session() {
            Ok(session) => return Ok(session),
            Err(e) if self.is_closed() => return Err(e),
            Err(_) => {}
        }
        let session = Arc::new(Box::pin(Session::open(&self.path, false)).await?);
        let mut state = self.state.lock();
        if matches!(&*state, State::Closed) {
            return Err(closed());
        }
        *state = State::Open(session.clone());
        Ok(session)
    }

    /// Ends the session if a write failed: how much of it landed is unknown.
    fn after_write<T>(&self, session: &Arc<Session>, result: Result<T>) -> Result<T> {
        result.and_then(|value| session.verify().map(|()| value)).map_err(|e| {
            self.lose(session, &e);
            e.with_effect(Effect::Unknown)
        })
    }

    async fn apply(&self, run: &Run) -> Result<Position> {
        let session = self.session()?;
        let progress = session.progress();
        let entries = run.remaining(progress.position.as_ref())?;
        if entries.is_empty() {
            return Ok(progress.position.unwrap_or_else(|| run.end()));
        }
        // From the first entry on: what a restore that was given up left behind is not part of it.
        if progress.restoring {
            let cleared = session.clear(false).await;
            self.after_write(&session, cleared)?;
        }
        session.touch();
        let (reached, refused) = self.after_write(&session, apply_entries(&session, entries).await)?;
        let position = match reached {
            Some(last) => Position { log: run.after().log, lsn: last.lsn, hash: last.hash },
            None => progress.position.unwrap_or_else(|| Position::start(run.after().log)),
        };
        if reached.is_some() {
            session.set_progress(Progress { position: Some(position), restoring: false });
        }
        self.wake.notify_one();
        refused.map_or(Ok(position), Err)
    }

    async fn flush(&self) -> Result<Option<Position>> {
        let session = self.session()?;
        session.flush().await.inspect_err(|e| self.lose(&session, e))
    }

    async fn restore(&self, step: OwnedStep) -> Result<()> {
        let session = self.session()?;
        let restoring = session.progress().restoring;
        if !restoring && !matches!(step, OwnedStep::Begin) {
            return Err(Error::invalid("a restore starts with `Begin`"));
        }
        let written = match step {
            OwnedStep::Begin => {
                let _indexing = self.indexing.lock().await;
                session.clear(true).await
            }
            OwnedStep::Collection(spec, incarnation) => {
                check_spec(&spec)?;
                session.create(&spec, incarnation).await
            }
            OwnedStep::Points(collection, records) => {
                if session.table_of(&collection).is_none() {
                    return Err(Error::invalid(format!(
                        "the restore did not create collection {} of entry {} before its points",
                        collection.name, collection.incarnation
                    )));
                }
                session.load(&collection, &records).await
            }
            OwnedStep::Finish(position) => session.flush_at(position).await,
        };
        self.wake.notify_one();
        self.after_write(&session, written)
    }
}

/// Applies entries in order and answers the last one applied, and the error of the entry after it
/// if that one can never be applied.
async fn apply_entries<'a>(
    session: &Session,
    entries: &'a [Arc<mainstay_core::Entry>],
) -> Result<(Option<&'a mainstay_core::Entry>, Option<Error>)> {
    let mut changes: BTreeMap<CollectionName, Changes> = BTreeMap::new();
    let (mut reached, mut refused) = (None, None);
    for entry in entries {
        let taken = match &entry.op {
            Op::CreateCollection(spec) => match check_spec(spec) {
                Ok(()) => {
                    if session.find(&spec.name).is_none_or(|table| table.layout.incarnation < entry.lsn) {
                        changes.remove(&spec.name);
                        session.create(spec, entry.lsn).await?;
                    }
                    Ok(())
                }
                Err(e) => Err(e.with_lsn(entry.lsn)),
            },
            Op::DropCollection(collection) => {
                if let Some(table) = session.table_of(collection) {
                    changes.remove(&collection.name);
                    session.remove(&table).await?;
                }
                Ok(())
            }
            Op::Upsert { collection, .. }
            | Op::Delete { collection, .. }
            | Op::PatchPayload { collection, .. } => match session.table_of(collection) {
                Some(table) => {
                    changes.entry(collection.name.clone()).or_insert_with(|| Changes::new(table)).take(entry)
                }
                None => Ok(()),
            },
        };
        if let Err(e) = taken {
            refused = Some(e);
            break;
        }
        reached = Some(&**entry);
    }
    for changes in changes.into_values() {
        changes.write().await?;
    }
    Ok((reached, refused))
}

#[async_trait]
impl VectorStore for LanceStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: false },
            durability: Durability::OnFlush,
        }
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        let session = match self.inner.session() {
            Ok(session) => session,
            Err(e) if self.inner.is_closed() => return Err(e.with_operation("position")),
            Err(_) => self
                .exclusive(cx, |inner| async move { Box::pin(inner.reopen()).await })
                .await
                .map_err(|e| e.with_operation("position"))?,
        };
        Ok(session.progress().position)
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let run = run.clone();
        self.exclusive(cx, |inner| async move { Box::pin(inner.apply(&run)).await })
            .await
            .map_err(|e| e.with_operation("apply"))
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        self.exclusive(cx, |inner| async move { Box::pin(inner.flush()).await })
            .await
            .map_err(|e| e.with_operation("flush"))
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let step = match step {
            RestoreStep::Begin => OwnedStep::Begin,
            RestoreStep::Collection { spec, incarnation } => OwnedStep::Collection(spec.clone(), incarnation),
            RestoreStep::Points { collection, records } => {
                OwnedStep::Points(collection.clone(), records.to_vec())
            }
            RestoreStep::Finish { position } => OwnedStep::Finish(position),
        };
        self.exclusive(cx, |inner| async move { Box::pin(inner.restore(step)).await })
            .await
            .map_err(|e| e.with_operation("restore"))
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        self.read(cx, "search", async {
            let table = self.inner.session()?.table(collection)?;
            Box::pin(crate::search::search(table, query)).await
        })
        .await
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.read(cx, "get", async {
            let table = self.inner.session()?.table(collection)?;
            Box::pin(crate::read::get(&table, ids, fields)).await
        })
        .await
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        self.read(cx, "scroll", async {
            let table = self.inner.session()?.table(collection)?;
            Box::pin(crate::read::scroll(&table, query)).await
        })
        .await
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.read(cx, "count", async {
            let table = self.inner.session()?.table(collection)?;
            Box::pin(crate::read::count(&table, filter)).await
        })
        .await
    }

    async fn collections(&self, _cx: &Context) -> Result<Vec<CollectionInfo>> {
        let session = self.inner.session().map_err(|e| e.with_operation("collections"))?;
        let info = |table: Arc<crate::table::CollectionTable>| CollectionInfo {
            spec: table.layout.spec.clone(),
            incarnation: table.layout.incarnation,
            points: table.len() as u64,
        };
        Ok(session.tables().into_iter().map(info).collect())
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        self.inner.session().map(drop).map_err(|e| e.with_operation("ping"))
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        if self.inner.is_closed() {
            return Ok(());
        }
        let flushed = self.exclusive(cx, |inner| async move { Box::pin(inner.flush()).await }).await;
        let before = std::mem::replace(&mut *self.inner.state.lock(), State::Closed);
        let task = self.maintenance.lock().take();
        if let Some(task) = task {
            // Whatever it has begun is only thrown away: the record speaks of what was flushed.
            task.abort();
            let ended = async {
                let _ = task.await;
                Ok(())
            };
            let _ = with_deadline(cx, ended).await;
        }
        if let State::Open(session) = before {
            session.release();
        }
        flushed.map(drop).map_err(|e| e.with_operation("close"))
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
