//! Which snapshot a restore begins with, and the archived entries that go on from it.
//!
//! A restore begins a new epoch of a log. Until that epoch has a snapshot of its own its archive goes on from one of an
//! earlier epoch, so epochs come first: of the newest one that anything is archived of, the newest snapshot that leads
//! into it is taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogIdentity, Lsn, Result};
use mainstay_snapshot::layout::SegmentName;
use mainstay_snapshot::repository::Listed;
use mainstay_snapshot::segment::{TimeMark, covering};
use mainstay_snapshot::verify::verify;
use mainstay_snapshot::{Manifest, Repository, SnapshotId};

use super::{RestoreOptions, Until};
use crate::log::decode;

/// A snapshot and the archived entries that go on from it.
pub struct Found {
    pub manifest: Manifest,
    pub entries: Vec<Arc<Entry>>,
    /// By when the last entry had been written.
    pub written_by: Option<DateTime<Utc>>,
    /// Archived entries beyond the last one.
    pub left_out: u64,
    /// Snapshots that were passed over, and why.
    pub passed_over: Vec<(SnapshotId, String)>,
}

/// The newest good snapshot that reaches no further than is wanted, and the entries from there.
///
/// # Errors
/// `NotFound` if there is none, with the reasons; `Corrupt` if the archive is damaged before what is wanted.
pub async fn find(repository: &Repository, options: &RestoreOptions) -> Result<Found> {
    let listed = match options.snapshot {
        Some(id) => vec![repository.find(id).await?],
        None => repository.snapshots().await?,
    };
    let (mut candidates, mut passed_over) = (Vec::new(), Vec::new());
    for listed in listed.into_iter().rev() {
        match repository.manifest(listed).await {
            Ok(manifest) => candidates.push((listed, manifest)),
            Err(error) => pass_over(&mut passed_over, listed.id, error)?,
        }
    }
    let archived = repository.logs().await?;
    let mut ids = Vec::new();
    for (_, manifest) in &candidates {
        if !ids.contains(&manifest.from.log.id) {
            ids.push(manifest.from.log.id);
        }
    }
    for id in ids {
        let of_this = || candidates.iter().filter(|(_, manifest)| manifest.from.log.id == id);
        let mut epochs: BTreeSet<u64> = of_this().map(|(_, manifest)| manifest.from.log.epoch).collect();
        epochs.extend(archived.iter().filter(|log| log.id == id).map(|log| log.epoch));
        for epoch in epochs.into_iter().rev() {
            let log = LogIdentity { id, epoch };
            for (listed, manifest) in of_this().filter(|(_, manifest)| manifest.from.log.epoch <= epoch) {
                match candidate(repository, *listed, manifest, log, options.until).await {
                    Ok(Candidate::Good(found)) => return Ok(Found { passed_over, ..*found }),
                    Ok(Candidate::CutShort(error)) => return Err(error),
                    Err(error) => pass_over(&mut passed_over, listed.id, error)?,
                }
            }
        }
    }
    let why: Vec<_> = passed_over.iter().map(|(id, why)| format!("{id}: {why}")).collect();
    let text = format!("no snapshot at {} can be restored so; {}", repository.place(), why.join("; "));
    Err(Error::new(ErrorKind::NotFound, text))
}

/// Notes why a snapshot cannot be used.
///
/// # Errors
/// That which says nothing about the snapshot.
fn pass_over(passed_over: &mut Vec<(SnapshotId, String)>, id: SnapshotId, error: Error) -> Result<()> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported) {
        return Err(error);
    }
    tracing::warn!(%id, %error, "the snapshot is passed over");
    passed_over.push((id, error.to_string()));
    Ok(())
}

/// What becomes of a snapshot that can be used.
enum Candidate {
    /// What is wanted is there.
    Good(Box<Found>),
    /// What is wanted is not, and no older snapshot would help.
    CutShort(Error),
}

