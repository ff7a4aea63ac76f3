//! Filters with the semantics of Qdrant's, and their plain evaluation.
//!
//! The evaluation here is the definition: whatever a store does to be faster must return the same.

mod datetime;
mod eval;

use std::collections::BTreeSet;

pub use datetime::parse_datetime;

use crate::error::{Error, Result};
use crate::id::PointId;
use crate::path::PayloadPath;

/// Deepest nesting of filters.
pub const MAX_FILTER_DEPTH: usize = 16;
/// Most conditions in a filter, nested ones included.
pub const MAX_CONDITIONS: usize = 1_024;
/// Most values in one `any`, `except` or `has_id`.
pub const MAX_VALUES: usize = 65_536;

/// Which points are meant: all of `must`, none of `must_not`, and at least one of `should` if
/// there is any. An empty filter accepts every point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// All of these hold.
    pub must: Vec<Condition>,
    /// At least one of these holds, if there is one.
    pub should: Vec<Condition>,
    /// None of these holds.
    pub must_not: Vec<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A value at the path, or an element of an array there, passes the test.
    Field {
        /// Where.
        path: PayloadPath,
        /// What.
        test: FieldTest,
    },
    /// Nothing is at the path, or null, or an empty array.
    IsEmpty(PayloadPath),
    /// null is at the path.
    IsNull(PayloadPath),
    /// The point has one of these ids.
    HasId(BTreeSet<PointId>),
    /// A filter inside the filter.
    Filter(Box<Filter>),
}

impl Condition {
    /// The value at a path equals this one.
    pub fn equals(path: PayloadPath, value: impl Into<Scalar>) -> Self {
        Self::Field { path, test: FieldTest::Match(Match::Value(value.into())) }
    }

    /// The number at a path lies in this range.
    pub fn in_range(path: PayloadPath, range: Range<f64>) -> Self {
        Self::Field { path, test: FieldTest::Range(range) }
    }
}

/// A test of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldTest {
    /// Equality.
    Match(Match),
    /// A number in a range.
    Range(Range<f64>),
    /// A datetime in a range, in microseconds since 1970-01-01T00:00:00Z
    /// (see [`parse_datetime`]).
    Datetime(Range<i64>),
}

/// A test for equality.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// Equal to this value.
    Value(Scalar),
    /// Equal to one of these strings or integers.
    Any(Vec<Scalar>),
    /// Some value other than these strings or integers: null is not one, a value of another type is.
    Except(Vec<Scalar>),
}

/// A value that a match compares with. A payload number with a fraction or an exponent (`1.0`)
/// equals no integer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// true or false.
    Bool(bool),
    /// A 64-bit signed integer.
    Int(i64),
    /// A string.
    Str(String),
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<i64> for Scalar {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<bool> for Scalar {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

/// A range; a bound that is not there does not bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range<T> {
    /// Greater than.
    pub gt: Option<T>,
    /// Greater than or equal.
    pub gte: Option<T>,
    /// Less than.
    pub lt: Option<T>,
    /// Less than or equal.
    pub lte: Option<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self { gt: None, gte: None, lt: None, lte: None }
    }
}

impl<T: PartialOrd> Range<T> {
    /// Whether the value lies within all bounds.
    pub fn contains(&self, value: &T) -> bool {
        self.gt.as_ref().is_none_or(|bound| value > bound)
            && self.gte.as_ref().is_none_or(|bound| value >= bound)
            && self.lt.as_ref().is_none_or(|bound| value < bound)
            && self.lte.as_ref().is_none_or(|bound| value <= bound)
    }
}

impl Filter {
    /// A filter of conditions that must all hold.
    pub fn all(conditions: impl IntoIterator<Item = Condition>) -> Self {
        Self { must: conditions.into_iter().collect(), ..Self::default() }
    }

    /// Whether it accepts every point because it has no condition.
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }

    /// Whether it accepts every point, whatever is in it: it has no condition, or none but filters of that kind.
    pub fn accepts_all(&self) -> bool {
        let accepts_all =
            |condition: &Condition| matches!(condition, Condition::Filter(inner) if inner.accepts_all());
        self.must.iter().all(accepts_all)
            && (self.should.is_empty() || self.should.iter().any(accepts_all))
            && self.must_not.is_empty()
    }

    /// Checks the limits on depth, conditions and values, and that no bound is NaN.
    ///
    /// # Errors
    /// `Invalid` with the limit that is passed.
    pub fn check(&self) -> Result<()> {
        let mut conditions = 0;
        self.check_inner(1, &mut conditions)
    }

    fn check_inner(&self, depth: usize, conditions: &mut usize) -> Result<()> {
        if depth > MAX_FILTER_DEPTH {
            return Err(Error::invalid(format!(
                "the filter is nested deeper than {MAX_FILTER_DEPTH} levels"
            )));
        }
        for condition in self.must.iter().chain(&self.should).chain(&self.must_not) {
            *conditions += 1;
            if *conditions > MAX_CONDITIONS {
                return Err(Error::invalid(format!("the filter has more than {MAX_CONDITIONS} conditions")));
            }
            let values = match condition {
                Condition::Field {
                    test: FieldTest::Match(Match::Any(values) | Match::Except(values)),
                    path,
                } => {
                    if values.iter().any(|v| matches!(v, Scalar::Bool(_))) {
                        return Err(Error::invalid(format!(
                            "`any` and `except` of {path} take strings or integers; match one bool with `value`"
                        )));
                    }
                    if values
                        .windows(2)
                        .any(|w| matches!(w[0], Scalar::Str(_)) != matches!(w[1], Scalar::Str(_)))
                    {
                        return Err(Error::invalid(format!(
                            "`any` and `except` of {path} mix strings and integers; give one type"
                        )));
                    }
                    values.len()
                }
                Condition::Field { test: FieldTest::Range(range), path } => {
                    if [range.gt, range.gte, range.lt, range.lte].into_iter().flatten().any(f64::is_nan) {
                        return Err(Error::invalid(format!("a bound of the range of {path} is NaN")));
                    }
                    0
                }
                Condition::HasId(ids) => ids.len(),
                Condition::Filter(inner) => {
                    inner.check_inner(depth + 1, conditions)?;
                    0
                }
                _ => 0,
            };
            if values > MAX_VALUES {
                return Err(Error::invalid(format!(
                    "a condition lists {values} values; at most {MAX_VALUES} are allowed"
                )));
            }
        }
        Ok(())
    }
}
