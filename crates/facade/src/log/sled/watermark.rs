//! The LSN up to which appends were synced, apart from sled.
//!
//! Two slots of 40 bytes, written in turn: LSN (u64 big-endian), then the BLAKE3 hash of those eight
//! bytes. A torn write spoils one slot and leaves the other. The file is not synced itself: after a power
//! loss it may be older, which only makes the check weaker, never wrong.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mainstay_core::{Lsn, Result};

use super::store::io_error;

const SLOT_BYTES: usize = 40;

/// The file of the watermark.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    next_slot: u64,
}

impl Watermark {
    /// Opens the file in a log's directory and reads the highest LSN in it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(directory: &Path) -> Result<(Self, Lsn)> {
        let path = directory.join("watermark");
        let io = |error| io_error("the log's watermark cannot be used", &path, error);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let mut best = (Lsn::ZERO, 1);
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).is_err() {
                continue;
            }
            let (number, check) = bytes.split_at(8);
            if blake3::hash(number).as_bytes() == check {
                let lsn = Lsn(number.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
                if lsn >= best.0 {
                    best = (lsn, slot);
                }
            }
        }
        Ok((Self { file, next_slot: 1 - best.1 }, best.0))
    }

    /// Moves the watermark.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn set(&mut self, lsn: Lsn) -> std::io::Result<()> {
        let number = lsn.0.to_be_bytes();
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(blake3::hash(&number).as_bytes());
        self.file.write_all_at(&bytes, self.next_slot * SLOT_BYTES as u64)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}
