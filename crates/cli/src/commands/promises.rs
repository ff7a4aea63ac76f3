//! What a drill or the demo ends with.

use std::process::ExitCode;
use std::time::Duration;

use mainstay_cli::drill::{Footprint, LoadReport, Verdict};
use serde_json::{Value, json};

use crate::output::{Output, short, table};

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
    /// What the process took of its machine after each round, where that is known and of interest.
    pub footprints: Vec<Footprint>,
    /// Whether the tier closed in good order, or what it said; `None` if it is still open.
    pub closed: Option<Result<(), String>>,
}

/// What one outage cost.
pub struct OutageFigures {
    /// What happened.
    pub name: &'static str,
    /// How long after its beginning a standby first answered, beyond what a search takes; `None` if none had to.
    pub first_answer: Option<Duration>,
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
        if let (Some(first), Some(last)) = (self.footprints.first(), self.footprints.last()) {
            let mebibytes = |footprint: &Footprint| footprint.resident_bytes >> 20;
            promises.push((
                "memory and open files stay flat",
                format!(
                    "{} -> {} MiB, {} -> {} files",
                    mebibytes(first),
                    mebibytes(last),
                    first.descriptors,
                    last.descriptors
                ),
                Footprint::stayed_flat(&self.footprints),
            ));
        }
        if let Some(closed) = &self.closed {
            let text = closed.as_ref().err().map_or_else(|| "yes".to_owned(), |error| short(error, 60));
            promises.push(("the tier closed in good order", text, closed.is_ok()));
        }
        if let Some((files, wanted)) = self.files {
            promises.insert(0, ("real files were indexed", format!("{files}"), files >= wanted));
        }
        promises
    }

    /// The outages of each kind together, in the order in which they first came.
    fn outages(&self) -> Vec<OutageSummary> {
        let mut names: Vec<&'static str> = Vec::new();
        for round in &self.rounds {
            if !names.contains(&round.name) {
                names.push(round.name);
            }
        }
        let summary = |name| {
            let rounds = || self.rounds.iter().filter(|round| round.name == name);
            let mut failovers: Vec<_> = rounds().map(|round| round.failover).collect();
            failovers.sort_unstable();
            let mut first_answers: Vec<_> = rounds().filter_map(|round| round.first_answer).collect();
            first_answers.sort_unstable();
            OutageSummary {
                name,
                rounds: failovers.len(),
                first_answer_p50: percentile(&first_answers, 50),
                first_answer_p99: percentile(&first_answers, 99),
                failover_p50: percentile(&failovers, 50).unwrap_or_default(),
                failover_p99: percentile(&failovers, 99).unwrap_or_default(),
                catch_up: rounds().map(|round| round.catch_up).max().unwrap_or_default(),
            }
        };
        names.into_iter().map(summary).collect()
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
            "outages": self.outages().iter().map(OutageSummary::json).collect::<Vec<_>>(),
            "footprints": self.footprints.iter().map(footprint_json).collect::<Vec<_>>(),
            "closed": self.closed.as_ref().map(Result::is_ok),
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
        let outages = self.outages();
        let outages = outages.iter().map(|outage| {
            let added = |time| format!("+{:.1} ms", milliseconds(time));
            let first = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), added);
            [
                outage.name.to_owned(),
                outage.rounds.to_string(),
                first(outage.first_answer_p50),
                first(outage.first_answer_p99),
                added(outage.failover_p50),
                added(outage.failover_p99),
                format!("{:.0} ms", milliseconds(outage.catch_up)),
            ]
        });
        let failures: String = self.report.failures.iter().map(|failure| format!("\n  {failure}")).collect();
        format!(
            "{}\n{}\n{}\nworst search during an outage: +{:.1} ms · caught up in {:.1} s · {} writes acked, {} unknown, {} refused{failures}",
            table(["", "promise", "figure"], rows),
            table(
                ["outage", "rounds", "first answer p50", "p99", "worst search p50", "p99", "caught up in"],
                outages
            ),
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
            "first_answer_ms": self.first_answer.map(milliseconds),
            "failover_ms": milliseconds(self.failover),
            "catch_up_ms": milliseconds(self.catch_up),
        })
    }
}

/// What the outages of one kind cost.
struct OutageSummary {
    name: &'static str,
    rounds: usize,
    /// How long after its beginning a standby first answered, beyond what a search takes.
    first_answer_p50: Option<Duration>,
    first_answer_p99: Option<Duration>,
    /// What the worst search of an outage took beyond the usual: the median of the rounds.
    failover_p50: Duration,
    failover_p99: Duration,
    /// The longest time that the member took to catch up.
    catch_up: Duration,
}

impl OutageSummary {
    fn json(&self) -> Value {
        json!({
            "outage": self.name,
            "rounds": self.rounds,
            "first_answer_p50_ms": self.first_answer_p50.map(milliseconds),
            "first_answer_p99_ms": self.first_answer_p99.map(milliseconds),
            "failover_p50_ms": milliseconds(self.failover_p50),
            "failover_p99_ms": milliseconds(self.failover_p99),
            "catch_up_ms": milliseconds(self.catch_up),
        })
    }
}

/// Of few times the worst is the 99th of a hundred.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

fn footprint_json(footprint: &Footprint) -> Value {
    json!({ "resident_bytes": footprint.resident_bytes, "descriptors": footprint.descriptors })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
