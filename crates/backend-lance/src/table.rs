//! One collection incarnation in one LanceDB table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::{RecordBatch, RecordBatchIterator};
use futures::TryStreamExt;
use lancedb::expr::DfExpr;
use lancedb::query::{ExecutableQuery, QueryBase, Select};
use lancedb::{Connection, Table};
use mainstay_core::parts::parts;
use mainstay_core::{Error, ErrorKind, Fields, Lsn, Point, PointId, Record, Result};
use parking_lot::RwLock;

use crate::convert::{keys, to_batch, to_records};
use crate::error::native;
use crate::filter::with_ids;
use crate::layout::{ID, Layout, VERSION};
use crate::place::Place;

/// Most ids that one statement names.
pub(crate) const MAX_IDS_PER_STATEMENT: usize = 8_192;

/// Most bytes of points in one batch: Arrow counts the bytes of a text column in 31 bits, and JSON
/// may write one byte as six.
const MAX_BATCH_BYTES: usize = 256 << 20;

/// The table of a collection with the ids that it holds.
///
/// Only this process writes to the table, so ids and versions are known without asking it: the
/// version guard of a write, the order of a scroll and a plain count cost no scan. A read takes a
/// moment of the ids and a later one of the rows; a point deleted in between is passed over.
pub(crate) struct CollectionTable {
    pub layout: Layout,
    pub name: String,
    table: Table,
    /// The path of a table in a directory goes through its handle, which must stay open as long.
    place: Arc<Place>,
    ids: RwLock<BTreeMap<PointId, Lsn>>,
    /// Commits since the last compaction.
    pub commits: AtomicUsize,
    /// Whether the dense vectors have indexes.
    pub indexed: AtomicBool,
    /// How many points there must be before another index build is tried; grows with each failure.
    pub index_from_rows: AtomicUsize,
    /// Points written since the indexes were last brought up to date.
    pub unindexed_rows: AtomicUsize,
}

impl CollectionTable {
    pub(crate) async fn create(connection: &Connection, place: &Arc<Place>, layout: Layout) -> Result<Self> {
        let name = place.table_name(&layout);
        let table = connection
            .create_empty_table(&name, layout.schema.clone())
            .execute()
            .await
            .map_err(native("creating a table"))?;
        // Without it LanceDB does not notice two merges that insert one id.
        table.set_unenforced_primary_key([ID]).await.map_err(native("setting the key of a table"))?;
        Ok(Self {
            layout,
            name,
            table,
            place: place.clone(),
            ids: RwLock::default(),
            commits: AtomicUsize::new(0),
            indexed: AtomicBool::new(false),
            index_from_rows: AtomicUsize::new(0),
            unindexed_rows: AtomicUsize::new(0),
        })
    }

