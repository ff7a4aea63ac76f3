//! The trait that every store implements.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::entry::{CollectionRef, Position, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::expected::Expected;
use crate::filter::Filter;
use crate::graphs::Graphs;
use crate::id::{Lsn, PointId};
use crate::name::CollectionName;
use crate::pipeline::Pipelining;
use crate::point::Record;
use crate::query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery, VersionsPage};
use crate::spec::{CollectionSpec, Distance};

/// Names one operation in logs and traces, across the members that it touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Longest time that a call may be given: a day, beyond which clocks cannot be trusted to add up.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What travels with every call: by when it must be answered, and whose work it is.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The moment after which nobody waits for the answer.
    pub deadline: Instant,
    /// The operation that this call is part of.
    pub operation: OperationId,
}

impl Context {
    /// A context whose deadline is `timeout` from now (at most [`MAX_TIMEOUT`]), with an operation id of
    /// its own.
    pub fn within(timeout: Duration) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let operation = OperationId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { deadline: Instant::now() + timeout.min(MAX_TIMEOUT), operation }
    }

    /// How long until the deadline.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same operation with a deadline at most `timeout` from now.
    #[must_use]
    pub fn at_most(self, timeout: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + timeout.min(MAX_TIMEOUT)), ..self }
    }
}

/// Whether what a store holds outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It does not; the store starts empty.
    Volatile,
    /// It does from the last flush on.
    OnFlush,
}

/// What a store searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCapabilities {
    /// The distances under which dense vectors are searched.
    pub dense: &'static [Distance],
    /// Whether sparse vectors are searched. Every store keeps them.
    pub sparse: bool,
}

/// What a store does. What is not declared answers `Unsupported`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What it searches.
    pub search: SearchCapabilities,
    /// Whether it outlives its process.
    pub durability: Durability,
    /// How many runs it takes at once.
    pub pipelining: Pipelining,
}

/// A collection as a store holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its spec.
    pub spec: CollectionSpec,
    /// The LSN that created it.
    pub incarnation: Lsn,
    /// How many points it holds.
    pub points: u64,
}

/// One step of loading a store from another member's state instead of from the first entry.
///
/// The order is `Begin`, then for each collection `Collection` and any number of `Points`, then
/// `Finish`. From `Begin` until `Finish` returned, the position of the store is `None`, also after
/// a crash in between, so that a half-loaded store is never taken for a whole one. A store that was opened again
/// starts with `Begin`, or with `Resume` to keep what was there at the last `Save`.
#[derive(Clone, Debug)]
pub enum RestoreStep<'a> {
    /// Forgets everything that the store holds.
    Begin,
    /// Creates an empty collection.
    Collection {
        /// Its spec.
        spec: &'a CollectionSpec,
        /// The LSN that created it.
        incarnation: Lsn,
    },
    /// Writes points with the versions they carry.
    Points {
        /// Where.
        collection: &'a CollectionRef,
        /// What; ids are unique in a step, and new or newer than what earlier steps wrote.
        records: Vec<Record>,
    },
    /// Makes what was loaded so far durable, for a `Resume`.
    Save,
    /// Goes on with a load that was cut short: what the store held at the last `Save` stays, and perhaps more.
    /// `Invalid` for a store that has a position.
    Resume,
    /// Makes everything durable, then takes this position.
    Finish {
        /// The position of the source before its first point was read.
        position: Position,
    },
}

impl RestoreStep<'_> {
    /// Checks that the step may come now. Every store calls this first in `restore`.
    ///
    /// # Errors
    /// `Invalid` for a step that starts no load while none is under way, and for `Resume` of a store that has a
    /// position.
    pub fn check(&self, restoring: bool, position: Option<Position>) -> Result<()> {
        match self {
            Self::Resume if position.is_some() => {
                Err(Error::invalid("a store with a position has no load to resume"))
            }
            Self::Begin | Self::Resume => Ok(()),
            _ if restoring => Ok(()),
            _ => Err(Error::invalid("a restore starts with `Begin` or `Resume`")),
        }
    }
}

