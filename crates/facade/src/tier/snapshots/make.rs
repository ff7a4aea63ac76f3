//! A snapshot now and then, or after each write, or when it is asked for.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Error, ErrorKind, Lsn, Result, VectorStore};
use mainstay_snapshot::manifest::{Manifest, Source};
use mainstay_snapshot::prune::{Keep, PruneOptions, prune};
use mainstay_snapshot::repository::Listed;
use mainstay_snapshot::take::{TakeOptions, Written, take};
use mainstay_snapshot::verify::read_back;
use mainstay_snapshot::{Repository, SnapshotId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Newest, Snapshots};
use crate::answer::MemberName;
use crate::config::{SaveMode, SnapshotsConfig};
use crate::tier::member::Member;
use crate::tier::read::closing as closed;
use crate::tier::status::SnapshotReport;
use crate::tier::{Event, Shared, bootstrap, route, until_closing};

/// Files that nothing needs stay so long in an object store, where others may be about to need them.
const GRACE: Duration = Duration::from_secs(24 * 3_600);
/// A snapshot that could not be made is tried again after so long, if its interval is longer.
const RETRY: Duration = Duration::from_secs(60);
/// How often it is looked whether the first member serves again.
const NOT_NOW: Duration = Duration::from_secs(1);
/// Snapshots that follow writes are at least so long apart, and at least as long as the last one took: making them takes
/// at most half of the time.
const PAUSE: Duration = Duration::from_secs(1);
/// A store may put itself in order for so long before it is read.
const PREPARE: Duration = Duration::from_secs(120);

/// Makes snapshots until the tier closes.
pub(crate) async fn run(shared: Arc<Shared>, snapshots: Arc<Snapshots>, mut closing: watch::Receiver<bool>) {
    let mut wait = Duration::ZERO;
    let mut looked = false;
    let mode = snapshots.config.save;
    loop {
        tokio::select! {
            biased;
            () = until_closing(&mut closing) => return,
            () = sleep(wait) => {}
        }
        let interval = snapshots.config.interval.max(Duration::from_secs(1));
        if !looked {
            let looking = tokio::select! {
                biased;
                () = until_closing(&mut closing) => return,
                looking = snapshots.look() => looking,
            };
            match looking {
                Ok(since) => {
                    looked = true;
                    wait = match mode {
                        SaveMode::Periodic => interval.saturating_sub(since.unwrap_or(interval)),
                        SaveMode::Immediate => Duration::ZERO,
                        // What there is is known, and what is asked for is made without this task.
                        SaveMode::Manual => return,
                    };
                }
                Err(error) => {
                    snapshots.failed(&shared, &error);
                    wait = RETRY.min(interval);
                }
            }
            continue;
        }
        if mode == SaveMode::Immediate {
            tokio::select! {
                biased;
                () = until_closing(&mut closing) => return,
                () = until_written(&shared, &snapshots) => {}
            }
        } else if !may_be_made(&shared) {
            wait = NOT_NOW;
            continue;
        }
        wait = match make(&shared, &snapshots).await {
            Ok(_) if mode == SaveMode::Immediate => Duration::ZERO,
            Ok(_) => interval,
            Err(_) if shared.is_closing() => return,
            Err(_) => RETRY.min(interval),
        };
    }
}

/// Whether a snapshot that nobody asked for may be made now: only while the first member serves.
fn may_be_made(shared: &Shared) -> bool {
    route::active(&shared.views()) == Some(0) && source(shared).is_ok()
}

/// Waits until a snapshot would hold what the newest one does not, and may be made.
async fn until_written(shared: &Shared, snapshots: &Snapshots) {
    let mut members = shared.follow_members();
    loop {
        sleep_until(snapshots.rests_until()).await;
        match source(shared) {
            // The member that is read is what matters: it may be a moment behind the end of the log.
            Ok(source) if snapshots.has(source.cursor()) => members.changed().await,
            Ok(_) if may_be_made(shared) && snapshots.making.available_permits() > 0 => return,
            _ => sleep(NOT_NOW).await,
        }
    }
}

