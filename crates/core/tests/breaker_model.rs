//! The breaker's state machine, however threads take turns.
//!
//! The same sources as in the library are compiled here over loom's atomics. A check runs its threads again and again,
//! in every order in which they can take turns (with a bound on the turns taken from a thread that could go on), and
//! with every value that a relaxed load may answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../src/breaker/mod.rs"]
#[allow(dead_code, reason = "no check uses all of it")]
mod breaker;
mod error {
    pub use mainstay_core::error::{Error, Result};
}
/// What stands for the library's module of this name.
mod sync {
    use std::cell::Cell;

    use loom::sync::atomic;
    pub use loom::sync::atomic::Ordering;

    /// An atomic that takes a turn before each access.
    ///
    /// loom tries two accesses the other way round if they conflict, but looks no further back than the last access.
    /// It takes two loads for no conflict, and so overlooks that one thread loads before another that loads and
    /// writes. Additions of nothing do conflict; being relaxed, they make no value visible.
    #[derive(Debug, Default)]
    pub struct AtomicU64 {
        turns: atomic::AtomicU64,
        value: atomic::AtomicU64,
    }

    impl AtomicU64 {
        pub fn new(value: u64) -> Self {
            Self { turns: atomic::AtomicU64::new(0), value: atomic::AtomicU64::new(value) }
        }

        fn in_turn(&self) -> &atomic::AtomicU64 {
            self.turns.fetch_add(0, Ordering::Relaxed);
            &self.value
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.in_turn().load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.in_turn().store(value, order);
        }

        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.in_turn().fetch_max(value, order)
        }

        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.in_turn().fetch_add(value, order)
        }

        pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            self.in_turn().fetch_and(value, order)
        }

        pub fn compare_exchange_weak(
            &self,
            from: u64,
            to: u64,
            order: Ordering,
            fails: Ordering,
        ) -> Result<u64, u64> {
            self.in_turn().compare_exchange_weak(from, to, order, fails)
        }

        pub fn fetch_update(
            &self,
            order: Ordering,
            fails: Ordering,
            mut change: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            let mut value = self.load(fails);
            while let Some(next) = change(value) {
                match self.compare_exchange_weak(value, next, order, fails) {
                    Ok(before) => return Ok(before),
                    Err(current) => value = current,
                }
            }
            Err(value)
        }
    }

    /// Two, so that a thread with a slot and some without meet in a check.
    pub const SLOTS: usize = 2;

    loom::thread_local! {
        static SLOT: Cell<usize> = Cell::new(SLOTS);
    }

    pub fn slot() -> usize {
        SLOT.with(Cell::get)
    }

    /// Gives the calling thread this slot.
    pub fn take_slot(slot: usize) {
        SLOT.with(|own| own.set(slot));
    }
}

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tokio::time::Instant;

use self::breaker::{Breaker, BreakerMetrics, BreakerOptions, BreakerState, Permit, Slots};
use self::sync::{AtomicU64, Ordering, SLOTS};

/// How many times a turn is taken from a thread that could go on, with two threads and with three.
const TWO: usize = 4;
const THREE: usize = 2;
const OPTIONS: BreakerOptions = BreakerOptions {
    failure_threshold: 1,
    success_threshold: 1,
    reset_timeout: Duration::from_millis(10),
    max_probes: 1,
};

/// Runs a check in all orders within this bound.
fn check(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(run);
}

/// A breaker and the time, which a check sets as it likes.
#[derive(Clone)]
struct World {
    breaker: Arc<Breaker>,
    origin: Instant,
    /// Threads begun, each of which has a slot, so that counting does not multiply the orders.
    threads: Cell<usize>,
}

impl World {
    fn new(options: BreakerOptions) -> Self {
        let origin = Instant::now();
        Self { breaker: Arc::new(Breaker::new_at(options, origin).unwrap()), origin, threads: Cell::new(0) }
    }

    /// A breaker that has just failed, at time 0.
    fn open(options: BreakerOptions) -> Self {
        let world = Self::new(options);
        for _ in 0..options.failure_threshold {
            world.fail_at(0);
        }
        assert_eq!(world.breaker.state(), BreakerState::Open);
        world
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn ask_at(&self, ms: u64) -> Result<Permit<'_>, Duration> {
        self.breaker.try_acquire(|| self.at(ms))
    }

