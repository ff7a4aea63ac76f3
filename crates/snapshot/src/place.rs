//! Where a repository is: a directory, or a prefix of an object store.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fs2::FileExt;
use mainstay_core::{Error, ErrorKind, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use crate::layout;
use crate::work::blocking;

/// The file that the writer of a directory holds locked.
const LOCK: &str = "LOCK";
/// The folders of a repository.
const FOLDERS: [&str; 6] =
    [layout::BUCKETS, layout::GARBAGE, layout::GRAPHS, layout::LOG, layout::SNAPSHOTS, layout::USES];
/// The schemes of the object stores.
pub const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// Questions to a directory that are under way at once. One that hangs (a mount whose server is gone) keeps a thread until
/// the system answers, whoever stopped waiting, and stores need the threads of the process too.
const MOST_AT_ONCE: usize = 32;
/// The permits for them, by the name of the place, as long as somebody has it open or a question is under way: who opens it
/// again and again has no more of them.
static ASKING: Mutex<BTreeMap<String, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());
/// Opening a place may take so long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);

/// What an object store needs beyond its URL; credentials come from the environment alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceOptions {
    /// Another endpoint than the provider's, for stores that speak its language.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// The storage account, in Azure.
    pub account: Option<String>,
    /// Requests without TLS are allowed.
    pub allow_http: bool,
    /// The bucket is part of the host name and not of the path, in S3.
    pub virtual_hosted_style: bool,
}

/// A place of files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    store: Arc<dyn ObjectStore>,
    pub(crate) shown: String,
    directory: Option<Directory>,
}

#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    /// A permit for each question under way.
    asking: Arc<Semaphore>,
}

/// The right to write to a directory, held by one process at a time and let go when it ends, however it ends. Writers
/// to an object store do not exclude each other: there, what nothing needs is removed only after a grace time.
#[derive(Debug)]
pub struct WriterLock {
    _file: Option<File>,
}

impl Place {
    /// The place that a path or a URL (`s3://`, `gs://`, `az://`, `file://`) names.
    pub(crate) async fn open(place: &str, options: &PlaceOptions) -> Result<Self> {
        let (text, options) = (place.to_owned(), options.clone());
        opening(place, move || Self::named(&text, &options, false)).await
    }

    /// As [`open`](Self::open), with the right to write to it; a directory is made.
    pub(crate) async fn open_for_writing(place: &str, options: &PlaceOptions) -> Result<(Self, WriterLock)> {
        let (text, options) = (place.to_owned(), options.clone());
        let open = move || {
            let place = Self::named(&text, &options, true)?;
            let lock = place.lock()?;
            Ok((place, lock))
        };
        opening(place, open).await
    }

    /// Blocking.
    fn named(place: &str, options: &PlaceOptions, make: bool) -> Result<Self> {
        match Url::parse(place) {
            Ok(url) if SCHEMES.contains(&url.scheme()) => {
                let prefix = object_store::path::Path::from_url_path(url.path()).map_err(|e| {
                    Error::invalid(format!("{place} names no place for snapshots")).with_source(e)
                })?;
                let store = cloud::client(&url, options)?;
                Ok(Self {
                    store: Arc::new(PrefixStore::new(store, prefix)),
                    shown: place.trim_end_matches('/').to_owned(),
                    directory: None,
                })
            }
            Ok(url) if url.scheme() == "file" => {
                let path = url.to_file_path();
                Self::directory(
                    path.map_err(|()| Error::invalid(format!("{place} names no directory")))?,
                    make,
                )
            }
            // A single letter is a drive.
            Ok(url) if url.scheme().len() > 1 && place.contains("://") => Err(Error::invalid(format!(
                "snapshots cannot be kept at {place}: use a directory, or a URL with s3://, gs:// or az://"
            ))),
            _ => Self::directory(PathBuf::from(place), make),
        }
    }

    /// An object store in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        Self { store, shown: "memory".to_owned(), directory: None }
    }

    fn directory(path: PathBuf, make: bool) -> Result<Self> {
        if make {
            std::fs::create_dir_all(&path).map_err(|e| failed(&path, "the directory cannot be made", e))?;
        } else if !path.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there are no snapshots at {}: it is no directory", path.display()),
            ));
        }
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|e| {
            let text = format!("{}: the directory cannot be opened", path.display());
            Error::new(ErrorKind::Unavailable, text).with_source(e)
        })?;
        let shown = path.display().to_string();
        let directory = Directory { asking: asking(&shown), path };
        Ok(Self { store: Arc::new(store.with_fsync(true)), shown, directory: Some(directory) })
    }

    /// Asks the store for an answer within this time; `None` if there is none by then.
    pub(crate) async fn ask<T, A>(
        &self,
        within: Duration,
        question: impl FnOnce(Arc<dyn ObjectStore>) -> A,
    ) -> Option<object_store::Result<T>>
    where
        T: Send + 'static,
        A: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let answer = question(Arc::clone(&self.store));
        let Some(directory) = &self.directory else { return timeout(within, answer).await.ok() };
        let asked = async {
            // Nobody closes it.
            let permit = Arc::clone(&directory.asking).acquire_owned().await;
            // Ends with the thread that works for it, and not when nobody waits any more.
            let asked = tokio::spawn(async move {
                let answer = answer.await;
                drop(permit);
                answer
            });
            asked.await?
        };
        timeout(within, asked).await.ok()
    }

    /// Whether only one process at a time writes here.
    pub(crate) fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Takes the right to write, and removes what a writer that was killed left half written. Blocking.
    pub(crate) fn lock(&self) -> Result<WriterLock> {
        let Some(Directory { path: directory, .. }) = &self.directory else {
            return Ok(WriterLock { _file: None });
        };
        let path = directory.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|e| failed(directory, "its lock cannot be opened", e))?;
        FileExt::try_lock_exclusive(&file).map_err(|e| {
            failed(directory, "another process is writing snapshots here; try again when it is done", e)
        })?;
        remove_litter(directory).map_err(|e| failed(directory, "half written files cannot be removed", e))?;
        Ok(WriterLock { _file: Some(file) })
    }
}

