//! The runs that a member's store is applying, answered in the order of the log.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use mainstay_core::{
    BreakerState, Context, Error, ErrorKind, Lsn, Pipelining, Position, Result, Run, VectorStore,
};
use tracing::Instrument;

use crate::log::Log;
use crate::tier::member::Member;
use crate::tier::spans;

/// Entries of the runs under way, in bytes of the log: large enough that a store's cost per commit is shared
/// by many writes, small enough that a run's memory does not matter.
const RUN_BYTES: usize = 4 << 20;
/// Points of one run, for entries that name many points in few bytes.
const RUN_POINTS: usize = 8_192;

/// The next run after a position, of at most so many bytes if it has more than one entry.
///
/// # Errors
/// As [`Log::read`].
pub async fn read(log: Arc<dyn Log>, after: Position, most_bytes: usize) -> Result<Run> {
    let entries = log.read(after.lsn, most_bytes).await?;
    let mut points = 0;
    let entries = entries.into_iter().take_while(|entry| {
        let before = points;
        points += entry.op.points();
        before < RUN_POINTS
    });
    Run::new(after, entries.collect())
        .map_err(|error| Error::new(ErrorKind::Internal, "the log has a gap").with_source(error))
}

/// Where the log ended at a moment, and how much of it was applied since.
pub struct Mark {
    log_end: Lsn,
    bytes: usize,
}

impl Mark {
    /// The log ends here now.
    pub fn at(log_end: Lsn) -> Self {
        Self { log_end, bytes: 0 }
    }

    /// A run was applied, and the log ends at `log_end` now. Answers whether the store lacks no more than what came
    /// while it applied about as much as runs under way bring: what was in the log at the mark took no more than that.
    pub fn pass(&mut self, run: &Run, reached: Lsn, log_end: Lsn) -> bool {
        let is_near = self.bytes < RUN_BYTES;
        self.bytes += size_of(run);
        if reached < self.log_end {
            return false;
        }
        *self = Self::at(log_end);
        is_near
    }
}

fn size_of(run: &Run) -> usize {
    run.entries().iter().map(|entry| entry.size_bytes).sum()
}

/// A run that its store answered.
pub struct Answered {
    /// The run.
    pub run: Run,
    /// The position that the store answered.
    pub reached: Result<Position>,
}

/// Runs under way.
pub struct Runs {
    member: Arc<Member>,
    pipelining: Pipelining,
    /// A run is answered within this time.
    timeout: Duration,
    under_way: FuturesOrdered<BoxFuture<'static, Answered>>,
    end: Position,
}

impl Runs {
    /// None yet, on a store at this position.
    pub fn new(member: &Arc<Member>, position: Position, timeout: Duration) -> Self {
        let pipelining = member.store().capabilities().pipelining;
        Self {
            member: Arc::clone(member),
            pipelining,
            timeout,
            under_way: FuturesOrdered::new(),
            end: position,
        }
    }

    /// Where the last of them ends, or where the store is.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Goes on from where the store is, with none under way.
    pub fn continue_from(&mut self, position: Position) {
        self.end = position;
    }

