//! What threads share in the breaker: atomics, and slots that threads have to themselves.
//!
//! [`breaker`](crate::breaker) takes these from nowhere else, so that its model check (`tests/breaker_model.rs`) can
//! compile the same sources over loom's atomics.

use std::cell::Cell;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

use crate::breaker::Slots;

/// How many threads have a slot at once; those beyond share what is left.
pub(crate) const SLOTS: usize = 32;

/// The slot of a thread that did not ask for one yet, and of one that got none.
const UNASKED: usize = usize::MAX;
const NONE: usize = SLOTS;

static TAKEN: Slots = Slots::new(AtomicU64::new(0));

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(UNASKED) };
    static LEASE: Lease = Lease(TAKEN.claim());
}

/// A slot, given back when its thread ends.
struct Lease(Option<usize>);

impl Drop for Lease {
    fn drop(&mut self) {
        // What the thread still counts while it ends goes where all may count.
        SLOT.set(NONE);
        if let Some(slot) = self.0 {
            TAKEN.release(slot);
        }
    }
}

/// The slot of the calling thread; [`SLOTS`] or more if it has none.
#[inline]
pub(crate) fn slot() -> usize {
    match SLOT.get() {
        UNASKED => ask(),
        slot => slot,
    }
}

#[cold]
fn ask() -> usize {
    // In a thread that is ending the lease may be gone already.
    let slot = LEASE.try_with(|lease| lease.0).ok().flatten().unwrap_or(NONE);
    SLOT.set(slot);
    slot
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_thread_keeps_its_slot_and_shares_it_with_none() {
        const THREADS: usize = SLOTS * 2;
        let barrier = Barrier::new(THREADS);
        let ask = || {
            let first = slot();
            barrier.wait();
            assert_eq!(slot(), first);
            first
        };
        let mut slots: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|slot| *slot < SLOTS).collect()
        });
        let found = slots.len();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), found);
    }

    #[test]
    fn a_slot_is_free_again_when_its_thread_ended() {
        // Other tests hold slots meanwhile, but not so many times as many.
        let got = (0..SLOTS * 8).filter(|_| std::thread::spawn(slot).join().unwrap() < SLOTS).count();
        assert!(got > SLOTS, "{got}");
    }
}
