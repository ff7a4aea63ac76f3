//! A disk under the log, and the log over it as the tier sees it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay::log::{
    Appended, Bounds, Checkpoint, DiskLog, Hold, Known, Log, Opened, Reading, Storage, SyncPolicy,
};
use mainstay::{Collections, Lsn};
use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogId, LogIdentity, Op, Position, Result};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::world::World;

type Bytes = Arc<[u8]>;

/// What a disk holds at one moment.
#[derive(Clone, Default)]
struct Image {
    entries: BTreeMap<Lsn, Bytes>,
    checkpoint: Option<Checkpoint>,
    mark: Known,
}

/// A change of the disk, atomic.
#[derive(Clone)]
enum Change {
    Write(Vec<(Lsn, Bytes)>),
    Checkpoint(Checkpoint),
    Remove(Lsn),
}

impl Image {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Write(entries) => self.entries.extend(entries.iter().cloned()),
            Change::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint.clone()),
            Change::Remove(lsn) => self.entries = self.entries.split_off(&lsn.next()),
        }
    }
}

#[derive(Default)]
struct State {
    /// What the operating system shows.
    shown: Image,
    /// What outlives a power loss.
    durable: Image,
    /// What was written and not yet synced; lost ones never will be, whatever a later sync says.
    pending: Vec<(Change, bool)>,
    backup: Option<Image>,
    fails_next: Option<Failure>,
    /// Reads do not rot: the model is looking.
    honest: bool,
    /// What a restart was made to find, and what to put back after it was noticed.
    damaged: Option<(Lsn, Image)>,
}

/// How the disk fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No room: nothing is written.
    Full,
    /// The write fails, but what it wrote is there.
    AfterWrite,
    /// The sync fails, and what it should have synced is lost although the next one succeeds.
    Sync,
    /// The same of the next sync that is for a cut.
    CutSync,
}

/// The disk of the log. It outlives the process.
pub struct Disk {
    world: Arc<World>,
    state: Mutex<State>,
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the process is gone")
}

