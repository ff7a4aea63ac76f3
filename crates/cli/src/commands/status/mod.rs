//! `status`.

mod json;
mod text;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use mainstay::{ComponentKind, HealthStatus, ServiceLevel, Tier};

use crate::output::Output;

/// How long a member that has just been opened may take to settle before its state is shown.
const SETTLE: Duration = Duration::from_secs(2);

/// Shows health, members, breakers and log: once, or again and again until it is interrupted.
pub async fn run(tier: &Tier, watch: Option<Duration>, output: Output) -> ExitCode {
    if let Some(interval) = watch {
        watch::run(tier, interval, output).await;
        return ExitCode::SUCCESS;
    }
    // The state at this moment is the answer, whether or not everybody has caught up.
    let _ = tier.wait_caught_up(SETTLE).await;
    let status = tier.status();
    output.print(&json::of(&status), || text::screen(&status));
    let log = status.health.components.iter().find(|c| c.kind == ComponentKind::Log);
    ExitCode::from(exit_code(status.level, log.map(|log| log.status)))
}

/// What a script goes by: whether the tier can answer, and whether it takes writes. It is 0 as long as the callers of
/// the tier are served, whoever serves them.
fn exit_code(level: ServiceLevel, log: Option<HealthStatus>) -> u8 {
    match (level, log) {
        (ServiceLevel::Unavailable, _) => 4,
        (_, Some(HealthStatus::Unhealthy)) => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthStatus::{Degraded, Healthy, Unhealthy};

    #[test]
    fn the_exit_code_is_0_as_long_as_callers_are_served() {
        for level in [ServiceLevel::Normal, ServiceLevel::Standby, ServiceLevel::MemoryOnly] {
            for (log, code) in [(Healthy, 0), (Degraded, 0), (Unhealthy, 5)] {
                assert_eq!(exit_code(level, Some(log)), code, "{level} {log}");
            }
        }
        assert_eq!(exit_code(ServiceLevel::Unavailable, Some(Healthy)), 4);
        assert_eq!(exit_code(ServiceLevel::Unavailable, Some(Unhealthy)), 4);
    }
}
