//! Restoring: a tier as it was at an LSN or a time, from its snapshots and its archived log.
//!
//! What is restored is the log: a new one that begins at a snapshot and has the archived entries up to the wanted one, in
//! an epoch of its own. The members follow by what they do at every start: each is empty, or from before the new epoch,
//! and is loaded from the snapshot and replays the log. So a restore that is cut short leaves the old log as it was, and
//! one that is done needs nothing else.

mod archived;
mod find;
mod part;
#[cfg(all(test, feature = "memory"))]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use mainstay_core::{
    CollectionName, Entry, Error, ErrorKind, LogIdentity, Lsn, Op, Position, Result, Run, VectorStore,
};
use mainstay_core::{Context, RestoreStep};
use mainstay_snapshot::load::load_marked;
use mainstay_snapshot::prune::PruneOptions;
use mainstay_snapshot::{Manifest, Repository, SnapshotId};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Collection, Collections};
use crate::config::Config;
use crate::log::{Checkpoint, DirectoryLock, FileLog, Log, LogOptions, io_error, sync_directory};
use crate::restore::find::{Entries, Found, find};
use crate::tier::place_options;

/// Entries that are written, or applied to a store, at once.
const BATCH: usize = 512;
/// A batch has no more entries once it has so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Applying a batch, or ending a load.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);

/// Up to where a tier is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Everything that was archived.
    #[default]
    End,
    /// This entry.
    Lsn(Lsn),
    /// The last entry that had surely been written by this time.
    Time(DateTime<Utc>),
}

/// How a tier is restored.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// From this snapshot; otherwise the newest that is good and not beyond `until`.
    pub snapshot: Option<SnapshotId>,
    /// Up to where.
    pub until: Until,
    /// Only these collections, into a store by itself; `None` for all. A tier is restored whole.
    pub collections: Option<BTreeSet<CollectionName>>,
    /// What the tier's log is now may go. It is kept beside the new one, under another name.
    pub replace: bool,
    /// Only say what would be restored.
    pub dry_run: bool,
}

/// What was restored, or would be.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Snapshots that were passed over, and why.
    pub passed_over: Vec<(SnapshotId, String)>,
    /// The log that begins at the snapshot; for a store that gets some collections alone, the one that they are of.
    pub log: LogIdentity,
    /// The LSN of the snapshot.
    pub from: Lsn,
    /// The last entry.
    pub to: Lsn,
    /// By when the last entry had been written. What was written later is not restored.
    pub written_by: Option<DateTime<Utc>>,
    /// Archived entries beyond the last one that are left out, as was wanted.
    pub left_out: u64,
    /// Collections of the snapshot, of those that were wanted.
    pub collections: usize,
    /// Their points in the snapshot.
    pub points: u64,
    /// Where the log from before is now, if there was one.
    pub replaced: Option<PathBuf>,
}

/// Opens the repository of a config's snapshots, to read from it.
///
/// # Errors
/// `Invalid` if the config names none; `NotFound` if there is none at that place.
pub async fn open_repository(config: &Config) -> Result<Repository> {
    let Some(dir) = &config.snapshots.dir else {
        return Err(Error::invalid("the config names no place for snapshots; set snapshots.dir"));
    };
    Repository::open(dir, &place_options(&config.snapshots)).await
}

/// Opens the repository of a config's snapshots, to write to it.
///
/// # Errors
/// As [`open_repository`]; `Unavailable` if a process that makes snapshots has the directory.
pub async fn open_repository_for_writing(config: &Config) -> Result<Repository> {
    // Only one that is there, so that nothing is made by mistake.
    let repository = open_repository(config).await?;
    Repository::open_for_writing(repository.place(), &place_options(&config.snapshots)).await
}

/// How a config wants its snapshots to be pruned.
pub fn prune_options(config: &Config) -> PruneOptions {
    crate::tier::prune_options(&config.snapshots)
}

