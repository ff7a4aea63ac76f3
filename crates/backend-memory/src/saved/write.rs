//! The links of a collection's graphs, in parts.

use std::ops::Range;
use std::sync::Arc;

use mainstay_core::{Error, ErrorKind, Result};

use super::NO_ID;
use crate::collection::{Collection, Graphs};

/// Slots in a part: a megabyte or two, far from `MAX_PART_BYTES` also with many graphs and links.
const PART_SLOTS: u32 = 8_192;
/// Slots that are read while writers wait: a millisecond or two.
const PAUSE_SLOTS: u32 = 1_024;

/// Writes the graphs of a collection down while it is in use.
pub struct Writer {
    collection: Arc<Collection>,
    graphs: Arc<Graphs>,
    /// Slots that there were when it began; later ones are left out.
    slots: u32,
    next: u32,
}

impl Writer {
    /// Begins at the first slot.
    pub fn new(collection: Arc<Collection>) -> Self {
        let (graphs, slots) = {
            let state = collection.state.read();
            (Arc::clone(&state.graphs), state.next_slot())
        };
        Self { collection, graphs, slots, next: 0 }
    }

    fn part(&self, slots: Range<u32>) -> Result<Vec<u8>> {
        let mut part = Vec::new();
        part.extend((slots.end - slots.start).to_le_bytes());
        let (mut versions, mut links) = (Vec::new(), vec![Vec::new(); self.graphs.len()]);
        for start in slots.clone().step_by(PAUSE_SLOTS as usize) {
            let few = start..slots.end.min(start + PAUSE_SLOTS);
            let _paused = self.collection.pause_writers();
            let state = self.collection.state.read();
            if !Arc::ptr_eq(&state.graphs, &self.graphs) {
                let text = "the graphs were built anew while they were saved";
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            for slot in few.clone() {
                match state.slots.get(slot).filter(|_| state.is_alive(slot)) {
                    Some(held) => {
                        part.extend(held.id().to_key());
                        versions.extend(held.version.0.to_le_bytes());
                    }
                    None => {
                        part.extend(NO_ID);
                        versions.extend([0; 8]);
                    }
                }
            }
            for ((_, graph), links) in self.graphs.iter().zip(&mut links) {
                graph.write_links(few.clone(), self.slots, links);
            }
        }
        part.append(&mut versions);
        links.iter_mut().for_each(|links| part.append(links));
        Ok(part)
    }
}

impl Iterator for Writer {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        self.next = self.slots.min(start.saturating_add(PART_SLOTS));
        (start < self.next).then(|| self.part(start..self.next))
    }
}
