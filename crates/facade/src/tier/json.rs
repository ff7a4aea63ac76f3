//! Status, events and reports as JSON, for programs in whatever language; docs/cli.md has the keys.

use mainstay_core::{BreakerMetrics, CollectionName, GuardMetrics, PointId};
use serde_json::{Value, json};

use crate::tier::drift::{DriftReport, MemberDrift};
use crate::tier::events::Event;
use crate::tier::health::{ComponentHealth, Health};
use crate::tier::shadow::ShadowStatus;
use crate::tier::status::{MemberStatus, SnapshotReport, SnapshotsStatus, Status};

impl Status {
    /// Everything that a status says.
    pub fn to_json(&self) -> Value {
        json!({
            "level": self.level.number(),
            "level_name": self.level.as_str(),
            "active": self.active.as_ref().map(|name| name.as_str()),
            "health": health(&self.health),
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "log": {
                "id": self.log.identity.id.to_string(),
                "epoch": self.log.identity.epoch,
                "first": self.log.first.0,
                "last": self.log.last.0,
                "bytes": self.log.bytes,
                "max_bytes": self.log.max_bytes,
            },
            "collections": self.collections,
            "drift": self.drift.as_deref().map(drift),
            "snapshots": self.snapshots.as_ref().map(snapshots),
        })
    }
}

impl Event {
    /// What happened, with the text for people.
    pub fn to_json(&self) -> Value {
        let mut value = match self {
            Event::State { member, from, to, reason } => {
                json!({ "member": member.as_str(), "from": from.as_str(), "to": to.as_str(), "reason": reason })
            }
            Event::Failover { from, to } | Event::Failback { from, to } => {
                json!({ "from": from.as_ref().map(|n| n.as_str()), "to": to.as_ref().map(|n| n.as_str()) })
            }
            Event::Alert { member, failed_checks, reason } => {
                json!({ "member": member.as_str(), "failed_checks": failed_checks, "reason": reason })
            }
            Event::Drift { member, points, collections, repaired } => json!({
                "member": member.as_str(),
                "points": points,
                "collections": collections,
                "repaired": repaired,
            }),
            Event::Shadow { member, overlap_percent } => {
                json!({ "member": member.as_str(), "overlap_percent": overlap_percent })
            }
            Event::Snapshot { id, points, bytes } => json!({ "id": id, "points": points, "bytes": bytes }),
            Event::SnapshotFailed { reason } => json!({ "reason": reason }),
            Event::Missed(events) => json!({ "events": events }),
        };
        value["event"] = self.as_str().into();
        value["text"] = self.to_string().into();
        value
    }
}

impl DriftReport {
    /// Everything that a report says.
    pub fn to_json(&self) -> Value {
        drift(self)
    }
}

impl SnapshotReport {
    /// Everything that a report says.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "source": self.source.as_str(),
            "from": self.from.0,
            "to": self.to.0,
            "collections": self.collections,
            "points": self.points,
            "bytes": self.bytes,
            "new_files": self.new_files,
            "new_bytes": self.new_bytes,
            "reused_files": self.reused_files,
            "pruned": self.pruned,
            "took_seconds": self.took.as_secs_f64(),
        })
    }
}

fn snapshots(snapshots: &SnapshotsStatus) -> Value {
    json!({
        "place": snapshots.place,
        "newest": snapshots.newest,
        "age_seconds": snapshots.age.map(|age| age.as_secs()),
        "lsn": snapshots.lsn.map(|lsn| lsn.0),
        "points": snapshots.points,
        "bytes": snapshots.bytes,
        "good": snapshots.good,
        "archived": snapshots.archived.map(|lsn| lsn.0),
        "archive_lag": snapshots.archive_lag,
        "archive_error": snapshots.archive_error,
        "last_error": snapshots.last_error,
        "made": snapshots.made,
        "failed": snapshots.failed,
    })
}

fn health(health: &Health) -> Value {
    json!({
        "status": health.status.as_str(),
        "message": health.message,
        "components": health.components.iter().map(component).collect::<Vec<_>>(),
    })
}

fn component(component: &ComponentHealth) -> Value {
    let ms = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    json!({
        "kind": component.kind.as_str(),
        "name": component.name,
        "status": component.status.as_str(),
        "message": component.message,
        "latency": component.latency.map(|latency| json!({
            "operation": latency.operation,
            "p50_ms": ms(latency.p50),
            "p99_ms": ms(latency.p99),
            "mean_ms": ms(latency.mean),
        })),
    })
}

