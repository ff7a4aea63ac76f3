//! When a member that was away may serve first again: a plain decision over a clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::sabotage::{self, Bug};

/// How many times the delay may double for a member that keeps failing.
const MOST_DOUBLINGS: u32 = 5;
/// A member that fails within so many delays of its failback waits longer the next time.
const FLAPPING: u32 = 10;

/// When a member that was away may serve first again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailbackOptions {
    /// Whether it does so by itself.
    pub auto_restore: bool,
    /// How long it must have been live.
    pub restore_delay: Duration,
}

impl Default for FailbackOptions {
    fn default() -> Self {
        Self { auto_restore: true, restore_delay: Duration::from_secs(60) }
    }
}

/// How far a member is on its way back. One that never failed is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failback {
    phase: Phase,
    doublings: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Trusted,
    Away,
    /// Live again since then.
    Back(Instant),
    /// It has served first again since then.
    Restored(Instant),
}

impl Failback {
    /// The member stopped being live. One that had just come back is flapping.
    pub fn failed(&mut self, options: &FailbackOptions, now: Instant) {
        self.settle(options, now);
        self.doublings = match self.phase {
            Phase::Restored(since) if now - since < options.restore_delay.saturating_mul(FLAPPING) => {
                (self.doublings + 1).min(MOST_DOUBLINGS)
            }
            Phase::Away | Phase::Back(_) => self.doublings,
            Phase::Trusted | Phase::Restored(_) => 0,
        };
        self.phase = Phase::Away;
    }

    /// The member is live again.
    pub fn came_back(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Away) {
            self.phase = Phase::Back(now);
        }
    }

    /// An operator says that it may serve first from now on.
    pub fn restore(&mut self, now: Instant) {
        self.phase = Phase::Restored(now);
    }

    /// Whether it never failed, which is told without a clock.
    pub fn is_untouched(&self) -> bool {
        matches!(self.phase, Phase::Trusted)
    }

    /// How long until the member may serve first; `None` if it may. [`Duration::MAX`] while it is away, and if
    /// only an operator brings it back.
    pub fn waits(&mut self, options: &FailbackOptions, now: Instant) -> Option<Duration> {
        self.settle(options, now);
        match self.phase {
            Phase::Trusted | Phase::Restored(_) => None,
            Phase::Back(_) if sabotage::on(Bug::FailbackAtOnce) => None,
            Phase::Back(since) if options.auto_restore => {
                Some(self.delay(options).saturating_sub(now - since))
            }
            Phase::Away | Phase::Back(_) => Some(Duration::MAX),
        }
    }

    fn settle(&mut self, options: &FailbackOptions, now: Instant) {
        if let Phase::Back(since) = self.phase
            && options.auto_restore
            && now - since >= self.delay(options)
        {
            self.phase = Phase::Restored(since + self.delay(options));
        }
    }

    fn delay(&self, options: &FailbackOptions) -> Duration {
        options.restore_delay.saturating_mul(1 << self.doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: FailbackOptions =
        FailbackOptions { auto_restore: true, restore_delay: Duration::from_secs(60) };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_was_away_waits_for_the_delay_and_one_that_never_was_does_not() {
        let (start, mut failback) = (Instant::now(), Failback::default());
        failback.came_back(start);
        assert_eq!(failback.waits(&OPTIONS, start), None);
        failback.failed(&OPTIONS, start);
        assert_eq!(failback.waits(&OPTIONS, start + seconds(900)), Some(Duration::MAX));
        failback.came_back(start + seconds(1_000));
        assert_eq!(failback.waits(&OPTIONS, start + seconds(1_010)), Some(seconds(50)));
        assert_eq!(failback.waits(&OPTIONS, start + seconds(1_060)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_flaps_waits_twice_as_long_each_time_and_is_forgiven_in_the_end() {
        let (mut now, mut failback) = (Instant::now(), Failback::default());
        let mut waited = Vec::new();
        for _ in 0..8 {
            failback.failed(&OPTIONS, now);
            failback.came_back(now);
            let wait = failback.waits(&OPTIONS, now).unwrap();
            waited.push(wait.as_secs());
            now += wait + seconds(5);
        }
        assert_eq!(waited, [60, 120, 240, 480, 960, 1_920, 1_920, 1_920]);
        now += seconds(600);
        failback.failed(&OPTIONS, now);
        failback.came_back(now);
        assert_eq!(failback.waits(&OPTIONS, now), Some(seconds(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_again_before_the_failback_starts_the_same_delay_anew() {
        let (start, mut failback) = (Instant::now(), Failback::default());
        failback.failed(&OPTIONS, start);
        failback.came_back(start);
        failback.failed(&OPTIONS, start + seconds(59));
        failback.came_back(start + seconds(70));
        assert_eq!(failback.waits(&OPTIONS, start + seconds(70)), Some(seconds(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_auto_restore_only_an_operator_brings_a_member_back() {
        let options = FailbackOptions { auto_restore: false, ..OPTIONS };
        let (start, mut failback) = (Instant::now(), Failback::default());
        failback.failed(&options, start);
        failback.came_back(start);
        assert_eq!(failback.waits(&options, start + seconds(86_400)), Some(Duration::MAX));
        failback.restore(start + seconds(86_400));
        assert_eq!(failback.waits(&options, start + seconds(86_400)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_delay_is_too_long_to_wait_for() {
        let options = FailbackOptions { restore_delay: Duration::MAX, ..OPTIONS };
        let (start, mut failback) = (Instant::now(), Failback::default());
        for _ in 0..2 {
            failback.failed(&options, start);
            failback.came_back(start);
            assert_eq!(failback.waits(&options, start + seconds(1)), Some(Duration::MAX - seconds(1)));
            failback.restore(start);
        }
    }
}
