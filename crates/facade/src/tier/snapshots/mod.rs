//! Snapshots of a tier, and the log between them.
//!
//! | module | idea |
//! |---|---|
//! | `archive` | the log's entries into the repository, every moment |
//! | `make` | a snapshot now and then, or after writes, or on request: taken, verified, pruned |
//! | `recover` | a snapshot into a member that lost what it held |
//!
//! # Data flow
//!
//! *Archive*: entries after the last archived one are read from the log, which is synced first so that the archive never
//! holds what the log may lose, and written as a segment. *Snapshot*: a member that has caught up does first what it has
//! put off, such as the rebuild of what is half deleted. Then it is read while it moves from entry `from` to entry `to`; the
//! log up to `to` is archived before the manifest is written, so that a snapshot never needs a log that is gone. It is then
//! read back, and old ones are pruned. The log is cut only up to the second-newest snapshot that was read back well: one
//! that turns out to be damaged costs nothing.
//!
//! # Failure cases
//!
//! | what happens | what follows |
//! |---|---|
//! | the repository cannot be opened, or written to | the tier serves on; status says so; it is tried again |
//! | it stays so, and the log is nearly full | the log is cut all the same: writes go before snapshots; the gap in the archive is told |
//! | the source goes down or back meanwhile | the snapshot is given up; its files are garbage for the next prune |
//! | the process is killed | files without a manifest are garbage, half written ones are removed at the next start |
//! | the directory is removed, or no longer mounted | it is made anew, and the whole log archived and a snapshot made as if for the first time |
//! | a snapshot is found damaged | it does not count; the next one writes what is missing anew |
//! | the log lost entries that the archive has | the archive is taken back to where both agree, with a warning |

mod archive;
mod make;
#[cfg(test)]
#[cfg(feature = "memory")]
mod part_tests;
mod recover;
#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use mainstay_core::{Lsn, Position, Result};
use mainstay_snapshot::place::PlaceOptions;
use mainstay_snapshot::{ContentHash, Repository, SnapshotId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub(crate) use archive::run as run_archive;
pub(crate) use make::{make, prune_options, run};

use crate::config::SnapshotsConfig;
use crate::log::Log;
use crate::tier::status::SnapshotsStatus;

/// The snapshots of one tier.
pub(crate) struct Snapshots {
    config: SnapshotsConfig,
    dir: String,
    log: Arc<dyn Log>,
    /// Opened when it is first needed, because the tier serves without it.
    repository: Mutex<Option<Repository>>,
    /// One task at a time opens it.
    opening: Semaphore,
    /// One snapshot is made at a time.
    making: Semaphore,
    /// One task at a time moves the end of the archive.
    archiving: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Everything up to here is archived, as far as is known.
    archived: Option<Lsn>,
    archive_error: Option<String>,
    /// Snapshots of this log that were read back well, with the LSN that they start at.
    good: BTreeMap<SnapshotId, Lsn>,
    /// Files that were read back well by this process.
    good_files: HashSet<ContentHash>,
    newest: Option<Newest>,
    /// When the next one may follow the last one.
    rests_until: Option<Instant>,
    last_error: Option<String>,
    made: u64,
    failed: u64,
}

#[derive(Clone, Debug)]
struct Newest {
    id: SnapshotId,
    from: Position,
    to: Lsn,
    points: u64,
    bytes: u64,
}

impl Snapshots {
    /// The snapshots that a config wants, if it wants any.
    pub(crate) fn new(config: &SnapshotsConfig, log: &Arc<dyn Log>) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            dir: config.dir.clone()?,
            config: config.clone(),
            log: Arc::clone(log),
            repository: Mutex::default(),
            opening: Semaphore::new(1),
            making: Semaphore::new(1),
            archiving: Semaphore::new(1),
            state: Mutex::default(),
        }))
    }

    /// The repository, opened for writing.
    pub(crate) async fn repository(&self) -> Result<Repository> {
        // Nobody closes it.
        let _one = self.opening.acquire().await;
        let open = self.repository.lock().clone();
        if let Some(open) = open {
            if open.is_there().await? {
                return Ok(open);
            }
            // Removed, moved or no longer mounted: what was in it counts for nothing, least of all for cutting the log.
            tracing::warn!(place = self.dir, "the snapshots are gone; they are begun anew");
            self.close();
            *self.state.lock() = State::default();
        }
        let opened = Repository::open_for_writing(&self.dir, &place_options(&self.config)).await?;
        Ok(self.repository.lock().insert(opened).clone())
    }

    /// Lets the repository go, for another process to write to.
    fn close(&self) {
        *self.repository.lock() = None;
    }

    /// Up to which LSN the log may be cut as far as snapshots go.
    pub(crate) fn keeps(&self) -> Lsn {
        let state = self.state.lock();
        let second = state.good.values().rev().nth(1).copied().unwrap_or_default();
        second.min(state.archived.unwrap_or_default())
    }

    /// What operators see.
    pub(crate) fn status(&self) -> SnapshotsStatus {
        let state = self.state.lock();
        let end = self.log.bounds().last;
        let newest = state.newest.as_ref();
        SnapshotsStatus {
            place: self.dir.clone(),
            newest: newest.map(|newest| newest.id.to_string()),
            age: newest.and_then(|newest| (Utc::now() - newest.id.time()).to_std().ok()),
            lsn: newest.map(|newest| newest.to),
            points: newest.map_or(0, |newest| newest.points),
            bytes: newest.map_or(0, |newest| newest.bytes),
            good: state.good.len(),
            archived: state.archived,
            archive_lag: state.archived.unwrap_or_default().lag_behind(end),
            archive_error: state.archive_error.clone(),
            last_error: state.last_error.clone(),
            made: state.made,
            failed: state.failed,
        }
    }

    /// Waits until nobody else makes a snapshot.
    async fn begin(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it, so there always is a permit.
        self.making.acquire().await.ok()
    }
}

/// How the place of a config's snapshots is reached.
pub(crate) fn place_options(config: &SnapshotsConfig) -> PlaceOptions {
    PlaceOptions {
        endpoint: config.storage.endpoint.clone(),
        region: config.storage.region.clone(),
        account: config.storage.account.clone(),
        allow_http: config.storage.allow_http,
        virtual_hosted_style: config.storage.virtual_hosted_style,
    }
}
