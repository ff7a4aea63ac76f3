//! A collection that is filled while its graphs are already known.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, Builder};

use mainstay_core::{CollectionRef, Error, ErrorKind, Lsn, PointId, Record, Result, Vector, VectorName};
use parking_lot::Mutex;

use super::NONE;
use super::image::Image;
use super::read::{Links, Saved};
use crate::collection::{Collection, State};
use crate::graph::Graph;
use crate::slot::Slot;

/// Points whose vectors are written while others wait to write theirs.
const AT_ONCE: usize = 64;
/// Bytes that a load keeps for each slot: what came of it, and whether.
const SLOT: usize = size_of::<Option<Slot>>() + 1;

/// The points of a collection as they come, put where its graphs have them. Several may put some.
pub struct Load {
    collection: Arc<Collection>,
    /// The slot and the version that the graphs know each point by.
    known: HashMap<PointId, (u32, Lsn)>,
    /// `None` once it is in place.
    filled: Mutex<Option<Filled>>,
}

/// What came so far.
struct Filled {
    state: State,
    /// Whether each slot's point came.
    came: Vec<bool>,
    slots: Vec<Option<Slot>>,
    graphs: Vec<Loading>,
    /// What the graphs do not know.
    late: Vec<Record>,
    /// Bytes that all of it takes.
    bytes: u64,
}

/// A graph that is to be, and which slot has which row of it.
struct Loading {
    rows: Vec<u32>,
    slots: Vec<u32>,
    image: Image,
    /// What its vectors will take beside it.
    exact_bytes: u64,
}

impl Load {
    /// Of graphs that this collection, which is empty, would have built; `points` is how many are about to come.
    ///
    /// # Errors
    /// `Corrupt` if the parts are not what was saved; `StorageFull` if there is no room for what comes.
    pub fn new(collection: Arc<Collection>, parts: &[Vec<u8>], points: u64) -> Result<Self> {
        let state = collection.empty_state()?;
        let Saved { ids, versions, links } = Saved::read(parts, state.graphs.len(), points)?;
        let there: Vec<_> = ids.iter().map(Option::is_some).collect();
        let slots = std::iter::repeat_with(|| None).take(ids.len()).collect();
        let came = vec![false; ids.len()];
        let graphs = || {
            let graphs = state.graphs.iter().zip(links).map(|((_, graph), links)| {
                let image = graph.image(&links)?;
                let Links { rows, slots, .. } = links;
                let points = slots.iter().filter(|slot| there.get(**slot as usize) == Some(&true)).count();
                let exact_bytes = graph.reserve(points);
                Ok(Loading { rows, slots, image, exact_bytes })
            });
            graphs.collect::<Result<Vec<_>>>()
        };
        let known = || {
            let mut known = HashMap::with_capacity(ids.len());
            let of_slots = (0..).zip(ids.into_iter().zip(versions));
            known.extend(of_slots.filter_map(|(slot, (id, version))| Some((id?, (slot, version)))));
            known
        };
        let (known, graphs) = both(known, graphs)?;
        let graphs = graphs?;
        let tables = known.capacity() * size_of::<(PointId, (u32, Lsn))>() + came.len() * SLOT;
        let bytes = tables as u64 + graphs.iter().map(Loading::bytes).sum::<u64>();
        collection.count_load(bytes);
        let filled = Filled { state, came, slots, graphs, late: Vec::new(), bytes };
        Ok(Self { collection, known, filled: Mutex::new(Some(filled)) })
    }

    /// Bytes that its graphs take before usearch has them.
    pub fn image_bytes(&self) -> u64 {
        let filled = self.filled.lock();
        let graphs = filled.as_ref().map_or(&[][..], |filled| &filled.graphs);
        graphs.iter().map(|loading| loading.image.bytes().len() as u64).sum()
    }

    /// Bytes that all of it takes so far, with room for the vectors that are still to come.
    pub fn bytes(&self) -> u64 {
        self.filled.lock().as_ref().map_or(0, |filled| filled.bytes)
    }

    /// Whether the graphs have a point in this version.
    pub fn knows(&self, record: &Record) -> bool {
        self.slot_of(record).is_some()
    }

    /// Whether this is the collection that is being loaded.
    pub fn is_of(&self, collection: &CollectionRef) -> bool {
        self.collection.spec.name == collection.name && self.collection.incarnation == collection.incarnation
    }

