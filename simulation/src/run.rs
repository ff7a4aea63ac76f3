//! One seed: lives of the process that end in a crash or a close, then good weather, and the last comparison.

use std::sync::Arc;
use std::time::Duration;

use mainstay::log::Log;
use mainstay::{
    BreakerState, CollectionName, Event, Guarded, Lsn, MemberState, MemberStore, Status, Tier, VectorStore,
};
use mainstay_core::ErrorKind;
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;
use crate::disk::{Disk, WatchedLog};
use crate::fate;
use crate::scenario::{Kind, Scenario};
use crate::store::{Handle, Machine, Reach};
use crate::world::{Broken, End, World};

/// Every member is live and equal so much time after the last fault.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);
/// Starts in good weather that an operator may need.
const MOST_REPAIRS: u32 = 4;

/// How a seed went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What happened, if it was kept.
    pub history: Vec<String>,
    /// Entries of the log in the end.
    pub entries: u64,
    /// Virtual time that passed.
    pub took: Duration,
}

/// What a life of the process leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Another start.
    Again,
    /// Nothing.
    Nothing,
}

/// Runs a seed.
pub fn run(seed: u64, keep_history: bool) -> Outcome {
    let world = World::new(seed, keep_history);
    world.note(|| format!("seed {seed}: {:?}", world.scenario));
    let disk = Disk::new(&world);
    let kinds = world.scenario.members.iter().enumerate();
    *world.machines.lock() = kinds.map(|(at, kind)| Machine::new(&world, at, *kind)).collect();
    let mut power_lost = false;
    for life in 0..=world.scenario.lives {
        let last = life == world.scenario.lives;
        let steps = world.draw(|rng| rng.random_range(20..1_500));
        let left = process(&world, &disk, power_lost, (!last).then_some(steps), last);
        if world.broken().is_some() || left == Left::Nothing {
            return outcome(&world);
        }
        power_lost = between(&world, &disk);
    }
    for _ in 0..MOST_REPAIRS {
        world.set_weather(false);
        let left = process(&world, &disk, power_lost, None, true);
        if world.broken().is_some() || left == Left::Nothing {
            return outcome(&world);
        }
        power_lost = between(&world, &disk);
    }
    world.fail_after("P6", "no number of restarts brings every member back");
    outcome(&world)
}

fn outcome(world: &World) -> Outcome {
    // Each of them has a share in the world, which else would outlive the seed.
    world.machines.lock().clear();
    Outcome {
        broken: world.broken(),
        history: world.history(),
        entries: world.truth.lock().end().0,
        took: world.now(),
    }
}

/// One life of the process.
fn process(
    world: &Arc<World>,
    disk: &Arc<Disk>,
    power_lost: bool,
    crash_in: Option<u64>,
    last: bool,
) -> Left {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // In which order tokio wakes those who watch one value is random, from a source of its own.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&world.draw(|rng| rng.random::<[u8; 16]>())));
    let runtime = builder.build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => unreachable!("a runtime without a driver for files cannot fail: {error}"),
    };
    runtime.block_on(async {
        world.begin(crash_in);
        let left = tokio::select! {
            biased;
            () = world.over() => Left::Again,
            left = live(world, disk, power_lost, last) => left,
        };
        world.gone();
        left
    })
}

/// What happens while no process is there. Answers whether the power went.
fn between(world: &World, disk: &Disk) -> bool {
    let power_lost = world.ended() == Some(End::Crash) && world.one_in(2);
    let machines = world.machines.lock().clone();
    disk.heal();
    if power_lost {
        disk.lose_power();
        machines.iter().for_each(|machine| machine.lose_power());
    }
    machines.iter().for_each(|machine| machine.process_ended());
    if world.scenario.old_backup && world.is_stormy() && world.one_in(2) && disk.restore_backup() {
        let mut told = world.told.lock();
        (told.logged, told.synced) = (Lsn::ZERO, Lsn::ZERO);
        drop(told);
        return true;
    }
    power_lost
}

async fn live(world: &Arc<World>, disk: &Arc<Disk>, power_lost: bool, last: bool) -> Left {
    world.note(|| format!("START (power lost: {power_lost})"));
    let Some(log) = open(world, disk).await else { return Left::Again };
    log.check_start(power_lost);
    start_stores(world);
    let Some(tier) = assemble(world, &log).await else { return Left::Again };
    world.has_tier(&tier);
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(Arc::clone(world), tier.clone()));
    if world.is_stormy() {
        tasks.spawn(fate::run(Arc::clone(world), Arc::clone(disk)));
        let mut clients = JoinSet::new();
        for _ in 0..world.scenario.clients {
            clients.spawn(Client::new(world, &tier).run(world.scenario.operations));
        }
        while clients.join_next().await.is_some() {}
    }
    if !last {
        if world.one_in(2) {
            let closed = tier.close().await;
            world.note(|| format!("CLOSE: {closed:?}"));
        } else {
            world.note(|| "CRASH of the process".to_owned());
            world.end(End::Crash);
        }
        return Left::Again;
    }
    settle(world, disk, &tier).await
}

