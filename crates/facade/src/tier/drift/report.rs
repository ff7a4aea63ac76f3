//! What a round found.

use std::fmt;
use std::time::{Duration, SystemTime};

use mainstay_core::{CollectionName, PointId};

use crate::answer::MemberName;
use crate::config::DriftPolicy;

/// Points that a report names for each member; the others are only counted.
pub(super) const SHOWN: usize = 20;

/// How a point differs from what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// It is not there.
    Missing,
    /// It is there and should not be.
    Extra,
    /// It has the version of another entry, or of none.
    Version,
    /// It has the right version, but not what that entry wrote.
    Content,
}

impl DriftKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Extra, Self::Version, Self::Content];

    /// The kind as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Version => "version",
            Self::Content => "content",
        }
    }
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftedPoint {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id.
    pub id: PointId,
    /// How it differs.
    pub kind: DriftKind,
}

/// A collection that a member has lost, or should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionDrift {
    /// Its name.
    pub name: CollectionName,
    /// `Missing`, `Extra`, or `Version` for one that another entry created.
    pub kind: DriftKind,
}

/// What one comparison of the members found.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftReport {
    /// What was to become of drift.
    pub policy: DriftPolicy,
    /// When the round began.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Collections that were compared.
    pub collections: u64,
    /// Ranges of ids that were compared, in all collections.
    pub ranges: u64,
    /// Collections that were dropped or created meanwhile and therefore passed over.
    pub passed_over: Vec<CollectionName>,
    /// Collections in which more points differ than may be repaired.
    pub too_many: Vec<CollectionName>,
    /// Points that differ and never rested while the log touched them; the next round looks again.
    pub unsettled: u64,
    /// The members in the order of the tier.
    pub members: Vec<MemberDrift>,
}

impl DriftReport {
    /// Whether some member differs from what it should be.
    pub fn has_drift(&self) -> bool {
        !self.too_many.is_empty() || self.members.iter().any(MemberDrift::has_drift)
    }
}

/// What one comparison found in one member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberDrift {
    /// Its name.
    pub member: MemberName,
    /// Why it was not compared, or not with all collections; `None` if it was.
    pub left_out: Option<String>,
    /// Points that were read of it, ids and versions alone.
    pub points: u64,
    /// Points that were read of it with all they hold.
    pub deep_points: u64,
    /// Points that are not there and should be.
    pub missing: u64,
    /// Points that are there and should not be.
    pub extra: u64,
    /// Points with another version.
    pub other_version: u64,
    /// Points with the right version and another content.
    pub other_content: u64,
    /// The first points that differ.
    pub first: Vec<DriftedPoint>,
    /// Collections that it has lost, or should not have.
    pub collections: Vec<CollectionDrift>,
    /// Points that differ for which a repair was logged.
    pub repaired: u64,
    /// Whether it was loaded anew from another member.
    pub reloaded: bool,
}

impl MemberDrift {
    pub(super) fn new(member: MemberName) -> Self {
        Self {
            member,
            left_out: None,
            points: 0,
            deep_points: 0,
            missing: 0,
            extra: 0,
            other_version: 0,
            other_content: 0,
            first: Vec::new(),
            collections: Vec::new(),
            repaired: 0,
            reloaded: false,
        }
    }

    /// How many points differ.
    pub fn points_that_differ(&self) -> u64 {
        self.missing + self.extra + self.other_version + self.other_content
    }

    /// How many points differ in this way.
    pub fn points_of(&self, kind: DriftKind) -> u64 {
        match kind {
            DriftKind::Missing => self.missing,
            DriftKind::Extra => self.extra,
            DriftKind::Version => self.other_version,
            DriftKind::Content => self.other_content,
        }
    }

    /// Whether it differs from what it should be.
    pub fn has_drift(&self) -> bool {
        self.points_that_differ() > 0 || !self.collections.is_empty()
    }

    pub(super) fn count(&mut self, point: DriftedPoint) {
        *match point.kind {
            DriftKind::Missing => &mut self.missing,
            DriftKind::Extra => &mut self.extra,
            DriftKind::Version => &mut self.other_version,
            DriftKind::Content => &mut self.other_content,
        } += 1;
        if self.first.len() < SHOWN {
            self.first.push(point);
        }
    }
}
