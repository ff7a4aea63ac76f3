//! Reading and writing files that are what their names say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mainstay_core::{CollectionSpec, Error, ErrorKind, Record, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::columns;
use crate::layout::{self, ContentFile, ContentHash, SnapshotId};
use crate::manifest::{BucketFile, FORMAT, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, Manifest};
use crate::place::{Place, PlaceOptions, WriterLock};
use crate::work::blocking;

/// Reading or writing one file may take so long.
const FILE_TIMEOUT: Duration = Duration::from_secs(120);
/// Listing a folder, or removing many files.
const FOLDER_TIMEOUT: Duration = Duration::from_secs(600);

/// A place of snapshots. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Repository {
    place: Place,
    lock: Option<Arc<WriterLock>>,
    /// Making a snapshot and removing files exclude each other.
    changing: Arc<Semaphore>,
}

/// A snapshot as its name tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The snapshot.
    pub id: SnapshotId,
    /// The hash of its manifest.
    pub hash: ContentHash,
}

impl Repository {
    /// Opens a repository to read from it: a directory, or a URL with `s3://`, `gs://` or `az://`.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Unsupported` if it has a format of a later version, `Invalid` for a URL that
    /// is none, and whatever the place runs into.
    pub async fn open(place: &str, options: &PlaceOptions) -> Result<Self> {
        let place = Place::open(place, options).await?;
        let repository = Self { place, lock: None, changing: Arc::new(Semaphore::new(1)) };
        if !repository.is_one().await? {
            let text = format!("there are no snapshots at {}", repository.place());
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        Ok(repository)
    }

    /// Opens a repository to write to it too, or makes one.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Unavailable` if another process writes to the directory.
    pub async fn open_for_writing(place: &str, options: &PlaceOptions) -> Result<Self> {
        let (place, lock) = Place::open_for_writing(place, options).await?;
        let repository = Self { place, lock: Some(Arc::new(lock)), changing: Arc::new(Semaphore::new(1)) };
        if !repository.is_one().await? {
            let text = json!({ "format": FORMAT, "what": "Mainstay snapshots" }).to_string();
            repository.write(&Path::from(layout::REPOSITORY), text.into()).await?;
        }
        Ok(repository)
    }

    /// A repository in an object store in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let place = Place::in_memory();
        let lock = place.lock().ok().map(Arc::new);
        Self { place, lock, changing: Arc::new(Semaphore::new(1)) }
    }

