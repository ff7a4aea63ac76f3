//! A store of one's own: whatever implements `VectorStore` can be a member of a tier.
//!
//! This one adds an audit to another store: it counts what goes through. `tests/conformance.rs` holds it to the
//! same suite as Mainstay's own stores, with one line.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mainstay_core::{
    Capabilities, CollectionInfo, CollectionName, Context, Expected, Fields, Filter, Graphs, Hit, PointId,
    Position, Record, RestoreStep, Result, Run, ScrollPage, ScrollQuery, SearchQuery, VectorStore,
};

/// A store that counts what goes through to another one.
#[derive(Default)]
pub struct Audited<S> {
    inner: S,
    entries: AtomicU64,
    searches: AtomicU64,
}

impl<S: VectorStore> Audited<S> {
    /// Counts what goes through to this store.
    pub fn new(inner: S) -> Self {
        Self { inner, entries: AtomicU64::new(0), searches: AtomicU64::new(0) }
    }

    /// Entries applied and searches answered so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.searches.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl<S: VectorStore> VectorStore for Audited<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        self.inner.position(cx).await
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let reached = self.inner.apply(cx, run).await?;
        self.entries.fetch_add(run.entries().len() as u64, Ordering::Relaxed);
        Ok(reached)
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        self.inner.flush(cx).await
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        self.inner.restore(cx, step).await
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let hits = self.inner.search(cx, collection, query).await?;
        self.searches.fetch_add(1, Ordering::Relaxed);
        Ok(hits)
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.inner.get(cx, collection, ids, fields).await
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        self.inner.scroll(cx, collection, query).await
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.inner.count(cx, collection, filter).await
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        self.inner.collections(cx).await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.inner.close(cx).await
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.inner.memory_bytes()
    }

    async fn expect(&self, cx: &Context, expected: &[Expected]) -> Result<()> {
        self.inner.expect(cx, expected).await
    }

    async fn prepare_snapshot(&self, cx: &Context) -> Result<()> {
        self.inner.prepare_snapshot(cx).await
    }

    fn is_partial(&self) -> bool {
        self.inner.is_partial()
    }

    fn notice(&self) -> Option<String> {
        self.inner.notice()
    }

    fn graphs(&self) -> Option<&dyn Graphs> {
        self.inner.graphs()
    }
}
