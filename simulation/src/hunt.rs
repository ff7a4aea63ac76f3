//! Many seeds over both cores, and the search for deliberate bugs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::sabotage::{self, Bug};
use parking_lot::Mutex;

use crate::run::{Outcome, run};

/// A deliberate bug has to be seen within so many seeds.
pub const MOST_SEEDS: u64 = 2_000;

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Entries that their logs held.
    pub entries: u64,
    /// Virtual seconds that passed in them.
    pub virtual_s: u64,
    /// Seeds that broke a promise.
    pub failed: Vec<(u64, Outcome)>,
}

/// Runs seeds from `from` on, at most `count`, until `until` or the first failures, on so many threads.
pub fn run_many(
    from: u64,
    count: u64,
    until: Option<Instant>,
    threads: usize,
    most_failures: usize,
) -> Tally {
    let (next, stop, tally) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let late = until.is_some_and(|until| Instant::now() >= until);
                    if at >= count || late || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = from + at;
                    let outcome = run(seed, false);
                    let mut tally = tally.lock();
                    tally.seeds += 1;
                    tally.entries += outcome.entries;
                    tally.virtual_s += outcome.took.as_secs();
                    if outcome.broken.is_some() {
                        tally.failed.push((seed, outcome));
                        if tally.failed.len() >= most_failures {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner();
    tally.failed.sort_by_key(|(seed, _)| *seed);
    tally
}

/// How a bug was seen.
#[derive(Debug)]
pub struct Caught {
    /// Which bug.
    pub bug: Bug,
    /// How many seeds it took; `None` if none of them showed it.
    pub seeds: Option<u64>,
    /// The promise that was seen to be broken.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs seeds with a bug until one shows it.
pub fn hunt(bug: Bug) -> Caught {
    let start = Instant::now();
    let mut caught = Caught { bug, seeds: None, promise: "", what: String::new(), took: Duration::ZERO };
    for seed in 1..=MOST_SEEDS {
        sabotage::set(Some(bug));
        let broken = run(seed, false).broken;
        sabotage::set(None);
        // A seed that fails without the bug proves nothing about it.
        if let Some(broken) = broken
            && run(seed, false).broken.is_none()
        {
            caught = Caught { seeds: Some(seed), promise: broken.promise, what: broken.what, ..caught };
            break;
        }
    }
    Caught { took: start.elapsed(), ..caught }
}

/// Hunts every bug, on so many threads.
pub fn hunt_all(threads: usize) -> Vec<Caught> {
    let (next, caught) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let found = hunt(*bug);
                    caught.lock().push(found);
                }
            });
        }
    });
    let mut caught = caught.into_inner();
    caught.sort_by_key(|caught| Bug::ALL.iter().position(|bug| *bug == caught.bug));
    caught
}
