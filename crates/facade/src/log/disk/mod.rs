//! The log on disk.
//!
//! # Layout of the directory
//!
//! | file | what |
//! |---|---|
//! | `LOCK` | locked by the process that owns the log; says who it is |
//! | `checkpoint` | the log's identity, and the state before its first entry |
//! | `entries/N.log` | entries from `N` on, one after the other |
//! | `watermark` | the LSN up to which appends were synced, and whether something else may not be |
//!
//! # Commit protocol
//!
//! One thread owns all writes. It takes every append that waits (group commit), numbers and chains the
//! entries, writes them at the end of the last file, then calls fdatasync on it. Then it moves the watermark, shows the
//! entries to readers and answers. After any failed step the log takes no more entries: what a failed fsync left behind
//! cannot be known before a restart.
//!
//! # What a start checks
//!
//! Every entry's checksum, number and chain. What a crash cut short at the end is taken away, with everything that was written
//! together with it; the watermark knows what that can be, and a missing entry at or below it is an error, never a shorter
//! log. Entries beyond the watermark may be missing or there: nobody was told that they are durable.
//! Those that are there are written and synced once more before anybody sees them.

mod checkpoint;
pub(super) mod commit;
mod frame;
mod lock;
mod segment;
mod segments;
#[cfg(feature = "simulation")]
mod simulated;
mod watermark;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use mainstay_core::{Effect, Entry, Error, ErrorKind, LogIdentity, Lsn, Op, Position, Result};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use self::commit::{Committer, Request};
#[cfg(feature = "snapshots")]
pub(crate) use self::lock::DirectoryLock;
#[cfg(not(feature = "snapshots"))]
use self::lock::DirectoryLock;
pub use self::segments::Segments;
use super::memory::{closed, cut};
use super::storage::{Barrier, Known, Mark, Opened, Storage};
use super::tail::Tail;
use super::{Appended, Bounds, Checkpoint, Hold, Holds, Log};
use crate::catalog::Collections;
use crate::sabotage::{self, Bug};

/// Newest entries kept in memory.
const TAIL_BYTES: usize = if cfg!(feature = "simulation") { 2 << 10 } else { 16 << 20 };
/// Most appends that wait for the commit thread.
const MAX_WAITING: usize = 4_096;
/// A sync or a cut is waited for so long. A disk that hangs does it when it answers again.
const DISK_WAIT: Duration = Duration::from_secs(60);
/// A close waits so long for room among them.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// How often it looks whether there is some: about once a group commit.
const ROOM_LOOK: Duration = Duration::from_millis(5);

/// When an entry is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append answers: survives a power loss.
    #[default]
    Immediate,
    /// This often; an append answers when the operating system has the entry, which survives a
    /// crash of the process.
    Periodic(Duration),
    /// When [`Log::sync`] or [`Log::close`] is called.
    Manual,
}

/// Where a log is and how much it may hold.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Its directory; made if it is not there.
    pub path: PathBuf,
    /// When an entry is made durable.
    pub sync: SyncPolicy,
    /// Most bytes of entries; appends beyond it are refused.
    pub max_bytes: u64,
}

impl LogOptions {
    /// A log in this directory, synced before every answer, of at most 1 GiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), sync: SyncPolicy::Immediate, max_bytes: 1 << 30 }
    }
}

/// The log on disk; see the module's text for its files and its protocol.
pub type FileLog = DiskLog<Segments>;

/// A log over a storage, with group commit.
pub struct DiskLog<S: Storage> {
    shared: Arc<Shared<S>>,
    queue: Queue,
    writer: Mutex<Option<Writer>>,
}

/// How requests come to whoever writes.
enum Queue {
    Thread(SyncSender<Request>),
    #[cfg(feature = "simulation")]
    Task(tokio::sync::mpsc::Sender<Request>),
}

/// Whoever writes, to be waited for.
enum Writer {
    Thread(std::thread::JoinHandle<()>),
    #[cfg(feature = "simulation")]
    Task(tokio::task::JoinHandle<()>),
}

