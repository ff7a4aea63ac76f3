//! `status`.

use std::time::Duration;

use mainstay::{MemberStatus, Result, Tier};
use serde_json::json;

use crate::output::{Output, short, table};

/// How long a member that has just been opened may take to settle before its state is shown.
const SETTLE: Duration = Duration::from_secs(2);

/// Shows members, log and service level.
pub async fn run(tier: &Tier, output: Output) -> Result<()> {
    // The state at this moment is the answer, whether or not everybody has caught up.
    let _ = tier.wait_caught_up(SETTLE).await;
    let status = tier.status();
    let members: Vec<_> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "name": member.name.as_str(),
                "backend": member.backend,
                "state": member.state.as_str(),
                "for_seconds": member.for_time.as_secs(),
                "cursor": member.cursor.0,
                "durable": member.durable.map(|lsn| lsn.0),
                "lag": member.lag,
                "breaker": member.breaker.as_str(),
                "memory_bytes": member.memory_bytes,
                "trusted": member.trusted,
                "restored_in_seconds": member.restored_in.map(|wait| wait.as_secs()),
                "last_error": member.last_error,
                "refused_entry": member.refused_entry.map(|lsn| lsn.0),
            })
        })
        .collect();
    let value = json!({
        "level": status.level.number(),
        "level_name": status.level.as_str(),
        "active": status.active.as_ref().map(|name| name.as_str()),
        "members": members,
        "log": {
            "id": status.log.identity.id.to_string(),
            "epoch": status.log.identity.epoch,
            "first": status.log.first.0,
            "last": status.log.last.0,
            "bytes": status.log.bytes,
            "max_bytes": status.log.max_bytes,
        },
        "collections": status.collections,
    });
    output.print(&value, || {
        let rows = status.members.iter().map(|member| {
            [
                member.name.to_string(),
                member.backend.to_owned(),
                member.state.to_string(),
                member.cursor.to_string(),
                member.durable.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string()),
                member.lag.to_string(),
                member.breaker.to_string(),
                member.memory_bytes.map_or_else(|| "-".to_owned(), mebibytes),
                serves_first(member),
                short(member.last_error.as_deref().unwrap_or("-"), 60),
            ]
        });
        let header = [
            "member",
            "backend",
            "state",
            "cursor",
            "durable",
            "lag",
            "breaker",
            "memory",
            "serves",
            "last error",
        ];
        format!(
            "{}\nlevel {} ({}) · active {} · log {} to {}, {} of {} · {} collections",
            table(header, rows),
            status.level.number(),
            status.level,
            status.active.as_ref().map_or("none", |name| name.as_str()),
            status.log.first,
            status.log.last,
            mebibytes(status.log.bytes),
            mebibytes(status.log.max_bytes),
            status.collections,
        )
    });
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Whether a member may serve first, or when it may.
fn serves_first(member: &MemberStatus) -> String {
    match (member.trusted, member.restored_in) {
        (true, _) => "in order".to_owned(),
        (false, Some(wait)) => format!("in {} s", wait.as_secs()),
        (false, None) => "last".to_owned(),
    }
}
