//! The circuit breaker: stops asking a store that keeps failing, and finds out when it is back.
//!
//! ```text
//!            failure_threshold failures in a row
//!   closed ─────────────────────────────────────► open ◄───────────┐
//!      ▲                                           │ reset_timeout │ any failure
//!      │ success_threshold successes               ▼               │
//!      └────────────────────────────────────── half-open ──────────┘
//! ```
//!
//! A plain synchronous decision: no task, no lock, and the clock is only read when something other
//! than a success in the closed state happens. Whoever wants a call asks for a [`Permit`], makes the
//! call and tells the permit how it went.
//!
//! ```
//! use mainstay_core::{Breaker, BreakerOptions, BreakerState};
//! use tokio::time::Instant;
//!
//! let breaker = Breaker::new(BreakerOptions { failure_threshold: 1, ..BreakerOptions::default() })?;
//! let permit = breaker.try_acquire(Instant::now).map_err(|_| "open").unwrap();
//! permit.failure(Instant::now);
//! assert_eq!(breaker.state(), BreakerState::Open);
//! assert!(breaker.try_acquire(Instant::now).is_err());
//! # Ok::<(), mainstay_core::Error>(())
//! ```

mod metrics;
mod slots;
mod word;

use std::time::Duration;
use std::{fmt, mem};

use tokio::time::Instant;

pub use self::metrics::BreakerMetrics;
use self::metrics::Counters;
pub(crate) use self::slots::Slots;
use self::word::{MAX_COUNT, Phase, Stamp, Word};
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, Ordering};

/// Longest `reset_timeout`.
pub const MAX_RESET_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// When a breaker changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// Successes in the half-open state that close it.
    pub success_threshold: u32,
    /// How long it stays open before it lets a probe through (1 ms to [`MAX_RESET_TIMEOUT`]).
    pub reset_timeout: Duration,
    /// How many calls may be under way at once in the half-open state.
    pub max_probes: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 2,
            reset_timeout: Duration::from_secs(60),
            max_probes: 1,
        }
    }
}

impl BreakerOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// `Invalid` with the option that is out of its range.
    pub fn check(&self) -> Result<()> {
        for (name, count) in [
            ("failure_threshold", self.failure_threshold),
            ("success_threshold", self.success_threshold),
            ("max_probes", self.max_probes),
        ] {
            if !(1..=MAX_COUNT).contains(&count) {
                return Err(Error::invalid(format!("breaker {name} {count} is outside 1 to {MAX_COUNT}")));
            }
        }
        if !(Duration::from_millis(1)..=MAX_RESET_TIMEOUT).contains(&self.reset_timeout) {
            return Err(Error::invalid(format!(
                "breaker reset_timeout {:?} is outside 1 ms to {MAX_RESET_TIMEOUT:?}",
                self.reset_timeout
            )));
        }
        Ok(())
    }
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Lets all calls through.
    Closed,
    /// Refuses all calls.
    Open,
    /// Lets a few probes through.
    HalfOpen,
}

impl BreakerState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The state as one word, as it stands in messages and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A circuit breaker, shared by reference.
///
/// Everything that decides (phase, counts, probes under way, when it opened, and a generation that
/// grows with each transition) is packed into one atomic word, and every decision is one
/// compare-and-swap of that word. The modification order of a single atomic is total, and the word
/// guards no other memory, so relaxed ordering is enough for it: whoever wins the exchange has made
/// the transition, everybody else sees a changed word and decides anew. The counters beside it are
/// for people to look at; no decision reads them.
pub struct Breaker {
    options: BreakerOptions,
    /// Times in the word and in the counters are milliseconds since this moment.
    origin: Instant,
    word: AtomicU64,
    counters: Counters,
}

