//! The file that says which log this is, and the state before its first entry.
//!
//! ```text
//! version u8 = 1 | log id, 16 bytes | epoch u64 BE | lsn u64 BE | hash of that entry, 32 bytes | collections | seal, 32 bytes
//! ```
//!
//! The seal is BLAKE3 over everything before it. The file is replaced as a whole and is durable before anything follows, so
//! that a log is never without one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use mainstay_core::{EntryHash, Error, ErrorKind, LogId, LogIdentity, Lsn, Position, Result};
use uuid::Uuid;

use super::{io_error, sync_directory};
use crate::log::{Checkpoint, codec};

const VERSION: u8 = 1;
const SEAL_BYTES: usize = 32;

/// Where it is in a log's directory.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("checkpoint")
}

/// Reads the checkpoint of a log's directory; `None` if there is none.
///
/// # Errors
/// `Corrupt` if it is damaged, and whatever the file system says.
pub fn read(directory: &Path) -> Result<Option<Checkpoint>> {
    let path = path(directory);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("the log's checkpoint cannot be read", &path, error)),
    };
    let damaged = |what: &str| damaged(directory, what);
    let covered = bytes.len().checked_sub(SEAL_BYTES).and_then(|at| {
        let (covered, seal) = bytes.split_at(at);
        (blake3::hash(covered).as_bytes() == seal).then_some(covered)
    });
    let mut rest = covered.ok_or_else(|| damaged("its checkpoint fails its checksum"))?;
    let short = || damaged("its checkpoint is short");
    let [version] = take(&mut rest).ok_or_else(short)?;
    if version != VERSION {
        return Err(damaged(&format!(
            "its checkpoint is of version {version}, this program reads {VERSION}"
        )));
    }
    let id = LogId(Uuid::from_bytes(take(&mut rest).ok_or_else(short)?));
    let epoch = u64::from_be_bytes(take(&mut rest).ok_or_else(short)?);
    let lsn = Lsn(u64::from_be_bytes(take(&mut rest).ok_or_else(short)?));
    let hash = EntryHash(take(&mut rest).ok_or_else(short)?);
    let position = Position { log: LogIdentity { id, epoch }, lsn, hash };
    Ok(Some(Checkpoint { position, collections: codec::decode_collections(rest)? }))
}

/// What is wrong with a log that is damaged beyond its entries.
pub fn damaged(directory: &Path, what: &str) -> Error {
    let text =
        format!("the log in {} is damaged: {what}; restore the directory from a copy", directory.display());
    Error::new(ErrorKind::Corrupt, text)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

/// Puts a checkpoint in the place of the one before, durably.
///
/// # Errors
/// Whatever the file system says; the one before is there then, or this one.
pub fn write(directory: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let Position { log, lsn, hash } = checkpoint.position;
    let mut bytes = vec![VERSION];
    bytes.extend(log.id.0.as_bytes());
    bytes.extend(log.epoch.to_be_bytes());
    bytes.extend(lsn.0.to_be_bytes());
    bytes.extend(hash.0);
    bytes.extend(codec::encode_collections(&checkpoint.collections)?);
    let seal = blake3::hash(&bytes);
    bytes.extend(seal.as_bytes());
    let (path, new) = (path(directory), directory.join("checkpoint.new"));
    let put = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_directory(directory)
    };
    put().map_err(|error| io_error("the log's checkpoint cannot be written", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Collections;

    #[test]
    fn a_checkpoint_reads_back_as_it_was_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let log = LogIdentity { id: LogId(Uuid::from_u128(7)), epoch: 3 };
        let position = Position { log, lsn: Lsn(9), hash: EntryHash([5; 32]) };
        let checkpoint = Checkpoint { position, collections: Collections::new() };
        write(directory.path(), &checkpoint).unwrap();
        assert_eq!(read(directory.path()).unwrap(), Some(checkpoint));
        let whole = std::fs::read(path(directory.path())).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(path(directory.path()), damaged).unwrap();
            assert_eq!(read(directory.path()).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            std::fs::write(path(directory.path()), &whole[..at]).unwrap();
            assert_eq!(read(directory.path()).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
        }
    }
}
