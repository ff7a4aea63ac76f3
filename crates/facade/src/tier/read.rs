//! Reads: the active member first, and on a failure the next one, within the same call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use mainstay_core::query::{check_limit, unique_ids};
use mainstay_core::store::MAX_TIMEOUT;
use mainstay_core::{
    CollectionName, Context, Disposition, Error, ErrorKind, Fields, Filter, Guarded, Hit, Lsn, PointId,
    Record, Result, ScrollPage, ScrollQuery, SearchQuery, VectorStore,
};
use tokio::time::{sleep, timeout_at};
use tracing::Instrument;

use crate::answer::{Answer, ServiceLevel};
use crate::config::{HedgeAfter, ReadPolicy};
use crate::sabotage::{self, Bug};
use crate::tier::measure::Question;
use crate::tier::member::{Member, MemberState};
use crate::tier::route::{self, View};
use crate::tier::{Shared, spans};

/// Most ids in one `get` or delete.
pub const MAX_IDS: usize = 10_000;

/// A hedge by percentile waits at least this long: what a busy scheduler may take from any call.
const SHORTEST_HEDGE: Duration = Duration::from_millis(5);

/// Reads with conditions: at least an LSN, by a deadline, from one member.
#[derive(Clone, Copy)]
#[must_use = "a reader reads nothing by itself"]
pub struct Reader<'a> {
    tier: &'a Shared,
    at_least: Lsn,
    deadline: Duration,
    from: Option<usize>,
    whole: bool,
}

type Guard = Guarded<dyn VectorStore>;

impl<'a> Reader<'a> {
    pub(crate) fn new(tier: &'a Shared) -> Self {
        Self { tier, at_least: Lsn::ZERO, deadline: tier.options.deadline, from: None, whole: false }
    }

    /// Only an answer that holds everything up to this LSN, such as that of an earlier write. The
    /// read waits for a member that does, up to its deadline.
    pub fn at_least(mut self, lsn: Lsn) -> Self {
        self.at_least = lsn;
        self
    }

    /// Another deadline than the tier's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Only a member that has every point, for who takes what is not in the answer for gone.
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Only this member, for comparing members; nothing falls through.
    ///
    /// # Errors
    /// `Invalid` with the members' names if there is none of this name.
    pub fn from_member(mut self, name: &str) -> Result<Self> {
        self.from = Some(self.tier.member_index(name)?);
        Ok(self)
    }

    /// The nearest points to a vector.
    ///
    /// # Errors
    /// `Invalid` and `NotFound` for the caller to mend; `Unavailable` or `Timeout` if no member
    /// could answer by the deadline.
    pub async fn search(&self, collection: &CollectionName, query: SearchQuery) -> Result<Answer<Vec<Hit>>> {
        let spec = self.tier.catalog.get(collection)?.spec;
        if let Some(filter) = &query.filter {
            filter.check()?;
        }
        let query = &query.admit(&spec)?;
        let answer = self
            .ask(collection, &Question::Search(Cow::Borrowed(query)), |store, cx| {
                Box::pin(async move { store.search(&cx, collection, query).await })
            })
            .await?;
        if self.from.is_none() {
            self.tier.shadow(collection, query, &answer);
        }
        Ok(answer)
    }

    /// The points with these ids that are there.
    ///
    /// # Errors
    /// As [`search`](Self::search); `Invalid` for more than [`MAX_IDS`] ids.
    pub async fn get(
        &self,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Answer<Vec<Record>>> {
        self.tier.catalog.get(collection)?;
        check_ids(ids)?;
        let ids = &unique_ids(ids);
        let question = Question::Get(Cow::Borrowed(ids), Cow::Borrowed(fields));
        self.ask(collection, &question, |store, cx| {
            Box::pin(async move { store.get(&cx, collection, ids, fields).await })
        })
        .await
    }

    /// A page of points, ids ascending.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn scroll(
        &self,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<Answer<ScrollPage>> {
        self.tier.catalog.get(collection)?;
        check_limit(query.limit)?;
        if let Some(filter) = &query.filter {
            filter.check()?;
        }
        self.ask(collection, &Question::Scroll(Cow::Borrowed(query)), |store, cx| {
            Box::pin(async move { store.scroll(&cx, collection, query).await })
        })
        .await
    }

    /// How many points there are, or how many of them a filter accepts.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn count(&self, collection: &CollectionName, filter: Option<&Filter>) -> Result<Answer<u64>> {
        self.tier.catalog.get(collection)?;
        if let Some(filter) = filter {
            filter.check()?;
        }
        self.ask(collection, &Question::Count(filter.map(Cow::Borrowed)), |store, cx| {
            Box::pin(async move { store.count(&cx, collection, filter).await })
        })
        .await
    }

