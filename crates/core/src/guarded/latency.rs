//! How long answers took lately, in few bytes and without a lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Answers that are looked at; after so many, all that came before count half.
const WINDOW: u32 = 1_024;
/// Before so many answers nothing is said.
const FEWEST: u32 = 32;
/// Four for each doubling from 1 microsecond to 71 minutes, so a quantile is at most a quarter too long.
const BUCKETS: usize = 128;

/// A histogram of recent times. Counts may be off by a few when threads meet; nothing depends on them.
pub struct Latency {
    buckets: [AtomicU32; BUCKETS],
    total: AtomicU32,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; BUCKETS], total: AtomicU32::new(0) }
    }
}

impl Latency {
    /// Notes how long one answer took.
    pub fn record(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        if self.total.fetch_add(1, Ordering::Relaxed) + 1 >= WINDOW {
            self.halve();
        }
    }

    fn halve(&self) {
        // One thread gets the window; the others add to the next one.
        if self.total.swap(0, Ordering::Relaxed) < WINDOW {
            return;
        }
        let mut total = 0;
        for bucket in &self.buckets {
            let half = bucket.load(Ordering::Relaxed) / 2;
            bucket.store(half, Ordering::Relaxed);
            total += half;
        }
        self.total.fetch_add(total, Ordering::Relaxed);
    }

    /// The time within which this share (0 to 1) of recent answers came; `None` before a few of them came.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let total: u32 = counts.iter().sum();
        if total < FEWEST {
            return None;
        }
        let wanted = (f64::from(total) * share).ceil().max(1.0) as u32;
        let mut seen = 0;
        let found = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Some(start_of(found.unwrap_or(BUCKETS - 1) + 1))
    }
}

/// Quarters of microseconds, so that the first buckets have two bits after the highest one too.
fn bucket(took: Duration) -> usize {
    let quarters = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::MAX / 4) * 4;
    let doublings = quarters.ilog2() - 2;
    let index = doublings as usize * 4 + (quarters >> doublings) as usize % 4;
    index.min(BUCKETS - 1)
}

/// The shortest time of a bucket.
fn start_of(index: usize) -> Duration {
    let quarters = ((4 + index % 4) as u64) << (index / 4);
    Duration::from_nanos(quarters * 250)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_its_bucket() {
        for us in (1..5_000).chain([1 << 20, (1 << 31) - 1]) {
            let (took, index) = (Duration::from_micros(us), bucket(Duration::from_micros(us)));
            assert!(start_of(index) <= took && took < start_of(index + 1), "{us} us in {index}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_at_most_a_quarter_too_long_and_old_times_fade() {
        let latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        (1..=1_000).for_each(|us| latency.record(Duration::from_micros(us)));
        for (share, us) in [(0.5, 500), (0.99, 990), (0.0, 1), (1.0, 1_000)] {
            let found = latency.quantile(share).unwrap();
            let exact = Duration::from_micros(us);
            assert!(exact <= found && found <= exact * 5 / 4, "{share}: {found:?}");
        }
        (0..5_000).for_each(|_| latency.record(Duration::from_secs(1)));
        assert!(latency.quantile(0.1).unwrap() >= Duration::from_secs(1));
    }
}
