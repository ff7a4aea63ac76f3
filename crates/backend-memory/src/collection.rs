//! One collection: slots, ids, tombstones and the rebuild.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use mainstay_core::point::payload_bytes;
use mainstay_core::{
    CollectionSpec, Fields, Filter, Lsn, Payload, Point, PointId, Record, Result, ScrollPage, ScrollQuery,
    SparseVector, Vector, VectorName, VectorSpec, Vectors,
};
use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::graph::Graph;
use crate::options::MemoryOptions;
use crate::payload_index::PayloadIndexes;

/// Below this many buried slots a rebuild is not worth it.
const FEWEST_BURIED: u64 = 64;

/// A collection. Writers take turns; readers share the state with them and only wait while a finished
/// change is put in place.
pub struct Collection {
    pub spec: Arc<CollectionSpec>,
    pub incarnation: Lsn,
    options: Arc<MemoryOptions>,
    pub state: RwLock<State>,
    /// Held by whoever changes the collection.
    writer: Mutex<()>,
}

/// Everything but the vectors of a point, shared with rebuilt states.
pub struct Stored {
    pub id: PointId,
    pub payload: Payload,
    pub text: Option<String>,
    pub sparse: Vec<(VectorName, SparseVector)>,
    /// Which dense vectors the point has, by their place in the spec.
    pub dense: u64,
}

/// What a slot holds. A patch changes the payload and keeps the slot, because the vectors stay.
#[derive(Clone)]
pub struct Slot {
    pub version: Lsn,
    pub stored: Arc<Stored>,
}

/// The points of a collection.
pub struct State {
    pub slots: Vec<Slot>,
    pub ids: BTreeMap<PointId, u32>,
    pub buried: RoaringBitmap,
    pub indexes: PayloadIndexes,
    /// Dense vectors by name, in the order of the spec.
    pub graphs: Arc<Vec<(VectorName, Graph)>>,
    /// Bytes of payloads, texts and sparse vectors of all slots.
    stored_bytes: u64,
}

impl State {
    fn new(spec: &CollectionSpec, options: &MemoryOptions) -> Result<Self> {
        let dense = spec.vectors.iter().filter_map(|(name, vector)| match vector {
            VectorSpec::Dense { dimension, distance } => {
                Some(Graph::new(*dimension, *distance, options).map(|graph| (name.clone(), graph)))
            }
            VectorSpec::Sparse => None,
        });
        Ok(Self {
            slots: Vec::new(),
            ids: BTreeMap::new(),
            buried: RoaringBitmap::new(),
            indexes: PayloadIndexes::new(&spec.payload_indexes),
            graphs: Arc::new(dense.collect::<Result<_>>()?),
            stored_bytes: 0,
        })
    }

    /// Whether a slot is there and not buried.
    pub fn is_alive(&self, slot: u32) -> bool {
        (slot as usize) < self.slots.len() && !self.buried.contains(slot)
    }

    /// The graph of a dense vector.
    pub fn graph(&self, name: &VectorName) -> Option<(usize, &Graph)> {
        self.graphs
            .iter()
            .enumerate()
            .find(|(_, (known, _))| known == name)
            .map(|(at, (_, graph))| (at, graph))
    }

    fn put(&mut self, slot: Slot) {
        // Slots are u32; a collection of four billion points does not fit into memory.
        let at = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.stored_bytes += stored_bytes(&slot.stored);
        self.indexes.insert(at, &slot.stored.payload);
        if let Some(old) = self.ids.insert(slot.stored.id, at) {
            self.bury(old);
        }
        self.slots.push(slot);
    }

    fn bury(&mut self, slot: u32) {
        if let Some(old) = self.slots.get(slot as usize) {
            self.indexes.remove(slot, &old.stored.payload);
        }
        self.buried.insert(slot);
    }

    /// The selected fields of a slot.
    pub fn point(&self, slot: u32, fields: &Fields) -> Option<(Lsn, Point)> {
        let held = self.slots.get(slot as usize)?;
        let stored = &held.stored;
        let mut vectors = Vectors::new();
        for (at, (name, graph)) in self.graphs.iter().enumerate() {
            if stored.dense >> at & 1 == 1
                && fields.wants_vector(name)
                && let Some(vector) = graph.vector(slot)
            {
                vectors.insert(name.clone(), Vector::Dense(vector));
            }
        }
        for (name, vector) in stored.sparse.iter().filter(|(name, _)| fields.wants_vector(name)) {
            vectors.insert(name.clone(), Vector::Sparse(vector.clone()));
        }
        let payload = fields.select_payload(&stored.payload);
        let text = stored.text.clone().filter(|_| fields.text);
        Some((held.version, Point { id: stored.id, vectors, payload, text }))
    }

