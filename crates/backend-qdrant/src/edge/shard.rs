//! One collection: a qdrant-edge shard, and the order in which it may be touched.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_core::{
    CollectionSpec, Error, ErrorKind, Fields, Filter, Hit, PayloadIndex, PayloadPath, PointId, Record,
    Result, SearchQuery, Vector, VectorSpec,
};
use parking_lot::{Mutex, RwLock};
use qdrant_edge::{
    CountRequest, CreateIndex, EdgeConfig, EdgeShard, EdgeSparseVectorParams, EdgeVectorParams,
    FieldIndexOperations, NamedQuery, OperationError, PayloadFieldSchema, PayloadOps, PayloadSchemaType,
    PointInsertOperations, PointOperations, QueryEnum, QueryRequest, ScoringQuery, ScrollRequest,
    SearchParams, SetPayloadOp, UpdateOperation, WalOptions,
};

use super::convert;
use crate::engine::Batch;
use crate::payload;

/// A segment of the engine's own log. Its default of 32 MiB would be allocated for each small collection.
const WAL_SEGMENT_BYTES: usize = 4 << 20;
/// Closed segments of that log beyond these are removed when a shard is opened; the engine never reads them.
const WAL_SEGMENTS_KEPT: usize = 2;

/// A shard. The engine's `flush` wants no write and no optimisation beside it.
pub struct Shard {
    /// `None` once the shard is retired.
    shard: RwLock<Option<EdgeShard>>,
    path: PathBuf,
    /// Held by whoever writes or flushes.
    writer: Mutex<()>,
    /// Held while segments are rebuilt.
    optimizer: Mutex<()>,
    /// Points written since the last optimisation.
    written: AtomicU64,
}

