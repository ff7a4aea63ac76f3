//! The place where a store's data is. It outlives the process, and more happens to it than calls.

use std::sync::Arc;
use std::time::Duration;

use mainstay::log::SyncPolicy;
use mainstay::{Lsn, MemberState, MemberStatus};
use mainstay_core::{
    Effect, Entry, Error, ErrorKind, LogId, LogIdentity, Position, RestoreStep, Result, Run,
};
use parking_lot::Mutex;
use rand::Rng;

use super::state::State;
use crate::scenario::Kind;
use crate::world::World;

/// States between the durable and the shown one that are kept, for a crash to come back to.
const MOST_UNSAVED: usize = 40;
/// Durable states that a roll-back may go to.
const MOST_OLD: usize = 6;
/// The tier acts so soon on a position that it asked for; a call may hang meanwhile.
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// Failures that nobody knows, after which a member may be taken out of service.
const INTERNAL_TRIES: u32 = 5;

/// Somebody else's log.
const FOREIGN: LogId = LogId(uuid::Uuid::from_u128(7));

/// How a store is reached at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// As usual.
    #[default]
    Fine,
    /// Every call fails until then.
    Down(Duration),
    /// Every call waits until then.
    Hanging(Duration),
    /// Every call takes up to so many milliseconds, until then.
    Slow(Duration, u64),
}

/// A request that takes effect after its caller gave up.
struct Late {
    due: Duration,
    generation: u64,
    entries: Vec<Arc<Entry>>,
}

#[derive(Default)]
struct Inner {
    shown: Arc<State>,
    durable: Arc<State>,
    /// From the oldest on, up to the one that is shown.
    unsaved: Vec<Arc<State>>,
    old: Vec<Arc<State>>,
    reach: Reach,
    late: Vec<Late>,
    /// Which load the data comes from; requests from before it are refused.
    generation: u64,
    /// Its data went back, or is another's, and the tier has not asked since.
    surprised: bool,
    /// Since when the tier could know.
    asked_at: Option<Duration>,
    /// A load is under way in this opening of the store; one that was cut short begins anew.
    loading: bool,
    /// Counts how often its data went back.
    setbacks: u64,
    /// Counts whatever goes wrong.
    troubles: u64,
    internal: u32,
    /// Why the member may be out of service.
    excuse: Option<String>,
    /// What it holds is not this log's.
    strange: bool,
    /// The first entry from here on that writes points is refused for ever.
    poison: Option<Lsn>,
    /// The entry that it refused in this process.
    refused: Option<Lsn>,
    /// The highest durable LSN that the tier was told.
    durable_told: Lsn,
}

/// A store's place.
pub struct Machine {
    /// Its number in the tier.
    pub member: usize,
    /// What kind of store it is.
    pub kind: Kind,
    world: Arc<World>,
    inner: Mutex<Inner>,
}

impl Machine {
    /// An empty place.
    pub fn new(world: &Arc<World>, member: usize, kind: Kind) -> Arc<Self> {
        Arc::new(Self { member, kind, world: Arc::clone(world), inner: Mutex::default() })
    }

    /// What it shows.
    pub fn shown(&self) -> Arc<State> {
        Arc::clone(&self.inner.lock().shown)
    }

    /// What it holds durably.
    pub fn durable(&self) -> Arc<State> {
        Arc::clone(&self.inner.lock().durable)
    }

    /// Whether the tier has yet to ask where it is.
    pub fn is_surprised(&self) -> bool {
        self.inner.lock().surprised
    }

    /// How often its data went back, and whether the tier has yet to ask: while that stays as it is, it never does.
    pub fn setbacks(&self) -> (u64, bool) {
        let inner = self.inner.lock();
        (inner.setbacks, inner.surprised)
    }

    /// Counts what went wrong so far.
    pub fn troubles(&self) -> u64 {
        self.inner.lock().troubles
    }

    /// Something went wrong for a caller.
    pub fn trouble(&self) {
        self.inner.lock().troubles += 1;
    }

    /// Why the member may be out of service, if it may.
    pub fn excuse(&self) -> Option<String> {
        self.inner.lock().excuse.clone()
    }

