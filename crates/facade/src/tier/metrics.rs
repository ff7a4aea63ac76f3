//! Telling a recorder of the `metrics` facade how a tier is.
//!
//! What changes with every call is counted beside the call (`counts`, the guards, the breakers) and told from here, now
//! and then or when somebody asks, so that no call pays for who listens. Labels are names of members, operations and
//! kinds alone, so there are never many series, and nothing of what collections hold gets out.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::guarded::Latency;
use mainstay_core::{BreakerMetrics, BreakerState, Operation, VectorStore};
use metrics::{Unit, counter, gauge, histogram};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::tier::counts::{Counts, READ_BOUNDS_US, READS, ReadTimes};
use crate::tier::health::{self, Health};
use crate::tier::member::{Member, MemberState};
use crate::tier::status::SnapshotsStatus;
use crate::tier::{ShadowStatus, Shared, Tier, status, until_closing};

/// How often the process's recorder is told.
const INTERVAL: Duration = Duration::from_secs(5);
/// The one histogram.
pub const READ_SECONDS: &str = "mainstay_read_seconds";

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Upwards, from 0 at the start of the tier.
    Counter,
    /// Anywhere.
    Gauge,
    /// In buckets.
    Histogram,
}

const C: Kind = Kind::Counter;
const G: Kind = Kind::Gauge;
const H: Kind = Kind::Histogram;

