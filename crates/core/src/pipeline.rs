//! Runs that a store has under way side by side, and the order in which they are answered.
//!
//! A store that waits for a server most of the time may take the next run while it does. It writes what the two bring in
//! any order, and still answers in that of the log, because a position speaks of everything before it. A [`Pipeline`]
//! keeps that order: every run [enters](Pipeline::enter) it as it comes, writes, waits for its [turn](Place::turn), and
//! [leaves](Place::leave). A run that fails, or is given up, breaks the pipeline: what was under way fails with it, its
//! outcome unknown, and the store reads its position anew.

use std::sync::Arc;

use tokio::sync::watch;

use crate::entry::Position;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::Lsn;

/// How many runs a store takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pipelining {
    /// Runs under way, at least 1.
    pub runs: usize,
    /// Bytes of the log that a run beside another one must bring: less than that is better added to the next run.
    pub least_bytes: usize,
}

impl Pipelining {
    /// One run after the other.
    pub const NONE: Self = Self { runs: 1, least_bytes: 0 };
}

/// The runs that a store has under way, in the order of the log.
#[derive(Debug)]
pub struct Pipeline {
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    /// Runs that have not left.
    under_way: usize,
    /// Where the last run that entered ends, while some are under way.
    end: Option<Position>,
    /// The runs up to here have left.
    reached: Lsn,
    /// Why no run goes on.
    broken: Option<Error>,
}

impl Default for Pipeline {
    fn default() -> Self {
        let state = State { under_way: 0, end: None, reached: Lsn::ZERO, broken: None };
        Self { state: watch::Sender::new(state) }
    }
}

impl Pipeline {
    /// Where the last run that is under way ends; `None` without one.
    pub fn end(&self) -> Option<Position> {
        self.state.borrow().end
    }

    /// Whether no run is under way.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().under_way == 0
    }

    /// Whether a run failed. A broken pipeline stays so: once it is empty, another one takes its place.
    pub fn is_broken(&self) -> bool {
        self.state.borrow().broken.is_some()
    }

    /// Ends every run under way with this error.
    pub fn break_off(&self, error: &Error) {
        self.state.send_modify(|state| {
            state.broken.get_or_insert_with(|| error.duplicate());
        });
    }

    /// Waits until no run is under way.
    pub async fn emptied(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.state.subscribe().wait_for(|state| state.under_way == 0).await;
    }

    /// A place behind the runs under way, for one from `after` to `end`. It has to continue them.
    pub fn enter(self: &Arc<Self>, after: Lsn, end: Position) -> Place {
        self.state.send_modify(|state| {
            if state.under_way == 0 {
                state.reached = after;
            }
            state.under_way += 1;
            state.end = Some(end);
        });
        Place { pipeline: Arc::clone(self), after, end, left: false }
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All runs before this one have left.
    Own,
    /// A run before it took it along.
    Taken,
}

/// The place of one run. Dropping it before it left breaks the pipeline.
#[derive(Debug)]
pub struct Place {
    pipeline: Arc<Pipeline>,
    after: Lsn,
    end: Position,
    left: bool,
}

impl Place {
    /// The position that the run reaches.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Breaks the pipeline because the run failed.
    pub fn fail(&self, error: &Error) {
        self.pipeline.break_off(error);
    }

    /// Does a part of the run that is given up when the pipeline breaks meanwhile. An error breaks it.
    ///
    /// # Errors
    /// That of the work, or of the run that broke the pipeline.
    pub async fn work<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut state = self.pipeline.state.subscribe();
        tokio::select! {
            biased;
            broken = async { state.wait_for(|state| state.broken.is_some()).await.ok().and_then(|s| fate(&s)) } => {
                Err(broken.unwrap_or_else(given_up))
            }
            done = work => done.inspect_err(|error| self.pipeline.break_off(error)),
        }
    }

    /// Waits until the runs before this one have left.
    ///
    /// # Errors
    /// That of the run that broke the pipeline.
    pub async fn turn(&self) -> Result<Turn> {
        let mut state = self.pipeline.state.subscribe();
        let state = state
            .wait_for(|state| state.broken.is_some() || state.reached >= self.after)
            .await
            .map_err(|_| given_up())?;
        match fate(&state) {
            _ if state.reached >= self.end.lsn => Ok(Turn::Taken),
            Some(error) => Err(error),
            None => Ok(Turn::Own),
        }
    }

    /// Ends the run, and with it those behind it up to `through`, which are written, too.
    pub fn leave(mut self, through: Lsn) {
        self.left = true;
        self.pipeline.state.send_modify(|state| state.reached = state.reached.max(through));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pipeline.state.send_modify(|state| {
            if !self.left && state.reached < self.end.lsn {
                state.broken.get_or_insert_with(given_up);
            }
            state.under_way -= 1;
            if state.under_way == 0 {
                state.end = None;
            }
        });
    }
}

