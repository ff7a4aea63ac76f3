//! A member: a store inside a tier, with its state and its cursor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{BreakerState, Durability, Error, Guarded, Lsn, VectorStore};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::answer::MemberName;
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
}

/// The state of a member with its reason.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The state.
    pub state: MemberState,
    /// Since when.
    pub since: Instant,
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
            reason: None,
            entry: None,
            settled: false,
            whole: false,
            failback: Failback::default(),
            failed_checks: 0,
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
            let changed = condition.state != MemberState::Down || !condition.settled;
            condition.state = MemberState::Down;
            condition.reason = Some(error.to_string());
            condition.failed_checks = condition.failed_checks.saturating_add(1);
            failed_checks = condition.failed_checks;
            changed
        });
        if failed_checks == ALERT_AFTER {
            self.tell(Event::Alert { member: self.name.clone(), failed_checks, reason: error.to_string() });
        }
    }

    /// Goes out of service for this reason.
    pub fn quarantine(&self, error: &Error) {
        tracing::error!(member = %self.name, %error, "member quarantined");
        self.change(|condition| {
            condition.state = MemberState::Quarantined;
            condition.reason = Some(error.to_string());
            condition.entry = error.lsn();
            true
        });
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
            cursor: self.cursor(),
            breaker_open: self.store.breaker().state() == BreakerState::Open,
            volatile: self.volatile,
        }
    }
}