/// Every metric: its stable name, how it moves, its unit and what it says. docs/operate.md has the same list.
pub const METRICS: &[(&str, Kind, Unit, &str)] = &[
    ("mainstay_health", G, Unit::Count, "0 healthy, 1 degraded, 2 unhealthy"),
    ("mainstay_component_health", G, Unit::Count, "The same of one component"),
    ("mainstay_service_level", G, Unit::Count, "0 normal, 1 standby, 3 memory only, 4 unavailable"),
    ("mainstay_collections", G, Unit::Count, "Collections at the end of the log"),
    ("mainstay_reads_total", C, Unit::Count, "Reads that were answered, by the member that served them"),
    ("mainstay_read_errors_total", C, Unit::Count, "Reads that ended in an error, by its kind"),
    (READ_SECONDS, H, Unit::Seconds, "How long answered reads took, retries included"),
    ("mainstay_read_retries_total", C, Unit::Count, "Times a read was tried again at every member"),
    ("mainstay_writes_total", C, Unit::Count, "Writes, by how they ended for the caller"),
    (
        "mainstay_failovers_total",
        C,
        Unit::Count,
        "Times a member further down, or nobody, began to serve first",
    ),
    ("mainstay_failbacks_total", C, Unit::Count, "Times a member further up began to serve first again"),
    ("mainstay_log_first_lsn", G, Unit::Count, "The first entry of the log"),
    ("mainstay_log_last_lsn", G, Unit::Count, "The last entry of the log"),
    ("mainstay_log_bytes", G, Unit::Bytes, "Bytes of all entries"),
    ("mainstay_log_max_bytes", G, Unit::Bytes, "Bytes that the log may hold"),
    ("mainstay_log_entries_appended_total", C, Unit::Count, "Entries that the log took"),
    ("mainstay_log_append_errors_total", C, Unit::Count, "Appends that failed or were refused"),
    (
        "mainstay_log_append_latency_seconds",
        G,
        Unit::Seconds,
        "How long recent appends took until they were durable",
    ),
    ("mainstay_member_active", G, Unit::Count, "1 for the member that serves first, else 0"),
    ("mainstay_member_state", G, Unit::Count, "1 for the state that the member is in, 0 for every other one"),
    ("mainstay_member_cursor_lsn", G, Unit::Count, "Everything up to this entry is in the member"),
    (
        "mainstay_member_durable_lsn",
        G,
        Unit::Count,
        "Everything up to this entry outlives a crash of a durable member",
    ),
    ("mainstay_member_lag_entries", G, Unit::Count, "Entries that the member is behind the log"),
    ("mainstay_member_memory_bytes", G, Unit::Bytes, "Memory that the store holds, if it measures itself"),
    ("mainstay_member_calls_total", C, Unit::Count, "Calls of the store that were begun"),
    ("mainstay_member_call_errors_total", C, Unit::Count, "Calls of the store that ended in an error"),
    ("mainstay_member_latency_seconds", G, Unit::Seconds, "How long recent calls took that went well"),
    ("mainstay_member_reads_running", G, Unit::Count, "Reads of the store under way"),
    ("mainstay_member_reads_queued", G, Unit::Count, "Reads that wait for one under way to end"),
    (
        "mainstay_member_hedges_total",
        C,
        Unit::Count,
        "Reads for which the next member was asked too, as this one was slow",
    ),
    (
        "mainstay_member_measuring_calls_total",
        C,
        Unit::Count,
        "Calls that were made only to learn how long the member takes now",
    ),
    ("mainstay_member_moves_total", C, Unit::Count, "Reads that this member failed and that moved on"),
    ("mainstay_member_quarantines_total", C, Unit::Count, "Times the member went out of service"),
    ("mainstay_member_alerts_total", C, Unit::Count, "Times somebody was told to look after the member"),
    (
        "mainstay_member_shadow_reads_total",
        C,
        Unit::Count,
        "Searches that the member was put to beside the one that served, by what came of it",
    ),
    (
        "mainstay_member_shadow_overlap",
        G,
        Unit::Count,
        "The share of the hits that the member found in recent shadow reads, 0 to 1",
    ),
    (
        "mainstay_member_shadow_score_drift",
        G,
        Unit::Count,
        "The mean difference of the scores of common hits in recent shadow reads",
    ),
    (
        "mainstay_member_shadow_score_drift_max",
        G,
        Unit::Count,
        "The largest difference of the scores of a common hit in recent shadow reads",
    ),
    (
        "mainstay_member_drift_points_total",
        C,
        Unit::Count,
        "Points that a comparison found to differ from what they should be, by how",
    ),
    (
        "mainstay_member_drift_collections_total",
        C,
        Unit::Count,
        "Collections that a comparison found to be lost, or to be there and should not",
    ),
    ("mainstay_member_drift_repaired_total", C, Unit::Count, "Points that differed and were repaired"),
    (
        "mainstay_member_drift_reloads_total",
        C,
        Unit::Count,
        "Times the member was loaded anew after a comparison",
    ),
    ("mainstay_drift_rounds_total", C, Unit::Count, "Comparisons of the members, by how they ended"),
    ("mainstay_drift_last_round_age_seconds", G, Unit::Seconds, "Time since the members were compared last"),
    ("mainstay_snapshots_total", C, Unit::Count, "Snapshots of this process, by what came of them"),
    ("mainstay_snapshot_age_seconds", G, Unit::Seconds, "Time since the newest good snapshot was begun"),
    ("mainstay_snapshot_lsn", G, Unit::Count, "The entry that the newest good snapshot ends at"),
    ("mainstay_snapshot_points", G, Unit::Count, "Points of the newest good snapshot"),
    ("mainstay_snapshot_bytes", G, Unit::Bytes, "Bytes of the files of the newest good snapshot"),
    ("mainstay_archive_lag_entries", G, Unit::Count, "Entries of the log that are not archived yet"),
    (
        "mainstay_breaker_state",
        G,
        Unit::Count,
        "1 for the state that the breaker is in, 0 for every other one",
    ),
    ("mainstay_breaker_calls_total", C, Unit::Count, "Calls that asked the breaker"),
    ("mainstay_breaker_successes_total", C, Unit::Count, "Calls let through that succeeded"),
    ("mainstay_breaker_failures_total", C, Unit::Count, "Calls let through that failed"),
    ("mainstay_breaker_ignored_total", C, Unit::Count, "Calls let through that said nothing about the store"),
    ("mainstay_breaker_rejected_total", C, Unit::Count, "Calls refused"),
    ("mainstay_breaker_transitions_total", C, Unit::Count, "Transitions, by the state that they lead to"),
    ("mainstay_breaker_state_seconds", G, Unit::Seconds, "Time spent in each state"),
    ("mainstay_breaker_success_rate", G, Unit::Count, "Successes of successes and failures, 0 to 1"),
    ("mainstay_breaker_availability", G, Unit::Count, "Time not spent open of all time, 0 to 1"),
    (
        "mainstay_breaker_last_success_age_seconds",
        G,
        Unit::Seconds,
        "Time since a success, of those that were timed",
    ),
    ("mainstay_breaker_last_failure_age_seconds", G, Unit::Seconds, "Time since the last failure"),
];