/// The permits for questions to a place.
fn asking(place: &str) -> Arc<Semaphore> {
    let mut known = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, asking| asking.strong_count() > 0);
    if let Some(asking) = known.get(place).and_then(Weak::upgrade) {
        return asking;
    }
    let asking = Arc::new(Semaphore::new(MOST_AT_ONCE));
    known.insert(place.to_owned(), Arc::downgrade(&asking));
    asking
}

/// Opens a place, where this holds up nobody and not for longer than it may.
async fn opening<T: Send + 'static>(
    place: &str,
    open: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let opened = async {
        // Nobody closes it.
        let permit = asking(place).acquire_owned().await;
        blocking(move || {
            let _permit = permit;
            open()
        })
        .await
    };
    timeout(OPEN_TIMEOUT, opened).await.unwrap_or_else(|_| {
        let text =
            format!("{place} cannot be opened: no answer in time; does its disk or its network answer?");
        Err(Error::new(ErrorKind::Timeout, text))
    })
}

fn failed(directory: &FsPath, what: &str, e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{}: {what}", directory.display())).with_source(e)
}

/// Removes files that were never finished: `NAME#NUMBER`, in the root and the folders that are ours.
fn remove_litter(root: &FsPath) -> std::io::Result<()> {
    let unfinished = |name: &str| {
        name.rsplit_once('#')
            .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            let Some(name) = name.to_str() else { continue };
            let ours = depth > 0 || FOLDERS.contains(&name);
            if kind.is_symlink() && ours {
                let text =
                    format!("{} is a link, and files would be written elsewhere", entry.path().display());
                return Err(std::io::Error::other(text));
            }
            if kind.is_dir() && ours && depth < 2 {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() && unfinished(name) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(not(feature = "cloud"))]
mod cloud {
    use super::*;

    pub(super) fn client(url: &Url, _: &PlaceOptions) -> Result<Arc<dyn ObjectStore>> {
        let scheme = url.scheme();
        let text = format!(
            "snapshots at {scheme}://… are not compiled in: add the cargo feature `snapshots-cloud` (`cloud` of \
             mainstay-snapshot)"
        );
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}

#[cfg(feature = "cloud")]
mod cloud {
    use std::time::Duration;

    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    use object_store::{ClientConfigKey, RetryConfig};

    use super::*;

    /// How long a request is tried again.
    const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

    pub(super) fn client(url: &Url, options: &PlaceOptions) -> Result<Arc<dyn ObjectStore>> {
        // The requests need one, and an application that wants another has set it by now.
        let _ = rustls::crypto::ring::default_provider().install_default();
        build(url, options).map_err(|e| Error::invalid(format!("object store of {url}: {e}")).with_source(e))
    }

    fn build(url: &Url, options: &PlaceOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let http = if options.allow_http { "true" } else { "false" };
        Ok(match url.scheme() {
            "gs" => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry);
                builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), http);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
                }
                Arc::new(builder.build()?)
            }
            "az" => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
                builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), http);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
                }
                if let Some(account) = &options.account {
                    builder = builder.with_config(AzureConfigKey::AccountName, account);
                }
                Arc::new(builder.build()?)
            }
            _ => {
                let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
                builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), http);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(AmazonS3ConfigKey::Endpoint, endpoint);
                }
                if let Some(region) = &options.region {
                    builder = builder.with_config(AmazonS3ConfigKey::Region, region);
                }
                if options.virtual_hosted_style {
                    builder = builder.with_config(AmazonS3ConfigKey::VirtualHostedStyleRequest, "true");
                }
                Arc::new(builder.build()?)
            }
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use futures::future::join_all;
    use object_store::ObjectStoreExt;
    use object_store::path::Path;
    use tokio::runtime::Handle;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn files_that_hang_are_given_up_in_time_and_hold_few_threads() {
        let directory = tempfile::tempdir().unwrap();
        // Whoever opens a pipe waits for the other end.
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let open =
            async || Place::open(directory.path().to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
        // Whoever opens it once more has no threads of his own.
        let places = [open().await, open().await];
        let get = |at: usize, name: &'static str| {
            places[at % 2].ask(MINUTE, async move |store| store.get(&Path::from(name)).await?.bytes().await)
        };
        let before = Handle::current().metrics().num_alive_tasks();
        let late = async {
            // The clock stands still while a thread waits.
            tokio::time::advance(MINUTE * 2).await;
        };
        let (answers, ()) = tokio::join!(join_all((0..2 * MOST_AT_ONCE).map(|at| get(at, "pipe"))), late);
        let left = Handle::current().metrics().num_alive_tasks() - before;
        let _other_end = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert!(answers.iter().all(Option::is_none));
        assert_eq!(left, MOST_AT_ONCE);
        // With a thread for it again, the place answers.
        std::fs::write(directory.path().join("file"), "there").unwrap();
        assert_eq!(get(0, "file").await.unwrap().unwrap(), "there");
    }
}
