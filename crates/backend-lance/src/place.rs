//! Where a store is: a directory on this machine, or a prefix of an object store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use lance::dataset::cleanup::CleanupPolicy;
use lancedb::table::OptimizeAction;
use lancedb::{Connection, ObjectStoreRegistry, Session, Table};
use mainstay_core::{Error, Result};

use crate::barrier::{Barrier, list_tables, remove_table, roll_back, sync_directory};
use crate::error::{self, native};
use crate::layout::Layout;
use crate::objects::{Bucket, Objects};
use crate::position::StoreRecord;
use crate::root::Root;

/// Where to open a store.
#[derive(Clone)]
pub(crate) enum Location {
    Directory(PathBuf),
    Objects(Box<Bucket>),
}

/// A place that a session holds.
pub(crate) enum Place {
    Directory(Arc<Root>, Arc<Barrier>),
    Objects(Box<Objects>),
}

/// Bytes of descriptions of tables that LanceDB keeps. Every version has some of its own, and it would keep those of 1 GiB,
/// nearly all of which nobody asks for again.
const METADATA_CACHE: usize = 64 << 20;
/// Bytes of indexes that LanceDB keeps, of which its tables have none here; it would keep 6 GiB.
const INDEX_CACHE: usize = 64 << 20;

/// A session of LanceDB that keeps little.
pub(crate) fn caches(registry: Arc<ObjectStoreRegistry>) -> Arc<Session> {
    Arc::new(Session::new(INDEX_CACHE, METADATA_CACHE, registry))
}

impl Place {
    /// Takes a place and goes back to what its record speaks of, as far as that is done before LanceDB opens
    /// it. The first time, a directory is created, and an object store taken over from whoever had it.
    pub(crate) async fn open(location: &Location, first: bool) -> Result<(Self, StoreRecord)> {
        match location {
            Location::Directory(path) => {
                let path = path.clone();
                let (root, record) = blocking(move || {
                    let (root, record) = Root::open(&path, first)?;
                    let tables = list_tables(root.base())?;
                    for table in &tables {
                        match record.tables.get(table) {
                            Some(version) => roll_back(root.base(), table, *version)?,
                            None => remove_table(root.base(), table)?,
                        }
                    }
                    match record.tables.keys().find(|table| !tables.contains(table)) {
                        Some(missing) => Err(error::corrupt(format!(
                            "table {missing} is missing; {}",
                            error::RESTORE_OR_EMPTY
                        ))),
                        None => Ok((root, record)),
                    }
                })
                .await?;
                Ok((Self::Directory(Arc::new(root), Arc::default()), record))
            }
            Location::Objects(bucket) => {
                let (objects, record) = Objects::open(bucket, first).await?;
                Ok((Self::Objects(Box::new(objects)), record))
            }
        }
    }

