//! Exact vectors beside a graph that holds others.

/// Vectors in one block of memory.
const BLOCK_ROWS: usize = 1_024;
/// A slot without a vector.
const NO_ROW: u32 = u32::MAX;

/// Vectors of one dimension by slot, in blocks that never move.
pub struct Rows {
    dimension: usize,
    /// The row of each slot, or [`NO_ROW`].
    by_slot: Vec<u32>,
    blocks: Vec<Vec<f32>>,
    rows: u32,
}

impl Rows {
    /// No vectors.
    pub fn new(dimension: usize) -> Self {
        Self { dimension, by_slot: Vec::new(), blocks: Vec::new(), rows: 0 }
    }

    /// Adds the vector of a slot that has none. The vector must be of the dimension.
    pub fn add(&mut self, slot: u32, vector: &[f32]) {
        let at = slot as usize;
        if self.by_slot.len() <= at {
            self.by_slot.resize(at + 1, NO_ROW);
        }
        if (self.rows as usize).is_multiple_of(BLOCK_ROWS) {
            self.blocks.push(Vec::with_capacity(BLOCK_ROWS * self.dimension));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.extend_from_slice(vector);
            self.by_slot[at] = self.rows;
            self.rows += 1;
        }
    }

    /// The vector of a slot.
    pub fn get(&self, slot: u32) -> Option<&[f32]> {
        let row = *self.by_slot.get(slot as usize)? as usize;
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
        self.blocks.len() * BLOCK_ROWS * self.dimension * 4 + self.by_slot.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_gives_back_its_own_vector_and_others_none() {
        let mut rows = Rows::new(2);
        let slots = (0..5_000_u32).filter(|slot| slot % 3 != 1);
        slots.clone().for_each(|slot| rows.add(slot, &[slot as f32, 1.0]));
        for slot in 0..5_010 {
            let wanted = (slot % 3 != 1 && slot < 5_000).then_some([slot as f32, 1.0]);
            assert_eq!(rows.get(slot), wanted.as_ref().map(|row| &row[..]), "slot {slot}");
        }
    }
}
