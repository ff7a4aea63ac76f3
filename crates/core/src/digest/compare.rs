//! Where two stores differ.

use std::collections::HashSet;
use std::fmt;

use super::{CollectionDigest, RangeDigest};
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;

/// One way in which two stores, `a` and `b`, differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only `a` has the collection.
    OnlyInA(CollectionName),
    /// Only `b` has the collection.
    OnlyInB(CollectionName),
    /// The collections of this name were created by different entries.
    Incarnation {
        /// The name.
        name: CollectionName,
        /// The LSN that created the one of `a`.
        a: Lsn,
        /// The LSN that created the one of `b`.
        b: Lsn,
    },
    /// The collections hold different points.
    Points {
        /// The name.
        name: CollectionName,
        /// How many points `a` has.
        a: u64,
        /// How many points `b` has.
        b: u64,
        /// The spans of ids, ends included, ascending and apart, outside of which the two are equal.
        spans: Vec<(PointId, PointId)>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyInA(name) => write!(f, "collection {name} is only in the first"),
            Self::OnlyInB(name) => write!(f, "collection {name} is only in the second"),
            Self::Incarnation { name, a, b } => {
                write!(
                    f,
                    "collection {name} was created by entry {a} in the first, by entry {b} in the second"
                )
            }
            Self::Points { name, a, b, spans } => {
                write!(f, "collection {name} differs ({a} points in the first, {b} in the second)")?;
                match spans.as_slice() {
                    [] => Ok(()),
                    [(first, last)] => write!(f, " in ids {first} to {last}"),
                    [(first, last), rest @ ..] => {
                        write!(f, " in ids {first} to {last} and {} more spans", rest.len())
                    }
                }
            }
        }
    }
}

/// What differs between two stores by their digests, of one depth; empty if they are equal.
pub fn compare(a: &[CollectionDigest], b: &[CollectionDigest]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for left in a {
        let Some(right) = b.iter().find(|right| right.name == left.name) else {
            differences.push(Difference::OnlyInA(left.name.clone()));
            continue;
        };
        let name = left.name.clone();
        if left.incarnation != right.incarnation {
            let (a, b) = (left.incarnation, right.incarnation);
            differences.push(Difference::Incarnation { name, a, b });
        } else if left.hash != right.hash {
            let spans = spans(&left.ranges, &right.ranges);
            differences.push(Difference::Points { name, a: left.points, b: right.points, spans });
        }
    }
    let only_in_b = b.iter().filter(|right| a.iter().all(|left| left.name != right.name));
    differences.extend(only_in_b.map(|right| Difference::OnlyInB(right.name.clone())));
    differences
}

/// The spans of the ranges that only one side has, overlapping ones joined.
fn spans(a: &[RangeDigest], b: &[RangeDigest]) -> Vec<(PointId, PointId)> {
    let hashes = |ranges: &[RangeDigest]| ranges.iter().map(|range| range.hash).collect::<HashSet<_>>();
    let (in_a, in_b) = (hashes(a), hashes(b));
    let only_a = a.iter().filter(|range| !in_b.contains(&range.hash));
    let only_b = b.iter().filter(|range| !in_a.contains(&range.hash));
    let mut spans: Vec<_> = only_a.chain(only_b).map(|range| (range.first, range.last)).collect();
    spans.sort_unstable();
    let mut joined: Vec<(PointId, PointId)> = Vec::new();
    for (first, last) in spans {
        match joined.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}
