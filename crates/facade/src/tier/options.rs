//! What a tier goes by.

use std::time::Duration;

use crate::config::{Ack, DriftConfig, HedgeAfter, ReadPolicy, RetryConfig, ShadowConfig, SnapshotsConfig};
use crate::tier::FailbackOptions;

/// What a tier goes by; [`Tier::open`](crate::Tier::open) takes it from the config.
#[derive(Clone, Debug)]
pub struct TierOptions {
    /// When a write counts as written.
    pub ack: Ack,
    /// Every call answers by then.
    pub deadline: Duration,
    /// Which member a read asks first.
    pub read: ReadPolicy,
    /// When a read that is not answered yet asks the next member too.
    pub hedge_after: HedgeAfter,
    /// Most points in one upsert.
    pub max_batch_points: usize,
    /// Most bytes in one upsert.
    pub max_batch_bytes: usize,
    /// Most bytes in the log.
    pub log_max_bytes: u64,
    /// How often idle members are checked.
    pub check_interval: Duration,
    /// When and how often a read that failed everywhere is tried again.
    pub retry: RetryConfig,
    /// What the random waits of retries are drawn from; `None` asks the operating system. With a seed, equal calls
    /// in equal order wait alike.
    pub seed: Option<u64>,
    /// When a member that was away serves first again.
    pub failback: FailbackOptions,
    /// How the members are compared with each other.
    pub drift: DriftConfig,
    /// How many searches a standby answers too.
    pub shadow: ShadowConfig,
    /// Where snapshots are kept, and how often they are made. Without the cargo feature `snapshots` there are none.
    pub snapshots: SnapshotsConfig,
    /// How often what was applied is made durable.
    pub flush_interval: Duration,
    /// How long a close waits for running work, and then for the log.
    pub close_timeout: Duration,
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            ack: Ack::Active,
            deadline: Duration::from_secs(5),
            read: ReadPolicy::default(),
            hedge_after: HedgeAfter::default(),
            max_batch_points: 10_000,
            max_batch_bytes: 8 << 20,
            log_max_bytes: 1 << 30,
            check_interval: Duration::from_secs(5),
            retry: RetryConfig::default(),
            seed: None,
            failback: FailbackOptions::default(),
            drift: DriftConfig::default(),
            shadow: ShadowConfig::default(),
            snapshots: SnapshotsConfig::default(),
            flush_interval: Duration::from_secs(5),
            close_timeout: Duration::from_secs(60),
        }
    }
}
