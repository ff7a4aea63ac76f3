//! A member: a store inside a tier, with its state and its cursor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{BreakerState, Durability, Error, ErrorKind, Guarded, Lsn, Result, VectorStore};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::answer::MemberName;
use crate::tier::counts::MemberCounts;
use crate::tier::events::{ALERT_AFTER, Event};
use crate::tier::failback::{Failback, FailbackOptions};
use crate::tier::route::View;

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has caught up with the log and follows it.
    Live,
    /// It applies what it missed.
    CatchingUp,
    /// It does not answer, or was not asked yet.
    Down,
    /// It refused an entry, or its data cannot be trusted; it is out of service until somebody looks.
    Quarantined,
    /// It is being loaded from another member.
    Bootstrapping,
}

impl MemberState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Live, Self::CatchingUp, Self::Down, Self::Quarantined, Self::Bootstrapping];

    /// The state as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching_up",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
            Self::Bootstrapping => "bootstrapping",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tells everybody who waits that some member's state changed.
pub type StateChanges = Arc<watch::Sender<u64>>;

/// A member of a tier.
pub struct Member {
    name: MemberName,
    backend: &'static str,
    store: Arc<Guarded<dyn VectorStore>>,
    volatile: bool,
    cursor: watch::Sender<Lsn>,
    durable: watch::Sender<Lsn>,
    condition: Mutex<Condition>,
    failback: FailbackOptions,
    changes: StateChanges,
    events: broadcast::Sender<Event>,
    suspicion: Notify,
    setbacks: AtomicU64,
    chosen: AtomicBool,
    orders: watch::Sender<u64>,
    reload: Mutex<Option<Reload>>,
    counts: MemberCounts,
}

/// Somebody wants the member to be loaded anew.
#[derive(Debug)]
pub struct Reload {
    /// From which member; `None` for the best.
    pub from: Option<usize>,
    /// Hears whether it was; `None` if it is to be done however often that fails.
    done: Option<oneshot::Sender<bool>>,
}

impl Reload {
    fn is_wanted(&self) -> bool {
        self.done.as_ref().is_none_or(|done| !done.is_closed())
    }
}

/// The state of a member with its reason.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The state.
    pub state: MemberState,
    /// Since when.
    pub since: Instant,
    /// How often the state changed.
    pub changes: u64,
    /// Why, if the state is not a good one; kept as the last known reason afterwards.
    pub reason: Option<String>,
    /// The entry that a quarantine is about.
    pub entry: Option<Lsn>,
    /// Whether the store was asked for its position since the start, whatever it said.
    pub settled: bool,
    /// What the store holds is known: it said where it is, and was not emptied to be loaded since.
    whole: bool,
    /// How far it is on its way back to serving first.
    failback: Failback,
    failed_checks: u32,
    /// Whether an operator took it out of service.
    ordered_out: bool,
}

