//! Which of several states of a point is the right one: plain decisions.

use std::cmp::Reverse;

use mainstay_core::{Lsn, Point, Record, SparseVector, Vector};

use super::report::DriftKind;

/// Numbers of a vector that differ by no more than this (relative to the larger one, if that is above 1) are equal:
/// stores keep and normalise vectors in single precision.
const TOLERANCE: f32 = 1e-5;

/// What the log makes of a point.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Logged {
    /// No entry that is still there touches it.
    Silent,
    /// The last one deletes it.
    Deleted,
    /// It is this.
    Written(Record),
    /// The last one, this, patches what an entry wrote that is not there any more.
    Patched(Lsn),
}

impl Logged {
    /// What the log wrote, if that is known.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Written(record) => Some(record),
            Self::Silent | Self::Deleted | Self::Patched(_) => None,
        }
    }
}

/// The right state of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// It is not there.
    Absent,
    /// What the log wrote.
    Logged,
    /// What this one of the members holds.
    Side(usize),
}

/// What is known of a collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The entry that created it.
    pub incarnation: Lsn,
    /// The last entry that was cut.
    pub cut: Lsn,
    /// Whether it has points that no entry wrote in all members: it was adopted with them.
    pub base: bool,
}

/// What one member holds of a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    /// The point; `None` if it is not there.
    pub record: Option<&'a Record>,
    /// Whether the member is volatile: it is in this process, where nobody else can write to it.
    pub volatile: bool,
}

