//! Where an import goes on.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::str::FromStr;

use mainstay_core::{Error, Result};

use super::{Format, io_error};

/// How many bytes of the file vouch for a resume point.
const CHECKED_BYTES: u64 = 4_096;

/// A place in a file of points, with a check that the file is still the one it was.
///
/// It is kept as a line of text:
///
/// ```
/// use mainstay_cli::import::ResumePoint;
/// let text = "jsonl 1024 17 00a1b2c3d4e5f607";
/// assert_eq!(text.parse::<ResumePoint>()?.to_string(), text);
/// # Ok::<(), mainstay_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    place: Place,
    check: u64,
}

/// A place in a file of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In JSONL.
    Jsonl {
        /// Bytes before it.
        offset: u64,
        /// Lines before it.
        line: u64,
    },
    /// In Parquet.
    Parquet {
        /// Rows before it, over all row groups.
        row: u64,
    },
}

impl Place {
    const fn format(self) -> Format {
        match self {
            Self::Jsonl { .. } => Format::Jsonl,
            Self::Parquet { .. } => Format::Parquet,
        }
    }
}

impl ResumePoint {
    /// The place.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The resume point of a place in this file.
    pub(super) fn new(path: &Path, file: &File, place: Place) -> Result<Self> {
        let check = check(file, place).map_err(|error| io_error(path, &error))?;
        Ok(Self { place, check })
    }

    /// The place, if the file is still the one it was.
    pub(super) fn verified(&self, path: &Path, file: &File, format: Format) -> Result<Place> {
        if self.place.format() != format {
            return Err(Error::invalid(format!(
                "the import to resume was of a {} file, {} is {}; start again from the beginning",
                self.place.format().as_str(),
                path.display(),
                format.as_str()
            )));
        }
        let found = check(file, self.place).map_err(|error| io_error(path, &error))?;
        if found != self.check {
            return Err(Error::invalid(format!(
                "{} is not the file it was when the import stopped; start again from the beginning",
                path.display()
            )));
        }
        Ok(self.place)
    }
}

/// Hashes what is before a place in JSONL, which may still grow, or the footer of a Parquet file,
/// which describes the whole. A file that is too short hashes to something else. Moves the file's
/// cursor.
fn check(file: &File, place: Place) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let (end, whole) = match place {
        Place::Jsonl { offset, .. } => (offset, offset.min(length)),
        Place::Parquet { .. } => (length, length),
    };
    let start = end.saturating_sub(CHECKED_BYTES);
    let mut reader = file;
    reader.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    reader.take(end - start).read_to_end(&mut bytes)?;
    let hash = blake3::Hasher::new().update(&whole.to_le_bytes()).update(&bytes).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    Ok(u64::from_be_bytes(first))
}

impl fmt::Display for ResumePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Jsonl { offset, line } => write!(f, "jsonl {offset} {line} {:016x}", self.check),
            Place::Parquet { row } => write!(f, "parquet {row} {:016x}", self.check),
        }
    }
}

impl FromStr for ResumePoint {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) wrote.
    ///
    /// # Errors
    /// `Invalid` if the text is something else.
    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        let check = |word: &str| u64::from_str_radix(word, 16).ok();
        let point = match words.as_slice() {
            ["jsonl", offset, line, hash] => number(offset)
                .zip(number(line))
                .map(|(offset, line)| Place::Jsonl { offset, line })
                .zip(check(hash)),
            ["parquet", row, hash] => number(row).map(|row| Place::Parquet { row }).zip(check(hash)),
            _ => None,
        };
        let (place, check) = point.ok_or_else(|| {
            Error::invalid(format!("{text:?} is no resume point; start again from the beginning"))
        })?;
        Ok(Self { place, check })
    }
}
