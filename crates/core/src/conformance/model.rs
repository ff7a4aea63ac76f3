//! The oracle: a store that is right because it is plain.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::entry::{CollectionRef, Entry, Op, Position, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::pipeline::Pipelining;
use crate::point::Record;
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery};
use crate::score;
use crate::spec::{CollectionSpec, Distance};
use crate::store::{
    Capabilities, CollectionInfo, Context, Durability, RestoreStep, SearchCapabilities, VectorStore, closed,
};

/// Maps and full scans.
#[derive(Debug, Default)]
pub struct ModelStore {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    position: Option<Position>,
    restoring: bool,
    closed: bool,
    collections: BTreeMap<CollectionName, Collection>,
}

#[derive(Clone, Debug)]
struct Collection {
    spec: CollectionSpec,
    incarnation: Lsn,
    records: BTreeMap<PointId, Record>,
}

impl State {
    fn open(&self) -> Result<&Self> {
        if self.closed { Err(closed()) } else { Ok(self) }
    }

    fn collection(&self, name: &CollectionName) -> Result<&Collection> {
        self.open()?.collections.get(name).ok_or_else(|| Error::collection_not_found(name))
    }

    fn meant(&mut self, collection: &CollectionRef) -> Option<&mut Collection> {
        self.collections.get_mut(&collection.name).filter(|known| known.incarnation == collection.incarnation)
    }

    fn create(&mut self, spec: &CollectionSpec, incarnation: Lsn) {
        if self.collections.get(&spec.name).is_none_or(|known| known.incarnation < incarnation) {
            let created = Collection { spec: spec.clone(), incarnation, records: BTreeMap::new() };
            self.collections.insert(spec.name.clone(), created);
        }
    }

