//! What the calls of a store and its maintenance share: the open session and who writes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_core::store::closed;
use mainstay_core::{
    CollectionRef, CollectionSpec, Effect, Error, ErrorKind, Lsn, Position, Record, Result, Run,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::LanceOptions;
use crate::effects::{apply_entries, check_spec};
use crate::place::Location;
use crate::session::{Progress, Session};

/// What the calls and the maintenance task share.
pub(crate) struct Inner {
    pub options: LanceOptions,
    location: Location,
    state: Mutex<State>,
    /// Whether the place was opened once; from then on it is not taken from anybody else.
    opened: AtomicBool,
    /// Held by whoever writes.
    pub writer: Arc<tokio::sync::Mutex<()>>,
    /// Held while an index is built, which writers need not wait for. Taken after `writer`.
    pub indexing: tokio::sync::Mutex<()>,
    /// Wakes maintenance.
    pub wake: Arc<Notify>,
}

enum State {
    Open(Arc<Session>),
    /// The place changed or a write failed; the next `position` opens it again.
    Lost(String),
    Closed,
}

/// A restore step that owns what it writes.
pub(crate) enum OwnedStep {
    Begin,
    Collection(CollectionSpec, Lsn),
    Points(CollectionRef, Vec<Record>),
    Save,
    Resume,
    Finish(Position),
}

impl Inner {
    /// Opens the place. An object store that cannot be reached is opened when somebody asks for the position.
    pub(crate) async fn open(options: LanceOptions, location: Location) -> Result<Self> {
        let inner = Self {
            options,
            location,
            state: Mutex::new(State::Lost("it is not open yet".to_owned())),
            opened: AtomicBool::new(false),
            writer: Arc::default(),
            indexing: tokio::sync::Mutex::default(),
            wake: Arc::default(),
        };
        match Box::pin(inner.reopen()).await {
            Ok(_) => {}
            Err(e)
                if matches!(inner.location, Location::Objects(_))
                    && matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) =>
            {
                tracing::warn!(error = %e, "the object store of LanceDB cannot be reached; it is tried again later");
                *inner.state.lock() = State::Lost(e.to_string());
            }
            Err(e) => return Err(e),
        }
        Ok(inner)
    }

    /// Ends the session for good and answers it, so that its place can be given back.
    pub(crate) fn close(&self) -> Option<Arc<Session>> {
        match std::mem::replace(&mut *self.state.lock(), State::Closed) {
            State::Open(session) => Some(session),
            State::Lost(_) | State::Closed => None,
        }
    }

    /// What is open, if the place is still the one that was opened as far as is known without asking.
    pub(crate) fn session(&self) -> Result<Arc<Session>> {
        let session = match &*self.state.lock() {
            State::Open(session) => session.clone(),
            State::Lost(why) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the store must be opened again by reading its position: {why}"),
                ));
            }
            State::Closed => return Err(closed()),
        };
        session.verify().inspect_err(|e| self.lose(&session, e))?;
        Ok(session)
    }

    /// Ends a session: what it believes can no longer be relied on.
    pub(crate) fn lose(&self, session: &Arc<Session>, why: &Error) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, session)) {
            tracing::warn!(error = %why, "the LanceDB store is opened again before it is believed");
            *state = State::Lost(why.to_string());
            session.release();
        }
    }

    /// Ends whatever session is open.
    pub(crate) fn lose_current(&self, why: &Error) {
        let session = match &*self.state.lock() {
            State::Open(session) => session.clone(),
            State::Lost(_) | State::Closed => return,
        };
        self.lose(&session, why);
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(&*self.state.lock(), State::Closed)
    }

    /// What is open, after an object store was asked whether it still is.
    pub(crate) async fn confirm(&self) -> Result<()> {
        let session = self.session()?;
        session.confirm().await.inspect_err(|e| self.lose_if_ended(&session, e))
    }

    /// Ends a session whose place says that it is over; one that only gave no answer goes on.
    pub(crate) fn lose_if_ended(&self, session: &Arc<Session>, why: &Error) {
        if session.verify().is_err() {
            self.lose(session, why);
        }
    }

    /// Opens the place if it is not open.
    pub(crate) async fn reopen(&self) -> Result<Arc<Session>> {
        let _indexing = self.indexing.lock().await;
        match self.session() {
            Ok(session) => return Ok(session),
            Err(e) if self.is_closed() => return Err(e),
            Err(_) => {}
        }
        let first = !self.opened.load(Ordering::Acquire);
        if let Location::Objects(bucket) = &self.location
            && first
        {
            bucket.probe().await?;
        }
        let session = Arc::new(Box::pin(Session::open(&self.location, first)).await?);
        self.opened.store(true, Ordering::Release);
        let mut state = self.state.lock();
        if matches!(&*state, State::Closed) {
            return Err(closed());
        }
        *state = State::Open(session.clone());
        Ok(session)
    }

    /// Ends the session if a write failed: how much of it landed is unknown.
    fn after_write<T>(&self, session: &Arc<Session>, result: Result<T>) -> Result<T> {
        result.and_then(|value| session.verify().map(|()| value)).map_err(|e| {
            self.lose(session, &e);
            e.with_effect(Effect::Unknown)
        })
    }

    pub(crate) async fn apply(&self, run: &Run) -> Result<Position> {
        let session = self.session()?;
        let progress = session.progress();
        let entries = run.remaining(progress.position.as_ref())?;
        if entries.is_empty() {
            return Ok(progress.position.unwrap_or_else(|| run.end()));
        }
        // From the first entry on: what a restore that was given up left behind is not part of it.
        if progress.restoring {
            let cleared = session.clear(false).await;
            self.after_write(&session, cleared)?;
        }
        session.touch();
        let (reached, refused) = self.after_write(&session, apply_entries(&session, entries).await)?;
        let position = match reached {
            Some(last) => Position { log: run.after().log, lsn: last.lsn, hash: last.hash },
            None => progress.position.unwrap_or_else(|| Position::start(run.after().log)),
        };
        if reached.is_some() {
            session.set_progress(Progress { position: Some(position), restoring: false });
        }
        self.wake.notify_one();
        refused.map_or(Ok(position), Err)
    }

    pub(crate) async fn flush(&self) -> Result<Option<Position>> {
        let session = self.session()?;
        session.flush().await.inspect_err(|e| self.lose(&session, e))
    }

    /// Takes a step that was checked to come in order.
    pub(crate) async fn restore(&self, step: OwnedStep) -> Result<()> {
        let session = self.session()?;
        let written = match step {
            OwnedStep::Begin => {
                let _indexing = self.indexing.lock().await;
                session.clear(true).await
            }
            OwnedStep::Collection(spec, incarnation) => {
                check_spec(&spec)?;
                session.create(&spec, incarnation).await
            }
            OwnedStep::Points(collection, records) => {
                if session.table_of(&collection).is_none() {
                    return Err(Error::invalid(format!(
                        "the restore did not create collection {} of entry {} before its points",
                        collection.name, collection.incarnation
                    )));
                }
                session.load(&collection, &records).await
            }
            OwnedStep::Save => session.flush_at(None).await,
            OwnedStep::Resume => {
                session.set_progress(Progress { position: None, restoring: true });
                Ok(())
            }
            OwnedStep::Finish(position) => session.flush_at(Some(position)).await,
        };
        self.wake.notify_one();
        self.after_write(&session, written)
    }
}
