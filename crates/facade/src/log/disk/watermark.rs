//! What is durable, apart from the entries: the LSN up to which appends were synced, and whether something else may not be.
//!
//! Three slots of 40 bytes: a number (u64 big-endian), then the BLAKE3 hash of those eight bytes. The first two hold the
//! LSN and are written in turn, so that a torn write spoils one and leaves the other; the third is 1 while something is in
//! doubt. One that is spoiled counts as 1, and one that is not there as 0. The file is not synced itself: after a power loss
//! it may be older, which only makes the check weaker, never wrong, and then nothing is in doubt: what is read is what
//! the disk has.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mainstay_core::{Lsn, Result};

use super::io_error;
use crate::log::storage::Known;

const SLOT_BYTES: usize = 40;
/// The slot that says whether something is in doubt.
const DOUBT: u64 = 2;

/// The file of the watermark.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    next_slot: u64,
    known: Known,
}

impl Watermark {
    /// Opens the file in a log's directory and reads the highest LSN in it, and the doubt.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(directory: &Path) -> Result<(Self, Known)> {
        let path = directory.join("watermark");
        let io = |error| io_error("the log's watermark cannot be used", &path, error);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let mut best = (Lsn::ZERO, 1);
        for slot in 0..2 {
            if let Slot::Holds(number) = read(&file, slot)
                && Lsn(number) >= best.0
            {
                best = (Lsn(number), slot);
            }
        }
        let in_doubt = !matches!(read(&file, DOUBT), Slot::Absent | Slot::Holds(0));
        let known = Known { synced: best.0, in_doubt };
        Ok((Self { file, next_slot: 1 - best.1, known }, known))
    }

    /// Notes what is known now.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn set(&mut self, known: Known) -> std::io::Result<()> {
        if known.synced != self.known.synced {
            self.write(self.next_slot, known.synced.0)?;
            self.next_slot = 1 - self.next_slot;
            self.known.synced = known.synced;
        }
        if known.in_doubt != self.known.in_doubt {
            self.write(DOUBT, u64::from(known.in_doubt))?;
            self.known.in_doubt = known.in_doubt;
        }
        Ok(())
    }

    fn write(&self, slot: u64, number: u64) -> std::io::Result<()> {
        let number = number.to_be_bytes();
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(blake3::hash(&number).as_bytes());
        self.file.write_all_at(&bytes, slot * SLOT_BYTES as u64)
    }
}

/// What is in a slot.
enum Slot {
    Absent,
    Spoiled,
    Holds(u64),
}

fn read(file: &File, slot: u64) -> Slot {
    let mut bytes = [0; SLOT_BYTES];
    if file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).is_err() {
        return Slot::Absent;
    }
    let (number, check) = bytes.split_at(8);
    match blake3::hash(number).as_bytes() == check {
        true => Slot::Holds(number.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))),
        false => Slot::Spoiled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_outlives_the_process_and_a_torn_write() {
        let directory = tempfile::tempdir().unwrap();
        let read = || Watermark::open(directory.path()).unwrap().1;
        assert_eq!(read(), Known::default());
        let mut watermark = Watermark::open(directory.path()).unwrap().0;
        for (synced, in_doubt) in [(3, false), (3, true), (9, false), (9, true), (12, true), (12, false)] {
            let known = Known { synced: Lsn(synced), in_doubt };
            watermark.set(known).unwrap();
            assert_eq!(read(), known);
        }
        let path = directory.path().join("watermark");
        let whole = std::fs::read(&path).unwrap();
        for slot in 0..3 {
            let mut torn = whole.clone();
            torn[slot * SLOT_BYTES + 20] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert!(read().synced >= Lsn(9) && read().in_doubt == (slot == 2), "{:?}", read());
        }
        // As an earlier version left it.
        std::fs::write(&path, &whole[..2 * SLOT_BYTES]).unwrap();
        assert_eq!(read(), Known { synced: Lsn(12), in_doubt: false });
    }
}
