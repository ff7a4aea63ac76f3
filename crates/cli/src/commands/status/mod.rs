//! `status`.

mod text;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use mainstay::{HealthStatus, Result, ServiceLevel};
use serde_json::Value;

use super::subject::Subject;
use crate::output::Output;

/// How long a member that has just been opened may take to settle before its state is shown.
const SETTLE: Duration = Duration::from_secs(2);

/// Shows health, members, breakers and log: once, or again and again until it is interrupted.
pub async fn run(subject: &mut Subject, watch: Option<Duration>, output: Output) -> Result<ExitCode> {
    if let Some(interval) = watch {
        watch::run(subject, interval, output).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Subject::Here(tier) = subject {
        // The state at this moment is the answer, whether or not everybody has caught up.
        let _ = tier.wait_caught_up(SETTLE).await;
    }
    let status = subject.status().await?;
    output.print(&status, || text::screen(&status));
    Ok(ExitCode::from(exit_code(&status)))
}

/// What a script goes by: whether the tier can answer, and whether it takes writes. It is 0 as long as the callers of
/// the tier are served, whoever serves them.
fn exit_code(status: &Value) -> u8 {
    let components = status["health"]["components"].as_array();
    let log = components.into_iter().flatten().find(|component| component["kind"] == "log");
    if status["level"] == ServiceLevel::Unavailable.number() {
        4
    } else if log.is_some_and(|log| log["status"] == HealthStatus::Unhealthy.as_str()) {
        5
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use HealthStatus::{Degraded, Healthy, Unhealthy};

    #[test]
    fn the_exit_code_is_0_as_long_as_callers_are_served() {
        let status = |level: ServiceLevel, log: HealthStatus| {
            let components = json!([
                { "kind": "member", "status": "unhealthy" },
                { "kind": "log", "status": log.as_str() },
            ]);
            json!({ "level": level.number(), "health": { "components": components } })
        };
        for level in [ServiceLevel::Normal, ServiceLevel::Standby, ServiceLevel::MemoryOnly] {
            for (log, code) in [(Healthy, 0), (Degraded, 0), (Unhealthy, 5)] {
                assert_eq!(exit_code(&status(level, log)), code, "{level} {log}");
            }
        }
        assert_eq!(exit_code(&status(ServiceLevel::Unavailable, Healthy)), 4);
        assert_eq!(exit_code(&status(ServiceLevel::Unavailable, Unhealthy)), 4);
    }
}
