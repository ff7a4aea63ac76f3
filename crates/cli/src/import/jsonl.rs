//! Points from JSONL.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use mainstay_core::json::point_from_json;
use mainstay_core::{Error, Point, Result};

use super::{Format, Place, Progress, ProgressUnit, ResumePoint, Source, io_error, open_file};

/// Longest line, in bytes: above what a point of the largest dimension takes as text.
const MAX_LINE_BYTES: u64 = 64 << 20;
const READ_AHEAD_BYTES: usize = 256 << 10;

pub(super) struct JsonlSource {
    input: BufReader<File>,
    /// For the checks of resume points, with a cursor of its own.
    checked: File,
    path: PathBuf,
    length: u64,
    /// Bytes and lines read.
    at: (u64, u64),
    /// The same before the last line that was read.
    before_last: (u64, u64),
}

impl JsonlSource {
    pub(super) fn open(path: &Path, resume: Option<&ResumePoint>) -> Result<Self> {
        let mut file = open_file(path)?;
        let checked = open_file(path)?;
        let fail = |error: std::io::Error| io_error(path, &error);
        let length = file.metadata().map_err(fail)?.len();
        let mut at = (0, 0);
        if let Some(resume) = resume
            && let Place::Jsonl { offset, line } = resume.verified(path, &checked, Format::Jsonl)?
        {
            file.seek(SeekFrom::Start(offset)).map_err(fail)?;
            at = (offset, line);
        }
        let input = BufReader::with_capacity(READ_AHEAD_BYTES, file);
        Ok(Self { input, checked, path: path.to_owned(), length, at, before_last: at })
    }

    /// The next line without its end, and whether it has one; `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<(Vec<u8>, bool)>> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| io_error(&self.path, &error))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.at = (self.at.0 + read, self.at.1 + 1);
        if read > MAX_LINE_BYTES {
            return Err(self.here(Error::invalid(format!(
                "the line is longer than {} MiB; is this JSONL, one object a line?",
                MAX_LINE_BYTES >> 20
            ))));
        }
        let ended = line.pop_if(|last| *last == b'\n').is_some();
        Ok(Some((line, ended)))
    }

    fn read_point(&mut self) -> Result<Option<Point>> {
        loop {
            let before = self.at;
            self.before_last = before;
            let Some((line, ended)) = self.next_line()? else { return Ok(None) };
            let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| before.0 == 0).unwrap_or(&line);
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return parse(line, ended).map(Some).map_err(|error| self.here(error));
        }
    }
}

fn parse(line: &[u8], ended: bool) -> Result<Point> {
    let value: serde_json::Value = serde_json::from_slice(line).map_err(|error| {
        if error.is_eof() && !ended {
            return Error::invalid("the file ends in the middle of a line; it seems to be truncated");
        }
        let text = error.to_string();
        // There is one line only; the column is what helps.
        let text = text.split(" at line ").next().unwrap_or(&text);
        Error::invalid(format!("not valid JSON at column {}: {text}", error.column()))
    })?;
    point_from_json(&value)
}

impl Source for JsonlSource {
    fn next_point(&mut self) -> Option<Result<Point>> {
        self.read_point().transpose()
    }

    fn here(&self, error: Error) -> Error {
        error.with_context("file", self.path.display()).with_context("line", self.at.1)
    }

    fn resume_point(&self, before_last: bool) -> Result<ResumePoint> {
        let (offset, line) = if before_last { self.before_last } else { self.at };
        ResumePoint::new(&self.path, &self.checked, Place::Jsonl { offset, line })
    }

    fn progress(&self) -> Progress {
        // The file may have grown since it was opened.
        Progress { done: self.at.0, total: self.length.max(self.at.0), unit: ProgressUnit::Bytes }
    }
}
