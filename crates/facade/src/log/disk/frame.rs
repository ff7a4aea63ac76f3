//! Entries one after the other in a file.
//!
//! ```text
//! more, 1 bit | length of the entry, 31 bits BE | the entry, which checks itself
//! ```
//!
//! `more` says that the next frame was written together with this one: after a crash either all of them count or none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::log::MAX_ENTRY_BYTES;

/// Bytes of a frame before its entry.
pub const HEAD_BYTES: usize = 4;
/// The bit that says that more was written together with it.
const MORE: u32 = 1 << 31;
/// Read at once where entries are smaller.
const CHUNK: usize = 64 << 10;

/// The head of a frame. `length` is at most [`MAX_ENTRY_BYTES`].
pub fn head(length: usize, more: bool) -> [u8; HEAD_BYTES] {
    // No entry is that long, so the bit is free.
    let length = u32::try_from(length).unwrap_or(u32::MAX) & !MORE;
    (length | if more { MORE } else { 0 }).to_be_bytes()
}

/// A frame of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the next one was written together with it.
    pub more: bool,
    /// Where its entry is.
    at: u64,
    length: usize,
}

impl Frame {
    /// Where the next one is.
    pub fn end(&self) -> u64 {
        self.at + self.length as u64
    }
}

/// Goes through the frames of a file.
pub struct Frames {
    file: Arc<File>,
    /// Where the next frame is.
    at: u64,
    /// Where the last one ends.
    end: u64,
    /// What was read of the file, from `from` on.
    buffer: Vec<u8>,
    from: u64,
}

impl Frames {
    /// The frames from `at` to `end`.
    pub fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end, buffer: Vec::new(), from: 0 }
    }

    /// Where the next frame is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether the last frame was passed.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// The next frame; `None` if there is no whole one.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn next_frame(&mut self) -> std::io::Result<Option<Frame>> {
        let Some(head) = self.bytes(self.at, HEAD_BYTES)? else { return Ok(None) };
        let head = head.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        let length = (head & !MORE) as usize;
        let frame = Frame { more: head & MORE != 0, at: self.at + HEAD_BYTES as u64, length };
        if length == 0 || length > MAX_ENTRY_BYTES || frame.end() > self.end {
            return Ok(None);
        }
        self.at = frame.end();
        Ok(Some(frame))
    }

    /// The entry of a frame, encoded.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn entry(&mut self, frame: Frame) -> std::io::Result<&[u8]> {
        let entry = self.bytes(frame.at, frame.length)?;
        entry.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
    }

    /// So many bytes of the file; `None` if there are fewer.
    fn bytes(&mut self, at: u64, length: usize) -> std::io::Result<Option<&[u8]>> {
        let left = self.end.saturating_sub(at);
        if left < length as u64 {
            return Ok(None);
        }
        let held = at >= self.from && at + length as u64 <= self.from + self.buffer.len() as u64;
        if !held {
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK.max(length));
            self.buffer.resize(wanted, 0);
            self.from = at;
            if let Err(error) = self.file.read_exact_at(&mut self.buffer, at) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let start = usize::try_from(at - self.from).unwrap_or(usize::MAX);
        Ok(self.buffer.get(start..start.saturating_add(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_any_size_are_read_one_after_the_other_and_a_cut_one_is_none() {
        let sizes = [1, 7, CHUNK - 3, CHUNK, CHUNK + 1, MAX_ENTRY_BYTES, 12, 5];
        let mut bytes = Vec::new();
        for (n, size) in sizes.into_iter().enumerate() {
            bytes.extend(head(size, n % 2 == 0));
            bytes.extend(vec![n as u8; size]);
        }
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let file = Arc::new(file);
        let read = |end: u64| {
            let mut frames = Frames::new(Arc::clone(&file), 0, end);
            let mut read = Vec::new();
            while let Some(frame) = frames.next_frame().unwrap() {
                let entry = frames.entry(frame).unwrap();
                assert!(entry.iter().all(|byte| usize::from(*byte) == read.len()));
                read.push((entry.len(), frame.more));
            }
            read
        };
        let whole: Vec<_> = sizes.into_iter().zip([true, false].into_iter().cycle()).collect();
        assert_eq!(read(bytes.len() as u64), whole);
        assert_eq!(read(bytes.len() as u64 - 1), whole[..7]);
        assert_eq!(read(bytes.len() as u64 - 6), whole[..7]);
        assert_eq!(read(3), []);
    }

    #[test]
    fn a_length_that_no_entry_has_ends_the_frames() {
        for length in [0, MAX_ENTRY_BYTES + 1] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&head(length, false), 0).unwrap();
            file.set_len(4 << 20).unwrap();
            assert_eq!(Frames::new(Arc::new(file), 0, 4 << 20).next_frame().unwrap(), None);
        }
    }
}
