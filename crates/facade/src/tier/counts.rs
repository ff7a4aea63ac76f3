//! What a tier counts beside what its guards and breakers count already.
//!
//! Each cell stands alone, and no decision looks at one. A read costs one look at the clock and three additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::guarded::Latency;
use mainstay_core::{Effect, Error, ErrorKind, Operation, Result};
use parking_lot::Mutex;

use crate::answer::Written;
use crate::log::Appended;
use crate::tier::drift::{DriftKind, MemberDrift};

/// The reads of a tier, in the order of their cells.
pub const READS: [Operation; 4] = [Operation::Search, Operation::Get, Operation::Scroll, Operation::Count];
/// Upper ends of the buckets of read times, in microseconds: from what memory takes to the default deadline.
pub const READ_BOUNDS_US: [u64; 16] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

fn add(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

fn get(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// Where a read has its cells; other operations are no reads of a tier.
fn read_index(operation: Operation) -> Option<usize> {
    READS.iter().position(|read| *read == operation)
}

/// The writes of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOperation {
    CreateCollection,
    AdoptCollection,
    DropCollection,
    Upsert,
    Delete,
    DeleteByFilter,
    SetPayload,
    DeletePayload,
    OverwritePayload,
}

impl WriteOperation {
    pub const ALL: [Self; 9] = [
        Self::CreateCollection,
        Self::AdoptCollection,
        Self::DropCollection,
        Self::Upsert,
        Self::Delete,
        Self::DeleteByFilter,
        Self::SetPayload,
        Self::DeletePayload,
        Self::OverwritePayload,
    ];

    /// The name of the call.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateCollection => "create_collection",
            Self::AdoptCollection => "adopt_collection",
            Self::DropCollection => "drop_collection",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::DeleteByFilter => "delete_by_filter",
            Self::SetPayload => "set_payload",
            Self::DeletePayload => "delete_payload",
            Self::OverwritePayload => "overwrite_payload",
        }
    }
}

/// How a write ended for its caller, in the order of the cells.
pub const OUTCOMES: [&str; 3] = ["acked", "unknown", "refused"];

/// How a comparison of the members ended, in the order of the cells.
pub const ROUND_OUTCOMES: [&str; 2] = ["compared", "failed"];

/// Counts of a tier as a whole.
#[derive(Default)]
pub struct Counts {
    reads: [Times; READS.len()],
    read_errors: [[AtomicU64; ErrorKind::ALL.len()]; READS.len()],
    writes: [[AtomicU64; OUTCOMES.len()]; WriteOperation::ALL.len()],
    retries: AtomicU64,
    failovers: AtomicU64,
    failbacks: AtomicU64,
    appended: AtomicU64,
    append_errors: AtomicU64,
    append_times: Latency,
    drift_rounds: [AtomicU64; ROUND_OUTCOMES.len()],
    /// Why the log refused the last append; gone with the next one that it took.
    refusal: Mutex<Option<String>>,
}

impl Counts {
    /// A read of the tier was answered.
    pub fn read<T>(&self, operation: Operation, took: Duration, answer: &Result<T>) {
        let Some(read) = read_index(operation) else { return };
        match answer {
            Ok(_) => self.reads[read].note(took),
            Err(error) => {
                if let Some(kind) = ErrorKind::ALL.iter().position(|kind| *kind == error.kind()) {
                    add(&self.read_errors[read][kind]);
                }
            }
        }
    }

    /// A write of the tier was answered.
    pub fn wrote(&self, operation: WriteOperation, answer: &Result<Written>) {
        let outcome = match answer {
            Ok(_) => 0,
            Err(error) if error.effect() == Effect::Unknown => 1,
            Err(_) => 2,
        };
        add(&self.writes[operation as usize][outcome]);
    }

    /// A read is tried again at every member.
    pub fn retried(&self) {
        add(&self.retries);
    }

    /// A member further down serves first now.
    pub fn failed_over(&self) {
        add(&self.failovers);
    }

    /// A member further up serves first again.
    pub fn failed_back(&self) {
        add(&self.failbacks);
    }

    /// The log answered an append.
    pub fn appended(&self, took: Duration, answer: &Result<Appended>) {
        match answer {
            Ok(appended) => {
                let entries = appended.first.lag_behind(appended.last) + 1;
                self.appended.fetch_add(entries, Ordering::Relaxed);
                self.append_times.record(took);
                *self.refusal.lock() = None;
            }
            Err(error) => {
                add(&self.append_errors);
                *self.refusal.lock() = refusal(error);
            }
        }
    }

