//! Where a log keeps its entries: the seam between the log's own rules and a disk.

use std::sync::Arc;

use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogIdentity, Lsn, Position, Result};

use super::{Checkpoint, codec};
use crate::sabotage::{self, Bug};

/// Bytes of entries that a start checks at once.
const CHECK_BYTES: usize = 1 << 20;

/// What a log asks of the place where its entries are. Calls block; at most one thread writes.
pub trait Storage: Send + Sync + 'static {
    /// Entries after `after` up to `end`, contiguous, checked and chained (from `before`, if it is given), as far as
    /// `max_bytes` go.
    ///
    /// # Errors
    /// `Corrupt` with the LSN of an entry that is damaged.
    fn read(
        &self,
        after: Lsn,
        before: Option<EntryHash>,
        end: Lsn,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Entry>>>;

    /// Writes encoded entries, all or none, up to the operating system.
    ///
    /// # Errors
    /// Whatever the storage runs into; whether the entries are there is then unknown.
    fn write(&self, entries: &[(Lsn, Vec<u8>)]) -> Result<()>;

    /// Writes the entries after `after` and the checkpoint once more, up to the operating system, so that the next sync
    /// covers them: an earlier one may have failed, after which the operating system takes them for written. Before the
    /// first write.
    ///
    /// # Errors
    /// Whatever the storage runs into.
    fn rewrite(&self, after: Lsn) -> Result<()>;

    /// Stores a checkpoint, up to the operating system.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// Bytes of the entries after `after` up to `to`, as they are counted against the log's limit.
    ///
    /// # Errors
    /// Whatever the storage runs into.
    fn size_of(&self, after: Lsn, to: Lsn) -> Result<u64>;

    /// Removes all entries up to `lsn`.
    ///
    /// # Errors
    /// Whatever the storage runs into; some of them may be there still.
    fn remove_up_to(&self, lsn: Lsn) -> Result<()>;
}

/// The entries of one [`Storage::read`]: each is checked and chained to the one before, until there are enough.
pub struct Reading {
    expected: Lsn,
    before: Option<EntryHash>,
    end: Lsn,
    /// How many more may be read; one entry may have more.
    left: usize,
    entries: Vec<Arc<Entry>>,
}

impl Reading {
    /// Of the entries after `after`, as [`Storage::read`] is asked for them.
    pub fn new(after: Lsn, before: Option<EntryHash>, end: Lsn, max_bytes: usize) -> Self {
        Self { expected: after.next(), before, end, left: max_bytes.max(1), entries: Vec::new() }
    }

    /// The entry that is read next; `None` if there are enough.
    pub fn wants(&self) -> Option<Lsn> {
        (self.expected <= self.end && self.left > 0).then_some(self.expected)
    }

    /// Takes the entry that is wanted, encoded.
    ///
    /// # Errors
    /// `Corrupt` with its LSN if it is damaged.
    pub fn take(&mut self, encoded: &[u8]) -> Result<()> {
        let entry = codec::decode(self.expected, self.before, encoded)?;
        self.before = Some(entry.hash);
        self.left = self.left.saturating_sub(entry.size_bytes);
        self.expected = self.expected.next();
        self.entries.push(Arc::new(entry));
        Ok(())
    }

    /// What was read.
    pub fn into_entries(self) -> Vec<Arc<Entry>> {
        self.entries
    }
}

/// What makes written bytes durable.
pub type Barrier = Box<dyn FnMut() -> std::io::Result<()> + Send>;
/// Notes what is durable, apart from the entries.
pub type Mark = Box<dyn FnMut(Known) -> std::io::Result<()> + Send>;

/// What is known of what is durable. After a power loss it may be older than the entries, which does no harm: what is
/// read then is what the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Entries up to here are durable for certain.
    pub synced: Lsn,
    /// Something else was written that no sync has covered yet, such as a checkpoint. If the sync fails, the operating
    /// system goes on to show what the disk does not have.
    pub in_doubt: bool,
}

/// What a start finds.
pub struct Opened<S> {
    /// The storage.
    pub store: S,
    /// The log's id and epoch.
    pub identity: LogIdentity,
    /// The state before the first entry.
    pub checkpoint: Checkpoint,
    /// The position after the last entry.
    pub last: Position,
    /// Bytes of all entries.
    pub bytes: u64,
    /// What is durable for certain.
    pub known: Known,
}

impl<S: Storage> Opened<S> {
    /// Finishes a cut that was cut short, checks every entry, and that none is missing that is known to be durable.
    /// `place` is where the log is, for people to read.
    ///
    /// # Errors
    /// `Corrupt` with the LSN of an entry that is damaged or missing.
    pub fn check(
        store: S,
        identity: LogIdentity,
        checkpoint: Checkpoint,
        known: Known,
        place: &str,
    ) -> Result<Self> {
        store.remove_up_to(checkpoint.position.lsn)?;
        let (mut last, mut bytes) = (checkpoint.position, 0);
        loop {
            let entries = store.read(last.lsn, Some(last.hash), Lsn(u64::MAX), CHECK_BYTES)?;
            let Some(end) = entries.last() else { break };
            bytes += entries.iter().map(|entry| entry.size_bytes as u64).sum::<u64>();
            last = Position { lsn: end.lsn, hash: end.hash, ..last };
        }
        let synced = known.synced;
        if last.lsn < synced && !sabotage::on(Bug::WatermarkIgnored) {
            let missing = last.lsn.next();
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "entries {missing} to {synced} of the log in {place} were durable and are missing: \
                     the storage lost or damaged them; restore the directory from a copy"
                ),
            )
            .with_lsn(missing));
        }
        Ok(Self { store, identity, checkpoint, last, bytes, known })
    }
}