    async fn ask<'s, T>(
        &'s self,
        collection: &CollectionName,
        question: &Question<'_>,
        call: impl Fn(&'s Guard, Context) -> BoxFuture<'s, Result<T>>,
    ) -> Result<Answer<T>> {
        let operation = question.operation();
        let (cx, span) = (Context::within(self.deadline), spans::read(operation, collection));
        let answer = self.ask_and_retry(cx, collection, question, call).instrument(span.clone()).await;
        // The deadline says when the call began, which saves a look at the clock.
        let began = cx.deadline - self.deadline.min(MAX_TIMEOUT);
        self.tier.counts.read(operation, began.elapsed(), &answer);
        if let Ok(answer) = &answer {
            span.record("member", answer.served_by.as_str()).record("lsn", answer.cursor.0);
        }
        answer
    }

    async fn ask_and_retry<'s, T>(
        &'s self,
        cx: Context,
        collection: &CollectionName,
        question: &Question<'_>,
        call: impl Fn(&'s Guard, Context) -> BoxFuture<'s, Result<T>>,
    ) -> Result<Answer<T>> {
        self.tier.retries.earn();
        let mut retry = 0;
        loop {
            let error = match self.ask_once(&cx, collection, question, &call).await {
                Err(error) if error.disposition() == Disposition::Retry && self.from.is_none() => error,
                answer => return answer,
            };
            match self.tier.retries.spend(retry) {
                Some(wait) if wait < cx.remaining() && !self.tier.is_closing() => {
                    self.tier.counts.retried();
                    sleep(wait).await;
                }
                _ => return Err(error),
            }
            retry += 1;
        }
    }

    /// Asks each member that may answer, once.
    async fn ask_once<'s, T>(
        &'s self,
        cx: &Context,
        collection: &CollectionName,
        question: &Question<'_>,
        call: &impl Fn(&'s Guard, Context) -> BoxFuture<'s, Result<T>>,
    ) -> Result<Answer<T>> {
        let operation = question.operation();
        let acked = self.tier.acked().max(self.at_least);
        let mut order = self.candidates(cx, question).await?;
        let mut asked: Vec<usize> = Vec::new();
        let mut failures: Vec<Error> = Vec::new();
        // Members that were too slow and are still asked.
        let mut raced: Vec<usize> = Vec::new();
        // Whichever answers first counts; the others are given up.
        let mut running = FuturesUnordered::new();
        let (mut latest, mut due): (Option<usize>, bool) = (None, false);
        loop {
            // While a member is asked that holds every acked write, a failure of another one is no reason for an
            // older answer.
            let next = match asked.is_empty() {
                true => order.first().copied(),
                false => self.next(&asked, question),
            };
            let may_ask = due
                || running.is_empty()
                || next.is_some_and(|index| {
                    let next = &self.tier.members[index];
                    next.state() == MemberState::Live && next.cursor() >= acked
                });
            if may_ask && let Some(index) = next {
                let member = &self.tier.members[index];
                // Whoever hangs must leave time for those after it.
                let asking = call(member.store(), cx.at_most(cx.remaining() / self.left(&asked)))
                    .instrument(spans::ask(operation, member.name()));
                let cursor = member.cursor();
                running.push(async move { (index, cursor, asking.await) });
                latest = Some(index);
                asked.push(index);
            }
            due = false;
            let hedge = latest.and_then(|slow| {
                let patience = self.hedge(&self.tier.members[slow], question)?;
                let next = self.next(&asked, question)?;
                Some((slow, self.ready(patience, &self.tier.members[next], acked)))
            });
            let answered = match hedge {
                None => running.next().await,
                Some((slow, ready)) => tokio::select! {
                    biased;
                    answered = running.next() => answered,
                    () = ready => {
                        // Slow or frozen: its applier finds out.
                        let member = &self.tier.members[slow];
                        member.suspect();
                        member.counts().hedged();
                        raced.push(slow);
                        due = true;
                        continue;
                    }
                },
            };
            match answered {
                Some((index, cursor, Ok(value))) => {
                    self.tier.members[index].counts().served(operation);
                    raced.retain(|slow| *slow != index);
                    self.tier.lost_race(&raced, collection, question);
                    let chosen = order.first().copied();
                    order.retain(|index| !asked.contains(index));
                    self.tier.passed_over(&order, acked, collection, question);
                    return Ok(self.answer(value, index, cursor, chosen));
                }
                Some((index, _, Err(error))) => {
                    let member = &self.tier.members[index];
                    tracing::debug!(member = %member.name(), %operation, %error, "read moves on");
                    member.counts().moved();
                    raced.retain(|slow| *slow != index);
                    if error.kind().counts_on_breaker() {
                        member.suspect();
                    }
                    failures.push(self.unless_behind(error));
                    if sabotage::on(Bug::NoNextMember) {
                        return Err(self.all_failed(failures));
                    }
                }
                None => return Err(self.all_failed(failures)),
            }
        }
    }