impl Shard {
    /// A new shard for a collection.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn create(path: &Path, spec: &CollectionSpec) -> Result<Self> {
        let mut config = EdgeConfig::builder().wal_options(wal_options()).build();
        for (name, vector) in &spec.vectors {
            match vector {
                VectorSpec::Dense { dimension, distance } => {
                    let params = EdgeVectorParams::builder(*dimension, convert::distance(*distance)).build();
                    config.vectors.insert(name.as_str().to_owned(), params);
                }
                VectorSpec::Sparse => {
                    config.sparse_vectors.insert(name.as_str().to_owned(), EdgeSparseVectorParams::default());
                }
            }
        }
        std::fs::create_dir_all(path)
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("creating {}: {e}", path.display())))?;
        Ok(Self::of(path, EdgeShard::new(path, config).map_err(error)?))
    }

    /// The shard in a directory.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn load(path: &Path) -> Result<Self> {
        trim_wal(path);
        let shard = EdgeShard::load(path, None).map_err(|e| error(e).with_context("path", path.display()))?;
        Ok(Self::of(path, shard))
    }

    fn of(path: &Path, shard: EdgeShard) -> Self {
        Self {
            shard: RwLock::new(Some(shard)),
            path: path.to_owned(),
            writer: Mutex::default(),
            optimizer: Mutex::default(),
            written: AtomicU64::new(0),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&EdgeShard) -> Result<T, OperationError>) -> Result<T> {
        match &*self.shard.read() {
            Some(shard) => work(shard).map_err(error),
            None => Err(Error::new(ErrorKind::Unavailable, "the collection is being removed")),
        }
    }

    /// Creates our own indexes and the declared ones; those that are there stay.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn index(&self, spec: &CollectionSpec) -> Result<()> {
        let _writer = self.writer.lock();
        let declared = spec.payload_indexes.iter().map(|(path, index)| {
            let kind = match index {
                PayloadIndex::Keyword => PayloadSchemaType::Keyword,
                PayloadIndex::Integer => PayloadSchemaType::Integer,
                PayloadIndex::Float => PayloadSchemaType::Float,
                PayloadIndex::Bool => PayloadSchemaType::Bool,
                PayloadIndex::Datetime => PayloadSchemaType::Datetime,
            };
            (path.to_string(), kind)
        });
        let ours = payload::own_index(spec).map(|key| (key.to_owned(), PayloadSchemaType::Keyword));
        for (path, kind) in ours.into_iter().chain(declared) {
            let index = CreateIndex {
                field_name: convert::path(&path)?,
                field_schema: Some(PayloadFieldSchema::FieldType(kind)),
            };
            let operation = UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index));
            self.with(|shard| shard.update(operation))?;
        }
        Ok(())
    }

    /// Writes a batch and answers how many points were written since the last optimisation.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn write(&self, spec: &CollectionSpec, batch: Batch) -> Result<u64> {
        let _writer = self.writer.lock();
        let touched = batch.puts.len() + batch.payloads.len() + batch.deletes.len();
        if !batch.deletes.is_empty() {
            let ids = batch.deletes.into_iter().map(convert::id).collect();
            self.update_points(PointOperations::DeletePoints { ids })?;
        }
        if !batch.puts.is_empty() {
            let points =
                batch.puts.iter().map(|(version, point)| convert::point(spec, *version, point)).collect();
            self.update_points(PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)))?;
        }
        for payload in batch.payloads {
            let set = SetPayloadOp {
                points: Some(vec![convert::id(payload.id)]),
                payload: convert::payload(spec, payload.version, &payload.payload, payload.text.as_deref()),
                filter: None,
                key: None,
            };
            let operation = UpdateOperation::PayloadOperation(PayloadOps::OverwritePayload(set));
            self.with(|shard| shard.update(operation))?;
        }
        Ok(self.written.fetch_add(touched as u64, Ordering::Relaxed) + touched as u64)
    }

    fn update_points(&self, operation: PointOperations) -> Result<()> {
        self.with(|shard| shard.update(UpdateOperation::PointOperation(operation)))
    }

    /// The points with these ids that are there.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn get(&self, ids: &[PointId], fields: &Fields) -> Result<Vec<Record>> {
        let ids: Vec<_> = ids.iter().map(|id| convert::id(*id)).collect();
        let records = self.with(|shard| {
            shard.retrieve(&ids, Some(convert::with_payload(fields)?), Some(convert::with_vector(fields)))
        })?;
        records.into_iter().map(|r| convert::record(r.id, r.payload, r.vector)).collect()
    }

    /// Points from an id on, ids ascending.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn scroll(
        &self,
        from: Option<PointId>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let filter = filter.map(convert::filter).transpose()?;
        let (records, _) = self.with(|shard| {
            shard.scroll(ScrollRequest {
                offset: from.map(convert::id),
                limit: Some(limit),
                filter,
                with_payload: Some(convert::with_payload(fields)?),
                with_vector: convert::with_vector(fields),
                order_by: None,
            })
        })?;
        records.into_iter().map(|r| convert::record(r.id, r.payload, r.vector)).collect()
    }

    /// The nearest points.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn search(&self, query: &SearchQuery, limit: usize) -> Result<Vec<Hit>> {
        let vector = match &query.vector {
            Vector::Dense(values) => qdrant_edge::VectorInternal::Dense(values.clone()),
            Vector::Sparse(sparse) => qdrant_edge::VectorInternal::Sparse(convert::sparse(sparse)),
        };
        let filter = query.filter.as_ref().map(convert::filter).transpose()?;
        let using = Some(query.using.as_str().to_owned());
        let points = self.with(|shard| {
            shard.query(QueryRequest {
                prefetches: Vec::new(),
                query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery { query: vector, using }))),
                filter,
                score_threshold: None,
                limit,
                offset: 0,
                params: Some(SearchParams { exact: query.exact, ..SearchParams::default() }),
                with_vector: convert::with_vector(&query.fields),
                with_payload: convert::with_payload(&query.fields)?,
            })
        })?;
        let hits = points.into_iter().map(|scored| {
            let Record { version, point } = convert::record(scored.id, scored.payload, scored.vector)?;
            Ok(Hit { score: scored.score, version, point })
        });
        hits.collect()
    }

    /// How many points a filter accepts.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        let filter = filter.map(convert::filter).transpose()?;
        let count = self.with(|shard| shard.count(CountRequest { filter, exact: true }))?;
        Ok(count as u64)
    }

    /// How many points have a value at an indexed path that is not of the index's type.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn count_mixed(&self, path: &PayloadPath) -> Result<u64> {
        self.count_by(convert::mixed_at(path)?)
    }

    fn count_by(&self, filter: qdrant_edge::Filter) -> Result<u64> {
        let count = self.with(|shard| shard.count(CountRequest { filter: Some(filter), exact: true }))?;
        Ok(count as u64)
    }

    /// Makes everything durable; `false` while segments are rebuilt.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn flush(&self) -> Result<bool> {
        let _writer = self.writer.lock();
        let Some(_optimizer) = self.optimizer.try_lock() else { return Ok(false) };
        self.with(|shard| {
            shard.flush();
            Ok(true)
        })
    }

    /// Merges segments and builds search graphs. Reads and writes go on.
    ///
    /// # Errors
    /// Whatever the engine runs into.
    pub fn optimize(&self) -> Result<()> {
        let _optimizer = self.optimizer.lock();
        self.written.store(0, Ordering::Relaxed);
        self.with(|shard| shard.optimize().map(|_| ()))
    }

    /// Ends the shard, so that its directory can be removed. Waits for what is under way.
    pub fn retire(&self) {
        let _optimizer = self.optimizer.lock();
        let _writer = self.writer.lock();
        if let Some(shard) = self.shard.write().take() {
            end(shard);
        }
        tracing::debug!(path = %self.path.display(), "shard closed");
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.get_mut().take() {
            end(shard);
        }
    }
}

