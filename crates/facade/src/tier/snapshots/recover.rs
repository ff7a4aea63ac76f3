//! A snapshot into a member that lost what it held.

use std::time::Duration;

use mainstay_core::{Context, Error, ErrorKind, Lsn, Position, RestoreStep, Result, VectorStore};
use mainstay_snapshot::load::{LoadError, load};
use mainstay_snapshot::{Manifest, Repository};
use tokio::time::timeout;

use super::Snapshots;
use crate::log::Log;
use crate::tier::member::Member;

/// Ending a load includes making all of it durable.
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);
/// Snapshots are looked at by then, or the log is replayed.
const LOOK: Duration = Duration::from_secs(10);
/// So many of the newest snapshots are looked at: an older one is further from what is wanted than another member.
const LOOKED_AT: usize = 8;
/// A replay of fewer entries is not worth a snapshot.
const WORTHWHILE: u64 = 1_000;

impl Snapshots {
    /// Whether a store that is empty is sooner loaded from a snapshot than by a replay of the whole log.
    pub(crate) async fn are_worth_it(&self) -> bool {
        let start = self.log.checkpoint().position.lsn;
        if self.log.bounds().last.0 <= start.0 + WORTHWHILE {
            return false;
        }
        match self.usable_in_time(start).await {
            Ok((_, usable)) => usable.iter().any(|manifest| manifest.from.lsn.0 > start.0 + WORTHWHILE),
            Err(error) => {
                tracing::warn!(%error, "snapshots cannot be looked at; the log is replayed");
                false
            }
        }
    }

    /// Loads a member from the newest snapshot that can be read and that the log continues, which is at this entry or
    /// beyond. `None` if there is none.
    ///
    /// # Errors
    /// What the member's store runs into.
    pub(crate) async fn load_into(
        &self,
        target: &Member,
        log: &dyn Log,
        at_least: Lsn,
    ) -> Result<Option<Position>> {
        // Held before it is looked which snapshots the log continues.
        let mut hold = log.hold(log.checkpoint().position.lsn);
        let (repository, usable) = match self.usable_in_time(at_least.max(hold.after())).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(member = %target.name(), %error, "no snapshot can be read");
                return Ok(None);
            }
        };
        for manifest in usable {
            hold.move_to(manifest.from.lsn);
            if hold.after() > manifest.from.lsn {
                // What follows it was cut while a newer one was tried.
                continue;
            }
            tracing::info!(member = %target.name(), snapshot = %manifest.id, at = %manifest.from.lsn, "loading");
            target.empty();
            let store: &dyn VectorStore = &**target.store();
            match load(&repository, &manifest, store, None, &|_, _| {}).await {
                Ok(()) => {}
                Err(LoadError::Store(error)) => return Err(error),
                Err(LoadError::Snapshot(error)) => {
                    tracing::warn!(snapshot = %manifest.id, %error, "the snapshot cannot be loaded; an older one is tried");
                    self.state.lock().good.remove(&manifest.id);
                    continue;
                }
            }
            if !target.is_volatile() {
                // What the snapshot holds and the log has not synced must not outlive the log.
                log.sync().await.map_err(crate::tier::applier::not_the_stores_fault)?;
            }
            let position = Position { log: log.identity(), ..manifest.from };
            let finish = RestoreStep::Finish { position };
            target.store().restore(&Context::within(FINISH_TIMEOUT), finish).await?;
            return Ok(Some(position));
        }
        Ok(None)
    }

    /// As [`usable`](Self::usable), and where they are. A place that hangs is one without snapshots: there may be a member
    /// to load from, or a log to replay.
    async fn usable_in_time(&self, at_least: Lsn) -> Result<(Repository, Vec<Manifest>)> {
        let look = async {
            let repository = self.repository().await?;
            let usable = self.usable(&repository, at_least).await?;
            Ok((repository, usable))
        };
        let looked = timeout(LOOK, look).await;
        looked.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")))
    }

    /// Snapshots that this log continues from an entry at or after this one, the newest first.
    async fn usable(&self, repository: &Repository, at_least: Lsn) -> Result<Vec<Manifest>> {
        let mut usable = Vec::new();
        for listed in repository.snapshots().await?.into_iter().rev().take(LOOKED_AT) {
            let manifest = match repository.manifest(listed).await {
                Ok(manifest) => manifest,
                Err(error) => {
                    tracing::warn!(snapshot = %listed.id, %error, "a snapshot cannot be read");
                    continue;
                }
            };
            if manifest.from.lsn >= at_least && self.continues(&manifest.from).await {
                usable.push(manifest);
            }
        }
        Ok(usable)
    }

    /// Whether the log has what comes after a position, of this or an earlier epoch, and leads there: after a restore there
    /// are snapshots of what is no longer the history.
    pub(super) async fn continues(&self, from: &Position) -> bool {
        let (log, end) = (self.log.identity(), self.log.bounds().last);
        if from.log.id != log.id || from.log.epoch > log.epoch || from.lsn > end {
            return false;
        }
        // The hash says that both have one history up to there.
        let known: Result<Position, Error> = self.log.position_at(from.lsn).await;
        known.is_ok_and(|known| known.hash == from.hash)
    }
}
