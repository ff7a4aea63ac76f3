//! The times of searches, in memory that does not grow with their number.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;

/// Of searches that began within so many milliseconds of each other only the worst is kept.
const SLOT_MS: u128 = 10;
/// Searches that the median is taken from.
const SAMPLE: usize = 20_000;

/// When searches began and how long they took: the worst of every 10 ms, and an even sample of all; and when a standby
/// answered first in every 10 ms.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    first: Option<Instant>,
    worst: BTreeMap<u128, (Instant, Duration)>,
    by_standby: BTreeMap<u128, Instant>,
    sample: Vec<(Instant, Duration)>,
    seen: u64,
}

impl Latencies {
    /// Notes a search.
    pub fn push(&mut self, began: Instant, took: Duration) {
        let slot = self.slot(began);
        let worst = self.worst.entry(slot).or_insert((began, took));
        if took > worst.1 {
            *worst = (began, took);
        }
        self.seen += 1;
        if self.sample.len() < SAMPLE {
            self.sample.push((began, took));
            return;
        }
        // Each search stays with the same chance (reservoir sampling, algorithm R).
        let at = usize::try_from(rand::rng().random_range(0..self.seen)).unwrap_or(usize::MAX);
        if let Some(kept) = self.sample.get_mut(at) {
            *kept = (began, took);
        }
    }

    /// Notes that a standby answered just now.
    pub fn answered_by_standby(&mut self, at: Instant) {
        let slot = self.slot(at);
        let earliest = self.by_standby.entry(slot).or_insert(at);
        *earliest = at.min(*earliest);
    }

    fn slot(&mut self, at: Instant) -> u128 {
        let first = *self.first.get_or_insert(at);
        at.saturating_duration_since(first).as_millis() / SLOT_MS
    }

    /// How long after a moment the first answer of a standby came, if one came before `to`.
    pub fn first_by_standby(&self, from: Instant, to: Instant) -> Option<Duration> {
        let first = self.by_standby.values().find(|at| **at >= from && **at < to)?;
        Some(first.duration_since(from))
    }

    /// The median of searches that began within a span; `None` if no such search is in the sample.
    pub fn median(&self, from: Instant, to: Instant) -> Option<Duration> {
        let within = self.sample.iter().filter(|(began, _)| *began >= from && *began < to);
        let mut times: Vec<_> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    /// The worst of searches that were under way within a span.
    pub fn worst(&self, from: Instant, to: Instant) -> Option<Duration> {
        let under_way = |(began, took): &&(Instant, Duration)| *began < to && *began + *took >= from;
        self.worst.values().filter(under_way).map(|(_, took)| *took).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_worst_of_a_span_is_kept_however_many_searches_there_are() {
        let (start, mut latencies) = (Instant::now(), Latencies::default());
        for at in 0..200_000 {
            let took = if at == 50_000 { ms(700) } else { Duration::from_micros(100 + at % 100) };
            latencies.push(start + Duration::from_micros(at * 100), took);
        }
        assert_eq!(latencies.worst(start, start + ms(20_000)), Some(ms(700)));
        assert_eq!(latencies.worst(start + ms(5_600), start + ms(6_000)), Some(ms(700)), "still under way");
        assert!(latencies.worst(start + ms(6_000), start + ms(20_000)) < Some(ms(1)));
        let median = latencies.median(start + ms(10_000), start + ms(20_000)).unwrap();
        assert!((140..=160).contains(&median.as_micros()), "{median:?}");
        assert_eq!(latencies.sample.len(), SAMPLE);
        assert!(latencies.worst.len() <= 2_000);
    }

    #[test]
    fn the_first_answer_of_a_standby_after_a_moment_is_found() {
        let (start, mut latencies) = (Instant::now(), Latencies::default());
        latencies.push(start, ms(1));
        for at in [30, 55, 52, 51, 400] {
            latencies.answered_by_standby(start + ms(at));
        }
        assert_eq!(latencies.first_by_standby(start + ms(40), start + ms(500)), Some(ms(11)));
        assert_eq!(latencies.first_by_standby(start + ms(60), start + ms(300)), None);
    }
}
