//! Searches.
//!
//! Every score is computed here from the stored vector, the same way as in every store; LanceDB's
//! index only proposes candidates. Where it proposes too few, the search compares with every point.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::{Array, RecordBatch, StringArray, UInt64Array};
use futures::{StreamExt, TryStreamExt};
use lancedb::expr::DfExpr;
use lancedb::query::{ExecutableQuery, QueryBase, Select};
use lancedb::{DistanceType, Table};
use mainstay_core::{
    Distance, Error, ErrorKind, Fields, Hit, Lsn, Point, PointId, Result, SearchQuery, Vector, VectorSpec,
    score,
};

use crate::convert::{DenseColumn, column, parse_id, parse_payload, to_records};
use crate::error::{self, native};
use crate::filter::push_down;
use crate::layout::{ID, PAYLOAD, VERSION};
use crate::table::{CollectionTable, MAX_IDS_PER_STATEMENT, scan};

const ROW_ID: &str = "_rowid";
/// Batches scored at once.
const SCORING_TASKS: usize = 2;
/// The index proposes up to this many times the hits that are wanted, and at least a few more.
const OVERFETCH: usize = 3;
const OVERFETCH_LEAST: usize = 64;
/// Least partitions of the index that a search looks at; more while a filter leaves too few hits.
const MIN_PARTITIONS: usize = 32;
/// Past this many hits the index does not pay.
const MAX_INDEXED_HITS: usize = 1_000;

/// A search against one table.
struct Search {
    table: Arc<CollectionTable>,
    query: SearchQuery,
    vector: Vec<f32>,
    spec: VectorSpec,
    distance: Distance,
    column: String,
}

#[derive(Clone, Copy)]
struct Candidate {
    score: f32,
    id: PointId,
    version: Lsn,
    row: u64,
}

pub(crate) async fn search(table: Arc<CollectionTable>, query: &SearchQuery) -> Result<Vec<Hit>> {
    let spec = table.layout.spec.vector(&query.using)?;
    let VectorSpec::Dense { distance, .. } = spec else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the LanceDB store keeps sparse vectors ({:?}) but does not search them", query.using),
        )
        .with_collection(&table.layout.spec.name));
    };
    table.layout.spec.check_vector(&query.using, &query.vector)?;
    let vector = match &query.vector {
        Vector::Dense(values) => values.clone(),
        Vector::Sparse(_) => return Ok(Vec::new()),
    };
    let column = table
        .layout
        .vectors
        .iter()
        .find(|column| column.name == query.using)
        .map(|column| column.values.clone())
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a declared vector has no column"))?;
    let snapshot = table.snapshot().await?;
    let search = Arc::new(Search { table, query: query.clone(), vector, spec, distance, column });
    let candidates = match search.indexed(&snapshot).await? {
        Some(candidates) => candidates,
        None => search.exact(&snapshot).await?,
    };
    let page: Vec<_> = candidates.into_iter().skip(query.offset).take(query.limit).collect();
    search.hits(&snapshot, &page).await
}

impl Search {
    fn wanted(&self) -> usize {
        self.query.offset.saturating_add(self.query.limit)
    }

    fn push_down(&self) -> Option<DfExpr> {
        self.query.filter.as_ref().and_then(|filter| push_down(&self.table.layout, filter))
    }

    fn columns(&self) -> Vec<String> {
        let mut columns = vec![ID.to_owned(), VERSION.to_owned(), self.column.clone()];
        if self.query.filter.as_ref().is_some_and(|filter| !filter.is_empty()) {
            columns.push(PAYLOAD.to_owned());
        }
        columns
    }

    /// The nearest points, by comparing with every one.
    async fn exact(self: &Arc<Self>, snapshot: &Table) -> Result<Vec<Candidate>> {
        let batches = scan(snapshot, &self.columns(), self.push_down(), true).await?;
        let mut scored = batches
            .map(|batch| {
                let search = self.clone();
                async move {
                    let batch = batch.map_err(native("scanning a table"))?;
                    tokio::task::spawn_blocking(move || search.score(&batch)).await.map_err(error::task)?
                }
            })
            .buffered(SCORING_TASKS);
        let mut best = Vec::new();
        while let Some(candidates) = scored.try_next().await? {
            best.extend(candidates);
            if best.len() > self.wanted().saturating_mul(2).max(4_096) {
                self.keep_best(&mut best);
            }
        }
        self.keep_best(&mut best);
        Ok(best)
    }

