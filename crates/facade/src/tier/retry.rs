//! Trying a read again after every member failed: a few times, later each time, and only as often as traffic bears.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::config::RetryConfig;

/// Retries that a tier without traffic has left.
const RESERVE: u64 = 10;
/// The budget counts thousandths of a retry.
const WHOLE: u64 = 1_000;

/// What is left for retries.
pub struct Retries {
    config: RetryConfig,
    /// Thousandths of a retry.
    left: AtomicU64,
    rng: Mutex<SmallRng>,
}

impl Retries {
    /// Retries whose waits are drawn from this source.
    pub fn new(config: RetryConfig, rng: SmallRng) -> Self {
        Self { config, left: AtomicU64::new(RESERVE * WHOLE), rng: Mutex::new(rng) }
    }

    /// A read begins, which pays for a share of a retry.
    pub fn earn(&self) {
        // What is full stays full without a write, which is the usual case.
        if self.left.load(Ordering::Relaxed) < RESERVE * WHOLE {
            let share = (self.config.budget.clamp(0.0, 1.0) * WHOLE as f64) as u64;
            let more = |left: u64| Some((left + share).min(RESERVE * WHOLE));
            let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// How long to wait before retry number `retry` (from 0); `None` if there is none.
    pub fn spend(&self, retry: u32) -> Option<Duration> {
        if retry >= self.config.max_retries {
            return None;
        }
        let less = |left: u64| left.checked_sub(WHOLE);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        let doubled = self.config.first_delay.saturating_mul(1 << retry.min(20));
        let most = doubled.min(self.config.longest_delay);
        // Full jitter: callers who failed together do not come back together.
        Some(self.rng.lock().random_range(Duration::ZERO..=most))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn seeded(config: &RetryConfig) -> Retries {
        Retries::new(config.clone(), SmallRng::seed_from_u64(7))
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_drawn_below_it() {
        let config = RetryConfig { max_retries: 40, ..RetryConfig::default() };
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let retries = seeded(&config);
            for (retry, most) in [(0, 50), (1, 100), (2, 200), (5, 1_000), (39, 1_000)] {
                let wait = retries.spend(retry).unwrap();
                assert!(wait <= Duration::from_millis(most), "{retry}: {wait:?}");
                longest = longest.max(wait);
            }
        }
        assert!(longest > Duration::ZERO);
        let (first_delay, longest_delay) = (Duration::MAX, Duration::MAX);
        let endless = RetryConfig { first_delay, longest_delay, ..config.clone() };
        assert!(seeded(&endless).spend(39).is_some(), "no delay is too long to be drawn from");
        assert_eq!(seeded(&RetryConfig { max_retries: 2, ..config.clone() }).spend(2), None);
    }

    #[test]
    fn retries_are_a_share_of_the_traffic() {
        let retries = seeded(&RetryConfig::default());
        let mut spent = 0;
        for _ in 0..1_000 {
            retries.earn();
            spent += u64::from(retries.spend(0).is_some());
        }
        assert!((100..=100 + RESERVE).contains(&spent), "{spent}");
    }
}
