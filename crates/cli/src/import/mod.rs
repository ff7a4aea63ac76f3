//! Points from files, a batch at a time.
//!
//! | format | fields |
//! |---|---|
//! | JSONL | one object a line: `id`, `vector` (a list, or an object of named vectors), `payload`, `text` |
//! | Parquet | columns `id`, `vector` (a list of floats), `vectors` (JSON text), `payload` (JSON text), `text`; any other column becomes a key of the payload |
//!
//! A file is read as a stream, so its size does not matter. A batch says where to go on after it
//! ([`ResumePoint`]); what comes before an error is still handed out, so that an import can be
//! repaired and resumed at the very line or row that was wrong.

mod columns;
mod jsonl;
mod parquet;
mod resume;

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use mainstay_core::{CollectionSpec, Error, ErrorKind, Point, PointId, Result};

pub use resume::{Place, ResumePoint};

/// The format of a file of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The word in options and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// Reads the word of [`as_str`](Self::as_str).
    ///
    /// # Errors
    /// `Invalid` with the known words.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::invalid(format!("unknown format {text:?}; use jsonl or parquet"))),
        }
    }

    /// The format that the name of a file speaks of.
    pub fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "parquet" | "pq" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The format by the name, or else by the first bytes of the file.
    fn detect(path: &Path) -> Result<Self> {
        if let Some(format) = Self::of_name(path) {
            return Ok(format);
        }
        let mut head = Vec::new();
        open_file(path)?.take(4).read_to_end(&mut head).map_err(|e| io_error(path, &e))?;
        match head.as_slice() {
            b"PAR1" => Ok(Self::Parquet),
            [b'{', ..] => Ok(Self::Jsonl),
            _ => Err(Error::invalid(format!(
                "{} is neither JSONL nor Parquet by its name or first bytes; name the format",
                path.display()
            ))),
        }
    }
}

/// How large a batch may become. A point that is larger by itself comes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most points.
    pub max_points: usize,
    /// Most bytes, as [`Point::size_bytes`] counts them.
    pub max_bytes: usize,
}

/// Some points of a file, with ids that differ from each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The points, in the order of the file.
    pub points: Vec<Point>,
    /// Where the file goes on after them.
    pub resume: ResumePoint,
}

/// How far a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done, in bytes (JSONL) or rows (Parquet).
    pub done: u64,
    /// All there is, in the same unit.
    pub total: u64,
    /// The unit.
    pub unit: ProgressUnit,
}

/// What a [`Progress`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Bytes of the file.
    Bytes,
    /// Rows.
    Rows,
}

/// A file of points that is being read: an iterator of batches. It ends after the first error.
pub struct Import {
    source: Box<dyn Source + Send>,
    limits: BatchLimits,
    spec: Option<CollectionSpec>,
    /// Read already, and the first of the next batch.
    held: Option<Point>,
    failed: Option<Error>,
    ended: bool,
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// A stream of points with a place.
trait Source {
    /// The next point; its error names the file and the place.
    fn next_point(&mut self) -> Option<Result<Point>>;
    /// The error with the file and the place of the point that was read last.
    fn here(&self, error: Error) -> Error;
    /// Where to go on: after what was read last, or before it.
    fn resume_point(&self, before_last: bool) -> Result<ResumePoint>;
    fn progress(&self) -> Progress;
}

impl Import {
    /// Opens a file, at its start or where an earlier import stopped. Without a format, the name
    /// of the file or else its first bytes tell it.
    ///
    /// # Errors
    /// `Invalid`: no such file, not of this format, truncated, a column that cannot be read, or
    /// not the file that `resume` was made from. `Unavailable` if it cannot be read.
    pub fn open(
        path: &Path,
        format: Option<Format>,
        resume: Option<&ResumePoint>,
        limits: BatchLimits,
    ) -> Result<Self> {
        let format = format.map_or_else(|| Format::detect(path), Ok)?;
        let source: Box<dyn Source + Send> = match format {
            Format::Jsonl => Box::new(jsonl::JsonlSource::open(path, resume)?),
            Format::Parquet => Box::new(parquet::ParquetSource::open(path, resume)?),
        };
        Ok(Self { source, limits, spec: None, held: None, failed: None, ended: false })
    }

    /// From now on refuses points that do not fit this collection, with their place.
    pub fn check_by(&mut self, spec: CollectionSpec) {
        self.spec = Some(spec);
    }

    fn next_point(&mut self) -> Option<Result<Point>> {
        let point = self.source.next_point()?;
        Some(match &self.spec {
            Some(spec) => point.and_then(|point| spec.admit(point).map_err(|error| self.source.here(error))),
            None => point,
        })
    }

    /// How far the file is read.
    pub fn progress(&self) -> Progress {
        self.source.progress()
    }

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        if let Some(error) = self.failed.take() {
            self.ended = true;
            return Err(error);
        }
        let mut points = Vec::new();
        let mut ids: HashSet<PointId> = HashSet::new();
        let mut bytes = 0_usize;
        while points.len() < self.limits.max_points.max(1) {
            let point = match self.held.take().map(Ok).or_else(|| self.next_point()) {
                None => break,
                Some(Ok(point)) => point,
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let size = point.size_bytes();
            let full = bytes.saturating_add(size) > self.limits.max_bytes;
            // The later of two points with one id must win, so it must be written later.
            if !points.is_empty() && (full || ids.contains(&point.id)) {
                self.held = Some(point);
                break;
            }
            bytes += size;
            ids.insert(point.id);
            points.push(point);
        }
        if points.is_empty() {
            self.ended = true;
            return self.failed.take().map_or(Ok(None), Err);
        }
        let resume = self.source.resume_point(self.held.is_some() || self.failed.is_some())?;
        Ok(Some(Batch { points, resume }))
    }
}

impl Iterator for Import {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.next_batch();
        self.ended |= batch.is_err();
        batch.transpose()
    }
}

fn open_file(path: &Path) -> Result<File> {
    if path.is_dir() {
        return Err(Error::invalid(format!("{} is a directory; name a file", path.display())));
    }
    File::open(path).map_err(|error| io_error(path, &error))
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(format!("there is no file {}", path.display())),
        _ => Error::new(ErrorKind::Unavailable, format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
