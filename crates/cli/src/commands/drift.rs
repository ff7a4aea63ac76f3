//! `drift`: comparing the members of a tier with each other.

use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Config, DriftConfig, DriftPolicy, DriftReport, Result, Tier};

use crate::args::DriftArgs;
use crate::output::{Output, short, table};

/// Members have this long to apply repairs.
const SETTLE: Duration = Duration::from_secs(600);

/// Compares the members once; exit code 3 if one of them drifted.
pub async fn run(args: &DriftArgs, config: &Config, tier: &Tier, output: Output) -> Result<ExitCode> {
    let policy = args.repair.as_deref().map_or(Ok(DriftPolicy::Report), str::parse)?;
    let drift = DriftConfig {
        policy,
        points_per_second: args.points_per_second.unwrap_or(config.drift.points_per_second).max(1),
        deep: if args.deep { 1.0 } else { config.drift.deep },
        ..config.drift.clone()
    };
    // Those that do not come are left out, which the report says.
    if let Err(error) = tier.wait_caught_up(Duration::from_secs(args.wait)).await {
        output.note(&error.to_string());
    }
    let report = tier.compare_members(&drift).await?;
    let repaired: u64 = report.members.iter().map(|member| member.repaired).sum();
    if repaired > 0
        && let Err(error) = tier.wait_caught_up(SETTLE).await
    {
        // The entries are in the log; a member that is away applies them when it is back.
        output.note(&error.to_string());
    }
    output.print(&report.to_json(), || text(&report));
    Ok(ExitCode::from(exit_code(&report)))
}

/// 3 if there was drift, whether or not it is repaired.
fn exit_code(report: &DriftReport) -> u8 {
    if report.has_drift() { 3 } else { 0 }
}

fn text(report: &DriftReport) -> String {
    let rows = report.members.iter().map(|member| {
        [
            member.member.to_string(),
            member.points.to_string(),
            member.deep_points.to_string(),
            member.missing.to_string(),
            member.extra.to_string(),
            member.other_version.to_string(),
            member.other_content.to_string(),
            if member.reloaded { "all".to_owned() } else { member.repaired.to_string() },
            short(member.left_out.as_deref().unwrap_or("-"), 40),
        ]
    });
    let header =
        ["member", "points", "deep", "missing", "extra", "version", "content", "repaired", "left out"];
    let mut lines = vec![table(header, rows)];
    for member in &report.members {
        let name = &member.member;
        lines.extend(
            member.collections.iter().map(|lost| format!("{name}: collection {} {}", lost.name, lost.kind)),
        );
        let points =
            member.first.iter().map(|point| format!("{} {} {}", point.collection, point.id, point.kind));
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            let more = if member.points_that_differ() > points.len() as u64 { ", …" } else { "" };
            lines.push(format!("{name}: {}{more}", points.join(", ")));
        }
    }
    lines.extend(report.too_many.iter().map(|name| {
        format!(
            "{name}: more points differ than drift.max_repairs allows to repair; look at the stores first"
        )
    }));
    lines.extend(report.passed_over.iter().map(|name| format!("{name}: created or dropped meanwhile")));
    if report.unsettled > 0 {
        lines.push(format!("{} points were written all the time; compare again", report.unsettled));
    }
    lines.push(format!(
        "{} collections in {} ranges, {:.1} s: {}",
        report.collections,
        report.ranges,
        report.took.as_secs_f64(),
        if report.has_drift() { "drift" } else { "no drift" },
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use mainstay::{CollectionName, DriftKind, DriftedPoint};
    use serde_json::json;

    use super::*;

    /// The report of a tier of two members, with points that the first lacks.
    fn report(missing: u64) -> DriftReport {
        let tier = "[tier]\nmembers = [\"primary\", \"standby\"]\n[log]\npath = \":memory:\"\n";
        let members = ["primary", "standby"].map(|name| format!("[members.{name}]\nbackend = \"memory\"\n"));
        let config = Config::from_toml(&format!("{tier}{}", members.concat())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(async {
            let tier = Tier::open(config).await.unwrap();
            tier.wait_caught_up(Duration::from_secs(60)).await.unwrap();
            let report = tier.compare_members(&DriftConfig::default()).await.unwrap();
            tier.close().await.unwrap();
            (*report).clone()
        });
        with_missing(report, missing)
    }

    fn with_missing(mut report: DriftReport, missing: u64) -> DriftReport {
        let member = &mut report.members[0];
        (member.missing, member.repaired) = (missing, missing);
        if missing > 0 {
            let collection = CollectionName::new("docs").unwrap();
            member.first = vec![DriftedPoint { collection, id: 7.into(), kind: DriftKind::Missing }];
        }
        report
    }

    #[test]
    fn drift_has_an_exit_code_of_its_own_and_is_shown_also_when_it_is_repaired() {
        assert_eq!((exit_code(&report(0)), exit_code(&report(2))), (0, 3));
        let value = report(2).to_json();
        assert_eq!((&value["drift"], &value["members"][0]["missing"]), (&json!(true), &json!(2)));
        assert_eq!(
            value["members"][0]["first"][0],
            json!({ "collection": "docs", "id": 7, "kind": "missing" })
        );
        let shown = text(&report(2));
        assert!(shown.contains("primary: docs 7 missing, …") && shown.contains(": drift"), "{shown}");
        assert!(text(&report(0)).contains("no drift"));
    }
}
