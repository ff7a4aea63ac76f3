//! One collection: slots, ids, tombstones and the rebuild.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mainstay_core::{
    CollectionSpec, Fields, Filter, Lsn, Payload, Point, PointId, Record, Result, ScrollPage, ScrollQuery,
    Vector, VectorName, VectorSpec, Vectors, VersionsPage,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use roaring::RoaringBitmap;

use crate::graph::Graph;
use crate::ids::Ids;
use crate::options::MemoryOptions;
use crate::payload_index::PayloadIndexes;
use crate::recency::{Clock, Recency};
use crate::saved;
use crate::slot::Slot;
use crate::slots::Slots;

/// A rebuild measures itself after so many points.
const MEASURED_EVERY: usize = 1_024;
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
    /// Bytes of a load or a rebuild that is not in place yet, or of what a rebuild replaced and is not freed yet.
    building: AtomicU64,
    /// Whether the latter is counted there: a rebuild has all but ended.
    pub freeing: AtomicBool,
    /// Orders the uses of points; `None` in a store that never becomes partial.
    clock: Option<Arc<Clock>>,
}

/// The graph of each dense vector, in the order of the spec.
pub type Graphs = Vec<(VectorName, Graph)>;

/// The points of a collection.
pub struct State {
    pub slots: Slots,
    pub ids: Ids,
    pub buried: RoaringBitmap,
    pub indexes: PayloadIndexes,
    /// Dense vectors by name, in the order of the spec.
    pub graphs: Arc<Graphs>,
    /// Bytes of payloads, texts and sparse vectors of all slots.
    stored_bytes: u64,
    /// When each slot was last used; empty in a store that never becomes partial.
    pub recency: Recency,
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
            slots: Slots::default(),
            ids: Ids::default(),
            buried: RoaringBitmap::new(),
            indexes: PayloadIndexes::new(&spec.payload_indexes),
            graphs: Arc::new(dense.collect::<Result<_>>()?),
            stored_bytes: 0,
            recency: Recency::default(),
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

    /// The version of a point that is there.
    fn version_of(&self, id: PointId) -> Option<Lsn> {
        Some(self.slots.get(self.ids.get(id)?)?.version)
    }

    /// The slot that the next point takes.
    pub fn next_slot(&self) -> u32 {
        // Slots are u32; a collection of four billion points does not fit into memory.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, slot: Slot) {
        self.stored_bytes += slot.bytes();
        self.slots.push(slot);
    }

    /// What a rebuild would take beside it: everything anew but what slots hold, which it shares.
    fn rebuild_bytes(&self, spec: &CollectionSpec, options: &MemoryOptions) -> u64 {
        let alive = self.ids.len() as u64;
        let recency = (self.recency.bytes() as u64).min(alive * 16);
        let dense = spec.vectors.values().filter_map(|vector| match vector {
            VectorSpec::Dense { dimension, distance } => {
                Some(Graph::estimate(alive, *dimension, *distance, options))
            }
            VectorSpec::Sparse => None,
        });
        dense.sum::<u64>() + Slots::estimate(alive) + self.ids.bytes() as u64 + self.indexes.bytes() + recency
    }

    fn put(&mut self, slot: Slot) {
        let at = self.next_slot();
        self.indexes.insert(at, slot.payload());
        if let Some(old) = self.ids.insert(slot.id(), at) {
            self.bury(old);
        }
        self.push(slot);
    }

    /// Takes the next slot for what loaded graphs have there.
    pub fn put_loaded(&mut self, slot: Option<Slot>) {
        match slot {
            Some(slot) => self.put(slot),
            None => self.waste(PointId::Num(0)),
        }
    }

    /// Takes the next slot for no point.
    fn waste(&mut self, id: PointId) {
        self.buried.insert(self.next_slot());
        self.push(Slot::wasted(id));
    }

    fn bury(&mut self, slot: u32) {
        if let Some(old) = self.slots.get_mut(slot) {
            self.indexes.remove(slot, old.payload());
            self.stored_bytes = self.stored_bytes.saturating_sub(old.bytes());
            // Its vectors stay until a rebuild; the rest need not.
            old.clear();
        }
        self.buried.insert(slot);
    }

