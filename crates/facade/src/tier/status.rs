//! What operators see of a tier.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{BreakerState, GuardMetrics, LogIdentity, Lsn, VectorStore};

use crate::answer::{MemberName, ServiceLevel};
use crate::tier::drift::DriftReport;
use crate::tier::health::{self, Health};
use crate::tier::member::MemberState;
use crate::tier::shadow::ShadowStatus;
use crate::tier::{Shared, route};

/// Members, log and service level at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// How well the tier serves.
    pub level: ServiceLevel,
    /// The member that serves reads first and acks writes; `None` if there is none.
    pub active: Option<MemberName>,
    /// The members in order.
    pub members: Vec<MemberStatus>,
    /// The log.
    pub log: LogStatus,
    /// How many collections there are.
    pub collections: usize,
    /// How well the tier and its components are.
    pub health: Health,
    /// What the last comparison of the members found.
    pub drift: Option<Arc<DriftReport>>,
    /// The snapshots, if the tier makes any.
    pub snapshots: Option<SnapshotsStatus>,
}

/// The snapshots of a tier at one moment.
#[derive(Clone, Debug)]
pub struct SnapshotsStatus {
    /// The directory or URL.
    pub place: String,
    /// The id of the newest that was read back well; `None` before there is one, and until it was looked.
    pub newest: Option<String>,
    /// How long ago it was begun.
    pub age: Option<Duration>,
    /// The LSN that it ends at.
    pub lsn: Option<Lsn>,
    /// How many points it has.
    pub points: u64,
    /// Bytes of its files, most of which it may share with others.
    pub bytes: u64,
    /// How many snapshots this process read back well.
    pub good: usize,
    /// Everything up to this LSN is archived beside the snapshots; `None` before it was looked.
    pub archived: Option<Lsn>,
    /// How many entries are not archived yet.
    pub archive_lag: u64,
    /// Why the log is not archived, if it is not.
    pub archive_error: Option<String>,
    /// Why the last snapshot was not made, if it was not.
    pub last_error: Option<String>,
    /// Snapshots that this process made.
    pub made: u64,
    /// Snapshots that this process could not make.
    pub failed: u64,
}

/// A snapshot that was made.
#[derive(Clone, Debug)]
pub struct SnapshotReport {
    /// Its id.
    pub id: String,
    /// The member that was read.
    pub source: MemberName,
    /// The LSN that the member was at before its first point was read.
    pub from: Lsn,
    /// The end of the log after its last point was read.
    pub to: Lsn,
    /// How many collections there are.
    pub collections: usize,
    /// How many points.
    pub points: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files that were written for it.
    pub new_files: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Files of the snapshot before that it shares.
    pub reused_files: u64,
    /// Snapshots that were removed.
    pub pruned: usize,
    /// How long it took.
    pub took: Duration,
}

/// One member at one moment.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its name.
    pub name: MemberName,
    /// The word of its backend.
    pub backend: &'static str,
    /// What it is doing.
    pub state: MemberState,
    /// For how long.
    pub for_time: Duration,
    /// Everything up to this LSN is in it.
    pub cursor: Lsn,
    /// Everything up to this LSN outlives a crash of the machine; `None` for a volatile member.
    pub durable: Option<Lsn>,
    /// How many entries it is behind the log.
    pub lag: u64,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// What its guard and its breaker counted since the start.
    pub metrics: GuardMetrics,
    /// Whether it may serve first when it is live: it was not away, or has been back for long enough.
    pub trusted: bool,
    /// Whether an operator chose it to serve first.
    pub chosen: bool,
    /// How long until it may, if it comes to that by itself.
    pub restored_in: Option<Duration>,
    /// Why it was last not well.
    pub last_error: Option<String>,
    /// The entry that it refused, if it is quarantined for one.
    pub refused_entry: Option<Lsn>,
    /// Bytes of memory that its store measured itself to hold, if it measures.
    pub memory_bytes: Option<u64>,
    /// Whether it let points go for want of room: it is asked last, and compared with nobody.
    pub partial: bool,
    /// What its store decided by itself, such as how it made do with little room.
    pub notice: Option<String>,
    /// How well it answers searches that another member served; `None` if it was not asked yet.
    pub shadow: Option<ShadowStatus>,
}

/// The log at one moment.
#[derive(Clone, Debug)]
pub struct LogStatus {
    /// Its id and epoch.
    pub identity: LogIdentity,
    /// Its first entry; one more than `last` if it is empty.
    pub first: Lsn,
    /// Its last entry.
    pub last: Lsn,
    /// Bytes of its entries.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
}

pub(crate) fn of(shared: &Shared) -> Status {
    let bounds = shared.log.bounds();
    let (active, level) = who_serves(shared);
    let members = shared.members.iter().enumerate().map(|(index, member)| {
        let condition = member.condition();
        let (cursor, restored_in) = (member.cursor(), member.restored_in());
        MemberStatus {
            name: member.name().clone(),
            backend: member.backend(),
            state: condition.state,
            for_time: condition.since.elapsed(),
            cursor,
            durable: (!member.is_volatile()).then(|| member.durable()),
            lag: cursor.lag_behind(bounds.last),
            breaker: member.store().breaker().state(),
            metrics: member.store().metrics(),
            trusted: restored_in.is_none(),
            chosen: member.is_chosen(),
            restored_in: restored_in.filter(|wait| *wait < Duration::MAX),
            last_error: condition.reason,
            refused_entry: condition.entry,
            memory_bytes: member.store().memory_bytes(),
            partial: member.store().is_partial(),
            notice: member.store().notice(),
            shadow: shared.shadow.status(index),
        }
    });
    Status {
        level,
        active: active.map(|active| shared.members[active].name().clone()),
        members: members.collect(),
        log: LogStatus {
            identity: shared.log.identity(),
            first: bounds.first,
            last: bounds.last,
            bytes: bounds.bytes,
            max_bytes: shared.options.log_max_bytes,
        },
        collections: shared.catalog.specs().len(),
        health: health::of(shared, level, active.is_some()),
        drift: shared.drift.last(),
        snapshots: shared.snapshots.as_ref().map(|snapshots| snapshots.status()),
    }
}

/// The member that serves first, and the service level. For want of one, a member that catches up answers; one that is
/// down is asked too, but nobody counts on it.
pub(crate) fn who_serves(shared: &Shared) -> (Option<usize>, ServiceLevel) {
    let views = shared.views();
    let active = route::active(&views);
    let counts = |index: &usize| views[*index].state != MemberState::Down && !views[*index].breaker_open;
    let late = || route::read_order(&views, Lsn::ZERO, Lsn::ZERO, |_| ()).into_iter().find(counts);
    let serving = active.or_else(late);
    (active, serving.map_or(ServiceLevel::Unavailable, |serving| route::level(&views, serving)))
}