impl Breaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// `Invalid` as [`BreakerOptions::check`].
    pub fn new(options: BreakerOptions) -> Result<Self> {
        Self::new_at(options, Instant::now())
    }

    /// A closed breaker whose time starts at `now`.
    ///
    /// # Errors
    /// `Invalid` as [`BreakerOptions::check`].
    pub fn new_at(options: BreakerOptions, now: Instant) -> Result<Self> {
        options.check()?;
        let word = AtomicU64::new(Word::CLOSED.pack());
        Ok(Self { options, origin: now, word, counters: Counters::default() })
    }

    /// The options.
    pub fn options(&self) -> &BreakerOptions {
        &self.options
    }

    /// Asks for a call. The clock is read only if the breaker is not closed.
    ///
    /// # Errors
    /// Refused: how long until it is worth asking again. Zero if all probes are under way,
    /// [`Duration::MAX`] if an operator forced the breaker open.
    #[inline]
    pub fn try_acquire(&self, now: impl FnOnce() -> Instant) -> Result<Permit<'_>, Duration> {
        let stamp = Stamp::of(self.word.load(Ordering::Relaxed));
        if stamp.is_closed() { Ok(self.permit(stamp)) } else { self.try_acquire_at(now()) }
    }

    #[cold]
    fn try_acquire_at(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let now_ms = self.millis(now);
        let mut word = self.load();
        loop {
            if matches!(word.phase, Phase::Closed { .. }) {
                return Ok(self.permit(Stamp::of(word.pack())));
            }
            if let Some(retry_after) = self.refusal(word, now_ms) {
                self.counters.add(|tally| &tally.rejected);
                return Err(retry_after);
            }
            let next = match word.phase {
                Phase::HalfOpen { successes, probes } => {
                    word.with(Phase::HalfOpen { successes, probes: probes + 1 })
                }
                _ => word.to(Phase::HalfOpen { successes: 0, probes: 1 }),
            };
            match self.exchange(word, next, now_ms) {
                Ok(()) => return Ok(self.permit(Stamp::of(next.pack()))),
                Err(current) => word = current,
            }
        }
    }

    /// The state. An open breaker stays open until a call comes after `reset_timeout`.
    pub fn state(&self) -> BreakerState {
        self.load().phase.state()
    }

    /// Whether an operator holds it open.
    pub fn is_forced(&self) -> bool {
        self.load().phase == Phase::Forced
    }

    /// How long a call would have to wait at `now`, as [`try_acquire`](Self::try_acquire) answers
    /// it; `None` if it would be let through. Changes nothing.
    pub fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.refusal(self.load(), self.millis(now))
    }

    /// Opens it until [`reset`](Self::reset), whatever calls report.
    pub fn force_open(&self, now: Instant) {
        self.set(Phase::Forced, now);
    }

    /// Closes it and forgets the failures counted so far; calls under way no longer count.
    pub fn reset(&self, now: Instant) {
        self.set(Phase::Closed { failures: 0 }, now);
    }

    /// What happened so far, as of `now`.
    pub fn metrics(&self, now: Instant) -> BreakerMetrics {
        self.counters.metrics(self.state(), self.origin, self.millis(now))
    }

    fn permit(&self, stamp: Stamp) -> Permit<'_> {
        self.counters.add(|tally| &tally.admitted);
        Permit { breaker: self, stamp }
    }

    fn refusal(&self, word: Word, now_ms: u64) -> Option<Duration> {
        match word.phase {
            Phase::Closed { .. } => None,
            Phase::Forced => Some(Duration::MAX),
            Phase::Open { since_ms } => {
                let reset_ms = u64::try_from(self.options.reset_timeout.as_millis()).unwrap_or(u64::MAX);
                let left = reset_ms.saturating_sub(now_ms.saturating_sub(since_ms));
                (left > 0).then(|| Duration::from_millis(left))
            }
            Phase::HalfOpen { probes, .. } => (probes >= self.options.max_probes).then_some(Duration::ZERO),
        }
    }

    fn set(&self, phase: Phase, now: Instant) {
        let now_ms = self.millis(now);
        let mut word = self.load();
        while let Err(current) = self.exchange(word, word.to(phase), now_ms) {
            word = current;
        }
    }

    #[cold]
    fn on_success(&self, generation: u32, now: impl FnOnce() -> Instant) {
        let mut word = self.load();
        let mut clock = Some(now);
        let mut now_ms = 0;
        while word.generation == generation {
            let next = match word.phase {
                Phase::Closed { failures: 0 } | Phase::Open { .. } | Phase::Forced => return,
                Phase::Closed { .. } => word.with(Phase::Closed { failures: 0 }),
                Phase::HalfOpen { successes, probes } => {
                    if let Some(now) = clock.take() {
                        now_ms = self.millis(now());
                        self.counters.note_success(now_ms);
                    }
                    if successes + 1 >= self.options.success_threshold {
                        word.to(Phase::Closed { failures: 0 })
                    } else {
                        let probes = probes.saturating_sub(1);
                        word.with(Phase::HalfOpen { successes: successes + 1, probes })
                    }
                }
            };
            match self.exchange(word, next, now_ms) {
                Ok(()) => return,
                Err(current) => word = current,
            }
        }
    }

    fn on_failure(&self, generation: u32, now_ms: u64) {
        let mut word = self.load();
        while word.generation == generation {
            let next = match word.phase {
                Phase::Open { .. } | Phase::Forced => return,
                Phase::Closed { failures } if failures + 1 < self.options.failure_threshold => {
                    word.with(Phase::Closed { failures: failures + 1 })
                }
                Phase::Closed { .. } | Phase::HalfOpen { .. } => word.to(Phase::Open { since_ms: now_ms }),
            };
            match self.exchange(word, next, now_ms) {
                Ok(()) => return,
                Err(current) => word = current,
            }
        }
    }

    fn on_release(&self, generation: u32) {
        let mut word = self.load();
        while word.generation == generation {
            let Phase::HalfOpen { successes, probes } = word.phase else { return };
            let next = word.with(Phase::HalfOpen { successes, probes: probes.saturating_sub(1) });
            // No transition, so the time is not looked at.
            match self.exchange(word, next, 0) {
                Ok(()) => return,
                Err(current) => word = current,
            }
        }
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    fn exchange(&self, from: Word, to: Word, now_ms: u64) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(from.pack(), to.pack(), Ordering::Relaxed, Ordering::Relaxed)
            .map_err(Word::unpack)?;
        if from.generation != to.generation {
            self.counters.note_transition(from.phase.state(), to.phase.state(), now_ms);
        }
        Ok(())
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("state", &self.state()).field("options", &self.options).finish()
    }
}

