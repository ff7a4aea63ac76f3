//! What a breaker counted, for people to look at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::BreakerState;

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

/// Every cell stands alone, and a reader may see one updated before another.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) admitted: AtomicU64,
    pub(super) successes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) rejected: AtomicU64,
    transitions: [AtomicU64; 3],
    time_ms: [AtomicU64; 3],
    /// When the present state began. Each transition swaps in its own moment and accounts for the
    /// time since the one before, so the sum over all states stays right even if two race.
    entered_ms: AtomicU64,
    /// Milliseconds plus one; 0 is never.
    last_success: AtomicU64,
    last_failure: AtomicU64,
}

impl Counters {
    pub(super) fn add(cell: &AtomicU64) {
        cell.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_success(&self, now_ms: u64) {
        self.last_success.store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self, now_ms: u64) {
        self.last_failure.store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn note_transition(&self, from: BreakerState, to: BreakerState, now_ms: u64) {
        let entered_ms = self.entered_ms.swap(now_ms, Ordering::Relaxed);
        self.time_ms[from as usize].fetch_add(now_ms.saturating_sub(entered_ms), Ordering::Relaxed);
        Self::add(&self.transitions[to as usize]);
    }

    pub(super) fn metrics(&self, state: BreakerState, origin: Instant, now_ms: u64) -> BreakerMetrics {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let moment = |cell: &AtomicU64| Some(origin + Duration::from_millis(get(cell).checked_sub(1)?));
        let time = |of: BreakerState| {
            let present = if of == state { now_ms.saturating_sub(get(&self.entered_ms)) } else { 0 };
            Duration::from_millis(get(&self.time_ms[of as usize]) + present)
        };
        let (time_closed, time_open, time_half_open) =
            (time(BreakerState::Closed), time(BreakerState::Open), time(BreakerState::HalfOpen));
        let (successes, failures) = (get(&self.successes), get(&self.failures));
        let all_time = (time_closed + time_open + time_half_open).as_secs_f64();
        BreakerMetrics {
            state,
            total: get(&self.admitted) + get(&self.rejected),
            successes,
            failures,
            ignored: get(&self.ignored),
            rejected: get(&self.rejected),
            to_closed: get(&self.transitions[BreakerState::Closed as usize]),
            to_open: get(&self.transitions[BreakerState::Open as usize]),
            to_half_open: get(&self.transitions[BreakerState::HalfOpen as usize]),
            time_closed,
            time_open,
            time_half_open,
            last_success: moment(&self.last_success),
            last_failure: moment(&self.last_failure),
            success_rate: share(successes as f64, (successes + failures) as f64),
            availability: share(all_time - time_open.as_secs_f64(), all_time),
        }
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}
