//! A store for tests that others than the tier can write to, and that can be told to search badly.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::conformance::ModelStore;
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, CollectionRef, Context, Durability, Error, ErrorKind,
    Fields, Filter, GuardOptions, Guarded, Hit, Lsn, Pipeline, Pipelining, PointId, Position, Record,
    RestoreStep, Result, Run, ScrollPage, ScrollQuery, SearchQuery, VectorStore,
};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::RwLock;

use crate::tier::MemberStore;

/// Everything that a store holds, by collection.
pub(super) type Contents = BTreeMap<CollectionName, (CollectionInfo, BTreeMap<PointId, Record>)>;

/// How a search goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Search {
    #[default]
    Well,
    /// Without the first hits.
    Without(usize),
    /// With other scores.
    Shifted(f32),
    /// After this long.
    After(Duration),
}

/// The oracle of the conformance suite, with a back door.
pub(super) struct Exposed {
    model: ModelStore,
    durability: Durability,
    door: RwLock<()>,
    search: Mutex<Search>,
    apply_takes: Mutex<Duration>,
    apply_fails: Mutex<Option<ErrorKind>>,
    pipelining: Mutex<Pipelining>,
    pipeline: Mutex<Arc<Pipeline>>,
    /// The runs that it was given, as the entries that they are from and to.
    runs: Mutex<Vec<(Lsn, Lsn)>>,
    prepare: Mutex<(Duration, Option<ErrorKind>)>,
    calls: Mutex<Vec<&'static str>>,
}

impl Exposed {
    pub fn new(durability: Durability) -> Arc<Self> {
        Arc::new(Self {
            model: ModelStore::default(),
            durability,
            door: RwLock::new(()),
            search: Mutex::default(),
            apply_takes: Mutex::default(),
            apply_fails: Mutex::default(),
            pipelining: Mutex::new(Pipelining::NONE),
            pipeline: Mutex::default(),
            runs: Mutex::default(),
            prepare: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    pub fn member(self: &Arc<Self>, name: &str) -> MemberStore {
        let store: Arc<dyn VectorStore> = Arc::clone(self) as _;
        let guarded = Guarded::new(store, name, GuardOptions::default()).unwrap();
        MemberStore { name: name.to_owned(), backend: "model", store: Arc::new(guarded) }
    }

    pub fn search_so(&self, search: Search) {
        *self.search.lock() = search;
    }

    pub fn apply_takes(&self, time: Duration) {
        *self.apply_takes.lock() = time;
    }

    /// The next run fails so, once it took its time.
    pub fn fail_next_run(&self, kind: ErrorKind) {
        *self.apply_fails.lock() = Some(kind);
    }

    /// Takes several runs at once from now on.
    pub fn pipeline(&self, pipelining: Pipelining) {
        *self.pipelining.lock() = pipelining;
    }

    /// The runs so far: after which entry each began, and where it ended.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        self.runs.lock().iter().map(|(after, end)| (after.0, end.0)).collect()
    }

    /// Before a snapshot the store is busy for so long, and this may come of it.
    #[cfg(feature = "snapshots")]
    pub fn prepare_takes(&self, time: Duration, failure: Option<ErrorKind>) {
        *self.prepare.lock() = (time, failure);
    }

    /// The calls of a snapshot so far, in order.
    #[cfg(feature = "snapshots")]
    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().clone()
    }

    /// Everything that the store holds.
    pub async fn contents(&self) -> Contents {
        let cx = Context::within(Duration::from_secs(60));
        let mut contents = Contents::new();
        for info in self.model.collections(&cx).await.unwrap() {
            let query = ScrollQuery { limit: 10_000, fields: Fields::ALL, ..ScrollQuery::default() };
            let page = self.model.scroll(&cx, &info.spec.name, &query).await.unwrap();
            assert_eq!(page.next, None);
            let records = page.records.into_iter().map(|record| (record.point.id, record)).collect();
            contents.insert(info.spec.name.clone(), (info, records));
        }
        contents
    }

    /// Writes to the store behind the tier's back, in one step.
    pub async fn tamper(&self, change: impl FnOnce(&mut Contents)) {
        let _alone = self.door.write().await;
        let cx = Context::within(Duration::from_secs(60));
        let Some(position) = self.model.position(&cx).await.unwrap() else { return };
        let mut contents = self.contents().await;
        change(&mut contents);
        self.model.restore(&cx, RestoreStep::Begin).await.unwrap();
        for (info, records) in contents.values() {
            let (spec, incarnation) = (&info.spec, info.incarnation);
            self.model.restore(&cx, RestoreStep::Collection { spec, incarnation }).await.unwrap();
            let collection = &CollectionRef { name: spec.name.clone(), incarnation };
            let records: Vec<Record> = records.values().cloned().collect();
            self.model.restore(&cx, RestoreStep::Points { collection, records }).await.unwrap();
        }
        self.model.restore(&cx, RestoreStep::Finish { position }).await.unwrap();
    }
}

#[async_trait]
impl VectorStore for Exposed {
    fn capabilities(&self) -> Capabilities {
        let (durability, pipelining) = (self.durability, *self.pipelining.lock());
        Capabilities { durability, pipelining, ..self.model.capabilities() }
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        let _open = self.door.read().await;
        self.model.position(cx).await
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        self.runs.lock().push((run.after().lsn, run.end().lsn));
        let place = {
            let mut pipeline = self.pipeline.lock();
            if pipeline.is_broken() && pipeline.is_empty() {
                *pipeline = Arc::default();
            }
            pipeline.enter(run.after().lsn, run.end())
        };
        let takes = *self.apply_takes.lock();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let failure = self.apply_fails.lock().take().map(|kind| Error::new(kind, "the run failed"));
        if let Some(error) = failure {
            place.fail(&error);
            return Err(error);
        }
        place.turn().await?;
        let _open = self.door.read().await;
        let reached = self.model.apply(cx, run).await.inspect_err(|error| place.fail(error))?;
        place.leave(run.end().lsn);
        Ok(reached)
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        let _open = self.door.read().await;
        match self.durability {
            Durability::Volatile => Ok(None),
            Durability::OnFlush => self.model.position(cx).await,
        }
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let _open = self.door.read().await;
        self.model.restore(cx, step).await
    }

