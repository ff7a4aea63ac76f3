//! A prefix of an object store: its record and its tables, whoever holds them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use lance_io::object_store::{
    DEFAULT_CLOUD_IO_PARALLELISM, DEFAULT_DOWNLOAD_RETRY_COUNT, ObjectStore as LanceObjectStore,
    ObjectStoreParams, ObjectStoreProvider,
};
use mainstay_core::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{
    Error as ObjectError, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    UpdateVersion,
};
use url::Url;
use uuid::Uuid;

use super::probe::{self, PROBE_PREFIX};
use crate::barrier::{table_directory, table_of_directory};
use crate::error;
use crate::position::{Holder, RECORD_FILE, StoreRecord};

/// How often a put of the record that got no answer is sent.
const PUTS: usize = 3;
/// How often taking a store over is tried while others do the same.
const TAKEOVERS: usize = 8;
/// From what age on a probe is one that a crash left behind.
const PROBE_AGE: TimeDelta = TimeDelta::hours(1);

/// A prefix of an object store.
#[derive(Clone)]
pub(crate) struct Bucket {
    url: Url,
    prefix: Path,
    store: Arc<dyn ObjectStore>,
    /// Whether the parts of an upload must be of one size (Cloudflare R2).
    equal_parts: bool,
    holder: Holder,
}

/// A record that was seen in place.
#[derive(Clone)]
pub(crate) struct Seen {
    pub version: UpdateVersion,
    pub sequence: u64,
}

/// What there was when a store was taken over.
pub(super) struct Taken {
    /// The record that names the new holder.
    pub record: StoreRecord,
    pub version: UpdateVersion,
    /// The tables that were there before. Whoever comes next may have made others by now.
    pub tables: BTreeSet<String>,
}

/// The version of the record in place, or the record that is there instead of the one to be replaced.
pub(crate) type Put = Result<UpdateVersion, Option<StoreRecord>>;