fn member(member: &MemberStatus) -> Value {
    json!({
        "name": member.name.as_str(),
        "backend": member.backend,
        "state": member.state.as_str(),
        "for_seconds": member.for_time.as_secs(),
        "cursor": member.cursor.0,
        "durable": member.durable.map(|lsn| lsn.0),
        "lag": member.lag,
        "breaker": member.breaker.as_str(),
        "breaker_metrics": breaker(&member.metrics.breaker),
        "calls": calls(&member.metrics),
        "reads_running": member.metrics.running,
        "reads_queued": member.metrics.queued,
        "memory_bytes": member.memory_bytes,
        "partial": member.partial,
        "notice": member.notice,
        "trusted": member.trusted,
        "chosen": member.chosen,
        "restored_in_seconds": member.restored_in.map(|wait| wait.as_secs()),
        "last_error": member.last_error,
        "refused_entry": member.refused_entry.map(|lsn| lsn.0),
        "shadow": member.shadow.as_ref().map(shadow),
    })
}

fn shadow(shadow: &ShadowStatus) -> Value {
    json!({
        "samples": shadow.samples,
        "overlap": shadow.overlap,
        "lowest_overlap": shadow.lowest_overlap,
        "mean_score_drift": shadow.mean_score_drift,
        "max_score_drift": shadow.max_score_drift,
        "compared": shadow.compared,
        "passed_over": shadow.passed_over,
        "failed": shadow.failed,
        "last_seconds_ago": shadow.last.map(|last| last.as_secs()),
    })
}

fn breaker(metrics: &BreakerMetrics) -> Value {
    json!({
        "total": metrics.total,
        "successes": metrics.successes,
        "failures": metrics.failures,
        "ignored": metrics.ignored,
        "rejected": metrics.rejected,
        "to_closed": metrics.to_closed,
        "to_open": metrics.to_open,
        "to_half_open": metrics.to_half_open,
        "closed_seconds": metrics.time_closed.as_secs_f64(),
        "open_seconds": metrics.time_open.as_secs_f64(),
        "half_open_seconds": metrics.time_half_open.as_secs_f64(),
        "last_success_seconds_ago": metrics.last_success.map(|at| at.elapsed().as_secs_f64()),
        "last_failure_seconds_ago": metrics.last_failure.map(|at| at.elapsed().as_secs_f64()),
        "success_rate": metrics.success_rate,
        "availability": metrics.availability,
    })
}

/// What was asked of the store, by operation; only what was.
fn calls(metrics: &GuardMetrics) -> Value {
    let asked = metrics.operations.iter().filter(|operation| operation.calls > 0);
    let calls = asked.map(|of| {
        json!({
            "operation": of.operation.as_str(),
            "calls": of.calls,
            "answered": of.answered,
            "errors": of.errors,
        })
    });
    calls.collect()
}

fn drift(report: &DriftReport) -> Value {
    let names =
        |names: &[CollectionName]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    json!({
        "policy": report.policy.as_str(),
        "started_unix_seconds":
            report.started.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "seconds": report.took.as_secs_f64(),
        "drift": report.has_drift(),
        "collections": report.collections,
        "ranges": report.ranges,
        "unsettled": report.unsettled,
        "passed_over": names(&report.passed_over),
        "too_many": names(&report.too_many),
        "members": report.members.iter().map(drifted).collect::<Vec<_>>(),
    })
}

fn drifted(member: &MemberDrift) -> Value {
    let id = |id: PointId| match id {
        PointId::Num(id) => json!(id),
        PointId::Uuid(id) => json!(id.to_string()),
    };
    let first = member.first.iter().map(|point| {
        json!({ "collection": point.collection.as_str(), "id": id(point.id), "kind": point.kind.as_str() })
    });
    let collections = member.collections.iter().map(
        |collection| json!({ "collection": collection.name.as_str(), "kind": collection.kind.as_str() }),
    );
    json!({
        "name": member.member.as_str(),
        "left_out": member.left_out,
        "points": member.points,
        "deep_points": member.deep_points,
        "missing": member.missing,
        "extra": member.extra,
        "version": member.other_version,
        "content": member.other_content,
        "first": first.collect::<Vec<_>>(),
        "collections": collections.collect::<Vec<_>>(),
        "repaired": member.repaired,
        "reloaded": member.reloaded,
    })
}
