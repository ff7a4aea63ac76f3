//! The applier: the one task that moves a member's cursor along the log.
//!
//! It is a loop of two steps. *Settle*: ask the store for its position, because the store knows and
//! memory does not, and decide how to continue. *Follow*: read entries after the cursor, apply them
//! in batches, flush now and then. Whatever fails ends the following and settles again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use mainstay_core::{BreakerState, Context, Error, ErrorKind, Lsn, Op, Position, Run, VectorStore};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::log::Log;
use crate::sabotage::{self, Bug};
use crate::tier::member::{Member, MemberState};
use crate::tier::runs::{self, Answered, Mark, Runs};
use crate::tier::snapshots::Snapshots;
use crate::tier::{bootstrap, expected, spans, until_closing};

/// Runs beside one that failed may take so long to end, before they are given up.
const LET_END: Duration = Duration::from_secs(1);
/// A store that fails in a way nobody knows is tried this often before it is quarantined.
const INTERNAL_TRIES: u32 = 5;
/// The first pause after a failure; it doubles up to the check interval.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Asking for a position or a ping takes no longer than this.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Applying a run or a flush takes no longer than this; the guard's own timeout is usually shorter.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// When an applier checks and flushes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// An idle store is pinged this often, and a failed one tried again at least this often.
    pub check_interval: Duration,
    /// What was applied is made durable at least this often.
    pub flush_interval: Duration,
}

/// The task of one member.
pub struct Applier {
    /// All members, in order.
    pub members: Arc<[Arc<Member>]>,
    /// The one that this task moves.
    pub index: usize,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where a store that is empty, or hopelessly late, is loaded from before another member is asked.
    pub snapshots: Option<Arc<Snapshots>>,
    /// When to check and flush.
    pub pace: Pace,
    /// Turns true when the tier closes; a closed channel means the same.
    pub closing: watch::Receiver<bool>,
    /// Since it was looked at last, the store took a run or was loaded, wherever it is by now.
    pub progress: bool,
}

/// Why following ended.
enum Ended {
    /// The tier closes.
    Closing,
    /// Ask the store for its position again.
    Resettle,
    /// What this entry brings cannot be replayed: load the store from a member that is at it or beyond.
    Load(Lsn),
    /// Somebody wants the store to be loaded anew.
    Reload,
    /// The store failed.
    Failed(Error),
}

impl Applier {
    fn member(&self) -> &Arc<Member> {
        &self.members[self.index]
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err()
    }

