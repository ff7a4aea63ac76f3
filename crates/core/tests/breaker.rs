//! The circuit breaker, as its users see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_core::breaker::MAX_RESET_TIMEOUT;
use mainstay_core::{Breaker, BreakerOptions, BreakerState, ErrorKind};
use tokio::time::Instant;

/// Largest threshold and number of probes.
const MAX_COUNT: u32 = 1_000_000;

struct Clock {
    origin: Instant,
    now: Cell<Duration>,
    reads: Cell<u32>,
}

impl Clock {
    fn new() -> Self {
        Self { origin: Instant::now(), now: Cell::new(Duration::ZERO), reads: Cell::new(0) }
    }

    fn read(&self) -> Instant {
        self.reads.set(self.reads.get() + 1);
        self.origin + self.now.get()
    }

    fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + Duration::from_secs(seconds));
    }

    fn breaker(&self, options: BreakerOptions) -> Breaker {
        Breaker::new_at(options, self.origin).unwrap()
    }
}

fn fail(breaker: &Breaker, clock: &Clock) {
    breaker.try_acquire(|| clock.read()).unwrap().failure(|| clock.read());
}

fn succeed(breaker: &Breaker, clock: &Clock) {
    breaker.try_acquire(|| clock.read()).unwrap().success(|| clock.read());
}

