//! The entries of a log: files of about [`SEGMENT_BYTES`], each named after its first entry, contiguous.
//!
//! Only the last one is written to, always at its end. The one before is synced when a new one begins, so that a sync of
//! the last one covers everything. A cut removes whole files; what it leaves of the first one is passed over.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::{Entry, EntryHash, Error, ErrorKind, LogId, LogIdentity, Lsn, Position, Result};
use parking_lot::Mutex;
use uuid::Uuid;

use super::frame::{Frames, HEAD_BYTES};
use super::lock::DirectoryLock;
use super::segment::{Segment, find, follow, names, remove, write_again, write_frames};
use super::watermark::Watermark;
use super::{checkpoint, io_error, sync_directory};
use crate::catalog::Collections;
use crate::log::Checkpoint;
use crate::log::storage::{Barrier, Opened, Reading, Storage};

/// A file that has so many bytes is followed by another one.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The open files of a log.
pub struct Segments {
    directory: PathBuf,
    files: Arc<Mutex<VecDeque<Segment>>>,
    _lock: Arc<DirectoryLock>,
}

/// Opens the log of a directory and checks every entry.
pub fn open(directory: &Path, lock: Arc<DirectoryLock>) -> Result<(Opened<Segments>, Watermark)> {
    let (watermark, known) = Watermark::open(directory)?;
    let entries = entries(directory);
    std::fs::create_dir_all(&entries)
        .map_err(|error| io_error("the log's directory cannot be used", &entries, error))?;
    let checkpoint = match checkpoint::read(directory)? {
        Some(checkpoint) => checkpoint,
        None => begin_new(directory, &entries, known.synced)?,
    };
    let position = checkpoint.position;
    let segments = find(&entries, position.lsn, known.synced)?;
    let files = Arc::new(Mutex::new(segments));
    let store = Segments { directory: directory.to_owned(), files, _lock: lock };
    let opened = Opened::check(store, position.log, checkpoint, known, &directory.display().to_string())?;
    opened.store.trim(opened.last.lsn)?;
    for place in [entries, directory.to_owned()] {
        sync_directory(&place)
            .map_err(|error| io_error("the log's directory cannot be synced", &place, error))?;
    }
    Ok((opened, watermark))
}

