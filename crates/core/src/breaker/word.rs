//! The breaker's state in 64 bits.
//!
//! ```text
//!  63                                24 23                  2 1   0
//! ┌────────────────────────────────────┬─────────────────────┬─────┐
//! │ closed:    failures in a row       │ generation          │ tag │
//! │ open:      since, milliseconds     │                     │     │
//! │ half-open: successes 20, probes 20 │                     │     │
//! └────────────────────────────────────┴─────────────────────┴─────┘
//! ```
//!
//! 40 bits of milliseconds last 34 years. The generation wraps after 4 million transitions; a late
//! result could only be mistaken for a current one by a call that outlives exactly that many.

use super::BreakerState;

const DATA_SHIFT: u32 = 24;
const DATA_MASK: u64 = (1 << 40) - 1;
const HALF_MASK: u64 = (1 << 20) - 1;
const GENERATION_SHIFT: u32 = 2;
const GENERATION_MASK: u64 = (1 << 22) - 1;
const TAG_MASK: u64 = 0b11;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const FORCED: u64 = 3;

/// Largest count that the word holds.
pub(super) const MAX_COUNT: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed { failures: u32 },
    Open { since_ms: u64 },
    HalfOpen { successes: u32, probes: u32 },
    Forced,
}

impl Phase {
    pub(super) const fn state(self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { .. } | Self::Forced => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) phase: Phase,
    pub(super) generation: u32,
}

impl Word {
    pub(super) const CLOSED: Self = Self { phase: Phase::Closed { failures: 0 }, generation: 0 };

    /// A step inside the phase.
    pub(super) const fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// A transition.
    pub(super) const fn to(self, phase: Phase) -> Self {
        let generation = (self.generation + 1) & GENERATION_MASK as u32;
        Self { phase, generation }
    }

    pub(super) fn pack(self) -> u64 {
        let (tag, data) = match self.phase {
            Phase::Closed { failures } => (CLOSED, u64::from(failures)),
            Phase::Open { since_ms } => (OPEN, since_ms.min(DATA_MASK)),
            Phase::HalfOpen { successes, probes } => {
                (HALF_OPEN, (u64::from(successes) << 20) | u64::from(probes))
            }
            Phase::Forced => (FORCED, 0),
        };
        (data << DATA_SHIFT) | (u64::from(self.generation) << GENERATION_SHIFT) | tag
    }

    pub(super) fn unpack(word: u64) -> Self {
        let data = word >> DATA_SHIFT;
        let phase = match word & TAG_MASK {
            CLOSED => Phase::Closed { failures: data as u32 },
            OPEN => Phase::Open { since_ms: data },
            HALF_OPEN => {
                Phase::HalfOpen { successes: (data >> 20) as u32, probes: (data & HALF_MASK) as u32 }
            }
            _ => Phase::Forced,
        };
        Self { phase, generation: ((word >> GENERATION_SHIFT) & GENERATION_MASK) as u32 }
    }
}

/// In what state, of what generation, a call was let through: a packed word without what was counted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// The stamp of a packed word.
    #[inline]
    pub(super) const fn of(word: u64) -> Self {
        Self(word & ((1 << DATA_SHIFT) - 1))
    }

    #[inline]
    pub(super) const fn is_closed(self) -> bool {
        self.0 & TAG_MASK == CLOSED
    }

    pub(super) const fn is_half_open(self) -> bool {
        self.0 & TAG_MASK == HALF_OPEN
    }

    /// Whether a packed word is that of the same closed state with no failure counted.
    #[inline]
    pub(super) const fn is_at_rest(self, word: u64) -> bool {
        self.is_closed() && word == self.0
    }

    pub(super) const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_packing() {
        for generation in [0, 1, GENERATION_MASK as u32] {
            for phase in [
                Phase::Closed { failures: 0 },
                Phase::Closed { failures: MAX_COUNT },
                Phase::Open { since_ms: 0 },
                Phase::Open { since_ms: DATA_MASK },
                Phase::HalfOpen { successes: MAX_COUNT, probes: MAX_COUNT },
                Phase::HalfOpen { successes: 0, probes: 1 },
                Phase::Forced,
            ] {
                let word = Word { phase, generation };
                assert_eq!(Word::unpack(word.pack()), word);
                let stamp = Stamp::of(word.pack());
                assert_eq!(stamp.generation(), generation);
                assert_eq!(stamp.is_closed(), phase.state() == BreakerState::Closed);
                assert_eq!(stamp.is_half_open(), phase.state() == BreakerState::HalfOpen);
                assert_eq!(stamp.is_at_rest(word.pack()), phase == Phase::Closed { failures: 0 });
            }
        }
    }

    #[test]
    fn the_generation_wraps_inside_its_bits() {
        let last = Word { phase: Phase::Forced, generation: GENERATION_MASK as u32 };
        assert_eq!(last.to(Phase::Forced).generation, 0);
    }
}
