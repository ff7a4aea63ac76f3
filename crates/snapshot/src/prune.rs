//! Which snapshots are kept, and removing what none of them needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, Datelike, Timelike, Utc};
use mainstay_core::entry::LogIdentity;
use mainstay_core::{Lsn, Result};
use object_store::path::Path;

use crate::layout::{self, ContentFile, ContentHash, SnapshotId};
use crate::repository::{Listed, Repository};

/// A restore renews its mark each minute; after so long it is taken for gone.
const RESTORE_IS_GONE: Duration = Duration::from_secs(600);
/// How many snapshots stay whatever the rules say: one may turn out to be damaged.
const AT_LEAST: usize = 2;

/// Which snapshots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many, at least two.
    pub last: usize,
    /// The newest of each of the last so many hours that have one.
    pub hourly: usize,
    /// The newest of each of the last so many days (UTC) that have one.
    pub daily: usize,
    /// The newest of each of the last so many weeks (ISO 8601, UTC) that have one.
    pub weekly: usize,
}

impl Default for Keep {
    /// The last 7.
    fn default() -> Self {
        Self { last: 7, hourly: 0, daily: 0, weekly: 0 }
    }
}

/// The snapshots that rules keep.
pub fn kept(ids: impl IntoIterator<Item = SnapshotId>, rules: &Keep) -> BTreeSet<SnapshotId> {
    let mut newest_first: Vec<_> = ids.into_iter().collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut kept: BTreeSet<_> = newest_first.iter().copied().take(rules.last.max(AT_LEAST)).collect();
    let mut keep_newest = |count: usize, span: fn(DateTime<Utc>) -> (i32, u32, u32)| {
        let mut seen = BTreeSet::new();
        for id in &newest_first {
            if seen.len() < count && seen.insert(span(id.time())) {
                kept.insert(*id);
            }
        }
    };
    keep_newest(rules.hourly, |t| (t.year(), t.ordinal(), t.hour()));
    keep_newest(rules.daily, |t| (t.year(), t.ordinal(), 0));
    keep_newest(rules.weekly, |t| (t.iso_week().year(), t.iso_week().week(), 0));
    kept
}

/// How a repository is pruned.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Which snapshots stay.
    pub keep: Keep,
    /// Snapshots that stay whatever the rules say.
    pub also: BTreeSet<SnapshotId>,
    /// How long a file in an object store must have been without use before it is removed: others may be writing
    /// snapshots that are about to need it, so longer than making one takes. A directory has one writer and needs none.
    pub grace: Duration,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Snapshots that would go but are being restored.
    pub in_use: Vec<SnapshotId>,
    /// Files of points and graphs.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments of the log.
    pub segments: u64,
}

/// Removes the snapshots that need not be kept, then the files that no snapshot needs, then the log before the oldest
/// one. A snapshot that is being restored stays. Stopped at any point, it leaves every snapshot that it lists whole.
///
/// # Errors
/// `Corrupt` if the manifest of a snapshot that stays cannot be read: what it needs is not known then, and nothing
/// but whole snapshots is removed; whatever the place runs into.
pub async fn prune(repository: &Repository, options: &PruneOptions) -> Result<Pruned> {
    repository.check_writable()?;
    let _alone = repository.alone().await;
    let all = repository.snapshots().await?;
    let mut stay = kept(all.iter().map(|listed| listed.id), &options.keep);
    stay.extend(&options.also);
    let in_use = in_use(repository).await?;
    let mut pruned = Pruned::default();
    let (mut left, mut gone): (Vec<Listed>, Vec<Listed>) = (Vec::new(), Vec::new());
    for listed in all {
        if stay.contains(&listed.id) {
            left.push(listed);
        } else if in_use.contains(&listed.id) {
            pruned.in_use.push(listed.id);
            left.push(listed);
        } else {
            gone.push(listed);
        }
    }
    for listed in gone {
        pruned.snapshots.push(listed.id);
        if !options.dry_run {
            repository.remove(&layout::manifest(listed.id, listed.hash)).await?;
        }
    }
    let mut needed = BTreeSet::new();
    let mut starts: HashMap<LogIdentity, Lsn> = HashMap::new();
    for listed in left {
        let manifest = repository.manifest(listed).await?;
        needed.extend(manifest.content_files().map(|file| file.hash));
        let start = starts.entry(manifest.from.log).or_insert(manifest.from.lsn);
        *start = manifest.from.lsn.min(*start);
    }
    let grace = if repository.has_one_writer() { Duration::ZERO } else { options.grace };
    sweep(repository, &needed, grace, options.dry_run, &mut pruned).await?;
    cut(repository, &starts, options, &mut pruned).await?;
    Ok(pruned)
}

