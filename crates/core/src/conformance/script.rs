//! Histories to apply, and the whole state of a store to compare.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::entry::{CollectionRef, Entry, EntryHash, LogId, LogIdentity, Op, Position, Run};
use crate::id::Lsn;
use crate::name::CollectionName;
use crate::point::{Point, Record};
use crate::query::{Fields, ScrollQuery};
use crate::spec::CollectionSpec;
use crate::store::{Context, VectorStore};

/// A context that is long enough for a slow store on a busy machine.
pub fn cx() -> Context {
    Context::within(Duration::from_secs(120))
}

/// A collection name.
#[expect(clippy::expect_used, reason = "the suite's own names are good")]
pub fn name(text: &str) -> CollectionName {
    CollectionName::new(text).expect("a good name")
}

/// A log in memory, chained by hash like a real one.
#[derive(Clone, Debug)]
pub struct Script {
    identity: LogIdentity,
    entries: Vec<Arc<Entry>>,
}

impl Script {
    /// An empty log; logs of different numbers are different logs.
    pub fn new(number: u128) -> Self {
        let identity = LogIdentity { id: LogId(Uuid::from_u128(number)), epoch: 1 };
        Self { identity, entries: Vec::new() }
    }

    /// Appends an entry.
    pub fn push(&mut self, op: Op) -> Lsn {
        let before = self.position(self.end());
        let lsn = before.lsn.next();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.hash.0).update(format!("{op:?}").as_bytes());
        let hash = EntryHash(*hasher.finalize().as_bytes());
        self.entries.push(Arc::new(Entry { lsn, hash, op, size_bytes: 0 }));
        lsn
    }

    /// Appends the creation of a collection.
    pub fn create(&mut self, spec: &CollectionSpec) -> CollectionRef {
        let incarnation = self.push(Op::CreateCollection(spec.clone()));
        CollectionRef { name: spec.name.clone(), incarnation }
    }

    /// Appends an upsert.
    pub fn upsert(&mut self, collection: &CollectionRef, points: Vec<Point>) -> Lsn {
        let points = points.into_iter().map(Arc::new).collect();
        self.push(Op::Upsert { collection: collection.clone(), points })
    }

    /// The last entry.
    pub fn end(&self) -> Lsn {
        Lsn(self.entries.len() as u64)
    }

    /// The position after an entry.
    pub fn position(&self, lsn: Lsn) -> Position {
        let hash = match lsn.0.checked_sub(1) {
            None => EntryHash::ZERO,
            Some(at) => self.entries[at as usize].hash,
        };
        Position { log: self.identity, lsn, hash }
    }

    /// The run of entries after `after` up to `end`.
    #[expect(clippy::expect_used, reason = "a script has no gaps")]
    pub fn run(&self, after: Lsn, end: Lsn) -> Run {
        let entries = self.entries[after.0 as usize..end.0 as usize].to_vec();
        Run::new(self.position(after), entries).expect("a contiguous run")
    }

    /// Applies everything that a store has not yet, in one run.
    #[expect(clippy::expect_used, reason = "the suite's failure is a panic")]
    pub async fn apply_to(&self, store: &dyn VectorStore) {
        let at = store.position(&cx()).await.expect("a position").map_or(Lsn::ZERO, |position| position.lsn);
        if at < self.end() {
            let reached = store.apply(&cx(), &self.run(at, self.end())).await.expect("the run is applied");
            assert_eq!(reached, self.position(self.end()));
        }
    }
}

/// Everything that a store holds: each collection with its incarnation and all records.
#[expect(clippy::expect_used, reason = "the suite's failure is a panic")]
pub async fn state_of(store: &dyn VectorStore) -> Vec<(CollectionSpec, Lsn, Vec<Record>)> {
    let mut state = Vec::new();
    for info in store.collections(&cx()).await.expect("collections") {
        let mut query = ScrollQuery { after: None, limit: 1_000, filter: None, fields: Fields::ALL };
        let mut records = Vec::new();
        loop {
            let page = store.scroll(&cx(), &info.spec.name, &query).await.expect("a page");
            assert_eq!(page.incarnation, info.incarnation);
            let (after, limit) = (query.after, query.limit);
            let versions =
                store.versions(&cx(), &info.spec.name, after, limit).await.expect("a page of versions");
            assert_eq!(versions, page.clone().into());
            records.extend(page.records);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(info.points, records.len() as u64, "collections() counts what a scroll finds");
        state.push((info.spec, info.incarnation, records));
    }
    state
}
