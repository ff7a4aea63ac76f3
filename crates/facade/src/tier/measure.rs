//! Calls that are made only to learn how long a member takes now.
//!
//! A tier decides by how long a member took lately: when the next one is asked too (`hedge_after` as a percentile), and
//! who is asked first (`read = "fastest"`). Both keep away the very calls that would show that the times are other ones
//! now: a call that lost its race is given up before its time is known, and a member that was slow is not asked. So now
//! and then such a member is asked the same again in the background, for as long as any call may take.
//!
//! Nobody waits for such a call. Of the reads in question it is made for a fixed share, for one at a time per member,
//! and only where a decision looks at the time. It passes the member's guard like any other call: its time, its failure
//! and its timeout count as theirs do.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_core::guarded::Latency;
use mainstay_core::{
    BreakerState, CollectionName, Context, Fields, Filter, Guarded, Lsn, Operation, PointId, Result,
    ScrollQuery, SearchQuery, VectorStore,
};
use tokio::sync::Semaphore;

use crate::config::{HedgeAfter, ReadPolicy};
use crate::tier::Shared;
use crate::tier::member::MemberState;
use crate::tier::shadow::mix;

/// One of so many calls that lost a race is made again. Each race is a second call already, so this is a quarter of that
/// once more; and a p99 that one read in 25 exceeds shows itself to be too low and rises.
const OF_LOST: u64 = 4;
/// One of so many reads that another member served for being faster is put to a slower one too: a load of a sixteenth
/// of what it would have if it served, and some hundreds of reads show that it is the faster one now.
const OF_PASSED_OVER: u64 = 16;

/// A read that can be put to another member, or to the same one again.
#[derive(Clone)]
pub enum Question<'a> {
    Search(Cow<'a, SearchQuery>),
    Get(Cow<'a, [PointId]>, Cow<'a, Fields>),
    Scroll(Cow<'a, ScrollQuery>),
    Count(Option<Cow<'a, Filter>>),
}

impl Question<'_> {
    /// The call that it is.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Search(_) => Operation::Search,
            Self::Get(..) => Operation::Get,
            Self::Scroll(_) => Operation::Scroll,
            Self::Count(_) => Operation::Count,
        }
    }

    /// How long a member took lately for questions of this kind.
    pub fn latency<'m>(&self, store: &'m Guarded<dyn VectorStore>) -> &'m Latency {
        match self {
            Self::Search(query) if query.exact => store.exact_latency(),
            _ => store.latency(self.operation()),
        }
    }

    fn owned(&self) -> Question<'static> {
        match self {
            Self::Search(query) => Question::Search(Cow::Owned(query.as_ref().clone())),
            Self::Get(ids, fields) => {
                Question::Get(Cow::Owned(ids.to_vec()), Cow::Owned(fields.as_ref().clone()))
            }
            Self::Scroll(query) => Question::Scroll(Cow::Owned(query.as_ref().clone())),
            Self::Count(filter) => {
                Question::Count(filter.as_ref().map(|filter| Cow::Owned(filter.as_ref().clone())))
            }
        }
    }

    /// Asks, and lets go what is answered.
    async fn ask(&self, store: &Guarded<dyn VectorStore>, cx: &Context, name: &CollectionName) -> Result<()> {
        match self {
            Self::Search(query) => store.search(cx, name, query).await.map(drop),
            Self::Get(ids, fields) => store.get(cx, name, ids, fields).await.map(drop),
            Self::Scroll(query) => store.scroll(cx, name, query).await.map(drop),
            Self::Count(filter) => store.count(cx, name, filter.as_deref()).await.map(drop),
        }
    }
}

/// Who is measured, and how often.
pub struct Measure {
    lost: AtomicU64,
    passed_over: AtomicU64,
    /// For each member the room for one measuring call.
    room: Vec<Arc<Semaphore>>,
}

impl Measure {
    pub fn new(members: usize) -> Self {
        let room = (0..members).map(|_| Arc::new(Semaphore::new(1))).collect();
        Self { lost: AtomicU64::new(0), passed_over: AtomicU64::new(0), room }
    }
}

/// For one of so many events a number to choose by. Drawn, so that of reads of several kinds that come in turn none is
/// always left out.
fn draw(count: &AtomicU64, of: u64) -> Option<u64> {
    let drawn = mix(count.fetch_add(1, Ordering::Relaxed));
    drawn.is_multiple_of(of).then_some(drawn / of)
}

impl Shared {
    /// These members were asked, took so long that another one was asked too, and were given up when that one answered.
    pub(crate) fn lost_race(&self, losers: &[usize], name: &CollectionName, question: &Question<'_>) {
        let percentile = matches!(self.options.hedge_after, HedgeAfter::Percentile(_));
        if !percentile && self.options.read != ReadPolicy::Fastest {
            return;
        }
        for index in losers {
            if draw(&self.measure.lost, OF_LOST).is_some() {
                self.measure(*index, name, question);
            }
        }
    }

    /// A read was answered before any of these members, next in order, was asked.
    pub(crate) fn passed_over(
        &self,
        others: &[usize],
        acked: Lsn,
        name: &CollectionName,
        question: &Question<'_>,
    ) {
        if self.options.read != ReadPolicy::Fastest || others.is_empty() {
            return;
        }
        let Some(drawn) = draw(&self.measure.passed_over, OF_PASSED_OVER) else { return };
        // One that is behind is not passed over for its times.
        let fresh: Vec<usize> =
            others.iter().copied().filter(|index| self.members[*index].cursor() >= acked).collect();
        if let Some(index) = fresh.get(usize::try_from(drawn).unwrap_or(0) % fresh.len().max(1)) {
            self.measure(*index, name, question);
        }
    }

    fn measure(&self, index: usize, name: &CollectionName, question: &Question<'_>) {
        let member = &self.members[index];
        let answers = member.state() == MemberState::Live
            && member.store().breaker().state() == BreakerState::Closed
            && !member.store().is_partial();
        if !answers || self.is_closing() {
            return;
        }
        let Ok(room) = Arc::clone(&self.measure.room[index]).try_acquire_owned() else { return };
        member.counts().measured();
        let (member, name, question) = (Arc::clone(member), name.clone(), question.owned());
        // The guard's own timeout is usually shorter.
        let cx = Context::within(self.options.deadline);
        let mut closing = self.closing.clone();
        self.spawn_owned(async move {
            let _room = room;
            tokio::select! {
                answer = question.ask(member.store(), &cx, &name) => {
                    if let Err(error) = answer {
                        tracing::debug!(member = %member.name(), operation = %question.operation(), %error, "measuring call");
                        if error.kind().counts_on_breaker() {
                            member.suspect();
                        }
                    }
                }
                () = super::until_closing(&mut closing) => {}
            }
        });
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;
