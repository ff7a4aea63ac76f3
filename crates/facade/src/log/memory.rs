//! A log in memory.

use std::sync::Arc;

use async_trait::async_trait;
use mainstay_core::{Entry, Error, ErrorKind, LogId, LogIdentity, Lsn, Op, Position, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::tail::Tail;
use super::{Appended, Bounds, Checkpoint, Hold, Holds, Log, MAX_ENTRY_BYTES, codec};
use crate::catalog::Collections;

/// A log that ends with its process, for tests and for tiers whose members do so too.
pub struct MemoryLog {
    identity: LogIdentity,
    max_bytes: u64,
    state: Mutex<State>,
    end: watch::Sender<Lsn>,
    holds: Arc<Holds>,
}

struct State {
    entries: Tail,
    bytes: u64,
    last: Position,
    checkpoint: Checkpoint,
    closed: bool,
}

impl MemoryLog {
    /// An empty log that holds at most this many bytes of entries.
    pub fn new(max_bytes: u64) -> Self {
        let identity = LogIdentity { id: LogId(Uuid::new_v4()), epoch: 1 };
        let start = Position::start(identity);
        let state = State {
            entries: Tail::new(usize::MAX),
            bytes: 0,
            last: start,
            checkpoint: Checkpoint { position: start, collections: Collections::new() },
            closed: false,
        };
        let end = watch::Sender::new(Lsn::ZERO);
        Self { identity, max_bytes, state: Mutex::new(state), end, holds: Arc::default() }
    }
}

impl Default for MemoryLog {
    /// At most 1 GiB.
    fn default() -> Self {
        Self::new(1 << 30)
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn identity(&self) -> LogIdentity {
        self.identity
    }

    fn bounds(&self) -> Bounds {
        let state = self.state.lock();
        Bounds { first: state.checkpoint.position.lsn.next(), last: state.last.lsn, bytes: state.bytes }
    }

    fn watch_end(&self) -> watch::Receiver<Lsn> {
        self.end.subscribe()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.state.lock().checkpoint.clone()
    }

    async fn append(&self, ops: Vec<Op>) -> Result<Appended> {
        if ops.is_empty() {
            return Err(Error::invalid("nothing to append"));
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let (first, mut last, mut entries) =
            (state.last.lsn.next(), state.last, Vec::with_capacity(ops.len()));
        for op in ops {
            let lsn = last.lsn.next();
            let (bytes, hash) = codec::encode(lsn, last.hash, &op)?;
            check_size(bytes.len())?;
            last = Position { lsn, hash, ..last };
            entries.push(Arc::new(Entry { lsn, hash, op, size_bytes: bytes.len() }));
        }
        let added: u64 = entries.iter().map(|entry| entry.size_bytes as u64).sum();
        check_room(state.bytes + added, self.max_bytes)?;
        entries.into_iter().for_each(|entry| state.entries.push(entry));
        state.bytes += added;
        state.last = last;
        drop(state);
        self.end.send_replace(last.lsn);
        Ok(Appended { first, last: last.lsn })
    }

    async fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Arc<Entry>>> {
        let state = self.state.lock();
        if after < state.checkpoint.position.lsn {
            return Err(cut(after.next()));
        }
        Ok(state.entries.read(after, state.last.lsn, max_bytes).unwrap_or_default())
    }

    async fn position_at(&self, lsn: Lsn) -> Result<Position> {
        let state = self.state.lock();
        if lsn == state.checkpoint.position.lsn {
            return Ok(state.checkpoint.position);
        }
        let entry = state.entries.get(lsn).ok_or_else(|| cut(lsn))?;
        Ok(Position { log: self.identity, lsn, hash: entry.hash })
    }

    async fn truncate_before(&self, lsn: Lsn, collections: Collections) -> Result<Lsn> {
        let mut state = self.state.lock();
        let to = Lsn(lsn.0.saturating_sub(1)).min(state.last.lsn);
        let from = state.checkpoint.position.lsn;
        if to <= from {
            return Ok(from);
        }
        let hash = state.entries.get(to).ok_or_else(|| cut(to))?.hash;
        if !self.holds.begin_cut(to) {
            return Ok(from);
        }
        let bytes: usize =
            (from.0 + 1..=to.0).filter_map(|n| state.entries.get(Lsn(n))).map(|entry| entry.size_bytes).sum();
        state.bytes -= bytes as u64;
        state.entries.cut(to);
        state.checkpoint =
            Checkpoint { position: Position { log: self.identity, lsn: to, hash }, collections };
        Ok(to)
    }

    fn hold(&self, lsn: Lsn) -> Hold {
        self.holds.hold(lsn)
    }

    async fn sync(&self) -> Result<()> {
        if self.state.lock().closed { Err(closed()) } else { Ok(()) }
    }

    async fn close(&self) -> Result<()> {
        self.state.lock().closed = true;
        Ok(())
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the log is closed")
}

pub(super) fn cut(lsn: Lsn) -> Error {
    Error::new(ErrorKind::LogGap, format!("the log does not hold entry {lsn}")).with_lsn(lsn)
}

pub(super) fn check_size(bytes: usize) -> Result<()> {
    if bytes <= MAX_ENTRY_BYTES {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "an entry of {bytes} bytes; one entry of the log holds at most {MAX_ENTRY_BYTES}"
    )))
}

pub(super) fn check_room(bytes: u64, max_bytes: u64) -> Result<()> {
    if bytes <= max_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::StorageFull,
        format!(
            "the log would hold {bytes} bytes, log.max_bytes allows {max_bytes}: \
             bring the members that hold it back up, or raise the limit"
        ),
    ))
}
