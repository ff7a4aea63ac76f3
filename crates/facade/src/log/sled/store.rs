//! What lies in sled: entries in parts by LSN, the identity and the checkpoint.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogId, LogIdentity, Lsn, Position, Result};
use uuid::Uuid;

use super::lock::DirectoryLock;
use super::snapshot;
use super::watermark::Watermark;
use super::{CACHE_BYTES, PART_BYTES, SEGMENT_BYTES};
use crate::catalog::Collections;
use crate::log::storage::{Opened, Storage};
use crate::log::{Checkpoint, codec};

const IDENTITY: &[u8] = b"identity";
const CHECKPOINT: &[u8] = b"checkpoint";
/// Bytes of the file that are written again at once.
const REWRITE_BYTES: usize = 1 << 20;
/// Entries removed in one batch when the log is cut.
const CUT_BATCH: usize = 1_024;

/// The open trees. Dropping it frees the files.
pub struct Store {
    // Dropped in this order: sled, then the lock on the directory.
    entries: sled::Tree,
    meta: sled::Tree,
    db: sled::Db,
    directory: PathBuf,
    _lock: Arc<DirectoryLock>,
}

/// Opens the log of a directory and checks every entry.
pub fn open(directory: &Path, lock: Arc<DirectoryLock>) -> Result<(Opened<Store>, Watermark)> {
    let (watermark, known) = Watermark::open(directory)?;
    let db = open_sled(&directory.join("sled"))?;
    let entries = db.open_tree(b"entries").map_err(sled_error)?;
    let meta = db.open_tree(b"meta").map_err(sled_error)?;
    let store = Store { entries, meta, db, directory: directory.to_owned(), _lock: lock };
    let (identity, checkpoint) = store.identity_and_checkpoint(known.synced)?;
    let opened = Opened::check(store, identity, checkpoint, known, &directory.display().to_string())?;
    // The files and their names are durable before the first append is.
    opened.store.db.flush().map_err(sled_error)?;
    for place in [directory.join("sled"), directory.to_owned()] {
        let synced = File::open(&place).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io_error("the log's directory cannot be synced", &place, error))?;
    }
    Ok((opened, watermark))
}