/// What the commit thread and readers share.
pub struct Shared<S> {
    identity: LogIdentity,
    max_bytes: u64,
    /// Gone once the log is closed, so that its files are free.
    store: RwLock<Option<Arc<S>>>,
    state: Mutex<State>,
    end: watch::Sender<Lsn>,
    holds: Arc<Holds>,
}

struct State {
    tail: Tail,
    /// The last entry that readers may see.
    last: Position,
    checkpoint: Checkpoint,
    bytes: u64,
    /// Why the log takes no more entries.
    latch: Option<Error>,
}

impl FileLog {
    /// Opens the log of a directory, or starts one in it, and checks every entry.
    ///
    /// # Errors
    /// `Unavailable` naming the holder if another process owns the directory, `Corrupt` with the LSN if an
    /// entry is damaged or missing, `StorageFull` or `Unavailable` if the directory cannot be used.
    pub async fn open(options: LogOptions) -> Result<Self> {
        Self::open_with(options, commit::file_barrier).await
    }

    /// Makes a log in an empty directory whose first entry follows this checkpoint.
    ///
    /// # Errors
    /// `AlreadyExists` if a log is there; otherwise as [`open`](Self::open).
    #[cfg(feature = "snapshots")]
    pub(crate) async fn begin(options: LogOptions, checkpoint: Checkpoint) -> Result<Self> {
        let path = options.path.clone();
        let begun = tokio::task::spawn_blocking(move || {
            let _lock = DirectoryLock::take(&path)?;
            segments::begin(&path, &checkpoint)
        });
        begun.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "making a log broke off").with_source(error))
        })?;
        Self::open(options).await
    }

    /// Opens a log whose directory the caller holds, and goes on holding.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "snapshots")]
    pub(crate) async fn open_held(options: LogOptions, lock: Arc<DirectoryLock>) -> Result<Self> {
        Self::open_by(move || Self::open_locked(&options, lock, commit::file_barrier)).await
    }

    async fn open_with(options: LogOptions, barrier: commit::MakeBarrier) -> Result<Self> {
        Self::open_by(move || {
            let lock = Arc::new(DirectoryLock::take(&options.path)?);
            Self::open_locked(&options, lock, barrier)
        })
        .await
    }

    async fn open_by(open: impl FnOnce() -> Result<Self> + Send + 'static) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(open).await;
        opened.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "opening the log broke off").with_source(error))
        })
    }

    fn open_locked(
        options: &LogOptions,
        lock: Arc<DirectoryLock>,
        barrier: commit::MakeBarrier,
    ) -> Result<Self> {
        let (opened, mut watermark) = segments::open(&options.path, lock)?;
        let barrier = barrier(&opened.store);
        let mark = Box::new(move |known| watermark.set(known));
        Self::start(opened, barrier, mark, options.max_bytes, options.sync)
    }
}

impl<S: Storage> DiskLog<S> {
    fn start(
        opened: Opened<S>,
        barrier: Barrier,
        mark: Mark,
        max_bytes: u64,
        policy: SyncPolicy,
    ) -> Result<Self> {
        let (shared, committer) = Self::parts(opened, barrier, mark, max_bytes, policy)?;
        let (queue, requests) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("mainstay-log".into());
        let thread = thread
            .spawn(move || committer.run(requests))
            .map_err(|error| Error::new(ErrorKind::Internal, "no thread for the log").with_source(error))?;
        Ok(Self { shared, queue: Queue::Thread(queue), writer: Mutex::new(Some(Writer::Thread(thread))) })
    }

