//! The operations of a store and what is counted of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latency::Latency;

/// The asynchronous operations of [`VectorStore`](crate::VectorStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `position`.
    Position,
    /// `apply`.
    Apply,
    /// `flush`.
    Flush,
    /// `restore`.
    Restore,
    /// `search`.
    Search,
    /// `get`.
    Get,
    /// `scroll`.
    Scroll,
    /// `count`.
    Count,
    /// `collections`.
    Collections,
    /// `ping`.
    Ping,
    /// `close`.
    Close,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 11] = [
        Self::Position,
        Self::Apply,
        Self::Flush,
        Self::Restore,
        Self::Search,
        Self::Get,
        Self::Scroll,
        Self::Count,
        Self::Collections,
        Self::Ping,
        Self::Close,
    ];

    /// The operation as one word, as it stands in errors and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Apply => "apply",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Search => "search",
            Self::Get => "get",
            Self::Scroll => "scroll",
            Self::Count => "count",
            Self::Collections => "collections",
            Self::Ping => "ping",
            Self::Close => "close",
        }
    }

    /// Whether the operation changes the store, so that a lost answer leaves its effect unknown.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Apply | Self::Flush | Self::Restore | Self::Close)
    }

    /// Whether the operation asks how the store is rather than for points.
    pub const fn is_check_up(self) -> bool {
        matches!(self, Self::Position | Self::Ping)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationMetrics {
    /// The operation.
    pub operation: Operation,
    /// Calls begun; those neither answered nor under way were dropped by their caller.
    pub calls: u64,
    /// Calls that were answered, with a value or an error.
    pub answered: u64,
    /// Calls that ended in an error, refused ones included.
    pub errors: u64,
    /// The time of all answered calls together, waiting included.
    pub latency_total: Duration,
}

impl OperationMetrics {
    /// The mean time of an answered call; `None` before the first.
    pub fn latency_mean(&self) -> Option<Duration> {
        let answered = u32::try_from(self.answered).unwrap_or(u32::MAX);
        (answered > 0).then(|| self.latency_total / answered)
    }
}

#[derive(Default)]
struct Cells {
    calls: AtomicU64,
    answered: AtomicU64,
    errors: AtomicU64,
    latency_ns: AtomicU64,
    /// Of calls that went well.
    latency: Latency,
}

/// Counters for every operation; each cell stands alone.
#[derive(Default)]
pub(super) struct Counters {
    cells: [Cells; Operation::ALL.len()],
    /// Of exact searches that went well.
    exact: Latency,
}

impl Counters {
    pub(super) fn begin(&self, operation: Operation) {
        self.cells[operation as usize].calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, operation: Operation, exact: bool, failed: bool, took: Duration) {
        let cells = &self.cells[operation as usize];
        cells.answered.fetch_add(1, Ordering::Relaxed);
        if failed {
            cells.errors.fetch_add(1, Ordering::Relaxed);
        } else {
            let latency = if exact { &self.exact } else { &cells.latency };
            latency.record(took);
        }
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        cells.latency_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    pub(super) fn latency(&self, operation: Operation) -> &Latency {
        &self.cells[operation as usize].latency
    }

    pub(super) fn exact_latency(&self) -> &Latency {
        &self.exact
    }

    pub(super) fn metrics(&self, operation: Operation) -> OperationMetrics {
        let cells = &self.cells[operation as usize];
        OperationMetrics {
            operation,
            calls: cells.calls.load(Ordering::Relaxed),
            answered: cells.answered.load(Ordering::Relaxed),
            errors: cells.errors.load(Ordering::Relaxed),
            latency_total: Duration::from_nanos(cells.latency_ns.load(Ordering::Relaxed)),
        }
    }
}
