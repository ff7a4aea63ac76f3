//! What is open: the place, its tables, the position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lancedb::Connection;
use mainstay_core::{CollectionName, CollectionRef, CollectionSpec, Error, Lsn, Position, Record, Result};
use parking_lot::{Mutex, RwLock};

use crate::layout::Layout;
use crate::place::{Location, Place};
use crate::position::StoreRecord;
use crate::table::CollectionTable;

/// The store as it is open now. When the place changes underneath, the session ends and another
/// one begins with what the place says.
pub(crate) struct Session {
    place: Arc<Place>,
    connection: Connection,
    tables: RwLock<BTreeMap<CollectionName, Arc<CollectionTable>>>,
    progress: Mutex<Progress>,
    /// The record in place.
    record: Mutex<StoreRecord>,
    /// Whether anything was written since the last flush.
    dirty: AtomicBool,
}

/// How far the tables are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub position: Option<Position>,
    /// Between the first and the last step of a restore.
    pub restoring: bool,
}

impl Session {
    /// Opens a place and goes back to what was durable.
    pub(crate) async fn open(location: &Location, first: bool) -> Result<Self> {
        let (place, record) = Place::open(location, first).await?;
        let place = Arc::new(place);
        let connection = place.connect().await?;
        let (mut tables, mut went_back) = (BTreeMap::new(), false);
        for (name, version) in &record.tables {
            let native = Box::pin(place.open_table(&connection, name, *version)).await?;
            let table = Box::pin(CollectionTable::open(native, &place, name)).await?;
            went_back |= table.lance_version().await? != *version;
            // What was rolled back left files behind, and they may be what fills the disk.
            if let Err(e) = table.remove_old_versions(Duration::ZERO, Some(*version)).await {
                tracing::warn!(error = %e, "files of versions that are gone stay for now");
            }
            tables.insert(table.layout.spec.name.clone(), Arc::new(table));
        }
        Ok(Self {
            place,
            connection,
            tables: RwLock::new(tables),
            // Tables without a position are a load that was cut short.
            progress: Mutex::new(Progress {
                position: record.position,
                restoring: record.position.is_none() && !record.tables.is_empty(),
            }),
            record: Mutex::new(record),
            // Then the next record had better name the version that we went back by.
            dirty: AtomicBool::new(went_back),
        })
    }

    pub(crate) fn verify(&self) -> Result<()> {
        self.place.verify()
    }