/// Drops a shard. The engine flushes it then, and takes the process with it if it cannot: a shard that cannot be
/// flushed, because its directory is gone, is leaked instead. What was not flushed is in the tier's log.
fn end(shard: EdgeShard) {
    let flush = std::panic::AssertUnwindSafe(|| shard.flush());
    if shard.path().exists() && std::panic::catch_unwind(flush).is_ok() {
        drop(shard);
        return;
    }
    tracing::warn!(path = %shard.path().display(), "a shard could not be flushed; its memory is not given back");
    std::mem::forget(shard);
}

fn wal_options() -> WalOptions {
    WalOptions { segment_capacity: WAL_SEGMENT_BYTES, ..WalOptions::default() }
}

/// The engine appends to its log and never cuts it, and 0.7 never reads it back either: the position of the
/// store and the tier's own log take its part. Its oldest closed segments are removed; the newest stay, because
/// the numbers of operations go on from them.
fn trim_wal(path: &Path) {
    const CLOSED: &str = "closed-";
    let number = |name: &str| name.strip_prefix(CLOSED).and_then(|number| number.parse::<u64>().ok());
    let Ok(entries) = std::fs::read_dir(path.join("wal")) else { return };
    let mut closed: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry.file_name().to_string_lossy())?, entry.path())))
        .collect();
    closed.sort_unstable();
    let kept = closed.len().saturating_sub(WAL_SEGMENTS_KEPT);
    for (_, path) in closed.into_iter().take(kept) {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old segment of the engine's log stays");
            return;
        }
    }
}

/// The one mapping of the engine's errors.
pub fn error(error: OperationError) -> Error {
    let kind = match &error {
        OperationError::Timeout { .. } => ErrorKind::Timeout,
        OperationError::OutOfMemory { .. } => ErrorKind::StorageFull,
        OperationError::Cancelled { .. } => ErrorKind::Unavailable,
        OperationError::InconsistentStorage { .. } => ErrorKind::Corrupt,
        OperationError::WrongVectorDimension { .. }
        | OperationError::VectorNameNotExists { .. }
        | OperationError::TypeError { .. }
        | OperationError::ValidationError { .. }
        | OperationError::WrongSparse
        | OperationError::WrongMulti => ErrorKind::Rejected,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("qdrant-edge: {error}")).with_source(error)
}
