//! Options of the store.

use std::path::PathBuf;
use std::time::Duration;

use mainstay_core::{Error, ErrorKind, Result};

/// How a [`LanceStore`](crate::LanceStore) is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanceOptions {
    /// The directory of the store, a path or a `file://` URI. It is created if it is not there;
    /// it must be empty or hold a store.
    pub uri: String,
    /// From how many points on a collection gets a vector index per dense vector (Manhattan
    /// excepted). Below it every search is exact.
    pub index_threshold_rows: usize,
    /// After how many commits to a table its small fragments are merged and old versions removed.
    pub compact_after_commits: usize,
    /// How many rows a fragment holds before compaction leaves it alone; bounds what one
    /// compaction rewrites.
    pub fragment_rows: usize,
    /// How long versions stay after a newer one is durable, so that reads under way finish.
    pub keep_versions: Duration,
    /// How often maintenance looks for work at least; commits wake it earlier.
    pub maintenance_interval: Duration,
    /// Whether maintenance runs at all.
    pub maintenance: bool,
}

impl Default for LanceOptions {
    fn default() -> Self {
        Self {
            uri: "data/lance".into(),
            index_threshold_rows: 50_000,
            compact_after_commits: 64,
            fragment_rows: 50_000,
            keep_versions: Duration::from_secs(60),
            maintenance_interval: Duration::from_secs(60),
            maintenance: true,
        }
    }
}

impl LanceOptions {
    /// The defaults with this directory.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), ..Self::default() }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `Invalid` for an option out of its range, `Unsupported` for a URI of an object store.
    pub fn check(&self) -> Result<()> {
        self.path()?;
        for (name, value, least) in [
            ("index_threshold_rows", self.index_threshold_rows, 256),
            ("compact_after_commits", self.compact_after_commits, 2),
            ("fragment_rows", self.fragment_rows, 1_000),
        ] {
            if value < least {
                return Err(Error::invalid(format!("{name} is {value}; it must be at least {least}")));
            }
        }
        if self.maintenance_interval.is_zero() {
            return Err(Error::invalid("maintenance_interval is 0; it must be longer"));
        }
        Ok(())
    }

    /// The directory that the URI names.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let path = match self.uri.split_once("://") {
            Some(("file", path)) => path,
            Some((scheme, _)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "LanceDB store at {scheme}://…: only a directory on local disk is supported; \
                         give a path or a file:// URI"
                    ),
                ));
            }
            None => self.uri.as_str(),
        };
        if path.is_empty() {
            return Err(Error::invalid("the uri of a LanceDB store is empty; give a directory"));
        }
        if path.contains('\0') {
            return Err(Error::invalid("the uri of a LanceDB store contains a NUL byte"));
        }
        std::path::absolute(path).map_err(|e| Error::invalid(format!("uri {path:?}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_directories_are_taken() {
        for (uri, kind) in [
            ("s3://bucket/x", Some(ErrorKind::Unsupported)),
            ("gs://bucket", Some(ErrorKind::Unsupported)),
            ("", Some(ErrorKind::Invalid)),
            ("file://", Some(ErrorKind::Invalid)),
            ("a\0b", Some(ErrorKind::Invalid)),
            ("data/lance", None),
            ("file:///tmp/x", None),
        ] {
            let answer = LanceOptions::new(uri).check();
            assert_eq!(answer.err().map(|e| e.kind()), kind, "{uri:?}");
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let options = LanceOptions { compact_after_commits: 0, ..LanceOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("compact_after_commits"));
        LanceOptions::default().check().unwrap();
    }
}
