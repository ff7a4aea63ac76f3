//! What a breaker counted, for people to look at.

use std::time::Duration;

use tokio::time::Instant;

use super::BreakerState;

use crate::sync::{self, AtomicU64, Ordering, SLOTS};

/// Counters of a breaker since it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerMetrics {
    /// The state at the moment of the question.
    pub state: BreakerState,
    /// Calls asked for: let through or rejected.
    pub total: u64,
    /// Calls let through that succeeded.
    pub successes: u64,
    /// Calls let through that failed.
    pub failures: u64,
    /// Calls let through whose result said nothing about the store, or that were abandoned.
    pub ignored: u64,
    /// Calls refused.
    pub rejected: u64,
    /// Transitions to the closed state.
    pub to_closed: u64,
    /// Transitions to the open state.
    pub to_open: u64,
    /// Transitions to the half-open state.
    pub to_half_open: u64,
    /// Time spent closed.
    pub time_closed: Duration,
    /// Time spent open.
    pub time_open: Duration,
    /// Time spent half-open.
    pub time_half_open: Duration,
    /// When a call last succeeded; only calls that read the clock (see `success_at`) are known.
    pub last_success: Option<Instant>,
    /// When a call last failed.
    pub last_failure: Option<Instant>,
    /// Successes of successes and failures, 0 to 1; 1 before the first result.
    pub success_rate: f64,
    /// Time not spent open of all time, 0 to 1; 1 at the beginning.
    pub availability: f64,
}

impl BreakerMetrics {
    /// Transitions of all kinds.
    pub fn transitions(&self) -> u64 {
        self.to_closed + self.to_open + self.to_half_open
    }
}

/// What changes with every call. On cache lines of its own (processors fetch two at once), so that threads that count
/// do not take each other's away, nor the breaker's word.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    pub(super) admitted: AtomicU64,
    pub(super) successes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) rejected: AtomicU64,
    /// Milliseconds plus one; 0 is never.
    last_success: AtomicU64,
    last_failure: AtomicU64,
}

/// Every cell stands alone, and a reader may see one updated before another.
#[derive(Debug)]
pub(super) struct Counters {
    /// One for each thread that has a slot; boxed, because they take four kilobytes.
    own: Box<[Tally]>,
    /// For all others.
    shared: Tally,
    transitions: [AtomicU64; 3],
    time_ms: [AtomicU64; 3],
    /// When the present state began. Each transition puts its own moment there if it is later, and accounts for the
    /// time since the one before, so the sum over all states stays right even if two race.
    entered_ms: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            own: (0..SLOTS).map(|_| Tally::default()).collect(),
            shared: Tally::default(),
            transitions: Default::default(),
            time_ms: Default::default(),
            entered_ms: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// Counts one more in this cell.
    #[inline]
    pub(super) fn add(&self, cell: impl FnOnce(&Tally) -> &AtomicU64) {
        match self.own.get(sync::slot()) {
            Some(own) => {
                let cell = cell(own);
                cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            None => {
                cell(&self.shared).fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn note_success(&self, now_ms: u64) {
        self.tally().last_success.store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self, now_ms: u64) {
        self.tally().last_failure.store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    fn tally(&self) -> &Tally {
        self.own.get(sync::slot()).unwrap_or(&self.shared)
    }

    fn all(&self, cell: impl Fn(&Tally) -> &AtomicU64) -> impl Iterator<Item = u64> {
        self.own.iter().chain([&self.shared]).map(move |tally| cell(tally).load(Ordering::Relaxed))
    }

    pub(super) fn note_transition(&self, from: BreakerState, to: BreakerState, now_ms: u64) {
        let entered_ms = self.entered_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.time_ms[from as usize].fetch_add(now_ms.saturating_sub(entered_ms), Ordering::Relaxed);
        self.transitions[to as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn metrics(&self, state: BreakerState, origin: Instant, now_ms: u64) -> BreakerMetrics {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let moment = |latest: Option<u64>| Some(origin + Duration::from_millis(latest?.checked_sub(1)?));
        let time = |of: BreakerState| {
            let present = if of == state { now_ms.saturating_sub(get(&self.entered_ms)) } else { 0 };
            Duration::from_millis(get(&self.time_ms[of as usize]) + present)
        };
        let (time_closed, time_open, time_half_open) =
            (time(BreakerState::Closed), time(BreakerState::Open), time(BreakerState::HalfOpen));
        let successes = self.all(|tally| &tally.successes).sum();
        let failures = self.all(|tally| &tally.failures).sum();
        let rejected = self.all(|tally| &tally.rejected).sum();
        let all_time = (time_closed + time_open + time_half_open).as_secs_f64();
        BreakerMetrics {
            state,
            total: self.all(|tally| &tally.admitted).sum::<u64>() + rejected,
            successes,
            failures,
            ignored: self.all(|tally| &tally.ignored).sum(),
            rejected,
            to_closed: get(&self.transitions[BreakerState::Closed as usize]),
            to_open: get(&self.transitions[BreakerState::Open as usize]),
            to_half_open: get(&self.transitions[BreakerState::HalfOpen as usize]),
            time_closed,
            time_open,
            time_half_open,
            last_success: moment(self.all(|tally| &tally.last_success).max()),
            last_failure: moment(self.all(|tally| &tally.last_failure).max()),
            success_rate: share(successes as f64, (successes + failures) as f64),
            availability: share(all_time - time_open.as_secs_f64(), all_time),
        }
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}