/// The right state by what the log wrote. Where the log is silent it is the newest version that an entry can have
/// written; that a member lacks such a point is no reason to take an acked write away from the others.
pub(super) fn by_log(states: &[State<'_>], logged: &Logged, limits: Limits) -> Truth {
    let newest = match logged {
        Logged::Deleted => return Truth::Absent,
        Logged::Written(_) => return Truth::Logged,
        Logged::Patched(lsn) => *lsn,
        Logged::Silent => limits.cut,
    };
    let may_be = |record: &Record| match record.version {
        Lsn::ZERO => limits.base,
        version => limits.incarnation < version && version <= newest,
    };
    let votes = |record: &Record| {
        states
            .iter()
            .filter(|state| state.record.is_some_and(|other| kind(record, Some(other)).is_none()))
            .count()
    };
    let best = |fits: &dyn Fn(&Record) -> bool| {
        let there =
            states.iter().enumerate().filter_map(|(side, state)| Some((side, state.record?, state.volatile)));
        there
            .filter(|(_, record, _)| fits(record))
            .max_by_key(|(side, record, volatile)| (record.version, votes(record), *volatile, Reverse(*side)))
            .map(|(side, ..)| Truth::Side(side))
    };
    let lacking = || states.iter().any(|state| state.record.is_none()).then_some(Truth::Absent);
    best(&may_be).or_else(lacking).or_else(|| best(&|_| true)).unwrap_or(Truth::Absent)
}

/// How a member's state differs from the right one.
pub(super) fn difference(truth: Option<&Record>, state: Option<&Record>) -> Option<DriftKind> {
    match truth {
        Some(truth) => kind(truth, state),
        None => state.map(|_| DriftKind::Extra),
    }
}

fn kind(truth: &Record, state: Option<&Record>) -> Option<DriftKind> {
    match state {
        None => Some(DriftKind::Missing),
        Some(state) if state.version != truth.version => Some(DriftKind::Version),
        Some(state) if !is_same(&truth.point, &state.point) => Some(DriftKind::Content),
        Some(_) => None,
    }
}

/// Whether two points hold the same: payload and text exactly, vectors but for rounding.
pub(super) fn is_same(a: &Point, b: &Point) -> bool {
    let vectors = || {
        a.vectors.len() == b.vectors.len()
            && a.vectors.iter().zip(&b.vectors).all(|((x, a), (y, b))| x == y && is_same_vector(a, b))
    };
    a.id == b.id && a.text == b.text && a.payload == b.payload && vectors()
}

fn is_same_vector(a: &Vector, b: &Vector) -> bool {
    match (a, b) {
        (Vector::Dense(a), Vector::Dense(b)) => is_near(a, b),
        (
            Vector::Sparse(SparseVector { indices: i, values: a }),
            Vector::Sparse(SparseVector { indices: j, values: b }),
        ) => i == j && is_near(a, b),
        _ => false,
    }
}

fn is_near(a: &[f32], b: &[f32]) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0);
    a.len() == b.len() && a.iter().zip(b).all(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { incarnation: Lsn(3), cut: Lsn(10), base: false };

    fn record(version: u64, x: f32) -> Record {
        let point = Point::new(1, vec![x, 1.0]).with_payload(serde_json::json!({ "x": x }));
        Record { version: Lsn(version), point }
    }

    fn judge(records: &[Option<Record>], logged: &Logged, limits: Limits) -> Truth {
        let states: Vec<_> =
            records.iter().map(|record| State { record: record.as_ref(), volatile: false }).collect();
        by_log(&states, logged, limits)
    }

    #[test]
    fn what_the_log_wrote_is_right_whatever_the_members_hold() {
        let held = [Some(record(9, 1.0)), None, Some(record(12, 2.0))];
        assert_eq!(judge(&held, &Logged::Deleted, LIMITS), Truth::Absent);
        assert_eq!(judge(&held, &Logged::Written(record(11, 3.0)), LIMITS), Truth::Logged);
        assert_eq!(judge(&held, &Logged::Patched(Lsn(12)), LIMITS), Truth::Side(2));
    }

    #[test]
    fn where_the_log_was_cut_the_newest_version_that_an_entry_can_have_written_is_right() {
        let (old, new) = (record(5, 1.0), record(9, 2.0));
        for (held, truth) in [
            (vec![Some(old.clone()), Some(new.clone())], Truth::Side(1)),
            // An acked write is not taken away because others lack it.
            (vec![None, None, Some(old.clone())], Truth::Side(2)),
            // No entry wrote these: before the collection, after the cut, and by somebody else.
            (vec![Some(record(2, 1.0)), Some(old.clone())], Truth::Side(1)),
            (vec![Some(record(11, 1.0)), None], Truth::Absent),
            (vec![Some(record(0, 1.0)), None], Truth::Absent),
            (vec![Some(record(0, 1.0)), Some(old.clone())], Truth::Side(1)),
        ] {
            assert_eq!(judge(&held, &Logged::Silent, LIMITS), truth, "{held:?}");
        }
    }

    #[test]
    fn the_base_of_an_adopted_collection_is_kept() {
        let limits = Limits { base: true, ..LIMITS };
        assert_eq!(judge(&[None, Some(record(0, 1.0))], &Logged::Silent, limits), Truth::Side(1));
    }

    #[test]
    fn of_two_contents_the_one_that_more_hold_is_right_then_that_of_a_member_in_this_process() {
        let (a, b) = (record(5, 1.0), record(5, 2.0));
        let held = [Some(a.clone()), Some(b.clone()), Some(b.clone())];
        assert_eq!(judge(&held, &Logged::Silent, LIMITS), Truth::Side(1));
        let states =
            [State { record: Some(&a), volatile: false }, State { record: Some(&b), volatile: true }];
        assert_eq!(by_log(&states, &Logged::Silent, LIMITS), Truth::Side(1));
    }

    #[test]
    fn vectors_are_equal_but_for_rounding_and_payloads_exactly() {
        let (a, mut b) = (record(5, 1.0), record(5, 1.0));
        assert_eq!(difference(Some(&a), Some(&b)), None);
        b.point.vectors = Point::new(1, vec![1.000_005, 1.0]).vectors;
        assert_eq!(difference(Some(&a), Some(&b)), None);
        b.point.vectors = Point::new(1, vec![1.000_05, 1.0]).vectors;
        assert_eq!(difference(Some(&a), Some(&b)), Some(DriftKind::Content));
        b = record(5, 1.0);
        b.point.payload.insert("y".into(), 1.into());
        assert_eq!(difference(Some(&a), Some(&b)), Some(DriftKind::Content));
        assert_eq!(difference(Some(&a), Some(&record(6, 1.0))), Some(DriftKind::Version));
        assert_eq!(difference(Some(&a), None), Some(DriftKind::Missing));
        assert_eq!(difference(None, Some(&a)), Some(DriftKind::Extra));
        assert_eq!(difference(None, None), None);
    }
}