    /// The entry that it refused in this process.
    pub fn refused(&self) -> Option<Lsn> {
        self.inner.lock().refused
    }

    /// The entry from which on it refuses.
    pub fn is_poisoned(&self) -> bool {
        self.inner.lock().poison.is_some()
    }

    /// Refuses the first entry after this one that writes points.
    pub fn poison(&self, after: Lsn) {
        self.inner.lock().poison = Some(after.next());
    }

    /// How it is reached now.
    pub fn reach(&self) -> Reach {
        self.inner.lock().reach
    }

    /// Changes how it is reached.
    pub fn set_reach(&self, reach: Reach) {
        let mut inner = self.inner.lock();
        inner.troubles += u64::from(reach != Reach::Fine);
        inner.reach = reach;
    }

    /// What it did not refuse yet it takes.
    pub fn relent(&self) {
        let mut inner = self.inner.lock();
        if inner.refused.is_none() {
            inner.poison = None;
        }
    }

    /// The most that it may hold durably as far as the tier was told; 0 for a volatile one.
    pub fn durable_at_most(&self) -> Lsn {
        let inner = self.inner.lock();
        if self.kind == Kind::Volatile { Lsn::ZERO } else { inner.durable_told }
    }

    fn show(&self, inner: &mut Inner, state: State) {
        let state = Arc::new(state);
        inner.shown = Arc::clone(&state);
        match self.kind {
            Kind::DurableServer => Self::save(inner, state),
            Kind::Volatile => {}
            Kind::Embedded | Kind::Server => {
                inner.unsaved.push(state);
                if inner.unsaved.len() > MOST_UNSAVED {
                    inner.unsaved.remove(0);
                }
            }
        }
    }

    fn save(inner: &mut Inner, state: Arc<State>) {
        let before = std::mem::replace(&mut inner.durable, state);
        if before.reached() != inner.durable.reached() {
            inner.old.push(before);
            if inner.old.len() > MOST_OLD {
                inner.old.remove(0);
            }
        }
    }

    /// Late requests that are due take effect.
    pub fn tick(&self) {
        let mut inner = self.inner.lock();
        if inner.late.is_empty() {
            return;
        }
        let now = self.world.now();
        let generation = inner.generation;
        let mut due = Vec::new();
        inner.late.retain_mut(|late| {
            let is_due = late.due <= now;
            if is_due && late.generation == generation {
                due.push(std::mem::take(&mut late.entries));
            }
            !is_due
        });
        for entries in due {
            let mut state = (*inner.shown).clone();
            for entry in entries {
                // Fenced by versions; a collection that is not there is passed over.
                let _ = state.take(&entry, usize::MAX);
            }
            self.world.note(|| format!("store {}: a late request takes effect", self.member));
            self.show(&mut inner, state);
        }
    }

    /// The effects of entries will come after the caller gave up.
    pub fn take_late(&self, entries: &[Arc<Entry>], after: Duration) {
        let due = self.world.now() + after;
        let mut inner = self.inner.lock();
        let generation = inner.generation;
        if inner.late.len() < 16 {
            inner.late.push(Late { due, generation, entries: entries.to_vec() });
        }
    }

    /// The first `most` points of a run take effect before it is its turn.
    pub fn scatter(&self, run: &Run, most: usize) {
        let mut inner = self.inner.lock();
        let is_ours = inner.shown.position.is_none_or(|position| position.log == run.after().log);
        if inner.shown.restoring || !is_ours || most == 0 {
            return;
        }
        let after = run.after().lsn;
        if inner.shown.reached().unwrap_or_default() < after {
            let member = self.member;
            self.world.note(|| format!("store {member}: writes what comes after {after} before its turn"));
        }
        let mut state = (*inner.shown).clone();
        let mut left = most;
        for entry in run.entries() {
            let points = entry.op.points();
            let poisoned = inner.poison.is_some_and(|from| entry.lsn >= from);
            if poisoned || left == 0 || state.take(entry, left).is_err() {
                break;
            }
            left = left.saturating_sub(points);
        }
        self.show(&mut inner, state);
    }

