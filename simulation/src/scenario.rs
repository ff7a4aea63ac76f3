//! What a seed decides before anything happens.

use std::time::Duration;

use mainstay::config::{DriftConfig, HedgeAfter, ReadPolicy, RetryConfig, ShadowConfig, SnapshotsConfig};
use mainstay::log::SyncPolicy;
use mainstay::{Ack, FailbackOptions, GuardOptions, TierOptions};
use mainstay_core::BreakerOptions;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// What kind of store a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Empty after its process ended.
    Volatile,
    /// In the process; durable from a flush on.
    Embedded,
    /// A server of its own; durable from a flush on.
    Server,
    /// A server of its own; durable when it answers.
    DurableServer,
}

/// What happens to be tried with this seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The members in order.
    pub members: Vec<Kind>,
    /// The member that the worst happens to.
    pub victim: usize,
    /// Of a thousand calls to a store, so many go wrong.
    pub faults: u32,
    /// Seconds between events, about.
    pub calm_s: u64,
    /// Clients at once.
    pub clients: usize,
    /// Operations of a client in a life of the process.
    pub operations: u32,
    /// Lives of the process that end in a crash.
    pub lives: u32,
    /// When the log makes entries durable.
    pub sync: SyncPolicy,
    /// The log's disk may fail.
    pub disk_fails: bool,
    /// A backup of the log may come back.
    pub old_backup: bool,
    /// The victim may refuse an entry.
    pub poison: bool,
    /// Somebody else may take the victim over.
    pub foreign: bool,
    /// The victim may lose everything, or what it learnt last.
    pub wipes: bool,
    /// The bytes of the log may be damaged.
    pub damage: bool,
    /// The options of the tier.
    pub tier: TierOptions,
    /// The guard of each store.
    pub guard: GuardOptions,
}

impl Scenario {
    /// Draws a scenario.
    pub fn draw(rng: &mut SmallRng) -> Self {
        let strong = rng.random_ratio(3, 5);
        let sync = match strong {
            true => SyncPolicy::Immediate,
            false if rng.random_ratio(2, 3) => {
                SyncPolicy::Periodic(Duration::from_millis(rng.random_range(200..5_000)))
            }
            false => SyncPolicy::Manual,
        };
        let count = *[1, 2, 2, 3, 3, 3].choose(rng).unwrap_or(&2);
        let kinds: &[Kind] = match strong {
            true => &[Kind::Volatile, Kind::Embedded, Kind::Server, Kind::DurableServer],
            // A server that is durable at once gets ahead of a log that is not.
            false => &[Kind::Volatile, Kind::Embedded, Kind::Server],
        };
        let members: Vec<Kind> = (0..count).map(|_| *kinds.choose(rng).unwrap_or(&Kind::Server)).collect();
        let durable = members.iter().filter(|kind| **kind != Kind::Volatile).count();
        let victim = rng.random_range(0..count);
        let old_backup = rng.random_ratio(1, 20);
        let secs = |rng: &mut SmallRng, range: std::ops::RangeInclusive<u64>| {
            Duration::from_millis(rng.random_range(*range.start() * 1_000..=*range.end() * 1_000))
        };
        let hedge_after = match rng.random_range(0..3) {
            0 => HedgeAfter::Off,
            1 => HedgeAfter::Percentile(95.0),
            _ => HedgeAfter::After(Duration::from_millis(rng.random_range(2..30))),
        };
        let log_max_bytes =
            if old_backup || rng.random_ratio(1, 4) { 1 << 20 } else { rng.random_range(4_000..40_000) };
        let tier = TierOptions {
            ack: *[Ack::Active, Ack::Active, Ack::All, Ack::Journal].choose(rng).unwrap_or(&Ack::Active),
            deadline: secs(rng, 1..=5),
            read: if rng.random_ratio(2, 3) { ReadPolicy::Preferred } else { ReadPolicy::Fastest },
            hedge_after,
            max_batch_points: 20,
            max_batch_bytes: 1 << 16,
            log_max_bytes,
            check_interval: secs(rng, 1..=6),
            retry: RetryConfig { max_retries: rng.random_range(0..4), ..RetryConfig::default() },
            seed: Some(rng.random()),
            failback: FailbackOptions {
                auto_restore: rng.random_ratio(7, 8),
                restore_delay: secs(rng, 0..=15),
            },
            snapshots: SnapshotsConfig::default(),
            flush_interval: secs(rng, 1..=6),
            drift: DriftConfig::default(),
            // Which searches a standby answers too is drawn by each tier for itself.
            shadow: ShadowConfig { share: 0.0, ..ShadowConfig::default() },
            close_timeout: secs(rng, 5..=60),
        };
        let guard = GuardOptions {
            timeout: secs(rng, 1..=4),
            write_timeout: secs(rng, 1..=8),
            max_concurrent: 64,
            max_queued: 256,
            breaker: BreakerOptions {
                failure_threshold: rng.random_range(1..6),
                success_threshold: rng.random_range(1..3),
                reset_timeout: secs(rng, 1..=30),
                max_probes: 1,
            },
        };
        Self {
            victim,
            faults: *[0, 0, 10, 30, 100].choose(rng).unwrap_or(&0),
            calm_s: *[2, 5, 10, 60].choose(rng).unwrap_or(&5),
            clients: rng.random_range(1..4),
            operations: rng.random_range(10..50),
            lives: *[0, 1, 1, 2, 3].choose(rng).unwrap_or(&1),
            sync,
            disk_fails: rng.random_ratio(1, 4),
            old_backup,
            poison: count > 1 && rng.random_ratio(1, 8),
            foreign: durable > 1 && rng.random_ratio(1, 8),
            wipes: durable > 1 && members[victim] != Kind::Volatile && rng.random_ratio(1, 2),
            damage: rng.random_ratio(1, 6),
            members,
            tier,
            guard,
        }
    }

    /// The names of the members.
    pub const NAMES: [&str; 3] = ["first", "second", "third"];
}