    /// A call that fails, if it is let through.
    fn fail_at(&self, ms: u64) {
        if let Ok(permit) = self.ask_at(ms) {
            permit.failure(|| self.at(ms));
        }
    }

    /// A call that succeeds, if it is let through.
    fn succeed_at(&self, ms: u64) {
        if let Ok(permit) = self.ask_at(ms) {
            permit.success(|| self.at(ms));
        }
    }

    fn spawn(&self, work: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let (world, slot) = (self.clone(), self.threads.replace(self.threads.get() + 1));
        thread::spawn(move || {
            sync::take_slot(slot);
            work(&world);
        })
    }

    /// The metrics when all is quiet, after a look at what always holds.
    fn metrics(&self) -> BreakerMetrics {
        let metrics = self.breaker.metrics(self.at(1_000));
        let settled = metrics.successes + metrics.failures + metrics.ignored;
        assert_eq!(metrics.total, settled + metrics.rejected, "{metrics:?}");
        // Each way in has its way out, but for the state it is in now.
        let is = |state| u64::from(metrics.state == state);
        assert_eq!(metrics.to_open, metrics.to_half_open + is(BreakerState::Open), "{metrics:?}");
        let open_again = metrics.to_half_open - metrics.to_closed - is(BreakerState::HalfOpen);
        assert_eq!(
            metrics.to_open,
            metrics.to_closed + open_again + 1 - is(BreakerState::Closed),
            "{metrics:?}"
        );
        metrics
    }