/// Makes a log whose first entry follows a checkpoint, with the checkpoint's identity.
#[cfg(feature = "snapshots")]
pub fn begin(directory: &Path, checkpoint: &Checkpoint) -> Result<()> {
    if checkpoint::path(directory).exists() {
        let text = format!("there is a log in {} already", directory.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    checkpoint::write(directory, checkpoint)
}

/// The checkpoint of a directory that has none.
fn begin_new(directory: &Path, entries: &Path, synced: Lsn) -> Result<Checkpoint> {
    if directory.join("sled").exists() {
        let text = format!(
            "the log in {} was written by an early version, in a format that this one does not read; make a snapshot with \
             that version, and restore it with `mainstay snapshot restore --replace`",
            directory.display()
        );
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    if synced > Lsn::ZERO || !names(entries)?.is_empty() {
        return Err(checkpoint::damaged(directory, "its checkpoint is missing"));
    }
    let position = Position::start(LogIdentity { id: LogId(Uuid::new_v4()), epoch: 1 });
    let checkpoint = Checkpoint { position, collections: Collections::new() };
    checkpoint::write(directory, &checkpoint)?;
    Ok(checkpoint)
}

/// Where the files of a log are.
fn entries(directory: &Path) -> PathBuf {
    directory.join("entries")
}

impl Segments {
    /// What makes everything durable that was written so far.
    pub fn barrier(&self) -> Barrier {
        let files = Arc::clone(&self.files);
        Box::new(move || {
            let last = files.lock().back().and_then(|segment| segment.file.clone());
            last.map_or(Ok(()), |file| file.sync_data())
        })
    }

    /// Removes what follows the last entry: a write that a crash cut short.
    fn trim(&self, last: Lsn) -> Result<()> {
        let files = self.files.lock();
        let Some((segment, file)) = files.back().and_then(|last| Some((last, last.file.as_ref()?))) else {
            return Ok(());
        };
        let trim = || -> std::io::Result<()> {
            let length = file.metadata()?.len();
            if length > segment.end {
                let bytes = length - segment.end;
                tracing::warn!(after = %last, bytes, "a write that was cut short is removed from the end of the log");
                file.set_len(segment.end)?;
                file.sync_all()?;
            }
            Ok(())
        };
        trim().map_err(|error| io_error("the end of the log cannot be written", &segment.path, error))
    }

    /// The file that the entry is in, and its frames from the entry on. `None` if there is no such entry yet.
    fn locate(&self, lsn: Lsn) -> Result<Option<Frames>> {
        let (path, file, (mut at, offset), end) = {
            let files = self.files.lock();
            if files.front().is_some_and(|first| lsn < first.first) {
                return Err(damaged(lsn, "it is missing"));
            }
            let Some(segment) = files.iter().rev().find(|segment| segment.first <= lsn) else {
                return Ok(None);
            };
            if lsn >= segment.next {
                return Ok(None);
            }
            (segment.path.clone(), segment.file.clone(), segment.mark(lsn), segment.end)
        };
        let file = Segment::open(&path, file).map_err(|error| unreadable(lsn, error))?;
        let mut frames = Frames::new(file, offset, end);
        while at < lsn {
            if frames.next_frame().map_err(|error| unreadable(at, error))?.is_none() {
                return Err(damaged(at, "its length is none"));
            }
            at = at.next();
        }
        Ok(Some(frames))
    }

    /// Begins a file. The one before is durable then.
    fn roll(&self, first: Lsn) -> Result<()> {
        self.barrier()().map_err(|error| io_error("the log could not be synced", &self.directory, error))?;
        let segment = Segment::begin(&entries(&self.directory), first)?;
        follow(&mut self.files.lock(), segment);
        Ok(())
    }
}

fn damaged(lsn: Lsn, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("entry {lsn} of the log is damaged: {what}")).with_lsn(lsn)
}

fn unreadable(lsn: Lsn, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Corrupt, format!("entry {lsn} of the log cannot be read"))
        .with_lsn(lsn)
        .with_source(error)
}

impl Storage for Segments {
    fn read(
        &self,
        after: Lsn,
        before: Option<EntryHash>,
        end: Lsn,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Entry>>> {
        let mut reading = Reading::new(after, before, end, max_bytes);
        let mut frames = None;
        while let Some(expected) = reading.wants() {
            let in_file: &mut Frames = match &mut frames {
                Some(frames) => frames,
                None => match self.locate(expected)? {
                    Some(found) => frames.insert(found),
                    None => break,
                },
            };
            let Some(frame) = in_file.next_frame().map_err(|error| unreadable(expected, error))? else {
                if !in_file.is_at_end() {
                    return Err(damaged(expected, "its length is none"));
                }
                frames = None;
                continue;
            };
            reading.take(in_file.entry(frame).map_err(|error| unreadable(expected, error))?)?;
        }
        Ok(reading.into_entries())
    }

    fn write(&self, entries: &[(Lsn, Vec<u8>)]) -> Result<()> {
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let is_full = self.files.lock().back().is_none_or(|segment| segment.end >= SEGMENT_BYTES);
        if is_full {
            self.roll(*first)?;
        }
        let (file, path, at) = {
            let files = self.files.lock();
            let follows = files.back().filter(|segment| segment.next == *first);
            let Some((segment, file)) = follows.and_then(|last| Some((last, last.file.clone()?))) else {
                let text = format!("entry {first} does not follow the last one");
                return Err(Error::new(ErrorKind::Internal, text));
            };
            (file, segment.path.clone(), segment.end)
        };
        write_frames(&file, at, entries)
            .map_err(|error| io_error("the log could not be written", &path, error))?;
        if let Some(segment) = self.files.lock().back_mut() {
            for (lsn, bytes) in entries {
                segment.add(*lsn, segment.end + (HEAD_BYTES + bytes.len()) as u64);
            }
        }
        Ok(())
    }

    fn rewrite(&self, after: Lsn) -> Result<()> {
        let later: Vec<_> = {
            let files = self.files.lock();
            let later = files.iter().filter(|segment| segment.next > after.next());
            later.map(|s| (s.file.clone(), s.path.clone(), s.mark(after.next()).1, s.end)).collect()
        };
        for (file, path, at, end) in later {
            Segment::open(&path, file)
                .and_then(|file| write_again(&file, at, end))
                .map_err(|error| io_error("the log's file cannot be written again", &path, error))?;
        }
        match checkpoint::read(&self.directory)? {
            Some(held) => checkpoint::write(&self.directory, &held),
            None => Ok(()),
        }
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint::write(&self.directory, checkpoint)
    }

    fn size_of(&self, after: Lsn, to: Lsn) -> Result<u64> {
        let (mut at, mut bytes) = (after.next(), 0);
        while at <= to {
            let Some(mut frames) = self.locate(at)? else { break };
            let start = frames.at();
            let mut heads = 0;
            while at <= to && frames.next_frame().map_err(|error| unreadable(at, error))?.is_some() {
                at = at.next();
                heads += HEAD_BYTES as u64;
            }
            if heads == 0 {
                return Err(damaged(at, "its length is none"));
            }
            bytes += frames.at() - start - heads;
        }
        Ok(bytes)
    }

    fn remove_up_to(&self, lsn: Lsn) -> Result<()> {
        loop {
            let cut = {
                let files = self.files.lock();
                let first = files.front().filter(|first| files.len() > 1 && first.next <= lsn.next());
                first.map(|first| first.path.clone())
            };
            let Some(path) = cut else { return Ok(()) };
            remove(&path)?;
            self.files.lock().pop_front();
        }
    }
}
