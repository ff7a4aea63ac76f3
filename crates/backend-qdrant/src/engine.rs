//! What the store needs of an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::{
    CollectionName, CollectionSpec, Condition, Context, FieldTest, Fields, Filter, Hit, Lsn, Match, Payload,
    PayloadIndex, PayloadPath, Point, PointId, Range, Record, Result, Scalar, SearchQuery,
};

use crate::payload::is_reserved;

/// Changes to the points of one collection; each id stands in one list.
#[derive(Default)]
pub struct Batch {
    /// Whole points.
    pub puts: Vec<(Lsn, Arc<Point>)>,
    /// New payloads of points whose vectors stay.
    pub payloads: Vec<NewPayload>,
    /// Points to remove.
    pub deletes: Vec<PointId>,
}

/// Everything of a point but its vectors.
pub struct NewPayload {
    /// Which point.
    pub id: PointId,
    /// The entry that changed it.
    pub version: Lsn,
    /// The payload.
    pub payload: Payload,
    /// The text, which a new payload leaves alone.
    pub text: Option<String>,
}

impl Batch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.payloads.is_empty() && self.deletes.is_empty()
    }
}

/// A Qdrant engine. It evaluates nothing itself that the store can decide: it reads, searches and writes.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Whether a write is durable once it was answered; otherwise it is after [`flush`](Self::flush).
    fn is_durable(&self) -> bool;

    /// The control document; `None` if there is none.
    async fn control(&self, cx: &Context) -> Result<Option<String>>;

    /// The stamp of the control document, which costs less than the document.
    async fn stamp(&self, cx: &Context) -> Result<Option<String>>;

    /// Replaces the control document, durably.
    async fn set_control(&self, cx: &Context, stamp: &str, document: &str) -> Result<()>;

    /// The collections that are there, whoever made them.
    async fn collections(&self, cx: &Context) -> Result<Vec<String>>;

    /// What a collection is that somebody else made.
    async fn describe(&self, cx: &Context, name: &str) -> Result<Description>;

    /// Creates an empty collection with its indexes.
    async fn create(&self, cx: &Context, spec: &CollectionSpec) -> Result<()>;

    /// Creates the payload indexes of a collection that is there, as far as they are missing.
    async fn index(&self, cx: &Context, spec: &CollectionSpec) -> Result<()>;

    /// Removes a collection; one that is not there is fine.
    async fn remove(&self, cx: &Context, name: &CollectionName) -> Result<()>;

    /// Writes a batch, in any order.
    async fn write(&self, cx: &Context, spec: &CollectionSpec, batch: Batch) -> Result<()>;

    /// The versions of the points that are there.
    async fn versions(
        &self,
        cx: &Context,
        name: &CollectionName,
        ids: &[PointId],
    ) -> Result<BTreeMap<PointId, Lsn>>;

    /// The points with these ids that are there, in any order. Payloads are whole or empty.
    async fn get(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>>;

    /// At most `limit` points from an id on, ids ascending. Payloads are whole or empty.
    async fn scroll(&self, cx: &Context, spec: &CollectionSpec, scroll: &Scroll<'_>) -> Result<Vec<Record>>;

    /// The nearest `limit` points, nearest first. `query` gives the vector, the filter, the fields and whether
    /// to be exact. Payloads are whole or empty.
    async fn search(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<Vec<Hit>>;

    /// How many points there are, or how many a filter accepts; exact.
    async fn count(&self, cx: &Context, name: &CollectionName, filter: Option<&Filter>) -> Result<u64>;

    /// How many points have a value at this indexed path that is not of the index's type.
    async fn count_mixed(&self, cx: &Context, name: &CollectionName, path: &PayloadPath) -> Result<u64>;

    /// Makes everything written so far durable. `false` if that cannot be done now and should be tried later.
    async fn flush(&self, cx: &Context) -> Result<bool>;

    /// Answers if the engine can be reached.
    async fn ping(&self, cx: &Context) -> Result<()>;

    /// Ends what runs in the background.
    async fn close(&self);
}

/// A collection as the engine describes it.
pub struct Description {
    /// How many points it holds.
    pub points: u64,
    /// What it is to Mainstay, or why it cannot be that.
    pub spec: Result<CollectionSpec, String>,
}

/// Which points a scroll reads.
pub struct Scroll<'a> {
    /// From this id on, inclusive.
    pub from: Option<PointId>,
    /// At most so many.
    pub limit: usize,
    /// Only those that it accepts.
    pub filter: Option<&'a Filter>,
    /// What of them.
    pub fields: &'a Fields,
}

/// Moments that Qdrant's datetimes can say, in microseconds: the years 1 to 9999.
const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// How Qdrant evaluates a filter.
#[derive(Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Not as Mainstay does.
    pub differs: bool,
    /// As Mainstay does unless some point has a value at one of these indexed paths that is not of the index's type.
    pub mixed: BTreeSet<PayloadPath>,
}