    /// Bytes of a run: those that are under way at once share what one alone may have, so that writers are acked one by
    /// one and not many together, who then write together again.
    pub fn most_bytes(&self) -> usize {
        RUN_BYTES / self.pipelining.runs.max(1)
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether one more may begin. A store that failed lately is given one at a time.
    pub fn have_room(&self) -> bool {
        self.is_empty()
            || self.under_way.len() < self.pipelining.runs
                && self.member.store().breaker().state() == BreakerState::Closed
    }

    /// Whether a run brings enough to begin now, and is not better added to the next one.
    pub fn are_worth(&self, run: &Run) -> bool {
        self.is_empty() || size_of(run) >= self.pipelining.least_bytes
    }

    /// Begins a run that continues [`end`](Self::end).
    pub fn begin(&mut self, run: Run) {
        self.end = run.end();
        let (member, timeout) = (Arc::clone(&self.member), self.timeout);
        let span = spans::apply(member.name());
        span.record("lsn", run.end().lsn.0);
        let applied = async move {
            let reached = member.store().apply(&Context::within(timeout), &run).await;
            Answered { run, reached }
        };
        self.under_way.push_back(Box::pin(applied.instrument(span)));
    }

    /// The answer to the first of them; `None` if none is under way.
    pub async fn next(&mut self) -> Option<Answered> {
        self.under_way.next().await
    }

    /// Waits until all have ended, whatever they answer.
    pub async fn end_all(&mut self) {
        while self.next().await.is_some() {}
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use mainstay_core::{Durability, ErrorKind, Point};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::Ack;
    use crate::log::MemoryLog;
    use crate::tier::exposed::Exposed;
    use crate::tier::tests::{docs, point, spec};
    use crate::tier::{Tier, TierOptions};

    const SECOND: Duration = Duration::from_secs(1);
    const TENTH: Duration = Duration::from_millis(100);

    /// A tier over a store that takes a second for each run.
    async fn over(pipelining: Pipelining, ack: Ack) -> (Tier, Arc<Exposed>) {
        let store = Exposed::new(Durability::OnFlush);
        store.pipeline(pipelining);
        let options = TierOptions { ack, ..TierOptions::default() };
        let tier = Tier::assemble(options, Arc::new(MemoryLog::default()), vec![store.member("primary")])
            .await
            .unwrap();
        tier.create_collection(spec()).await.unwrap();
        store.apply_takes(SECOND);
        (tier, store)
    }

    /// Four writes, one every tenth of a second; how many tenths after the first each was acked.
    async fn written(tier: &Tier) -> Vec<u128> {
        let began = Instant::now();
        let writes = (0..4_u32).map(|at| async move {
            sleep(TENTH * at).await;
            let points = vec![Point::new(u64::from(at), vec![1.0, 0.0])];
            tier.upsert(&docs(), points).await.unwrap();
            began.elapsed().as_millis() / TENTH.as_millis()
        });
        futures::future::join_all(writes).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_several_runs_is_given_the_next_while_it_is_at_the_first() {
        let (tier, store) = over(Pipelining { runs: 3, least_bytes: 1 }, Ack::Active).await;
        assert_eq!(written(&tier).await, [10, 11, 12, 20], "three at once, the fourth after the first");
        assert_eq!(store.runs(), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_little_for_a_run_of_its_own_waits_and_goes_together() {
        let (tier, store) = over(Pipelining { runs: 3, least_bytes: 1 << 20 }, Ack::Active).await;
        assert_eq!(written(&tier).await, [10, 20, 20, 20]);
        assert_eq!(store.runs(), [(0, 1), (1, 2), (2, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn runs_beside_one_that_fails_are_applied_again_with_it() {
        let (tier, store) = over(Pipelining { runs: 3, least_bytes: 1 }, Ack::Active).await;
        store.fail_next_run(ErrorKind::Unavailable);
        let acked = written(&tier).await;
        assert!(acked.iter().all(|tenths| *tenths >= 20), "{acked:?}");
        let contents = store.contents().await;
        assert_eq!(contents[&docs()].1.len(), 4);
        tier.upsert(&docs(), vec![point(9, 1.0)]).await.unwrap();
        tier.close().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_that_closes_ends_the_runs_under_way_and_begins_no_more() {
        let (tier, store) = over(Pipelining { runs: 3, least_bytes: 1 }, Ack::Journal).await;
        assert_eq!(written(&tier).await, [0, 1, 2, 3]);
        let began = Instant::now();
        tier.close().await.unwrap();
        assert_eq!(began.elapsed(), SECOND - TENTH, "what began at 2 tenths has ended");
        assert_eq!(store.runs(), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        assert_eq!(tier.status().members[0].cursor, Lsn(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_up_is_live_although_no_run_brings_all_that_waits() {
        let (tier, store) = over(Pipelining { runs: 8, least_bytes: 1 }, Ack::Journal).await;
        store.fail_next_run(ErrorKind::Unavailable);
        let text = "x".repeat(300 << 10);
        let write =
            async |id| tier.upsert(&docs(), vec![point(id, 1.0).with_text(text.clone())]).await.unwrap();
        for id in 0..12 {
            write(id).await;
        }
        let writes = async {
            for id in 12..112 {
                sleep(TENTH * 2).await;
                write(id).await;
            }
        };
        let caught_up = async {
            sleep(SECOND).await;
            tier.wait_caught_up(SECOND * 15).await
        };
        let (caught_up, ()) = tokio::join!(caught_up, writes);
        caught_up.unwrap();
    }
}
