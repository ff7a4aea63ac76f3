//! Exact vectors beside a graph that holds others.

use crate::pages::Pages;

/// Vectors in one block of memory.
const BLOCK_ROWS: usize = 1_024;
/// A slot without a vector.
const NO_ROW: u32 = u32::MAX;

/// Vectors of one dimension by slot, in blocks that never move.
pub struct Rows {
    dimension: usize,
    /// The row of each slot, or [`NO_ROW`].
    by_slot: Vec<u32>,
    /// Room for the first rows, if their number was known.
    first: Option<Pages>,
    /// The rows after them.
    blocks: Vec<Vec<f32>>,
    rows: u32,
}

impl Rows {
    /// No vectors.
    pub fn new(dimension: usize) -> Self {
        Self { dimension, by_slot: Vec::new(), first: None, blocks: Vec::new(), rows: 0 }
    }

    /// Takes room for so many vectors at once, where there are none yet. Without it they are taken room for as they come.
    pub fn reserve(&mut self, rows: usize) {
        if self.rows == 0 {
            self.first = Pages::zeroed(rows.saturating_mul(self.dimension * 4)).ok();
        }
    }

    /// The rows that room was taken for.
    fn first(&self) -> &[f32] {
        // Pages begin at a multiple of far more than 4.
        self.first.as_deref().and_then(|first| bytemuck::try_cast_slice(first).ok()).unwrap_or_default()
    }

    fn first_mut(&mut self) -> &mut [f32] {
        let first = self.first.as_deref_mut();
        first.and_then(|first| bytemuck::try_cast_slice_mut(first).ok()).unwrap_or_default()
    }

    /// Adds the vector of a slot that has none. The vector must be of the dimension.
    pub fn add(&mut self, slot: u32, vector: &[f32]) {
        let at = slot as usize;
        if self.by_slot.len() <= at {
            self.by_slot.resize(at + 1, NO_ROW);
        }
        let (start, full) = (self.rows as usize * self.dimension, BLOCK_ROWS * self.dimension);
        if let Some(place) = self.first_mut().get_mut(start..start + vector.len()) {
            place.copy_from_slice(vector);
        } else {
            if self.blocks.last().is_none_or(|block| block.len() >= full) {
                self.blocks.push(Vec::with_capacity(full));
            }
            if let Some(block) = self.blocks.last_mut() {
                block.extend_from_slice(vector);
            }
        }
        self.by_slot[at] = self.rows;
        self.rows += 1;
    }

    /// The vector of a slot.
    pub fn get(&self, slot: u32) -> Option<&[f32]> {
        let row = *self.by_slot.get(slot as usize)? as usize;
        let (first, start) = (self.first(), row * self.dimension);
        if let Some(vector) = first.get(start..start + self.dimension) {
            return Some(vector);
        }
        let row = row - first.len() / self.dimension;
        let start = row % BLOCK_ROWS * self.dimension;
        // The block of `NO_ROW` is beyond any that memory has room for.
        self.blocks.get(row / BLOCK_ROWS)?.get(start..start + self.dimension)
    }

    /// Bytes that so many vectors take.
    pub fn estimate(vectors: usize, dimension: usize) -> usize {
        vectors.next_multiple_of(BLOCK_ROWS) * dimension * 4 + vectors.next_power_of_two() * 4
    }

    /// Bytes that the vectors take.
    pub fn bytes(&self) -> usize {
        // What nobody wrote takes none.
        let first = self.first().len().min(self.rows as usize * self.dimension) * 4;
        first + self.blocks.len() * BLOCK_ROWS * self.dimension * 4 + self.by_slot.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_gives_back_its_own_vector_and_others_none() {
        for reserved in [0, 1, 700, 3_000, 10_000] {
            let mut rows = Rows::new(2);
            rows.reserve(reserved);
            let slots = (0..5_000_u32).filter(|slot| slot % 3 != 1);
            slots.clone().for_each(|slot| rows.add(slot, &[slot as f32, 1.0]));
            for slot in 0..5_010 {
                let wanted = (slot % 3 != 1 && slot < 5_000).then_some([slot as f32, 1.0]);
                assert_eq!(rows.get(slot), wanted.as_ref().map(|row| &row[..]), "slot {slot} of {reserved}");
            }
            let held = slots.count() * 8;
            assert!(
                (held..held + 2 * BLOCK_ROWS * 8 + 65_536).contains(&rows.bytes()),
                "{reserved}: {}",
                rows.bytes()
            );
        }
    }
}