impl Evaluation {
    /// How a filter is evaluated on a collection.
    pub fn of(filter: &Filter, spec: &CollectionSpec) -> Self {
        let mut evaluation = Self::default();
        evaluation.add(filter, spec);
        evaluation
    }

    fn add(&mut self, filter: &Filter, spec: &CollectionSpec) {
        for condition in [&filter.must, &filter.should, &filter.must_not].into_iter().flatten() {
            match condition {
                Condition::Field { path, test } => {
                    self.differs |= is_ours(path) || differs(test);
                    if let Some(index) = spec.payload_indexes.get(path) {
                        self.differs |= is_mistaken(test, *index);
                        if is_strict(test, *index) {
                            self.mixed.insert(path.clone());
                        }
                    }
                }
                Condition::IsEmpty(path) | Condition::IsNull(path) => {
                    self.differs |= is_ours(path);
                    // To an index, a value of another type is none.
                    if spec.payload_indexes.contains_key(path) {
                        self.mixed.insert(path.clone());
                    }
                }
                Condition::HasId(_) => {}
                Condition::Filter(filter) => self.add(filter, spec),
            }
        }
    }
}

fn is_ours(path: &PayloadPath) -> bool {
    is_reserved(path.to_string().trim_start_matches('"'))
}

/// Whether Qdrant has no such test: a list of exceptions is of one kind, a moment is one that it can say, and a
/// range has a bound, which tells numbers from moments.
fn differs(test: &FieldTest) -> bool {
    match test {
        FieldTest::Match(Match::Except(list)) => {
            let strings = list.iter().filter(|scalar| matches!(scalar, Scalar::Str(_))).count();
            strings > 0 && strings < list.len()
        }
        FieldTest::Match(_) => false,
        FieldTest::Range(Range { gt, gte, lt, lte }) => {
            [gt, gte, lt, lte].into_iter().all(|bound| bound.is_none())
        }
        FieldTest::Datetime(Range { gt, gte, lt, lte }) => {
            let mut bounds = [gt, gte, lt, lte].into_iter().flatten().peekable();
            bounds.peek().is_none() || !bounds.all(|moment| MOMENTS.contains(moment))
        }
    }
}

/// Whether an index answers a test that it should not: to it, moments are numbers.
fn is_mistaken(test: &FieldTest, index: PayloadIndex) -> bool {
    match test {
        FieldTest::Match(_) => false,
        FieldTest::Range(_) => index == PayloadIndex::Datetime,
        FieldTest::Datetime(_) => matches!(index, PayloadIndex::Integer | PayloadIndex::Float),
    }
}

/// Whether a test that is answered from an index comes out otherwise for values of another type. An index leaves
/// them out, and that of integers takes 2.0 for 2.
fn is_strict(test: &FieldTest, index: PayloadIndex) -> bool {
    match test {
        FieldTest::Match(Match::Except(_)) => true,
        FieldTest::Match(_) | FieldTest::Range(_) => index == PayloadIndex::Integer,
        FieldTest::Datetime(_) => false,
    }
}
