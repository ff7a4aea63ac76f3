//! Where a scenario keeps its log and its snapshots: both in a directory, or the snapshots in a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
#[cfg(feature = "snapshots-cloud")]
use std::sync::Arc;
use std::time::Duration;

use mainstay::snapshot::place::PlaceOptions;
use mainstay::snapshot::{ContentHash, Repository, layout};
use mainstay::{Config, Lsn};
#[cfg(feature = "snapshots-cloud")]
use mainstay_test_bucket::Bucket;

use crate::snapshot_history::{KEEP, files};

const DIRECTORY: &str = "MAINSTAY_SITE_DIRECTORY";
const ENDPOINT: &str = "MAINSTAY_SITE_ENDPOINT";
/// Longer than files that nothing needs stay anywhere.
pub const LONG: Duration = Duration::from_secs(25 * 3_600);

/// Where snapshots are.
enum Place {
    Directory,
    /// The bucket of a server that another process has.
    Remote(String),
    #[cfg(feature = "snapshots-cloud")]
    Bucket(Arc<Bucket>),
}

/// Where a scenario keeps what lasts.
pub struct Site {
    /// What is not in a bucket is here.
    pub directory: PathBuf,
    place: Place,
}

impl Site {
    /// All of it in a directory.
    pub fn directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), place: Place::Directory }
    }

    /// The log in a directory, and snapshots in a bucket.
    #[cfg(feature = "snapshots-cloud")]
    pub fn bucket(directory: &Path, bucket: &Arc<Bucket>) -> Self {
        Self { directory: directory.to_owned(), place: Place::Bucket(Arc::clone(bucket)) }
    }

    /// What the process that started this one has; none if it was started by nobody who has one.
    pub fn of_parent() -> Option<Self> {
        let directory = std::env::var(DIRECTORY).ok()?.into();
        let place = std::env::var(ENDPOINT).map_or(Place::Directory, Place::Remote);
        Some(Self { directory, place })
    }

    /// Lets a process that is about to be started have the same.
    pub fn pass_on(&self, to: &mut Command) {
        to.env(DIRECTORY, &self.directory);
        if let Some(endpoint) = self.endpoint() {
            to.env(ENDPOINT, endpoint);
        }
    }

    fn endpoint(&self) -> Option<String> {
        match &self.place {
            Place::Directory => None,
            Place::Remote(endpoint) => Some(endpoint.clone()),
            #[cfg(feature = "snapshots-cloud")]
            Place::Bucket(bucket) => Some(bucket.endpoint()),
        }
    }

    fn path(&self) -> String {
        match &self.place {
            Place::Directory => self.directory.join("snapshots").to_str().unwrap().to_owned(),
            _ => "s3://tests/of/a/tier".to_owned(),
        }
    }

    /// A tier of one member in memory, with snapshots.
    pub fn config(&self) -> Config {
        let (log, path) = (self.directory.join("log"), self.path());
        let mut text = format!(
            "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n[log]\npath = {log:?}\n\
             [snapshots]\ndir = {path:?}\nkeep = {KEEP}\narchive_interval = \"100ms\"\n"
        );
        if let Some(endpoint) = self.endpoint() {
            text += &format!(
                "[snapshots.storage_options]\nendpoint = {endpoint:?}\nregion = \"x\"\nallow_http = true\n"
            );
        }
        Config::from_toml(&text).unwrap()
    }

    /// The repository, with the right to write to it.
    pub async fn repository(&self) -> Repository {
        let endpoint = self.endpoint();
        let (region, allow_http) = (endpoint.as_ref().map(|_| "x".to_owned()), endpoint.is_some());
        let options = PlaceOptions { endpoint, region, allow_http, ..PlaceOptions::default() };
        Repository::open_for_writing(&self.path(), &options).await.unwrap()
    }

    /// Waits until what a process that was killed has sent has arrived.
    pub async fn settle(&self) {
        #[cfg(feature = "snapshots-cloud")]
        if let Place::Bucket(bucket) = &self.place {
            bucket.settle().await.unwrap();
        }
    }

    /// The files of the repository.
    pub fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        match &self.place {
            #[cfg(feature = "snapshots-cloud")]
            Place::Bucket(bucket) => {
                let name =
                    |key: String| key.strip_prefix("of/a/tier/").expect("only a prefix is used").to_owned();
                bucket.objects().into_iter().map(|(key, bytes)| (name(key), bytes.to_vec())).collect()
            }
            _ => {
                let root = self.directory.join("snapshots");
                let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files(&root).iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
            }
        }
    }

    /// Makes every file of the repository older.
    pub fn grow_older(&self, by: Duration) {
        match &self.place {
            #[cfg(feature = "snapshots-cloud")]
            Place::Bucket(bucket) => bucket.grow_older(by),
            _ => {
                for path in files(&self.directory.join("snapshots")) {
                    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                    let written = file.metadata().unwrap().modified().unwrap();
                    file.set_modified(written - by).unwrap();
                }
            }
        }
    }

    /// Whatever has the name of a whole file is one: what is half written never has it.
    pub fn check_whole(&self) {
        for (name, bytes) in self.stored() {
            let stem = [".json", ".arrows", ".graph", ".log"].iter().find_map(|end| name.strip_suffix(end));
            let hash = stem.and_then(|stem| ContentHash::parse(stem.get(stem.len().checked_sub(64)?..)?));
            match hash {
                Some(hash) => assert_eq!(hash, ContentHash::of(&bytes), "{name}"),
                None => assert!(
                    ["repository.json", "LOCK"].contains(&name.as_str())
                        || name.starts_with("uses/")
                        || name.starts_with("garbage/"),
                    "{name}"
                ),
            }
        }
    }

    /// There is what the snapshots need, and nothing else.
    pub async fn check_tidy(&self) {
        let repository = self.repository().await;
        let mut needed = BTreeSet::from(["repository.json".to_owned(), "LOCK".to_owned()]);
        let mut starts = BTreeMap::new();
        for listed in repository.snapshots().await.unwrap() {
            let manifest = repository.manifest(listed).await.unwrap();
            needed.insert(layout::manifest(listed.id, listed.hash).to_string());
            needed.extend(manifest.content_files().map(|file| file.path.to_string()));
            let start = starts.entry(layout::log(manifest.from.log).to_string()).or_insert(Lsn(u64::MAX));
            *start = manifest.from.lsn.min(*start);
        }
        for log in repository.logs().await.unwrap() {
            let start = starts.get(&layout::log(log).to_string()).copied().unwrap_or_default();
            let segments = repository.segments(log).await.unwrap();
            let after = segments.into_iter().filter(|segment| segment.last > start);
            needed.extend(after.map(|segment| layout::segment(log, segment).to_string()));
        }
        let litter: Vec<_> = self.stored().into_keys().filter(|name| !needed.contains(name)).collect();
        assert!(litter.is_empty(), "{litter:?}");
    }
}
