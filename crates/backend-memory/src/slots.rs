//! The table of slots.

use crate::slot::Slot;

/// Slots in one block of memory.
const BLOCK_SLOTS: usize = 4_096;

/// Slots by number, in blocks that never move: a growing vector would leave twice its size behind for the
/// allocator to find a use for.
#[derive(Default)]
pub struct Slots {
    blocks: Vec<Vec<Slot>>,
}

impl Slots {
    /// How many slots there are, buried ones included.
    pub fn len(&self) -> usize {
        match self.blocks.split_last() {
            Some((last, full)) => full.len() * BLOCK_SLOTS + last.len(),
            None => 0,
        }
    }

    /// The slot of a number.
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.blocks.get(slot as usize / BLOCK_SLOTS)?.get(slot as usize % BLOCK_SLOTS)
    }

    /// The slot of a number, to change it.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.blocks.get_mut(slot as usize / BLOCK_SLOTS)?.get_mut(slot as usize % BLOCK_SLOTS)
    }

    /// Adds the slot of the next number.
    pub fn push(&mut self, slot: Slot) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK_SLOTS => block.push(slot),
            _ => {
                let mut block = Vec::with_capacity(BLOCK_SLOTS);
                block.push(slot);
                self.blocks.push(block);
            }
        }
    }

    /// Bytes that a table of so many slots takes.
    pub fn estimate(slots: u64) -> u64 {
        slots.div_ceil(BLOCK_SLOTS as u64).saturating_mul((BLOCK_SLOTS * size_of::<Slot>()) as u64)
    }

    /// Bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_SLOTS * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::PointId;

    use super::*;

    #[test]
    fn a_slot_keeps_its_number_as_the_table_grows() {
        let mut slots = Slots::default();
        for n in 0..10_000 {
            assert_eq!(slots.len(), n);
            slots.push(Slot::wasted(PointId::Num(n as u64)));
        }
        for n in [0, 4_095, 4_096, 9_999_u32] {
            assert_eq!(slots.get(n).map(Slot::id), Some(PointId::Num(u64::from(n))));
        }
        assert!(slots.get(10_000).is_none() && slots.get(u32::MAX).is_none());
    }
}