/// Snapshots that are being restored somewhere.
async fn in_use(repository: &Repository) -> Result<BTreeSet<SnapshotId>> {
    let mut used = BTreeSet::new();
    for mark in repository.list(&Path::from(layout::USES)).await? {
        let Some(id) = layout::read_use(&mark.location) else { continue };
        if age(mark.last_modified) < RESTORE_IS_GONE {
            used.insert(id);
        } else {
            repository.remove(&mark.location).await?;
        }
    }
    Ok(used)
}

/// Removes files that nothing needs: at once without a grace time, or else once a mark says that nothing has needed
/// them for so long.
async fn sweep(
    repository: &Repository,
    needed: &BTreeSet<ContentHash>,
    grace: Duration,
    dry_run: bool,
    pruned: &mut Pruned,
) -> Result<()> {
    let marks = repository.list(&Path::from(layout::GARBAGE)).await?;
    let marked: BTreeMap<_, _> = marks
        .iter()
        .filter_map(|mark| Some((ContentHash::parse(mark.location.filename()?)?, mark.last_modified)))
        .collect();
    let files = repository.content_files().await?;
    let there: BTreeSet<_> = files.iter().map(|file| file.hash).collect();
    for hash in marked.keys().filter(|hash| !there.contains(hash) && !dry_run) {
        // Whoever removed the file was stopped before it came to the mark.
        repository.remove(&layout::garbage(*hash)).await?;
    }
    for ContentFile { path: file, hash, bytes } in files {
        let mark = layout::garbage(hash);
        let since = marked.get(&hash).copied();
        if needed.contains(&hash) {
            if since.is_some() && !dry_run {
                repository.remove(&mark).await?;
            }
            continue;
        }
        let is_old = since.is_some_and(|since| age(since) >= grace);
        let due = match since {
            _ if grace.is_zero() => true,
            // Written again since then: somebody is about to need it.
            Some(since) if is_old => repository.written(&file).await?.is_some_and(|at| at <= since),
            _ => false,
        };
        if due {
            pruned.files += 1;
            pruned.bytes += bytes;
        }
        match (dry_run, due) {
            (true, _) => {}
            (false, true) => {
                repository.remove(&file).await?;
                if since.is_some() {
                    repository.remove(&mark).await?;
                }
            }
            // Also in place of a mark from before the file was written again, or the file would stay for ever.
            (false, false) if since.is_none() || is_old => repository.write(&mark, Vec::new().into()).await?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// Removes segments of a log whose entries every snapshot of it holds, and those of an epoch that has no snapshot any more
/// and was followed by one that has. A log without any snapshot is left alone.
async fn cut(
    repository: &Repository,
    starts: &HashMap<LogIdentity, Lsn>,
    options: &PruneOptions,
    pruned: &mut Pruned,
) -> Result<()> {
    for log in repository.logs().await? {
        let over = starts.keys().any(|known| known.id == log.id && known.epoch > log.epoch);
        let start = match starts.get(&log) {
            Some(start) => *start,
            None if over => Lsn(u64::MAX),
            None => continue,
        };
        for file in repository.list(&layout::log(log)).await? {
            if layout::read_segment(&file.location).is_some_and(|segment| segment.last <= start) {
                pruned.segments += 1;
                if !options.dry_run {
                    repository.remove(&file.location).await?;
                }
            }
        }
    }
    Ok(())
}

fn age(time: DateTime<Utc>) -> Duration {
    (Utc::now() - time).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(minutes: impl IntoIterator<Item = i64>) -> Vec<SnapshotId> {
        let at = |m: i64| DateTime::from_timestamp(1_700_000_000 + m * 60, 0).unwrap();
        minutes.into_iter().map(|m| SnapshotId::new(at(m), Lsn(m as u64))).collect()
    }

    #[test]
    fn the_newest_are_kept_and_never_fewer_than_two() {
        let all = ids(0..20);
        assert_eq!(
            kept(all.clone(), &Keep { last: 3, ..Keep::default() }),
            ids(17..20).into_iter().collect()
        );
        assert_eq!(kept(all, &Keep { last: 0, ..Keep::default() }), ids(18..20).into_iter().collect());
    }

    #[test]
    fn each_span_keeps_its_newest() {
        let rules = Keep { last: 2, hourly: 3, daily: 2, weekly: 2 };
        let kept = kept(ids((0..60 * 24 * 15).step_by(20)), &rules);
        // Two newest and three hours share one, so do the days and weeks with the newest.
        assert!((5..=8).contains(&kept.len()), "{kept:?}");
        let days: BTreeSet<_> = kept.iter().map(|id| id.time().ordinal()).collect();
        assert!(days.len() >= 3, "{kept:?}");
    }
}
