//! [`LanceStore`].

use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::store::with_deadline;
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, Context, Distance, Durability, Effect, ErrorKind, Fields,
    Filter, Hit, Pipelining, PointId, Position, Record, RestoreStep, Result, Run, ScrollPage, ScrollQuery,
    SearchCapabilities, SearchQuery, VectorStore,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config::LanceOptions;
use crate::error;
use crate::maintenance;
use crate::place::Location;
use crate::shared::{Inner, OwnedStep};
use crate::table::CollectionTable;

/// A store in a directory on local disk or in an object store, kept by LanceDB.
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

impl LanceStore {
    /// Opens the store at its place, or makes a new one there. What an earlier process wrote after
    /// its last flush is dropped; [`position`](VectorStore::position) says where the store stands.
    ///
    /// A directory that another process has is refused. An object store has no locks: it is taken over, and the
    /// earlier process loses it. One that cannot be reached is opened when it can: until then the calls fail.
    ///
    /// # Errors
    /// `Invalid` for bad options or a place that holds something else, `Unsupported` for an object
    /// store without the cargo feature `cloud` or one that does not keep conditional writes, `Unavailable` if
    /// the place cannot be used or another process has the directory, `Unauthorized` for credentials that do
    /// not suffice, `Corrupt` if the store is damaged.
    pub async fn open(options: LanceOptions) -> Result<Self> {
        options.check()?;
        let location = options.location()?;
        Self::open_at(options, location).await.map_err(|e| e.with_operation("open"))
    }

    /// Opens the store at a place that the options need not name.
    pub(crate) async fn open_at(options: LanceOptions, location: Location) -> Result<Self> {
        let inner = Arc::new(Inner::open(options, location).await?);
        let task = inner.options.maintenance.then(|| maintenance::spawn(&inner));
        Ok(Self { inner, maintenance: Mutex::new(task) })
    }

    /// The options that the store was opened with.
    pub fn options(&self) -> &LanceOptions {
        &self.inner.options
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
        let error = match with_deadline(cx, work).await {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        // A missing file is the place's fault if the place is not ours any more.
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Internal) {
            let _ = with_deadline(cx, self.inner.confirm()).await;
        }
        let error = match self.inner.session() {
            Err(lost) if error.kind() != ErrorKind::Timeout => lost,
            _ => error,
        };
        Err(error.with_operation(operation))
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

    pub(crate) fn native_table(&self, name: &CollectionName) -> Arc<CollectionTable> {
        self.inner.session().unwrap().table(name).unwrap()
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

#[async_trait]
impl VectorStore for LanceStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: false },
            durability: Durability::OnFlush,
            pipelining: Pipelining::NONE,
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
        let progress = self.inner.session().map(|session| session.progress());
        let checked = progress.and_then(|progress| step.check(progress.restoring, progress.position));
        checked.map_err(|e| e.with_operation("restore"))?;
        let step = match step {
            RestoreStep::Begin => OwnedStep::Begin,
            RestoreStep::Collection { spec, incarnation } => OwnedStep::Collection(spec.clone(), incarnation),
            RestoreStep::Points { collection, records } => OwnedStep::Points(collection.clone(), records),
            RestoreStep::Save => OwnedStep::Save,
            RestoreStep::Resume => OwnedStep::Resume,
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
        let info = |table: Arc<CollectionTable>| CollectionInfo {
            spec: table.layout.spec.clone(),
            incarnation: table.layout.incarnation,
            points: table.len() as u64,
        };
        Ok(session.tables().into_iter().map(info).collect())
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        with_deadline(cx, self.inner.confirm()).await.map_err(|e| e.with_operation("ping"))
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        if self.inner.is_closed() {
            return Ok(());
        }
        let flushed = self.exclusive(cx, |inner| async move { Box::pin(inner.flush()).await }).await;
        let session = self.inner.close();
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
        if let Some(session) = session {
            let given_back = async {
                session.give_back().await;
                Ok(())
            };
            if with_deadline(cx, given_back).await.is_err() {
                session.release();
            }
        }
        flushed.map(drop).map_err(|e| e.with_operation("close"))
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
