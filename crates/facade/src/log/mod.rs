//! The log: the one ordered, durable list of all writes.
//!
//! | module | idea |
//! |---|---|
//! | `codec` | an entry as bytes: versioned, checksummed, chained to the one before |
//! | `tail` | the newest entries in memory, so that appliers at the end never touch the disk |
//! | [`MemoryLog`] | for tests and tiers that need not outlive their process |
//! | `storage` | what a log asks of a disk |
//! | [`FileLog`] | on disk, with group commit |
//!
//! Invariants, whatever the implementation: LSNs start at 1 and have no gaps; an entry that a reader
//! has seen is durable under the sync policy and never changes; after a failed write or sync the log
//! takes no more entries, and says why.

mod codec;
mod disk;
mod memory;
mod storage;
#[cfg(test)]
mod suite;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::parts::parts;
use mainstay_core::{Entry, Error, LogIdentity, Lsn, Op, Point, Position, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

#[cfg(feature = "snapshots")]
pub(crate) use self::codec::{decode, encode};
#[cfg(feature = "snapshots")]
pub(crate) use self::disk::{DirectoryLock, io_error, sync_directory};
pub use self::disk::{DiskLog, FileLog, LogOptions, SyncPolicy};
pub use self::memory::MemoryLog;
pub use self::storage::{Barrier, Known, Mark, Opened, Reading, Storage};
use crate::catalog::Collections;

/// Most bytes of one encoded entry. Larger ones would make a run that a store takes in one go
/// needlessly large; upserts are split by [`split_points`].
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Where an append landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The LSN of the first entry.
    pub first: Lsn,
    /// The LSN of the last entry.
    pub last: Lsn,
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first entry; one more than `last` if there is none.
    pub first: Lsn,
    /// The last entry that readers may see.
    pub last: Lsn,
    /// Bytes of all entries.
    pub bytes: u64,
}

/// The state before the first entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The position before the first entry.
    pub position: Position,
    /// The collections that existed there.
    pub collections: Collections,
}

/// The ordered write log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// The log's id and epoch.
    fn identity(&self) -> LogIdentity;

    /// What the log holds now; cheap.
    fn bounds(&self) -> Bounds;

    /// Why the log takes no more entries, if it does not; cheap.
    fn failure(&self) -> Option<Error> {
        None
    }

    /// Follows the last entry that readers may see.
    fn watch_end(&self) -> watch::Receiver<Lsn>;

    /// The state before the first entry.
    fn checkpoint(&self) -> Checkpoint;

    /// Appends entries, contiguous and all or none, and answers once they are durable under the
    /// sync policy. Entries whose caller stopped waiting may be appended all the same.
    ///
    /// # Errors
    /// `Invalid` for no or an oversized entry, `Overloaded` if too many appends wait, `StorageFull`
    /// if `max_bytes` is reached: nothing was logged. Any other error latches the log; if its effect
    /// is `Unknown`, the entries may be there after a restart.
    async fn append(&self, ops: Vec<Op>) -> Result<Appended>;

    /// Entries after `after`, contiguous, at least one if there is one, and no more once `max_bytes`
    /// are reached.
    ///
    /// # Errors
    /// `LogGap` if the entry after `after` was cut, `Corrupt` with its LSN if it is damaged.
    async fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Arc<Entry>>>;

    /// The position after the entry `lsn`, or the checkpoint's.
    ///
    /// # Errors
    /// `LogGap` if the log does not hold the entry, `Corrupt` if it is damaged.
    async fn position_at(&self, lsn: Lsn) -> Result<Position>;

    /// Cuts all entries before `lsn`, or as far as holds allow, after storing `collections`, the
    /// collections that exist just before `lsn`. Answers the last LSN that was cut. If a hold stands in
    /// between, nothing is cut, because the collections would not fit.
    ///
    /// # Errors
    /// `Timeout` if the disk does not answer in time, and the cut may still happen; whatever storage runs into. The log is
    /// whole then.
    async fn truncate_before(&self, lsn: Lsn, collections: Collections) -> Result<Lsn>;

    /// Keeps every entry after `lsn` from being cut until the hold is dropped. If a cut is on its way beyond that, it
    /// goes on, and the hold is of the entries after it: [`Hold::after`] says from where.
    fn hold(&self, lsn: Lsn) -> Hold;

    /// Makes everything appended durable, whatever the policy.
    ///
    /// # Errors
    /// `Timeout` if the disk does not answer in time; the reason why the log takes no more entries.
    async fn sync(&self) -> Result<()>;

    /// Syncs and ends every task. Later appends answer `Unavailable`.
    ///
    /// # Errors
    /// `Timeout` if appends that wait leave no room for the request: the log is open, and can be asked again. Otherwise
    /// as [`sync`](Self::sync); the log is closed all the same.
    async fn close(&self) -> Result<()>;
}

