//! What is open: the directory, its tables, the position.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lancedb::Connection;
use mainstay_core::{CollectionName, CollectionRef, CollectionSpec, Error, Lsn, Position, Record, Result};
use parking_lot::{Mutex, RwLock};

use crate::barrier::{Barrier, list_tables, remove_table, roll_back, sync_directory};
use crate::error::{self, native};
use crate::layout::Layout;
use crate::position::StoreRecord;
use crate::root::Root;
use crate::table::CollectionTable;

/// The store as it is open now. When the directory changes underneath, the session ends and another
/// one begins with what the directory says.
pub(crate) struct Session {
    root: Arc<Root>,
    connection: Connection,
    tables: RwLock<BTreeMap<CollectionName, Arc<CollectionTable>>>,
    progress: Mutex<Progress>,
    barrier: Arc<Barrier>,
    /// The record on disk.
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
    /// Opens a directory and goes back to what was durable.
    pub(crate) async fn open(path: &Path, create: bool) -> Result<Self> {
        let path = path.to_owned();
        let (root, record) = tokio::task::spawn_blocking(move || {
            let (root, record) = Root::open(&path, create)?;
            for table in list_tables(root.base())? {
                match record.tables.get(&table) {
                    Some(version) => roll_back(root.base(), &table, *version)?,
                    None => remove_table(root.base(), &table)?,
                }
            }
            Ok((root, record))
        })
        .await
        .map_err(error::task)??;
        let uri = root.base().to_str().ok_or_else(|| {
            Error::invalid(format!("the directory {} has a name that is no UTF-8", root.base().display()))
        })?;
        let connection =
            Box::pin(lancedb::connect(uri).execute()).await.map_err(native("opening the directory"))?;
        let root = Arc::new(root);
        let mut tables = BTreeMap::new();
        for (name, version) in &record.tables {
            if !crate::barrier::table_path(root.base(), name).is_dir() {
                return Err(error::corrupt(format!(
                    "table {name} is missing; restore the directory from a backup, or empty it to have the \
                     store filled again"
                )));
            }
            let table = Box::pin(CollectionTable::open(&connection, &root, name)).await?;
            if table.lance_version().await? != *version {
                return Err(error::corrupt(format!("table {name} is not at version {version}")));
            }
            // What was rolled back left files behind, and they may be what fills the disk.
            if let Err(e) = table.remove_old_versions(Duration::ZERO).await {
                tracing::warn!(error = %e, "files of versions that are gone stay for now");
            }
            tables.insert(table.layout.spec.name.clone(), Arc::new(table));
        }
        Ok(Self {
            root,
            connection,
            tables: RwLock::new(tables),
            // Tables without a position are a load that was cut short.
            progress: Mutex::new(Progress {
                position: record.position,
                restoring: record.position.is_none() && !record.tables.is_empty(),
            }),
            barrier: Arc::default(),
            record: Mutex::new(record),
            dirty: AtomicBool::new(false),
        })
    }

    pub(crate) fn verify(&self) -> Result<()> {
        self.root.verify()
    }

    /// Gives the directory back.
    pub(crate) fn release(&self) {
        self.root.release();
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
        let table = Box::pin(CollectionTable::create(&self.connection, &self.root, layout)).await?;
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
        let (base, name) = (self.root.base().to_owned(), table.name.clone());
        tokio::task::spawn_blocking(move || remove_table(&base, &name)).await.map_err(error::task)?
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
        let changed: Vec<String> = tables
            .iter()
            .filter(|(name, version)| record.tables.get(*name) != Some(version))
            .map(|(name, _)| name.clone())
            .collect();
        let (root, barrier) = (self.root.clone(), self.barrier.clone());
        tokio::task::spawn_blocking(move || {
            changed.iter().try_for_each(|table| barrier.sync(root.base(), table))?;
            sync_directory(root.base())
        })
        .await
        .map_err(error::task)??;
        self.write_record(StoreRecord { position, tables, ..record }).await?;
        self.verify()?;
        self.set_progress(Progress { position, restoring: position.is_none() });
        Ok(())
    }

    async fn write_record(&self, record: StoreRecord) -> Result<()> {
        let record = StoreRecord { sequence: record.sequence + 1, ..record };
        let (root, written) = (self.root.clone(), record.clone());
        tokio::task::spawn_blocking(move || root.write_record(&written)).await.map_err(error::task)??;
        *self.record.lock() = record;
        Ok(())
    }
}
