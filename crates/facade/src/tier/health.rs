//! How well a tier and its components are: plain decisions over a view of each.

use std::fmt;
use std::time::Duration;

use mainstay_core::guarded::Latency;
use mainstay_core::{BreakerState, Guarded, Lsn, Operation, VectorStore};

use crate::answer::ServiceLevel;
use crate::tier::member::{Member, MemberState};
use crate::tier::status::SnapshotsStatus;
use crate::tier::{Shared, Tier, status};

/// From this share of `log.max_bytes` on (in percent) the log is nearly full: it should have been cut long before.
const NEARLY_FULL_PERCENT: u64 = 90;
/// The operations whose times say most about a member, the first one that is known counts.
const TELLING: [Operation; 6] = [
    Operation::Search,
    Operation::Get,
    Operation::Scroll,
    Operation::Count,
    Operation::Ping,
    Operation::Position,
];

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthStatus {
    /// As it should be.
    Healthy,
    /// It works, but not as it should, or it is on its way back: watch it.
    Degraded,
    /// It does not work: look after it.
    Unhealthy,
}

impl HealthStatus {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The status as a number: 0 healthy, 1 degraded, 2 unhealthy.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The status as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a component of a tier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComponentKind {
    /// A member.
    Member,
    /// The log.
    Log,
    /// The snapshots, and the log between them.
    Snapshots,
}

impl ComponentKind {
    /// The kind as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Log => "log",
            Self::Snapshots => "snapshots",
        }
    }
}

/// How well a tier is.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// `Healthy` if every component is, `Unhealthy` if nobody can answer reads or the log takes no writes, else
    /// `Degraded`.
    pub status: HealthStatus,
    /// Why, on one line.
    pub message: String,
    /// The members in order, then the log, then the snapshots if there are any.
    pub components: Vec<ComponentHealth>,
}

/// How well one component is.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentHealth {
    /// What it is.
    pub kind: ComponentKind,
    /// The name of the member, or `log`, or `snapshots`.
    pub name: String,
    /// How well it is.
    pub status: HealthStatus,
    /// Why, on one line.
    pub message: String,
    /// How long it took lately to answer; `None` before anybody asked.
    pub latency: Option<MeasuredLatency>,
}

/// How long calls of one operation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredLatency {
    /// The operation: of a member the first one that is known of its reads and check-ups, of the log `append`.
    pub operation: &'static str,
    /// Half of the recent answers that went well came within this time; `None` before 32 of them came.
    pub p50: Option<Duration>,
    /// 99 of 100 did.
    pub p99: Option<Duration>,
    /// The mean of all answers since the start, failures included; `None` if it is not kept.
    pub mean: Option<Duration>,
}

/// What a decision knows of a member.
#[derive(Clone, Copy, Debug)]
pub struct MemberView<'a> {
    /// What it is doing.
    pub state: MemberState,
    /// For how long.
    pub for_time: Duration,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// How many entries it is behind the log.
    pub lag: u64,
    /// How long until it may serve first; `None` if it may, [`Duration::MAX`] if nobody knows.
    pub restored_in: Option<Duration>,
    /// Why it was last not well.
    pub reason: Option<&'a str>,
    /// The entry that it refused.
    pub refused: Option<Lsn>,
    /// 99 of 100 recent reads came within this time.
    pub p99: Option<Duration>,
    /// Reads are given up after this time.
    pub timeout: Duration,
}