/// A snapshot, and the entries of this log that go on from it.
async fn candidate(
    repository: &Repository,
    listed: Listed,
    manifest: &Manifest,
    log: LogIdentity,
    until: Until,
) -> Result<Candidate> {
    if let Until::Lsn(lsn) = until
        && lsn < manifest.to.lsn
    {
        let text = format!("it reaches to entry {}, which is beyond {lsn}", manifest.to.lsn);
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    let Archived { mut entries, marks, broken } = Archived::read(repository, manifest, log).await?;
    if entries.is_empty() && log != manifest.from.log {
        let text = format!("nothing that is archived of epoch {} goes on from it", log.epoch);
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    let reached = entries.last().map_or(manifest.from.lsn, |entry| entry.lsn);
    if reached < manifest.to.lsn {
        let text = format!(
            "it needs the log up to entry {}, and the archive goes on without a gap only to {reached}",
            manifest.to.lsn
        );
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    if !hash_at(manifest, &entries, manifest.to.lsn).is_some_and(|hash| hash == manifest.to.hash) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the archived log is not the one that the snapshot was of",
        ));
    }
    let verified = verify(repository, listed, &|_, _| {}).await?;
    if let Some(problem) = verified.problems.into_iter().next() {
        return Err(problem);
    }
    let cut = |what: &str| {
        let text = format!(
            "the archived log is damaged after entry {reached}: {what}; what comes before is restored with \
             --until-lsn {reached}"
        );
        Ok(Candidate::CutShort(Error::new(ErrorKind::Corrupt, text)))
    };
    let wanted = match (until, broken) {
        (Until::End, None) => reached,
        (Until::Lsn(lsn), _) if lsn <= reached => lsn,
        (Until::Lsn(lsn), None) => {
            let text = format!("entry {lsn} is not archived, the archive ends at {reached}");
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        (Until::Time(time), broken) => {
            // Whether what comes next is from before that time cannot be told.
            if let Some(what) = broken.filter(|_| marks.iter().all(|mark| mark.time <= time)) {
                return cut(&what);
            }
            let by = marks.iter().filter(|mark| mark.time <= time).map(|mark| mark.lsn).max();
            // Without an entry after the snapshot, its own end is what is known of the time.
            let at = by.max((manifest.ended <= time).then_some(manifest.to.lsn));
            match at.filter(|at| *at >= manifest.to.lsn) {
                Some(at) => at,
                None => {
                    return Err(Error::new(ErrorKind::NotFound, format!("it is from after {time}")));
                }
            }
        }
        (_, Some(what)) => return cut(&what),
    };
    entries.retain(|entry| entry.lsn <= wanted);
    let written_by = marks.iter().filter(|mark| mark.lsn >= wanted).map(|mark| mark.time).min();
    let left_out = reached.0 - wanted.0;
    let manifest = manifest.clone();
    let found = Found { manifest, entries, written_by, left_out, passed_over: Vec::new() };
    Ok(Candidate::Good(Box::new(found)))
}

/// The hash of the history up to an entry.
fn hash_at(manifest: &Manifest, entries: &[Arc<Entry>], lsn: Lsn) -> Option<EntryHash> {
    if lsn == manifest.from.lsn {
        return Some(manifest.from.hash);
    }
    entries.iter().find(|entry| entry.lsn == lsn).map(|entry| entry.hash)
}

/// What is archived of a log after a snapshot.
#[derive(Default)]
struct Archived {
    entries: Vec<Arc<Entry>>,
    marks: Vec<TimeMark>,
    /// What is wrong with the segment that should come next, if there are entries behind it.
    broken: Option<String>,
}

impl Archived {
    /// Reads what goes on from a snapshot without a gap.
    async fn read(repository: &Repository, manifest: &Manifest, log: LogIdentity) -> Result<Self> {
        let mut read = Self::default();
        let (mut before, mut reached) = (manifest.from.hash, manifest.from.lsn);
        let mut segments = repository.segments(log).await?;
        let mut damaged: Vec<(SegmentName, Error)> = Vec::new();
        let mut plan = covering(&segments, reached).into_iter();
        while let Some(name) = plan.next() {
            let segment = match repository.read_segment(log, name).await {
                Ok(segment) => segment,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, "a segment of the archived log is damaged");
                    damaged.push((name, error));
                    // One that is gone may have become part of a larger one meanwhile.
                    segments = repository.segments(log).await?;
                    let is_usable = |name: &&SegmentName| damaged.iter().all(|(bad, _)| bad != *name);
                    let usable: Vec<_> = segments.iter().filter(is_usable).copied().collect();
                    plan = covering(&usable, reached).into_iter();
                    continue;
                }
                Err(error) => return Err(error),
            };
            read.marks.extend(segment.marks.iter().copied());
            let (known, lsns) = (reached, (segment.first.0..).map(Lsn));
            for (lsn, bytes) in lsns.zip(&segment.entries).filter(|(lsn, _)| *lsn > known) {
                let entry = decode(lsn, Some(before), bytes)?;
                (before, reached) = (entry.hash, lsn);
                read.entries.push(Arc::new(entry));
            }
        }
        if segments.iter().any(|name| name.last > reached) {
            let next = damaged.into_iter().find(|(name, _)| name.last > reached);
            let missing = || format!("entry {} is in no segment", reached.next());
            read.broken = Some(next.map_or_else(missing, |(_, error)| error.to_string()));
        }
        Ok(read)
    }
}
