//! How reads choose their member.

use std::time::Duration;

use super::read::Section;
use super::write::duration_text;
use super::{Problem, problem};

/// Which of the members that hold every acked write is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPolicy {
    /// The first in the order of the tier.
    #[default]
    Preferred,
    /// The one that answered fastest lately.
    Fastest,
}

impl ReadPolicy {
    pub(crate) const WORDS: [(&'static str, Self); 2] =
        [("preferred", Self::Preferred), ("fastest", Self::Fastest)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preferred => "preferred",
            Self::Fastest => "fastest",
        }
    }
}

/// When a read that is not answered yet asks the next member too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// Never; the next member is asked when one fails or its timeout passes.
    Off,
    /// When the member takes longer than this percentage (between 0 and 100) of its recent answers took.
    Percentile(f64),
    /// When the member takes longer than this.
    After(Duration),
}

impl Default for HedgeAfter {
    /// 99: one read in a hundred asks twice, and a frozen member costs little more than a slow answer.
    fn default() -> Self {
        Self::Percentile(99.0)
    }
}

impl HedgeAfter {
    /// Reads `off`, a percentile such as `p99`, or a duration.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "off" {
            return Some(Self::Off);
        }
        if let Some(percent) = text.strip_prefix('p') {
            let percent: f64 = percent.parse().ok()?;
            return (0.0 < percent && percent < 100.0).then_some(Self::Percentile(percent));
        }
        humantime::parse_duration(text).ok().map(Self::After)
    }

    /// The text that reads back as this.
    pub(super) fn text(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Percentile(percent) => format!("p{percent}"),
            Self::After(duration) => duration_text(duration),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>, policy: &mut ReadPolicy, hedge: &mut HedgeAfter) {
    section.word("read", &ReadPolicy::WORDS, policy);
    if let Some(text) = section.text("hedge_after") {
        match HedgeAfter::parse(&text) {
            Some(found) => *hedge = found,
            None => section.problem(
                "hedge_after",
                Problem::new("", format!("wants \"off\", a percentile or a duration, not {text:?}"))
                    .hint("write for example \"p99\" or \"50ms\""),
            ),
        }
    }
}

/// What is wrong with a value that was set in code, or was read and is out of its range.
pub(super) fn check(hedge: HedgeAfter) -> Option<problem::Problem> {
    let fine = match hedge {
        HedgeAfter::Off => true,
        HedgeAfter::Percentile(percent) => 0.0 < percent && percent < 100.0,
        HedgeAfter::After(duration) => {
            (Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&duration)
        }
    };
    let text = "is outside 1ms to 1h, or p0 to p100 without the ends";
    (!fine).then(|| Problem::new("tier.hedge_after", format!("{} {text}", hedge.text())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_is_off_a_percentile_or_a_duration_and_reads_back() {
        for (text, hedge) in [
            ("off", HedgeAfter::Off),
            ("p99", HedgeAfter::Percentile(99.0)),
            ("p99.9", HedgeAfter::Percentile(99.9)),
            ("50ms", HedgeAfter::After(Duration::from_millis(50))),
        ] {
            assert_eq!(HedgeAfter::parse(text), Some(hedge));
            assert_eq!(hedge.text(), text);
        }
        for bad in ["", "p", "p0", "p100", "pNaN", "99", "-1s", "never"] {
            assert_eq!(HedgeAfter::parse(bad), None, "{bad}");
        }
    }
}