fn opened(clock: &Clock, options: BreakerOptions) -> Breaker {
    let breaker = clock.breaker(options);
    for _ in 0..options.failure_threshold {
        fail(&breaker, clock);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

#[test]
fn failures_in_a_row_open_it() {
    let clock = Clock::new();
    let breaker = clock.breaker(BreakerOptions::default());
    for _ in 0..4 {
        fail(&breaker, &clock);
    }
    succeed(&breaker, &clock);
    for _ in 0..4 {
        fail(&breaker, &clock);
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "a success in between starts the count anew");
    fail(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn an_open_breaker_says_when_to_come_back() {
    let clock = Clock::new();
    let breaker = opened(&clock, BreakerOptions::default());
    clock.pass(20);
    assert_eq!(breaker.try_acquire(|| clock.read()).unwrap_err(), Duration::from_secs(40));
    assert_eq!(breaker.retry_after(clock.read()), Some(Duration::from_secs(40)));
    clock.pass(40);
    assert_eq!(breaker.retry_after(clock.read()), None);
    assert_eq!(breaker.state(), BreakerState::Open, "asking does not change the state");
    let permit = breaker.try_acquire(|| clock.read()).unwrap();
    assert!(permit.is_probe());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
}

#[test]
fn enough_probes_that_succeed_close_it() {
    let clock = Clock::new();
    let breaker = opened(&clock, BreakerOptions::default());
    clock.pass(60);
    succeed(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    succeed(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_for_the_whole_time_again() {
    let clock = Clock::new();
    let breaker = opened(&clock, BreakerOptions::default());
    clock.pass(70);
    succeed(&breaker, &clock);
    fail(&breaker, &clock);
    assert_eq!(breaker.try_acquire(|| clock.read()).unwrap_err(), Duration::from_secs(60));
    clock.pass(60);
    succeed(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "the success before the failure is forgotten");
}

#[test]
fn only_so_many_probes_run_at_once() {
    let clock = Clock::new();
    let breaker = opened(&clock, BreakerOptions { max_probes: 2, ..BreakerOptions::default() });
    clock.pass(60);
    let first = breaker.try_acquire(|| clock.read()).unwrap();
    let second = breaker.try_acquire(|| clock.read()).unwrap();
    assert_eq!(breaker.try_acquire(|| clock.read()).unwrap_err(), Duration::ZERO);
    drop(first);
    let third = breaker.try_acquire(|| clock.read()).unwrap();
    third.ignored();
    second.success(|| clock.read());
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.metrics(clock.read()).ignored, 2);
    succeed(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn late_results_of_an_earlier_state_do_not_count() {
    let clock = Clock::new();
    let breaker = clock.breaker(BreakerOptions::default());
    let (late_success, late_failure) =
        (breaker.try_acquire(|| clock.read()).unwrap(), breaker.try_acquire(|| clock.read()).unwrap());
    let late_drop = breaker.try_acquire(|| clock.read()).unwrap();
    for _ in 0..5 {
        fail(&breaker, &clock);
    }
    clock.pass(60);
    let probe = breaker.try_acquire(|| clock.read()).unwrap();
    assert!(!late_failure.is_current() && probe.is_current());
    late_success.success(|| clock.read());
    late_failure.failure(|| clock.read());
    drop(late_drop);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.try_acquire(|| clock.read()).is_err(), "the probe still holds its place");
    probe.success(|| clock.read());
    succeed(&breaker, &clock);
    assert_eq!(breaker.state(), BreakerState::Closed);

    let metrics = breaker.metrics(clock.read());
    assert_eq!((metrics.successes, metrics.failures, metrics.ignored), (3, 6, 1));
}

#[test]
fn a_late_probe_failure_does_not_open_a_closed_breaker() {
    let clock = Clock::new();
    let options = BreakerOptions { max_probes: 3, failure_threshold: 1, ..BreakerOptions::default() };
    let breaker = opened(&clock, options);
    clock.pass(60);
    let late = breaker.try_acquire(|| clock.read()).unwrap();
    succeed(&breaker, &clock);
    succeed(&breaker, &clock);
    late.failure(|| clock.read());
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_closed_breaker_does_not_read_the_clock() {
    let clock = Clock::new();
    let breaker = clock.breaker(BreakerOptions::default());
    for _ in 0..10 {
        succeed(&breaker, &clock);
        breaker.try_acquire(|| clock.read()).unwrap().ignored();
    }
    assert_eq!(clock.reads.get(), 0);
}

#[test]
fn an_operator_opens_and_resets_it() {
    let clock = Clock::new();
    let breaker = clock.breaker(BreakerOptions::default());
    let under_way = breaker.try_acquire(|| clock.read()).unwrap();
    breaker.force_open(clock.read());
    assert!(breaker.is_forced());
    clock.pass(3600);
    assert_eq!(breaker.try_acquire(|| clock.read()).unwrap_err(), Duration::MAX);
    under_way.success(|| clock.read());
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.reset(clock.read());
    assert!(!breaker.is_forced());
    for _ in 0..4 {
        fail(&breaker, &clock);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn metrics_tell_what_happened() {
    let clock = Clock::new();
    let breaker = clock.breaker(BreakerOptions::default());
    assert_eq!(breaker.metrics(clock.read()).availability, 1.0);
    breaker.try_acquire(|| clock.read()).unwrap().success_at(clock.read());
    clock.pass(100);
    for _ in 0..5 {
        fail(&breaker, &clock);
    }
    clock.pass(30);
    assert!(breaker.try_acquire(|| clock.read()).is_err());
    clock.pass(70);
    succeed(&breaker, &clock);
    clock.pass(10);
    succeed(&breaker, &clock);
    clock.pass(190);

    let metrics = breaker.metrics(clock.read());
    assert_eq!(metrics.state, BreakerState::Closed);
    assert_eq!((metrics.total, metrics.successes, metrics.failures, metrics.rejected), (9, 3, 5, 1));
    assert_eq!((metrics.to_open, metrics.to_half_open, metrics.to_closed), (1, 1, 1));
    assert_eq!(metrics.transitions(), 3);
    assert_eq!(metrics.time_closed, Duration::from_secs(290));
    assert_eq!(metrics.time_open, Duration::from_secs(100));
    assert_eq!(metrics.time_half_open, Duration::from_secs(10));
    assert_eq!(metrics.last_failure, Some(clock.origin + Duration::from_secs(100)));
    assert_eq!(metrics.last_success, Some(clock.origin + Duration::from_secs(210)));
    assert_eq!((metrics.success_rate, metrics.availability), (0.375, 0.75));
}

#[test]
fn options_out_of_range_are_refused() {
    let good = BreakerOptions::default();
    good.check().unwrap();
    for bad in [
        BreakerOptions { failure_threshold: 0, ..good },
        BreakerOptions { success_threshold: 0, ..good },
        BreakerOptions { max_probes: 0, ..good },
        BreakerOptions { max_probes: MAX_COUNT + 1, ..good },
        BreakerOptions { reset_timeout: Duration::ZERO, ..good },
        BreakerOptions { reset_timeout: MAX_RESET_TIMEOUT + Duration::from_millis(1), ..good },
    ] {
        assert_eq!(Breaker::new(bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn threads_never_exceed_the_probes() {
    let origin = Instant::now();
    let options = BreakerOptions {
        failure_threshold: 1,
        success_threshold: MAX_COUNT,
        reset_timeout: Duration::from_millis(1),
        max_probes: 3,
    };
    let breaker = Breaker::new_at(options, origin).unwrap();
    breaker.try_acquire(|| origin).unwrap().failure(|| origin);
    let later = || origin + Duration::from_secs(1);
    let (probes, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..5_000 {
                    let Ok(permit) = breaker.try_acquire(later) else { continue };
                    let here = probes.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(here <= 3, "{here} probes at once");
                    admitted.fetch_add(1, Ordering::SeqCst);
                    probes.fetch_sub(1, Ordering::SeqCst);
                    if round % 2 == 0 { permit.success(later) } else { permit.ignored() }
                }
            });
        }
    });
    assert!(admitted.into_inner() > 0);
    let permits: Vec<_> = (0..3).map(|_| breaker.try_acquire(later).unwrap()).collect();
    assert!(breaker.try_acquire(later).is_err(), "all places are back, and no more than those");
    drop(permits);
}

#[test]
fn threads_lose_no_result() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 5_000;
    let origin = Instant::now();
    let options = BreakerOptions {
        failure_threshold: 2,
        success_threshold: 3,
        reset_timeout: Duration::from_millis(1),
        max_probes: 2,
    };
    let breaker = Breaker::new_at(options, origin).unwrap();
    let clock_ms = AtomicU64::new(0);
    let now = || origin + Duration::from_millis(clock_ms.fetch_add(1, Ordering::Relaxed));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (breaker, now) = (&breaker, &now);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let Ok(permit) = breaker.try_acquire(now) else { continue };
                    match (thread + round) % 8 {
                        0 | 1 => permit.failure(now),
                        2 => permit.ignored(),
                        _ => permit.success(now),
                    }
                }
            });
        }
    });
    let metrics = breaker.metrics(origin + Duration::from_secs(3600));
    assert_eq!(metrics.total, THREADS * ROUNDS);
    assert_eq!(metrics.successes + metrics.failures + metrics.ignored + metrics.rejected, metrics.total);
    assert!(metrics.to_open > 0 && metrics.to_half_open > 0, "{metrics:?}");

    // All permits are back: whatever the state is now, it can close.
    let later = || origin + Duration::from_secs(7200);
    for _ in 0..options.success_threshold {
        breaker.try_acquire(later).unwrap().success(later);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn threads_count_also_when_there_are_more_of_them_than_slots() {
    const THREADS: u64 = 80;
    const ROUNDS: u64 = 500;
    let breaker = Breaker::new(BreakerOptions::default()).unwrap();
    let barrier = std::sync::Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..ROUNDS {
                    breaker.try_acquire(Instant::now).unwrap().success(Instant::now);
                }
                barrier.wait();
            });
        }
    });
    let metrics = breaker.metrics(Instant::now());
    assert_eq!((metrics.total, metrics.successes), (THREADS * ROUNDS, THREADS * ROUNDS));
}