impl Bucket {
    /// The store below a URL with a scheme, a host and a plain path.
    pub(crate) fn new(url: Url, store: Arc<dyn ObjectStore>, equal_parts: bool) -> Result<Self> {
        let prefix = Path::from_url_path(url.path())
            .map_err(|e| Error::invalid(format!("the path of the uri {url}: {e}")))?;
        Ok(Self { url, prefix, store, equal_parts, holder: holder() })
    }

    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.holder
    }

    pub(crate) fn is_mine(&self, record: &StoreRecord) -> bool {
        record.holder.as_ref() == Some(&self.holder)
    }

    /// What LanceDB is given for the scheme of the URL.
    pub(super) fn provider(&self, store: Arc<dyn ObjectStore>) -> Provider {
        Provider { store, equal_parts: self.equal_parts }
    }

    /// Whether the store keeps the conditions that everything here relies on.
    ///
    /// # Errors
    /// `Unsupported` if not.
    pub(crate) async fn probe(&self) -> Result<()> {
        probe::probe(&*self.store, &self.prefix).await
    }

    fn record_path(&self) -> Path {
        self.prefix.clone().join(RECORD_FILE)
    }

    /// The record in place.
    pub(crate) async fn read_record(&self) -> Result<Option<(StoreRecord, UpdateVersion)>> {
        let reading = error::object("reading the record");
        let found = match self.store.get(&self.record_path()).await {
            Ok(found) => found,
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(reading(e)),
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let text = found.bytes().await.map_err(reading)?;
        Ok(Some((StoreRecord::read_text(&String::from_utf8_lossy(&text))?, version)))
    }

    /// Whether this record is the one in place.
    pub(crate) async fn is_in_place(&self, record: &Seen) -> Result<bool> {
        match self.store.head(&self.record_path()).await {
            Ok(meta) => {
                Ok(is_same(&record.version, &UpdateVersion { e_tag: meta.e_tag, version: meta.version }))
            }
            Err(ObjectError::NotFound { .. }) => Ok(false),
            Err(e) => Err(error::object("looking at the record")(e)),
        }
    }

    /// Puts a record in place of another one, or where there is none. Whatever the answer is, and without one,
    /// the record in place says what became of it. No two records are alike, so the same one may be sent again:
    /// only one of both can take effect.
    pub(crate) async fn put_record(
        &self,
        record: &StoreRecord,
        before: Option<&UpdateVersion>,
    ) -> Result<Put> {
        let text = record.print();
        let mut attempt = 1;
        loop {
            let mode = before.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
            let payload = PutPayload::from(text.clone().into_bytes());
            let failed = match self.store.put_opts(&self.record_path(), payload, mode.into()).await {
                Ok(put) => return Ok(Ok(put.into())),
                Err(e) => e,
            };
            tracing::debug!(error = %failed, attempt, "no good answer to a put of the record");
            match (self.read_record().await?, before) {
                (Some((found, version)), _) if found == *record => return Ok(Ok(version)),
                (Some((found, version)), before)
                    if before.is_none_or(|before| !is_same(before, &version)) =>
                {
                    return Ok(Err(Some(found)));
                }
                (None, Some(_)) => return Ok(Err(None)),
                _ if attempt == PUTS => return Err(error::object("writing the record")(failed)),
                _ => attempt += 1,
            }
        }
    }

    /// Makes this process the holder, from whoever was it if `first` says so. An empty prefix becomes a new
    /// store.
    pub(super) async fn take_over(&self, first: bool) -> Result<Taken> {
        for _ in 0..TAKEOVERS {
            let found = self.read_record().await?;
            let there = self.list().await?;
            let appeared = || there.objects.iter().any(|object| object.location == self.record_path());
            let (before, version) = match found {
                Some((record, version)) => (record, Some(version)),
                None if appeared() => continue,
                None => {
                    self.refuse_foreign_objects(&there, first)?;
                    (StoreRecord::new(), None)
                }
            };
            if let Some(other) = before.holder.as_ref().filter(|other| **other != self.holder) {
                if !first {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!(
                            "{} has {} now; it is taken back when that process closes it, or by a restart of this one",
                            other.name, self.url
                        ),
                    )
                    .with_context("holder", &other.name));
                }
                tracing::warn!(uri = %self.url, holder = other.name, "taking over a store that was not closed");
            }
            let sequence = before.sequence + u64::from(version.is_some());
            let record = StoreRecord { sequence, holder: Some(self.holder.clone()), ..before };
            if let Ok(version) = self.put_record(&record, version.as_ref()).await? {
                self.remove_probes(&there).await;
                let tables = there.common_prefixes.iter().filter_map(|path| path.filename());
                let tables = tables.filter_map(table_of_directory);
                return Ok(Taken { record, version, tables: tables.map(str::to_owned).collect() });
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("others keep taking {} over", self.url)))
    }

    /// A prefix without a record must be empty: it may be somebody's, or a store that lost its record.
    fn refuse_foreign_objects(&self, there: &ListResult, opening: bool) -> Result<()> {
        let objects = there.objects.iter().map(|object| &object.location);
        let mut names = objects.chain(&there.common_prefixes).filter_map(|path| path.filename());
        let Some(name) = names.find(|name| !name.starts_with(PROBE_PREFIX)) else { return Ok(()) };
        let kind = if opening { ErrorKind::Invalid } else { ErrorKind::Unavailable };
        Err(Error::new(
            kind,
            format!(
                "{} holds {name:?} but no {RECORD_FILE}, so it is no store; give an empty or new prefix",
                self.url
            ),
        ))
    }

    /// What is right below the prefix.
    async fn list(&self) -> Result<ListResult> {
        let found = self.store.list_with_delimiter(Some(&self.prefix)).await;
        found.map_err(error::object("listing the objects of the store"))
    }

    /// Removes the probes that a crash left behind; younger ones may be under way.
    async fn remove_probes(&self, found: &ListResult) {
        let is_old = |object: &&ObjectMeta| Utc::now() - object.last_modified > PROBE_AGE;
        let is_probe = |object: &&ObjectMeta| {
            object.location.filename().is_some_and(|name| name.starts_with(PROBE_PREFIX))
        };
        for probe in found.objects.iter().filter(is_probe).filter(is_old) {
            let removed = self.store.delete(&probe.location).await;
            removed.unwrap_or_else(|e| tracing::debug!(error = %e, "a probe stays for now"));
        }
    }

    /// Whether a version of a table is there, in LanceDB's new naming or its old one.
    pub(super) async fn has_version(&self, table: &str, version: u64) -> Result<bool> {
        let versions = self.prefix.clone().join(table_directory(table)).join("_versions");
        for name in [format!("{:020}.manifest", u64::MAX - version), format!("{version}.manifest")] {
            match self.store.head(&versions.clone().join(name)).await {
                Ok(_) => return Ok(true),
                Err(ObjectError::NotFound { .. }) => {}
                Err(e) => return Err(error::object("looking at a version of a table")(e)),
            }
        }
        Ok(false)
    }

    /// Removes every object of a table.
    pub(super) async fn remove_table(&self, table: &str) -> Result<()> {
        let directory = self.prefix.clone().join(table_directory(table));
        let found = self.store.list(Some(&directory)).map_ok(|object| object.location).boxed();
        let mut removed = self.store.delete_stream(found);
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(ObjectError::NotFound { .. }) => {}
                Err(e) => return Err(error::object("removing a table")(e)),
            }
        }
        Ok(())
    }
}

/// Whether two versions of an object are one. The tag changes with the content, which is never the same twice.
fn is_same(a: &UpdateVersion, b: &UpdateVersion) -> bool {
    match (&a.e_tag, &b.e_tag) {
        (Some(a), Some(b)) => a == b,
        _ => a.version == b.version,
    }
}

/// This store of this process.
fn holder() -> Holder {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty());
    let host = host.map_or_else(String::new, |host| format!(" on {host}"));
    Holder { id: Uuid::new_v4(), name: format!("process {}{host}", std::process::id()) }
}

/// Gives LanceDB the object store of one session.
#[derive(Debug)]
pub(super) struct Provider {
    store: Arc<dyn ObjectStore>,
    equal_parts: bool,
}

#[async_trait]
impl ObjectStoreProvider for Provider {
    async fn new_store(
        &self,
        base_path: Url,
        params: &ObjectStoreParams,
    ) -> lance_core::Result<LanceObjectStore> {
        // The directory buckets of S3 list in no order, and LanceDB then finds the newest version otherwise.
        let in_order = !base_path.host_str().is_some_and(|bucket| bucket.ends_with("--x-s3"));
        Ok(LanceObjectStore::new(
            self.store.clone(),
            base_path,
            params.block_size,
            None,
            self.equal_parts,
            in_order,
            DEFAULT_CLOUD_IO_PARALLELISM,
            DEFAULT_DOWNLOAD_RETRY_COUNT,
            params.storage_options(),
        ))
    }
}