/// Leave to make one call. Says how the call went; dropped without that, the call counts as
/// neither, and its place among the probes is free again.
///
/// A result only counts in the state in which the call began: what a call from before the breaker
/// opened reports later says nothing about the store as it is now.
#[must_use = "a permit that is dropped tells the breaker nothing"]
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    stamp: Stamp,
}

impl<'a> Permit<'a> {
    /// Whether the call is a probe of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.stamp.is_half_open()
    }

    /// Whether the breaker has not changed its state since this permit was given.
    pub fn is_current(&self) -> bool {
        self.breaker.load().generation == self.stamp.generation()
    }

    /// The call succeeded. The clock is read only if the call was a probe.
    #[inline]
    pub fn success(self, now: impl FnOnce() -> Instant) {
        let (breaker, stamp) = self.settle();
        breaker.counters.add(|tally| &tally.successes);
        if !stamp.is_at_rest(breaker.word.load(Ordering::Relaxed)) {
            breaker.on_success(stamp.generation(), now);
        }
    }

    /// The call succeeded at `now`; for a caller that read the clock anyway, so that the metrics
    /// know the time of the last success.
    pub fn success_at(self, now: Instant) {
        self.breaker.counters.note_success(self.breaker.millis(now));
        self.success(|| now);
    }

    /// The call failed in a way that speaks of the store's health.
    pub fn failure(self, now: impl FnOnce() -> Instant) {
        let (breaker, stamp) = self.settle();
        let now_ms = breaker.millis(now());
        breaker.counters.add(|tally| &tally.failures);
        breaker.counters.note_failure(now_ms);
        breaker.on_failure(stamp.generation(), now_ms);
    }

    /// The call says nothing about the store's health.
    pub fn ignored(self) {}

    /// The permit's parts, which are no longer given back.
    #[inline]
    fn settle(self) -> (&'a Breaker, Stamp) {
        let parts = (self.breaker, self.stamp);
        mem::forget(self);
        parts
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.counters.add(|tally| &tally.ignored);
        if self.is_probe() {
            self.breaker.on_release(self.stamp.generation());
        }
    }
}
