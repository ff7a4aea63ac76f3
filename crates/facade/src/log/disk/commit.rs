//! The commit thread: the one writer of the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use mainstay_core::{Effect, Entry, Error, Lsn, Op, Position, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Segments, Shared, SyncPolicy, io_error};
use crate::log::memory::{check_room, check_size, closed};
use crate::log::storage::{Barrier, Known, Mark, Storage};
use crate::log::{Appended, Checkpoint, codec};
use crate::sabotage::{self, Bug};

/// Most entries in one group commit.
const GROUP_ENTRIES: usize = 1_024;
/// A group is not made larger once it has this many bytes.
const GROUP_BYTES: usize = 8 << 20;

/// Makes the barrier of a storage.
pub type MakeBarrier = fn(&Segments) -> Barrier;

/// fdatasync on the file that was written to.
pub fn file_barrier(segments: &Segments) -> Barrier {
    segments.barrier()
}

type Answer<T> = oneshot::Sender<Result<T>>;

/// What the commit thread is asked for.
pub enum Request {
    /// Append entries.
    Append { ops: Vec<Op>, answer: Answer<Appended> },
    /// Make everything durable.
    Sync { answer: Answer<()> },
    /// Cut the log.
    Cut { to: Checkpoint, answer: Answer<Lsn> },
    /// Sync and end.
    Close { answer: Answer<()> },
}

/// The state of the commit thread.
pub struct Committer<S: Storage> {
    shared: Arc<Shared<S>>,
    barrier: Barrier,
    mark: Mark,
    known: Known,
    policy: SyncPolicy,
    /// The last entry written, which readers may not see yet.
    last: Position,
    /// Entries are written that no barrier covers.
    unsynced: bool,
    synced_at: Instant,
}

/// Appends of one group whose entries are numbered.
#[derive(Default)]
struct Group {
    encoded: Vec<(Lsn, Vec<u8>)>,
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    answers: Vec<(Answer<Appended>, Appended)>,
}

impl<S: Storage> Committer<S> {
    pub fn new(
        shared: Arc<Shared<S>>,
        barrier: Barrier,
        (mark, known): (Mark, Known),
        last: Position,
        policy: SyncPolicy,
    ) -> Self {
        Self { shared, barrier, mark, known, policy, last, unsynced: false, synced_at: Instant::now() }
    }

    /// Serves requests until the log is closed or dropped.
    pub fn run(mut self, requests: Receiver<Request>) {
        while let Some(request) = self.wait(&requests) {
            if self.serve(request, || requests.try_recv().ok()) {
                return;
            }
        }
        self.end();
    }

