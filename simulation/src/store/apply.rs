//! Applying runs: one after the other, or side by side on a server, as a store may that keeps their order.

use std::sync::Arc;

use mainstay_core::pipeline::Place;
use mainstay_core::{Op, Operation, Pipeline, Pipelining, Position, Result, Run};
use rand::Rng;
use tokio::sync::MutexGuard;

use super::{Fault, Handle};
use crate::scenario::Kind;

/// Few and of any size, so that small runs meet.
const SIDE_BY_SIDE: Pipelining = Pipelining { runs: 3, least_bytes: 0 };

/// How a run began.
enum Begun<'a> {
    /// No other begins until it has ended.
    Alone(MutexGuard<'a, ()>),
    Beside(Place),
}

impl Handle {
    /// How many runs it takes at once.
    pub(super) fn pipelining(&self) -> Pipelining {
        match self.machine.kind {
            Kind::Server | Kind::DurableServer => SIDE_BY_SIDE,
            Kind::Volatile | Kind::Embedded => Pipelining::NONE,
        }
    }

    /// The order of the runs under way; a broken one is replaced once it is empty.
    fn pipeline(&self) -> Arc<Pipeline> {
        let mut pipeline = self.pipeline.lock();
        if pipeline.is_broken() && pipeline.is_empty() {
            *pipeline = Arc::default();
        }
        Arc::clone(&pipeline)
    }

    async fn begin(&self, run: &Run) -> Begun<'_> {
        let next = self.next_run.lock().await;
        let puts = run.entries().iter().all(|entry| matches!(entry.op, Op::Upsert { .. }));
        let may_be_beside = puts && self.pipelining() != Pipelining::NONE;
        loop {
            let pipeline = self.pipeline();
            // What does not continue is looked at alone, and refused before anything of it is written.
            let end = pipeline.end().or(self.machine.shown().position);
            let continues = end.is_some_and(|end| end == run.after());
            if may_be_beside && continues && !pipeline.is_broken() {
                return Begun::Beside(pipeline.enter(run.after().lsn, run.end()));
            }
            if pipeline.is_empty() {
                return Begun::Alone(next);
            }
            pipeline.emptied().await;
        }
    }

    pub(super) async fn apply_run(&self, run: &Run) -> Result<Position> {
        match self.begin(run).await {
            Begun::Alone(_next) => self.write(run, None).await,
            Begun::Beside(place) => {
                let applied = self.write(run, Some(&place)).await;
                match &applied {
                    Ok(_) => place.leave(run.end().lsn),
                    Err(error) => place.fail(error),
                }
                applied
            }
        }
    }

    async fn write(&self, run: &Run, place: Option<&Place>) -> Result<Position> {
        let fault = self.enter(Operation::Apply).await?;
        if let Some(place) = place
            && !matches!(fault, Some(Fault::Late(_)))
        {
            // Some of it is there before what comes before it.
            let most = self.world.draw(|rng| rng.random_range(0..8));
            self.machine.scatter(run, most);
            place.turn().await?;
            self.world.step().await;
        }
        let applied = match fault {
            Some(Fault::Late(after)) => {
                self.machine.take_late(run.entries(), after);
                Ok(run.after())
            }
            Some(Fault::Half(most)) => self.machine.apply(run, most),
            Some(Fault::Twice(after)) => {
                self.machine.take_late(run.entries(), after);
                self.machine.apply(run, usize::MAX)
            }
            _ => self.machine.apply(run, usize::MAX),
        };
        let (member, after, end) = (self.machine.member, run.after().lsn, run.end().lsn);
        let how = if place.is_some() { " beside others" } else { "" };
        self.world.note(|| match &applied {
            Ok(reached) => format!("store {member}: applies {after}..{end}{how}, is at {}", reached.lsn),
            Err(error) => format!("store {member}: fails to apply {after}..{end}{how}: {error}"),
        });
        self.leave(Operation::Apply, fault, applied).await
    }
}
