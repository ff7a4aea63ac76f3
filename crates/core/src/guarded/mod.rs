//! `Guarded`: what a tier puts around every store.
//!
//! Each call passes, from the outside in: metrics, capabilities, breaker, bulkhead, deadline. What
//! comes back as an error names the operation and the member.
//!
//! | operations | breaker | bulkhead | time limit |
//! |---|---|---|---|
//! | `search`, `get`, `scroll`, `versions`, `count`, `collections` | refused while open | yes | `timeout` |
//! | `apply`, `flush` | refused while open | no | `write_timeout` |
//! | `position`, `ping` | pass; count as probes when one is due | no | `timeout` |
//! | `restore`, `close` | pass, do not count | no | `write_timeout` |
//!
//! A dropped future gives back its slot and its breaker permit.

mod bulkhead;
mod latency;
mod operation;
mod options;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::bulkhead::Bulkhead;
pub use self::latency::Latency;
use self::operation::Counters;
pub use self::operation::{Operation, OperationMetrics};
pub use self::options::{GuardOptions, MAX_CALLS, MAX_TIMEOUT};
use crate::breaker::{Breaker, BreakerMetrics, Permit};
use crate::entry::{Position, Run};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::expected::Expected;
use crate::filter::Filter;
use crate::graphs::Graphs;
use crate::id::PointId;
use crate::name::CollectionName;
use crate::point::{Record, Vector};
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery, VersionsPage};
use crate::store::{Capabilities, CollectionInfo, Context, RestoreStep, VectorStore, with_deadline};

/// A call that is given less time than this and runs out of it says nothing about the store, so a
/// caller in a hurry cannot open the breaker of a healthy one.
pub const SHORTEST_TELLING: Duration = Duration::from_millis(10);

/// What a guard counted.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardMetrics {
    /// Per operation, in the order of [`Operation::ALL`].
    pub operations: Vec<OperationMetrics>,
    /// Reads under way.
    pub running: usize,
    /// Reads that wait.
    pub queued: usize,
    /// The breaker's metrics.
    pub breaker: BreakerMetrics,
}

impl GuardMetrics {
    /// What was counted of one operation.
    pub fn of(&self, operation: Operation) -> OperationMetrics {
        self.operations[operation as usize]
    }
}

/// A store with deadline, bulkhead, breaker and metrics, itself a store.
pub struct Guarded<S: ?Sized> {
    store: Arc<S>,
    member: Arc<str>,
    options: GuardOptions,
    breaker: Breaker,
    bulkhead: Bulkhead,
    counters: Counters,
}

