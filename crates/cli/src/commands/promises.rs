//! What a drill or the demo ends with.

use std::process::ExitCode;
use std::time::Duration;

use mainstay_cli::drill::{LoadReport, Verdict};
use serde_json::{Value, json};

use crate::output::{Output, table};

/// What happened, and whether it was allowed to.
pub struct Outcome {
    /// Files indexed; `None` in a drill, which indexes none.
    pub files: Option<(usize, usize)>,
    /// What the load saw.
    pub report: LoadReport,
    /// What reading back found.
    pub verdict: Verdict,
    /// Each outage by name.
    pub rounds: Vec<OutageFigures>,
    /// What the worst search of an outage took beyond the usual.
    pub failover: Duration,
    /// How long the member took to catch up, the longest round.
    pub catch_up: Duration,
}

/// What one outage cost.
pub struct OutageFigures {
    /// What happened.
    pub name: &'static str,
    /// What the worst search of it took beyond the usual.
    pub failover: Duration,
    /// How long the member took to catch up after it.
    pub catch_up: Duration,
}

impl Outcome {
    fn promises(&self) -> Vec<(&'static str, String, bool)> {
        let report = &self.report;
        let mut promises = vec![
            (
                "no search failed",
                format!("{} of {}", report.failed_searches, report.searches),
                report.failed_searches == 0 && report.searches > 0,
            ),
            (
                "no acked write was lost",
                format!("{} of {}", self.verdict.writes_lost, report.writes_acked),
                self.verdict.writes_lost == 0 && report.writes_acked > 0,
            ),
            (
                "all members hold the same",
                format!("{} members", self.verdict.members.len()),
                self.verdict.equal,
            ),
        ];
        if let Some((files, wanted)) = self.files {
            promises.insert(0, ("real files were indexed", format!("{files}"), files >= wanted));
        }
        promises
    }

    /// Prints it; the exit code says whether every promise held.
    pub fn print(&self, output: Output) -> ExitCode {
        let promises = self.promises();
        let kept = promises.iter().all(|(.., kept)| *kept);
        let members: Vec<_> = self
            .verdict
            .members
            .iter()
            .map(|m| json!({ "name": m.name, "points": m.points, "hash": m.hash, "lost": m.lost }))
            .collect();
        let mut value = json!({
            "points": self.verdict.members.first().map_or(0, |member| member.points),
            "searches": self.report.searches,
            "failed_searches": self.report.failed_searches,
            "failures": self.report.failures,
            "served_by": self.report.served_by,
            "writes_acked": self.report.writes_acked,
            "writes_unknown": self.report.writes_unknown,
            "writes_refused": self.report.writes_refused,
            "writes_lost": self.verdict.writes_lost,
            "failover_ms": milliseconds(self.failover),
            "catch_up_ms": milliseconds(self.catch_up),
            "rounds": self.rounds.iter().map(OutageFigures::json).collect::<Vec<_>>(),
            "members": members,
            "equal": self.verdict.equal,
            "ok": kept,
        });
        if let Some((files, _)) = self.files {
            value["files"] = Value::from(files);
        }
        output.print(&value, || self.text(&promises));
        if kept { ExitCode::SUCCESS } else { ExitCode::from(3) }
    }

    fn text(&self, promises: &[(&'static str, String, bool)]) -> String {
        let rows = promises.iter().map(|(promise, figure, kept)| {
            [if *kept { "✓" } else { "✗" }.to_owned(), (*promise).to_owned(), figure.clone()]
        });
        let members = self.verdict.members.iter().map(|member| {
            let served = self.report.served_by.get(&member.name).copied().unwrap_or_default();
            let hash: String = member.hash.chars().take(16).collect();
            [
                member.name.clone(),
                member.points.to_string(),
                served.to_string(),
                member.lost.to_string(),
                hash,
            ]
        });
        let rounds = self.rounds.iter().map(|round| {
            let figures = [milliseconds(round.failover), milliseconds(round.catch_up)];
            [round.name.to_owned(), format!("+{:.1} ms", figures[0]), format!("{:.0} ms", figures[1])]
        });
        let failures: String = self.report.failures.iter().map(|failure| format!("\n  {failure}")).collect();
        format!(
            "{}\n{}\n{}\nworst search during an outage: +{:.1} ms · caught up in {:.1} s · {} writes acked, {} unknown, {} refused{failures}",
            table(["", "promise", "figure"], rows),
            table(["outage", "worst search", "caught up in"], rounds),
            table(["member", "points", "searches served", "acked writes lost", "content hash"], members),
            milliseconds(self.failover),
            self.catch_up.as_secs_f64(),
            self.report.writes_acked,
            self.report.writes_unknown,
            self.report.writes_refused,
        )
    }
}

impl OutageFigures {
    fn json(&self) -> Value {
        json!({
            "outage": self.name,
            "failover_ms": milliseconds(self.failover),
            "catch_up_ms": milliseconds(self.catch_up),
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