    fn record(&self, slot: u32, fields: &Fields) -> Option<Record> {
        self.point(slot, fields).map(|(version, point)| Record { version, point })
    }

    fn bytes(&self) -> u64 {
        // A B-tree's nodes are about two thirds full.
        let ids = self.ids.len() * (size_of::<(PointId, u32)>() * 3 / 2);
        let slots = self.slots.capacity() * size_of::<Slot>() + self.slots.len() * (size_of::<Stored>() + 16);
        let graphs: u64 = self.graphs.iter().map(|(_, graph)| graph.bytes()).sum();
        graphs
            + (ids + slots + self.buried.serialized_size()) as u64
            + self.indexes.bytes()
            + self.stored_bytes
    }
}

fn stored_bytes(stored: &Stored) -> u64 {
    let sparse: usize = stored.sparse.iter().map(|(_, vector)| 48 + vector.indices.len() * 8).sum();
    (payload_bytes(&stored.payload) + stored.text.as_ref().map_or(0, String::len) + sparse) as u64
}

impl Collection {
    /// An empty collection.
    pub fn new(spec: CollectionSpec, incarnation: Lsn, options: Arc<MemoryOptions>) -> Result<Self> {
        let state = State::new(&spec, &options)?;
        Ok(Self {
            spec: Arc::new(spec),
            incarnation,
            options,
            state: RwLock::new(state),
            writer: Mutex::new(()),
        })
    }

    /// Writes a whole point, unless the stored one is as new.
    pub fn upsert(&self, version: Lsn, point: &Point) -> Result<()> {
        let _writer = self.writer.lock();
        let (slot, graphs) = {
            let state = self.state.read();
            if state.ids.get(&point.id).is_some_and(|slot| state.slots[*slot as usize].version >= version) {
                return Ok(());
            }
            (u32::try_from(state.slots.len()).unwrap_or(u32::MAX), Arc::clone(&state.graphs))
        };
        // The graph takes the slot before the state knows it; a search passes over such slots.
        let mut dense = 0;
        for (at, (name, graph)) in graphs.iter().enumerate() {
            if let Some(Vector::Dense(vector)) = point.vectors.get(name) {
                graph.add(slot, vector)?;
                dense |= 1 << at;
            }
        }
        let sparse = point.vectors.iter().filter_map(|(name, vector)| match vector {
            Vector::Sparse(vector) => Some((name.clone(), vector.clone())),
            Vector::Dense(_) => None,
        });
        let stored = Stored {
            id: point.id,
            payload: point.payload.clone(),
            text: point.text.clone(),
            sparse: sparse.collect(),
            dense,
        };
        self.state.write().put(Slot { version, stored: Arc::new(stored) });
        Ok(())
    }

    /// Removes points that are older than the entry.
    pub fn delete(&self, version: Lsn, ids: &[PointId]) {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        for id in ids {
            if let Some(slot) = state.ids.get(id).copied()
                && state.slots[slot as usize].version < version
            {
                state.ids.remove(id);
                state.bury(slot);
            }
        }
    }

    /// Changes the payload of points that are older than the entry.
    pub fn patch(&self, version: Lsn, ids: &[PointId], change: impl Fn(&mut Payload)) {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        let state = &mut *state;
        for id in ids {
            let Some(at) = state.ids.get(id).copied() else { continue };
            let slot = &mut state.slots[at as usize];
            if slot.version >= version {
                continue;
            }
            let old = Arc::clone(&slot.stored);
            let mut payload = old.payload.clone();
            change(&mut payload);
            state.indexes.remove(at, &old.payload);
            state.indexes.insert(at, &payload);
            let stored = Stored {
                id: old.id,
                payload,
                text: old.text.clone(),
                sparse: old.sparse.clone(),
                dense: old.dense,
            };
            state.stored_bytes =
                (state.stored_bytes + stored_bytes(&stored)).saturating_sub(stored_bytes(&old));
            *slot = Slot { version, stored: Arc::new(stored) };
        }
    }

    /// How many points there are.
    pub fn len(&self) -> u64 {
        self.state.read().ids.len() as u64
    }