    /// Whether the place holds a repository.
    async fn is_one(&self) -> Result<bool> {
        let Some(bytes) = self.try_read(&Path::from(layout::REPOSITORY), 64 << 10).await? else {
            return Ok(false);
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match value["format"].as_u64() {
            Some(FORMAT) => Ok(true),
            Some(other) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} has format {other}; this program reads format {FORMAT}", self.place()),
            )),
            None => Err(self.damaged(layout::REPOSITORY, "it does not say which format this is")),
        }
    }

    /// The directory or URL.
    pub fn place(&self) -> &str {
        &self.place.shown
    }

    /// Whether only one process at a time writes here, as to a directory. To an object store several may.
    pub fn has_one_writer(&self) -> bool {
        self.place.is_directory()
    }

    /// Whether the repository is still where it was opened. That of an object store is taken to be.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn is_there(&self) -> Result<bool> {
        match self.has_one_writer() {
            true => Ok(self.written(&Path::from(layout::REPOSITORY)).await?.is_some()),
            false => Ok(true),
        }
    }

    /// Refuses to write without the right to.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Internal, "the repository was opened to be read only")),
        }
    }

    /// Waits until nobody else in this process makes a snapshot or removes files.
    pub(crate) async fn alone(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it, so there always is a permit.
        Arc::clone(&self.changing).acquire_owned().await.ok()
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn snapshots(&self) -> Result<Vec<Listed>> {
        let files = self.list(&Path::from(layout::SNAPSHOTS)).await?;
        let read = |file: &ObjectMeta| layout::read_manifest(&file.location);
        let mut listed: Vec<_> =
            files.iter().filter_map(read).map(|(id, hash)| Listed { id, hash }).collect();
        listed.sort();
        Ok(listed)
    }

    /// The snapshot of this id.
    ///
    /// # Errors
    /// `NotFound` with the newest ids if there is none.
    pub async fn find(&self, id: SnapshotId) -> Result<Listed> {
        let all = self.snapshots().await?;
        if let Some(found) = all.iter().find(|listed| listed.id == id) {
            return Ok(*found);
        }
        let newest: Vec<_> = all.iter().rev().take(3).map(|listed| listed.id.to_string()).collect();
        let known = if newest.is_empty() { "it is empty".to_owned() } else { newest.join(", ") };
        let text = format!("there is no snapshot {id} at {}; the newest are: {known}", self.place());
        Err(Error::new(ErrorKind::NotFound, text))
    }

    /// The manifest of a snapshot.
    ///
    /// # Errors
    /// `Corrupt` with the file's name if it is not what it was.
    pub async fn manifest(&self, listed: Listed) -> Result<Manifest> {
        let path = layout::manifest(listed.id, listed.hash);
        let bytes = self.read(&path, listed.hash, MAX_MANIFEST_BYTES).await?;
        let named = self.name(path.as_ref());
        let parsed = blocking(move || Manifest::parse(&bytes)).await;
        let manifest = parsed.map_err(|error| {
            Error::new(error.kind(), format!("{named}: {}", error.message())).with_source(error)
        })?;
        if manifest.id != listed.id {
            return Err(self.damaged(path.as_ref(), "it is the manifest of another snapshot"));
        }
        Ok(manifest)
    }

    /// The points of a bucket file, ids ascending.
    ///
    /// # Errors
    /// `Corrupt` with the file's name if it is gone or not what it was.
    pub async fn records(&self, spec: &CollectionSpec, file: BucketFile) -> Result<Vec<Record>> {
        let bytes = self.content(&file.into()).await?;
        let path = layout::bucket(file.hash);
        let spec = spec.clone();
        let decoded = blocking(move || columns::decode(&spec, &bytes)).await;
        let records = decoded.map_err(|error| {
            let text = format!("{}: {}", self.name(path.as_ref()), error.message());
            Error::new(error.kind(), text).with_source(error)
        })?;
        if records.len() as u64 != file.points {
            let text = format!("it has {} points, its manifest says {}", records.len(), file.points);
            return Err(self.damaged(path.as_ref(), &text));
        }
        if !records.windows(2).all(|pair| pair[0].point.id < pair[1].point.id) {
            return Err(self.damaged(path.as_ref(), "its ids do not ascend"));
        }
        Ok(records)
    }

    /// Reads a file of points or graphs, and checks that it is what its name says.
    ///
    /// # Errors
    /// `Corrupt` with the file's name if it is gone or not what it was.
    pub(crate) async fn content(&self, file: &ContentFile) -> Result<Bytes> {
        let bytes = self.read(&file.path, file.hash, file.bytes.min(MAX_FILE_BYTES)).await?;
        if bytes.len() as u64 != file.bytes {
            let text = format!("it has {} bytes, its manifest says {}", bytes.len(), file.bytes);
            return Err(self.damaged(file.path.as_ref(), &text));
        }
        Ok(bytes)
    }

    /// Every file of points or graphs that is there.
    pub(crate) async fn content_files(&self) -> Result<Vec<ContentFile>> {
        type Read = fn(&Path) -> Option<ContentHash>;
        type Named = fn(ContentHash) -> Path;
        const FOLDERS: [(&str, Read, Named); 2] = [
            (layout::BUCKETS, layout::read_bucket, layout::bucket),
            (layout::GRAPHS, layout::read_graph, layout::graph),
        ];
        let mut files = Vec::new();
        for (folder, read, named) in FOLDERS {
            files.extend(self.list(&Path::from(folder)).await?.into_iter().filter_map(|file| {
                let hash = read(&file.location)?;
                Some(ContentFile { path: named(hash), hash, bytes: file.size })
            }));
        }
        Ok(files)
    }

    /// The files of a folder and of the folders in it; none if it is not there.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let within = folder.clone();
        let list = |store: Arc<dyn ObjectStore>| async move { store.list(Some(&within)).try_collect().await };
        let listed: Option<Vec<_>> = self.ask(FOLDER_TIMEOUT, folder, "cannot be listed", list).await?;
        Ok(listed.unwrap_or_default())
    }

    /// When a file was last written; `None` if it is not there.
    pub(crate) async fn written(&self, path: &Path) -> Result<Option<DateTime<Utc>>> {
        let file = path.clone();
        let head = |store: Arc<dyn ObjectStore>| async move { store.head(&file).await };
        let meta = self.ask(FILE_TIMEOUT, path, "cannot be looked at", head).await?;
        Ok(meta.map(|meta| meta.last_modified))
    }

    /// A file whose name says what its hash is.
    pub(crate) async fn read(&self, path: &Path, hash: ContentHash, max_bytes: u64) -> Result<Bytes> {
        let Some(bytes) = self.try_read(path, max_bytes).await? else {
            return Err(self.damaged(path.as_ref(), "the file is gone"));
        };
        let checked = bytes.clone();
        if blocking(move || Ok(ContentHash::of(&checked))).await? != hash {
            return Err(
                self.damaged(path.as_ref(), "it is not what it was: its checksum does not match its name")
            );
        }
        Ok(bytes)
    }

    async fn try_read(&self, path: &Path, max_bytes: u64) -> Result<Option<Bytes>> {
        let file = path.clone();
        let get = |store: Arc<dyn ObjectStore>| async move {
            let found = store.get(&file).await?;
            if found.meta.size > max_bytes {
                return Ok(Err(found.meta.size));
            }
            Ok(Ok(found.bytes().await?))
        };
        match self.ask(FILE_TIMEOUT, path, "cannot be read", get).await? {
            Some(Ok(bytes)) if bytes.len() as u64 <= max_bytes => Ok(Some(bytes)),
            Some(Ok(_)) => Err(self.damaged(path.as_ref(), "it grew while it was read")),
            Some(Err(size)) => {
                Err(self.damaged(path.as_ref(), &format!("it has {size} bytes, at most {max_bytes} may be")))
            }
            None => Ok(None),
        }
    }

    /// Writes a file: whole and durable when this returns, or not there.
    pub(crate) async fn write(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.check_writable()?;
        self.touch(path, bytes).await
    }

    /// Writes a mark, which needs no right to write.
    pub(crate) async fn touch(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let (file, bytes) = (path.clone(), PutPayload::from_bytes(bytes));
        let put = |store: Arc<dyn ObjectStore>| async move { store.put(&file, bytes).await };
        match self.place.ask(FILE_TIMEOUT, put).await {
            Some(Ok(_)) => Ok(()),
            // Of a bucket that is not there.
            Some(Err(error)) => Err(self.failed("cannot be written", path, error)),
            None => Err(self.late(path)),
        }
    }

    /// Removes a file; that it is gone already is as good.
    pub(crate) async fn remove(&self, path: &Path) -> Result<()> {
        let file = path.clone();
        let delete = |store: Arc<dyn ObjectStore>| async move { store.delete(&file).await };
        self.ask(FILE_TIMEOUT, path, "cannot be removed", delete).await.map(drop)
    }

    /// What the place answers; `None` if what it is asked for is not there.
    async fn ask<T, A>(
        &self,
        within: Duration,
        path: &Path,
        failed: &str,
        question: impl FnOnce(Arc<dyn ObjectStore>) -> A,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        A: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        match self.place.ask(within, question).await {
            Some(Ok(answer)) => Ok(Some(answer)),
            Some(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Some(Err(error)) => Err(self.failed(failed, path, error)),
            None => Err(self.late(path)),
        }
    }

    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.place())
    }

    /// The error of a file that is not what it should be.
    pub(crate) fn damaged(&self, path: &str, what: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{}: {what}", self.name(path)))
    }

    fn late(&self, path: &Path) -> Error {
        Error::new(ErrorKind::Timeout, format!("{}: no answer in time", self.name(path.as_ref())))
    }

    fn failed(&self, what: &str, path: &Path, error: object_store::Error) -> Error {
        let kind = match &error {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                ErrorKind::Unauthorized
            }
            _ if is_full(&error) => ErrorKind::StorageFull,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("{} {what}: {error}", self.name(path.as_ref()))).with_source(error)
    }
}

/// Whether an error comes from a disk or a quota that is full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind as Io;
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| matches!(io.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge))
        || error.source().is_some_and(is_full)
}