    /// Takes points.
    ///
    /// # Errors
    /// `Unavailable` after the end.
    pub fn put(&self, records: Vec<Record>) -> Result<()> {
        let mut records = records.into_iter();
        loop {
            let some: Vec<_> = records.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            let known: Vec<_> = some.iter().map(|record| self.slot_of(record)).collect();
            let placed: Vec<_> = {
                let mut filled = self.filled.lock();
                let filled = filled.as_mut().ok_or_else(ended)?;
                some.iter().zip(known).map(|(record, slot)| filled.place(slot?, record)).collect()
            };
            // Nobody waits while memory is taken for the rest of the points, and given back.
            let (mut slots, mut late) = (Vec::with_capacity(some.len()), Vec::new());
            for (record, placed) in some.into_iter().zip(placed) {
                match placed {
                    Some((slot, dense)) => slots.push((slot, Slot::new(record.version, record.point, dense))),
                    None => late.push(record),
                }
            }
            let mut filled = self.filled.lock();
            let filled = filled.as_mut().ok_or_else(ended)?;
            filled.bytes += late.iter().map(|record| record.point.size_bytes() as u64).sum::<u64>();
            filled.late.append(&mut late);
            for (slot, held) in slots {
                filled.bytes += held.bytes();
                filled.slots[slot as usize] = Some(held);
            }
            self.collection.count_load(filled.bytes);
        }
    }

    /// The slot that the graphs have a point in, if they know it in this version.
    fn slot_of(&self, record: &Record) -> Option<u32> {
        let (slot, version) = self.known.get(&record.point.id)?;
        (*version == record.version).then_some(*slot)
    }

    /// Puts what came in place.
    ///
    /// # Errors
    /// Whatever usearch runs into; `Unavailable` for a second end, also after a first that failed.
    pub fn finish(&self) -> Result<()> {
        let filled = self.filled.lock().take().ok_or_else(ended)?;
        let late = self.put_in_place(filled);
        // From here on it counts as what the collection holds.
        self.collection.count_load(0);
        late?.iter().try_for_each(|record| self.collection.upsert(record.version, &record.point))
    }

    /// Answers what the graphs do not know.
    fn put_in_place(&self, filled: Filled) -> Result<Vec<Record>> {
        let Filled { mut state, slots, graphs, late, .. } = filled;
        let of_state = Arc::clone(&state.graphs);
        let finish = |(loading, (name, graph)): (Loading, &(VectorName, Graph))| {
            loading.finish(graph, |error| {
                let collection = &self.collection.spec.name;
                tracing::warn!(%collection, vector = %name, %error, "the graph is built anew");
            })
        };
        let ((), finished) = both(
            || slots.into_iter().for_each(|slot| state.put_loaded(slot)),
            || graphs.into_iter().zip(&*of_state).try_for_each(finish),
        )?;
        finished?;
        self.collection.fill(state);
        Ok(late)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.filled.get_mut().is_some() {
            self.collection.count_load(0);
        }
    }
}

impl Loading {
    /// Bytes that it takes, with room for its vectors.
    fn bytes(&self) -> u64 {
        let tables = (self.rows.len() + self.slots.len()) * size_of::<u32>();
        (tables + self.image.all_bytes()) as u64 + self.exact_bytes
    }

    /// Gives a graph what came for it. If it does not take that, and says why, it is built anew.
    fn finish(self, graph: &Graph, told: impl Fn(Error)) -> Result<()> {
        let Self { slots, mut image, .. } = self;
        if slots.is_empty() {
            return Ok(());
        }
        image.fill_gaps();
        graph.load(&image).or_else(|error| {
            told(error);
            graph.build(&image, &slots)
        })
    }
}

impl Filled {
    /// Writes the vectors of a point to where the graphs have them. Answers the slot, which is there, and which vectors
    /// they are; `None` if the graphs do not have the point just so.
    fn place(&mut self, slot: u32, record: &Record) -> Option<(u32, u64)> {
        let Self { state, came, graphs, .. } = self;
        if *came.get(slot as usize)? {
            return None;
        }
        let fits = graphs.iter().zip(state.graphs.iter()).all(|(loading, (name, graph))| {
            let has_row = loading.rows.get(slot as usize).is_some_and(|row| *row != NONE);
            match record.point.vectors.get(name) {
                Some(Vector::Dense(vector)) => has_row && vector.len() == graph.dimension(),
                Some(Vector::Sparse(_)) => false,
                None => !has_row,
            }
        });
        if !fits {
            return None;
        }
        let mut dense = 0;
        for (at, (loading, (name, graph))) in graphs.iter_mut().zip(state.graphs.iter()).enumerate() {
            let Some(Vector::Dense(vector)) = record.point.vectors.get(name) else { continue };
            let row = loading.image.row_mut(*loading.rows.get(slot as usize)?)?;
            graph.write_row(slot, vector, row);
            dense |= 1 << at;
        }
        came[slot as usize] = true;
        Some((slot, dense))
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the load has ended; it begins anew")
}

/// Runs both beside each other, or one after the other if there is no thread for the first.
fn both<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> Result<(A, B)> {
    let first = Mutex::new(Some(first));
    let run = || first.lock().take().map(|first| first());
    let (a, b) = thread::scope(|scope| {
        let beside = Builder::new().name("mainstay-loading".to_owned()).spawn_scoped(scope, run);
        let b = second();
        (beside.map_or_else(|_| Ok(run()), |beside| beside.join()), b)
    });
    let a = a.ok().flatten();
    a.map(|a| (a, b)).ok_or_else(|| Error::new(ErrorKind::Internal, "the work of a load broke off"))
}
