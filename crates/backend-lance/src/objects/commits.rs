//! The object store as LanceDB sees it.
//!
//! LanceDB puts each version of a table under a condition, and when somebody else was first it reads what he
//! wrote and goes on above it. For a store with one holder that is wrong: whoever was first no longer has the
//! store, and his rows are not the log's. It is wrong as well when he is we ourselves, by a put whose
//! answer was lost. So a version goes through only if it follows one of ours; else the session ends, and the
//! next one goes back to the record.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Formatter, Result as FmtResult};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::barrier::{manifest_version, table_of_directory};

/// An object store that lets through only commits above our own, and nothing once its session is over.
pub(crate) struct Commits {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The newest version of each table that is known to be ours. Held while a version is put, so that two of
    /// our own tasks do not take each other for somebody else.
    newest: tokio::sync::Mutex<BTreeMap<String, u64>>,
    ended: OnceLock<String>,
}

impl Commits {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { inner, prefix, newest: tokio::sync::Mutex::default(), ended: OnceLock::new() }
    }

    /// Takes a version of a table as ours.
    pub(crate) async fn adopt(&self, table: &str, version: u64) {
        self.newest.lock().await.insert(table.to_owned(), version);
    }

    /// The newest version of a table that is ours.
    pub(crate) async fn newest(&self, table: &str) -> Option<u64> {
        self.newest.lock().await.get(table).copied()
    }

    /// Lets no more writes through. The first reason stays.
    pub(crate) fn end(&self, why: String) {
        let _ = self.ended.set(why);
    }

    /// Why no more writes go through.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    fn check(&self) -> Result<()> {
        match self.ended() {
            Some(why) => Err(refused(why.to_owned())),
            None => Ok(()),
        }
    }

    /// The table and version of a manifest.
    fn version_at(&self, location: &Path) -> Option<(String, u64)> {
        let mut parts = location.prefix_match(&self.prefix)?;
        let (directory, versions, name) = (parts.next()?, parts.next()?, parts.next()?);
        if versions.as_ref() != "_versions" || parts.next().is_some() {
            return None;
        }
        Some((table_of_directory(directory.as_ref())?.to_owned(), manifest_version(name.as_ref())?))
    }

    async fn commit(
        &self,
        (table, version): (String, u64),
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut newest = self.newest.lock().await;
        let ours = newest.get(&table).copied().unwrap_or(0);
        let foreign = |at: u64| {
            let why = format!("version {at} of table {table} was not written by this session");
            tracing::warn!(%location, "{why}");
            self.end(why);
        };
        if version > ours + 1 {
            foreign(version - 1);
        }
        self.check()?;
        let put = match self.inner.put_opts(location, payload.clone(), opts).await {
            Ok(put) => Ok(put),
            Err(e) => self.landed(location, payload).await.ok_or(e),
        };
        match &put {
            Ok(_) => {
                newest.insert(table, version.max(ours));
            }
            // One that is ours already is another task of this session, and LanceDB goes on above it.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) if version > ours => {
                foreign(version)
            }
            Err(_) => {}
        }
        put
    }

    /// What a put without a good answer came to, if it took effect all the same. No two versions are alike.
    async fn landed(&self, location: &Path, payload: PutPayload) -> Option<PutResult> {
        let found = self.inner.get(location).await.ok()?;
        let (e_tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
        let same = found.bytes().await.ok()? == bytes::Bytes::from(payload);
        same.then(|| PutResult { e_tag, version, extensions: Default::default() })
    }
}

fn refused(why: String) -> Error {
    Error::Generic { store: "mainstay", source: why.into() }
}

impl Display for Commits {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "Commits({})", self.prefix)
    }
}

/// Without what is below, which holds credentials.
impl Debug for Commits {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Commits {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.version_at(location) {
            Some(version) if opts.mode == PutMode::Create => {
                self.commit(version, location, payload, opts).await
            }
            _ => {
                self.check()?;
                self.inner.put_opts(location, payload, opts).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.check() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(e) => futures::stream::once(std::future::ready(Err(e))).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.check()?;
        self.inner.rename_opts(from, to, options).await
    }
}
