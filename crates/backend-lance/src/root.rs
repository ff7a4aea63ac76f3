//! The directory of the store: its identity, its lock, and a path that follows it.
//!
//! The directory may be taken away while the store runs, and LanceDB creates directories that it
//! misses when it writes. So LanceDB is given a path through our open handle of the directory: a
//! write under way when the directory is renamed goes to the renamed directory, and one to a
//! removed directory fails; neither leaves debris under the old name. Before and after each write
//! the name is compared with the handle.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as IoKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mainstay_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::barrier::sync_directory;
use crate::error;
use crate::position::{RECORD_FILE, RECORD_TEMP, Stamp, StoreRecord};

const LOCK_FILE: &str = "mainstay.lock";
/// Removed tables wait under this prefix to be deleted.
pub(crate) const TRASH_PREFIX: &str = ".mainstay-trash-";

/// An open and locked directory.
pub(crate) struct Root {
    path: PathBuf,
    base: PathBuf,
    inode: (u64, u64),
    /// Keeps the number in `base` ours.
    _handle: File,
    lock: File,
    /// The record in place and the one before or after it, while one takes the other's place.
    stamps: Mutex<[Stamp; 2]>,
}

impl Root {
    /// Opens the directory and takes its lock; creates it only if `create` says so. An empty
    /// directory becomes a new store.
    pub(crate) fn open(path: &Path, create: bool) -> Result<(Self, StoreRecord)> {
        if create {
            create_durably(path)?;
        }
        let opening = |e| error::io(&format!("opening the directory {}", path.display()), e);
        let handle = File::open(path).map_err(opening)?;
        let metadata = handle.metadata().map_err(opening)?;
        if !metadata.is_dir() {
            return Err(Error::new(ErrorKind::Unavailable, format!("{} is no directory", path.display())));
        }
        let base = base(path, &handle);
        if StoreRecord::read(&base)?.is_none() {
            refuse_foreign_files(path, &base, create)?;
        }
        let lock = lock(path, &base)?;
        // Read again with the lock held: an earlier holder may just have changed it.
        if StoreRecord::read(&base)?.is_none() {
            StoreRecord::new().write(&base, |_| {})?;
        }
        let (record, stamp) = StoreRecord::read(&base)?
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the record of the store went away"))?;
        let inode = (metadata.dev(), metadata.ino());
        let root = Self {
            path: path.to_owned(),
            base,
            inode,
            _handle: handle,
            lock,
            stamps: Mutex::new([stamp; 2]),
        };
        Ok((root, record))
    }

    /// A path of the directory that stays right when the directory is renamed (on Linux).
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Whether the configured path still names this directory with the record we last wrote.
    ///
    /// # Errors
    /// `Unavailable` if not.
    pub(crate) fn verify(&self) -> Result<()> {
        let changed = |what: &str| {
            Err(Error::new(ErrorKind::Unavailable, format!("the directory {} {what}", self.path.display())))
        };
        match fs::metadata(&self.path) {
            Ok(metadata) if (metadata.dev(), metadata.ino()) == self.inode => {}
            Ok(_) => return changed("was replaced by another one"),
            Err(e) if e.kind() == IoKind::NotFound => return changed("is gone"),
            Err(e) => return Err(error::io(&format!("looking at {}", self.path.display()), e)),
        }
        match Stamp::read(&self.base)? {
            Some(stamp) if self.stamps.lock().contains(&stamp) => Ok(()),
            Some(_) => changed("holds another record than the one we wrote"),
            None => changed("lost its record"),
        }
    }

    /// Replaces the record.
    pub(crate) fn write_record(&self, record: &StoreRecord) -> Result<()> {
        record.write(&self.base, |new| {
            let mut stamps = self.stamps.lock();
            *stamps = [stamps[1], new];
        })
    }

    /// Gives the lock back, so that the directory can be opened again while readers still hold this.
    pub(crate) fn release(&self) {
        if let Err(e) = self.lock.unlock() {
            tracing::debug!(error = %e, "unlocking the store failed");
        }
    }
}

/// Creates a directory and those above it, and makes their names durable.
fn create_durably(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(path).map_err(|e| error::io(&format!("creating {}", path.display()), e))?;
    missing.iter().filter_map(|path| path.parent()).try_for_each(sync_directory)
}

#[cfg(target_os = "linux")]
fn base(_path: &Path, handle: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    let base = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    // Without /proc the plain path has to do.
    if base.is_dir() { base } else { _path.to_owned() }
}

#[cfg(not(target_os = "linux"))]
fn base(path: &Path, _handle: &File) -> PathBuf {
    path.to_owned()
}

/// A directory without a record must be empty: it may be somebody's, or a store that lost its record.
fn refuse_foreign_files(path: &Path, base: &Path, opening: bool) -> Result<()> {
    let reading = |e| error::io(&format!("reading the directory {}", path.display()), e);
    for entry in fs::read_dir(base).map_err(reading)? {
        let name = entry.map_err(reading)?.file_name();
        if ![LOCK_FILE, RECORD_TEMP, "lost+found"].iter().any(|ours| name == *ours) {
            let kind = if opening { ErrorKind::Invalid } else { ErrorKind::Unavailable };
            return Err(Error::new(
                kind,
                format!(
                    "the directory {} holds {name:?} but no {RECORD_FILE}, so it is no store; \
                     give an empty or new directory",
                    path.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Locks the directory for this process; the lock ends with the process.
fn lock(path: &Path, base: &Path) -> Result<File> {
    let locking = |e| error::io(&format!("locking {}", path.display()), e);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(base.join(LOCK_FILE))
        .map_err(locking)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the directory {} is in use by process {holder}", path.display()),
            )
            .with_context("holder", holder));
        }
        Err(TryLockError::Error(e)) => return Err(locking(e)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(locking)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_holds_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let (root, _) = Root::open(directory.path(), true).unwrap();
        let error = Root::open(directory.path(), true).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        root.release();
        assert!(Root::open(directory.path(), true).is_ok());
    }

    #[test]
    fn somebody_elses_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "text").unwrap();
        let error = Root::open(directory.path(), true).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_went_away_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("store"), parent.path().join("away"));
        let (root, record) = Root::open(&path, true).unwrap();
        root.verify().unwrap();
        fs::rename(&path, &away).unwrap();
        assert_eq!(root.verify().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(Root::open(&path, false).err().unwrap().kind(), ErrorKind::Unavailable);
        fs::create_dir(&path).unwrap();
        assert_eq!(root.verify().unwrap_err().kind(), ErrorKind::Unavailable);
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        root.verify().unwrap();
        fs::remove_file(path.join(RECORD_FILE)).unwrap();
        assert!(root.verify().is_err());
        record.write(&path, |_| {}).unwrap();
        assert!(root.verify().is_err());
    }
}