    pub(crate) async fn open(table: Table, place: &Arc<Place>, name: &str) -> Result<Self> {
        let schema = table.schema().await.map_err(native("reading the schema of a table"))?;
        let layout = Layout::read(name, &schema)?;
        let mut ids = BTreeMap::new();
        let columns = [ID.to_owned(), VERSION.to_owned()];
        let mut rows = scan(&table, &columns, None, false).await?;
        while let Some(batch) = rows.try_next().await.map_err(native("reading the ids of a table"))? {
            for (id, version) in keys(&batch)? {
                if ids.insert(id, version).is_some() {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("table {name} holds point {id} twice"),
                    ));
                }
            }
        }
        let indices = table.list_indices().await.map_err(native("listing the indexes of a table"))?;
        Ok(Self {
            layout,
            name: name.to_owned(),
            table,
            place: place.clone(),
            ids: RwLock::new(ids),
            commits: AtomicUsize::new(0),
            indexed: AtomicBool::new(!indices.is_empty()),
            index_from_rows: AtomicUsize::new(0),
            unindexed_rows: AtomicUsize::new(0),
        })
    }

    pub(crate) fn native(&self) -> &Table {
        &self.table
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.read().len()
    }

    /// The version of a point that is there.
    pub(crate) fn version_of(&self, id: PointId) -> Option<Lsn> {
        self.ids.read().get(&id).copied()
    }

    /// Those of these ids that are there.
    pub(crate) fn present(&self, ids: &[PointId]) -> Vec<PointId> {
        let known = self.ids.read();
        ids.iter().copied().filter(|id| known.contains_key(id)).collect()
    }

    /// The first ids after one, at most `limit`.
    pub(crate) fn ids_after(&self, after: Option<PointId>, limit: usize) -> Vec<PointId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.ids.read().range((from, Unbounded)).take(limit).map(|(id, _)| *id).collect()
    }

    /// The LanceDB version that reads see.
    pub(crate) async fn lance_version(&self) -> Result<u64> {
        self.table.version().await.map_err(native("reading the version of a table"))
    }

    /// A view of the table that later commits do not change.
    pub(crate) async fn snapshot(&self) -> Result<Table> {
        self.table.query_snapshot().await.map_err(native("taking a snapshot of a table"))
    }

    /// The points with these ids in a snapshot, in no order.
    pub(crate) async fn records(
        &self,
        snapshot: &Table,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_IDS_PER_STATEMENT) {
            let filter = with_ids(ids.iter().copied());
            let columns = self.layout.columns(fields);
            let mut rows = scan(snapshot, &columns, Some(filter), false).await?;
            while let Some(batch) = rows.try_next().await.map_err(native("reading points"))? {
                records.extend(to_records(&self.layout, &batch, fields)?);
            }
        }
        Ok(records)
    }

    /// Writes whole points and removes ids, which are others. Nobody else writes meanwhile.
    pub(crate) async fn write(&self, puts: &[(&Point, Lsn)], deletes: &[PointId]) -> Result<()> {
        for ids in deletes.chunks(MAX_IDS_PER_STATEMENT) {
            let filter = with_ids(ids.iter().copied());
            self.table.delete(&filter).await.map_err(native("deleting points"))?;
            let mut known = self.ids.write();
            for id in ids {
                known.remove(id);
            }
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        let sized = puts.iter().map(|put| (put.0.size_bytes(), *put));
        let batches: Vec<_> = parts(sized, usize::MAX, MAX_BATCH_BYTES).collect();
        for rows in batches {
            self.put(&rows).await?;
        }
        Ok(())
    }

    async fn put(&self, rows: &[(&Point, Lsn)]) -> Result<()> {
        let batch = to_batch(&self.layout, rows.iter().copied())?;
        let all_new = {
            let known = self.ids.read();
            rows.iter().all(|(point, _)| !known.contains_key(&point.id))
        };
        if all_new {
            self.append(batch).await?
        } else {
            self.merge(batch).await?
        }
        self.ids.write().extend(rows.iter().map(|(point, version)| (point.id, *version)));
        self.unindexed_rows.fetch_add(rows.len(), Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes versions older than this, and files that no version speaks of; `recorded` is the version that the
    /// record names. Nobody writes meanwhile.
    pub(crate) async fn remove_old_versions(
        &self,
        older_than: Duration,
        recorded: Option<u64>,
    ) -> Result<()> {
        self.place.remove_old_versions(&self.table, older_than, recorded).await
    }

    /// Cheaper than a merge, which joins with every row of the table.
    async fn append(&self, batch: RecordBatch) -> Result<()> {
        self.table.add(batch).execute().await.map_err(native("adding points"))?;
        Ok(())
    }

    async fn merge(&self, batch: RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let mut merge = self.table.merge_insert(&[ID]);
        merge.when_matched_update_all(None).when_not_matched_insert_all();
        let rows = Box::new(RecordBatchIterator::new([Ok(batch)], schema));
        Box::pin(merge.execute(rows)).await.map_err(native("merging points"))?;
        Ok(())
    }
}

/// Rows of these columns that pass a predicate.
pub(crate) async fn scan(
    table: &Table,
    columns: &[String],
    filter: Option<DfExpr>,
    with_row_id: bool,
) -> Result<lancedb::arrow::SendableRecordBatchStream> {
    let mut query = table.query().select(Select::columns(columns));
    if let Some(filter) = filter {
        query = query.only_if_expr(filter);
    }
    if with_row_id {
        query = query.with_row_id();
    }
    Box::pin(query.execute()).await.map_err(native("scanning a table"))
}
