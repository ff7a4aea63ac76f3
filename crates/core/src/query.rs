//! Searches, scrolls and their answers.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::id::{Lsn, PointId};
use crate::name::VectorName;
use crate::path::PayloadPath;
use crate::point::{Payload, Point, Record, Vector, Vectors};
use crate::spec::CollectionSpec;

/// Most hits or records that one call returns.
pub const MAX_LIMIT: usize = 10_000;
/// Largest offset of a search; page deeper with a scroll.
pub const MAX_OFFSET: usize = 100_000;

/// Which of several named things come back.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector<T> {
    /// None of them.
    None,
    /// All of them.
    All,
    /// These.
    Only(Vec<T>),
}

/// Which fields of a point come back.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    /// Payload values by path; `Only` keeps the shape of the payload for plain keys and their
    /// nested keys.
    pub payload: Selector<PayloadPath>,
    /// Vectors by name.
    pub vectors: Selector<VectorName>,
    /// The text.
    pub text: bool,
}

impl Fields {
    /// Everything.
    pub const ALL: Self = Self { payload: Selector::All, vectors: Selector::All, text: true };
    /// Ids and versions alone.
    pub const NONE: Self = Self { payload: Selector::None, vectors: Selector::None, text: false };

    /// The selected part of a payload.
    pub fn select_payload(&self, payload: &Payload) -> Payload {
        match &self.payload {
            Selector::None => Payload::new(),
            Selector::All => payload.clone(),
            Selector::Only(paths) => {
                let mut selected = Payload::new();
                for path in paths {
                    path.copy_into(payload, &mut selected);
                }
                selected
            }
        }
    }

    /// The selected vectors.
    pub fn select_vectors(&self, vectors: &Vectors) -> Vectors {
        match &self.vectors {
            Selector::None => Vectors::new(),
            Selector::All => vectors.clone(),
            Selector::Only(names) => vectors
                .iter()
                .filter(|(n, _)| names.contains(n))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
        }
    }

    /// Whether this vector is selected.
    pub fn wants_vector(&self, name: &VectorName) -> bool {
        match &self.vectors {
            Selector::None => false,
            Selector::All => true,
            Selector::Only(names) => names.contains(name),
        }
    }

    /// The point with only the selected fields.
    pub fn select(&self, point: &Point) -> Point {
        Point {
            id: point.id,
            vectors: self.select_vectors(&point.vectors),
            payload: self.select_payload(&point.payload),
            text: point.text.clone().filter(|_| self.text),
        }
    }
}

impl Default for Fields {
    /// Payload and text, no vectors: what a search result is usually shown with.
    fn default() -> Self {
        Self { payload: Selector::All, vectors: Selector::None, text: true }
    }
}

/// A search: the nearest points to a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchQuery {
    /// The vector to search by.
    pub vector: Vector,
    /// Which named vector of the points it is compared with.
    pub using: VectorName,
    /// How many hits come back, 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// How many of the nearest hits are passed over, 0 to [`MAX_OFFSET`].
    pub offset: usize,
    /// Only hits at least this near: a score ≥ it (cosine, dot, sparse) or ≤ it (distances).
    pub score_threshold: Option<f32>,
    /// Only points that this filter accepts.
    pub filter: Option<Filter>,
    /// Compare with every point instead of walking an index.
    pub exact: bool,
    /// What comes back with each hit.
    pub fields: Fields,
}

impl SearchQuery {
    /// The ten nearest points to a dense default vector.
    pub fn new(vector: Vec<f32>) -> Self {
        Self {
            vector: Vector::Dense(vector),
            using: VectorName::default(),
            limit: 10,
            offset: 0,
            score_threshold: None,
            filter: None,
            exact: false,
            fields: Fields::default(),
        }
    }

    /// The same search with this many hits.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The same search among the points that a filter accepts.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// The same search, exact.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// Checks the search against its collection and normalises a cosine vector.
    ///
    /// # Errors
    /// `Invalid`: a limit of 0 or above [`MAX_LIMIT`], an offset above [`MAX_OFFSET`], a threshold
    /// that is no number, or a vector that the collection would not store.
    pub fn admit(mut self, spec: &CollectionSpec) -> Result<Self> {
        let fail = |text: String| Err(Error::invalid(text).with_collection(&spec.name));
        check_limit(self.limit).map_err(|e| e.with_collection(&spec.name))?;
        if self.offset > MAX_OFFSET {
            return fail(format!("offset {} is above {MAX_OFFSET}; page deeper with a scroll", self.offset));
        }
        if self.score_threshold.is_some_and(f32::is_nan) {
            return fail("the score threshold is NaN".into());
        }
        spec.check_vector(&self.using, &self.vector)?;
        spec.normalize(&self.using, &mut self.vector);
        Ok(self)
    }
}

/// Refuses a limit of 0 or above [`MAX_LIMIT`].
///
/// # Errors
/// `Invalid`.
pub fn check_limit(limit: usize) -> Result<()> {
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(());
    }
    Err(Error::invalid(format!("limit {limit} is outside 1 to {MAX_LIMIT}")))
}

/// One answer of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// How near the point is; the [`Distance`](crate::Distance) says what it means.
    pub score: f32,
    /// The LSN that last wrote the point.
    pub version: Lsn,
    /// The point with the selected fields.
    pub point: Point,
}

/// A page of points in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrollQuery {
    /// Only ids after this one; `None` starts at the first.
    pub after: Option<PointId>,
    /// How many records come back, 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// Only points that this filter accepts.
    pub filter: Option<Filter>,
    /// What comes back with each record.
    pub fields: Fields,
}

impl Default for ScrollQuery {
    fn default() -> Self {
        Self { after: None, limit: 100, filter: None, fields: Fields::default() }
    }
}

/// The answer of a scroll.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrollPage {
    /// The incarnation of the collection that was read: the LSN that created it.
    pub incarnation: Lsn,
    /// Records, ids ascending.
    pub records: Vec<Record>,
    /// What to give as `after` for the next page; `None` at the end.
    pub next: Option<PointId>,
}

/// The answer of a read of versions.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionsPage {
    /// The incarnation of the collection that was read: the LSN that created it.
    pub incarnation: Lsn,
    /// Points and their versions, ids ascending.
    pub versions: Vec<(PointId, Lsn)>,
    /// What to give as `after` for the next page; `None` at the end.
    pub next: Option<PointId>,
}

impl From<ScrollPage> for VersionsPage {
    fn from(ScrollPage { incarnation, records, next }: ScrollPage) -> Self {
        let versions = records.into_iter().map(|record| (record.point.id, record.version)).collect();
        Self { incarnation, versions, next }
    }
}

/// Removes repeated ids and keeps the order of the first appearances.
pub fn unique_ids(ids: &[PointId]) -> Vec<PointId> {
    let mut seen = BTreeSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}
