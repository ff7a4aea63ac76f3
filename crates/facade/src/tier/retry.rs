//! Trying a read again after every member failed: a few times, later each time, and only as often as traffic bears.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Retries that a tier without traffic has left.
const RESERVE: u64 = 10;
/// The budget counts thousandths of a retry.
const WHOLE: u64 = 1_000;

/// When and how often a read that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryOptions {
    /// Most retries of one read; 0 for none.
    pub max_retries: u32,
    /// Longest wait before the first retry; it doubles for each further one. The wait is drawn between zero and
    /// this (full jitter), so that callers who failed together do not come back together.
    pub first_delay: Duration,
    /// The doubling ends here.
    pub longest_delay: Duration,
    /// Retries as a share of all reads, so that they never bury a member that is overloaded.
    pub budget: f64,
    /// Where the waits are drawn from; `None` for a source of its own each time.
    pub seed: Option<u64>,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_retries: 3,
            first_delay: Duration::from_millis(50),
            longest_delay: Duration::from_secs(1),
            budget: 0.1,
            seed: None,
        }
    }
}

/// What is left for retries.
pub struct Retries {
    options: RetryOptions,
    /// Thousandths of a retry.
    left: AtomicU64,
    rng: Mutex<SmallRng>,
}

impl Retries {
    pub fn new(options: RetryOptions) -> Self {
        let rng = match options.seed {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => SmallRng::from_os_rng(),
        };
        Self { options, left: AtomicU64::new(RESERVE * WHOLE), rng: Mutex::new(rng) }
    }

    /// A read begins, which pays for a share of a retry.
    pub fn earn(&self) {
        // What is full stays full without a write, which is the usual case.
        if self.left.load(Ordering::Relaxed) < RESERVE * WHOLE {
            let share = (self.options.budget.clamp(0.0, 1.0) * WHOLE as f64) as u64;
            let more = |left: u64| Some((left + share).min(RESERVE * WHOLE));
            let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// How long to wait before retry number `retry` (from 0); `None` if there is none.
    pub fn spend(&self, retry: u32) -> Option<Duration> {
        if retry >= self.options.max_retries {
            return None;
        }
        let less = |left: u64| left.checked_sub(WHOLE);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        let doubled = self.options.first_delay.saturating_mul(1 << retry.min(20));
        let most = doubled.min(self.options.longest_delay);
        Some(most.mul_f64(self.rng.lock().random_range(0.0..=1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(options: RetryOptions) -> Retries {
        Retries::new(RetryOptions { seed: Some(7), ..options })
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_drawn_below_it() {
        let options = RetryOptions { max_retries: 40, ..RetryOptions::default() };
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let retries = seeded(options);
            for (retry, most) in [(0, 50), (1, 100), (2, 200), (5, 1_000), (39, 1_000)] {
                let wait = retries.spend(retry).unwrap();
                assert!(wait <= Duration::from_millis(most), "{retry}: {wait:?}");
                longest = longest.max(wait);
            }
        }
        assert!(longest > Duration::ZERO);
        assert_eq!(seeded(RetryOptions { max_retries: 2, ..options }).spend(2), None);
    }

    #[test]
    fn retries_are_a_share_of_the_traffic() {
        let retries = seeded(RetryOptions::default());
        let mut spent = 0;
        for _ in 0..1_000 {
            retries.earn();
            spent += u64::from(retries.spend(0).is_some());
        }
        assert!((100..=100 + RESERVE).contains(&spent), "{spent}");
    }
}