/// Restores the tier of a config, which no process may have open. Its members are loaded when it is opened next.
///
/// # Errors
/// `Invalid` if only some collections are wanted, or the log is in memory; `NotFound` if there is no good snapshot, or none
/// that reaches as far back; `AlreadyExists` if the tier has a log and it may
/// not be replaced; `Unavailable` if a process has it open; whatever reading and writing run into. The old log is then as
/// it was.
pub async fn restore(config: &Config, options: RestoreOptions) -> Result<Restored> {
    if options.collections.is_some() {
        return Err(Error::invalid(
            "a tier is restored whole; some of its collections go into a store by itself",
        ));
    }
    let repository = open_repository(config).await?;
    if config.log.is_in_memory() {
        return Err(Error::invalid("a log in memory cannot be restored; name a directory with log.path"));
    }
    let path = config.log.path.clone();
    check_replaceable(&path, &options)?;
    // From before it is known what is archived until the new log is in its place nobody may write to the old one.
    let lock = match options.dry_run {
        true => None,
        false => {
            let path = path.clone();
            let lock = blocking(move || DirectoryLock::take(&path)).await?;
            Some(Arc::new(lock))
        }
    };
    let there = check_replaceable(&path, &options)?;
    let found = find(&repository, &options).await?;
    let from = found.manifest.from;
    let epoch = newest_epoch(&repository, from.log, &path, lock.as_ref().filter(|_| there)).await? + 1;
    let log = LogIdentity { id: from.log.id, epoch };
    let mut restored = Restored {
        snapshot: found.manifest.id,
        passed_over: found.passed_over.clone(),
        log,
        from: from.lsn,
        to: found.to,
        written_by: found.written_by,
        left_out: found.left_out,
        collections: found.manifest.collections.len(),
        points: found.manifest.points(),
        replaced: None,
    };
    if options.dry_run {
        return Ok(restored);
    }
    let checkpoint =
        Checkpoint { position: Position { log, ..from }, collections: collections(&found.manifest) };
    let aside = sibling(&path, "restoring");
    let mut entries = found.entries(&repository).await?;
    let built = build(&aside, checkpoint, &mut entries).await;
    entries.mark.remove().await;
    built?;
    restored.replaced = blocking(move || put_in_place(&aside, &path, there)).await?;
    drop(lock);
    Ok(restored)
}

