//! The part of a filter that columns can decide.
//!
//! What comes out accepts at least the points that the filter accepts; readers then evaluate the
//! filter itself on what came back. `None` stands for "every point".

use lancedb::expr::{DfExpr, col, lit};
use mainstay_core::filter::parse_datetime;
use mainstay_core::{Condition, FieldTest, Filter, Match, PayloadIndex, PayloadPath, PointId, Range, Scalar};

use crate::convert::id_text;
use crate::layout::{ID, IndexColumn, Layout};

/// Integers up to here are exact as f64.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// A predicate on columns that every accepted point passes.
pub(crate) fn push_down(layout: &Layout, filter: &Filter) -> Option<DfExpr> {
    accepted(layout, filter)
}

/// Points with one of these ids.
pub(crate) fn with_ids(ids: impl Iterator<Item = PointId>) -> DfExpr {
    let ids: Vec<_> = ids.map(|id| lit(id_text(id))).collect();
    if ids.is_empty() { lit(false) } else { col(ID).in_list(ids, false) }
}

/// Both, where a missing one is "every point".
pub(crate) fn both(a: Option<DfExpr>, b: Option<DfExpr>) -> Option<DfExpr> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.and(b)),
        (a, b) => a.or(b),
    }
}

fn accepted(layout: &Layout, filter: &Filter) -> Option<DfExpr> {
    let must = filter.must.iter().map(|c| holds(layout, c));
    let should = std::iter::once(match filter.should.is_empty() {
        true => None,
        false => any(filter.should.iter().map(|c| holds(layout, c))),
    });
    let must_not = filter.must_not.iter().map(|c| fails(layout, c));
    all(must.chain(should).chain(must_not))
}

fn refused(layout: &Layout, filter: &Filter) -> Option<DfExpr> {
    let must = filter.must.iter().map(|c| fails(layout, c));
    let should = (!filter.should.is_empty()).then(|| all(filter.should.iter().map(|c| fails(layout, c))));
    let must_not = filter.must_not.iter().map(|c| holds(layout, c));
    any(must.chain(should).chain(must_not))
}

fn holds(layout: &Layout, condition: &Condition) -> Option<DfExpr> {
    match condition {
        Condition::Field { path, test } => {
            let column = index(layout, path)?;
            let test = test_of(column, test)?;
            Some(test.passes.or(col(&column.other)))
        }
        // Both leave the value null; so may what does not fit.
        Condition::IsEmpty(path) | Condition::IsNull(path) => {
            Some(col(&index(layout, path)?.value).is_null())
        }
        Condition::HasId(ids) => Some(with_ids(ids.iter().copied())),
        Condition::Filter(filter) => accepted(layout, filter),
    }
}

fn fails(layout: &Layout, condition: &Condition) -> Option<DfExpr> {
    match condition {
        Condition::Field { path, test } => {
            let column = index(layout, path)?;
            let test = test_of(column, test)?;
            // A null value says that nothing can pass, or that the other column is true.
            test.exact.then(|| any([Some(!test.passes), Some(col(&column.value).is_null())].into_iter()))?
        }
        Condition::IsEmpty(_) | Condition::IsNull(_) => None,
        Condition::HasId(ids) => Some(!with_ids(ids.iter().copied())),
        Condition::Filter(filter) => refused(layout, filter),
    }
}

fn index<'a>(layout: &'a Layout, path: &PayloadPath) -> Option<&'a IndexColumn> {
    layout.indexes.iter().find(|column| column.path == *path)
}

/// A test as a predicate on the value column.
struct ColumnTest {
    /// Every value that passes the test passes this.
    passes: DfExpr,
    /// Whether only those do.
    exact: bool,
}

impl ColumnTest {
    fn exact(passes: DfExpr) -> Option<Self> {
        Some(Self { passes, exact: true })
    }

    /// No value of the column's type passes.
    fn never() -> Option<Self> {
        Self::exact(lit(false))
    }
}

fn test_of(column: &IndexColumn, test: &FieldTest) -> Option<ColumnTest> {
    let value = || col(&column.value);
    match test {
        FieldTest::Match(Match::Value(scalar)) => equal(column, std::slice::from_ref(scalar)),
        FieldTest::Match(Match::Any(scalars)) => equal(column, scalars),
        FieldTest::Match(Match::Except(scalars)) => {
            let listed = equal(column, scalars)?;
            listed.exact.then_some(())?;
            ColumnTest::exact(value().is_not_null().and(!listed.passes))
        }
        FieldTest::Range(range) => match column.index {
            PayloadIndex::Integer => integer_range(value, range),
            PayloadIndex::Float => {
                let range = map_range(range, |bound| Some(lit(bound + 0.0)))?;
                ColumnTest::exact(compare(value, range))
            }
            PayloadIndex::Keyword | PayloadIndex::Bool | PayloadIndex::Datetime => ColumnTest::never(),
        },
        FieldTest::Datetime(range) => match column.index {
            PayloadIndex::Datetime => {
                let range = map_range(range, |bound| Some(lit(bound)))?;
                ColumnTest::exact(compare(value, range))
            }
            // A string in the column may be a datetime.
            PayloadIndex::Keyword => None,
            PayloadIndex::Integer | PayloadIndex::Float | PayloadIndex::Bool => ColumnTest::never(),
        },
    }
}