impl Disk {
    /// An empty disk.
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), state: Mutex::default() })
    }

    fn identity(&self) -> LogIdentity {
        LogIdentity { id: LogId(uuid::Uuid::from_u128(u128::from(self.world.seed) << 64 | 1)), epoch: 1 }
    }

    /// The next thing that it does fails so.
    pub fn fail_next(&self, failure: Failure) {
        self.state.lock().fails_next = Some(failure);
    }

    /// It does not fail any more.
    pub fn heal(&self) {
        self.state.lock().fails_next = None;
    }

    /// Keeps a copy of what is durable.
    pub fn back_up(&self) {
        let mut state = self.state.lock();
        state.backup = Some(state.durable.clone());
    }

    /// Puts the copy in place of the disk. False if there is none.
    pub fn restore_backup(&self) -> bool {
        let mut state = self.state.lock();
        let Some(backup) = state.backup.take() else { return false };
        *state = State { shown: backup.clone(), durable: backup, ..State::default() };
        true
    }

    /// The LSN before the first entry.
    pub fn start(&self) -> Lsn {
        let state = self.state.lock();
        state.shown.checkpoint.as_ref().map_or(Lsn::ZERO, |checkpoint| checkpoint.position.lsn)
    }

    /// The power goes: what is not durable is there up to some point, or not at all.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        let usable = state.pending.iter().take_while(|(_, lost)| !lost).count();
        let kept = self.world.draw(|rng| rng.random_range(0..=usable));
        let mut image = state.durable.clone();
        for (change, _) in &state.pending[..kept] {
            image.take(change);
        }
        // The mark is synced by nobody.
        image.mark = state.durable.mark;
        if self.world.one_in(2) {
            image.mark.synced = image.mark.synced.min(state.shown.mark.synced);
        }
        state.shown = image.clone();
        state.durable = image;
        state.pending.clear();
    }

    /// Damages an entry, or takes the durable end away, for the next start to notice. Answers which entry.
    pub fn damage(&self) -> Option<Lsn> {
        let mut state = self.state.lock();
        let start = state.shown.checkpoint.as_ref().map_or(Lsn::ZERO, |checkpoint| checkpoint.position.lsn);
        let before = state.shown.clone();
        let there: Vec<Lsn> = state.shown.entries.keys().copied().filter(|lsn| *lsn > start).collect();
        let (first, last) = (*there.first()?, *there.last()?);
        let lsn = Lsn(self.world.draw(|rng| rng.random_range(first.0..=last.0)));
        if state.shown.mark.synced >= lsn && self.world.one_in(3) {
            state.shown.entries.split_off(&lsn);
        } else {
            let bytes = state.shown.entries.get_mut(&lsn)?;
            *bytes = self.world.draw(|rng| flip(bytes, rng));
        }
        state.damaged = Some((lsn, before));
        Some(lsn)
    }

    /// Puts back what was damaged.
    pub fn repair(&self) {
        let mut state = self.state.lock();
        if let Some((_, before)) = state.damaged.take() {
            state.shown = before;
        }
    }

    fn change(&self, change: Change) -> Result<()> {
        if !self.world.steps() {
            return Err(gone());
        }
        let mut state = self.state.lock();
        let of_a_sync = |failure: &Failure| matches!(failure, Failure::Sync | Failure::CutSync);
        let failure = state.fails_next.filter(|failure| !of_a_sync(failure));
        if failure.is_some() {
            state.fails_next = None;
            self.world.told.lock().latched = true;
        }
        if failure != Some(Failure::Full) {
            state.shown.take(&change);
            state.pending.push((change, false));
        }
        match failure {
            None => Ok(()),
            Some(Failure::Full) => Err(Error::new(ErrorKind::StorageFull, "no space left on the device")),
            Some(_) => Err(Error::new(ErrorKind::Unavailable, "the device failed")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if !self.world.steps() {
            return Err(io::Error::other("the process is gone"));
        }
        let mut state = self.state.lock();
        let cuts = state.pending.iter().any(|(change, _)| matches!(change, Change::Checkpoint(_)));
        if state.fails_next == Some(if cuts { Failure::CutSync } else { Failure::Sync }) {
            state.fails_next = None;
            self.world.told.lock().latched = true;
            self.world.note(|| "disk: a sync fails, and what it was for is lost".to_owned());
            state.pending.iter_mut().for_each(|(_, lost)| *lost = true);
            return Err(io::Error::other("the device failed"));
        }
        let usable = state.pending.iter().take_while(|(_, lost)| !lost).count();
        let synced: Vec<_> = state.pending.drain(..usable).collect();
        synced.iter().for_each(|(change, _)| state.durable.take(change));
        Ok(())
    }

    /// Opens the log as a start of the process does.
    ///
    /// # Errors
    /// `Corrupt` if the disk was damaged.
    pub fn open(self: &Arc<Self>) -> Result<Arc<WatchedLog>> {
        let world = &self.world;
        let (checkpoint, mark) = {
            let state = self.state.lock();
            (state.shown.checkpoint.clone(), state.shown.mark)
        };
        let identity = self.identity();
        let start = Checkpoint { position: Position::start(identity), collections: Collections::new() };
        let opened = Opened::check(
            OnDisk(Arc::clone(self)),
            identity,
            checkpoint.unwrap_or(start),
            mark,
            "simulation",
        )?;
        let (disk, marked) = (Arc::clone(self), Arc::clone(self));
        let barrier = Box::new(move || disk.sync());
        let mark = Box::new(move |known| {
            let mut state = marked.state.lock();
            state.shown.mark = known;
            if marked.world.one_in(2) {
                state.durable.mark = known;
            }
            Ok(())
        });
        let slow = Arc::clone(world);
        let wait = Box::new(move || match slow.is_stormy() && slow.one_in(40) {
            true => slow.millis(5..=400),
            false => Duration::ZERO,
        });
        let (max_bytes, policy) = (world.scenario.tier.log_max_bytes, world.scenario.sync);
        let log = DiskLog::start_in_task(opened, barrier, mark, max_bytes, policy, wait)?;
        Ok(Arc::new(WatchedLog { log, world: Arc::clone(world), disk: Arc::clone(self) }))
    }
}

fn flip(bytes: &[u8], rng: &mut impl Rng) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = rng.random_range(0..bytes.len());
    bytes[at] ^= 1 << rng.random_range(0..8);
    bytes.into()
}