    fn apply(&mut self, entry: &Entry) -> Result<()> {
        let newer = |record: Option<&Record>| record.is_some_and(|record| record.version >= entry.lsn);
        match &entry.op {
            Op::CreateCollection(spec) => self.create(spec, entry.lsn),
            Op::AdoptCollection { spec, .. } => {
                let held = self.collections.get(&spec.name).map(|known| known.incarnation);
                Op::check_adopted(spec, entry.lsn, held)?;
            }
            Op::DropCollection(collection) => {
                if self.meant(collection).is_some() {
                    self.collections.remove(&collection.name);
                }
            }
            Op::Upsert { collection, points } => {
                let Some(collection) = self.meant(collection) else { return Ok(()) };
                for point in points {
                    if !newer(collection.records.get(&point.id)) {
                        let record = Record { version: entry.lsn, point: (**point).clone() };
                        collection.records.insert(point.id, record);
                    }
                }
            }
            Op::Delete { collection, ids } => {
                let Some(collection) = self.meant(collection) else { return Ok(()) };
                for id in ids {
                    if !newer(collection.records.get(id)) {
                        collection.records.remove(id);
                    }
                }
            }
            Op::PatchPayload { collection, ids, patch } => {
                let Some(collection) = self.meant(collection) else { return Ok(()) };
                for id in ids {
                    if let Some(record) = collection.records.get_mut(id)
                        && record.version < entry.lsn
                    {
                        patch.apply_to(&mut record.point.payload);
                        record.version = entry.lsn;
                    }
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl VectorStore for ModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: true },
            durability: Durability::Volatile,
            pipelining: Pipelining::NONE,
        }
    }

    async fn position(&self, _: &Context) -> Result<Option<Position>> {
        let state = self.state.lock();
        Ok(if state.open()?.restoring { None } else { state.position })
    }

    async fn apply(&self, _: &Context, run: &Run) -> Result<Position> {
        let mut state = self.state.lock();
        if state.open()?.restoring {
            return Err(Error::new(ErrorKind::LogGap, "the store is being loaded"));
        }
        let mut reached = state.position.unwrap_or(Position::start(run.after().log));
        for entry in run.remaining(state.position.as_ref())? {
            state.apply(entry)?;
            reached = Position { lsn: entry.lsn, hash: entry.hash, ..reached };
            state.position = Some(reached);
        }
        state.position = Some(reached);
        Ok(reached)
    }

    async fn flush(&self, _: &Context) -> Result<Option<Position>> {
        self.state.lock().open().map(|_| None)
    }

    async fn restore(&self, _: &Context, step: RestoreStep<'_>) -> Result<()> {
        let mut state = self.state.lock();
        step.check(state.open()?.restoring, state.position)?;
        match step {
            RestoreStep::Begin => *state = State { restoring: true, ..State::default() },
            RestoreStep::Collection { spec, incarnation } => state.create(spec, incarnation),
            RestoreStep::Points { collection, records } => {
                let meant = state.meant(collection);
                let meant = meant.ok_or_else(|| Error::invalid("points came before their collection"))?;
                meant.records.extend(records.into_iter().map(|record| (record.point.id, record)));
            }
            RestoreStep::Save => {}
            RestoreStep::Resume => state.restoring = true,
            RestoreStep::Finish { position } => {
                state.position = Some(position);
                state.restoring = false;
            }
        }
        Ok(())
    }

    async fn search(
        &self,
        _: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let state = self.state.lock();
        let collection = state.collection(collection)?;
        let spec = collection.spec.vector(&query.using)?;
        let mut scored: Vec<(f32, &Record)> = collection
            .records
            .values()
            .filter(|r| query.filter.as_ref().is_none_or(|f| f.accepts(r.point.id, &r.point.payload)))
            .filter_map(|r| Some((score::score(spec, &query.vector, r.point.vectors.get(&query.using)?)?, r)))
            .filter(|(score, _)| score::passes(spec, *score, query.score_threshold))
            .collect();
        scored.sort_by(|a, b| score::order(spec, (a.0, a.1.point.id), (b.0, b.1.point.id)));
        let page = scored.into_iter().skip(query.offset).take(query.limit);
        Ok(page
            .map(|(score, r)| Hit { score, version: r.version, point: query.fields.select(&r.point) })
            .collect())
    }

    async fn get(
        &self,
        _: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let state = self.state.lock();
        let records = &state.collection(collection)?.records;
        let selected = |r: &Record| Record { version: r.version, point: fields.select(&r.point) };
        Ok(ids.iter().filter_map(|id| records.get(id)).map(selected).collect())
    }

    async fn scroll(
        &self,
        _: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        let state = self.state.lock();
        let collection = state.collection(collection)?;
        let after = collection.records.iter().filter(|(id, _)| query.after.is_none_or(|after| **id > after));
        let mut records: Vec<Record> = after
            .map(|(_, record)| record)
            .filter(|r| query.filter.as_ref().is_none_or(|f| f.accepts(r.point.id, &r.point.payload)))
            .map(|r| Record { version: r.version, point: query.fields.select(&r.point) })
            .collect();
        let more = records.len() > query.limit;
        records.truncate(query.limit);
        let next = if more { records.last().map(|record| record.point.id) } else { None };
        Ok(ScrollPage { incarnation: collection.incarnation, records, next })
    }

    async fn count(&self, _: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let state = self.state.lock();
        let records = state.collection(collection)?.records.values();
        let accepted = records.filter(|r| filter.is_none_or(|f| f.accepts(r.point.id, &r.point.payload)));
        Ok(accepted.count() as u64)
    }

    async fn collections(&self, _: &Context) -> Result<Vec<CollectionInfo>> {
        let state = self.state.lock();
        let info = |c: &Collection| CollectionInfo {
            spec: c.spec.clone(),
            incarnation: c.incarnation,
            points: c.records.len() as u64,
        };
        Ok(state.open()?.collections.values().map(info).collect())
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        self.state.lock().open().map(|_| ())
    }

    async fn close(&self, _: &Context) -> Result<()> {
        self.state.lock().closed = true;
        Ok(())
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