/// Makes a snapshot now, or when the one that is under way is done.
pub(crate) async fn make(shared: &Shared, snapshots: &Snapshots) -> Result<SnapshotReport> {
    let mut closing = shared.closing.clone();
    let made = async {
        let _one = snapshots.begin().await;
        let began = Instant::now();
        let made = snapshots.make(shared).await;
        snapshots.state.lock().rests_until = Some(Instant::now() + began.elapsed().max(PAUSE));
        made
    };
    let made = tokio::select! {
        made = made => made,
        () = until_closing(&mut closing) => Err(closed()),
    };
    match &made {
        Ok(report) => {
            tracing::info!(id = %report.id, points = report.points, new_bytes = report.new_bytes, "snapshot made");
            let event = Event::Snapshot { id: report.id.clone(), points: report.points, bytes: report.bytes };
            // Nobody may be listening.
            let _ = shared.events.send(event);
        }
        Err(error) => snapshots.failed(shared, error),
    }
    made
}

impl Snapshots {
    fn failed(&self, shared: &Shared, error: &Error) {
        if shared.is_closing() {
            return;
        }
        tracing::warn!(%error, "no snapshot was made");
        let mut state = self.state.lock();
        state.last_error = Some(error.to_string());
        state.failed += 1;
        drop(state);
        let _ = shared.events.send(Event::SnapshotFailed { reason: error.to_string() });
    }

    /// Looks at what is there: the newest two snapshots that can be read back are what the log need not hold. Answers how
    /// long ago the newest was made.
    async fn look(&self) -> Result<Option<Duration>> {
        let repository = &self.repository().await?;
        let (mut since, mut noted) = (None, false);
        for listed in repository.snapshots().await?.into_iter().rev() {
            let Some(manifest) = self.read_back(repository, listed).await? else { continue };
            if !noted {
                noted = true;
                self.note_newest(&manifest);
                // The first of a new epoch does not wait.
                if manifest.from.log == self.log.identity() {
                    since = (chrono::Utc::now() - listed.id.time()).to_std().ok();
                }
            }
            if self.state.lock().good.len() >= 2 {
                break;
            }
        }
        Ok(since)
    }

    fn note_newest(&self, manifest: &Manifest) {
        let (points, bytes) = (manifest.points(), manifest.bytes());
        let newest = Newest { id: manifest.id, from: manifest.from, to: manifest.to.lsn, points, bytes };
        self.state.lock().newest = Some(newest);
    }

    /// Whether the newest snapshot holds everything up to this entry by itself, without a replay. One from before a restore
    /// does not count: what it holds may have been left out.
    fn has(&self, lsn: Lsn) -> bool {
        let state = self.state.lock();
        let newest = state.newest.as_ref().filter(|newest| newest.from.log == self.log.identity());
        newest.map_or(Lsn::ZERO, |newest| newest.from.lsn) >= lsn
    }

    /// Until when no snapshot is made that nobody asked for, because one has just been made.
    fn rests_until(&self) -> Instant {
        self.state.lock().rests_until.unwrap_or_else(Instant::now)
    }