impl Storage for OnDisk {
    fn read(
        &self,
        after: Lsn,
        before: Option<EntryHash>,
        end: Lsn,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Entry>>> {
        let mut reading = Reading::new(after, before, end, max_bytes);
        let world = &self.0.world;
        let state = self.0.state.lock();
        let rots = !state.honest && world.scenario.damage && world.is_stormy() && world.one_in(100);
        for (lsn, stored) in state.shown.entries.range(after.next()..) {
            let Some(expected) = reading.wants() else { break };
            if *lsn != expected {
                let text = format!("entry {expected} of the log is missing");
                return Err(Error::new(ErrorKind::Corrupt, text).with_lsn(expected));
            }
            let rotten = rots.then(|| world.draw(|rng| flip(stored, rng)));
            reading.take(rotten.as_ref().unwrap_or(stored))?;
        }
        Ok(reading.into_entries())
    }

    fn write(&self, entries: &[(Lsn, Vec<u8>)]) -> Result<()> {
        self.0.change(Change::Write(entries.iter().map(|(lsn, bytes)| (*lsn, bytes[..].into())).collect()))
    }

    fn rewrite(&self, _: Lsn) -> Result<()> {
        if !self.0.world.steps() {
            return Err(gone());
        }
        self.0.state.lock().pending.iter_mut().for_each(|(_, lost)| *lost = false);
        Ok(())
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.0.change(Change::Checkpoint(checkpoint.clone()))
    }

    fn size_of(&self, after: Lsn, to: Lsn) -> Result<u64> {
        let state = self.0.state.lock();
        Ok(state.shown.entries.range(after.next()..=to).map(|(_, bytes)| bytes.len() as u64).sum())
    }

    fn remove_up_to(&self, lsn: Lsn) -> Result<()> {
        let first = self.0.state.lock().shown.entries.keys().next().copied();
        if first.is_some_and(|first| first <= lsn) {
            return self.0.change(Change::Remove(lsn));
        }
        Ok(())
    }
}

/// A disk as the log has it.
struct OnDisk(Arc<Disk>);

/// The log as the tier sees it: everything that goes in and out is compared with the truth.
pub struct WatchedLog {
    log: DiskLog<OnDisk>,
    world: Arc<World>,
    disk: Arc<Disk>,
}

impl WatchedLog {
    /// Compares what a start found with what was promised before it.
    pub fn check_start(&self, power_lost: bool) {
        let (world, end) = (&self.world, self.log.bounds().last);
        let told = world.told.lock().clone();
        let must = if power_lost { told.synced } else { told.logged };
        world.expect(end >= must, "P1", || {
            format!(
                "the log ends at entry {end} after a start; up to {must} was acked (power lost: {power_lost})"
            )
        });
        world.truth.lock().roll_back(end);
        let mut told = world.told.lock();
        told.logged = told.logged.min(end);
        told.synced = told.synced.min(end);
    }

    /// Shows the truth all that readers may see.
    async fn look(&self) {
        self.disk.state.lock().honest = true;
        loop {
            let seen = self.world.truth.lock().end();
            match self.log.read(seen, usize::MAX).await {
                Ok(entries) if !entries.is_empty() => self.see(&entries),
                Ok(_) => break,
                Err(error) => {
                    self.world.fail("P10", format!("entries after {seen} cannot be read: {error}"));
                    break;
                }
            }
            if self.world.is_over() {
                break;
            }
        }
        self.disk.state.lock().honest = false;
    }

    fn see(&self, entries: &[Arc<Entry>]) {
        let mut seen = Ok(());
        {
            let mut truth = self.world.truth.lock();
            for entry in entries {
                seen = seen.and_then(|()| truth.see(entry));
            }
        }
        if let Err(what) = seen {
            self.world.fail("P10", what);
        }
    }

    /// A cut leaves what no durable member holds, and the collections as they were there.
    fn check_cut(&self, before: Lsn, collections: &Collections) {
        let world = &self.world;
        let to = Lsn(before.0.saturating_sub(1));
        if to <= self.log.checkpoint().position.lsn {
            return;
        }
        let machines = world.machines.lock().clone();
        let held = machines.iter().map(|machine| machine.durable_at_most()).max();
        world.expect(held >= Some(to), "P1", || {
            format!("the log is to be cut up to entry {to}; durable members hold no more than {held:?}")
        });
        let expected = world.truth.lock().collections(to);
        let same = expected.len() == collections.len()
            && collections.iter().all(|(name, found)| {
                expected.get(name).is_some_and(|(lsn, spec)| found.incarnation == *lsn && found.spec == *spec)
            });
        world.expect(same, "P1", || {
            format!("a cut at entry {to} keeps the collections {collections:?}, there were {expected:?}")
        });
    }
}

#[async_trait]
impl Log for WatchedLog {
    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    fn watch_end(&self) -> watch::Receiver<Lsn> {
        self.log.watch_end()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.log.checkpoint()
    }