    /// Who is asked after these, as the members are now: while they were asked, another one may have gone back behind what
    /// is wanted, or come back.
    fn next(&self, asked: &[usize], question: &Question<'_>) -> Option<usize> {
        self.order(&self.tier.views(), question).into_iter().find(|index| !asked.contains(index))
    }

    /// How many members may still be asked, at least one; one that cannot answer now may come back meanwhile.
    fn left(&self, asked: &[usize]) -> u32 {
        let may_come = |(index, member): &(usize, &Arc<Member>)| {
            !asked.contains(index)
                && self.from.is_none_or(|only| only == *index)
                && member.state() != MemberState::Quarantined
        };
        let left = self.tier.members.iter().enumerate().filter(may_come).count();
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }

    /// Waits until the next member is to be asked too: when patience ends, and it holds everything that was acked before
    /// this read. That a member is slow is no reason for an older answer.
    async fn ready(&self, patience: Duration, next: &Member, acked: Lsn) {
        sleep(patience).await;
        if sabotage::on(Bug::HedgeToStale) {
            return;
        }
        let reached = next.watch_cursor().wait_for(|cursor| *cursor >= acked).await.is_ok();
        // One that is not well, or partial, answers for want of a better one only.
        if !reached || next.state() != MemberState::Live || next.store().is_partial() {
            std::future::pending::<()>().await;
        }
    }

    /// How long a member may take before the next one is asked too.
    fn hedge(&self, member: &Member, question: &Question<'_>) -> Option<Duration> {
        match self.tier.options.hedge_after {
            HedgeAfter::Off => None,
            HedgeAfter::After(patience) => Some(patience),
            HedgeAfter::Percentile(percent) => {
                let most = (member.store().options().timeout / 2).max(SHORTEST_HEDGE);
                // Before its times are known it is not raced: a call that is given up would never make them known.
                let usual = question.latency(member.store()).quantile(percent / 100.0)?;
                Some(usual.clamp(SHORTEST_HEDGE, most))
            }
        }
    }

    /// A store without a collection that is there has not come to its creation yet: no answer to the call.
    fn unless_behind(&self, error: Error) -> Error {
        match (error.kind(), error.collection(), error.member()) {
            (ErrorKind::NotFound, Some(name), Some(member)) if self.tier.catalog.get(name).is_ok() => {
                let text = format!("member `{member}` has not come to the creation of `{name}` yet");
                Error::new(ErrorKind::Unavailable, text).with_collection(name).with_member(member)
            }
            _ => error,
        }
    }

    fn answer<T>(&self, value: T, index: usize, cursor: Lsn, chosen: Option<usize>) -> Answer<T> {
        // A standby that serves because it is the fastest is no sign of trouble with the first member.
        let by_choice = self.tier.options.read == ReadPolicy::Fastest && chosen == Some(index);
        let level = match index {
            0 => ServiceLevel::Normal,
            _ if sabotage::on(Bug::LevelAlwaysNormal) => ServiceLevel::Normal,
            _ => {
                let views = self.tier.views();
                let serving = if by_choice && route::active(&views) == Some(0) { 0 } else { index };
                route::level(&views, serving)
            }
        };
        let named = chosen.filter(|_| sabotage::on(Bug::ServedByFirst)).unwrap_or(index);
        let lag = cursor.lag_behind(self.tier.log.bounds().last);
        Answer {
            value,
            served_by: self.tier.members[named].name().clone(),
            level,
            lag: if sabotage::on(Bug::LagHidden) { 0 } else { lag },
            partial: self.tier.members[index].store().is_partial(),
            cursor,
        }
    }

