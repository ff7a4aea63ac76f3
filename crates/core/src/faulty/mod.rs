//! Test doubles that wrap any store: [`Faulty`] breaks it on purpose, [`Recording`] writes down
//! what it is asked.
//!
//! The same wrappers serve tests and drills. Faults come from a seed, so a run that failed can be
//! repeated; scripted faults come first.

mod recording;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

pub use self::recording::{Recorded, Recording};
use crate::entry::{Position, Run};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::expected::Expected;
use crate::filter::Filter;
use crate::graphs::Graphs;
use crate::guarded::Operation;
use crate::id::PointId;
use crate::name::CollectionName;
use crate::point::Record;
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery, VersionsPage};
use crate::store::{Capabilities, CollectionInfo, Context, RestoreStep, VectorStore};

/// One way in which a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this kind and never reaches the store.
    Before(ErrorKind),
    /// The store does its work, then the answer is lost: the call fails with this kind, and the
    /// effect of a write is unknown.
    After(ErrorKind),
    /// The call takes this much longer.
    Delay(Duration),
    /// The call never reaches the store and never answers.
    Hang,
    /// The store does its work, then the call never answers.
    HangAfter,
}

/// A fault that strikes a share of all calls.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    operation: Option<Operation>,
    ratio: f64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
struct Scripted {
    operation: Option<Operation>,
    left: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Plan {
    rng: SmallRng,
    rules: Vec<Rule>,
    script: VecDeque<Scripted>,
    injected: u64,
}

/// A store that fails on purpose. Without a rule, a script, [`set_down`](Self::set_down) or
/// [`hang`](Self::hang) it does what the store inside does.
///
/// `close` is the exception: it always goes through, so that a test can end what it started.
///
/// ```
/// # use std::sync::Arc;
/// use mainstay_core::faulty::{Fault, Faulty};
/// use mainstay_core::{ErrorKind, VectorStore};
///
/// fn unreliable(store: Arc<dyn VectorStore>) -> Faulty<dyn VectorStore> {
///     let faulty = Faulty::new(store, 42).with_ratio(0.05, Fault::After(ErrorKind::Unavailable));
///     faulty.fail_next(3, Fault::Before(ErrorKind::Timeout));
///     faulty
/// }
/// ```
pub struct Faulty<S: ?Sized> {
    store: Arc<S>,
    seed: u64,
    plan: Mutex<Plan>,
    down: watch::Sender<bool>,
    hanging: watch::Sender<bool>,
}

impl<S: VectorStore + ?Sized> Faulty<S> {
    /// Wraps a store; equal seeds and equal calls in equal order give equal faults.
    pub fn new(store: Arc<S>, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        let plan = Plan { rng, rules: Vec::new(), script: VecDeque::new(), injected: 0 };
        Self {
            store,
            seed,
            plan: Mutex::new(plan),
            down: watch::Sender::new(false),
            hanging: watch::Sender::new(false),
        }
    }

    /// The same store with a fault that strikes this share of all calls (0 to 1). Each rule draws
    /// for itself, in the order given; the first that strikes decides.
    #[must_use]
    pub fn with_ratio(self, ratio: f64, fault: Fault) -> Self {
        self.plan.lock().rules.push(Rule { operation: None, ratio, fault });
        self
    }

    /// As [`with_ratio`](Self::with_ratio), of the calls of one operation.
    #[must_use]
    pub fn with_ratio_of(self, operation: Operation, ratio: f64, fault: Fault) -> Self {
        self.plan.lock().rules.push(Rule { operation: Some(operation), ratio, fault });
        self
    }

    /// The next `n` calls fail so.
    pub fn fail_next(&self, n: u64, fault: Fault) {
        self.plan.lock().script.push_back(Scripted { operation: None, left: n, fault });
    }

    /// The next `n` calls of one operation fail so.
    pub fn fail_next_of(&self, operation: Operation, n: u64, fault: Fault) {
        self.plan.lock().script.push_back(Scripted { operation: Some(operation), left: n, fault });
    }

    /// While down, every call fails with `Unavailable` before it reaches the store.
    pub fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// While hanging, calls wait before they reach the store, and go on when it ends.
    pub fn hang(&self, hanging: bool) {
        self.hanging.send_replace(hanging);
    }

