//! What happens while a process runs, apart from single calls that go wrong.

use std::sync::Arc;

use mainstay::Lsn;
use rand::seq::IndexedRandom;
use tokio::time::sleep;

use crate::disk::{Disk, Failure};
use crate::scenario::Kind;
use crate::store::{Machine, Reach};
use crate::world::World;

#[derive(Clone, Copy, Debug)]
enum Event {
    Down,
    Hang,
    Slow,
    Crash,
    Wipe,
    RollBack,
    TakeOver,
    Poison,
    Disk,
    BackUp,
}

/// Lets things happen until the weather is good.
pub async fn run(world: Arc<World>, disk: Arc<Disk>) {
    let mut rare = true;
    loop {
        sleep(world.millis(100..=world.scenario.calm_s * 2_000)).await;
        if !world.is_stormy() {
            return;
        }
        world.step().await;
        let event = choose(&world, &mut rare);
        let machines = world.machines.lock().clone();
        let Some(any) = world.draw(|rng| machines.choose(rng).cloned()) else { return };
        strike(&world, &disk, event, &any, &machines[world.scenario.victim]);
        world.check_status();
    }
}

fn choose(world: &World, rare: &mut bool) -> Event {
    use Event::{BackUp, Crash, Disk, Down, Hang, Poison, RollBack, Slow, TakeOver, Wipe};
    let scenario = &world.scenario;
    let mut events = vec![Down, Down, Hang, Slow, Slow, Crash, Crash];
    if scenario.wipes {
        events.extend([Wipe, RollBack, RollBack]);
    }
    if scenario.old_backup {
        events.extend([BackUp, BackUp]);
    }
    if *rare {
        events.extend([TakeOver, TakeOver].iter().filter(|_| scenario.foreign));
        events.extend([Poison, Poison].iter().filter(|_| scenario.poison));
        events.extend([Disk, Disk].iter().filter(|_| scenario.disk_fails));
    }
    let event = world.draw(|rng| *events.choose(rng).unwrap_or(&Slow));
    if matches!(event, TakeOver | Poison | Disk) {
        *rare = false;
    }
    event
}

fn strike(world: &World, disk: &Disk, event: Event, any: &Machine, victim: &Machine) {
    let until = world.now() + world.millis(100..=20_000);
    let reach = |reach| {
        world.note(|| format!("store {}: {reach:?}", any.member));
        any.set_reach(reach);
    };
    match event {
        Event::Down => reach(Reach::Down(until)),
        Event::Hang => reach(Reach::Hanging(until)),
        Event::Slow => {
            let most = world.draw(|rng| *[20, 60, 60, 400].choose(rng).unwrap_or(&20));
            reach(Reach::Slow(until, most));
        }
        Event::Crash if any.kind != Kind::Volatile && !any.is_strange() => any.crash(),
        Event::Crash => {}
        Event::Wipe if is_spare(world, disk, victim) => victim.wipe(),
        Event::RollBack if is_spare(world, disk, victim) && !victim.is_strange() => {
            victim.roll_back();
        }
        Event::TakeOver if is_spare(world, disk, victim) => victim.take_over(),
        Event::Wipe | Event::RollBack | Event::TakeOver => {}
        Event::Poison => {
            world.note(|| format!("store {}: will refuse an entry", victim.member));
            victim.poison(world.truth.lock().end());
        }
        Event::Disk => {
            let failures = [Failure::Full, Failure::AfterWrite, Failure::Sync, Failure::CutSync];
            let failure = world.draw(|rng| *failures.choose(rng).unwrap_or(&Failure::Sync));
            world.note(|| format!("disk: will fail: {failure:?}"));
            disk.fail_next(failure);
        }
        Event::BackUp => disk.back_up(),
    }
}

/// Whether nothing is lost with this store: another durable one holds what it holds durably, and the log goes on from
/// there. What only one store held is gone with it, and nobody promised otherwise.
pub fn is_spare(world: &World, disk: &Disk, machine: &Machine) -> bool {
    let needed: Lsn = disk.start().max(machine.durable_at_most());
    let machines = world.machines.lock().clone();
    machines.iter().any(|other| {
        let holds = other.durable().reached().is_some_and(|reached| reached >= needed);
        other.member != machine.member && other.kind != Kind::Volatile && !other.is_strange() && holds
    })
}
