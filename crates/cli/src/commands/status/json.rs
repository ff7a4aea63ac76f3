//! Status as JSON; docs/cli.md has the keys.

use mainstay::core::{BreakerMetrics, GuardMetrics};
use mainstay::{ComponentHealth, Health, MemberStatus, ShadowStatus, Status};
use serde_json::{Value, json};

/// Everything that a status says.
pub fn of(status: &Status) -> Value {
    json!({
        "level": status.level.number(),
        "level_name": status.level.as_str(),
        "active": status.active.as_ref().map(|name| name.as_str()),
        "health": health(&status.health),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "log": {
            "id": status.log.identity.id.to_string(),
            "epoch": status.log.identity.epoch,
            "first": status.log.first.0,
            "last": status.log.last.0,
            "bytes": status.log.bytes,
            "max_bytes": status.log.max_bytes,
        },
        "collections": status.collections,
        "drift": status.drift.as_deref().map(crate::commands::drift::report_json),
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
