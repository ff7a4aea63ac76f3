//! Status for people, on one screen.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay::{ComponentHealth, HealthStatus, MeasuredLatency, MemberStatus, Status};

use crate::output::{short, table};

/// Characters of an error or a message on the screen.
const MOST: usize = 100;

/// Health, members, breakers, log, and what is not healthy.
pub fn screen(status: &Status) -> String {
    let mut text = format!("{}: {}\n", status.health.status, short(&status.health.message, MOST));
    text.push_str(&members(status));
    text.push('\n');
    text.push_str(&calls(status));
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{}", summary(status));
    for member in &status.members {
        let _ = member.notice.iter().try_for_each(|notice| write!(text, "\n{}: {notice}", member.name));
    }
    for component in status.health.components.iter().filter(|c| c.status > HealthStatus::Healthy) {
        let _ =
            write!(text, "\n{} {}: {}", component.name, component.status, short(&component.message, MOST));
    }
    text
}

/// The whole status on one line, for logs.
pub fn line(status: &Status) -> String {
    let mut text = format!(
        "{} · level {} ({}) · active {}",
        status.health.status,
        status.level.number(),
        status.level,
        active(status)
    );
    for member in &status.members {
        let _ =
            write!(text, " · {} {} lag {} breaker {}", member.name, member.state, member.lag, member.breaker);
    }
    let _ = write!(text, " · log {} to {}", status.log.first, status.log.last);
    text
}

fn members(status: &Status) -> String {
    let header =
        ["member", "backend", "health", "state", "for", "cursor", "durable", "lag", "memory", "serves"];
    let health = |member: &MemberStatus| {
        component(status, member.name.as_str()).map_or("-", |component| component.status.as_str()).to_owned()
    };
    let rows = status.members.iter().map(|member| {
        [
            member.name.to_string(),
            member.backend.to_owned(),
            health(member),
            if member.partial { format!("{}, partial", member.state) } else { member.state.to_string() },
            format!("{} s", member.for_time.as_secs()),
            member.cursor.to_string(),
            member.durable.map_or_else(nothing, |lsn| lsn.to_string()),
            member.lag.to_string(),
            member.memory_bytes.map_or_else(nothing, mebibytes),
            serves_first(member),
        ]
    });
    table(header, rows)
}

fn calls(status: &Status) -> String {
    let header = [
        "member",
        "breaker",
        "calls",
        "failed",
        "rejected",
        "opened",
        "available",
        "times of",
        "p50",
        "p99",
        "overlap",
    ];
    let rows = status.members.iter().map(|member| {
        let breaker = &member.metrics.breaker;
        let latency = component(status, member.name.as_str()).and_then(|component| component.latency);
        let [operation, p50, p99] = times(latency);
        [
            member.name.to_string(),
            member.breaker.to_string(),
            breaker.total.to_string(),
            breaker.failures.to_string(),
            breaker.rejected.to_string(),
            breaker.to_open.to_string(),
            format!("{:.1} %", breaker.availability * 100.0),
            operation,
            p50,
            p99,
            member.shadow.map_or_else(nothing, |shadow| format!("{:.3}", shadow.overlap)),
        ]
    });
    table(header, rows)
}

fn summary(status: &Status) -> String {
    format!(
        "level {} ({}) · active {} · log {} to {}, {} of {} · {} collections",
        status.level.number(),
        status.level,
        active(status),
        status.log.first,
        status.log.last,
        mebibytes(status.log.bytes),
        mebibytes(status.log.max_bytes),
        status.collections,
    )
}

fn active(status: &Status) -> &str {
    status.active.as_ref().map_or("none", |name| name.as_str())
}

/// The health of a member.
fn component<'a>(status: &'a Status, member: &str) -> Option<&'a ComponentHealth> {
    let at = status.members.iter().position(|m| m.name.as_str() == member)?;
    status.health.components.get(at)
}

/// Quantiles once they are known, before that the mean.
fn times(latency: Option<MeasuredLatency>) -> [String; 3] {
    let Some(latency) = latency else { return [nothing(), nothing(), nothing()] };
    let operation = latency.operation.to_owned();
    match (latency.p50, latency.p99, latency.mean) {
        (Some(p50), Some(p99), _) => [operation, milliseconds(p50), milliseconds(p99)],
        (_, _, Some(mean)) => [operation, format!("mean {}", milliseconds(mean)), nothing()],
        _ => [operation, nothing(), nothing()],
    }
}

fn nothing() -> String {
    "-".to_owned()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Whether a member may serve first, or when it may.
fn serves_first(member: &MemberStatus) -> String {
    match (member.trusted, member.restored_in) {
        (true, _) if member.chosen => "first".to_owned(),
        (true, _) => "in order".to_owned(),
        (false, Some(wait)) => format!("in {} s", wait.as_secs()),
        (false, None) => "last".to_owned(),
    }
}