/// Whether there is a log that will be replaced.
fn check_replaceable(path: &Path, options: &RestoreOptions) -> Result<bool> {
    let there = path.join("checkpoint").exists();
    if there && !options.replace && !options.dry_run {
        let text =
            format!("the tier has a log in {}; --replace puts the restored one in its place", path.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    Ok(there)
}

/// Loads a store by itself, without a tier, as it was: its position is then of the log that the snapshot was of. If only some
/// collections are wanted, it is of a log of its own, so that no tier takes the store for one that holds everything.
///
/// # Errors
/// As [`restore`]; `AlreadyExists` if the store holds something and it may not be replaced; `NotFound` for a collection that
/// was not there, naming those that were, and `Invalid` if none is wanted.
pub async fn restore_store(
    repository: &Repository,
    options: RestoreOptions,
    into: &dyn VectorStore,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Restored> {
    let step = || Context::within(STEP_TIMEOUT);
    let held = into.collections(&step()).await?;
    if !held.is_empty() && !options.replace && !options.dry_run {
        let text = format!("the store holds {} collections; --replace lets them go", held.len());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let found = find(repository, &options).await?;
    let from = found.manifest.from;
    let wanted = options.collections.as_ref();
    if let Some(wanted) = wanted {
        part::check(wanted, &found.manifest, &found.changes)?;
    }
    let is_wanted = |name: &CollectionName| wanted.is_none_or(|wanted| wanted.contains(name));
    let loaded: BTreeSet<_> =
        found.manifest.collections.keys().filter(|name| is_wanted(name)).cloned().collect();
    let points = found.manifest.collections.values().filter(|collection| is_wanted(&collection.spec.name));
    let points = points.map(|collection| collection.points()).sum();
    if !options.dry_run {
        let mut entries = found.entries(repository).await?;
        let filled = fill(into, &found, &mut entries, wanted, &loaded, progress).await;
        entries.mark.remove().await;
        filled?;
    }
    Ok(Restored {
        snapshot: found.manifest.id,
        passed_over: found.passed_over,
        log: from.log,
        from: from.lsn,
        to: found.to,
        written_by: found.written_by,
        left_out: found.left_out,
        collections: loaded.len(),
        points,
        replaced: None,
    })
}

/// Loads a store from a snapshot and applies the entries that go on from it.
async fn fill(
    into: &dyn VectorStore,
    found: &Found,
    entries: &mut Entries<'_>,
    wanted: Option<&BTreeSet<CollectionName>>,
    loaded: &BTreeSet<CollectionName>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<()> {
    let step = || Context::within(STEP_TIMEOUT);
    load_marked(&mut entries.mark, &found.manifest, into, Some(loaded), progress).await?;
    let mut at = match wanted {
        Some(_) => Position { log: part::own_log(), ..found.manifest.from },
        None => found.manifest.from,
    };
    into.restore(&step(), RestoreStep::Finish { position: at }).await?;
    while let Some(entries) = entries.next().await? {
        for entries in batches(&entries) {
            let entries = match wanted {
                Some(wanted) => part::entries_of(wanted, entries),
                None => entries.to_vec(),
            };
            at = into.apply(&step(), &Run::new(at, entries)?).await?;
        }
    }
    into.flush(&step()).await?;
    Ok(())
}

/// The collections that existed at the snapshot's LSN; those that came later come with their entries.
fn collections(manifest: &Manifest) -> Collections {
    let there =
        manifest.collections.values().filter(|collection| collection.incarnation <= manifest.from.lsn);
    there
        .map(|collection| {
            let known =
                Collection { spec: Arc::new(collection.spec.clone()), incarnation: collection.incarnation };
            (collection.spec.name.clone(), known)
        })
        .collect()
}

/// The highest epoch of a log that is known, also to the log that is there, if it is locked.
async fn newest_epoch(
    repository: &Repository,
    log: LogIdentity,
    path: &Path,
    locked: Option<&Arc<DirectoryLock>>,
) -> Result<u64> {
    let archived = repository.logs().await?.into_iter().filter(|known| known.id == log.id);
    let mut newest = archived.map(|known| known.epoch).max().unwrap_or_default().max(log.epoch);
    if let Some(lock) = locked {
        // A log that is damaged beyond opening is one more reason to restore it.
        match FileLog::open_held(LogOptions::new(path), Arc::clone(lock)).await {
            Ok(open) => {
                let known = open.identity();
                open.close().await?;
                if known.id == log.id {
                    newest = newest.max(known.epoch);
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "the log that is replaced cannot be opened");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

/// A log of these entries, in a directory of its own.
async fn build(directory: &Path, checkpoint: Checkpoint, entries: &mut Entries<'_>) -> Result<()> {
    let leftover = directory.to_owned();
    blocking(move || match std::fs::remove_dir_all(&leftover) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("what an earlier restore left cannot be removed", &leftover, e))
        }
        _ => Ok(()),
    })
    .await?;
    let options = LogOptions { max_bytes: u64::MAX, ..LogOptions::new(directory) };
    let log = FileLog::begin(options, checkpoint).await?;
    let written = async {
        let mut last = None;
        while let Some(entries) = entries.next().await? {
            for batch in batches(&entries) {
                let ops: Vec<Op> = batch.iter().map(|entry| entry.op.clone()).collect();
                log.append(ops).await?;
            }
            last = entries.last().cloned().or(last);
        }
        let Some(last) = last else { return Ok(()) };
        match log.position_at(last.lsn).await?.hash == last.hash {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Internal, "the restored log is not the archived one")),
        }
    };
    let written = written.await;
    log.close().await?;
    written
}

/// Entries in pieces that are written at once.
fn batches(entries: &[Arc<Entry>]) -> impl Iterator<Item = &[Arc<Entry>]> {
    let (mut count, mut bytes) = (0, 0);
    entries.chunk_by(move |before, _| {
        (count, bytes) = (count + 1, bytes + before.size_bytes);
        let more = count < BATCH && bytes < BATCH_BYTES;
        if !more {
            (count, bytes) = (0, 0);
        }
        more
    })
}

/// Puts a log in the place of a directory that is held, and answers under which name the log that was there, if one was, is
/// kept.
fn put_in_place(new: &Path, path: &Path, there: bool) -> Result<Option<PathBuf>> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let old = sibling(path, &format!("replaced-{}", Utc::now().format("%Y%m%dT%H%M%S%.3fZ")));
    // It gets the name first that the old one then has: the next restore removes whatever has the name of one under way.
    std::fs::rename(new, &old).map_err(|e| io_error("the restored log cannot be renamed", new, e))?;
    // At no moment is there no log: a tier that is opened without one would begin a new one.
    renameat_with(CWD, &old, CWD, path, RenameFlags::EXCHANGE).map_err(|e| {
        // Nothing was replaced.
        let _ = std::fs::rename(&old, new);
        io_error("the log cannot be replaced", path, e.into())
    })?;
    sync_parent(path)?;
    if there {
        return Ok(Some(old));
    }
    // What was there is a lock file that this process made.
    if let Err(error) = std::fs::remove_dir_all(&old) {
        tracing::warn!(path = %old.display(), %error, "an empty directory stays");
    }
    Ok(None)
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(parent)
        .map_err(|e| io_error("the replacement of the log cannot be made durable", parent, e))
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "work on the log broke off").with_source(error))
    })
}