/// How well a member is, and why.
pub fn of_member(view: MemberView<'_>) -> (HealthStatus, String) {
    use HealthStatus::{Degraded, Healthy, Unhealthy};
    let reason = view.reason.unwrap_or("not asked yet");
    let for_time = whole_seconds(view.for_time);
    match view.state {
        MemberState::Quarantined => match view.refused {
            Some(lsn) => (Unhealthy, format!("quarantined for {for_time} at entry {lsn}: {reason}")),
            None => (Unhealthy, format!("quarantined for {for_time}: {reason}")),
        },
        MemberState::Down => (Unhealthy, format!("down for {for_time}: {reason}")),
        _ if view.breaker == BreakerState::Open => {
            (Unhealthy, "its calls fail: its breaker is open, and it is asked last if at all".to_owned())
        }
        MemberState::Bootstrapping => (Degraded, format!("is loaded from another member, for {for_time}")),
        MemberState::CatchingUp => {
            (Degraded, format!("applies what it missed: {} behind", entries(view.lag)))
        }
        MemberState::Live if view.breaker == BreakerState::HalfOpen => {
            (Degraded, "its breaker lets single calls through to see whether it is well again".to_owned())
        }
        MemberState::Live => match (view.restored_in, view.p99) {
            (Some(Duration::MAX), _) => (Degraded, "is back; serves first after a failback".to_owned()),
            (Some(wait), _) => (Degraded, format!("is back; serves first in {}", whole_seconds(wait))),
            (None, Some(p99)) if p99 > view.timeout / 2 => {
                let text = format!("slow: p99 {p99:.1?}, and reads are given up after {:.1?}", view.timeout);
                (Degraded, text)
            }
            (None, _) => (Healthy, "follows the log".to_owned()),
        },
    }
}

/// What a decision knows of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogView<'a> {
    /// Why it takes no more entries.
    pub failure: Option<&'a str>,
    /// Why it refused the last append.
    pub refusal: Option<&'a str>,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
}

/// How well the log is, and why.
pub fn of_log(view: LogView<'_>) -> (HealthStatus, String) {
    let percent = u128::from(view.bytes) * 100 / u128::from(view.max_bytes.max(1));
    match view.failure.or(view.refusal) {
        Some(reason) => (HealthStatus::Unhealthy, reason.to_owned()),
        None if percent >= u128::from(NEARLY_FULL_PERCENT) => {
            let text = "full: no durable member holds its older entries durably";
            (HealthStatus::Degraded, format!("{percent} % {text}"))
        }
        None => (HealthStatus::Healthy, "takes writes".to_owned()),
    }
}

/// How well the snapshots are, and why. They are never unhealthy: the tier serves without them.
pub fn of_snapshots(snapshots: &SnapshotsStatus) -> (HealthStatus, String) {
    let archive = snapshots.archive_error.as_ref().map(|why| format!("the log is not archived: {why}"));
    let last = snapshots.last_error.as_ref().map(|why| format!("the last one was not made: {why}"));
    match (archive.or(last), &snapshots.newest) {
        (Some(why), _) => (HealthStatus::Degraded, why),
        (None, Some(newest)) => (HealthStatus::Healthy, format!("the newest is {newest}")),
        (None, None) => (HealthStatus::Healthy, "there is none yet".to_owned()),
    }
}