    /// The error that says most: what a store that works said about the call before what a store
    /// that does not work said about itself.
    fn all_failed(&self, failures: Vec<Error>) -> Error {
        let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
        let of_the_call =
            |error: &Error| !error.kind().counts_on_breaker() && error.kind() != ErrorKind::BreakerOpen;
        let (worst, best): (Vec<_>, Vec<_>) = failures.into_iter().partition(|error| !of_the_call(error));
        match best.into_iter().next() {
            Some(error) => error,
            None if worst.len() == 1 => worst.into_iter().next().unwrap_or_else(no_member),
            None => {
                Error::new(ErrorKind::Unavailable, format!("no member could answer: {}", texts.join("; ")))
            }
        }
    }

    /// Who is asked, in order; waits for somebody to be there.
    async fn candidates(&self, cx: &Context, question: &Question<'_>) -> Result<Vec<usize>> {
        let operation = question.operation();
        let end = self.tier.log.bounds().last;
        if self.at_least > end {
            return Err(Error::invalid(format!(
                "a read at least at entry {} was asked for, but the log ends at entry {end}",
                self.at_least
            ))
            .with_operation(operation.as_str()));
        }
        let mut moved = self.tier.follow_members();
        loop {
            let order = self.order(&self.tier.views(), question);
            if !order.is_empty() {
                return Ok(order);
            }
            if self.tier.is_closing() {
                return Err(closing());
            }
            if timeout_at(cx.deadline, moved.changed()).await.is_err() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    if self.whole {
                        "no member that has every point can answer by the deadline".to_owned()
                    } else if self.at_least > Lsn::ZERO {
                        format!("no member that can answer reached entry {} by the deadline", self.at_least)
                    } else {
                        "no member can answer: each is empty, being loaded or quarantined".to_owned()
                    },
                )
                .with_operation(operation.as_str()));
            }
        }
    }

    fn order(&self, views: &[View], question: &Question<'_>) -> Vec<usize> {
        let rank = |index: usize| match self.tier.options.read {
            ReadPolicy::Preferred => None,
            // One whose times are not known yet comes first, so that they become known.
            ReadPolicy::Fastest => question.latency(self.tier.members[index].store()).quantile(0.5),
        };
        let at_least = if sabotage::on(Bug::AtLeastIgnored) { Lsn::ZERO } else { self.at_least };
        let mut order = route::read_order(views, at_least, self.tier.acked(), rank);
        order.retain(|index| {
            self.from.is_none_or(|only| *index == only) && !(self.whole && views[*index].partial)
        });
        order
    }
}

/// Refuses a list of ids that is empty or too long.
pub(crate) fn check_ids(ids: &[PointId]) -> Result<()> {
    match ids.len() {
        0 => Err(Error::invalid("the list of ids is empty")),
        1..=MAX_IDS => Ok(()),
        n => Err(Error::invalid(format!("{n} ids were given; at most {MAX_IDS} are allowed in one call"))),
    }
}

pub(crate) fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the tier is closed")
}

fn no_member() -> Error {
    Error::new(ErrorKind::Unavailable, "no member can answer")
}

/// Wakes when a member's state or cursor changes.
pub(crate) struct MemberChanges {
    receivers: Vec<tokio::sync::watch::Receiver<Lsn>>,
    states: tokio::sync::watch::Receiver<u64>,
}

impl MemberChanges {
    pub(crate) fn new(members: &[std::sync::Arc<Member>], states: tokio::sync::watch::Receiver<u64>) -> Self {
        Self { receivers: members.iter().map(|member| member.watch_cursor()).collect(), states }
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        let cursors = self.receivers.iter_mut().map(|receiver| Box::pin(receiver.changed()));
        // An error would mean that a member is gone, which is a change too.
        tokio::select! {
            biased;
            _ = futures::future::select_all(cursors) => {}
            _ = self.states.changed() => {}
        }
    }
}