    fn parts(
        opened: Opened<S>,
        mut barrier: Barrier,
        mut mark: Mark,
        max_bytes: u64,
        policy: SyncPolicy,
    ) -> Result<(Arc<Shared<S>>, Committer<S>)> {
        let (last, mut known) = (opened.last, opened.known);
        let tail = known.synced < last.lsn && !sabotage::on(Bug::TailNotSynced);
        if tail || (known.in_doubt && !sabotage::on(Bug::DoubtForgotten)) {
            // Readers are about to see what nobody knows to be durable, or entries are about to be written behind it.
            opened.store.rewrite(known.synced.max(opened.checkpoint.position.lsn))?;
            known = Known { synced: last.lsn.max(known.synced), in_doubt: false };
            let synced = barrier().and_then(|()| mark(known));
            synced.map_err(|error| {
                let text = "the end of the log could not be synced";
                Error::new(ErrorKind::Unavailable, text).with_source(error)
            })?;
        }
        let state = State {
            tail: Tail::new(TAIL_BYTES),
            last,
            checkpoint: opened.checkpoint,
            bytes: opened.bytes,
            latch: None,
        };
        let shared = Arc::new(Shared {
            identity: opened.identity,
            max_bytes,
            store: RwLock::new(Some(Arc::new(opened.store))),
            state: Mutex::new(state),
            end: watch::Sender::new(last.lsn),
            holds: Arc::default(),
        });
        let committer = Committer::new(Arc::clone(&shared), barrier, (mark, known), last, policy);
        Ok((shared, committer))
    }

    /// Hands a request to the commit thread and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (send, answer) = oneshot::channel();
        self.queue.try_send(request(send)).map_err(|refused| match refused {
            TrySendError::Full(_) => full(),
            TrySendError::Disconnected(_) => closed(),
        })?;
        // Whoever writes ended without an answer, perhaps after it wrote.
        answer.await.unwrap_or_else(|_| Err(closed().with_effect(Effect::Unknown)))
    }

    /// As [`ask`](Self::ask), with a deadline of its own because callers have none.
    async fn ask_in_time<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        timeout(DISK_WAIT, self.ask(request)).await.unwrap_or_else(|_| {
            let text = format!("the log's disk did not answer within {} s", DISK_WAIT.as_secs());
            Err(Error::new(ErrorKind::Timeout, text).with_effect(Effect::Unknown))
        })
    }

    /// Runs a read of the store off the async threads.
    async fn read_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.shared.store.read().clone().ok_or_else(closed)?;
        #[cfg(feature = "simulation")]
        if matches!(self.queue, Queue::Task(_)) {
            return read(&store);
        }
        tokio::task::spawn_blocking(move || read(&store)).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "reading the log broke off").with_source(error))
        })
    }
}

impl Queue {
    fn try_send(&self, request: Request) -> std::result::Result<(), TrySendError<Request>> {
        match self {
            Self::Thread(queue) => queue.try_send(request),
            #[cfg(feature = "simulation")]
            Self::Task(queue) => queue.try_send(request).map_err(|refused| {
                use tokio::sync::mpsc::error::TrySendError as Refused;
                match refused {
                    Refused::Full(request) => TrySendError::Full(request),
                    Refused::Closed(request) => TrySendError::Disconnected(request),
                }
            }),
        }
    }

    /// Sends a request once there is room. False if whoever writes has ended.
    async fn send(&self, mut request: Request) -> Result<bool> {
        let until = Instant::now() + ROOM_WAIT;
        loop {
            match self.try_send(request) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Disconnected(_)) => return Ok(false),
                Err(TrySendError::Full(refused)) => request = refused,
            }
            if Instant::now() >= until {
                let text = format!("{}, and for too long; try again", full().message());
                return Err(Error::new(ErrorKind::Timeout, text));
            }
            sleep(ROOM_LOOK).await;
        }
    }
}

fn full() -> Error {
    let text = format!("{MAX_WAITING} appends wait for the log already");
    Error::new(ErrorKind::Overloaded, text)
}

#[async_trait]
impl<S: Storage> Log for DiskLog<S> {
    fn identity(&self) -> LogIdentity {
        self.shared.identity
    }

    fn bounds(&self) -> Bounds {
        let state = self.shared.state.lock();
        Bounds { first: state.checkpoint.position.lsn.next(), last: state.last.lsn, bytes: state.bytes }
    }