    /// The nearest points among those that the index proposes; `None` if there is no index, or it
    /// may have missed some.
    async fn indexed(&self, snapshot: &Table) -> Result<Option<Vec<Candidate>>> {
        let filter = self.push_down();
        let distance = match self.distance {
            Distance::Cosine => DistanceType::Cosine,
            Distance::Dot => DistanceType::Dot,
            Distance::Euclidean => DistanceType::L2,
            Distance::Manhattan => return Ok(None),
        };
        let undecided =
            self.query.filter.as_ref().is_some_and(|filter| !filter.is_empty()) && filter.is_none();
        if self.query.exact
            || undecided
            || self.wanted() > MAX_INDEXED_HITS
            || !self.table.indexed.load(Ordering::Acquire)
        {
            return Ok(None);
        }
        let proposals = (self.wanted() * OVERFETCH).max(self.wanted() + OVERFETCH_LEAST);
        let mut query = snapshot
            .query()
            .select(Select::columns(&self.columns()))
            .limit(proposals)
            .with_row_id()
            .nearest_to(self.vector.as_slice())
            .map_err(native("searching a table"))?
            .column(&self.column)
            .distance_type(distance)
            .minimum_nprobes(MIN_PARTITIONS)
            .map_err(native("searching a table"))?
            .maximum_nprobes(None)
            .map_err(native("searching a table"))?;
        if let Some(filter) = filter {
            query = query.only_if_expr(filter);
        }
        let mut batches = Box::pin(query.execute()).await.map_err(native("searching a table"))?;
        let mut best = Vec::new();
        while let Some(batch) = batches.try_next().await.map_err(native("searching a table"))? {
            best.extend(self.score_all(&batch)?);
        }
        if best.len() < self.wanted() {
            return Ok(None);
        }
        best.retain(|candidate: &Candidate| self.near_enough(candidate));
        self.keep_best(&mut best);
        Ok(Some(best))
    }

    /// The accepted and near enough points of a batch.
    fn score(&self, batch: &RecordBatch) -> Result<Vec<Candidate>> {
        let mut candidates = self.score_all(batch)?;
        candidates.retain(|candidate| self.near_enough(candidate));
        if candidates.len() > self.wanted() {
            self.keep_best(&mut candidates);
        }
        Ok(candidates)
    }

    fn near_enough(&self, candidate: &Candidate) -> bool {
        score::passes(self.spec, candidate.score, self.query.score_threshold)
    }

    /// The accepted points of a batch.
    fn score_all(&self, batch: &RecordBatch) -> Result<Vec<Candidate>> {
        let ids: &StringArray = column(batch, ID)?;
        let versions: &UInt64Array = column(batch, VERSION)?;
        let rows: &UInt64Array = column(batch, ROW_ID)?;
        let vectors = DenseColumn::of(batch, &self.column)?;
        let filter = self.query.filter.as_ref().filter(|filter| !filter.is_empty());
        let payloads: Option<&StringArray> = filter.map(|_| column(batch, PAYLOAD)).transpose()?;
        let mut candidates = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let Some(vector) = vectors.get(row) else { continue };
            let id = parse_id(ids.value(row))?;
            if let (Some(filter), Some(payloads)) = (filter, payloads)
                && !filter.accepts(id, &parse_payload(payloads.value(row))?)
            {
                continue;
            }
            let score = score::dense(self.distance, &self.vector, vector);
            if !score.is_nan() && rows.is_valid(row) {
                candidates.push(Candidate {
                    score,
                    id,
                    version: Lsn(versions.value(row)),
                    row: rows.value(row),
                });
            }
        }
        Ok(candidates)
    }

    fn keep_best(&self, candidates: &mut Vec<Candidate>) {
        let order = |a: &Candidate, b: &Candidate| score::order(self.spec, (a.score, a.id), (b.score, b.id));
        let wanted = self.wanted();
        if candidates.len() > wanted && wanted > 0 {
            candidates.select_nth_unstable_by(wanted - 1, order);
        }
        candidates.truncate(wanted);
        candidates.sort_unstable_by(order);
    }

    /// The candidates with the fields that come back.
    async fn hits(&self, snapshot: &Table, page: &[Candidate]) -> Result<Vec<Hit>> {
        let mut points = std::collections::HashMap::with_capacity(page.len());
        if self.query.fields != Fields::NONE {
            let columns = self.table.layout.columns(&self.query.fields);
            for page in page.chunks(MAX_IDS_PER_STATEMENT) {
                let rows = page.iter().map(|candidate| candidate.row).collect();
                let query = snapshot.take_row_ids(rows).select(Select::columns(&columns));
                let mut batches = Box::pin(query.execute()).await.map_err(native("reading hits"))?;
                while let Some(batch) = batches.try_next().await.map_err(native("reading hits"))? {
                    for record in to_records(&self.table.layout, &batch, &self.query.fields)? {
                        points.insert(record.point.id, record.point);
                    }
                }
            }
        }
        page.iter()
            .map(|candidate| {
                let point = match points.remove(&candidate.id) {
                    Some(point) => point,
                    None if self.query.fields == Fields::NONE => Point {
                        vectors: mainstay_core::Vectors::new(),
                        ..Point::new(candidate.id, Vec::new())
                    },
                    None => {
                        return Err(error::corrupt(format!("the row of point {} is missing", candidate.id)));
                    }
                };
                Ok(Hit { score: candidate.score, version: candidate.version, point })
            })
            .collect()
    }
}
