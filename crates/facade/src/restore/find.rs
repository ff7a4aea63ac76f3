//! Which snapshot a restore begins with, and the archived entries that go on from it.
//!
//! A restore begins a new epoch of a log. Until that epoch has a snapshot of its own its archive goes on from one of an
//! earlier epoch, so epochs come first: of the newest one that anything is archived of, the newest snapshot that leads
//! into it is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogIdentity, Lsn, Result};
use mainstay_snapshot::load::Mark;
use mainstay_snapshot::repository::Listed;
use mainstay_snapshot::verify::verify;
use mainstay_snapshot::{Manifest, Repository, SnapshotId};

use super::archived::Archived;
use super::{RestoreOptions, Until};

/// A snapshot and the archived entries that go on from it.
pub struct Found {
    pub manifest: Manifest,
    /// The log that the entries are of.
    log: LogIdentity,
    /// The last entry.
    pub to: Lsn,
    /// Its hash, unless the time that is wanted is in the middle of what was archived twice.
    hash: Option<EntryHash>,
    /// Those of the entries that create and drop collections.
    pub changes: Vec<Arc<Entry>>,
    /// By when the last entry had been written.
    pub written_by: Option<DateTime<Utc>>,
    /// Archived entries beyond the last one.
    pub left_out: u64,
    /// Snapshots that were passed over, and why.
    pub passed_over: Vec<(SnapshotId, String)>,
}

impl Found {
    /// The entries, from the first one on.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn entries<'a>(&self, repository: &'a Repository) -> Result<Entries<'a>> {
        let mark = Mark::set(repository, self.manifest.id).await;
        let archived = Archived::after(repository, &self.manifest, self.log).await?;
        Ok(Entries { archived, to: self.to, hash: self.hash, mark })
    }
}

/// Archived entries up to one of them, read again: they may be more than fit into memory.
pub struct Entries<'a> {
    archived: Archived<'a>,
    to: Lsn,
    hash: Option<EntryHash>,
    /// Nothing of them is pruned.
    pub mark: Mark<'a>,
}

impl Entries<'_> {
    /// The next ones; `None` after the last one.
    ///
    /// # Errors
    /// `Corrupt` if one is no longer there or is not the one that was found; whatever the place runs into.
    pub async fn next(&mut self) -> Result<Option<Vec<Arc<Entry>>>> {
        self.mark.renew().await;
        let reached = self.archived.reached();
        if reached >= self.to {
            return Ok(None);
        }
        let Some(part) = self.archived.next().await? else {
            return Err(changed(reached));
        };
        let entries: Vec<_> = part.entries.into_iter().filter(|entry| entry.lsn <= self.to).collect();
        // Each entry has the hash of the one before, so the last one stands for all.
        let is_another =
            |last: &Arc<Entry>| last.lsn == self.to && self.hash.is_some_and(|hash| hash != last.hash);
        if entries.last().is_some_and(is_another) {
            return Err(changed(reached));
        }
        Ok(Some(entries))
    }
}

fn changed(reached: Lsn) -> Error {
    let text =
        format!("the archived log is no longer what it was after entry {reached}; run the restore again");
    Error::new(ErrorKind::Corrupt, text)
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
    let mut archived = Archived::after(repository, manifest, log).await?;
    let (mut marks, mut changes) = (Vec::new(), Vec::new());
    // Of entries that may be the last one. The last one of a part has a mark.
    let mut hashes: BTreeMap<Lsn, EntryHash> = [(manifest.from.lsn, manifest.from.hash)].into();
    while let Some(part) = archived.next().await? {
        let is_marked = |lsn: Lsn| part.marks.binary_search_by_key(&lsn, |mark| mark.lsn).is_ok();
        let may_be_last = |lsn: Lsn| lsn == manifest.to.lsn || until == Until::Lsn(lsn) || is_marked(lsn);
        let last = part.entries.iter().filter(|entry| may_be_last(entry.lsn));
        hashes.extend(last.map(|entry| (entry.lsn, entry.hash)));
        marks.extend(part.marks);
        changes.extend(part.entries.into_iter().filter(|entry| entry.op.is_of_collections()));
    }
    let (reached, broken) = (archived.reached(), archived.broken());
    if reached == manifest.from.lsn && log != manifest.from.log {
        let text = format!("nothing that is archived of epoch {} goes on from it", log.epoch);
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    if reached < manifest.to.lsn {
        let text = format!(
            "it needs the log up to entry {}, and the archive goes on without a gap only to {reached}",
            manifest.to.lsn
        );
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    if hashes.get(&manifest.to.lsn) != Some(&manifest.to.hash) {
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
    let hash = hashes.get(&wanted).copied();
    changes.retain(|entry| entry.lsn <= wanted);
    let written_by = marks.iter().filter(|mark| mark.lsn >= wanted).map(|mark| mark.time).min();
    let left_out = reached.0 - wanted.0;
    let manifest = manifest.clone();
    let found =
        Found { manifest, log, to: wanted, hash, changes, written_by, left_out, passed_over: Vec::new() };
    Ok(Candidate::Good(Box::new(found)))
}