    async fn append(&self, ops: Vec<Op>) -> Result<Appended> {
        self.world.step().await;
        let latched = self.world.told.lock().latched;
        let appended = self.log.append(ops.clone()).await;
        self.world.step().await;
        let world = &self.world;
        match &appended {
            Ok(landed) => {
                world.expect(!latched, "P9", || format!("the log failed and takes entry {}", landed.last));
                {
                    let mut told = world.told.lock();
                    told.logged = told.logged.max(landed.last);
                    if world.scenario.sync == SyncPolicy::Immediate {
                        told.synced = told.synced.max(landed.last);
                    }
                }
                self.look().await;
                let same = {
                    let truth = world.truth.lock();
                    let lsns = (landed.first.0..=landed.last.0).map(Lsn);
                    lsns.map(|lsn| truth.entry(lsn).map(|entry| &entry.op)).eq(ops.iter().map(Some))
                };
                world.expect(same, "P1", || {
                    format!("entries {}..{} are not what was appended", landed.first, landed.last)
                });
                world.note(|| format!("log: {}..{} {}", landed.first, landed.last, shown(&ops)));
            }
            Err(error) => world.note(|| format!("log: refused {}: {error:?}", shown(&ops))),
        }
        appended
    }

    async fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Arc<Entry>>> {
        self.world.step().await;
        if self.world.is_stormy() && self.world.one_in(50) {
            sleep(self.world.millis(1..=50)).await;
        }
        // Few at a time, so that runs are cut everywhere.
        let most = if self.world.one_in(2) { max_bytes } else { 300 };
        self.look().await;
        let entries = self.log.read(after, most).await?;
        self.see(&entries);
        Ok(entries)
    }

    async fn position_at(&self, lsn: Lsn) -> Result<Position> {
        self.log.position_at(lsn).await
    }

    async fn truncate_before(&self, lsn: Lsn, collections: Collections) -> Result<Lsn> {
        self.world.step().await;
        self.check_cut(lsn, &collections);
        let reached = self.log.truncate_before(lsn, collections).await;
        self.world.note(|| format!("log: cut before {lsn}: {reached:?}"));
        if self.world.scenario.old_backup && self.world.one_in(2) {
            self.disk.back_up();
        }
        reached
    }

    fn hold(&self, lsn: Lsn) -> Hold {
        self.log.hold(lsn)
    }

    async fn sync(&self) -> Result<()> {
        let end = self.log.bounds().last;
        let synced = self.log.sync().await;
        if synced.is_ok() && !self.world.is_over() {
            let mut told = self.world.told.lock();
            told.synced = told.synced.max(end);
        }
        synced
    }

    async fn close(&self) -> Result<()> {
        let end = self.log.bounds().last;
        let closed = self.log.close().await;
        if closed.is_ok() && !self.world.is_over() {
            let mut told = self.world.told.lock();
            told.synced = told.synced.max(end);
        }
        closed
    }
}

/// Operations as a line of history.
fn shown(ops: &[Op]) -> String {
    let one = |op: &Op| match op {
        Op::CreateCollection(spec) => format!("create `{}`", spec.name),
        Op::AdoptCollection { spec, .. } => format!("adopt `{}`", spec.name),
        Op::DropCollection(dropped) => format!("drop `{}` of {}", dropped.name, dropped.incarnation),
        Op::Upsert { collection, points } => {
            let ids: Vec<_> = points.iter().map(|point| point.id.to_string()).collect();
            format!("upsert `{}` of {}: {}", collection.name, collection.incarnation, ids.join(" "))
        }
        Op::Delete { collection, ids } => {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("delete `{}` of {}: {}", collection.name, collection.incarnation, ids.join(" "))
        }
        Op::PatchPayload { collection, ids, .. } => {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("patch `{}` of {}: {}", collection.name, collection.incarnation, ids.join(" "))
        }
    };
    ops.iter().map(one).collect::<Vec<_>>().join("; ")
}
