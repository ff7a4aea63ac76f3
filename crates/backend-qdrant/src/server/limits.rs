//! What a server's strict mode allows in one request of a collection.

use std::collections::BTreeMap;

use mainstay_core::{Context, ErrorKind, Result};
use parking_lot::Mutex;
use qdrant_client::qdrant::CollectionInfo;

use super::Server;

/// Limits of one collection; as large as can be where nothing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Points in one upsert.
    pub points: usize,
    /// Points in one page or among the hits of one search.
    pub hits: usize,
    /// Seconds that a request may ask to be worked on.
    seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { points: usize::MAX, hits: usize::MAX, seconds: u64::MAX }
    }
}

impl Limits {
    fn of(info: &CollectionInfo) -> Self {
        let config = info.config.as_ref().and_then(|config| config.strict_mode_config.as_ref());
        let Some(strict) = config.filter(|strict| strict.enabled == Some(true)) else {
            return Self::default();
        };
        let most = |limit: u64| usize::try_from(limit.max(1)).unwrap_or(usize::MAX);
        Self {
            points: strict.upsert_max_batchsize.map_or(usize::MAX, most),
            hits: strict.max_query_limit.map_or(usize::MAX, |limit| most(limit.into())),
            seconds: strict.max_timeout.map_or(u64::MAX, u64::from),
        }
    }

    /// The seconds that the server may work on a request; at least one, its smallest unit.
    pub fn timeout(&self, cx: &Context) -> Option<u64> {
        super::convert::timeout(cx).map(|seconds| seconds.min(self.seconds))
    }
}

/// The limits that were met so far.
pub type Met = Mutex<BTreeMap<String, Limits>>;

impl Server {
    /// Makes a call within the limits of a collection as far as they are known. One that the server declines is made
    /// again if it turns out that there are others.
    pub(super) async fn within_limits<T, C>(
        &self,
        cx: &Context,
        name: &str,
        call: impl Fn(Limits) -> C,
    ) -> Result<T>
    where
        C: Future<Output = Result<T>>,
    {
        let known = self.limits.lock().get(name).copied().unwrap_or_default();
        let error = match call(known).await {
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Rejected) => error,
            answer => return answer,
        };
        let fresh = Limits::of(&self.info(cx, name).await?);
        if fresh == known {
            return Err(error);
        }
        self.limits.lock().insert(name.to_owned(), fresh);
        call(fresh).await
    }
}