    /// The selected fields of a slot.
    pub fn point(&self, slot: u32, fields: &Fields) -> Option<(Lsn, Point)> {
        let held = self.slots.get(slot)?;
        let mut vectors = Vectors::new();
        for (at, (name, graph)) in self.graphs.iter().enumerate() {
            if held.has_dense(at)
                && fields.wants_vector(name)
                && let Some(vector) = graph.vector(slot)
            {
                vectors.insert(name.clone(), Vector::Dense(vector));
            }
        }
        for (name, vector) in held.sparse().iter().filter(|(name, _)| fields.wants_vector(name)) {
            vectors.insert(name.clone(), Vector::Sparse(vector.clone()));
        }
        let payload = fields.select_payload(held.payload());
        let text = held.text().filter(|_| fields.text).map(str::to_owned);
        Some((held.version, Point { id: held.id(), vectors, payload, text }))
    }

    fn record(&self, slot: u32, fields: &Fields) -> Option<Record> {
        self.point(slot, fields).map(|(version, point)| Record { version, point })
    }

    fn bytes(&self) -> u64 {
        let graphs: u64 = self.graphs.iter().map(|(_, graph)| graph.bytes()).sum();
        graphs
            + (self.ids.bytes() + self.slots.bytes() + self.buried.serialized_size()) as u64
            + self.recency.bytes() as u64
            + self.indexes.bytes()
            + self.stored_bytes
    }
}

impl Collection {
    /// An empty collection. With a clock it knows when each point was last used.
    pub fn new(
        spec: CollectionSpec,
        incarnation: Lsn,
        options: Arc<MemoryOptions>,
        clock: Option<Arc<Clock>>,
    ) -> Result<Self> {
        let state = State::new(&spec, &options)?;
        Ok(Self {
            spec: Arc::new(spec),
            incarnation,
            options,
            state: RwLock::new(state),
            writer: Mutex::new(()),
            building: AtomicU64::new(0),
            freeing: AtomicBool::new(false),
            clock,
        })
    }

    /// A state like that of an empty collection.
    ///
    /// # Errors
    /// Whatever usearch runs into.
    pub fn empty_state(&self) -> Result<State> {
        State::new(&self.spec, &self.options)
    }

    /// Puts the points of a load in place of none.
    pub fn fill(&self, mut state: State) {
        let _writer = self.writer.lock();
        for _ in 0..state.slots.len() {
            self.track(&mut state, 0);
        }
        *self.state.write() = state;
    }

    /// Counts what a load takes that is to fill it, until that is in place.
    pub fn count_load(&self, bytes: u64) {
        self.building.store(bytes, Ordering::Relaxed);
    }

