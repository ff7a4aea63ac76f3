//! A file of entries, and the files of a log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_core::{Error, ErrorKind, Lsn, Result};

use super::frame::{Frames, head};
use super::{io_error, sync_directory};
use crate::log::codec;

/// Of an entry about each so many bytes it is known where it is; from there on the others are looked for.
const MARK_EVERY: u64 = 64 << 10;
/// Bytes that are written at once, and more only if an entry has more.
const WRITE_BYTES: usize = 1 << 20;

/// A file of entries.
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// The last file of a log is open; the others are opened when they are read.
    pub file: Option<Arc<File>>,
    /// Its first entry.
    pub first: Lsn,
    /// The entry after the last one.
    pub next: Lsn,
    /// Where the last one ends.
    pub end: u64,
    /// Where some entries are, ascending.
    marks: Vec<(Lsn, u64)>,
}

fn file_name(first: Lsn) -> String {
    format!("{:020}.log", first.0)
}

/// The files of entries by their first one.
pub fn names(entries: &Path) -> Result<Vec<(Lsn, PathBuf)>> {
    let read = || -> std::io::Result<Vec<(Lsn, PathBuf)>> {
        let mut names = Vec::new();
        for file in std::fs::read_dir(entries)? {
            let path = file?.path();
            let first = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
            names.extend(first.map(|first| (Lsn(first), path)));
        }
        names.sort_unstable();
        Ok(names)
    };
    read().map_err(|error| io_error("the log's directory cannot be read", entries, error))
}

/// Opens the files that have entries after a checkpoint, and removes those that a cut left. What follows the last entry that
/// is whole is no part of the log, if it was not durable for certain.
pub fn find(entries: &Path, checkpoint: Lsn, synced: Lsn) -> Result<VecDeque<Segment>> {
    let mut names = VecDeque::from(names(entries)?);
    while names.get(1).is_some_and(|(first, _)| *first <= checkpoint.next()) {
        names.pop_front().map_or(Ok(()), |(_, path)| remove(&path))?;
    }
    let mut segments: VecDeque<Segment> = VecDeque::new();
    let mut expected = checkpoint.next();
    let count = names.len();
    for (at, (first, path)) in names.into_iter().enumerate() {
        let is_last = at + 1 == count;
        let segment = Segment::scan(path, first, if is_last { synced } else { Lsn(u64::MAX) })?;
        if segment.next < expected && is_last && synced < expected {
            // All of it was cut, and what follows is no entry and was never durable for certain.
            segment.set_aside()?;
            break;
        }
        if first > expected || segment.next < expected || (first < expected && !segments.is_empty()) {
            let text = format!("entry {expected} of the log is damaged or missing in {}", entries.display());
            return Err(Error::new(ErrorKind::Corrupt, text).with_lsn(expected));
        }
        expected = segment.next;
        follow(&mut segments, segment);
    }
    Ok(segments)
}

/// Adds the last file. The one before it is not written to any more.
pub fn follow(segments: &mut VecDeque<Segment>, segment: Segment) {
    if let Some(before) = segments.back_mut() {
        before.file = None;
    }
    segments.push_back(segment);
}

/// Removes a file whose entries were cut.
///
/// # Errors
/// Whatever the file system says.
pub fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path)
        .map_err(|error| io_error("entries that were cut cannot be removed", path, error))
}

impl Segment {
    /// Makes the file that begins with an entry, durably.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn begin(entries: &Path, first: Lsn) -> Result<Self> {
        let path = entries.join(file_name(first));
        let begin = || -> std::io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            sync_directory(entries)?;
            Ok(file)
        };
        let file = begin().map_err(|error| io_error("a file of the log cannot be made", &path, error))?;
        Ok(Self { path, file: Some(Arc::new(file)), first, next: first, end: 0, marks: Vec::new() })
    }

    /// Opens a file and looks where its entries are. Those up to `synced` were durable, and are checked when they are read;
    /// of the others only those count that are whole, together with what was written with them.
    fn scan(path: PathBuf, first: Lsn, synced: Lsn) -> Result<Self> {
        let io = |error| io_error("entries of the log cannot be read", &path, error);
        let file = Self::open(&path, None).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut segment = Self {
            file: Some(Arc::clone(&file)),
            first,
            next: first,
            end: 0,
            marks: Vec::new(),
            path: path.clone(),
        };
        let mut frames = Frames::new(file, 0, length);
        // Whole, but more was written with them.
        let mut waiting = Vec::new();
        let mut next = first;
        while let Some(frame) = frames.next_frame().map_err(io)? {
            if next > synced && codec::decode(next, None, frames.entry(frame).map_err(io)?).is_err() {
                break;
            }
            waiting.push((next, frames.at()));
            if !frame.more || next <= synced {
                waiting.drain(..).for_each(|(lsn, end)| segment.add(lsn, end));
            }
            next = next.next();
        }
        Ok(segment)
    }

    /// The file, open for reading and writing.
    ///
    /// # Errors
    /// Whatever the file system says; it is gone if its entries were cut.
    pub fn open(path: &Path, file: Option<Arc<File>>) -> std::io::Result<Arc<File>> {
        match file {
            Some(file) => Ok(file),
            None => Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?)),
        }
    }

    /// Takes the file out of the log; it stays for people to look at.
    fn set_aside(self) -> Result<()> {
        let aside = self.path.with_extension("aside");
        tracing::warn!(file = %aside.display(), "entries that were cut and what cannot be read behind them are set aside");
        std::fs::rename(&self.path, &aside)
            .map_err(|error| io_error("a file of the log cannot be set aside", &self.path, error))
    }

    /// Notes an entry at the end.
    pub fn add(&mut self, lsn: Lsn, end: u64) {
        if self.marks.last().is_none_or(|(_, at)| self.end - at >= MARK_EVERY) {
            self.marks.push((lsn, self.end));
        }
        (self.next, self.end) = (lsn.next(), end);
    }

    /// The nearest entry up to this one of which it is known where it is.
    pub fn mark(&self, lsn: Lsn) -> (Lsn, u64) {
        let after = self.marks.partition_point(|(marked, _)| *marked <= lsn);
        after.checked_sub(1).and_then(|at| self.marks.get(at)).copied().unwrap_or((self.first, 0))
    }
}

/// Writes encoded entries at the end of a file, up to the operating system.
///
/// # Errors
/// Whatever the file system says; some of them may be there then.
pub fn write_frames(file: &File, mut at: u64, entries: &[(Lsn, Vec<u8>)]) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    for (n, (_, bytes)) in entries.iter().enumerate() {
        let head = head(bytes.len(), n + 1 < entries.len());
        if buffer.len() + head.len() + bytes.len() > WRITE_BYTES {
            file.write_all_at(&buffer, at)?;
            at += buffer.len() as u64;
            buffer.clear();
        }
        buffer.extend(head);
        buffer.extend_from_slice(bytes);
    }
    file.write_all_at(&buffer, at)
}

/// Writes a part of a file again with the same bytes, durably.
///
/// # Errors
/// Whatever the file system says.
pub fn write_again(file: &File, mut at: u64, end: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; WRITE_BYTES];
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(WRITE_BYTES).min(WRITE_BYTES);
        let bytes = &mut bytes[..length];
        file.read_exact_at(bytes, at)?;
        file.write_all_at(bytes, at)?;
        at += length as u64;
    }
    file.sync_data()
}