/// Opens the log, which must notice what was damaged (P10).
async fn open(world: &Arc<World>, disk: &Arc<Disk>) -> Option<Arc<WatchedLog>> {
    if world.scenario.damage
        && world.one_in(3)
        && let Some(damaged) = disk.damage()
    {
        world.note(|| format!("disk: entry {damaged} is damaged"));
        let noticed = match disk.open() {
            Ok(_) => Err(format!("a log whose entry {damaged} is damaged was opened")),
            Err(error) if error.kind() == ErrorKind::Corrupt && error.lsn().is_some() => Ok(()),
            Err(error) => Err(format!("a log whose entry {damaged} is damaged says {error}")),
        };
        if let Err(what) = noticed {
            world.fail("P10", what);
            return None;
        }
        disk.repair();
    }
    // A read that rots is tried again.
    for _ in 0..20 {
        match disk.open() {
            Ok(log) => return Some(log),
            Err(error) if world.scenario.damage && error.kind() == ErrorKind::Corrupt => {}
            Err(error) => {
                world.fail("P1", format!("the log cannot be opened: {error}"));
                return None;
            }
        }
        world.step().await;
    }
    world.fail("P1", "the log cannot be opened");
    None
}

fn start_stores(world: &World) {
    let machines = world.machines.lock().clone();
    for machine in &machines {
        if machine.log_started() {
            world.note(|| format!("store {}: its history is not the log's", machine.member));
            world.expect(world.scenario.old_backup, "P5", || {
                format!("store {} holds durably what the log lost", machine.member)
            });
        }
    }
}

async fn assemble(world: &Arc<World>, log: &Arc<WatchedLog>) -> Option<Tier> {
    for _ in 0..20 {
        let machines = world.machines.lock().clone();
        let mut stores = Vec::new();
        for (machine, name) in machines.iter().zip(Scenario::NAMES) {
            let store: Arc<dyn VectorStore> = Arc::new(Handle::new(world, machine));
            let guarded = Guarded::new(store, name, world.scenario.guard);
            let Ok(guarded) = guarded else { unreachable!("the options are good") };
            stores.push(MemberStore {
                name: name.to_owned(),
                backend: "simulated",
                store: Arc::new(guarded),
            });
        }
        let log: Arc<dyn Log> = Arc::clone(log) as _;
        match Tier::assemble(world.scenario.tier.clone(), log, stores).await {
            Ok(tier) => return Some(tier),
            Err(error) if world.scenario.damage && error.kind() == ErrorKind::Corrupt => {}
            Err(error) => {
                world.fail("P1", format!("the tier cannot be opened: {error}"));
                return None;
            }
        }
        world.step().await;
    }
    world.fail("P1", "the tier cannot be opened");
    None
}

/// Hears what the tier tells: a member that comes back does not serve first before its time (P6).
async fn listen(world: Arc<World>, tier: Tier) {
    let mut events = tier.events();
    let number = |name: &str| Scenario::NAMES.iter().position(|known| *known == name);
    let mut failed = vec![false; world.scenario.members.len()];
    let mut live_since: Vec<Option<Duration>> = vec![None; failed.len()];
    drop(tier);
    while let Some(event) = events.next().await {
        if world.is_over() {
            return;
        }
        world.note(|| format!("tier: {event}"));
        match &event {
            Event::State { member, from, to, .. } => {
                let Some(at) = number(member.as_str()) else { continue };
                match to {
                    MemberState::Live => live_since[at] = Some(world.now()),
                    MemberState::Down | MemberState::Quarantined => failed[at] = true,
                    _ if *from == MemberState::Live => failed[at] = true,
                    _ => {}
                }
            }
            Event::Failback { from: Some(from), to: Some(to) } => {
                let (Some(from), Some(to)) = (number(from.as_str()), number(to.as_str())) else { continue };
                let Some(status) = world.status() else { continue };
                let left = &status.members[from];
                let stayed =
                    left.state == MemberState::Live && left.breaker == BreakerState::Closed && left.trusted;
                // An operator may have let it serve first in this very moment.
                let stayed = stayed && world.told.lock().restored[from].is_none();
                let since = live_since[to].max(world.told.lock().restored[to].map(|_| Duration::MAX));
                let waited = since.map(|since| world.now().saturating_sub(since));
                let told = since == Some(Duration::MAX);
                let early = waited.is_some_and(|waited| waited < world.scenario.tier.failback.restore_delay);
                let by_itself = world.scenario.tier.failback.auto_restore;
                world.expect(told || !(stayed && failed[to] && (early || !by_itself)), "P6", || {
                    format!("member {to} serves first {waited:?} after it came back, while {from} is well")
                });
            }
            _ => {}
        }
    }
}

