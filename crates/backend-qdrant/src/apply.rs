//! Applying runs: alone, or beside each other if nothing in one depends on another.

use std::sync::Arc;

use mainstay_core::pipeline::Turn;
use mainstay_core::store::{closed, with_deadline};
use mainstay_core::{Context, Entry, Error, ErrorKind, Position, Result, Run};

use crate::session::{Part, Session};
use crate::store::QdrantStore;

/// How a run began.
enum Begun {
    /// It was written alone, and this is the position reached.
    Alone(Position),
    /// It is to be written beside others.
    Beside(Part),
}

impl QdrantStore {
    pub(crate) async fn apply_run(&self, cx: &Context, run: &Run) -> Result<Position> {
        match self.begin(cx, run).await? {
            Begun::Alone(position) => Ok(position),
            Begun::Beside(part) => with_deadline(cx, self.write_beside(cx, part)).await,
        }
    }

    /// Begins a run once those before it have begun; one that cannot be written beside them, once they have ended.
    async fn begin(&self, cx: &Context, run: &Run) -> Result<Begun> {
        let engine = &*self.engine;
        let _next = with_deadline(cx, async { Ok(self.next_run.lock().await) }).await?;
        loop {
            let mut guard = self.session(cx).await?;
            let Some(session) = guard.as_mut() else { return Err(closed()) };
            if session.restoring {
                return Err(Error::new(ErrorKind::LogGap, "the store is being loaded"));
            }
            let alone = session.pipeline().is_empty();
            if alone {
                session.recheck(cx, engine).await?;
            }
            let end = session.end();
            let entries = run.remaining(end.as_ref())?;
            let after = end.unwrap_or(Position::start(run.after().log));
            if engine.is_durable()
                && let Some(part) = session.begin_beside(cx, engine, after, entries).await?
            {
                return Ok(Begun::Beside(part));
            }
            if alone {
                return self.write_alone(cx, session, after, entries).await.map(Begun::Alone);
            }
            let pipeline = Arc::clone(session.pipeline());
            drop(guard);
            let emptied = async {
                pipeline.emptied().await;
                Ok(())
            };
            with_deadline(cx, emptied).await?;
        }
    }

    async fn write_alone(
        &self,
        cx: &Context,
        session: &mut Session,
        before: Position,
        entries: &[Arc<Entry>],
    ) -> Result<Position> {
        let engine = &*self.engine;
        if entries.is_empty() {
            return Ok(before);
        }
        let may_lag = session.may_lag(entries);
        if !may_lag && session.lags() {
            session.prove(cx, engine).await?;
            session.save(cx, engine).await?;
        }
        let refused = session.apply(cx, engine, before, entries).await?;
        if engine.is_durable() {
            // The data is there; but is it the store that we think it is?
            session.prove(cx, engine).await?;
            if may_lag && refused.is_none() && !session.is_due() {
                session.vouch(entries);
            } else if session.position.is_some() {
                session.save(cx, engine).await?;
            }
        }
        session.settle();
        self.show(session);
        match refused {
            Some(error) => Err(error),
            None => Ok(session.position.unwrap_or(before)),
        }
    }

    async fn write_beside(&self, cx: &Context, mut part: Part) -> Result<Position> {
        let engine = &*self.engine;
        for changes in std::mem::take(&mut part.changes) {
            // Not given up because another run failed: it could take effect after a newer write.
            changes.write(cx, engine).await.inspect_err(|error| part.place.fail(error))?;
        }
        part.written();
        let end = part.place.end();
        if part.place.turn().await? == Turn::Taken {
            return Ok(end);
        }
        let pass = async {
            let mut guard = self.known_session(cx).await?;
            let Some(session) = guard.as_mut() else { return Err(closed()) };
            session.pass_written(cx, engine).await
        };
        let reached = part.place.work(pass).await?;
        part.place.leave(reached.map_or(end.lsn, |position| position.lsn));
        Ok(end)
    }
}
