//! Tests of the whole store, in one binary: each one that links LanceDB takes long to build.

mod conformance;
mod filters;
mod measure;
mod objects;
mod outages;
mod service;
mod upkeep;
mod writes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Context, Distance, Entry, EntryHash, Fields, LogId,
    LogIdentity, Lsn, Op, Point, PointId, Position, Record, Run, ScrollQuery, VectorStore,
};
use uuid::Uuid;

use crate::{LanceOptions, LanceStore};

fn cx() -> Context {
    Context::within(Duration::from_secs(120))
}

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

fn options(path: &Path) -> LanceOptions {
    LanceOptions { maintenance: false, ..LanceOptions::new(path.to_str().unwrap()) }
}

async fn open(path: &Path) -> LanceStore {
    LanceStore::open(options(path)).await.unwrap()
}

/// A log in memory.
struct TestLog {
    identity: LogIdentity,
    entries: Vec<Arc<Entry>>,
}

impl TestLog {
    fn new() -> Self {
        Self { identity: LogIdentity { id: LogId(Uuid::new_v4()), epoch: 1 }, entries: Vec::new() }
    }

    fn append(&mut self, op: Op) -> Lsn {
        let lsn = Lsn(self.entries.len() as u64 + 1);
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&lsn.0.to_be_bytes());
        self.entries.push(Arc::new(Entry { lsn, hash: EntryHash(hash), op, size_bytes: 1 }));
        lsn
    }

    fn create(&mut self, spec: CollectionSpec) -> CollectionRef {
        let name = spec.name.clone();
        let incarnation = self.append(Op::CreateCollection(spec));
        CollectionRef { name, incarnation }
    }

    fn upsert(&mut self, collection: &CollectionRef, points: impl IntoIterator<Item = Point>) -> Lsn {
        let points = points.into_iter().map(Arc::new).collect();
        self.append(Op::Upsert { collection: collection.clone(), points })
    }

    fn delete(&mut self, collection: &CollectionRef, ids: impl IntoIterator<Item = u64>) -> Lsn {
        let ids = ids.into_iter().map(PointId::Num).collect();
        self.append(Op::Delete { collection: collection.clone(), ids })
    }

    fn at(&self, lsn: u64) -> Position {
        match lsn.checked_sub(1) {
            None => Position::start(self.identity),
            Some(i) => {
                let entry = &self.entries[i as usize];
                Position { log: self.identity, lsn: entry.lsn, hash: entry.hash }
            }
        }
    }

    fn end(&self) -> Position {
        self.at(self.entries.len() as u64)
    }

    /// All entries after this LSN.
    fn after(&self, lsn: u64) -> Run {
        Run::new(self.at(lsn), self.entries[lsn as usize..].to_vec()).unwrap()
    }

    /// Brings a store to the end of the log from where it says it is.
    async fn feed(&self, store: &LanceStore) {
        let at = store.position(&cx()).await.unwrap().map_or(0, |position| position.lsn.0);
        assert_eq!(store.apply(&cx(), &self.after(at)).await.unwrap(), self.end());
    }
}

fn spec(dimension: usize) -> CollectionSpec {
    CollectionSpec::dense(name("c"), dimension, Distance::Euclidean)
}

fn point(id: u64) -> Point {
    Point::new(id, vec![id as f32, 1.0]).with_payload(serde_json::json!({ "n": id }))
}

/// Every point of a collection, by pages of a few.
async fn contents(store: &LanceStore, collection: &str) -> Vec<Record> {
    let mut query = ScrollQuery { limit: 7, fields: Fields::ALL, ..ScrollQuery::default() };
    let mut records = Vec::new();
    loop {
        let page = store.scroll(&cx(), &name(collection), &query).await.unwrap();
        records.extend(page.records);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return records,
        }
    }
}

fn numbers(records: &[Record]) -> Vec<u64> {
    let number = |record: &Record| match record.point.id {
        PointId::Num(n) => n,
        PointId::Uuid(_) => panic!("a number"),
    };
    records.iter().map(number).collect()
}