impl Tier {
    /// Tells the recorder of the [`metrics`](https://docs.rs/metrics) facade how the tier is now. The tier does so
    /// every 5 s by itself; a program that answers scrapes calls this before each, so that they are not older.
    ///
    /// Counters start at 0 with the tier. Tiers of one process whose members have the same names overwrite each other's
    /// metrics; with the feature `prometheus` each has a page of its own instead (`metrics.listen`).
    pub fn publish_metrics(&self) {
        self.shared().publisher.publish(self.shared());
    }
}

/// Tells the process's recorder until the tier closes.
pub async fn run(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = until_closing(&mut closing) => return,
            () = sleep(INTERVAL) => shared.publisher.publish(&shared),
        }
    }
}

/// What one recorder was told of the times of reads: a histogram takes only what is new.
#[derive(Default)]
pub struct Publisher(Mutex<[ReadTimes; READS.len()]>);

impl Publisher {
    /// Tells the recorder that is current on this thread.
    pub fn publish(&self, shared: &Shared) {
        publish_numbers(shared);
        let mut told = self.0.lock();
        for ((operation, times), told) in shared.counts.reads().zip(&mut *told) {
            let reads = histogram!(READ_SECONDS, "operation" => operation.as_str());
            for (bucket, ((count, total_ns), before)) in times.iter().zip(told.iter()).enumerate() {
                // The mean of the new times stands for each of them, so that their number in the bucket and their sum
                // are right. A count may be seen without its time, which must not lead into another bucket.
                let new = count.saturating_sub(before.0);
                if new > 0 {
                    let mean_us = total_ns.saturating_sub(before.1) as f64 / new as f64 / 1e3;
                    let seconds = within(bucket, mean_us) / 1e6;
                    reads.record_many(seconds, usize::try_from(new).unwrap_or(usize::MAX));
                }
            }
            *told = times;
        }
    }
}

/// Tells the recorder that is current on this thread everything but the histogram.
pub fn publish_numbers(shared: &Shared) {
    describe();
    let (active, level) = status::who_serves(shared);
    gauge!("mainstay_service_level").set(level.number());
    gauge!("mainstay_collections").set(shared.catalog.specs().len() as f64);
    tell_health(&health::of(shared, level, active.is_some()));
    tell_reads(&shared.counts);
    tell_writes(&shared.counts);
    tell_log(shared);
    tell_drift(shared);
    if let Some(snapshots) = &shared.snapshots {
        tell_snapshots(&snapshots.status());
    }
    let end = shared.log.bounds().last;
    for (index, member) in shared.members.iter().enumerate() {
        let name = member.name().to_string();
        gauge!("mainstay_member_active", "member" => name.clone()).set(flag(active == Some(index)));
        gauge!("mainstay_member_lag_entries", "member" => name.clone())
            .set(member.cursor().lag_behind(end) as f64);
        tell_member(member, &name);
        if let Some(figures) = shared.shadow.status(index) {
            tell_shadow(&figures, &name);
        }
        tell_calls(member, &name);
        tell_breaker(&member.store().breaker().metrics(Instant::now()), &name);
    }
}

fn tell_reads(counts: &Counts) {
    for (operation, kind, count) in counts.read_errors() {
        counter!("mainstay_read_errors_total", "operation" => operation.as_str(), "kind" => kind.as_str())
            .absolute(count);
    }
    counter!("mainstay_read_retries_total").absolute(counts.retries());
}

/// The time nearest to this one (in microseconds) that lies in the bucket.
fn within(bucket: usize, mean_us: f64) -> f64 {
    let above = bucket.checked_sub(1).map_or(0.0, |below| READ_BOUNDS_US[below] as f64 + 1e-3);
    let most = READ_BOUNDS_US.get(bucket).map_or(f64::INFINITY, |bound| *bound as f64);
    mean_us.clamp(above, most)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn describe() {
    for (name, kind, unit, text) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *unit, *text),
            Kind::Gauge => metrics::describe_gauge!(*name, *unit, *text),
            Kind::Histogram => metrics::describe_histogram!(*name, *unit, *text),
        }
    }
}

fn tell_health(health: &Health) {
    gauge!("mainstay_health").set(health.status.number());
    for component in &health.components {
        let labels = [("kind", component.kind.as_str().to_owned()), ("name", component.name.clone())];
        gauge!("mainstay_component_health", &labels).set(component.status.number());
    }
}