    /// LanceDB over the place.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        match self {
            Self::Directory(root, _) => {
                let base = root.base();
                let uri = base.to_str().ok_or_else(|| {
                    Error::invalid(format!("the directory {} has a name that is no UTF-8", base.display()))
                })?;
                let connecting = lancedb::connect(uri).session(caches(Arc::default()));
                Box::pin(connecting.execute()).await.map_err(native("opening the directory"))
            }
            Self::Objects(objects) => objects.connect().await,
        }
    }

    /// A table with the content of a version, the newest one from now on.
    pub(crate) async fn open_table(
        &self,
        connection: &Connection,
        name: &str,
        version: u64,
    ) -> Result<Table> {
        match self {
            Self::Directory(..) => {
                let table = connection.open_table(name).execute().await.map_err(native("opening a table"))?;
                let at = table.version().await.map_err(native("reading the version of a table"))?;
                if at == version {
                    Ok(table)
                } else {
                    Err(error::corrupt(format!("table {name} is not at version {version}")))
                }
            }
            Self::Objects(objects) => objects.open_table(connection, name, version).await,
        }
    }

    /// The name of a new table.
    pub(crate) fn table_name(&self, layout: &Layout) -> String {
        match self {
            Self::Directory(..) => layout.table_name(),
            Self::Objects(_) => Objects::table_name(layout),
        }
    }

    /// Whether the place is still the one that was opened, as far as this can be said without waiting: what a
    /// directory says, or whether a write to an object store was refused.
    ///
    /// # Errors
    /// `Unavailable` if not.
    pub(crate) fn verify(&self) -> Result<()> {
        match self {
            Self::Directory(root, _) => root.verify(),
            Self::Objects(objects) => objects.check(),
        }
    }

    /// Whether the place is still the one that was opened; an object store is asked.
    ///
    /// # Errors
    /// `Unavailable` if not, and whatever keeps an object store from answering.
    pub(crate) async fn confirm(&self) -> Result<()> {
        match self {
            Self::Directory(root, _) => root.verify(),
            Self::Objects(objects) => objects.confirm().await,
        }
    }

    /// The barrier over tables at these versions. An object store has nothing to sync: what it answered is
    /// durable.
    pub(crate) async fn sync(&self, tables: Vec<(String, u64)>) -> Result<()> {
        match self {
            Self::Directory(root, barrier) => {
                let (root, barrier) = (root.clone(), barrier.clone());
                blocking(move || {
                    tables.iter().try_for_each(|(table, _)| barrier.sync(root.base(), table))?;
                    sync_directory(root.base())
                })
                .await
            }
            Self::Objects(objects) => {
                for (table, version) in tables {
                    objects.check_version(&table, version).await?;
                }
                Ok(())
            }
        }
    }

    /// Replaces the record.
    pub(crate) async fn write_record(&self, record: &StoreRecord) -> Result<()> {
        match self {
            Self::Directory(root, _) => {
                let (root, record) = (root.clone(), record.clone());
                blocking(move || root.write_record(&record)).await
            }
            Self::Objects(objects) => objects.write_record(record, true).await,
        }
    }

    /// Removes a table that the record does not name.
    pub(crate) async fn remove_table(&self, table: &str) -> Result<()> {
        match self {
            Self::Directory(root, _) => {
                let (root, table) = (root.clone(), table.to_owned());
                blocking(move || remove_table(root.base(), &table)).await
            }
            Self::Objects(objects) => objects.remove_table(table).await,
        }
    }

    /// Removes versions of a table older than this, and files that no version speaks of. The newest version
    /// stays. Nobody writes meanwhile: this process has the place, and the caller the writer's lock.
    ///
    /// In an object store only versions before the recorded one go: whoever has taken the store over by now
    /// may rely on that one and all later ones, and on files that no version speaks of yet.
    pub(crate) async fn remove_old_versions(
        &self,
        table: &Table,
        older_than: Duration,
        recorded: Option<u64>,
    ) -> Result<()> {
        let most = chrono::Duration::days(3_650);
        let age = chrono::Duration::from_std(older_than).map_or(most, |age| age.min(most));
        let removing = native("removing old versions of a table");
        match self {
            Self::Directory(..) => {
                let prune = OptimizeAction::Prune {
                    older_than: Some(age),
                    delete_unverified: Some(true),
                    error_if_tagged_old_versions: Some(false),
                };
                Box::pin(table.optimize(prune)).await.map_err(removing)?;
            }
            Self::Objects(_) => {
                let (Some(recorded), Some(dataset)) = (recorded, table.dataset()) else { return Ok(()) };
                let policy = CleanupPolicy {
                    before_version: Some(recorded),
                    before_timestamp: Some(Utc::now() - age),
                    error_if_tagged_old_versions: false,
                    ..CleanupPolicy::default()
                };
                let dataset = dataset.get().await.map_err(removing)?;
                let removed = Box::pin(dataset.cleanup_with_policy(policy)).await;
                removed.map_err(|e| native("removing old versions of a table")(e.into()))?;
            }
        }
        Ok(())
    }

    /// Gives the place up, without a word to anybody.
    pub(crate) fn release(&self) {
        match self {
            Self::Directory(root, _) => root.release(),
            Self::Objects(objects) => objects.end(),
        }
    }

    /// Gives the place back, so that the next one need not ask whether it is held.
    pub(crate) async fn give_back(&self, record: &StoreRecord) {
        if let Self::Objects(objects) = self
            && let Err(e) = objects.write_record(record, false).await
        {
            tracing::debug!(error = %e, "the record goes on naming this process");
        }
        self.release();
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(error::task)?
}