    /// Forgets all rules and scripted faults, and ends being down and hanging.
    pub fn heal(&self) {
        {
            let mut plan = self.plan.lock();
            plan.rules.clear();
            plan.script.clear();
        }
        self.set_down(false);
        self.hang(false);
    }

    /// How many faults struck so far, calls while down or hanging not included.
    pub fn injected(&self) -> u64 {
        self.plan.lock().injected
    }

    /// The seed, to print when a test fails.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The store inside.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// Every rule that fits draws exactly one number, whatever strikes, so that a script does not
    /// shift the faults after it.
    fn decide(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let Plan { rng, rules, script, .. } = &mut *plan;
        let fits = |of: Option<Operation>| of.is_none_or(|of| of == operation);
        let mut drawn = None;
        for rule in rules.iter().filter(|rule| fits(rule.operation)) {
            let strikes = rng.random::<f64>() < rule.ratio;
            drawn = drawn.or(strikes.then_some(rule.fault));
        }
        let scripted = script.iter_mut().find(|scripted| fits(scripted.operation) && scripted.left > 0);
        let fault = match scripted {
            Some(scripted) => {
                scripted.left -= 1;
                Some(scripted.fault)
            }
            None => drawn,
        };
        script.retain(|scripted| scripted.left > 0);
        plan.injected += u64::from(fault.is_some());
        fault
    }

    async fn call<T>(&self, operation: Operation, ask: impl Future<Output = Result<T>>) -> Result<T> {
        // The sender lives in `self`, so the wait can only end by the value.
        let _ = self.hanging.subscribe().wait_for(|hanging| !hanging).await;
        if *self.down.borrow() {
            return Err(error(ErrorKind::Unavailable, "the store is down"));
        }
        match self.decide(operation) {
            None => ask.await,
            Some(Fault::Before(kind)) => Err(error(kind, "an injected fault, before the store was asked")),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                ask.await
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::After(kind)) => {
                ask.await?;
                let effect = if operation.is_write() { Effect::Unknown } else { Effect::None };
                Err(error(kind, "an injected fault, the answer was lost").with_effect(effect))
            }
            Some(Fault::HangAfter) => {
                ask.await?;
                std::future::pending().await
            }
        }
    }
}

fn error(kind: ErrorKind, message: &str) -> Error {
    Error::new(kind, message)
}

impl<S: ?Sized> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("seed", &self.seed)
            .field("down", &*self.down.borrow())
            .field("hanging", &*self.hanging.borrow())
            .field("plan", &*self.plan.lock())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: VectorStore + ?Sized> VectorStore for Faulty<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        self.call(Operation::Position, async { self.store.position(cx).await }).await
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        self.call(Operation::Apply, async { self.store.apply(cx, run).await }).await
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        self.call(Operation::Flush, async { self.store.flush(cx).await }).await
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        self.call(Operation::Restore, async { self.store.restore(cx, step).await }).await
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        self.call(Operation::Search, async { self.store.search(cx, collection, query).await }).await
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.call(Operation::Get, async { self.store.get(cx, collection, ids, fields).await }).await
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        self.call(Operation::Scroll, async { self.store.scroll(cx, collection, query).await }).await
    }

    async fn versions(
        &self,
        cx: &Context,
        collection: &CollectionName,
        after: Option<PointId>,
        limit: usize,
    ) -> Result<VersionsPage> {
        let ask = async { self.store.versions(cx, collection, after, limit).await };
        self.call(Operation::Scroll, ask).await
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.call(Operation::Count, async { self.store.count(cx, collection, filter).await }).await
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        self.call(Operation::Collections, async { self.store.collections(cx).await }).await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.call(Operation::Ping, async { self.store.ping(cx).await }).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.store.close(cx).await
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.store.memory_bytes()
    }

    async fn expect(&self, cx: &Context, expected: &[Expected]) -> Result<()> {
        self.store.expect(cx, expected).await
    }

    async fn prepare_snapshot(&self, cx: &Context) -> Result<()> {
        self.store.prepare_snapshot(cx).await
    }

    fn is_partial(&self) -> bool {
        self.store.is_partial()
    }

    fn notice(&self) -> Option<String> {
        self.store.notice()
    }

    fn graphs(&self) -> Option<&dyn Graphs> {
        self.store.graphs()
    }
}