fn tell_writes(counts: &Counts) {
    for (operation, outcome, count) in counts.writes() {
        counter!("mainstay_writes_total", "operation" => operation.as_str(), "outcome" => outcome)
            .absolute(count);
    }
    counter!("mainstay_failovers_total").absolute(counts.failovers());
    counter!("mainstay_failbacks_total").absolute(counts.failbacks());
}

fn tell_log(shared: &Shared) {
    let bounds = shared.log.bounds();
    gauge!("mainstay_log_first_lsn").set(bounds.first.0 as f64);
    gauge!("mainstay_log_last_lsn").set(bounds.last.0 as f64);
    gauge!("mainstay_log_bytes").set(bounds.bytes as f64);
    gauge!("mainstay_log_max_bytes").set(shared.options.log_max_bytes as f64);
    counter!("mainstay_log_entries_appended_total").absolute(shared.counts.entries_appended());
    counter!("mainstay_log_append_errors_total").absolute(shared.counts.append_errors());
    for (quantile, seconds) in quantiles(shared.counts.append_times()) {
        gauge!("mainstay_log_append_latency_seconds", "quantile" => quantile).set(seconds);
    }
}

/// The quantiles that are told, in seconds, once they are known.
fn quantiles(latency: &Latency) -> impl Iterator<Item = (&'static str, f64)> {
    [("0.5", 0.5), ("0.99", 0.99)]
        .into_iter()
        .filter_map(|(name, share)| Some((name, latency.quantile(share)?.as_secs_f64())))
}

fn tell_member(member: &Member, name: &str) {
    let label = [("member", name.to_owned())];
    let state = member.state();
    for each in MemberState::ALL {
        gauge!("mainstay_member_state", "member" => name.to_owned(), "state" => each.as_str())
            .set(flag(each == state));
    }
    gauge!("mainstay_member_cursor_lsn", &label).set(member.cursor().0 as f64);
    if !member.is_volatile() {
        gauge!("mainstay_member_durable_lsn", &label).set(member.durable().0 as f64);
    }
    if let Some(bytes) = member.store().memory_bytes() {
        gauge!("mainstay_member_memory_bytes", &label).set(bytes as f64);
    }
    let counts = member.counts();
    for (operation, count) in counts.reads() {
        counter!("mainstay_reads_total", "operation" => operation.as_str(), "served_by" => name.to_owned())
            .absolute(count);
    }
    counter!("mainstay_member_hedges_total", &label).absolute(counts.hedges());
    counter!("mainstay_member_measuring_calls_total", &label).absolute(counts.measuring_calls());
    counter!("mainstay_member_moves_total", &label).absolute(counts.moves());
    counter!("mainstay_member_quarantines_total", &label).absolute(counts.quarantines());
    counter!("mainstay_member_alerts_total", &label).absolute(counts.alerts());
}

fn tell_snapshots(snapshots: &SnapshotsStatus) {
    for (outcome, count) in [("made", snapshots.made), ("failed", snapshots.failed)] {
        counter!("mainstay_snapshots_total", "outcome" => outcome).absolute(count);
    }
    gauge!("mainstay_archive_lag_entries").set(snapshots.archive_lag as f64);
    let Some((lsn, age)) = snapshots.lsn.zip(snapshots.age) else { return };
    gauge!("mainstay_snapshot_age_seconds").set(age.as_secs_f64());
    gauge!("mainstay_snapshot_lsn").set(lsn.0 as f64);
    gauge!("mainstay_snapshot_points").set(snapshots.points as f64);
    gauge!("mainstay_snapshot_bytes").set(snapshots.bytes as f64);
}

fn tell_drift(shared: &Shared) {
    for (outcome, count) in shared.counts.drift_rounds() {
        counter!("mainstay_drift_rounds_total", "outcome" => outcome).absolute(count);
    }
    if let Some(age) = shared.drift.last_age() {
        gauge!("mainstay_drift_last_round_age_seconds").set(age.as_secs_f64());
    }
    for member in shared.members.iter() {
        let (label, drift) = ([("member", member.name().to_string())], member.counts().drift());
        for (kind, count) in drift.points() {
            let labels = [("member", member.name().to_string()), ("kind", kind.as_str().to_owned())];
            counter!("mainstay_member_drift_points_total", &labels).absolute(count);
        }
        counter!("mainstay_member_drift_collections_total", &label).absolute(drift.collections());
        counter!("mainstay_member_drift_repaired_total", &label).absolute(drift.repaired());
        counter!("mainstay_member_drift_reloads_total", &label).absolute(drift.reloads());
    }
}

