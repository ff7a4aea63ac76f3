//! Slots that threads have to themselves while they live.
//!
//! A counter in a slot has one writer, so it needs neither an atomic addition nor a cache line that another
//! processor wants. A slot is taken with `Acquire` and given back with `Release`: whoever gets it next goes on from
//! what the one before counted.

use crate::sync::{AtomicU64, Ordering, SLOTS};

/// Which slots are taken, one bit each.
pub(crate) struct Slots(AtomicU64);

impl Slots {
    /// Slots of which those are taken whose bit is set.
    pub(crate) const fn new(taken: AtomicU64) -> Self {
        Self(taken)
    }

    /// Takes a slot that nobody has.
    pub(crate) fn claim(&self) -> Option<usize> {
        let free = |taken: u64| taken.trailing_ones() as usize;
        let take = |taken: u64| (free(taken) < SLOTS).then(|| taken | 1 << free(taken));
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, take).ok().map(free)
    }

    /// Gives a slot back.
    pub(crate) fn release(&self, slot: usize) {
        self.0.fetch_and(!(1 << slot), Ordering::Release);
    }
}