    /// The members were compared, or could not be.
    pub fn compared<T>(&self, outcome: &Result<T>) {
        add(&self.drift_rounds[usize::from(outcome.is_err())]);
    }

    /// Every kind of read with its times and its failures.
    pub fn reads(&self) -> impl Iterator<Item = (Operation, ReadTimes)> {
        READS.iter().zip(&self.reads).map(|(operation, times)| (*operation, times.now()))
    }

    /// How often each kind of read failed for each reason; only what happened.
    pub fn read_errors(&self) -> impl Iterator<Item = (Operation, ErrorKind, u64)> {
        let cells = READS.iter().zip(&self.read_errors).flat_map(|(operation, kinds)| {
            ErrorKind::ALL.iter().zip(kinds).map(|(kind, cell)| (*operation, *kind, get(cell)))
        });
        cells.filter(|(_, _, count)| *count > 0)
    }

    /// How often each kind of write ended in each way.
    pub fn writes(&self) -> impl Iterator<Item = (WriteOperation, &'static str, u64)> {
        WriteOperation::ALL.iter().zip(&self.writes).flat_map(|(operation, cells)| {
            OUTCOMES.iter().zip(cells).map(|(outcome, cell)| (*operation, *outcome, get(cell)))
        })
    }

    pub fn retries(&self) -> u64 {
        get(&self.retries)
    }

    pub fn failovers(&self) -> u64 {
        get(&self.failovers)
    }

    pub fn failbacks(&self) -> u64 {
        get(&self.failbacks)
    }

    /// Entries that the log took.
    pub fn entries_appended(&self) -> u64 {
        get(&self.appended)
    }

    pub fn append_errors(&self) -> u64 {
        get(&self.append_errors)
    }

    /// How long the log took lately to make an append durable.
    pub fn append_times(&self) -> &Latency {
        &self.append_times
    }

    /// How often the members were compared, by how that ended.
    pub fn drift_rounds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ROUND_OUTCOMES.iter().zip(&self.drift_rounds).map(|(outcome, cell)| (*outcome, get(cell)))
    }

    /// Why the log refused the last append, if that speaks of the log.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }
}

/// What the log says of itself when it refuses an append. One that is wrong, or one of too many at once, is no sign of
/// trouble.
fn refusal(error: &Error) -> Option<String> {
    let of_the_log = !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Overloaded);
    of_the_log.then(|| error.to_string())
}

/// Counts of one member.
#[derive(Default)]
pub struct MemberCounts {
    served: [AtomicU64; READS.len()],
    hedges: AtomicU64,
    measured: AtomicU64,
    moves: AtomicU64,
    quarantines: AtomicU64,
    alerts: AtomicU64,
    drift: DriftCounts,
}

/// What comparisons of the members found in one of them, all rounds together.
#[derive(Default)]
pub struct DriftCounts {
    points: [AtomicU64; DriftKind::ALL.len()],
    collections: AtomicU64,
    repaired: AtomicU64,
    reloads: AtomicU64,
}

impl DriftCounts {
    fn add(&self, found: &MemberDrift) {
        for (cell, kind) in self.points.iter().zip(DriftKind::ALL) {
            cell.fetch_add(found.points_of(kind), Ordering::Relaxed);
        }
        self.collections.fetch_add(found.collections.len() as u64, Ordering::Relaxed);
        self.repaired.fetch_add(found.repaired, Ordering::Relaxed);
        self.reloads.fetch_add(u64::from(found.reloaded), Ordering::Relaxed);
    }

    /// Points that differed, by how.
    pub fn points(&self) -> impl Iterator<Item = (DriftKind, u64)> {
        DriftKind::ALL.into_iter().zip(&self.points).map(|(kind, cell)| (kind, get(cell)))
    }

    pub fn collections(&self) -> u64 {
        get(&self.collections)
    }

    /// Points for which a repair was logged.
    pub fn repaired(&self) -> u64 {
        get(&self.repaired)
    }

    /// Times that it was loaded anew.
    pub fn reloads(&self) -> u64 {
        get(&self.reloads)
    }
}

impl MemberCounts {
    /// It answered a read of the tier.
    pub fn served(&self, operation: Operation) {
        if let Some(read) = read_index(operation) {
            add(&self.served[read]);
        }
    }