impl<S: VectorStore + ?Sized> Guarded<S> {
    /// Puts a guard around a store.
    ///
    /// # Errors
    /// `Invalid` as [`GuardOptions::check`].
    pub fn new(store: Arc<S>, member: impl Into<Arc<str>>, options: GuardOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            store,
            member: member.into(),
            options,
            breaker: Breaker::new(options.breaker)?,
            bulkhead: Bulkhead::new(options.max_concurrent, options.max_queued),
            counters: Counters::default(),
        })
    }

    /// The name of the member that the store is.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// The store inside.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// The limits.
    pub fn options(&self) -> &GuardOptions {
        &self.options
    }

    /// The breaker, for its state and for operators.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// How long calls of one operation that went well took lately, waiting included; those of a search that is
    /// not exact, if the operation is a search.
    pub fn latency(&self, operation: Operation) -> &Latency {
        self.counters.latency(operation)
    }

    /// How long exact searches that went well took lately. They look at every point, so their times say nothing of
    /// other searches.
    pub fn exact_latency(&self) -> &Latency {
        self.counters.exact_latency()
    }

    /// What was counted so far.
    pub fn metrics(&self) -> GuardMetrics {
        GuardMetrics {
            operations: Operation::ALL.iter().map(|operation| self.counters.metrics(*operation)).collect(),
            running: self.bulkhead.running(),
            queued: self.bulkhead.queued(),
            breaker: self.breaker.metrics(Instant::now()),
        }
    }

    /// Pings the store and tells the breaker, so that an open breaker closes without traffic: what
    /// a monitor calls now and then.
    ///
    /// # Errors
    /// `BreakerOpen`, without touching the store, while the breaker is open and `reset_timeout` has
    /// not passed; otherwise as `ping`.
    pub async fn probe(&self, cx: &Context) -> Result<()> {
        let call = self.begin(Operation::Ping, cx);
        let answer = match self.admit(call.started) {
            Ok(permit) => self.ask(&call, Some(permit), async { self.store.ping(&call.cx).await }).await,
            Err(error) => Err(error),
        };
        self.end(&call, answer)
    }

    fn begin(&self, operation: Operation, cx: &Context) -> Call {
        self.counters.begin(operation);
        let started = Instant::now();
        let timeout = match operation.is_write() {
            true => self.options.write_timeout,
            false => self.options.timeout,
        };
        let cx = Context { deadline: cx.deadline.min(started + timeout), ..*cx };
        Call { operation, exact: false, cx, started }
    }

    fn end<T>(&self, call: &Call, answer: Result<T>) -> Result<T> {
        self.counters.end(call.operation, call.exact, answer.is_err(), call.started.elapsed());
        answer.map_err(|error| error.with_operation(call.operation.as_str()).with_member(&self.member))
    }

    fn admit(&self, now: Instant) -> Result<Permit<'_>> {
        self.breaker.try_acquire(|| now).map_err(|retry_after| {
            let when = match retry_after {
                Duration::MAX => "an operator opened it, and it stays open until it is reset".to_owned(),
                Duration::ZERO => "a probe is under way".to_owned(),
                left => format!("it will be tried again in {left:?}"),
            };
            Error::new(ErrorKind::BreakerOpen, format!("the member failed too often: {when}"))
        })
    }

    /// A read: breaker, then bulkhead. A call that had to wait asks the breaker again if it changed
    /// meanwhile, so that a queue does not run into a store that was just found dead.
    async fn read<T>(&self, call: &Call, ask: impl Future<Output = Result<T>>) -> Result<T> {
        let mut permit = self.admit(call.started)?;
        let slot = match self.bulkhead.try_enter() {
            Some(slot) => slot,
            None => {
                let slot = self.bulkhead.enter(call.cx.deadline).await?;
                if !permit.is_current() {
                    permit = self.admit(Instant::now())?;
                }
                slot
            }
        };
        let answer = self.ask(call, Some(permit), ask).await;
        drop(slot);
        answer
    }

    async fn write<T>(&self, call: &Call, ask: impl Future<Output = Result<T>>) -> Result<T> {
        let permit = self.admit(call.started)?;
        self.ask(call, Some(permit), ask).await
    }

    /// `position` and `ping`: pass an open breaker, and are a probe if one is due.
    async fn check_up<T>(&self, call: &Call, ask: impl Future<Output = Result<T>>) -> Result<T> {
        let permit = match self.breaker.retry_after(call.started) {
            None => self.admit(call.started).ok(),
            Some(_) => None,
        };
        self.ask(call, permit, ask).await
    }

    /// Makes the call under its deadline and tells the breaker.
    async fn ask<T>(
        &self,
        call: &Call,
        permit: Option<Permit<'_>>,
        ask: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let asked = Instant::now();
        if asked >= call.cx.deadline {
            return Err(Error::new(ErrorKind::Timeout, "the deadline had passed before the store was asked"));
        }
        let answer = match with_deadline(&call.cx, ask).await {
            Err(error) if error.kind() == ErrorKind::Timeout && call.operation.is_write() => {
                Err(error.with_effect(Effect::Unknown))
            }
            answer => answer,
        };
        let Some(permit) = permit else { return answer };
        match &answer {
            // A store may answer pings and fail all else, so outside of a probe a ping that
            // succeeds does not interrupt the count of failures in a row.
            Ok(_) if call.operation.is_check_up() && !permit.is_probe() => permit.ignored(),
            Ok(_) => permit.success_at(Instant::now()),
            Err(error) if is_telling(error.kind(), call.cx.deadline - asked) => permit.failure(Instant::now),
            Err(_) => permit.ignored(),
        }
        answer
    }
}

struct Call {
    operation: Operation,
    /// A search that looks at every point.
    exact: bool,
    cx: Context,
    started: Instant,
}

/// Whether an error of a call that was given this much time speaks of the store's health.
fn is_telling(kind: ErrorKind, given: Duration) -> bool {
    kind.counts_on_breaker() && (kind != ErrorKind::Timeout || given >= SHORTEST_TELLING)
}

