//! Options of the store.

use std::time::Duration;

use mainstay_core::{Error, Result};
use url::Url;

use crate::objects::{SCHEMES, connect};
use crate::place::Location;

/// How a [`LanceStore`](crate::LanceStore) is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanceOptions {
    /// The place of the store, which must be empty or hold one: a directory (a path or a `file://` URI), created
    /// if it is not there, or a prefix of an object store (`s3://bucket/prefix`, `gs://…`, `az://…`, with the
    /// cargo feature `cloud`).
    pub uri: String,
    /// How the object store is reached.
    pub storage: StorageOptions,
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

/// How an object store is reached. What is not set here comes from the environment (`AWS_…`, `GOOGLE_…`,
/// `AZURE_STORAGE_…`), and so do credentials, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageOptions {
    /// The address of the service, if it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of the bucket (S3).
    pub region: Option<String>,
    /// The storage account (Azure).
    pub account: Option<String>,
    /// Whether the service may be spoken to without TLS.
    pub allow_http: bool,
    /// Whether the bucket is part of the host name, and not of the path (S3).
    pub virtual_hosted_style: bool,
}

impl Default for LanceOptions {
    fn default() -> Self {
        Self {
            uri: "data/lance".into(),
            storage: StorageOptions::default(),
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
    /// `Invalid` for an option out of its range or a URI that is none of the three kinds, `Unsupported` for
    /// an object store without the cargo feature `cloud`.
    pub fn check(&self) -> Result<()> {
        self.location()?;
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

    /// The place that the URI names.
    pub(crate) fn location(&self) -> Result<Location> {
        match self.uri.split_once("://") {
            Some(("file", path)) => directory(path),
            Some((scheme, _)) if SCHEMES.contains(&scheme) => {
                let url = object_url(&self.uri)?;
                if self.storage.endpoint.as_deref().is_some_and(|endpoint| endpoint.contains('@')) {
                    return Err(Error::invalid("the endpoint carries credentials; leave them out"));
                }
                Ok(Location::Objects(Box::new(connect(url, &self.storage)?)))
            }
            Some(_) => Err(Error::invalid(format!(
                "the uri of a LanceDB store is a path, file://…, or one of {}",
                SCHEMES.map(|scheme| format!("{scheme}://…")).join(", ")
            ))),
            None => directory(&self.uri),
        }
    }
}

fn directory(path: &str) -> Result<Location> {
    if path.is_empty() {
        return Err(Error::invalid("the uri of a LanceDB store is empty; give a directory"));
    }
    if path.contains('\0') {
        return Err(Error::invalid("the uri of a LanceDB store contains a NUL byte"));
    }
    let path = std::path::absolute(path).map_err(|e| Error::invalid(format!("uri {path:?}: {e}")))?;
    Ok(Location::Directory(path))
}

/// A bucket and a prefix and nothing else. What is wrong is not shown: it may be a secret.
pub(crate) fn object_url(uri: &str) -> Result<Url> {
    let mut url = Url::parse(uri.trim_end_matches('/'))
        .map_err(|e| Error::invalid(format!("the uri of a LanceDB store is no URL: {e}")))?;
    let refuse = |what: &str| {
        Err(Error::invalid(format!(
            "the uri of a LanceDB store {what}; write {}://bucket/prefix, and leave credentials to the environment",
            url.scheme()
        )))
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("carries credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or a fragment");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return refuse("names no bucket");
    }
    if url.port().is_some() {
        return refuse("has a port");
    }
    if url.path_segments().is_some_and(|mut parts| parts.any(str::is_empty))
        && !matches!(url.path(), "" | "/")
    {
        return refuse("has an empty part in its path");
    }
    if url.path() == "/" {
        url.set_path("");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_directory_or_a_prefix_without_secrets() {
        let object_store =
            if cfg!(feature = "cloud") { None } else { Some(mainstay_core::ErrorKind::Unsupported) };
        let invalid = Some(mainstay_core::ErrorKind::Invalid);
        for (uri, kind) in [
            ("s3://bucket/a/b", object_store),
            ("s3://bucket", object_store),
            ("s3://bucket/", object_store),
            ("s3://", invalid),
            ("s3://bucket/a//b", invalid),
            ("s3://bucket:80/a", invalid),
            ("s3://key:hunter2@bucket/a", invalid),
            ("az://container/a?sig=hunter2", invalid),
            ("hunter2://bucket", invalid),
            ("", invalid),
            ("file://", invalid),
            ("a\0b", invalid),
            ("data/lance", None),
            ("file:///tmp/x", None),
        ] {
            let answer = LanceOptions::new(uri).check();
            assert_eq!(answer.as_ref().err().map(|e| e.kind()), kind, "{uri:?}");
            assert!(!answer.is_err_and(|e| e.to_string().contains("hunter2")), "{uri:?}");
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let options = LanceOptions { compact_after_commits: 0, ..LanceOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("compact_after_commits"));
        LanceOptions::default().check().unwrap();
    }
}