/// The error of a run that was under way when the pipeline broke.
fn fate(state: &State) -> Option<Error> {
    state.broken.as_ref().map(|error| error.duplicate().with_effect(Effect::Unknown))
}

fn given_up() -> Error {
    let text = "another run that was under way was given up";
    Error::new(ErrorKind::Unavailable, text).with_effect(Effect::Unknown)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::entry::{EntryHash, LogId, LogIdentity};

    fn at(lsn: u64) -> Position {
        let log = LogIdentity { id: LogId(uuid::Uuid::from_u128(1)), epoch: 1 };
        Position { log, lsn: Lsn(lsn), hash: EntryHash::ZERO }
    }

    fn places(pipeline: &Arc<Pipeline>) -> [Place; 3] {
        [(4, 5), (5, 9), (9, 10)].map(|(after, end)| pipeline.enter(Lsn(after), at(end)))
    }

    #[test]
    fn turns_come_in_order_whoever_is_written_first() {
        let pipeline = Arc::new(Pipeline::default());
        assert_eq!(pipeline.end(), None);
        let [first, second, third] = places(&pipeline);
        assert_eq!(pipeline.end(), Some(at(10)));
        assert!(third.turn().now_or_never().is_none() && second.turn().now_or_never().is_none());
        assert_eq!(first.turn().now_or_never().unwrap().unwrap(), Turn::Own);
        first.leave(Lsn(5));
        assert!(third.turn().now_or_never().is_none());
        assert_eq!(second.turn().now_or_never().unwrap().unwrap(), Turn::Own);
        second.leave(Lsn(10));
        assert_eq!(third.turn().now_or_never().unwrap().unwrap(), Turn::Taken);
        assert!(pipeline.emptied().now_or_never().is_none());
        drop(third);
        assert!(pipeline.is_empty() && !pipeline.is_broken());
        assert_eq!((pipeline.emptied().now_or_never(), pipeline.end()), (Some(()), None));
        let again = pipeline.enter(Lsn(10), at(11));
        assert_eq!(again.turn().now_or_never().unwrap().unwrap(), Turn::Own);
    }

    #[test]
    fn a_run_that_fails_or_is_given_up_ends_the_others_and_nothing_more_begins() {
        let failed = || Error::new(ErrorKind::Timeout, "too late");
        for dropped in [false, true] {
            let pipeline = Arc::new(Pipeline::default());
            let [first, second, third] = places(&pipeline);
            let kind = if dropped { ErrorKind::Unavailable } else { ErrorKind::Timeout };
            if dropped {
                drop(second);
            } else {
                let work = second.work(async { Err::<(), _>(failed()) }).now_or_never();
                assert_eq!(work.unwrap().unwrap_err().kind(), kind);
                drop(second);
            }
            assert!(pipeline.is_broken() && !pipeline.is_empty());
            let work = first.work(std::future::ready(Ok(()))).now_or_never().unwrap().unwrap_err();
            assert_eq!((work.kind(), work.effect()), (kind, Effect::Unknown));
            assert_eq!(third.turn().now_or_never().unwrap().unwrap_err().kind(), kind);
            assert!(pipeline.emptied().now_or_never().is_none(), "they have not heard of it yet");
            drop((first, third));
            assert!(pipeline.is_empty() && pipeline.is_broken());
        }
    }

    #[tokio::test]
    async fn whoever_waits_hears_that_the_pipeline_broke() {
        let pipeline = Arc::new(Pipeline::default());
        let [first, second, third] = places(&pipeline);
        let waits = tokio::spawn(async move { second.turn().await.map_err(|error| error.kind()) });
        let works = tokio::spawn(async move { third.work(std::future::pending::<Result<()>>()).await });
        tokio::task::yield_now().await;
        pipeline.break_off(&Error::new(ErrorKind::Overloaded, "look again"));
        assert_eq!(waits.await.unwrap(), Err(ErrorKind::Overloaded));
        assert_eq!(works.await.unwrap().unwrap_err().kind(), ErrorKind::Overloaded);
        drop(first);
        pipeline.emptied().await;
    }
}