    async fn search(&self, cx: &Context, name: &CollectionName, query: &SearchQuery) -> Result<Vec<Hit>> {
        let _open = self.door.read().await;
        let mut hits = self.model.search(cx, name, query).await?;
        let search = *self.search.lock();
        match search {
            Search::Well => {}
            Search::Without(first) => drop(hits.drain(..first.min(hits.len()))),
            Search::Shifted(by) => hits.iter_mut().for_each(|hit| hit.score += by),
            Search::After(time) => tokio::time::sleep(time).await,
        }
        Ok(hits)
    }

    async fn get(
        &self,
        cx: &Context,
        name: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let _open = self.door.read().await;
        // Answers do not come at once, so that writes come in between.
        tokio::task::yield_now().await;
        self.model.get(cx, name, ids, fields).await
    }

    async fn scroll(&self, cx: &Context, name: &CollectionName, query: &ScrollQuery) -> Result<ScrollPage> {
        self.calls.lock().push("scroll");
        let _open = self.door.read().await;
        tokio::task::yield_now().await;
        self.model.scroll(cx, name, query).await
    }

    async fn count(&self, cx: &Context, name: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let _open = self.door.read().await;
        self.model.count(cx, name, filter).await
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        let _open = self.door.read().await;
        self.model.collections(cx).await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.model.ping(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.model.close(cx).await
    }

    async fn prepare_snapshot(&self, _: &Context) -> Result<()> {
        self.calls.lock().push("prepare");
        let (time, failure) = *self.prepare.lock();
        tokio::time::sleep(time).await;
        self.calls.lock().push("prepared");
        failure.map_or(Ok(()), |kind| Err(Error::new(kind, "the store cannot be prepared")))
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.model.memory_bytes()
    }
}
