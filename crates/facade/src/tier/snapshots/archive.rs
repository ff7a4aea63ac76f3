//! The log's entries into the repository.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use mainstay_core::{Entry, EntryHash, Error, ErrorKind, Lsn, Result};
use mainstay_snapshot::Repository;
use mainstay_snapshot::layout::{SegmentName, to_millis};
use mainstay_snapshot::segment::{Segment, TimeMark};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Snapshots;
use crate::log::{decode, encode};
use crate::tier::until_closing;

/// Entries of one segment, in bytes of the log.
const SEGMENT_BYTES: usize = 8 << 20;
/// After a failure the archive waits so long, or longer if its interval is.
const PAUSE: Duration = Duration::from_secs(2);
/// The last segment of a tier that closes is written by then, or stays for the next start.
const LAST: Duration = Duration::from_secs(10);
/// So many small segments are put together.
const MERGE_AFTER: u32 = 64;

/// Archives the log until the tier closes, and what is left then.
pub(crate) async fn run(snapshots: Arc<Snapshots>, mut closing: watch::Receiver<bool>) {
    let mut end = snapshots.log.watch_end();
    let (mut pause, mut written) = (Duration::ZERO, 0);
    loop {
        tokio::select! {
            biased;
            () = until_closing(&mut closing) => break,
            () = sleep(snapshots.config.archive_interval.max(pause)) => {}
        }
        end.borrow_and_update();
        let round = async {
            match snapshots.archive().await {
                Ok(true) => (pause, written) = (Duration::ZERO, written + 1),
                Ok(false) => pause = Duration::ZERO,
                Err(_) => pause = PAUSE,
            }
            if written >= MERGE_AFTER {
                written = 0;
                if let Ok(repository) = snapshots.repository().await {
                    snapshots.merge_segments(&repository).await;
                }
            }
        };
        let given_up = async {
            until_closing(&mut closing).await;
            sleep(LAST).await;
        };
        tokio::select! {
            () = round => {}
            // The place hangs.
            () = given_up => break,
        }
        // Nothing to do before something is written, but the archive is opened and looked at once.
        if pause.is_zero() {
            tokio::select! {
                biased;
                () = until_closing(&mut closing) => break,
                changed = end.changed() => if changed.is_err() { break },
            }
        }
    }
    match timeout(LAST, snapshots.archive()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the end of the log was not archived; the next start does it")
        }
        Err(_) => tracing::warn!("the end of the log was not archived in time; the next start does it"),
    }
    snapshots.close();
}

impl Snapshots {
    /// Archives everything that is in the log now; whether that was anything.
    pub(super) async fn archive(&self) -> Result<bool> {
        // Nobody closes it.
        let _alone = self.archiving.acquire().await;
        let done = self.archive_alone().await;
        let mut state = self.state.lock();
        match &done {
            Ok(_) => state.archive_error = None,
            Err(error) => {
                if state.archive_error.is_none() {
                    tracing::warn!(%error, "the log is not archived");
                }
                state.archive_error = Some(error.to_string());
            }
        }
        drop(state);
        done
    }

    async fn archive_alone(&self) -> Result<bool> {
        let repository = &self.repository().await?;
        let known = self.state.lock().archived;
        let mut at = match known {
            Some(at) => at,
            None => self.end_of_archive(repository).await?,
        };
        self.state.lock().archived = Some(at);
        let end = self.log.bounds().last;
        if at >= end {
            return Ok(false);
        }
        // Else the archive could hold after a power loss what the log lost.
        self.log.sync().await?;
        while at < end {
            let mut entries = match self.log.read(at, SEGMENT_BYTES).await {
                // The log was cut meanwhile, because it was nearly full.
                Err(error) if error.kind() == ErrorKind::LogGap => {
                    let start = self.log.checkpoint().position.lsn;
                    tracing::warn!(from = %at.next(), to = %start, "entries were cut before they were archived");
                    at = start;
                    continue;
                }
                entries => entries?,
            };
            // What came since then may not be synced.
            entries.retain(|entry| entry.lsn <= end);
            let Some(last) = entries.last().map(|entry| entry.lsn) else { break };
            let before = self.log.position_at(at).await?.hash;
            let now = to_millis(Utc::now());
            let encoded = encode_all(before, &entries)?;
            let marks = vec![TimeMark { lsn: last, time: now }];
            let segment = Segment { log: self.log.identity(), first: at.next(), marks, entries: encoded };
            repository.write_segment(segment).await?;
            at = last;
            self.state.lock().archived = Some(at);
        }
        Ok(true)
    }

    /// Puts small segments together. That needs room for both the parts and the whole, and all else does without it.
    pub(super) async fn merge_segments(&self, repository: &Repository) {
        if let Err(error) = repository.merge_segments(self.log.identity()).await {
            tracing::warn!(%error, "segments of the log were not put together");
        }
    }

    /// The last archived entry, which must be in the log: segments of entries that the log does not have are removed.
    async fn end_of_archive(&self, repository: &Repository) -> Result<Lsn> {
        let (log, end) = (self.log.identity(), self.log.bounds().last);
        let start = self.log.checkpoint().position.lsn;
        let mut segments = repository.segments(log).await?;
        segments.sort_by_key(|segment| segment.last);
        while let Some(last) = segments.pop() {
            if last.last < start {
                return Ok(start);
            }
            if last.last <= end && self.is_ours(repository, last).await? {
                return Ok(last.last);
            }
            tracing::warn!(
                from = %last.first,
                to = %last.last,
                "the log does not have these archived entries, or they are damaged; they are archived again"
            );
            repository.remove_segment(log, last).await?;
        }
        Ok(start)
    }

    /// Whether the last entry of a segment is the one that the log has.
    async fn is_ours(&self, repository: &Repository, name: SegmentName) -> Result<bool> {
        let segment = match repository.read_segment(self.log.identity(), name).await {
            Ok(segment) => segment,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error),
        };
        let known = self.log.position_at(name.last).await?;
        let last = segment.entries.last().and_then(|bytes| decode(name.last, None, bytes).ok());
        Ok(last.is_some_and(|entry| entry.hash == known.hash))
    }
}

/// Entries as the log has them, checked to be the same to the byte.
fn encode_all(mut before: EntryHash, entries: &[Arc<Entry>]) -> Result<Vec<Vec<u8>>> {
    let mut encoded = Vec::with_capacity(entries.len());
    for entry in entries {
        let (bytes, hash) = encode(entry.lsn, before, &entry.op)?;
        if hash != entry.hash {
            let text = format!("entry {} cannot be written again as it is in the log", entry.lsn);
            return Err(Error::new(ErrorKind::Internal, text).with_lsn(entry.lsn));
        }
        before = hash;
        encoded.push(bytes);
    }
    Ok(encoded)
}