fn tell_shadow(figures: &ShadowStatus, name: &str) {
    let label = [("member", name.to_owned())];
    for (outcome, count) in
        [("compared", figures.compared), ("passed_over", figures.passed_over), ("failed", figures.failed)]
    {
        counter!("mainstay_member_shadow_reads_total", "member" => name.to_owned(), "outcome" => outcome)
            .absolute(count);
    }
    // Without one that was compared there is nothing to say of the hits.
    if figures.samples > 0 {
        gauge!("mainstay_member_shadow_overlap", &label).set(figures.overlap);
        gauge!("mainstay_member_shadow_score_drift", &label).set(figures.mean_score_drift);
        gauge!("mainstay_member_shadow_score_drift_max", &label).set(figures.max_score_drift);
    }
}

fn tell_calls(member: &Member, name: &str) {
    let metrics = member.store().metrics();
    gauge!("mainstay_member_reads_running", "member" => name.to_owned()).set(metrics.running as f64);
    gauge!("mainstay_member_reads_queued", "member" => name.to_owned()).set(metrics.queued as f64);
    for operation in Operation::ALL {
        let labels = [("member", name.to_owned()), ("operation", operation.as_str().to_owned())];
        let counted = metrics.of(operation);
        counter!("mainstay_member_calls_total", &labels).absolute(counted.calls);
        counter!("mainstay_member_call_errors_total", &labels).absolute(counted.errors);
        for (quantile, seconds) in quantiles(member.store().latency(operation)) {
            let name = name.to_owned();
            gauge!("mainstay_member_latency_seconds", "member" => name, "operation" => operation.as_str(), "quantile" => quantile)
                .set(seconds);
        }
    }
}

fn tell_breaker(breaker: &BreakerMetrics, name: &str) {
    let label = [("member", name.to_owned())];
    counter!("mainstay_breaker_calls_total", &label).absolute(breaker.total);
    counter!("mainstay_breaker_successes_total", &label).absolute(breaker.successes);
    counter!("mainstay_breaker_failures_total", &label).absolute(breaker.failures);
    counter!("mainstay_breaker_ignored_total", &label).absolute(breaker.ignored);
    counter!("mainstay_breaker_rejected_total", &label).absolute(breaker.rejected);
    let states = [
        (BreakerState::Closed, breaker.to_closed, breaker.time_closed),
        (BreakerState::Open, breaker.to_open, breaker.time_open),
        (BreakerState::HalfOpen, breaker.to_half_open, breaker.time_half_open),
    ];
    for (state, transitions, time) in states {
        let labels = [("member", name.to_owned()), ("state", state.as_str().to_owned())];
        gauge!("mainstay_breaker_state", &labels).set(flag(state == breaker.state));
        gauge!("mainstay_breaker_state_seconds", &labels).set(time.as_secs_f64());
        counter!("mainstay_breaker_transitions_total", "member" => name.to_owned(), "to" => state.as_str())
            .absolute(transitions);
    }
    gauge!("mainstay_breaker_success_rate", &label).set(breaker.success_rate);
    gauge!("mainstay_breaker_availability", &label).set(breaker.availability);
    if let Some(at) = breaker.last_success {
        gauge!("mainstay_breaker_last_success_age_seconds", &label).set(at.elapsed().as_secs_f64());
    }
    if let Some(at) = breaker.last_failure {
        gauge!("mainstay_breaker_last_failure_age_seconds", &label).set(at.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_every_metric_and_no_other_one() {
        let document = include_str!("../../../../docs/operate.md");
        let documented: Vec<_> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `mainstay_")?.split_once('`'))
            .map(|(name, _)| format!("mainstay_{name}"))
            .collect();
        assert_eq!(documented, METRICS.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn a_mean_never_leaves_its_bucket() {
        assert_eq!(within(0, 0.0), 0.0);
        assert_eq!(within(1, 0.0), 25.001);
        assert_eq!(within(1, 30.0), 30.0);
        assert_eq!(within(1, 1e9), 50.0);
        assert_eq!(within(READ_BOUNDS_US.len(), 1e9), 1e9);
    }
}
