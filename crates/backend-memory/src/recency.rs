//! When a point was last used, where a store may become partial.

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_core::Lsn;

/// Uses between two entries that have an order of their own.
const USES: u32 = 20;

/// Orders writes and reads: a write is younger than everything before its entry, a read than everything before it.
#[derive(Debug, Default)]
pub struct Clock {
    now: AtomicU64,
    /// Tells points that one entry wrote apart.
    written: AtomicU64,
}

impl Clock {
    /// The moment of a write by this entry, which may be long past when a store is loaded.
    pub fn written(&self, version: Lsn) -> u64 {
        let order = self.written.fetch_add(1, Ordering::Relaxed) & ((1 << USES) - 1);
        let moment = version.0.saturating_mul(1 << USES) | order;
        self.now.fetch_max(moment, Ordering::Relaxed);
        moment
    }

    /// The moment of a read.
    pub fn read(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// When the point of each slot was last used.
#[derive(Debug, Default)]
pub struct Recency {
    moments: Vec<AtomicU64>,
}

impl Recency {
    /// The next slot, used at this moment.
    pub fn push(&mut self, moment: u64) {
        self.moments.push(AtomicU64::new(moment));
    }

    /// The point of a slot is used.
    pub fn touch(&self, slot: u32, moment: u64) {
        if let Some(known) = self.moments.get(slot as usize) {
            known.fetch_max(moment, Ordering::Relaxed);
        }
    }

    /// When the point of a slot was last used.
    pub fn of(&self, slot: u32) -> u64 {
        self.moments.get(slot as usize).map_or(0, |moment| moment.load(Ordering::Relaxed))
    }

    /// Bytes that the moments take.
    pub fn bytes(&self) -> usize {
        self.moments.capacity() * size_of::<AtomicU64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_are_in_the_order_in_which_they_came() {
        let clock = Clock::default();
        let moments = [
            clock.written(Lsn(1)),
            clock.written(Lsn(1)),
            clock.read(),
            clock.read(),
            clock.written(Lsn(2)),
            clock.read(),
        ];
        assert!(moments.is_sorted_by(|a, b| a < b), "{moments:?}");
        assert!(clock.written(Lsn(1)) < moments[4], "an old write that is loaded late is old");
    }
}