    /// Applies a run, or the first `most` points of its entries together.
    ///
    /// # Errors
    /// As a store's `apply`.
    pub fn apply(&self, run: &Run, most: usize) -> Result<Position> {
        let mut inner = self.inner.lock();
        if inner.shown.restoring {
            return Err(Error::new(ErrorKind::LogGap, "the store is being loaded"));
        }
        let mut state = (*inner.shown).clone();
        let mut reached = state.position.unwrap_or(Position::start(run.after().log));
        let mut left = most;
        for entry in run.remaining(state.position.as_ref())? {
            let poisoned = inner.poison.is_some_and(|from| entry.lsn >= from)
                && matches!(entry.op, mainstay_core::Op::Upsert { .. });
            if poisoned {
                inner.poison = Some(entry.lsn);
                inner.refused = Some(entry.lsn);
                inner.excuse = Some(format!("it refuses entry {}", entry.lsn));
                inner.troubles += 1;
                let text = "this store will never take such a point";
                return Err(Error::new(ErrorKind::Rejected, text).with_lsn(entry.lsn));
            }
            let points = entry.op.points();
            state.take(entry, left)?;
            if points > left {
                // Half a batch: the position stays before it.
                self.show(&mut inner, state);
                let text = "the connection was lost half-way";
                return Err(Error::new(ErrorKind::Unavailable, text).with_effect(Effect::Unknown));
            }
            left -= points;
            reached = Position { lsn: entry.lsn, hash: entry.hash, ..reached };
            state.position = Some(reached);
            self.show(&mut inner, state.clone());
        }
        inner.internal = 0;
        if state.position.is_none() {
            state.position = Some(reached);
            self.show(&mut inner, state);
        }
        let whole = !inner.strange && self.world.one_in(8);
        self.check(&inner.shown, whole);
        Ok(reached)
    }

    /// Makes what is shown durable.
    pub fn flush(&self) -> Option<Position> {
        let mut inner = self.inner.lock();
        if self.kind == Kind::Volatile {
            return None;
        }
        let shown = Arc::clone(&inner.shown);
        inner.unsaved.clear();
        Self::save(&mut inner, shown);
        inner.durable.position.filter(|_| !inner.durable.restoring)
    }

    /// The tier hears what is durable.
    pub fn told_durable(&self, position: Option<Position>) {
        let mut inner = self.inner.lock();
        inner.durable_told = inner.durable_told.max(position.map_or(Lsn::ZERO, |position| position.lsn));
    }

    /// Takes a step of a load.
    ///
    /// # Errors
    /// `Invalid` for a step out of order.
    pub fn restore(&self, step: RestoreStep<'_>) -> Result<()> {
        let horizon = self.world.truth.lock().end();
        let mut inner = self.inner.lock();
        step.check(inner.loading, inner.shown.position.filter(|_| !inner.shown.restoring))?;
        let mut state = (*inner.shown).clone();
        state.restore(&step, horizon)?;
        inner.loading = !matches!(step, RestoreStep::Finish { .. });
        match step {
            RestoreStep::Begin => {
                // Whoever reads meanwhile reads what is there.
                inner.setbacks += 1;
                inner.generation += 1;
                inner.late.clear();
                self.show(&mut inner, state);
                inner.durable_told = Lsn::ZERO;
            }
            RestoreStep::Finish { .. } => {
                self.show(&mut inner, state);
                let shown = Arc::clone(&inner.shown);
                inner.unsaved.clear();
                if self.kind != Kind::Volatile {
                    Self::save(&mut inner, shown);
                    inner.durable_told = inner.durable.reached().unwrap_or_default();
                }
                inner.internal = 0;
                inner.strange = false;
                self.check(&inner.shown, true);
            }
            RestoreStep::Save => {
                self.show(&mut inner, state);
                let shown = Arc::clone(&inner.shown);
                inner.unsaved.clear();
                if self.kind != Kind::Volatile {
                    Self::save(&mut inner, shown);
                }
            }
            _ => self.show(&mut inner, state),
        }
        Ok(())
    }

    /// The tier asks where it is.
    pub fn tell_position(&self) -> Option<Position> {
        let now = self.world.now();
        let mut inner = self.inner.lock();
        if inner.surprised {
            inner.asked_at.get_or_insert(now);
        }
        inner.shown.position.filter(|_| !inner.shown.restoring)
    }