/// Makes a log whose first entry follows a checkpoint, with the checkpoint's identity.
#[cfg(feature = "snapshots")]
pub fn begin(directory: &Path, lock: DirectoryLock, checkpoint: &Checkpoint) -> Result<()> {
    let db = open_sled(&directory.join("sled"))?;
    let entries = db.open_tree(b"entries").map_err(sled_error)?;
    let meta = db.open_tree(b"meta").map_err(sled_error)?;
    if !meta.is_empty() || !entries.is_empty() {
        let text = format!("there is a log in {} already", directory.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let store = Store { entries, meta, db, directory: directory.to_owned(), _lock: Arc::new(lock) };
    store.write_identity(checkpoint.position.log)?;
    store.write_checkpoint(checkpoint)?;
    store.db.flush().map_err(sled_error)?;
    Ok(())
}

fn open_sled(path: &Path) -> Result<sled::Db> {
    snapshot::remove_unfinished(path)
        .map_err(|error| io_error("sled's unfinished notes cannot be removed", path, error))?;
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    // sled lets its lock go a moment after it was dropped in this process.
    for _ in 0..50 {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened.map_err(sled_error),
        }
    }
    config.open().map_err(sled_error)
}

impl Store {
    /// sled's own file, which a sync must cover.
    pub fn file_path(&self) -> PathBuf {
        self.directory.join("sled").join("db")
    }

    fn write_identity(&self, identity: LogIdentity) -> Result<()> {
        let bytes = [identity.id.0.as_bytes().as_slice(), &identity.epoch.to_be_bytes()].concat();
        self.meta.insert(IDENTITY, seal(&bytes)).map_err(sled_error)?;
        Ok(())
    }

    fn identity_and_checkpoint(&self, synced: Lsn) -> Result<(LogIdentity, Checkpoint)> {
        let damaged = |what: &str| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the log in {} is damaged: {what}; restore the directory from a copy",
                    self.directory.display()
                ),
            )
        };
        let identity = match self.meta.get(IDENTITY).map_err(sled_error)? {
            Some(bytes) => {
                let bytes = unseal(&bytes).ok_or_else(|| damaged("its identity fails its checksum"))?;
                let (id, epoch) =
                    bytes.split_at_checked(16).ok_or_else(|| damaged("its identity is short"))?;
                let id: [u8; 16] = id.try_into().map_err(|_| damaged("its identity is short"))?;
                let epoch: [u8; 8] = epoch.try_into().map_err(|_| damaged("its identity is short"))?;
                LogIdentity { id: LogId(Uuid::from_bytes(id)), epoch: u64::from_be_bytes(epoch) }
            }
            None if synced > Lsn::ZERO || !self.entries.is_empty() => {
                return Err(damaged("its identity is missing"));
            }
            None => {
                let identity = LogIdentity { id: LogId(Uuid::new_v4()), epoch: 1 };
                self.write_identity(identity)?;
                identity
            }
        };
        let checkpoint = match self.meta.get(CHECKPOINT).map_err(sled_error)? {
            None => Checkpoint { position: Position::start(identity), collections: Collections::new() },
            Some(bytes) => {
                let bytes = unseal(&bytes).ok_or_else(|| damaged("its checkpoint fails its checksum"))?;
                let (head, collections) =
                    bytes.split_at_checked(40).ok_or_else(|| damaged("its checkpoint is short"))?;
                let lsn = Lsn(head[..8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
                let hash = EntryHash(head[8..].try_into().map_err(|_| damaged("its checkpoint is short"))?);
                let collections = codec::decode_collections(collections)?;
                Checkpoint { position: Position { log: identity, lsn, hash }, collections }
            }
        };
        Ok((identity, checkpoint))
    }

    /// Removes the newest entries behind the log's back.
    #[cfg(test)]
    pub fn remove_after_for_test(&self, lsn: Lsn) {
        for key in self.entries.range(part_key(lsn.next(), 0)..).keys() {
            self.entries.remove(key.unwrap()).unwrap();
        }
        self.db.flush().unwrap();
    }
}