/// Entries that a scan reads at once.
const SCAN_BYTES: usize = 4 << 20;

/// Goes through the entries after `after` up to `end`, piece by piece, and answers the last one that there was. After an
/// error, `each` has seen the entries before it.
///
/// # Errors
/// As [`Log::read`].
pub(crate) async fn scan(
    log: &dyn Log,
    after: Lsn,
    end: Lsn,
    mut each: impl FnMut(&Entry) + Send,
) -> Result<Lsn> {
    let mut at = after;
    while at < end {
        let entries = log.read(at, SCAN_BYTES).await?;
        let Some(last) = entries.last() else { break };
        at = last.lsn.min(end);
        entries.iter().take_while(|entry| entry.lsn <= end).for_each(|entry| each(entry));
    }
    Ok(at)
}

/// Keeps entries from being cut while it lives.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    after: Lsn,
}

impl Hold {
    /// Every entry after this one is kept: what was asked for, or later if a cut was on its way already.
    pub fn after(&self) -> Lsn {
        self.after
    }

    /// Holds the entries after `lsn` instead, or as with [`Log::hold`] those that are left of them. Nothing is let go
    /// before the others are held.
    pub(crate) fn move_to(&mut self, lsn: Lsn) {
        *self = self.holds.hold(lsn);
    }
}

/// What must not be cut, and what is being cut. One lock for both: a cut takes a while, and a hold that is taken in the
/// middle of it must not promise entries that are on their way out.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// How many holds stand at each LSN.
    at: BTreeMap<Lsn, usize>,
    /// Entries up to this one are cut, or are about to be.
    cut: Lsn,
}

impl Holds {
    fn hold(self: &Arc<Self>, after: Lsn) -> Hold {
        let mut held = self.0.lock();
        let after = after.max(held.cut);
        *held.at.entry(after).or_default() += 1;
        Hold { holds: Arc::clone(self), after }
    }

    /// Whether every entry up to `lsn` may be cut, as things are.
    fn allow(&self, lsn: Lsn) -> bool {
        self.0.lock().allow(lsn)
    }

    /// As [`allow`](Self::allow), for a cut that begins now: later holds begin after it. If it then fails, they hold less
    /// than they might, which harms nobody.
    fn begin_cut(&self, lsn: Lsn) -> bool {
        let mut held = self.0.lock();
        let allowed = held.allow(lsn);
        if allowed {
            held.cut = held.cut.max(lsn);
        }
        allowed
    }
}

impl Held {
    fn allow(&self, lsn: Lsn) -> bool {
        self.at.first_key_value().is_none_or(|(after, _)| *after >= lsn)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.holds.0.lock();
        if let Some(count) = held.at.get_mut(&self.after) {
            *count -= 1;
            if *count == 0 {
                held.at.remove(&self.after);
            }
        }
    }
}

/// Splits points into groups that each fit into one entry; a point that is too large for an entry
/// gets one of its own, which an append refuses.
pub fn split_points(points: Vec<Arc<Point>>) -> Vec<Vec<Arc<Point>>> {
    // What a point takes beyond its own bytes is small; half of an entry is left for it.
    const GROUP_BYTES: usize = MAX_ENTRY_BYTES / 2;
    parts(points.into_iter().map(|point| (point.size_bytes(), point)), usize::MAX, GROUP_BYTES).collect()
}