    /// Reads a snapshot that this log continues back, but for the files that were read back before; `None` if it does not,
    /// or if it is damaged.
    async fn read_back(&self, repository: &Repository, listed: Listed) -> Result<Option<Manifest>> {
        let damaged = |error: &Error| tracing::warn!(id = %listed.id, %error, "a snapshot is damaged");
        let manifest = match repository.manifest(listed).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damaged(&error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let from = &manifest.from;
        if from.log != self.log.identity() && !self.continues(from).await {
            return Ok(None);
        }
        let known = self.state.lock().good_files.clone();
        match read_back(repository, &manifest, &known).await {
            Ok(()) => {
                let mut state = self.state.lock();
                state.good_files.extend(manifest.content_files().map(|file| file.hash));
                state.good.insert(manifest.id, manifest.from.lsn);
                Ok(Some(manifest))
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damaged(&error);
                self.state.lock().good.remove(&listed.id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn make(&self, shared: &Shared) -> Result<SnapshotReport> {
        let began = Instant::now();
        let source = source(shared)?;
        let repository = &self.repository().await?;
        let (manifest, written) = self.take(repository, source).await?;
        let listed = repository.find(manifest.id).await?;
        if self.read_back(repository, listed).await?.is_none() {
            let text = format!("snapshot {} could not be read back as it was written", manifest.id);
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        self.note_newest(&manifest);
        let pruned = self.prune(repository).await?;
        self.merge_segments(repository).await;
        let mut state = self.state.lock();
        state.last_error = None;
        state.made += 1;
        drop(state);
        Ok(SnapshotReport {
            id: manifest.id.to_string(),
            source: MemberName::new(&manifest.source.member),
            from: manifest.from.lsn,
            to: manifest.to.lsn,
            collections: manifest.collections.len(),
            points: manifest.points(),
            bytes: manifest.bytes(),
            new_files: written.files,
            new_bytes: written.bytes,
            reused_files: written.reused,
            pruned: pruned.len(),
            took: began.elapsed(),
        })
    }

    async fn take(&self, repository: &Repository, source: &Member) -> Result<(Manifest, Written)> {
        let log = &*self.log;
        if let Err(error) = source.store().prepare_snapshot(&Context::within(PREPARE)).await {
            tracing::warn!(member = %source.name(), %error, "the member is read as it is");
        }
        // Held before the position is read, so that the cut cannot pass it in between.
        let mut hold = log.hold(log.checkpoint().position.lsn);
        let setbacks = source.setbacks();
        let from = bootstrap::position_of(source, log).await?;
        if from.lsn < hold.after() {
            let text = format!("member `{}` is behind the log, which was just cut", source.name());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        // The snapshot needs nothing before it.
        hold.move_to(from.lsn);
        let mut parent = None;
        for listed in repository.snapshots().await?.into_iter().rev() {
            match repository.manifest(listed).await {
                Ok(manifest) if manifest.from.log == from.log => {
                    parent = Some(manifest);
                    break;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(id = %listed.id, %error, "a snapshot cannot be built upon"),
            }
        }
        let whose = Source { member: source.name().to_string(), backend: source.backend().to_owned() };
        let (rate, graphs) = (Some(self.config.max_rate), self.config.graphs);
        let options = TakeOptions { rate, graphs, ..TakeOptions::default() };
        let store: &dyn VectorStore = &**source.store();
        let draft = take(repository, store, whose, from, parent.as_ref(), options, &|_, _| {}).await?;
        // What was read must hold all that the position says: a store that came back older meanwhile does not.
        let still = bootstrap::position_of(source, log).await?;
        if still.lsn < from.lsn || source.setbacks() != setbacks {
            let text = format!("member `{}` went back while a snapshot of it was made", source.name());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        // No store holds what the log does not.
        let to = log.position_at(log.bounds().last).await?;
        self.archive().await?;
        let written = draft.written();
        Ok((draft.commit(repository, to).await?, written))
    }

    async fn prune(&self, repository: &Repository) -> Result<Vec<SnapshotId>> {
        // The newest two that are good stay, however many damaged ones are newer.
        let also = self.state.lock().good.keys().rev().take(2).copied().collect();
        let options = PruneOptions { also, ..prune_options(&self.config) };
        let pruned = prune(repository, &options).await?;
        let mut state = self.state.lock();
        pruned.snapshots.iter().for_each(|id| {
            state.good.remove(id);
        });
        drop(state);
        Ok(pruned.snapshots)
    }
}

/// How snapshots are pruned.
pub(crate) fn prune_options(config: &SnapshotsConfig) -> PruneOptions {
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let keep = Keep {
        last: count(config.keep),
        hourly: count(config.hourly),
        daily: count(config.daily),
        weekly: count(config.weekly),
    };
    PruneOptions { keep, grace: GRACE, ..PruneOptions::default() }
}

/// The member that is read: the last one that has caught up and has every point, because it has the least to do.
fn source(shared: &Shared) -> Result<&Member> {
    let views = shared.views();
    let well = |index: &usize| {
        let view = &views[*index];
        view.state == crate::tier::MemberState::Live && !view.breaker_open && !view.partial
    };
    let source = (0..views.len()).rev().find(well);
    let text = "no member that has every point has caught up";
    source.map(|index| &*shared.members[index]).ok_or_else(|| Error::new(ErrorKind::Unavailable, text))
}
