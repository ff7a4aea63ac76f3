//! A store that writes down what it is asked.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::entry::{Position, Run};
use crate::error::{ErrorKind, Result};
use crate::expected::Expected;
use crate::filter::Filter;
use crate::graphs::Graphs;
use crate::guarded::Operation;
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::point::Record;
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery, VersionsPage};
use crate::store::{Capabilities, CollectionInfo, Context, RestoreStep, VectorStore};

/// How many calls are kept unless told otherwise; the oldest go first.
const CAPACITY: usize = 100_000;

/// One call as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The operation.
    pub operation: Operation,
    /// The collection that it named.
    pub collection: Option<CollectionName>,
    /// The first and the last LSN of a run that was not empty; the position of a finished restore.
    pub lsns: Option<(Lsn, Lsn)>,
    /// How it ended: `None` while it is under way or if its caller dropped it.
    pub outcome: Option<Result<(), ErrorKind>>,
}

#[derive(Default)]
struct Calls {
    kept: VecDeque<Recorded>,
    /// The number of the oldest call that is kept.
    first: u64,
}

/// A store that records every call in the order of their beginning, then passes it on.
pub struct Recording<S: ?Sized> {
    store: Arc<S>,
    capacity: usize,
    calls: Mutex<Calls>,
}

impl<S: VectorStore + ?Sized> Recording<S> {
    /// Wraps a store; keeps the newest 100,000 calls.
    pub fn new(store: Arc<S>) -> Self {
        Self::with_capacity(store, CAPACITY)
    }

    /// Wraps a store; keeps the newest `capacity` calls.
    pub fn with_capacity(store: Arc<S>, capacity: usize) -> Self {
        Self { store, capacity, calls: Mutex::default() }
    }

    /// The calls kept, oldest first.
    pub fn calls(&self) -> Vec<Recorded> {
        self.calls.lock().kept.iter().cloned().collect()
    }

    /// The calls of one operation, oldest first.
    pub fn calls_of(&self, operation: Operation) -> Vec<Recorded> {
        self.calls.lock().kept.iter().filter(|call| call.operation == operation).cloned().collect()
    }

    /// The calls kept, which are then forgotten.
    pub fn take(&self) -> Vec<Recorded> {
        let mut calls = self.calls.lock();
        calls.first += calls.kept.len() as u64;
        calls.kept.drain(..).collect()
    }

    /// How many calls were made, whether they are kept or not.
    pub fn total(&self) -> u64 {
        let calls = self.calls.lock();
        calls.first + calls.kept.len() as u64
    }

    /// The store inside.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    async fn call<T>(
        &self,
        operation: Operation,
        collection: Option<&CollectionName>,
        lsns: Option<(Lsn, Lsn)>,
        ask: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let number = {
            let mut calls = self.calls.lock();
            calls.kept.push_back(Recorded {
                operation,
                collection: collection.cloned(),
                lsns,
                outcome: None,
            });
            let number = calls.first + calls.kept.len() as u64 - 1;
            while calls.kept.len() > self.capacity {
                calls.kept.pop_front();
                calls.first += 1;
            }
            number
        };
        let answer = ask.await;
        let mut calls = self.calls.lock();
        let place = number.checked_sub(calls.first).and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| calls.kept.get_mut(place)) {
            call.outcome = Some(answer.as_ref().map(|_| ()).map_err(|error| error.kind()));
        }
        drop(calls);
        answer
    }
}

impl<S: ?Sized> fmt::Debug for Recording<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("kept", &self.calls.lock().kept.len()).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: VectorStore + ?Sized> VectorStore for Recording<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        self.call(Operation::Position, None, None, async { self.store.position(cx).await }).await
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let lsns = run.entries().first().zip(run.entries().last()).map(|(a, b)| (a.lsn, b.lsn));
        self.call(Operation::Apply, None, lsns, async { self.store.apply(cx, run).await }).await
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        self.call(Operation::Flush, None, None, async { self.store.flush(cx).await }).await
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let (collection, lsns) = match &step {
            RestoreStep::Begin | RestoreStep::Save | RestoreStep::Resume => (None, None),
            RestoreStep::Collection { spec, .. } => (Some(&spec.name), None),
            RestoreStep::Points { collection, .. } => (Some(&collection.name), None),
            RestoreStep::Finish { position } => (None, Some((position.lsn, position.lsn))),
        };
        self.call(Operation::Restore, collection, lsns, async { self.store.restore(cx, step).await }).await
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let ask = async { self.store.search(cx, collection, query).await };
        self.call(Operation::Search, Some(collection), None, ask).await
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let ask = async { self.store.get(cx, collection, ids, fields).await };
        self.call(Operation::Get, Some(collection), None, ask).await
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        let ask = async { self.store.scroll(cx, collection, query).await };
        self.call(Operation::Scroll, Some(collection), None, ask).await
    }

    async fn versions(
        &self,
        cx: &Context,
        collection: &CollectionName,
        after: Option<PointId>,
        limit: usize,
    ) -> Result<VersionsPage> {
        let ask = async { self.store.versions(cx, collection, after, limit).await };
        self.call(Operation::Scroll, Some(collection), None, ask).await
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let ask = async { self.store.count(cx, collection, filter).await };
        self.call(Operation::Count, Some(collection), None, ask).await
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        self.call(Operation::Collections, None, None, async { self.store.collections(cx).await }).await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.call(Operation::Ping, None, None, async { self.store.ping(cx).await }).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.call(Operation::Close, None, None, async { self.store.close(cx).await }).await
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.store.memory_bytes()
    }

    async fn expect(&self, cx: &Context, expected: &[Expected]) -> Result<()> {
        self.store.expect(cx, expected).await
    }

    async fn prepare_snapshot(&self, cx: &Context) -> Result<()> {
        self.store.prepare_snapshot(cx).await
    }

    fn is_partial(&self) -> bool {
        self.store.is_partial()
    }

    fn notice(&self) -> Option<String> {
        self.store.notice()
    }

    fn graphs(&self) -> Option<&dyn Graphs> {
        self.store.graphs()
    }
}
