//! How often a search is also sent to a standby, to know that it is good before it is needed.

use super::problem::Problem;
use super::read::Section;
use super::write::Text;

/// Searches that a standby answers too, without anybody waiting for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowConfig {
    /// The share of searches, 0 to 1, that one of the standbys answers too. 0.01: a load that nobody notices, and a
    /// thousand searches say how good a standby is.
    pub share: f64,
    /// When a standby finds less than this share of the hits, on average over its recent shadow reads, an event says
    /// so. 0.9: what approximate indexes leave out of an answer is usually less.
    pub min_overlap: f64,
    /// Most shadow reads in flight; one more is not made. 2: they never add up to a load.
    pub max_concurrent: usize,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self { share: 0.01, min_overlap: 0.9, max_concurrent: 2 }
    }
}

pub(super) fn read(section: &mut Section<'_>, shadow: &mut ShadowConfig) {
    section.number("share", &mut shadow.share);
    section.number("min_overlap", &mut shadow.min_overlap);
    section.count("max_concurrent", &mut shadow.max_concurrent);
}

pub(super) fn write(shadow: &ShadowConfig, out: &mut Text) {
    out.key("share", format!("{:?}", shadow.share));
    out.key("min_overlap", format!("{:?}", shadow.min_overlap));
    out.key("max_concurrent", shadow.max_concurrent);
}

/// What is out of its range.
pub(super) fn check(shadow: &ShadowConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in [("share", shadow.share), ("min_overlap", shadow.min_overlap)] {
        if !(0.0..=1.0).contains(&value) {
            problems.push(Problem::new(format!("shadow.{key}"), format!("{value} is outside 0 to 1")));
        }
    }
    let most = shadow.max_concurrent;
    if !(1..=1_024).contains(&most) {
        problems.push(Problem::new("shadow.max_concurrent", format!("{most} is outside 1 to 1024")));
    }
    problems
}
