//! The simulation itself: it repeats itself, it passes, it sees, and its store keeps the contract of stores.

use async_trait::async_trait;
#[cfg(tokio_unstable)]
use mainstay::sabotage::{self, Bug};
use mainstay_core::conformance::StoreFactory;
use mainstay_simulation::run::run;
use mainstay_simulation::scenario::Kind;
use mainstay_simulation::store::{Handle, Machine};
use mainstay_simulation::world::World;

#[cfg(not(tokio_unstable))]
#[test]
fn a_seed_replays_only_if_tokio_is_seeded() {
    println!(
        "SKIPPED: seeds replay with RUSTFLAGS=\"--cfg tokio_unstable\", which `cargo xtask simulate` sets"
    );
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_replays_to_the_byte_also_in_another_thread() {
    for seed in 1..=40 {
        let first = run(seed, true);
        assert!(first.history.len() > 10, "seed {seed} has no history");
        let again = std::thread::spawn(move || run(seed, true)).join().unwrap();
        let differs = first.history.iter().zip(&again.history).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.history[at], &again.history[at])), None, "seed {seed}");
        assert_eq!(first, again, "seed {seed}");
        assert_eq!(run(seed, false).broken, first.broken, "seed {seed}: looking changes nothing");
    }
}

#[test]
fn seeds_break_no_promise() {
    for seed in 1..=300 {
        let outcome = run(seed, false);
        assert_eq!(outcome.broken, None, "seed {seed}");
    }
}

#[cfg(tokio_unstable)]
#[test]
fn a_deliberate_bug_is_seen_and_its_seed_replays() {
    sabotage::set(Some(Bug::CursorBeforeApply));
    let seed = (1..=200).find(|seed| run(*seed, false).broken.is_some()).unwrap();
    let (first, again) = (run(seed, true), run(seed, true));
    sabotage::set(None);
    assert_eq!(first, again);
    assert_eq!(first.broken.unwrap().promise, "P5");
    assert_eq!(run(seed, false).broken, None, "without the bug the seed passes");
}

/// The simulated store in good weather, with a crash at every reopening.
struct Simulated;

#[async_trait]
impl StoreFactory for Simulated {
    type Store = Handle;

    async fn create(&self) -> Handle {
        let world = World::unjudged();
        Handle::new(&world, &Machine::new(&world, 0, Kind::Server))
    }

    async fn reopen(&self, store: Handle) -> Option<Handle> {
        let (world, machine) = (store.world(), store.machine());
        machine.crash();
        Some(Handle::new(world, machine))
    }
}

mainstay_core::conformance!(|| async { Simulated });
