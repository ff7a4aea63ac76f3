//! The engine in this process: one qdrant-edge shard per collection, on a directory.

mod convert;
mod files;
mod shard;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::store::with_deadline;
use mainstay_core::{
    CollectionName, CollectionSpec, Context, Error, ErrorKind, Fields, Filter, Hit, Lsn, PayloadPath,
    PointId, Record, Result, SearchQuery,
};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;

use self::files::Directory;
use self::shard::Shard;
use crate::engine::{Batch, Description, Engine, Scroll};

/// How an embedded store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeOptions {
    /// The directory of the store. It is created if it is not there; it must be empty or hold a store.
    pub path: PathBuf,
    /// After how many written points a collection is optimised: segments are merged, and large ones get a
    /// search graph.
    pub optimize_after_points: u64,
}

impl EdgeOptions {
    /// The defaults with this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), optimize_after_points: 20_000 }
    }
}

/// qdrant-edge on a directory.
pub struct Edge {
    inner: Arc<Inner>,
    /// Optimisations under way; awaited by `close`.
    optimizing: Mutex<JoinSet<()>>,
}

struct Inner {
    options: EdgeOptions,
    directory: Directory,
    /// The open shards by collection.
    shards: RwLock<BTreeMap<CollectionName, Arc<Shard>>>,
}

impl Edge {
    /// Opens a directory and the shards in it.
    ///
    /// # Errors
    /// `Invalid` for a directory that holds something else, `Unavailable` if another process has it or it cannot
    /// be read.
    pub async fn open(options: EdgeOptions) -> Result<Self> {
        let inner = blocking(move || {
            let directory = Directory::open(&options.path)?;
            let mut shards = BTreeMap::new();
            for name in directory.collections()? {
                let shard = Shard::load(&directory.shard(&name))?;
                shards.insert(name, Arc::new(shard));
            }
            Ok(Inner { options, directory, shards: RwLock::new(shards) })
        });
        Ok(Self { inner: Arc::new(inner.await?), optimizing: Mutex::default() })
    }

    /// Work on a thread where it may block, within the deadline. Work that is given up goes on to its end.
    async fn run<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        with_deadline(cx, blocking(move || work(&inner))).await
    }

    async fn on_shard<T: Send + 'static>(
        &self,
        cx: &Context,
        name: &CollectionName,
        work: impl FnOnce(&Shard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shard = self.inner.shard(name)?;
        with_deadline(cx, blocking(move || work(&shard))).await
    }

    fn start_optimizing(&self, shard: Arc<Shard>) {
        let mut optimizing = self.optimizing.lock();
        while optimizing.try_join_next().is_some() {}
        // One at a time: it takes every core that it gets.
        if optimizing.is_empty() {
            optimizing.spawn_blocking(move || {
                if let Err(error) = shard.optimize() {
                    tracing::warn!(%error, "optimising a collection failed; searches of it are slower");
                }
            });
        }
    }
}

/// A panic of the engine ends the work, not the process.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "the embedded Qdrant engine failed").with_source(error))
    })
}

impl Inner {
    fn shard(&self, name: &CollectionName) -> Result<Arc<Shard>> {
        self.shards.read().get(name).cloned().ok_or_else(|| Error::collection_not_found(name))
    }
}

#[async_trait]
impl Engine for Edge {
    fn is_durable(&self) -> bool {
        false
    }

    async fn control(&self, cx: &Context) -> Result<Option<String>> {
        self.run(cx, |inner| Ok(inner.directory.control()?.map(|(_, document)| document))).await
    }

    async fn stamp(&self, cx: &Context) -> Result<Option<String>> {
        self.run(cx, |inner| Ok(inner.directory.control()?.map(|(stamp, _)| stamp))).await
    }

    async fn set_control(&self, cx: &Context, stamp: &str, document: &str) -> Result<()> {
        let (stamp, document) = (stamp.to_owned(), document.to_owned());
        self.run(cx, move |inner| inner.directory.set_control(&stamp, &document)).await
    }