impl Storage for Store {
    fn read(
        &self,
        after: Lsn,
        before: Option<EntryHash>,
        end: Lsn,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Entry>>> {
        let (mut expected, mut before, mut bytes) = (after.next(), before, 0);
        let mut read: Vec<Arc<Entry>> = Vec::new();
        let mut parts = self.entries.range(part_key(expected, 0)..);
        while expected <= end && (bytes == 0 || bytes < max_bytes) {
            let unreadable = |error: sled::Error| {
                Error::new(ErrorKind::Corrupt, format!("entry {expected} of the log cannot be read"))
                    .with_lsn(expected)
                    .with_source(error)
            };
            let Some(first) = parts.next() else { break };
            let (key, value) = first.map_err(unreadable)?;
            let damaged = |what: &str| {
                Error::new(ErrorKind::Corrupt, format!("entry {expected} of the log is damaged: {what}"))
                    .with_lsn(expected)
            };
            if key[..] != part_key(expected, 0) {
                return Err(damaged("it is missing"));
            }
            let (count, rest) = value.split_at_checked(2).ok_or_else(|| damaged("it is too short"))?;
            let count = u16::from_be_bytes([count[0], count[1]]);
            let mut encoded = rest.to_vec();
            for part in 1..count {
                let (key, value) =
                    parts.next().ok_or_else(|| damaged("its end is missing"))?.map_err(unreadable)?;
                if key[..] != part_key(expected, part) {
                    return Err(damaged("a part of it is missing"));
                }
                encoded.extend_from_slice(&value);
            }
            let entry = codec::decode(expected, before, &encoded)?;
            before = Some(entry.hash);
            bytes += entry.size_bytes;
            read.push(Arc::new(entry));
            expected = expected.next();
        }
        Ok(read)
    }

    // As one atomic batch.
    fn write(&self, entries: &[(Lsn, Vec<u8>)]) -> Result<()> {
        let mut parts = Vec::new();
        for (lsn, bytes) in entries {
            let count = bytes.len().div_ceil(PART_BYTES);
            // An entry has at most MAX_ENTRY_BYTES, which is a handful of parts.
            let count = u16::try_from(count).map_err(|_| Error::invalid("an entry is too large"))?;
            for (part, chunk) in (0..count).zip(bytes.chunks(PART_BYTES)) {
                let value = if part == 0 { [&count.to_be_bytes(), chunk].concat() } else { chunk.to_vec() };
                parts.push((part_key(*lsn, part), value));
            }
        }
        match <[_; 1]>::try_from(parts) {
            // Atomic by itself; of a batch sled writes a head first, and waits for the disk for it too.
            Ok([(key, value)]) => {
                self.entries.insert(key, value).map_err(sled_error)?;
            }
            Err(parts) => {
                let mut batch = sled::Batch::default();
                parts.into_iter().for_each(|(key, value)| batch.insert(key.to_vec(), value));
                self.entries.apply_batch(batch).map_err(sled_error)?;
            }
        }
        self.db.flush().map_err(sled_error)?;
        Ok(())
    }

    // In place and with the same bytes, because sled reads its file up to the first hole: an entry that is written
    // once more behind a page that a failed sync lost would be lost with it. Nobody else writes to the file yet.
    fn rewrite(&self, _: Lsn) -> Result<()> {
        self.db.flush().map_err(sled_error)?;
        let path = self.file_path();
        let io = |error| io_error("the log's file cannot be written again", &path, error);
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        let (mut at, mut bytes) = (0, vec![0; REWRITE_BYTES]);
        loop {
            let read = file.read_at(&mut bytes, at).map_err(io)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all_at(&bytes[..read], at).map_err(io)?;
            at += read as u64;
        }
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut bytes = checkpoint.position.lsn.0.to_be_bytes().to_vec();
        bytes.extend(checkpoint.position.hash.0);
        bytes.extend(codec::encode_collections(&checkpoint.collections)?);
        self.meta.insert(CHECKPOINT, seal(&bytes)).map_err(sled_error)?;
        self.db.flush().map_err(sled_error)?;
        Ok(())
    }

    fn size_of(&self, after: Lsn, to: Lsn) -> Result<u64> {
        let parts = self.entries.range(part_key(after.next(), 0)..part_key(to.next(), 0));
        parts
            .map(|part| {
                part.map(|(key, value)| (value.len() - if key[8..] == [0, 0] { 2 } else { 0 }) as u64)
            })
            .sum::<std::result::Result<u64, _>>()
            .map_err(sled_error)
    }

    fn remove_up_to(&self, lsn: Lsn) -> Result<()> {
        loop {
            let keys = self.entries.range(..part_key(lsn.next(), 0)).keys().take(CUT_BATCH);
            let keys: Vec<_> = keys.collect::<std::result::Result<_, _>>().map_err(sled_error)?;
            if keys.is_empty() {
                self.db.flush().map_err(sled_error)?;
                return Ok(());
            }
            let mut batch = sled::Batch::default();
            keys.into_iter().for_each(|key| batch.remove(key));
            self.entries.apply_batch(batch).map_err(sled_error)?;
        }
    }
}

fn part_key(lsn: Lsn, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&lsn.0.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Bytes with their BLAKE3 hash behind them.
fn seal(bytes: &[u8]) -> Vec<u8> {
    [bytes, blake3::hash(bytes).as_bytes()].concat()
}

fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    (blake3::hash(bytes).as_bytes() == hash).then_some(bytes)
}

/// The one mapping of sled's errors.
pub fn sled_error(error: sled::Error) -> Error {
    let kind = match &error {
        sled::Error::Corruption { .. } => ErrorKind::Corrupt,
        sled::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => ErrorKind::StorageFull,
        sled::Error::Io(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the log's storage failed: {error}")).with_source(error)
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