/// A vector store: what a backend implements and a tier is made of.
///
/// There is one way to write, [`apply`](Self::apply), so that the normal write, catch-up and crash
/// recovery are the same code. All calls may come concurrently, but at most one of `apply`, `flush`
/// and `restore` is under way at a time, and several `apply` only as [`Capabilities::pipelining`] says. Dropping the
/// future of a call may leave its effect unknown; the next call must still work.
#[async_trait]
pub trait VectorStore: Send + Sync + 'static {
    /// What this store does.
    fn capabilities(&self) -> Capabilities;

    /// The position reached, as the store itself knows it: in memory if it is sure of it, read from
    /// storage after a start, an error or a change underneath. `None` if the store is empty or was
    /// never fully loaded.
    ///
    /// # Errors
    /// `Unavailable` if the store cannot be reached, `Corrupt` if the position cannot be read.
    async fn position(&self, cx: &Context) -> Result<Option<Position>>;

    /// Applies a run and answers the position reached. An already applied prefix is skipped
    /// ([`Run::remaining`]). After any error the caller re-reads the position.
    ///
    /// A store that takes several runs at once is first polled with them in their order, each from where the one before
    /// it ends. It answers each once everything up to its end is there. When one fails, or its future is dropped, those
    /// under way with it fail, too.
    ///
    /// Entries of a collection (by name and incarnation) that is not there are passed over: a later
    /// entry, already applied, dropped it. So are `Upsert`s and `PatchPayload`s of points whose version is
    /// not older than the entry.
    ///
    /// # Errors
    /// `LogGap` if the run does not continue the position, `Rejected` with the LSN if the store will
    /// never take an entry, and whatever the store runs into.
    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position>;

    /// The durability barrier: everything applied before this call outlives a crash of the machine
    /// once it returns. Answers the durable position; a volatile store answers `None`.
    ///
    /// # Errors
    /// Whatever the store runs into; the durable position is then the one before.
    async fn flush(&self, cx: &Context) -> Result<Option<Position>>;

    /// Loads the store from another member's state, step by step.
    ///
    /// # Errors
    /// `Invalid` for a step out of order, and whatever the store runs into.
    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()>;

    /// The hits of a search that [`SearchQuery::admit`] let through, nearest first, equals by id.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection, `Invalid` for a vector that it does not have,
    /// `Unsupported` for a kind of vector that the store does not search.
    async fn search(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &SearchQuery,
    ) -> Result<Vec<Hit>>;

    /// The points with these ids that are there, in the order of the (unique) ids.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection.
    async fn get(
        &self,
        cx: &Context,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>>;

    /// A page of points, ids ascending.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection.
    async fn scroll(
        &self,
        cx: &Context,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<ScrollPage>;

    /// A page of at most `limit` points after `after`, by id and version alone, ids ascending: a scroll without fields,
    /// which a store may have a shorter way for.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection.
    async fn versions(
        &self,
        cx: &Context,
        collection: &CollectionName,
        after: Option<PointId>,
        limit: usize,
    ) -> Result<VersionsPage> {
        let query = ScrollQuery { after, limit, filter: None, fields: Fields::NONE };
        Ok(self.scroll(cx, collection, &query).await?.into())
    }

    /// How many points there are, or how many of them a filter accepts; exact.
    ///
    /// # Errors
    /// `NotFound` for an unknown collection.
    async fn count(&self, cx: &Context, collection: &CollectionName, filter: Option<&Filter>) -> Result<u64>;

    /// All collections, by name.
    ///
    /// # Errors
    /// `Unavailable` if the store cannot be reached.
    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>>;

    /// Answers if the store can be reached and is still the one that was opened.
    ///
    /// # Errors
    /// `Unavailable` otherwise.
    async fn ping(&self, cx: &Context) -> Result<()>;

    /// Flushes and ends every background task. Later calls answer `Unavailable`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the store is closed all the same.
    async fn close(&self, cx: &Context) -> Result<()>;

    /// Bytes of memory that the store measured itself to hold; `None` if it does not measure.
    fn memory_bytes(&self) -> Option<u64>;

    /// Told, before an empty store is filled by a load or a replay, what is about to come, as far as anybody
    /// knows. A store with little room decides now how it will hold it, or refuses before it is half full.
    ///
    /// # Errors
    /// `Rejected` with the numbers and what would help, if the store will not take as much.
    async fn expect(&self, _: &Context, _: &[Expected]) -> Result<()> {
        Ok(())
    }

    /// Told before the store is read from end to end for a snapshot: one that has put off work which would make that
    /// read, or the store itself, smaller does it now, until the deadline. It may be called at any time, and what is
    /// in the store stays the same.
    ///
    /// # Errors
    /// `Timeout` if the work goes on beyond the deadline, and whatever it runs into. The store can be read all the same.
    async fn prepare_snapshot(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    /// Whether the store let points go for want of room: what it has is true, and there may be more. It does so
    /// only on request.
    fn is_partial(&self) -> bool {
        false
    }

    /// What the store decided by itself and an operator should know, such as how it made do with little room.
    fn notice(&self) -> Option<String> {
        None
    }

    /// Its search graphs, if they can be saved and loaded.
    fn graphs(&self) -> Option<&dyn Graphs> {
        None
    }
}

/// The error of a call to a closed store.
pub fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// Runs a call under the deadline of its context.
///
/// # Errors
/// `Timeout` when the deadline passes first; otherwise what the call answers.
pub async fn with_deadline<T>(cx: &Context, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(cx.deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the deadline passed")),
    }
}