impl Member {
    /// A member that was not asked yet.
    pub fn new(
        name: MemberName,
        backend: &'static str,
        store: Arc<Guarded<dyn VectorStore>>,
        failback: FailbackOptions,
        changes: StateChanges,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let volatile = store.capabilities().durability == Durability::Volatile;
        let condition = Condition {
            state: MemberState::Down,
            since: Instant::now(),
            changes: 0,
            reason: None,
            entry: None,
            settled: false,
            whole: false,
            failback: Failback::default(),
            failed_checks: 0,
            ordered_out: false,
        };
        Self {
            name,
            backend,
            store,
            volatile,
            cursor: watch::Sender::new(Lsn::ZERO),
            durable: watch::Sender::new(Lsn::ZERO),
            condition: Mutex::new(condition),
            failback,
            changes,
            events,
            suspicion: Notify::new(),
            setbacks: AtomicU64::new(0),
            chosen: AtomicBool::new(false),
            orders: watch::Sender::new(0),
            reload: Mutex::new(None),
            counts: MemberCounts::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &MemberName {
        &self.name
    }

    /// The word of its backend.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Its guarded store.
    pub fn store(&self) -> &Arc<Guarded<dyn VectorStore>> {
        &self.store
    }

    /// What the tier counted of it.
    pub fn counts(&self) -> &MemberCounts {
        &self.counts
    }

    /// Whether it starts empty after its process ended.
    pub fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Everything up to this LSN is in it.
    pub fn cursor(&self) -> Lsn {
        *self.cursor.borrow()
    }

    /// How often the store turned out to hold less than before.
    pub fn setbacks(&self) -> u64 {
        self.setbacks.load(Ordering::Relaxed)
    }

    /// Follows the cursor.
    pub fn watch_cursor(&self) -> watch::Receiver<Lsn> {
        self.cursor.subscribe()
    }

    /// Moves the cursor to what the store says.
    pub fn set_cursor(&self, lsn: Lsn) {
        self.cursor.send_if_modified(|cursor| {
            let before = std::mem::replace(cursor, lsn);
            self.setbacks.fetch_add(u64::from(lsn < before), Ordering::Relaxed);
            lsn != before
        });
    }

    /// Everything up to this LSN outlives a crash; 0 for a volatile member.
    pub fn durable(&self) -> Lsn {
        *self.durable.borrow()
    }

    /// Follows the durable LSN.
    pub fn watch_durable(&self) -> watch::Receiver<Lsn> {
        self.durable.subscribe()
    }

    /// Notes what the store answered to a flush, or to a question for its position after a start.
    pub fn set_durable(&self, lsn: Lsn) {
        self.durable.send_if_modified(|durable| std::mem::replace(durable, lsn) != lsn);
    }

    /// State and reason.
    pub fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    /// The state alone.
    pub fn state(&self) -> MemberState {
        self.condition.lock().state
    }

    /// Takes a good state.
    pub fn set_state(&self, state: MemberState) {
        self.change(|condition| {
            if condition.ordered_out {
                return false;
            }
            let changed = condition.state != state;
            condition.state = state;
            condition.whole |= matches!(state, MemberState::Live | MemberState::CatchingUp);
            condition.failed_checks = 0;
            changed
        });
    }

    /// It is about to be emptied and loaded: until that is done it holds nothing, and answers nobody.
    pub fn empty(&self) {
        self.condition.lock().whole = false;
        self.set_cursor(Lsn::ZERO);
        self.set_durable(Lsn::ZERO);
    }

    /// Goes down for this reason.
    pub fn set_down(&self, error: &Error) {
        let mut failed_checks = 0;
        self.change(|condition| {
            if condition.ordered_out {
                return false;
            }
            let changed = condition.state != MemberState::Down || !condition.settled;
            condition.state = MemberState::Down;
            condition.reason = Some(error.to_string());
            condition.failed_checks = condition.failed_checks.saturating_add(1);
            failed_checks = condition.failed_checks;
            changed
        });
        if failed_checks == ALERT_AFTER {
            self.counts.alerted();
            self.tell(Event::Alert { member: self.name.clone(), failed_checks, reason: error.to_string() });
        }
    }

    /// Goes out of service for this reason.
    pub fn quarantine(&self, error: &Error) {
        tracing::error!(member = %self.name, %error, "member quarantined");
        self.counts.quarantined();
        if error.kind() == ErrorKind::Corrupt {
            // The log is not cut on the word of a store whose data is damaged, or another one's.
            self.set_durable(Lsn::ZERO);
        }
        self.change(|condition| {
            condition.state = MemberState::Quarantined;
            condition.reason = Some(error.to_string());
            condition.entry = error.lsn();
            true
        });
    }

    /// Takes it out of service on an operator's word, until it is released.
    pub fn order_out(&self, reason: &str) {
        self.change(|condition| {
            condition.state = MemberState::Quarantined;
            condition.reason = Some(format!("an operator took it out of service: {reason}"));
            condition.entry = None;
            condition.ordered_out = true;
            true
        });
        self.tell_applier();
    }

    /// Lets a quarantined member come back; loaded anew from another member if `reload` says so.
    ///
    /// # Errors
    /// `Invalid` if it is not quarantined.
    pub fn release(&self, reload: bool) -> Result<()> {
        let mut released = Ok(());
        self.change(|condition| {
            if condition.state != MemberState::Quarantined {
                let text = format!("the member is {}, not quarantined", condition.state);
                released = Err(Error::invalid(text).with_member(self.name.as_str()));
                return false;
            }
            condition.state = MemberState::Down;
            condition.entry = None;
            condition.ordered_out = false;
            true
        });
        if released.is_ok() {
            *self.reload.lock() = reload.then_some(Reload { from: None, done: None });
            self.tell_applier();
        }
        released
    }

    /// Whether an operator took it out of service.
    pub fn is_ordered_out(&self) -> bool {
        self.condition.lock().ordered_out
    }

    /// Waits until an operator takes it out of service.
    pub async fn until_ordered_out(&self) {
        // That the sender is gone cannot be: it is ours.
        let _ = self.orders.subscribe().wait_for(|_| self.is_ordered_out()).await;
    }

    /// Follows what operators order.
    pub fn watch_orders(&self) -> watch::Receiver<u64> {
        self.orders.subscribe()
    }

    fn tell_applier(&self) {
        self.orders.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Chooses it to serve first, or no longer.
    pub fn choose(&self, chosen: bool) {
        if self.chosen.swap(chosen, Ordering::Relaxed) != chosen {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Whether an operator chose it to serve first.
    pub fn is_chosen(&self) -> bool {
        self.chosen.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Condition) -> bool) {
        let (from, to, reason) = {
            let mut condition = self.condition.lock();
            let settled = std::mem::replace(&mut condition.settled, true);
            let before = condition.state;
            if !change(&mut condition) && settled {
                return;
            }
            let now = Instant::now();
            condition.since = now;
            condition.changes += 1;
            match condition.state {
                MemberState::Live => condition.failback.came_back(now),
                MemberState::Down | MemberState::Quarantined => {
                    condition.failback.failed(&self.failback, now)
                }
                MemberState::CatchingUp | MemberState::Bootstrapping if before == MemberState::Live => {
                    condition.failback.failed(&self.failback, now);
                }
                // On its way since the tier was opened.
                MemberState::CatchingUp | MemberState::Bootstrapping => {}
            }
            let bad = matches!(condition.state, MemberState::Down | MemberState::Quarantined);
            (before, condition.state, condition.reason.clone().filter(|_| bad))
        };
        tracing::info!(member = %self.name, state = %to, "member state");
        if from != to {
            self.tell(Event::State { member: self.name.clone(), from, to, reason });
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// How long until it may serve first; `None` if it may, [`Duration::MAX`] if nobody knows.
    pub fn restored_in(&self) -> Option<Duration> {
        self.condition.lock().failback.waits(&self.failback, Instant::now())
    }

    /// Lets it serve first from now on.
    pub fn restore(&self) {
        self.condition.lock().failback.restore(Instant::now());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A read failed: the applier should look after the store now rather than at its next check.
    pub fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Waits until somebody suspects the member.
    pub async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Asks its applier to load it anew from another member; the answer says whether that was done, and is an error if
    /// it never will be.
    pub fn ask_reload(&self, from: usize) -> oneshot::Receiver<bool> {
        let (done, answer) = oneshot::channel();
        *self.reload.lock() = Some(Reload { from: Some(from), done: Some(done) });
        self.tell_applier();
        answer
    }

    /// Whether somebody wants a reload, and still does.
    pub fn wants_reload(&self) -> bool {
        self.reload.lock().as_ref().is_some_and(Reload::is_wanted)
    }

    /// The reload that somebody wants.
    pub fn take_reload(&self) -> Option<Reload> {
        self.reload.lock().take().filter(Reload::is_wanted)
    }

    /// Tells whoever wanted the reload whether it was done. One that an operator ordered stays until it is.
    pub fn end_reload(&self, reload: Reload, was_done: bool) {
        match reload.done {
            // Nobody listens any more if he lost patience.
            Some(done) => drop(done.send(was_done)),
            None if was_done => {}
            None => {
                self.reload.lock().get_or_insert(reload);
            }
        }
    }

    /// What decisions see of it.
    pub fn view(&self) -> View {
        let (state, whole, trusted) = {
            let mut condition = self.condition.lock();
            let trusted = condition.failback.is_untouched()
                || condition.failback.waits(&self.failback, Instant::now()).is_none();
            (condition.state, condition.whole, trusted)
        };
        View {
            state,
            whole,
            trusted,
            chosen: self.is_chosen(),
            cursor: self.cursor(),
            breaker_open: self.store.breaker().state() == BreakerState::Open,
            volatile: self.volatile,
            partial: self.store.is_partial(),
        }
    }
}
