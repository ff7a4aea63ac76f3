//! A store in an object store: the record as the fence, and tables that nobody else goes on writing.
//!
//! There is no lock here. Opening writes the record with another holder in it, under the condition that it is
//! the one just read; the earlier holder's next record then fails and ends its session. What he still commits
//! to the tables is noticed ([`Commits`]) and rolled back. An answered put is durable, and an object is whole
//! or absent, so the barrier has nothing to sync.

mod bucket;
mod client;
mod commits;
mod probe;

use std::sync::Arc;

use lancedb::{Connection, ObjectStoreRegistry, Table};
use mainstay_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

pub(crate) use bucket::Bucket;
use bucket::{Seen, Taken};
pub(crate) use client::{SCHEMES, connect};
use commits::Commits;

use crate::error::{self, native};
use crate::layout::Layout;
use crate::place::caches;
use crate::position::StoreRecord;

/// A prefix of an object store that this session holds.
pub(crate) struct Objects {
    bucket: Bucket,
    commits: Arc<Commits>,
    /// The record that this session last wrote.
    written: Mutex<Seen>,
}

impl Objects {
    /// Takes the store over. The first time from anybody, later only if nobody else took it meanwhile: two that
    /// both want it would take it from each other for ever. Tables that the record does not name go.
    pub(crate) async fn open(bucket: &Bucket, first: bool) -> Result<(Self, StoreRecord)> {
        let Taken { record, version, tables } = bucket.take_over(first).await?;
        for table in tables.iter().filter(|table| !record.tables.contains_key(*table)) {
            bucket.remove_table(table).await?;
        }
        if let Some(missing) = record.tables.keys().find(|table| !tables.contains(*table)) {
            return Err(error::corrupt(format!("table {missing} is missing; {}", error::RESTORE_OR_EMPTY)));
        }
        let commits = Arc::new(Commits::new(bucket.store().clone(), bucket.prefix().clone()));
        let written = Mutex::new(Seen { version, sequence: record.sequence });
        Ok((Self { bucket: bucket.clone(), commits, written }, record))
    }

    /// LanceDB over this session's view of the store, and over no other.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let registry = ObjectStoreRegistry::default();
        registry.insert(self.bucket.scheme(), Arc::new(self.bucket.provider(self.commits.clone())));
        let connecting = lancedb::connect(self.bucket.url()).session(caches(Arc::new(registry)));
        Box::pin(connecting.execute()).await.map_err(native("opening the object store"))
    }

    /// A table as it was at a version. What came after it is undone by a newer version that is equal to it.
    pub(crate) async fn open_table(
        &self,
        connection: &Connection,
        name: &str,
        version: u64,
    ) -> Result<Table> {
        let table = connection.open_table(name).execute().await.map_err(native("opening a table"))?;
        let at = table.version().await.map_err(native("reading the version of a table"))?;
        self.commits.adopt(name, at).await;
        if at == version {
            return Ok(table);
        }
        if at < version || !self.bucket.has_version(name, version).await? {
            return Err(error::corrupt(format!(
                "version {version} of table {name} is missing; {}",
                error::RESTORE_OR_EMPTY
            )));
        }
        let back = async {
            table.checkout(version).await?;
            table.restore().await
        };
        Box::pin(back).await.map_err(native("going back to the version of the record"))?;
        tracing::info!(table = name, from = at, to = version, "went back to what the record speaks of");
        Ok(table)
    }

    /// The name of a new table. No two are alike, so that what an earlier holder still removes is never ours.
    pub(crate) fn table_name(layout: &Layout) -> String {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        format!("{}-{}", layout.table_name(), &unique[..8])
    }

    /// Whether this session is still the holder, as far as it knows.
    ///
    /// # Errors
    /// `Unavailable` if not.
    pub(crate) fn check(&self) -> Result<()> {
        match self.commits.ended() {
            Some(why) => Err(Error::new(ErrorKind::Unavailable, format!("{}: {why}", self.bucket.url()))),
            None => Ok(()),
        }
    }

    /// Asks the object store whether this session is still the holder.
    ///
    /// # Errors
    /// `Unavailable` if not, and whatever keeps the store from answering.
    pub(crate) async fn confirm(&self) -> Result<()> {
        self.check()?;
        let written = self.written.lock().clone();
        if self.bucket.is_in_place(&written).await? {
            return Ok(());
        }
        // Another record: ours, if a flush is under way.
        let written = self.written.lock().clone();
        match self.bucket.read_record().await? {
            Some((record, _)) if self.bucket.is_mine(&record) && record.sequence >= written.sequence => {
                Ok(())
            }
            found => Err(self.lost_to(found.map(|(record, _)| record))),
        }
    }

    /// Writes the record in place of the one that this session last wrote.
    ///
    /// # Errors
    /// `Unavailable` if that one is not in place any more.
    pub(crate) async fn write_record(&self, record: &StoreRecord, holding: bool) -> Result<()> {
        self.check()?;
        let record = StoreRecord { holder: holding.then(|| self.bucket.holder().clone()), ..record.clone() };
        let before = self.written.lock().version.clone();
        match self.bucket.put_record(&record, Some(&before)).await? {
            Ok(version) => {
                *self.written.lock() = Seen { version, sequence: record.sequence };
                Ok(())
            }
            Err(found) => Err(self.lost_to(found)),
        }
    }

    fn lost_to(&self, found: Option<StoreRecord>) -> Error {
        let why = match found {
            None => "the store lost its record".to_owned(),
            Some(record) => match record.holder {
                Some(holder) if holder != *self.bucket.holder() => {
                    format!("{} took the store over", holder.name)
                }
                _ => "the store holds another record than the one that was written last".to_owned(),
            },
        };
        self.commits.end(why.clone());
        Error::new(ErrorKind::Unavailable, format!("{}: {why}", self.bucket.url()))
    }

    /// Fails if a table is at a version that is none of this session's.
    pub(crate) async fn check_version(&self, table: &str, version: u64) -> Result<()> {
        if self.commits.newest(table).await.is_some_and(|newest| version <= newest) {
            return Ok(());
        }
        self.commits.end(format!("version {version} of table {table} was not written by this session"));
        self.check()
    }

    /// Removes a table's objects.
    pub(crate) async fn remove_table(&self, table: &str) -> Result<()> {
        self.check()?;
        self.bucket.remove_table(table).await
    }

    /// Lets nothing more be written in this session.
    pub(crate) fn end(&self) {
        self.commits.end("the session is over".to_owned());
    }
}