    async fn collections(&self, _: &Context) -> Result<Vec<String>> {
        Ok(self.inner.shards.read().keys().map(|name| name.as_str().to_owned()).collect())
    }

    async fn describe(&self, _: &Context, name: &str) -> Result<Description> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the collection {name} is in a directory that Mainstay alone writes to; nothing in it can be adopted"
            ),
        ))
    }

    async fn create(&self, cx: &Context, spec: &CollectionSpec) -> Result<()> {
        let spec = spec.clone();
        self.run(cx, move |inner| {
            if inner.shards.read().contains_key(&spec.name) {
                return Ok(());
            }
            let shard = Shard::create(&inner.directory.shard(&spec.name), &spec)?;
            inner.shards.write().insert(spec.name, Arc::new(shard));
            Ok(())
        })
        .await
    }

    async fn index(&self, cx: &Context, spec: &CollectionSpec) -> Result<()> {
        let of = spec.clone();
        self.on_shard(cx, &spec.name, move |shard| shard.index(&of)).await
    }

    async fn remove(&self, cx: &Context, name: &CollectionName) -> Result<()> {
        let name = name.clone();
        self.run(cx, move |inner| {
            let shard = inner.shards.write().remove(&name);
            if let Some(shard) = shard {
                shard.retire();
            }
            inner.directory.remove(&name)
        })
        .await
    }

    async fn write(&self, cx: &Context, spec: &CollectionSpec, batch: Batch) -> Result<()> {
        let (shard, of) = (self.inner.shard(&spec.name)?, spec.clone());
        let written = self.on_shard(cx, &spec.name, move |shard| shard.write(&of, batch)).await?;
        if written >= self.inner.options.optimize_after_points {
            self.start_optimizing(shard);
        }
        Ok(())
    }

    async fn versions(
        &self,
        cx: &Context,
        name: &CollectionName,
        ids: &[PointId],
    ) -> Result<BTreeMap<PointId, Lsn>> {
        let ids = ids.to_vec();
        self.on_shard(cx, name, move |shard| {
            let records = shard.get(&ids, &Fields::NONE)?;
            Ok(records.into_iter().map(|record| (record.point.id, record.version)).collect())
        })
        .await
    }

    async fn get(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let (ids, fields) = (ids.to_vec(), fields.clone());
        self.on_shard(cx, &spec.name, move |shard| shard.get(&ids, &fields)).await
    }

    async fn scroll(&self, cx: &Context, spec: &CollectionSpec, scroll: &Scroll<'_>) -> Result<Vec<Record>> {
        let (from, limit) = (scroll.from, scroll.limit);
        let (filter, fields) = (scroll.filter.cloned(), scroll.fields.clone());
        self.on_shard(cx, &spec.name, move |shard| shard.scroll(from, limit, filter.as_ref(), &fields)).await
    }

    async fn search(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<Vec<Hit>> {
        let query = query.clone();
        self.on_shard(cx, &spec.name, move |shard| shard.search(&query, limit)).await
    }

    async fn count(&self, cx: &Context, name: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let filter = filter.cloned();
        self.on_shard(cx, name, move |shard| shard.count(filter.as_ref())).await
    }

    async fn count_mixed(&self, cx: &Context, name: &CollectionName, path: &PayloadPath) -> Result<u64> {
        let path = path.clone();
        self.on_shard(cx, name, move |shard| shard.count_mixed(&path)).await
    }

    async fn flush(&self, cx: &Context) -> Result<bool> {
        self.run(cx, |inner| {
            let shards: Vec<_> = inner.shards.read().values().cloned().collect();
            for shard in shards {
                if !shard.flush()? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.run(cx, |inner| inner.directory.check()).await
    }

    async fn close(&self) {
        let mut optimizing = std::mem::take(&mut *self.optimizing.lock());
        while optimizing.join_next().await.is_some() {}
        let inner = Arc::clone(&self.inner);
        let closed = blocking(move || {
            inner.shards.write().clear();
            inner.directory.release();
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "closing the embedded Qdrant engine failed");
        }
    }
}