    /// The next request; syncs meanwhile if the policy is periodic. `None` when the log is dropped.
    fn wait(&mut self, requests: &Receiver<Request>) -> Option<Request> {
        loop {
            let Some(due) = self.sync_due() else { return requests.recv().ok() };
            match requests.recv_timeout(due) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                // A failure is latched, and the next append tells it.
                Err(RecvTimeoutError::Timeout) => drop(self.sync_now()),
            }
        }
    }

    /// How long until a periodic policy wants a sync.
    pub fn sync_due(&self) -> Option<Duration> {
        let SyncPolicy::Periodic(interval) = self.policy else { return None };
        let due = if self.unsynced { interval.saturating_sub(self.synced_at.elapsed()) } else { interval };
        Some(due.max(Duration::from_millis(1)))
    }

    /// Serves a request and those that it shares a commit with, which `more` answers. True if the log is closed now.
    pub fn serve(&mut self, request: Request, mut more: impl FnMut() -> Option<Request>) -> bool {
        let Some(store) = self.shared.store.read().clone() else { return true };
        let mut next = Some(request);
        while let Some(request) = next.take() {
            match request {
                Request::Append { ops, answer } => next = self.append(&store, ops, answer, &mut more),
                Request::Sync { answer } => drop(answer.send(self.sync_now())),
                Request::Cut { to, answer } => drop(answer.send(self.cut(&store, to))),
                Request::Close { answer } => {
                    let synced = self.sync_now();
                    drop(store);
                    // Nobody listens if the caller stopped waiting.
                    drop(answer.send(synced));
                    return true;
                }
            }
        }
        false
    }

    /// The log was dropped without a close; what was appended is kept all the same.
    pub fn end(&mut self) {
        if let Err(error) = self.sync_now() {
            tracing::warn!(%error, "last sync of the log failed");
        }
    }

    /// Appends this and every append that waits behind it as one group. Answers the request that ended
    /// the group, if one did.
    fn append(
        &mut self,
        store: &S,
        ops: Vec<Op>,
        answer: Answer<Appended>,
        more: &mut impl FnMut() -> Option<Request>,
    ) -> Option<Request> {
        if let Some(latch) = self.latched() {
            drop(answer.send(Err(latch)));
            return None;
        }
        let mut group = Group::default();
        let start = self.last;
        self.admit(&mut group, ops, answer);
        let mut next = None;
        while group.entries.len() < GROUP_ENTRIES && group.bytes < GROUP_BYTES {
            match more() {
                Some(Request::Append { ops, answer }) => self.admit(&mut group, ops, answer),
                other => {
                    next = other;
                    break;
                }
            }
        }
        if group.entries.is_empty() {
            return next;
        }
        match self.commit(store, &group) {
            Ok(()) => {
                self.show(&mut group);
                group.answers.into_iter().for_each(|(answer, appended)| drop(answer.send(Ok(appended))));
            }
            Err(error) => {
                self.last = start;
                if !sabotage::on(Bug::FailedSyncForgotten) {
                    self.latch(&error);
                }
                for (answer, appended) in group.answers {
                    let error = error.duplicate().with_effect(Effect::Unknown).with_lsn(appended.last);
                    drop(answer.send(Err(error)));
                }
            }
        }
        next
    }

    /// Numbers the entries of one append, or answers why it is refused.
    fn admit(&mut self, group: &mut Group, ops: Vec<Op>, answer: Answer<Appended>) {
        match self.number(group.bytes, ops) {
            Ok((encoded, entries)) => {
                let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
                let appended = Appended { first: first.lsn, last: last.lsn };
                self.last = Position { lsn: last.lsn, hash: last.hash, ..self.last };
                group.bytes += entries.iter().map(|entry| entry.size_bytes).sum::<usize>();
                group.encoded.extend(encoded);
                group.entries.extend(entries);
                group.answers.push((answer, appended));
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    #[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
    fn number(&self, waiting: usize, ops: Vec<Op>) -> Result<(Vec<(Lsn, Vec<u8>)>, Vec<Arc<Entry>>)> {
        let (mut encoded, mut entries) = (Vec::with_capacity(ops.len()), Vec::with_capacity(ops.len()));
        let (mut lsn, mut hash, mut added) = (self.last.lsn, self.last.hash, 0);
        for op in ops {
            lsn = lsn.next();
            let (bytes, own_hash) = codec::encode(lsn, hash, &op)?;
            check_size(bytes.len())?;
            hash = own_hash;
            added += bytes.len();
            entries.push(Arc::new(Entry { lsn, hash, op, size_bytes: bytes.len() }));
            encoded.push((lsn, bytes));
        }
        let held = self.shared.state.lock().bytes;
        check_room(held + (waiting + added) as u64, self.shared.max_bytes)?;
        Ok((encoded, entries))
    }

    fn commit(&mut self, store: &S, group: &Group) -> Result<()> {
        store.write(&group.encoded)?;
        self.unsynced = true;
        if self.policy == SyncPolicy::Immediate && !sabotage::on(Bug::AckBeforeSync) {
            self.barrier()?;
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<()> {
        let failed = |error| io_error("the log could not be synced", Path::new("fdatasync"), error);
        (self.barrier)().map_err(failed)?;
        self.mark(Known { synced: self.last.lsn, in_doubt: false }).map_err(failed)?;
        self.unsynced = false;
        self.synced_at = Instant::now();
        Ok(())
    }

    fn mark(&mut self, known: Known) -> std::io::Result<()> {
        (self.mark)(known)?;
        self.known = known;
        Ok(())
    }

    /// Shows the entries to readers.
    fn show(&mut self, group: &mut Group) {
        {
            let mut state = self.shared.state.lock();
            state.bytes += group.bytes as u64;
            state.last = self.last;
            group.entries.drain(..).for_each(|entry| state.tail.push(entry));
        }
        self.shared.end.send_replace(self.last.lsn);
    }

    pub fn sync_now(&mut self) -> Result<()> {
        if let Some(latch) = self.latched() {
            return Err(latch);
        }
        if !self.unsynced {
            return Ok(());
        }
        self.barrier().inspect_err(|error| self.latch(error))
    }

    /// The checkpoint is durable before the first entry goes, so that a crash in between leaves either
    /// the whole log or a log that starts at its checkpoint.
    fn cut(&mut self, store: &S, to: Checkpoint) -> Result<Lsn> {
        if let Some(latch) = self.latched() {
            return Err(latch);
        }
        let (lsn, start) = (to.position.lsn, self.shared.state.lock().checkpoint.position.lsn);
        if lsn <= start {
            return Ok(start);
        }
        let freed = store.size_of(start, lsn)?;
        if !self.shared.holds.begin_cut(lsn) {
            return Ok(start);
        }
        // Only entries tell by their numbers that they may not be durable; of the checkpoint this does.
        self.mark(Known { in_doubt: true, ..self.known })
            .map_err(|error| io_error("the log's watermark cannot be used", Path::new("watermark"), error))?;
        if sabotage::on(Bug::CutBeforeCheckpoint) {
            store.remove_up_to(lsn)?;
        }
        let done = store.write_checkpoint(&to).and_then(|()| self.barrier());
        done.inspect_err(|error| self.latch(error))?;
        {
            let mut state = self.shared.state.lock();
            state.checkpoint = to;
            state.tail.cut(lsn);
            state.bytes = state.bytes.saturating_sub(freed);
        }
        store.remove_up_to(lsn).inspect_err(|error| self.latch(error))?;
        Ok(lsn)
    }

    fn latched(&self) -> Option<Error> {
        self.shared.state.lock().latch.as_ref().map(Error::duplicate)
    }

    fn latch(&self, error: &Error) {
        tracing::error!(%error, "the log takes no more entries until it is opened again");
        let latch = Error::new(
            error.kind(),
            format!(
                "the log takes no more entries since it failed ({}); restart to recover",
                error.message()
            ),
        );
        self.shared.state.lock().latch.get_or_insert(latch);
    }
}

impl<S: Storage> Drop for Committer<S> {
    fn drop(&mut self) {
        // Whoever still waits is answered by the end of its channel; later appends find this.
        self.shared.state.lock().latch.get_or_insert_with(closed);
    }
}