    /// Asks the place whether it is still ours.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.place.confirm().await
    }

    /// Gives the place up.
    pub(crate) fn release(&self) {
        self.place.release();
    }

    /// Gives the place back for whoever wants it next.
    pub(crate) async fn give_back(&self) {
        let record = self.record.lock().clone();
        self.place.give_back(&StoreRecord { sequence: record.sequence + 1, ..record }).await;
    }

    /// The version of a table that the record names.
    pub(crate) fn recorded(&self, table: &str) -> Option<u64> {
        self.record.lock().tables.get(table).copied()
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    pub(crate) fn set_progress(&self, progress: Progress) {
        *self.progress.lock() = progress;
    }

    pub(crate) fn tables(&self) -> Vec<Arc<CollectionTable>> {
        self.tables.read().values().cloned().collect()
    }

    pub(crate) fn find(&self, name: &CollectionName) -> Option<Arc<CollectionTable>> {
        self.tables.read().get(name).cloned()
    }

    pub(crate) fn table(&self, name: &CollectionName) -> Result<Arc<CollectionTable>> {
        self.find(name).ok_or_else(|| Error::collection_not_found(name))
    }

    /// The table of exactly this incarnation.
    pub(crate) fn table_of(&self, collection: &CollectionRef) -> Option<Arc<CollectionTable>> {
        self.find(&collection.name).filter(|table| table.layout.incarnation == collection.incarnation)
    }

    /// Says that the tables are about to differ from the record.
    pub(crate) fn touch(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Creates an empty collection; an older incarnation goes first. One that is there, or a newer
    /// one, stays.
    pub(crate) async fn create(&self, spec: &CollectionSpec, incarnation: Lsn) -> Result<()> {
        if let Some(table) = self.find(&spec.name) {
            if table.layout.incarnation >= incarnation {
                return Ok(());
            }
            self.remove(&table).await?;
        }
        self.touch();
        let layout = Layout::new(spec, incarnation);
        let table = Box::pin(CollectionTable::create(&self.connection, &self.place, layout)).await?;
        self.tables.write().insert(spec.name.clone(), Arc::new(table));
        Ok(())
    }

    /// Removes a collection. The record stops naming the table before its files go, so that a table
    /// that the record names and that is missing is damage.
    pub(crate) async fn remove(&self, table: &Arc<CollectionTable>) -> Result<()> {
        self.touch();
        self.tables.write().remove(&table.layout.spec.name);
        let mut record = self.record.lock().clone();
        if record.tables.remove(&table.name).is_some() {
            self.write_record(record).await?;
        }
        self.place.remove_table(&table.name).await
    }

    /// Forgets everything; durably, before anything is removed.
    pub(crate) async fn clear(&self, restoring: bool) -> Result<()> {
        self.touch();
        self.set_progress(Progress { position: None, restoring });
        let record = self.record.lock().clone();
        self.write_record(StoreRecord { position: None, tables: BTreeMap::new(), ..record }).await?;
        for table in self.tables() {
            self.remove(&table).await?;
        }
        Ok(())
    }

    /// Writes records with the versions they carry.
    pub(crate) async fn load(&self, collection: &CollectionRef, records: &[Record]) -> Result<()> {
        let table = self.table_of(collection).ok_or_else(|| Error::collection_not_found(&collection.name))?;
        let newer = |record: &&Record| table.version_of(record.point.id).is_none_or(|v| v < record.version);
        let rows: Vec<_> =
            records.iter().filter(newer).map(|record| (&record.point, record.version)).collect();
        for (point, _) in &rows {
            crate::effects::check_point(&table.layout.spec, point)?;
        }
        self.touch();
        table.write(&rows, &[]).await
    }

    /// The barrier: syncs what is new, then records the position. Nobody writes meanwhile. During a
    /// restore the record stays without a position.
    pub(crate) async fn flush(&self) -> Result<Option<Position>> {
        let progress = self.progress();
        match progress.position {
            Some(position) if self.dirty.load(Ordering::Acquire) => self.flush_at(Some(position)).await?,
            _ => {}
        }
        Ok(progress.position)
    }

    /// The barrier, with this position from now on; without one, a load goes on.
    pub(crate) async fn flush_at(&self, position: Option<Position>) -> Result<()> {
        self.verify()?;
        // Cleared first: what an index build commits meanwhile belongs to the next flush.
        self.dirty.store(false, Ordering::Release);
        let flushed = self.sync_and_record(position).await;
        if flushed.is_err() {
            self.touch();
        }
        flushed
    }

    async fn sync_and_record(&self, position: Option<Position>) -> Result<()> {
        let mut tables = BTreeMap::new();
        for table in self.tables() {
            tables.insert(table.name.clone(), table.lance_version().await?);
        }
        let record = self.record.lock().clone();
        let changed = tables.iter().filter(|(name, version)| record.tables.get(*name) != Some(version));
        self.place.sync(changed.map(|(name, version)| (name.clone(), *version)).collect()).await?;
        self.write_record(StoreRecord { position, tables, ..record }).await?;
        self.verify()?;
        self.set_progress(Progress { position, restoring: position.is_none() });
        Ok(())
    }

    async fn write_record(&self, record: StoreRecord) -> Result<()> {
        let record = StoreRecord { sequence: record.sequence + 1, ..record };
        self.place.write_record(&record).await?;
        *self.record.lock() = record;
        Ok(())
    }
}
