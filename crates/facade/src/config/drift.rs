//! How stores are compared with each other, and what becomes of what differs.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problem;
use super::read::Section;
use super::write::{Text, duration_text, quoted};

/// Reading everything more often than once a second is no comparison but a load; beyond a month nobody waits.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3_600);

/// What becomes of points that somebody changed in one store behind the tier's back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriftPolicy {
    /// They are reported and left as they are.
    #[default]
    Report,
    /// What the log wrote is written once more.
    LogWins,
    /// What the first member holds is written to the log, so that all others follow.
    PrimaryWins,
}

impl DriftPolicy {
    pub(crate) const WORDS: [(&'static str, Self); 3] =
        [("report", Self::Report), ("log-wins", Self::LogWins), ("primary-wins", Self::PrimaryWins)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::LogWins => "log-wins",
            Self::PrimaryWins => "primary-wins",
        }
    }
}

impl std::str::FromStr for DriftPolicy {
    type Err = mainstay_core::Error;

    /// Reads the word of the config.
    ///
    /// # Errors
    /// `Invalid`, naming the words that there are.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::WORDS.map(|(word, _)| word);
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, policy)| *policy).ok_or_else(|| {
            mainstay_core::Error::invalid(format!("`{text}` is no policy; there are {}", known.join(", ")))
        })
    }
}

/// Comparing the members with each other.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftConfig {
    /// What becomes of points that differ.
    pub policy: DriftPolicy,
    /// How long after one comparison the next one begins; `None` for never. Never, unless it is asked for: a
    /// comparison reads every store from end to end, and where nobody else writes there is nothing to find.
    pub interval: Option<Duration>,
    /// Most points read in a second, of all members together. 5,000: a few percent of what a store can read, and a
    /// million points in two members are through in seven minutes.
    pub points_per_second: u32,
    /// The share of the ranges of ids whose points are compared with all they hold; of the others, ids and versions
    /// are. 0.1: each range is read deeply once in ten rounds.
    pub deep: f64,
    /// When more points of a collection differ than this, none is repaired. 10,000: beyond it a store has lost data
    /// rather than met another writer, and that is for somebody to look at.
    pub max_repairs: u64,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self {
            policy: DriftPolicy::Report,
            interval: None,
            points_per_second: 5_000,
            deep: 0.1,
            max_repairs: 10_000,
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, drift: &mut DriftConfig) {
    section.word("policy", &DriftPolicy::WORDS, &mut drift.policy);
    if let Some(text) = section.text("interval") {
        match (text.trim(), humantime::parse_duration(text.trim())) {
            ("off", _) => drift.interval = None,
            (_, Ok(interval)) => drift.interval = Some(interval),
            (_, Err(_)) => section.problem(
                "interval",
                Problem::new("", format!("wants \"off\" or a duration with a unit, not {text:?}"))
                    .hint("write for example \"1h\""),
            ),
        }
    }
    section.count("points_per_second", &mut drift.points_per_second);
    section.number("deep", &mut drift.deep);
    section.count("max_repairs", &mut drift.max_repairs);
}

pub(super) fn write(drift: &DriftConfig, out: &mut Text) {
    out.key("policy", quoted(drift.policy.as_str()));
    out.key("interval", quoted(&drift.interval.map_or_else(|| "off".to_owned(), duration_text)));
    out.key("points_per_second", drift.points_per_second);
    out.key("deep", format!("{:?}", drift.deep));
    out.key("max_repairs", drift.max_repairs);
}

/// What is out of its range.
pub(super) fn check(drift: &DriftConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(interval) = drift.interval.filter(|interval| !INTERVALS.contains(interval)) {
        let text = format!("{} is outside 1s to 31 days", duration_text(interval));
        problems.push(Problem::new("drift.interval", text).hint("write \"off\" for never"));
    }
    let rate = drift.points_per_second;
    if !(1..=100_000_000).contains(&rate) {
        problems.push(Problem::new("drift.points_per_second", format!("{rate} is outside 1 to 100000000")));
    }
    if !(0.0..=1.0).contains(&drift.deep) {
        problems.push(Problem::new("drift.deep", format!("{} is outside 0 to 1", drift.deep)));
    }
    if !(1..=1_000_000).contains(&drift.max_repairs) {
        let text = format!("{} is outside 1 to 1000000", drift.max_repairs);
        problems.push(Problem::new("drift.max_repairs", text));
    }
    problems
}
