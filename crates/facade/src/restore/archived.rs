//! The archived entries that go on from a snapshot, one segment at a time: an archive is larger than memory.

use std::sync::Arc;
use std::vec;

use mainstay_core::{Entry, EntryHash, ErrorKind, LogIdentity, Lsn, Result};
use mainstay_snapshot::layout::SegmentName;
use mainstay_snapshot::segment::{TimeMark, covering};
use mainstay_snapshot::{Manifest, Repository};

use super::blocking;
use crate::log::decode;

/// A place in the archive of a log, up to which entries were read without a gap.
pub(super) struct Archived<'a> {
    repository: &'a Repository,
    log: LogIdentity,
    reached: Lsn,
    hash: EntryHash,
    segments: Vec<SegmentName>,
    plan: vec::IntoIter<SegmentName>,
    /// Segments that cannot be read, and why.
    damaged: Vec<(SegmentName, String)>,
}

/// Entries that follow each other.
pub(super) struct Part {
    pub entries: Vec<Arc<Entry>>,
    /// By when they had been written.
    pub marks: Vec<TimeMark>,
}

impl<'a> Archived<'a> {
    /// What is archived of this log after a snapshot.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn after(repository: &'a Repository, manifest: &Manifest, log: LogIdentity) -> Result<Self> {
        let (reached, hash) = (manifest.from.lsn, manifest.from.hash);
        let segments = repository.segments(log).await?;
        let plan = covering(&segments, reached).into_iter();
        Ok(Self { repository, log, reached, hash, segments, plan, damaged: Vec::new() })
    }

    /// The last entry that was read, or the snapshot's.
    pub fn reached(&self) -> Lsn {
        self.reached
    }

    /// The next entries; `None` at the end, and where one is missing.
    ///
    /// # Errors
    /// `Corrupt` if an entry does not follow the one before; whatever the place runs into.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        while let Some(name) = self.plan.next() {
            let segment = match self.repository.read_segment(self.log, name).await {
                Ok(segment) => segment,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, "a segment of the archived log is damaged");
                    self.damaged.push((name, error.to_string()));
                    // One that is gone may have become part of a larger one meanwhile.
                    self.segments = self.repository.segments(self.log).await?;
                    let is_usable = |name: &&SegmentName| self.damaged.iter().all(|(bad, _)| bad != *name);
                    let usable: Vec<_> = self.segments.iter().filter(is_usable).copied().collect();
                    self.plan = covering(&usable, self.reached).into_iter();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (reached, mut hash) = (self.reached, self.hash);
            let part = blocking(move || {
                let lsns = (segment.first.0..).map(Lsn);
                let new = lsns.zip(&segment.entries).filter(|(lsn, _)| *lsn > reached);
                let decoded = new.map(|(lsn, bytes)| {
                    let entry = decode(lsn, Some(hash), bytes)?;
                    hash = entry.hash;
                    Ok(Arc::new(entry))
                });
                Ok(Part { entries: decoded.collect::<Result<_>>()?, marks: segment.marks })
            });
            let part = part.await?;
            if let Some(last) = part.entries.last() {
                (self.reached, self.hash) = (last.lsn, last.hash);
            }
            return Ok(Some(part));
        }
        Ok(None)
    }

    /// What is wrong with the segment that should come next, if there are entries behind it.
    pub fn broken(self) -> Option<String> {
        if self.segments.iter().all(|name| name.last <= self.reached) {
            return None;
        }
        let next = self.damaged.into_iter().find(|(name, _)| name.last > self.reached);
        Some(next.map_or_else(|| format!("entry {} is in no segment", self.reached.next()), |(_, why)| why))
    }
}