    /// Bytes that the collection takes.
    pub fn bytes(&self) -> u64 {
        self.state.read().bytes()
    }

    /// The points with these ids that are there.
    pub fn get(&self, ids: &[PointId], fields: &Fields) -> Vec<Record> {
        let state = self.state.read();
        ids.iter().filter_map(|id| state.record(*state.ids.get(id)?, fields)).collect()
    }

    /// A page of points.
    pub fn scroll(&self, query: &ScrollQuery) -> ScrollPage {
        let state = self.state.read();
        let from = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let accepted = state.ids.range((from, Bound::Unbounded)).filter(|(id, slot)| {
            query.filter.as_ref().is_none_or(|filter| {
                state
                    .slots
                    .get(**slot as usize)
                    .is_some_and(|held| filter.accepts(**id, &held.stored.payload))
            })
        });
        let mut slots: Vec<u32> =
            accepted.map(|(_, slot)| *slot).take(query.limit.saturating_add(1)).collect();
        let more = slots.len() > query.limit;
        slots.truncate(query.limit);
        let records: Vec<_> =
            slots.into_iter().filter_map(|slot| state.record(slot, &query.fields)).collect();
        let next = if more { records.last().map(|record| record.point.id) } else { None };
        ScrollPage { incarnation: self.incarnation, records, next }
    }

    /// How many points a filter accepts.
    pub fn count(&self, filter: &Filter) -> u64 {
        let state = self.state.read();
        let accepts = |slot: &u32| {
            state.is_alive(*slot)
                && state
                    .slots
                    .get(*slot as usize)
                    .is_some_and(|s| filter.accepts(s.stored.id, &s.stored.payload))
        };
        match state.indexes.candidates(filter) {
            Some(candidates) if candidates.exact => candidates.slots.len(),
            Some(candidates) => candidates.slots.iter().filter(|slot| accepts(slot)).count() as u64,
            None => state.ids.values().filter(|slot| accepts(slot)).count() as u64,
        }
    }

    /// Whether enough slots are buried that the collection should be built anew.
    pub fn wants_rebuild(&self) -> bool {
        let state = self.state.read();
        let buried = state.buried.len();
        buried >= FEWEST_BURIED && buried as f64 > state.slots.len() as f64 * self.options.tombstone_ratio
    }

    /// Builds the collection anew without its buried slots and swaps it in. Reads go on; writes wait only
    /// for what was written meanwhile to be added. `stop` ends it early without a change.
    pub fn rebuild(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let (old_graphs, seen) = {
            let state = self.state.read();
            (Arc::clone(&state.graphs), u32::try_from(state.slots.len()).unwrap_or(u32::MAX))
        };
        let mut fresh = State::new(&self.spec, &self.options)?;
        // Graph slots of the new state by old slot.
        let mut moved: BTreeMap<u32, u32> = BTreeMap::new();
        let mut next = 0;
        let carry = |old: u32, next: &mut u32, moved: &mut BTreeMap<u32, u32>| -> Result<()> {
            let mut buffer = Vec::new();
            for ((_, from), (_, into)) in old_graphs.iter().zip(fresh.graphs.iter()) {
                from.with_vector(old, &mut buffer, |vector| into.add(*next, vector)).transpose()?;
            }
            moved.insert(old, *next);
            *next += 1;
            Ok(())
        };
        for old in 0..seen {
            if stop() {
                return Ok(());
            }
            if self.state.read().is_alive(old) {
                carry(old, &mut next, &mut moved)?;
            }
        }
        let _writer = self.writer.lock();
        {
            let state = self.state.read();
            for old in (seen..).take_while(|old| (*old as usize) < state.slots.len()) {
                if state.is_alive(old) {
                    carry(old, &mut next, &mut moved)?;
                }
            }
            for (old, new) in &moved {
                let Some(held) = state.slots.get(*old as usize) else { continue };
                fresh.slots.push(held.clone());
                fresh.stored_bytes += stored_bytes(&held.stored);
                if state.is_alive(*old) {
                    fresh.indexes.insert(*new, &held.stored.payload);
                    fresh.ids.insert(held.stored.id, *new);
                } else {
                    fresh.buried.insert(*new);
                }
            }
        }
        let old = std::mem::replace(&mut *self.state.write(), fresh);
        drop(_writer);
        // Freeing the old graph takes a while; nobody waits for it.
        drop(old);
        Ok(())
    }
}
