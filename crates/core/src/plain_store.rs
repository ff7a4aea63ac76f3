//! A small honest store in a map, for the tests of the wrappers in this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::entry::{CollectionRef, Entry, EntryHash, LogId, LogIdentity, Op, Position, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::pipeline::Pipelining;
use crate::point::{Point, Record};
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery};
use crate::spec::{CollectionSpec, Distance};
use crate::store::{
    Capabilities, CollectionInfo, Context, Durability, RestoreStep, SearchCapabilities, VectorStore,
};

struct Collection {
    spec: CollectionSpec,
    incarnation: Lsn,
    records: BTreeMap<PointId, Record>,
}

/// Takes upserts and deletes; a search answers points by id with score 0. `takes` delays every call;
/// `fails` makes every call fail;
/// `scrolls` fixes the answer of scrolls.
#[derive(Default)]
pub(crate) struct PlainStore {
    position: Mutex<Option<Position>>,
    collections: Mutex<BTreeMap<CollectionName, Collection>>,
    takes: Mutex<Duration>,
    fails: Mutex<Option<ErrorKind>>,
    page: Mutex<Option<ScrollPage>>,
    calls: AtomicUsize,
}

impl PlainStore {
    pub(crate) fn takes(&self, time: Duration) {
        *self.takes.lock() = time;
    }

    pub(crate) fn fails(&self, kind: impl Into<Option<ErrorKind>>) {
        *self.fails.lock() = kind.into();
    }

    /// Every scroll answers this page from now on.
    pub(crate) fn scrolls(&self, page: ScrollPage) {
        *self.page.lock() = Some(page);
    }

    /// How many calls reached the store.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn call(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let takes = *self.takes.lock();
        if takes > Duration::ZERO {
            tokio::time::sleep(takes).await;
        }
        match *self.fails.lock() {
            Some(kind) => Err(Error::new(kind, "as told")),
            None => Ok(()),
        }
    }

    fn within<T>(&self, name: &CollectionName, read: impl FnOnce(&Collection) -> T) -> Result<T> {
        self.collections.lock().get(name).map(read).ok_or_else(|| Error::collection_not_found(name))
    }
}

#[async_trait]
impl VectorStore for PlainStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: false },
            durability: Durability::Volatile,
            pipelining: Pipelining::NONE,
        }
    }

    async fn position(&self, _cx: &Context) -> Result<Option<Position>> {
        self.call().await?;
        Ok(*self.position.lock())
    }

    async fn apply(&self, _cx: &Context, run: &Run) -> Result<Position> {
        self.call().await?;
        let mut position = self.position.lock();
        let mut collections = self.collections.lock();
        for entry in run.remaining(position.as_ref())? {
            let version = entry.lsn;
            match &entry.op {
                Op::CreateCollection(spec) => {
                    let spec = spec.clone();
                    let name = spec.name.clone();
                    let records = BTreeMap::new();
                    collections.insert(name, Collection { spec, incarnation: version, records });
                }
                Op::AdoptCollection { spec, .. } => Op::check_adopted(spec, version, None)?,
                Op::DropCollection(collection) => {
                    collections.remove(&collection.name);
                }
                Op::Upsert { collection, points } => {
                    let Some(place) = collections.get_mut(&collection.name) else { continue };
                    let records = points.iter().map(|p| (p.id, Record { version, point: (**p).clone() }));
                    place.records.extend(records);
                }
                Op::Delete { collection, ids } => {
                    let Some(place) = collections.get_mut(&collection.name) else { continue };
                    place.records.retain(|id, _| !ids.contains(id));
                }
                Op::PatchPayload { .. } => {}
            }
        }
        *position = Some(run.end());
        Ok(run.end())
    }

    async fn flush(&self, _cx: &Context) -> Result<Option<Position>> {
        self.call().await?;
        Ok(None)
    }

    async fn restore(&self, _cx: &Context, _step: RestoreStep<'_>) -> Result<()> {
        self.call().await
    }

    async fn search(
        &self,
        _cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        self.call().await?;
        self.within(collection, |c| {
            let hits = c.records.values().take(query.limit);
            hits.map(|r| Hit { score: 0.0, version: r.version, point: query.fields.select(&r.point) })
                .collect()
        })
    }

    async fn get(
        &self,
        _cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        _fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.call().await?;
        self.within(collection, |c| ids.iter().filter_map(|id| c.records.get(id).cloned()).collect())
    }

    async fn scroll(
        &self,
        _cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        self.call().await?;
        if let Some(page) = &*self.page.lock() {
            return Ok(page.clone());
        }
        self.within(collection, |c| {
            let mut left =
                c.records.values().filter(|r| query.after.is_none_or(|after| r.point.id > after)).peekable();
            let records: Vec<Record> = left
                .by_ref()
                .take(query.limit)
                .map(|r| Record { version: r.version, point: query.fields.select(&r.point) })
                .collect();
            let next = left.peek().and(records.last().map(|r| r.point.id));
            ScrollPage { incarnation: c.incarnation, records, next }
        })
    }

    async fn count(&self, _cx: &Context, collection: &CollectionName, _: Option<&Filter>) -> Result<u64> {
        self.call().await?;
        self.within(collection, |c| c.records.len() as u64)
    }

    async fn collections(&self, _cx: &Context) -> Result<Vec<CollectionInfo>> {
        self.call().await?;
        let collections = self.collections.lock();
        let infos = collections.values().map(|c| CollectionInfo {
            spec: c.spec.clone(),
            incarnation: c.incarnation,
            points: c.records.len() as u64,
        });
        Ok(infos.collect())
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        self.call().await
    }

    async fn close(&self, _cx: &Context) -> Result<()> {
        self.call().await
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(1)
    }
}

pub(crate) fn name() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

/// The collection `docs` as the first entry creates it.
pub(crate) fn docs() -> CollectionRef {
    CollectionRef { name: name(), incarnation: Lsn(1) }
}

pub(crate) fn create() -> Op {
    Op::CreateCollection(CollectionSpec::dense(name(), 2, Distance::Dot))
}

pub(crate) fn upsert(points: Vec<Point>) -> Op {
    Op::Upsert { collection: docs(), points: points.into_iter().map(Arc::new).collect() }
}

pub(crate) fn at(lsn: u64) -> Position {
    let log = LogIdentity { id: LogId(uuid::Uuid::from_u128(1)), epoch: 1 };
    let hash = if lsn == 0 { EntryHash::ZERO } else { EntryHash([lsn as u8; 32]) };
    Position { log, lsn: Lsn(lsn), hash }
}

/// A run of these operations after the entry `after`.
pub(crate) fn run(after: u64, ops: Vec<Op>) -> Run {
    let entries = (after + 1..).zip(ops);
    let entries = entries.map(|(n, op)| Arc::new(Entry { lsn: Lsn(n), hash: at(n).hash, op, size_bytes: 0 }));
    Run::new(at(after), entries.collect()).unwrap()
}

pub(crate) fn cx() -> Context {
    Context::within(Duration::from_secs(60))
}