    fn assert_state(&self, state: BreakerState) {
        assert_eq!(self.breaker.state(), state, "{:?}", self.breaker.metrics(self.at(1_000)));
    }
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn it_opens_exactly_at_the_threshold() {
    for threshold in [2, 3, 4] {
        check(THREE, move || {
            let world = World::new(BreakerOptions { failure_threshold: threshold, ..OPTIONS });
            let threads = [world.spawn(|world| world.fail_at(0)), world.spawn(|world| world.fail_at(0))];
            world.fail_at(0);
            join(threads);
            world.assert_state(if threshold <= 3 { BreakerState::Open } else { BreakerState::Closed });
            assert_eq!(world.metrics().to_open, u64::from(threshold <= 3));
            world.fail_at(0);
            world.assert_state(BreakerState::Open);
            assert_eq!(world.metrics().to_open, 1);
        });
    }
}

#[test]
fn a_success_among_failures_starts_the_count_anew_and_undoes_no_transition() {
    check(TWO, || {
        let world = World::new(BreakerOptions { failure_threshold: 2, ..OPTIONS });
        let threads = [world.spawn(|world| world.succeed_at(0))];
        world.fail_at(0);
        world.fail_at(0);
        join(threads);
        // Either the success came between the two and one failure stands, or they opened it.
        if world.breaker.state() == BreakerState::Closed {
            assert_eq!(world.metrics().to_open, 0);
            world.fail_at(0);
        }
        world.assert_state(BreakerState::Open);
        assert_eq!(world.metrics().to_open, 1);
    });
}

/// Asks, and counts the probes that are under way with it.
fn probe(world: &World, under_way: &AtomicUsize, most: usize, settle: impl FnOnce(Permit<'_>)) {
    if let Ok(permit) = world.ask_at(10) {
        assert!(permit.is_probe());
        let probes = under_way.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(probes <= most, "{probes} probes at once");
        // Others may take their turn here.
        assert!(permit.is_current());
        under_way.fetch_sub(1, Ordering::SeqCst);
        settle(permit);
    }
}

#[test]
fn probes_are_never_more_than_allowed_and_all_places_come_back() {
    for most in [1, 2] {
        check(THREE, move || {
            // It never closes, so that all of them meet the half-open state.
            let options = BreakerOptions { max_probes: most as u32, success_threshold: 100, ..OPTIONS };
            let world = World::open(options);
            let under_way = std::sync::Arc::new(AtomicUsize::new(0));
            let (first, second) = (std::sync::Arc::clone(&under_way), std::sync::Arc::clone(&under_way));
            let threads = [
                world.spawn(move |world| probe(world, &first, most, |permit| drop(permit))),
                world.spawn(move |world| probe(world, &second, most, |permit| permit.ignored())),
            ];
            probe(&world, &under_way, most, |permit| permit.success(|| world.at(10)));
            join(threads);
            world.assert_state(BreakerState::HalfOpen);
            assert_eq!(world.metrics().to_half_open, 1);
            let permits: Vec<_> = (0..most).map(|_| world.ask_at(10).unwrap()).collect();
            assert_eq!(world.ask_at(10).unwrap_err(), Duration::ZERO);
            drop(permits);
        });
    }
}

#[test]
fn probes_that_succeed_at_once_close_it_once() {
    check(TWO, || {
        let options = BreakerOptions { max_probes: 2, success_threshold: 2, ..OPTIONS };
        let world = World::open(options);
        let threads = [world.spawn(|world| world.succeed_at(10))];
        world.succeed_at(10);
        join(threads);
        world.assert_state(BreakerState::Closed);
        assert_eq!(world.metrics().to_closed, 1);
    });
}

#[test]
fn of_a_probe_that_fails_and_one_that_succeeds_the_first_decides() {
    check(TWO, || {
        let options = BreakerOptions { max_probes: 2, failure_threshold: 2, ..OPTIONS };
        let world = World::open(options);
        let permit = world.ask_at(10).unwrap();
        let threads = [world.spawn(|world| world.succeed_at(10))];
        permit.failure(|| world.at(10));
        join(threads);
        let metrics = world.metrics();
        match metrics.state {
            BreakerState::Closed => {
                assert_eq!((metrics.to_open, metrics.to_closed), (1, 1));
                world.fail_at(10);
                world.assert_state(BreakerState::Closed);
            }
            BreakerState::Open => {
                assert_eq!((metrics.to_open, metrics.to_closed), (2, 0));
                assert_eq!(
                    world.ask_at(10).unwrap_err(),
                    OPTIONS.reset_timeout,
                    "it counts from the probe's time"
                );
            }
            BreakerState::HalfOpen => panic!("{metrics:?}"),
        }
    });
}

/// How a call ends that began in an earlier state.
#[derive(Clone, Copy)]
enum Late {
    Success,
    Failure,
    Dropped,
}

impl Late {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Dropped];

    fn settle(self, permit: Permit<'_>, now: Instant) {
        match self {
            Self::Success => permit.success(|| now),
            Self::Failure => permit.failure(|| now),
            Self::Dropped => drop(permit),
        }
    }
}

#[test]
fn a_late_result_of_the_closed_state_does_not_count_as_a_probe() {
    for late in Late::ALL {
        check(TWO, move || {
            let options = BreakerOptions { max_probes: 2, success_threshold: 2, ..OPTIONS };
            let world = World::new(options);
            let permit = world.ask_at(0).unwrap();
            let threads = [world.spawn(|world| {
                // Whoever of the two opens it, from here on it is open or half-open.
                world.fail_at(0);
                let (first, second) = (world.ask_at(10).unwrap(), world.ask_at(10).unwrap());
                assert_eq!(world.ask_at(10).unwrap_err(), Duration::ZERO);
                first.success(|| world.at(10));
                drop(second);
            })];
            late.settle(permit, world.at(0));
            join(threads);
            world.assert_state(BreakerState::HalfOpen);
            assert_eq!(world.metrics().to_open, 1);
            world.succeed_at(10);
            world.assert_state(BreakerState::Closed);
        });
    }
}

#[test]
fn a_late_probe_does_not_count_in_the_next_half_open_state() {
    for late in Late::ALL {
        check(TWO, move || {
            let options = BreakerOptions { max_probes: 2, success_threshold: 2, ..OPTIONS };
            let world = World::open(options);
            let permit = world.ask_at(10).unwrap();
            let threads = [world.spawn(|world| {
                world.fail_at(10);
                // Open since 10, whichever of the two failed first.
                let (first, second) = (world.ask_at(20).unwrap(), world.ask_at(20).unwrap());
                assert_eq!(world.ask_at(20).unwrap_err(), Duration::ZERO);
                first.success(|| world.at(20));
                drop(second);
            })];
            late.settle(permit, world.at(10));
            join(threads);
            world.assert_state(BreakerState::HalfOpen);
            assert_eq!(world.metrics().to_open, 2);
            world.succeed_at(20);
            world.assert_state(BreakerState::Closed);
        });
    }
}

#[test]
fn a_probe_that_is_late_says_nothing_about_a_closed_breaker() {
    for late in [Late::Success, Late::Dropped] {
        check(TWO, move || {
            let options = BreakerOptions { max_probes: 2, failure_threshold: 2, ..OPTIONS };
            let world = World::open(options);
            let permit = world.ask_at(10).unwrap();
            let threads = [world.spawn(|world| {
                world.succeed_at(10);
                world.fail_at(10);
                world.fail_at(10);
            })];
            late.settle(permit, world.at(10));
            join(threads);
            world.assert_state(BreakerState::Open);
            assert_eq!((world.metrics().to_closed, world.metrics().to_open), (1, 2));
        });
    }
}

#[test]
fn what_an_operator_forced_open_stays_so() {
    check(THREE, || {
        let world = World::open(BreakerOptions { max_probes: 2, ..OPTIONS });
        let threads = [world.spawn(|world| world.succeed_at(10)), world.spawn(|world| world.fail_at(10))];
        world.breaker.force_open(world.at(10));
        join(threads);
        assert!(world.breaker.is_forced());
        world.breaker.reset(world.at(10));
        world.assert_state(BreakerState::Closed);
    });
}

#[test]
fn a_reset_leaves_it_closed_with_nothing_counted() {
    check(TWO, || {
        let world = World::open(BreakerOptions { failure_threshold: 2, success_threshold: 2, ..OPTIONS });
        let permit = world.ask_at(10).unwrap();
        let threads = [world.spawn(|world| world.breaker.reset(world.at(10)))];
        permit.failure(|| world.at(10));
        join(threads);
        world.fail_at(10);
        world.assert_state(BreakerState::Closed);
        world.fail_at(10);
        world.assert_state(BreakerState::Open);
    });
}

#[test]
fn counters_add_up() {
    check(THREE, || {
        let world = World::new(BreakerOptions { failure_threshold: 3, ..OPTIONS });
        let calls = |world: &World| {
            world.succeed_at(0);
            world.fail_at(0);
        };
        // One thread has a slot of its own, two have none.
        let threads = [
            world.spawn(calls),
            world.spawn(move |world| {
                sync::take_slot(SLOTS);
                calls(world);
            }),
        ];
        world.ask_at(0).unwrap().ignored();
        join(threads);
        let metrics = world.metrics();
        assert_eq!((metrics.successes, metrics.failures, metrics.ignored, metrics.rejected), (2, 2, 1, 0));
    });
}

#[test]
fn refusals_add_up() {
    check(THREE, || {
        let world = World::open(OPTIONS);
        let ask = |world: &World| assert!(world.ask_at(5).is_err());
        let threads = [world.spawn(ask), world.spawn(ask)];
        ask(&world);
        join(threads);
        assert_eq!(world.metrics().rejected, 3);
    });
}

#[test]
fn transitions_that_race_are_all_counted_and_the_times_add_up() {
    check(TWO, || {
        let world = World::new(OPTIONS);
        let threads = [world.spawn(|world| world.breaker.reset(world.at(5)))];
        world.breaker.reset(world.at(7));
        join(threads);
        let metrics = world.breaker.metrics(world.at(1_000));
        assert_eq!(metrics.to_closed, 2);
        let all_time = metrics.time_closed + metrics.time_open + metrics.time_half_open;
        assert_eq!(all_time, Duration::from_millis(1_000));
    });
}

#[test]
fn a_slot_has_one_owner_who_goes_on_from_what_the_last_one_counted() {
    check(THREE, || {
        let slots = Arc::new(Slots::new(AtomicU64::new(0)));
        let counts: Arc<[AtomicU64; SLOTS]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        // More threads than slots.
        let (other_slots, other_counts) = (Arc::clone(&slots), Arc::clone(&counts));
        let count = move |slots: &Slots, counts: &[AtomicU64; SLOTS]| {
            let slot = slots.claim();
            if let Some(slot) = slot {
                let seen = counts[slot].load(Ordering::Relaxed);
                counts[slot].store(seen + 1, Ordering::Relaxed);
                slots.release(slot);
            }
            u64::from(slot.is_some())
        };
        let (third_slots, third_counts) = (Arc::clone(&slots), Arc::clone(&counts));
        let second = thread::spawn(move || count(&other_slots, &other_counts));
        let third = thread::spawn(move || count(&third_slots, &third_counts));
        let got = count(&slots, &counts) + second.join().unwrap() + third.join().unwrap();
        let counted: u64 = counts.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
        assert_eq!(counted, got);
        assert!(got >= SLOTS as u64);
        assert!(slots.claim().is_some(), "all are free again");
    });
}