    /// Runs until the tier closes, then flushes and closes the store.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut internal_failures = 0;
        while !self.is_closing() {
            if self.member().state() == MemberState::Quarantined {
                self.wait_for_release().await;
                (pause, internal_failures) = (FIRST_PAUSE, 0);
                continue;
            }
            let before = self.member().cursor();
            let mut ended = if self.member().wants_reload() {
                Ended::Reload
            } else {
                match self.settle_in_span().await {
                    Ok(Some(position)) => self.follow(position).await,
                    Ok(None) => Ended::Resettle,
                    Err(error) => Ended::Failed(error),
                }
            };
            if let Ended::Load(lsn) = ended {
                ended = match self.bootstrap(lsn, None).await {
                    Ok(_) => Ended::Resettle,
                    Err(error) => Ended::Failed(error),
                };
            }
            if matches!(ended, Ended::Reload) {
                ended = self.reload().await;
            }
            if std::mem::take(&mut self.progress) || self.member().cursor() > before {
                (pause, internal_failures) = (FIRST_PAUSE, 0);
            }
            let error = match ended {
                Ended::Closing => break,
                Ended::Resettle | Ended::Load(_) | Ended::Reload => continue,
                Ended::Failed(error) => error,
            };
            internal_failures += u32::from(error.kind() == ErrorKind::Internal);
            let tried_for_ever =
                sabotage::on(Bug::PoisonNotQuarantined) && error.kind() == ErrorKind::Rejected;
            if !tried_for_ever
                && matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Corrupt | ErrorKind::LogGap)
                || internal_failures >= INTERNAL_TRIES
            {
                self.member().quarantine(&error);
                if sabotage::on(Bug::PoisonStopsAll) {
                    self.members.iter().for_each(|member| member.quarantine(&error));
                }
                continue;
            }
            tracing::warn!(member = %self.member().name(), %error, "member down");
            self.member().set_down(&error);
            self.closing_within(pause).await;
            pause = (pause * 2).min(self.pace.check_interval).min(Duration::from_secs(1));
        }
        self.close().await;
    }

    async fn close(&self) {
        let cx = Context::within(WRITE_TIMEOUT);
        let member = self.member();
        let whole = !matches!(member.state(), MemberState::Bootstrapping);
        if !member.is_volatile() && whole && self.log_is_durable().await {
            match member.store().flush(&cx).await {
                Ok(durable) => durable.into_iter().for_each(|position| member.set_durable(position.lsn)),
                Err(error) => {
                    tracing::warn!(member = %member.name(), %error, "last flush failed; the log has the rest")
                }
            }
        }
        if let Err(error) = member.store().close(&cx).await {
            tracing::warn!(member = %member.name(), %error, "close failed");
        }
    }

    /// Waits until an operator lets the member back in, or the tier closes.
    async fn wait_for_release(&mut self) {
        let mut orders = self.member().watch_orders();
        while self.member().state() == MemberState::Quarantined {
            tokio::select! {
                () = until_closing(&mut self.closing) => return,
                // That the sender is gone cannot be: the member is ours.
                _ = orders.changed() => {}
            }
        }
    }

    /// Waits at most this long; true if the tier closes.
    async fn closing_within(&mut self, wait: Duration) -> bool {
        timeout(wait, until_closing(&mut self.closing)).await.is_ok()
    }

    async fn settle_in_span(&mut self) -> Result<Option<Position>, Error> {
        let span = spans::settle(self.member().name());
        let settled = self.settle().instrument(span.clone()).await;
        if let Ok(Some(position)) = &settled {
            span.record("lsn", position.lsn.0);
        }
        settled
    }

    /// Asks the store where it is and makes it a place in the log to continue from. `None` if the
    /// tier closes meanwhile.
    async fn settle(&mut self) -> Result<Option<Position>, Error> {
        let member = Arc::clone(self.member());
        let position = member.store().position(&Context::within(CHECK_TIMEOUT)).await?;
        // A store that says where it is has come back; its breaker need not wait any longer.
        let breaker = member.store().breaker();
        if breaker.state() != BreakerState::Closed && !breaker.is_forced() {
            breaker.reset(Instant::now());
        }
        let start = self.log.checkpoint().position;
        let Some(position) = position else {
            member.set_cursor(Lsn::ZERO);
            member.set_durable(Lsn::ZERO);
            if start.lsn > Lsn::ZERO {
                return self.recover(start.lsn).await;
            }
            if let Some(snapshots) = &self.snapshots
                && snapshots.are_worth_it().await
            {
                return self.recover(start.lsn).await;
            }
            // Only a store in memory has so little room that it matters before it is filled.
            if member.is_volatile() && self.log.bounds().last > Lsn::ZERO {
                let expected = expected::of_log(&*self.log).await.map_err(not_the_stores_fault)?;
                member.store().expect(&Context::within(CHECK_TIMEOUT), &expected).await?;
            }
            return Ok(Some(start));
        };
        let identity = self.log.identity();
        if position.log.id == identity.id && position.log.epoch < identity.epoch {
            // Only a restore begins an epoch: what the store holds is from before it.
            tracing::warn!(member = %member.name(), at = %position.lsn, "from before the log was restored; loaded anew");
            member.set_cursor(Lsn::ZERO);
            member.set_durable(Lsn::ZERO);
            return self.recover(start.lsn).await;
        }
        if position.log != identity && !sabotage::on(Bug::IdentityNotCompared) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the store belongs to log {} (epoch {}), this tier's log is {} (epoch {}); \
                     give the member an empty place, or the tier the log that it belongs to",
                    position.log.id, position.log.epoch, identity.id, identity.epoch
                ),
            )
            .with_lsn(position.lsn));
        }
        let end = self.log.bounds().last;
        if position.lsn > end && sabotage::on(Bug::AheadOfLogAccepted) {
            member.set_cursor(position.lsn);
            return Ok(Some(position));
        }
        if position.lsn > end {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the store is at entry {}, the log ends at entry {end}: the log is older than the store",
                    position.lsn
                ),
            )
            .with_lsn(position.lsn));
        }
        if position.lsn < start.lsn {
            tracing::warn!(member = %member.name(), at = %position.lsn, log_starts_after = %start.lsn, "behind the log");
            if !sabotage::on(Bug::CursorKeptWhileLoading) {
                member.set_cursor(position.lsn);
                member.set_durable(member.durable().min(position.lsn));
            }
            return self.recover(start.lsn).await;
        }
        // What it says now is what counts, also if the rest of this fails.
        if !sabotage::on(Bug::PositionRemembered) {
            member.set_cursor(member.cursor().min(position.lsn));
        }
        let known = self.log.position_at(position.lsn).await.map_err(not_the_stores_fault)?;
        if known.hash != position.hash && !sabotage::on(Bug::HistoryNotCompared) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "entry {} in the store is another one than in the log: their histories parted",
                    position.lsn
                ),
            )
            .with_lsn(position.lsn));
        }
        if sabotage::on(Bug::PositionRemembered) && member.cursor() > position.lsn {
            return Ok(Some(self.log.position_at(member.cursor()).await?));
        }
        member.set_cursor(position.lsn);
        // A store that came back older holds nothing durable beyond what it says.
        member.set_durable(member.durable().min(position.lsn));
        Ok(Some(position))
    }

    /// Loads the store anew, although it may hold everything, because somebody wants that.
    async fn reload(&mut self) -> Ended {
        let Some(reload) = self.member().take_reload() else { return Ended::Resettle };
        let start = self.log.checkpoint().position.lsn;
        // The log keeps what the store is about to let go.
        self.member().set_durable(Lsn::ZERO);
        let loaded = self.bootstrap(start, reload.from).await;
        self.member().end_reload(reload, matches!(loaded, Ok(Some(_))));
        match loaded {
            Ok(_) => Ended::Resettle,
            Err(error) => Ended::Failed(error),
        }
    }

    /// Loads the store from the newest good snapshot that the log continues, or else from a member that is at this
    /// entry or beyond. `None` if the tier closes meanwhile, or an operator takes the member out of service.
    async fn recover(&mut self, at_least: Lsn) -> Result<Option<Position>, Error> {
        let Some(snapshots) = self.snapshots.clone() else { return self.bootstrap(at_least, None).await };
        let (member, mut closing) = (Arc::clone(self.member()), self.closing.clone());
        member.set_state(MemberState::Bootstrapping);
        let loaded = tokio::select! {
            biased;
            () = member.until_ordered_out() => return Ok(None),
            loaded = snapshots.load_into(&member, &*self.log, at_least) => loaded?,
            () = until_closing(&mut closing) => return Ok(None),
        };
        let Some(loaded) = loaded else { return self.bootstrap(at_least, None).await };
        self.loaded_at(loaded);
        Ok(Some(loaded))
    }

    /// Loads the store from a member that is at this entry or beyond, or from this one. `None` if the tier closes
    /// meanwhile, or an operator takes the member out of service.
    async fn bootstrap(&mut self, at_least: Lsn, from: Option<usize>) -> Result<Option<Position>, Error> {
        self.member().set_state(MemberState::Bootstrapping);
        let (member, mut closing) = (Arc::clone(self.member()), self.closing.clone());
        let load = bootstrap::load(&self.members, self.index, &*self.log, at_least, from);
        let loaded = tokio::select! {
            biased;
            () = member.until_ordered_out() => return Ok(None),
            loaded = load => loaded?,
            () = until_closing(&mut closing) => return Ok(None),
        };
        self.loaded_at(loaded);
        Ok(Some(loaded))
    }

    fn loaded_at(&mut self, position: Position) {
        self.progress = true;
        self.member().set_cursor(position.lsn);
        if !self.member().is_volatile() {
            self.member().set_durable(position.lsn);
        }
    }

    /// Why following ends now, if it does.
    fn stop(&self) -> Option<Ended> {
        if self.is_closing() {
            Some(Ended::Closing)
        } else if self.member().is_ordered_out() {
            Some(Ended::Resettle)
        } else if self.member().wants_reload() {
            Some(Ended::Reload)
        } else {
            None
        }
    }

    /// Applies entries after `position` until something ends it.
    async fn follow(&mut self, position: Position) -> Ended {
        let mut runs = Runs::new(self.member(), position, WRITE_TIMEOUT);
        let ended = self.feed(position, &mut runs).await;
        // What is given up could take effect after a newer write; a store that hangs is not waited for.
        let _ = timeout(LET_END, runs.end_all()).await;
        ended
    }

    /// Gives the store the runs after `position`.
    async fn feed(&mut self, mut position: Position, runs: &mut Runs) -> Ended {
        let member = Arc::clone(self.member());
        let mut end = self.log.watch_end();
        let mut orders = member.watch_orders();
        let mut flushed_at = Instant::now();
        // The entries that come next, as they are read. None are read again while what came is too little to begin
        // beside a run.
        let mut reading: Option<BoxFuture<'static, Result<Run, Error>>> = None;
        let mut too_little = false;
        let mut mark = Mark::at(*end.borrow_and_update());
        member.set_state(if position.lsn >= *end.borrow_and_update() {
            MemberState::Live
        } else {
            MemberState::CatchingUp
        });
        loop {
            let stop = self.stop();
            let flush_due = flushed_at.elapsed() >= self.pace.flush_interval;
            if runs.is_empty() {
                if let Some(ended) = stop {
                    return ended;
                }
                too_little = false;
                runs.continue_from(position);
            }
            let log_end = *end.borrow_and_update();
            if runs.is_empty() && position.lsn >= log_end {
                member.set_state(MemberState::Live);
                if let Some(ended) = self.idle(position, &mut end, &mut orders, &mut flushed_at).await {
                    return ended;
                }
                continue;
            }
            if runs.is_empty() && flush_due {
                if let Err(error) = self.flush(position).await {
                    return Ended::Failed(error);
                }
                flushed_at = Instant::now();
            }
            let goes_on = runs.is_empty() || stop.is_none() && !flush_due && !too_little && runs.have_room();
            if goes_on && reading.is_none() && runs.end().lsn < log_end {
                reading = Some(Box::pin(runs::read(Arc::clone(&self.log), runs.end(), runs.most_bytes())));
            } else if !goes_on {
                reading = None;
            }
            tokio::select! {
                biased;
                Some(answered) = runs.next(), if !runs.is_empty() => {
                    if let Some(ended) = self.take(&mut position, &mut mark, answered).await {
                        return ended;
                    }
                    too_little = false;
                }
                Some(read) = OptionFuture::from(reading.as_mut()) => {
                    reading = None;
                    match read {
                        Ok(run) if runs.are_worth(&run) => {
                            if sabotage::on(Bug::CursorBeforeApply) {
                                member.set_cursor(run.end().lsn);
                            }
                            runs.begin(run);
                        }
                        // Read again when nothing is under way.
                        _ if !runs.is_empty() => too_little = true,
                        // Alone, any run is worth it.
                        Ok(_) => {}
                        // The log was cut past this member while it was behind: it is loaded anew.
                        Err(error) if error.kind() == ErrorKind::LogGap => return Ended::Resettle,
                        // Nothing beyond the damage is applied.
                        Err(error) => return Ended::Failed(not_the_stores_fault(error)),
                    }
                }
                changed = end.changed(), if goes_on && reading.is_none() => {
                    if changed.is_err() {
                        return Ended::Closing;
                    }
                }
            }
        }
    }

    /// Waits, with nothing to apply, until something happens, and looks after the store meanwhile.
    async fn idle(
        &mut self,
        position: Position,
        end: &mut watch::Receiver<Lsn>,
        orders: &mut watch::Receiver<u64>,
        flushed_at: &mut Instant,
    ) -> Option<Ended> {
        let member = Arc::clone(self.member());
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            () = until_closing(&mut closing) => Some(Ended::Closing),
            changed = end.changed() => changed.is_err().then_some(Ended::Closing),
            _ = orders.changed() => None,
            () = member.suspected() => self.look_after(position).await,
            () = sleep(self.pace.check_interval.min(self.pace.flush_interval)) => {
                if let Some(ended) = self.look_after(position).await {
                    return Some(ended);
                }
                *flushed_at = Instant::now();
                self.flush(position).await.err().map(Ended::Failed)
            }
        }
    }

    /// Takes what the store answered to a run.
    async fn take(&mut self, position: &mut Position, mark: &mut Mark, answered: Answered) -> Option<Ended> {
        let Answered { run, reached } = answered;
        let member = Arc::clone(self.member());
        match reached {
            Ok(reached) if reached.lsn > position.lsn => {
                *position = reached;
                self.progress = true;
                member.set_cursor(position.lsn);
                // Only what came lately is missing. Writers that wait for the member from now on keep to its pace;
                // without that, one slower than they are would never be live again.
                if mark.pass(&run, position.lsn, self.log.bounds().last) {
                    member.set_state(MemberState::Live);
                }
                None
            }
            Ok(reached) => Some(Ended::Failed(Error::new(
                ErrorKind::Internal,
                format!(
                    "the store answered position {} to a run that ends at {}",
                    reached.lsn,
                    run.end().lsn
                ),
            ))),
            // The store is not where we thought; it says where it is.
            Err(error) if error.kind() == ErrorKind::LogGap => {
                Some(self.after_gap(*position, &run, error).await)
            }
            Err(_) if sabotage::on(Bug::EntrySkippedOnRetry) => {
                *position = run.end();
                member.set_cursor(position.lsn);
                None
            }
            Err(error) => Some(Ended::Failed(error)),
        }
    }

    /// A gap is settled again if the store has moved; a store that stands where we thought and
    /// refuses the run all the same is broken, unless the next entry is one that it cannot replay.
    async fn after_gap(&self, thought: Position, run: &Run, error: Error) -> Ended {
        let said = match self.member().store().position(&Context::within(CHECK_TIMEOUT)).await {
            Ok(said) => said,
            Err(error) => return Ended::Failed(error),
        };
        self.has_moved(said);
        let next = said.map_or(Lsn(1), |position| position.lsn.next());
        match run.entries().iter().find(|entry| entry.lsn == next).map(|entry| &entry.op) {
            Some(Op::AdoptCollection { .. }) => Ended::Load(next),
            // It holds nothing and takes nothing: a load of it was cut short.
            _ if said.is_none() && thought.lsn == Lsn::ZERO => Ended::Load(Lsn::ZERO),
            _ if said == Some(thought) => Ended::Failed(error),
            _ => Ended::Resettle,
        }
    }

    async fn look_after(&self, position: Position) -> Option<Ended> {
        self.check(position).instrument(spans::check(self.member().name())).await
    }

    /// The store is elsewhere than it was; until that is settled it holds no more than it says.
    fn has_moved(&self, said: Option<Position>) {
        let said = said.map_or(Lsn::ZERO, |position| position.lsn);
        if !sabotage::on(Bug::PositionRemembered) {
            self.member().set_cursor(self.member().cursor().min(said));
        }
    }

    /// Looks after an idle store: it answers, and it still is where it was.
    async fn check(&self, position: Position) -> Option<Ended> {
        let cx = Context::within(CHECK_TIMEOUT);
        let store = self.member().store();
        if let Err(error) = store.ping(&cx).await {
            return Some(Ended::Failed(error));
        }
        match store.position(&cx).await {
            Ok(Some(said)) if said == position => None,
            Ok(None) if position.lsn == Lsn::ZERO => None,
            Ok(said) => {
                self.has_moved(said);
                Some(Ended::Resettle)
            }
            Err(error) => Some(Ended::Failed(error)),
        }
    }

    /// Makes the log durable before a store: else a store could hold after a power loss what the log lost. A log that
    /// cannot is left alone, and so is the store, which serves on.
    async fn log_is_durable(&self) -> bool {
        if sabotage::on(Bug::StoreFlushedBeforeLog) {
            return true;
        }
        let synced = self.log.sync().await;
        synced
            .inspect_err(|error| tracing::warn!(%error, "not flushed, because the log cannot be synced"))
            .is_ok()
    }

    async fn flush(&self, position: Position) -> Result<(), Error> {
        let member = self.member();
        if member.is_volatile() || member.durable() >= position.lsn || !self.log_is_durable().await {
            return Ok(());
        }
        let span = spans::flush(member.name());
        let flushed = member.store().flush(&Context::within(WRITE_TIMEOUT)).instrument(span.clone()).await;
        let durable = match flushed {
            Err(_) if sabotage::on(Bug::FlushFailureIgnored) => Some(position),
            flushed => flushed?,
        };
        let durable = durable.map_or(Lsn::ZERO, |position| position.lsn);
        span.record("lsn", durable.0);
        member.set_durable(durable);
        Ok(())
    }
}

/// A log that is damaged, or was cut meanwhile, says nothing about the store: it is asked again later.
pub fn not_the_stores_fault(error: Error) -> Error {
    if sabotage::on(Bug::LogBlamedOnStore) {
        return error;
    }
    Error::new(ErrorKind::Unavailable, "the log cannot be read").with_source(error)
}