    /// A failure that nobody knows was told to whoever writes.
    pub fn told_failure(&self, kind: ErrorKind) {
        let mut inner = self.inner.lock();
        match kind {
            ErrorKind::Internal => {
                inner.internal += 1;
                if inner.internal >= INTERNAL_TRIES {
                    inner.excuse.get_or_insert("it failed in unknown ways".to_owned());
                }
            }
            ErrorKind::Corrupt => {
                inner.excuse.get_or_insert("it said that its data is damaged".to_owned());
            }
            _ => {}
        }
    }

    /// The data must be what the log says.
    fn check(&self, state: &Arc<State>, whole: bool) {
        if !whole {
            return;
        }
        let checked = self.world.truth.lock().check(state);
        if let Err(what) = checked {
            self.world.fail("P3", format!("store {}: {what}", self.member));
        }
    }

    /// Checks all of it now.
    pub fn check_whole(&self) {
        let (shown, strange) = {
            let inner = self.inner.lock();
            (Arc::clone(&inner.shown), inner.strange)
        };
        self.check(&shown, !strange);
    }

    /// Whether the tier has a cursor that the data bears out.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check_cursor(&self, member: &MemberStatus) -> Result<(), String> {
        let now = self.world.now();
        let mut inner = self.inner.lock();
        let reached = inner.shown.reached().unwrap_or_default();
        // One that is being loaded serves nobody, and has no position until it is loaded.
        let loading = member.state == MemberState::Bootstrapping;
        if inner.strange || loading || member.state == MemberState::Quarantined {
            return Ok(());
        }
        if member.cursor <= reached {
            inner.surprised = false;
            inner.asked_at = None;
            return Ok(());
        }
        // Whoever asked may have been somebody else than its applier, which may be busy.
        let known = inner.asked_at.is_some_and(|at| now > at + HEARD_WITHIN);
        if inner.surprised && !known {
            return Ok(());
        }
        Err(format!(
            "its cursor is {} while {}, its store says {reached} (loading: {})",
            member.cursor, member.state, inner.shown.restoring
        ))
    }

    /// The store goes down without a word and comes back as it was durable, or with more; its position may be older
    /// than its data.
    pub fn crash(&self) {
        self.come_back(true);
    }

    /// As after a crash: its own, or that of the process that it is in, whose log syncs its end when it starts.
    fn come_back(&self, alone: bool) {
        let mut inner = self.inner.lock();
        inner.troubles += 1;
        let to = match self.kind {
            Kind::Volatile => Arc::default(),
            // What was not flushed could outlive entries that the log did not sync yet.
            _ if alone && self.world.scenario.sync != SyncPolicy::Immediate => Arc::clone(&inner.durable),
            _ => {
                let most = inner.unsaved.len();
                let (data, position) = self.world.draw(|rng| {
                    let data = rng.random_range(0..=most);
                    (data, rng.random_range(0..=data))
                });
                let pick = |at: usize| match at {
                    0 => Arc::clone(&inner.durable),
                    at => Arc::clone(&inner.unsaved[at - 1]),
                };
                let (data, position) = (pick(data), pick(position));
                // A load that began or ended in between is not mixed with what was there before it.
                let mixes = data.restoring == position.restoring && !data.restoring;
                let begun = inner.unsaved.iter().any(|state| state.restoring);
                if mixes && !begun {
                    Arc::new(State { position: position.position, ..(*data).clone() })
                } else {
                    data
                }
            }
        };
        self.world.note(|| format!("store {}: comes back at {:?}", self.member, to.reached()));
        self.back_to(&mut inner, to);
    }

    fn back_to(&self, inner: &mut Inner, state: Arc<State>) {
        inner.unsaved.clear();
        inner.shown = Arc::clone(&state);
        if self.kind != Kind::Volatile {
            inner.durable = state;
        }
        // What was on its way to it is lost.
        inner.late.clear();
        inner.loading = false;
        inner.surprised = true;
        inner.asked_at = None;
        inner.setbacks += 1;
        inner.troubles += 1;
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        let mut inner = self.inner.lock();
        self.world.note(|| format!("store {}: is wiped", self.member));
        self.back_to(&mut inner, Arc::default());
        inner.old.clear();
        inner.strange = false;
        inner.generation += 1;
    }

    /// It comes back as it was durable some time ago. False if it never was.
    pub fn roll_back(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.old.is_empty() {
            return false;
        }
        let at = self.world.draw(|rng| rng.random_range(0..inner.old.len()));
        let state = Arc::clone(&inner.old[at]);
        inner.old.truncate(at);
        self.world.note(|| format!("store {}: is rolled back to {:?}", self.member, state.reached()));
        inner.late.clear();
        inner.generation += 1;
        self.back_to(&mut inner, state);
        true
    }

    /// Somebody else's tier writes into it.
    pub fn take_over(&self) {
        let mut inner = self.inner.lock();
        self.world.note(|| format!("store {}: another tier takes it over", self.member));
        let lsn = inner.shown.reached().unwrap_or_default();
        let log = LogIdentity { id: FOREIGN, epoch: 1 };
        let hash = inner.shown.position.map_or(mainstay_core::EntryHash::ZERO, |position| position.hash);
        let state = State { position: Some(Position { log, lsn, hash }), ..State::default() };
        self.back_to(&mut inner, Arc::new(state));
        inner.excuse = Some("another tier took it over".to_owned());
        inner.strange = true;
        inner.late.clear();
        inner.generation += 1;
    }

    /// The log starts again, perhaps with fewer entries than before. Answers whether what the store holds is another
    /// history now.
    pub fn log_started(&self) -> bool {
        let mut inner = self.inner.lock();
        let truth = self.world.truth.lock();
        let parted = |state: &State| {
            state.position.is_some_and(|p| truth.hash(p.lsn) != Some(p.hash)) || state.horizon > truth.end()
        };
        inner.old.retain(|state| !parted(state));
        inner.unsaved.retain(|state| !parted(state));
        if inner.late.iter().any(|late| late.entries.last().is_some_and(|entry| entry.lsn > truth.end())) {
            inner.late.clear();
        }
        inner.durable_told = inner.durable_told.min(truth.end());
        let foreign = inner.shown.position.is_some_and(|p| p.log.id == FOREIGN);
        let unnoticeable = inner.shown.position.is_none_or(|p| truth.hash(p.lsn) == Some(p.hash));
        let parted = !foreign && (parted(&inner.shown) || parted(&inner.durable));
        drop(truth);
        inner.strange = foreign || (parted && !unnoticeable);
        if parted && unnoticeable {
            // What it holds beyond its position is of entries that are lost: an operator empties it.
            self.back_to(&mut inner, Arc::default());
            inner.old.clear();
        } else if parted {
            inner.excuse = Some("its history is not the log's".to_owned());
        }
        parted
    }

    /// The process ended, or begins anew.
    pub fn process_ended(&self) {
        match self.kind {
            Kind::Volatile => {
                let mut inner = self.inner.lock();
                self.back_to(&mut inner, Arc::default());
                inner.late.clear();
                inner.generation += 1;
                inner.strange = false;
            }
            Kind::Embedded => self.come_back(false),
            Kind::Server | Kind::DurableServer => {}
        }
        let mut inner = self.inner.lock();
        inner.internal = 0;
        inner.refused = None;
        inner.loading = false;
    }

    /// The machine that all of this runs on lost its power.
    pub fn lose_power(&self) {
        let mut inner = self.inner.lock();
        if matches!(self.kind, Kind::Server | Kind::Embedded) {
            let durable = Arc::clone(&inner.durable);
            self.world.note(|| format!("store {}: is left with {:?}", self.member, durable.reached()));
            self.back_to(&mut inner, durable);
        }
    }

    /// Nothing is wrong with it any more; what it refused it takes. The data stays.
    pub fn mend(&self) {
        let mut inner = self.inner.lock();
        inner.reach = Reach::Fine;
        inner.poison = None;
        inner.refused = None;
        inner.internal = 0;
    }

    /// An operator looked after it: there is no excuse any more.
    pub fn forgive(&self) {
        let mut inner = self.inner.lock();
        inner.excuse = None;
        inner.strange = false;
    }

    /// Whether what it holds is not this log's.
    pub fn is_strange(&self) -> bool {
        self.inner.lock().strange
    }
}