    /// It was so slow that the next member was asked too.
    pub fn hedged(&self) {
        add(&self.hedges);
    }

    /// It is asked only to learn how long it takes.
    pub fn measured(&self) {
        add(&self.measured);
    }

    /// It failed a read, which moved on.
    pub fn moved(&self) {
        add(&self.moves);
    }

    /// It went out of service.
    pub fn quarantined(&self) {
        add(&self.quarantines);
    }

    /// Somebody was told to look after it.
    pub fn alerted(&self) {
        add(&self.alerts);
    }

    /// It was compared with the others.
    pub fn compared(&self, found: &MemberDrift) {
        self.drift.add(found);
    }

    /// How many reads of each kind it answered.
    pub fn reads(&self) -> impl Iterator<Item = (Operation, u64)> {
        READS.iter().zip(&self.served).map(|(operation, cell)| (*operation, get(cell)))
    }

    pub fn hedges(&self) -> u64 {
        get(&self.hedges)
    }

    pub fn measuring_calls(&self) -> u64 {
        get(&self.measured)
    }

    pub fn moves(&self) -> u64 {
        get(&self.moves)
    }

    pub fn quarantines(&self) -> u64 {
        get(&self.quarantines)
    }

    pub fn alerts(&self) -> u64 {
        get(&self.alerts)
    }

    /// What comparisons found in it.
    pub fn drift(&self) -> &DriftCounts {
        &self.drift
    }
}

/// Buckets of [`READ_BOUNDS_US`] and one for all longer times, each with the number and the sum of its times.
#[derive(Default)]
struct Times([Bucket; READ_BOUNDS_US.len() + 1]);

#[derive(Default)]
struct Bucket {
    count: AtomicU64,
    total_ns: AtomicU64,
}

/// Number and sum (in nanoseconds) of the times in each bucket so far.
pub type ReadTimes = [(u64, u64); READ_BOUNDS_US.len() + 1];

impl Times {
    fn note(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.0[READ_BOUNDS_US.partition_point(|bound_us| took_ns > bound_us * 1_000)];
        bucket.count.fetch_add(1, Ordering::Relaxed);
        bucket.total_ns.fetch_add(took_ns, Ordering::Relaxed);
    }

    fn now(&self) -> ReadTimes {
        self.0.each_ref().map(|bucket| (get(&bucket.count), get(&bucket.total_ns)))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::Lsn;

    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_reaches_it() {
        let times = Times::default();
        for us in [0, 25, 26, 5_000_000, 5_000_001] {
            times.note(Duration::from_micros(us));
        }
        let now = times.now();
        assert_eq!((now[0], now[1]), ((2, 25_000), (1, 26_000)));
        assert_eq!(now[READ_BOUNDS_US.len() - 1], (1, 5_000_000_000));
        assert_eq!(now[READ_BOUNDS_US.len()], (1, 5_000_001_000));
        assert_eq!(now.iter().map(|(count, _)| count).sum::<u64>(), 5);
    }

    #[test]
    fn every_write_has_cells_of_its_own() {
        for (at, operation) in WriteOperation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
        let counts = Counts::default();
        counts.wrote(WriteOperation::Delete, &Ok(Written { lsn: Lsn(1), points: 1 }));
        let lost = Error::new(ErrorKind::Timeout, "lost").with_effect(Effect::Unknown);
        counts.wrote(WriteOperation::Delete, &Err(lost));
        counts.wrote(WriteOperation::Upsert, &Err(Error::invalid("bad")));
        let counted: Vec<_> = counts.writes().filter(|(_, _, count)| *count > 0).collect();
        assert_eq!(
            counted,
            [
                (WriteOperation::Upsert, "refused", 1),
                (WriteOperation::Delete, "acked", 1),
                (WriteOperation::Delete, "unknown", 1)
            ]
        );
    }

    #[test]
    fn a_refusal_of_the_log_is_known_until_it_takes_an_append_again() {
        let counts = Counts::default();
        let refuse = |kind| counts.appended(Duration::ZERO, &Err(Error::new(kind, "no")));
        refuse(ErrorKind::Invalid);
        assert_eq!(counts.refusal(), None);
        refuse(ErrorKind::StorageFull);
        assert!(counts.refusal().unwrap().contains("no"));
        counts.appended(Duration::ZERO, &Ok(Appended { first: Lsn(3), last: Lsn(5) }));
        assert_eq!((counts.refusal(), counts.entries_appended(), counts.append_errors()), (None, 3, 2));
    }
}