/// How well the tier is, and why. `active` is whether a member acks writes.
pub fn overall(level: ServiceLevel, active: bool, components: &[ComponentHealth]) -> (HealthStatus, String) {
    let log_refuses =
        components.iter().any(|c| c.kind == ComponentKind::Log && c.status == HealthStatus::Unhealthy);
    let bad: Vec<_> = components.iter().filter(|c| c.status > HealthStatus::Healthy).collect();
    let names = bad.iter().map(|c| format!("{} is {}", c.name, c.status)).collect::<Vec<_>>().join(", ");
    match (level, log_refuses) {
        (ServiceLevel::Unavailable, _) => (HealthStatus::Unhealthy, format!("no member can answer: {names}")),
        (_, true) => (HealthStatus::Unhealthy, format!("reads are served, writes are refused: {names}")),
        _ if !active => {
            let text = "reads are answered by a member that is behind, writes wait";
            (HealthStatus::Degraded, format!("{text}: {names}"))
        }
        _ if !bad.is_empty() => (HealthStatus::Degraded, format!("reads and writes are served: {names}")),
        // A standby serves although every member is well: one that came back in between.
        (ServiceLevel::Normal, _) => (HealthStatus::Healthy, "every component is healthy".to_owned()),
        _ => (HealthStatus::Degraded, format!("the service level is {level}")),
    }
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

fn whole_seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

impl Tier {
    /// How well the tier, its members and its log are at this moment, and why.
    pub fn health(&self) -> Health {
        let (active, level) = status::who_serves(self.shared());
        of(self.shared(), level, active.is_some())
    }
}

/// The health of a tier at this moment.
pub(crate) fn of(shared: &Shared, level: ServiceLevel, active: bool) -> Health {
    let end = shared.log.bounds().last;
    let members = shared.members.iter().map(|member| member_health(member, end));
    let snapshots = shared.snapshots.as_ref().map(|snapshots| {
        let (status, message) = of_snapshots(&snapshots.status());
        let (kind, name) = (ComponentKind::Snapshots, "snapshots".to_owned());
        ComponentHealth { kind, name, status, message, latency: None }
    });
    let components: Vec<_> = members.chain([log_health(shared)]).chain(snapshots).collect();
    let (status, message) = overall(level, active, &components);
    Health { status, message, components }
}

fn member_health(member: &Member, end: Lsn) -> ComponentHealth {
    let condition = member.condition();
    let store = member.store();
    let latency = measured(store);
    let (status, message) = of_member(MemberView {
        state: condition.state,
        for_time: condition.since.elapsed(),
        breaker: store.breaker().state(),
        lag: member.cursor().lag_behind(end),
        restored_in: member.restored_in(),
        reason: condition.reason.as_deref(),
        refused: condition.entry,
        p99: latency.and_then(|latency| latency.p99),
        timeout: store.options().timeout,
    });
    let name = member.name().to_string();
    ComponentHealth { kind: ComponentKind::Member, name, status, message, latency }
}

/// The times of the operation that says most: one whose quantiles are known, else one that was answered at all.
fn measured(store: &Guarded<dyn VectorStore>) -> Option<MeasuredLatency> {
    let metrics = store.metrics();
    let of = |operation: Operation| {
        let mean = Some(metrics.of(operation).latency_mean()?);
        Some(MeasuredLatency { mean, ..quantiles(operation.as_str(), store.latency(operation)) })
    };
    let known: Vec<_> = TELLING.into_iter().filter_map(of).collect();
    known.iter().find(|latency| latency.p50.is_some()).or(known.first()).copied()
}

fn quantiles(operation: &'static str, latency: &Latency) -> MeasuredLatency {
    MeasuredLatency { operation, p50: latency.quantile(0.5), p99: latency.quantile(0.99), mean: None }
}

fn log_health(shared: &Shared) -> ComponentHealth {
    let (failure, refusal) = (shared.log.failure().map(|error| error.to_string()), shared.counts.refusal());
    let (status, message) = of_log(LogView {
        failure: failure.as_deref(),
        refusal: refusal.as_deref(),
        bytes: shared.log.bounds().bytes,
        max_bytes: shared.options.log_max_bytes,
    });
    let latency = Some(quantiles("append", shared.counts.append_times()));
    let latency = latency.filter(|latency| latency.p50.is_some());
    ComponentHealth { kind: ComponentKind::Log, name: "log".to_owned(), status, message, latency }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthStatus::{Degraded, Healthy, Unhealthy};

    const LIVE: MemberView<'static> = MemberView {
        state: MemberState::Live,
        for_time: Duration::from_secs(7),
        breaker: BreakerState::Closed,
        lag: 0,
        restored_in: None,
        reason: Some("connection refused"),
        refused: None,
        p99: Some(Duration::from_millis(3)),
        timeout: Duration::from_secs(2),
    };

    const LOG: LogView<'static> = LogView { failure: None, refusal: None, bytes: 89, max_bytes: 100 };

    fn component(kind: ComponentKind, name: &str, status: HealthStatus) -> ComponentHealth {
        ComponentHealth { kind, name: name.to_owned(), status, message: String::new(), latency: None }
    }

    #[test]
    fn a_live_member_is_healthy_whatever_it_was_before() {
        assert_eq!(of_member(LIVE), (Healthy, "follows the log".to_owned()));
        assert_eq!(of_member(MemberView { p99: None, ..LIVE }).0, Healthy);
    }

    #[test]
    fn a_member_that_does_not_serve_is_unhealthy_and_says_why() {
        let down = MemberView { state: MemberState::Down, ..LIVE };
        assert_eq!(of_member(down), (Unhealthy, "down for 7 s: connection refused".to_owned()));
        assert!(of_member(MemberView { reason: None, ..down }).1.ends_with("not asked yet"));
        let quarantined = MemberView { state: MemberState::Quarantined, refused: Some(Lsn(4)), ..LIVE };
        let text = "quarantined for 7 s at entry 4: connection refused";
        assert_eq!(of_member(quarantined), (Unhealthy, text.to_owned()));
        for state in [MemberState::Live, MemberState::CatchingUp, MemberState::Bootstrapping] {
            let open = MemberView { state, breaker: BreakerState::Open, ..LIVE };
            assert_eq!(of_member(open).0, Unhealthy, "{state}");
        }
    }

    #[test]
    fn a_member_on_its_way_back_is_degraded_and_says_how_far_it_is() {
        let says = |view, text: &str| {
            let (status, message) = of_member(view);
            assert!(status == Degraded && message.contains(text), "{status}: {message}");
        };
        says(MemberView { state: MemberState::CatchingUp, lag: 1, ..LIVE }, "1 entry behind");
        says(MemberView { state: MemberState::CatchingUp, lag: 9, ..LIVE }, "9 entries behind");
        says(MemberView { state: MemberState::Bootstrapping, ..LIVE }, "for 7 s");
        says(MemberView { breaker: BreakerState::HalfOpen, ..LIVE }, "single calls");
        says(MemberView { restored_in: Some(Duration::from_secs(30)), ..LIVE }, "first in 30 s");
        says(MemberView { restored_in: Some(Duration::MAX), ..LIVE }, "after a failback");
    }

    #[test]
    fn a_member_that_nearly_runs_into_its_timeout_is_degraded() {
        let with = |p99_ms| MemberView { p99: Some(Duration::from_millis(p99_ms)), ..LIVE };
        assert_eq!(of_member(with(1_000)).0, Healthy);
        let (status, message) = of_member(with(1_001));
        assert!(status == Degraded && message.starts_with("slow: p99 1.0s"), "{message}");
    }

    #[test]
    fn a_log_that_refuses_is_unhealthy_and_a_nearly_full_one_degraded() {
        assert_eq!(of_log(LOG), (Healthy, "takes writes".to_owned()));
        assert_eq!(of_log(LogView { bytes: 90, ..LOG }).0, Degraded);
        assert_eq!(of_log(LogView { bytes: u64::MAX, max_bytes: 0, ..LOG }).0, Degraded);
        assert_eq!(of_log(LogView { refusal: Some("full"), ..LOG }), (Unhealthy, "full".to_owned()));
        let both = LogView { failure: Some("fsync"), refusal: Some("full"), ..LOG };
        assert_eq!(of_log(both), (Unhealthy, "fsync".to_owned()));
    }

    #[test]
    fn a_tier_is_as_well_as_what_it_does_for_its_callers() {
        use ComponentKind::{Log, Member};
        let of = |level, primary, log| {
            overall(level, true, &[component(Member, "primary", primary), component(Log, "log", log)])
        };
        assert_eq!(of(ServiceLevel::Normal, Healthy, Healthy).0, Healthy);
        assert_eq!(of(ServiceLevel::Standby, Healthy, Healthy).0, Degraded);
        let (status, message) = of(ServiceLevel::Standby, Unhealthy, Healthy);
        assert!(status == Degraded && message.contains("primary is unhealthy"), "{message}");
        assert_eq!(of(ServiceLevel::Normal, Healthy, Degraded).0, Degraded);
        let (status, message) = of(ServiceLevel::Normal, Healthy, Unhealthy);
        assert!(status == Unhealthy && message.contains("writes are refused"), "{message}");
        assert_eq!(of(ServiceLevel::Unavailable, Unhealthy, Healthy).0, Unhealthy);
        let late = [component(Member, "primary", Degraded), component(Log, "log", Healthy)];
        let (status, message) = overall(ServiceLevel::Normal, false, &late);
        assert!(status == Degraded && message.contains("writes wait"), "{message}");
    }

    #[test]
    fn each_status_has_a_number_and_a_word_in_the_same_order() {
        let all = HealthStatus::ALL.map(|status| (status.number(), status.as_str()));
        assert_eq!(all, [(0, "healthy"), (1, "degraded"), (2, "unhealthy")]);
    }
}