impl<S: ?Sized> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("member", &self.member)
            .field("options", &self.options)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: VectorStore + ?Sized> VectorStore for Guarded<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        let call = self.begin(Operation::Position, cx);
        let answer = self.check_up(&call, async { self.store.position(&call.cx).await }).await;
        self.end(&call, answer)
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        let call = self.begin(Operation::Apply, cx);
        let answer = self.write(&call, async { self.store.apply(&call.cx, run).await }).await;
        let answer = answer.map_err(|error| match error.lsn() {
            None if error.effect() == Effect::Unknown => error.with_lsn(run.end().lsn),
            _ => error,
        });
        self.end(&call, answer)
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        let call = self.begin(Operation::Flush, cx);
        let answer = self.write(&call, async { self.store.flush(&call.cx).await }).await;
        self.end(&call, answer)
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        let call = self.begin(Operation::Restore, cx);
        let answer = self.ask(&call, None, async { self.store.restore(&call.cx, step).await }).await;
        self.end(&call, answer)
    }

    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>> {
        let call = Call { exact: query.exact, ..self.begin(Operation::Search, cx) };
        let answer = match check_searchable(&self.store.capabilities(), &query.vector) {
            Ok(()) => self.read(&call, async { self.store.search(&call.cx, collection, query).await }).await,
            Err(error) => Err(error),
        };
        self.end(&call, answer).map_err(|error| error.with_collection(collection))
    }

    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let call = self.begin(Operation::Get, cx);
        let ask = async { self.store.get(&call.cx, collection, ids, fields).await };
        let answer = self.read(&call, ask).await;
        self.end(&call, answer).map_err(|error| error.with_collection(collection))
    }

    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage> {
        let call = self.begin(Operation::Scroll, cx);
        let ask = async { self.store.scroll(&call.cx, collection, query).await };
        let answer = self.read(&call, ask).await;
        self.end(&call, answer).map_err(|error| error.with_collection(collection))
    }

    async fn versions(
        &self,
        cx: &Context,
        collection: &CollectionName,
        after: Option<PointId>,
        limit: usize,
    ) -> Result<VersionsPage> {
        let call = self.begin(Operation::Scroll, cx);
        let ask = async { self.store.versions(&call.cx, collection, after, limit).await };
        let answer = self.read(&call, ask).await;
        self.end(&call, answer).map_err(|error| error.with_collection(collection))
    }

    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        let call = self.begin(Operation::Count, cx);
        let ask = async { self.store.count(&call.cx, collection, filter).await };
        let answer = self.read(&call, ask).await;
        self.end(&call, answer).map_err(|error| error.with_collection(collection))
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        let call = self.begin(Operation::Collections, cx);
        let answer = self.read(&call, async { self.store.collections(&call.cx).await }).await;
        self.end(&call, answer)
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        let call = self.begin(Operation::Ping, cx);
        let answer = self.check_up(&call, async { self.store.ping(&call.cx).await }).await;
        self.end(&call, answer)
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        let call = self.begin(Operation::Close, cx);
        let answer = self.ask(&call, None, async { self.store.close(&call.cx).await }).await;
        self.end(&call, answer)
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.store.memory_bytes()
    }

    async fn expect(&self, cx: &Context, expected: &[Expected]) -> Result<()> {
        // The first step of a load.
        let call = self.begin(Operation::Restore, cx);
        let answer = self.ask(&call, None, async { self.store.expect(&call.cx, expected).await }).await;
        self.end(&call, answer)
    }

    async fn prepare_snapshot(&self, cx: &Context) -> Result<()> {
        // Not counted: how long it takes, or that it takes too long, says nothing of how well the store answers.
        with_deadline(cx, self.store.prepare_snapshot(cx)).await
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

/// Refuses a search by a kind of vector that the store does not search at all. Which distance a
/// collection has is the store's to know.
fn check_searchable(capabilities: &Capabilities, vector: &Vector) -> Result<()> {
    let kind = match vector {
        Vector::Dense(_) if capabilities.search.dense.is_empty() => "dense",
        Vector::Sparse(_) if !capabilities.search.sparse => "sparse",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the store keeps {kind} vectors but does not search them"),
    ))
}