    /// Nobody writes as long as this is held.
    pub fn pause_writers(&self) -> MutexGuard<'_, ()> {
        self.writer.lock()
    }

    /// What the graphs are made of.
    pub fn graph_parameters(&self) -> Option<String> {
        saved::parameters(&self.spec, &self.options)
    }

    /// Writes a whole point, unless the stored one is as new.
    pub fn upsert(&self, version: Lsn, point: &Point) -> Result<()> {
        let _writer = self.writer.lock();
        let (slot, graphs) = {
            let state = self.state.read();
            if state.version_of(point.id).is_some_and(|stored| stored >= version) {
                return Ok(());
            }
            (state.next_slot(), Arc::clone(&state.graphs))
        };
        // The graph takes the slot before the state knows it; a search passes over such slots.
        let mut dense = 0;
        for (at, (name, graph)) in graphs.iter().enumerate() {
            if let Some(Vector::Dense(vector)) = point.vectors.get(name) {
                if let Err(error) = graph.add(slot, vector) {
                    // Some graph may have the slot, so no other point may take it.
                    let mut state = self.state.write();
                    state.waste(point.id);
                    self.track(&mut state, 0);
                    return Err(error);
                }
                dense |= 1 << at;
            }
        }
        let mut state = self.state.write();
        state.put(Slot::copied(version, point, dense));
        let moment = self.clock.as_ref().map_or(0, |clock| clock.written(version));
        self.track(&mut state, moment);
        Ok(())
    }

    /// Notes when the slot that was pushed last was used.
    fn track(&self, state: &mut State, moment: u64) {
        if self.clock.is_some() {
            state.recency.push(moment);
        }
    }

    /// Notes that the points of these slots were found.
    pub fn touch(&self, state: &State, slots: impl Iterator<Item = u32>) {
        if let Some(clock) = &self.clock {
            slots.for_each(|slot| state.recency.touch(slot, clock.read()));
        }
    }

    /// When each point was last used.
    pub fn moments(&self) -> Vec<u64> {
        let state = self.state.read();
        state.ids.slots().map(|slot| state.recency.of(slot)).collect()
    }

    /// Lets the points go that were not used after this moment, and answers how many.
    pub fn evict(&self, until: u64) -> u64 {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        let old: Vec<_> =
            state.ids.after(None).filter(|(_, slot)| state.recency.of(*slot) <= until).collect();
        for (id, slot) in &old {
            state.ids.remove(*id);
            state.bury(*slot);
        }
        old.len() as u64
    }

    /// Removes points that are older than the entry.
    pub fn delete(&self, version: Lsn, ids: &[PointId]) {
        let _writer = self.writer.lock();
        let mut state = self.state.write();
        for id in ids {
            if let Some(slot) = state.ids.get(*id)
                && state.version_of(*id).is_some_and(|stored| stored < version)
            {
                state.ids.remove(*id);
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
            let Some(at) = state.ids.get(*id) else { continue };
            let Some(slot) = state.slots.get_mut(at).filter(|slot| slot.version < version) else { continue };
            let mut payload = slot.payload().clone();
            change(&mut payload);
            let changed = slot.with_payload(version, payload);
            state.indexes.remove(at, slot.payload());
            state.indexes.insert(at, changed.payload());
            state.stored_bytes = (state.stored_bytes + changed.bytes()).saturating_sub(slot.bytes());
            *slot = changed;
            if let Some(clock) = &self.clock {
                state.recency.touch(at, clock.written(version));
            }
        }
    }

    /// How many points there are.
    pub fn len(&self) -> u64 {
        self.state.read().ids.len() as u64
    }

    /// Bytes that the collection takes, with those of a load or a rebuild that is under way.
    pub fn bytes(&self) -> u64 {
        self.state.read().bytes() + self.building.load(Ordering::Relaxed)
    }

    /// What a rebuild would take beside it, without what one that is under way has taken.
    pub fn rebuild_bytes(&self) -> u64 {
        let all = self.state.read().rebuild_bytes(&self.spec, &self.options);
        all.saturating_sub(self.building.load(Ordering::Relaxed))
    }

    /// Whether more slots are buried than are in use, so that a rebuild frees more than half.
    pub fn is_half_buried(&self) -> bool {
        let state = self.state.read();
        let buried = state.buried.len();
        buried >= FEWEST_BURIED && buried * 2 > state.slots.len() as u64
    }

    /// The points with these ids that are there.
    pub fn get(&self, ids: &[PointId], fields: &Fields) -> Vec<Record> {
        let state = self.state.read();
        let slots: Vec<u32> = ids.iter().filter_map(|id| state.ids.get(*id)).collect();
        self.touch(&state, slots.iter().copied());
        slots.into_iter().filter_map(|slot| state.record(slot, fields)).collect()
    }

    /// A page of points.
    pub fn scroll(&self, query: &ScrollQuery) -> ScrollPage {
        let state = self.state.read();
        let accepted = state.ids.after(query.after).filter(|(id, slot)| {
            query.filter.as_ref().is_none_or(|filter| {
                state.slots.get(*slot).is_some_and(|held| filter.accepts(*id, held.payload()))
            })
        });
        let mut slots: Vec<u32> =
            accepted.map(|(_, slot)| slot).take(query.limit.saturating_add(1)).collect();
        let more = slots.len() > query.limit;
        slots.truncate(query.limit);
        let records: Vec<_> =
            slots.into_iter().filter_map(|slot| state.record(slot, &query.fields)).collect();
        let next = if more { records.last().map(|record| record.point.id) } else { None };
        ScrollPage { incarnation: self.incarnation, records, next }
    }

    /// A page of ids and versions.
    pub fn versions(&self, after: Option<PointId>, limit: usize) -> VersionsPage {
        let state = self.state.read();
        let mut ids = state.ids.after(after);
        let mut versions = Vec::with_capacity(limit.min(state.ids.len()));
        let page = ids.by_ref().take(limit);
        versions.extend(page.filter_map(|(id, slot)| Some((id, state.slots.get(slot)?.version))));
        let next = ids.next().and(versions.last()).map(|(id, _)| *id);
        VersionsPage { incarnation: self.incarnation, versions, next }
    }

    /// How many points a filter accepts.
    pub fn count(&self, filter: &Filter) -> u64 {
        let state = self.state.read();
        let accepts = |slot: &u32| {
            state.is_alive(*slot)
                && state.slots.get(*slot).is_some_and(|s| filter.accepts(s.id(), s.payload()))
        };
        match state.indexes.candidates(filter) {
            Some(candidates) if candidates.exact => candidates.slots.len(),
            Some(candidates) => candidates.slots.iter().filter(accepts).count() as u64,
            None => state.ids.slots().filter(accepts).count() as u64,
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
        let rebuilt = self.build_anew(stop);
        self.building.store(0, Ordering::Relaxed);
        self.freeing.store(false, Ordering::Release);
        rebuilt
    }

    fn build_anew(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let (old_graphs, seen) = {
            let state = self.state.read();
            (Arc::clone(&state.graphs), state.next_slot())
        };
        let mut fresh = State::new(&self.spec, &self.options)?;
        // The old slot of each new one.
        let mut moved: Vec<u32> = Vec::new();
        let carry = |old: u32, moved: &mut Vec<u32>| -> Result<()> {
            let next = u32::try_from(moved.len()).unwrap_or(u32::MAX);
            let mut buffer = Vec::new();
            for ((_, from), (_, into)) in old_graphs.iter().zip(fresh.graphs.iter()) {
                if let Some(vector) = from.vectors().get(old, &mut buffer) {
                    into.add(next, vector)?;
                }
            }
            moved.push(old);
            if moved.len().is_multiple_of(MEASURED_EVERY) {
                let built = fresh.graphs.iter().map(|(_, graph)| graph.bytes()).sum();
                self.building.store(built, Ordering::Relaxed);
            }
            Ok(())
        };
        for old in 0..seen {
            if stop() {
                return Ok(());
            }
            if self.state.read().is_alive(old) {
                carry(old, &mut moved)?;
            }
        }
        let _writer = self.writer.lock();
        {
            let state = self.state.read();
            for old in (seen..).take_while(|old| (*old as usize) < state.slots.len()) {
                if state.is_alive(old) {
                    carry(old, &mut moved)?;
                }
            }
            for old in moved {
                let Some(held) = state.slots.get(old) else { continue };
                let new = fresh.next_slot();
                if state.is_alive(old) {
                    fresh.indexes.insert(new, held.payload());
                    fresh.ids.insert(held.id(), new);
                } else {
                    fresh.buried.insert(new);
                }
                fresh.push(held.clone());
                self.track(&mut fresh, state.recency.of(old));
            }
            self.freeing.store(true, Ordering::Release);
            // From here on the new state is counted as the collection's own, and the old one, but for what they share,
            // as what is not freed yet.
            self.building.store(state.bytes().saturating_sub(state.stored_bytes), Ordering::Relaxed);
        }
        let old = std::mem::replace(&mut *self.state.write(), fresh);
        drop(_writer);
        // Freeing the old graph takes a while; nobody waits for it.
        drop(old);
        Ok(())
    }
}