    fn failure(&self) -> Option<Error> {
        self.shared.state.lock().latch.as_ref().map(Error::duplicate)
    }

    fn watch_end(&self) -> watch::Receiver<Lsn> {
        self.shared.end.subscribe()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.shared.state.lock().checkpoint.clone()
    }

    async fn append(&self, ops: Vec<Op>) -> Result<Appended> {
        if ops.is_empty() {
            return Err(Error::invalid("nothing to append"));
        }
        self.ask(|answer| Request::Append { ops, answer }).await
    }

    async fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Arc<Entry>>> {
        let (end, before) = {
            let state = self.shared.state.lock();
            if after < state.checkpoint.position.lsn {
                return Err(cut(after.next()));
            }
            if after >= state.last.lsn {
                return Ok(Vec::new());
            }
            if let Some(entries) = state.tail.read(after, state.last.lsn, max_bytes) {
                return Ok(entries);
            }
            let start = state.checkpoint.position;
            (state.last.lsn, (after == start.lsn).then_some(start.hash))
        };
        let entries = self.read_store(move |store| store.read(after, before, end, max_bytes)).await;
        // A cut that ran meanwhile is a gap, not damage.
        if entries.is_err() && after < self.checkpoint().position.lsn {
            return Err(cut(after.next()));
        }
        entries
    }

    async fn position_at(&self, lsn: Lsn) -> Result<Position> {
        {
            let state = self.shared.state.lock();
            if lsn == state.checkpoint.position.lsn {
                return Ok(state.checkpoint.position);
            }
            if lsn == state.last.lsn {
                return Ok(state.last);
            }
            if lsn < state.checkpoint.position.lsn || lsn > state.last.lsn {
                return Err(cut(lsn));
            }
            if let Some(entry) = state.tail.get(lsn) {
                return Ok(Position { log: self.shared.identity, lsn, hash: entry.hash });
            }
        }
        let log = self.shared.identity;
        let before = Lsn(lsn.0 - 1);
        let entry = self.read_store(move |store| store.read(before, None, lsn, 1)).await?;
        let entry = entry.first().ok_or_else(|| cut(lsn))?;
        Ok(Position { log, lsn, hash: entry.hash })
    }

    async fn truncate_before(&self, lsn: Lsn, collections: Collections) -> Result<Lsn> {
        let start = self.checkpoint().position.lsn;
        let to = Lsn(lsn.0.saturating_sub(1)).min(self.bounds().last);
        if to <= start || !self.shared.holds.allow(to) {
            return Ok(start);
        }
        let position = self.position_at(to).await?;
        self.ask_in_time(|answer| Request::Cut { to: Checkpoint { position, collections }, answer }).await
    }

    fn hold(&self, lsn: Lsn) -> Hold {
        self.shared.holds.hold(lsn)
    }

    async fn sync(&self) -> Result<()> {
        self.ask_in_time(|answer| Request::Sync { answer }).await
    }

    async fn close(&self) -> Result<()> {
        let (send, answer) = oneshot::channel();
        // Whoever was not told to end would be waited for in vain.
        let synced = match self.queue.send(Request::Close { answer: send }).await? {
            true => answer.await.unwrap_or_else(|_| Err(closed().with_effect(Effect::Unknown))),
            false => Err(closed()),
        };
        let writer = self.writer.lock().take();
        let synced = match synced {
            Err(error) if error.kind() == ErrorKind::Unavailable && writer.is_none() => Ok(()),
            synced => synced,
        };
        match writer {
            // The thread ends after the answer; a panic in it was answered as an error before.
            Some(Writer::Thread(thread)) => {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            #[cfg(feature = "simulation")]
            Some(Writer::Task(task)) => {
                let _ = task.await;
            }
            // Another close took it, whose caller may have stopped waiting before the store was gone.
            None => {}
        }
        self.shared.store.write().take();
        synced
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Whatever the file system says.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

/// The error of a file operation.
pub fn io_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull => ErrorKind::StorageFull,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{what}: {}: {error}", path.display())).with_source(error)
}