fn equal(column: &IndexColumn, scalars: &[Scalar]) -> Option<ColumnTest> {
    let mut exact = true;
    let mut wanted = Vec::with_capacity(scalars.len());
    for scalar in scalars {
        match (column.index, scalar) {
            (PayloadIndex::Keyword, Scalar::Str(text)) => wanted.push(lit(text.as_str())),
            (PayloadIndex::Integer, Scalar::Int(n)) => wanted.push(lit(*n)),
            (PayloadIndex::Bool, Scalar::Bool(b)) => wanted.push(lit(*b)),
            // 5.0 is in the column as 5 is, but only 5 equals it.
            (PayloadIndex::Float, Scalar::Int(n)) => {
                exact = false;
                wanted.push(lit(*n as f64));
            }
            // The same moment may be written in several ways. A string that is no datetime is not in the column.
            (PayloadIndex::Datetime, Scalar::Str(text)) => {
                exact = false;
                wanted.extend(parse_datetime(text).map(lit));
            }
            _ => {}
        }
    }
    if wanted.is_empty() {
        return Some(ColumnTest { passes: lit(false), exact });
    }
    Some(ColumnTest { passes: col(&column.value).in_list(wanted, false), exact })
}

/// A range of numbers over integers; bounds that f64 and i64 do not share are left to the filter.
fn integer_range(value: impl Fn() -> DfExpr, range: &Range<f64>) -> Option<ColumnTest> {
    let part =
        |bound: Option<f64>, round| bound.map_or(Some(None), |bound| integer_bound(bound, round).map(Some));
    let range = Range {
        gt: part(range.gt, f64::floor)?,
        gte: part(range.gte, f64::ceil)?,
        lt: part(range.lt, f64::ceil)?,
        lte: part(range.lte, f64::floor)?,
    };
    ColumnTest::exact(compare(value, range))
}

fn integer_bound(bound: f64, round: fn(f64) -> f64) -> Option<DfExpr> {
    (bound.abs() < EXACT).then(|| lit(round(bound) as i64))
}

fn map_range<T: Copy>(range: &Range<T>, to: impl Fn(T) -> Option<DfExpr>) -> Option<Range<DfExpr>> {
    let part = |bound: Option<T>| bound.map_or(Some(None), |bound| to(bound).map(Some));
    Some(Range { gt: part(range.gt)?, gte: part(range.gte)?, lt: part(range.lt)?, lte: part(range.lte)? })
}

/// Within all bounds; without bounds, every value (which null is not).
fn compare(value: impl Fn() -> DfExpr, range: Range<DfExpr>) -> DfExpr {
    let parts = [
        range.gt.map(|bound| value().gt(bound)),
        range.gte.map(|bound| value().gt_eq(bound)),
        range.lt.map(|bound| value().lt(bound)),
        range.lte.map(|bound| value().lt_eq(bound)),
    ];
    all(parts.into_iter()).unwrap_or_else(|| value().is_not_null())
}

/// All of them; those that say "every point" drop out.
fn all(parts: impl Iterator<Item = Option<DfExpr>>) -> Option<DfExpr> {
    balance(parts.flatten().collect(), DfExpr::and)
}

/// Any of them; one that says "every point" decides. There is at least one.
fn any(parts: impl Iterator<Item = Option<DfExpr>>) -> Option<DfExpr> {
    let parts: Option<Vec<_>> = parts.collect();
    // No part at all accepts nothing.
    Some(balance(parts?, DfExpr::or).unwrap_or_else(|| lit(false)))
}

/// A balanced tree, so that a long filter does not become a deep one.
fn balance(mut parts: Vec<DfExpr>, join: fn(DfExpr, DfExpr) -> DfExpr) -> Option<DfExpr> {
    while parts.len() > 1 {
        let mut pairs = Vec::with_capacity(parts.len().div_ceil(2));
        let mut left = parts.into_iter();
        while let Some(a) = left.next() {
            pairs.push(match left.next() {
                Some(b) => join(a, b),
                None => a,
            });
        }
        parts = pairs;
    }
    parts.pop()
}
