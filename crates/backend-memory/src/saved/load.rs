//! A collection that is filled while its graphs are already known.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay_core::{CollectionRef, Lsn, PointId, Record, Result, Vector};

use super::NONE;
use super::image::Image;
use super::read::{Links, Saved};
use crate::collection::{Collection, State};
use crate::slot::Slot;

/// The points of a collection as they come, put where its graphs have them.
pub struct Load {
    collection: Arc<Collection>,
    state: State,
    /// The slot and the version that the graphs know each point by.
    known: HashMap<PointId, (u32, Lsn)>,
    slots: Vec<Option<Slot>>,
    graphs: Vec<Loading>,
    /// What the graphs do not know.
    late: Vec<Record>,
}

/// A graph that is to be, and which slot has which row of it.
struct Loading {
    rows: Vec<u32>,
    slots: Vec<u32>,
    image: Image,
}

impl Load {
    /// Of graphs that this collection, which is empty, would have built; `points` is how many are about to come.
    ///
    /// # Errors
    /// `Corrupt` if the parts are not what was saved.
    pub fn new(collection: Arc<Collection>, parts: &[Vec<u8>], points: u64) -> Result<Self> {
        let state = collection.empty_state()?;
        let Saved { ids, versions, links } = Saved::read(parts, state.graphs.len(), points)?;
        let graphs = state.graphs.iter().zip(links).map(|((_, graph), links)| {
            let image = graph.image(&links)?;
            let Links { rows, slots, .. } = links;
            Ok(Loading { rows, slots, image })
        });
        let graphs = graphs.collect::<Result<_>>()?;
        let slots = std::iter::repeat_with(|| None).take(ids.len()).collect();
        let known = (0..).zip(ids.into_iter().zip(versions));
        let known = known.filter_map(|(slot, (id, version))| Some((id?, (slot, version)))).collect();
        Ok(Self { collection, state, known, slots, graphs, late: Vec::new() })
    }

    /// Bytes that it takes beside the points.
    pub fn bytes(&self) -> u64 {
        self.graphs.iter().map(|loading| loading.image.bytes().len() as u64).sum()
    }

    /// Whether this is the collection that is being loaded.
    pub fn is_of(&self, collection: &CollectionRef) -> bool {
        self.collection.spec.name == collection.name && self.collection.incarnation == collection.incarnation
    }

    /// Takes a point.
    pub fn put(&mut self, record: &Record) {
        match self.place(record) {
            Some((slot, held)) => self.slots[slot as usize] = Some(held),
            None => self.late.push(record.clone()),
        }
    }

    /// Writes the vectors of a point where the graphs have it; `None` if they do not have it just so.
    fn place(&mut self, record: &Record) -> Option<(u32, Slot)> {
        let (slot, _) =
            *self.known.get(&record.point.id).filter(|(_, version)| *version == record.version)?;
        if self.slots.get(slot as usize)?.is_some() {
            return None;
        }
        let rows = self.graphs.iter().zip(self.state.graphs.iter());
        let fits = rows.clone().all(|(loading, (name, graph))| {
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
        for (at, (loading, (name, graph))) in self.graphs.iter_mut().zip(self.state.graphs.iter()).enumerate()
        {
            let Some(Vector::Dense(vector)) = record.point.vectors.get(name) else { continue };
            let row = loading.image.row_mut(*loading.rows.get(slot as usize)?)?;
            graph.write_row(slot, vector, row);
            dense |= 1 << at;
        }
        Some((slot, Slot::new(record.version, &record.point, dense)))
    }

    /// Puts what came in place.
    ///
    /// # Errors
    /// Whatever usearch runs into.
    pub fn finish(self) -> Result<()> {
        let Self { collection, mut state, slots, graphs, late, .. } = self;
        for (loading, (name, graph)) in graphs.into_iter().zip(state.graphs.iter()) {
            let Loading { slots, mut image, .. } = loading;
            if slots.is_empty() {
                continue;
            }
            image.fill_gaps();
            if let Err(error) = graph.load(&image) {
                tracing::warn!(collection = %collection.spec.name, vector = %name, %error, "the graph is built anew");
                graph.build(&image, &slots)?;
            }
        }
        for slot in slots {
            state.put_loaded(slot);
        }
        collection.fill(state);
        late.iter().try_for_each(|record| collection.upsert(record.version, &record.point))
    }
}