/// Good weather: every member becomes live and equal, or says why not and is put right by an operator.
async fn settle(world: &Arc<World>, disk: &Arc<Disk>, tier: &Tier) -> Left {
    world.note(|| "GOOD WEATHER".to_owned());
    world.set_weather(false);
    let machines = world.machines.lock().clone();
    machines.iter().for_each(|machine| {
        machine.set_reach(Reach::Fine);
        machine.relent();
    });
    disk.heal();
    // What hangs ends, what comes late comes, and every store is checked.
    sleep(Duration::from_secs(40)).await;
    let client = Client::new(world, tier);
    if world.told.lock().latched {
        // It refuses (P9), and reads go on.
        if let Ok(name) = CollectionName::new("after") {
            client.create(name).await;
        }
        client.operate().await;
        return close(world, tier).await;
    }
    let caught_up = tier.wait_caught_up(SETTLED_WITHIN).await;
    machines.iter().for_each(|machine| machine.tick());
    world.check_status();
    let status = tier.status();
    check_quarantines(world, &machines, &status);
    if let Err(error) = caught_up {
        return put_right(world, disk, &machines, &status, tier, &error.to_string()).await;
    }
    for _ in 0..3 {
        client.operate().await;
    }
    if tier.wait_caught_up(SETTLED_WITHIN).await.is_err() {
        world.fail("P6", format!("after it was calm: {:?}", tier.status()));
        return Left::Again;
    }
    compare(world, &machines, tier).await;
    let _ = close(world, tier).await;
    Left::Nothing
}

async fn close(world: &World, tier: &Tier) -> Left {
    let closed = tier.close().await;
    world.note(|| format!("CLOSE: {closed:?}"));
    Left::Again
}

/// A member is out of service with a reason, and whoever has one is (P7).
fn check_quarantines(world: &World, machines: &[Arc<Machine>], status: &Status) {
    for (machine, member) in machines.iter().zip(&status.members) {
        let out = member.state == MemberState::Quarantined;
        if out && machine.excuse().is_none() {
            world.fail("P7", format!("{} is quarantined for nothing: {:?}", member.name, member.last_error));
        }
        if !out && machine.is_strange() {
            world.fail("P5", format!("{} holds another history and is {}", member.name, member.state));
        }
        if let Some(refused) = machine.refused() {
            world.expect(out && member.refused_entry.is_some(), "P7", || {
                format!("{} refuses entry {refused} and is {}", member.name, member.state)
            });
        }
    }
}

/// An operator puts right who is out of service, and the process is started again.
async fn put_right(
    world: &World,
    disk: &Disk,
    machines: &[Arc<Machine>],
    status: &Status,
    tier: &Tier,
    why: &str,
) -> Left {
    let out: Vec<usize> =
        (0..machines.len()).filter(|at| status.members[*at].state == MemberState::Quarantined).collect();
    if out.is_empty() {
        world.fail("P6", format!("not settled in good weather: {why}"));
        return Left::Again;
    }
    // Who is well follows all the same, unless what it needs is with those that are out of service.
    let start = disk.start();
    for (machine, member) in machines.iter().zip(&status.members) {
        let behind =
            member.state != MemberState::Quarantined && (member.state != MemberState::Live || member.lag > 0);
        let source = status.members.iter().any(|other| {
            other.name != member.name && other.state == MemberState::Live && other.cursor >= start
        });
        let replays = machine.shown().reached().unwrap_or_default() >= start;
        if behind && (source || replays) {
            world.fail(
                "P7",
                format!(
                    "{} is quarantined, and {} does not follow: {why}",
                    status.members[out[0]].name, member.name
                ),
            );
        }
    }
    let _ = close(world, tier).await;
    for at in out {
        let machine = &machines[at];
        world.note(|| format!("operator: puts store {at} right ({:?})", machine.excuse()));
        if machine.is_strange() {
            machine.wipe();
        }
        machine.mend();
        machine.forgive();
    }
    Left::Again
}

/// Every member holds the end of the log, exactly and alike (P6); what was refused is nowhere.
async fn compare(world: &World, machines: &[Arc<Machine>], tier: &Tier) {
    let end = world.truth.lock().end();
    for machine in machines {
        let state = machine.shown();
        world.expect(state.reached() == Some(end) || end == Lsn::ZERO, "P6", || {
            format!("store {} is at {:?}, the log ends at {end}", machine.member, state.reached())
        });
        world.expect(state.horizon <= end, "P6", || {
            format!("store {} holds something of {}, the log ends at {end}", machine.member, state.horizon)
        });
        machine.check_whole();
    }
    let mut digests = Vec::new();
    for name in Scenario::NAMES.iter().take(machines.len()) {
        match tier.digest(name).await {
            Ok(digest) => digests.push(digest),
            Err(error) => world.fail("P6", format!("{name} has no digest: {error}")),
        }
    }
    world.expect(digests.windows(2).all(|pair| pair[0] == pair[1]), "P6", || "members differ".to_owned());
    let refused = world.told.lock().refused.clone();
    let truth = world.truth.lock();
    let found = refused.iter().find(|(token, _)| truth.token(*token).is_some()).cloned();
    drop(truth);
    if let Some((token, what)) = found {
        world.fail("P1", format!("write {token} was refused without an effect and is in the log: {what}"));
    }
    let volatile = machines.iter().all(|machine| machine.kind == Kind::Volatile);
    world.note(|| format!("END at entry {end} (volatile: {volatile})"));
}
