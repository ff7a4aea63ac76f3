//! The directory of an embedded store.
//!
//! ```text
//! mainstay.json      the control document, with its checksum
//! LOCK               locked while a process has the store open
//! collections/NAME/  a shard; NAME is a collection's name
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as IoKind, Write};
use std::path::{Path, PathBuf};

use mainstay_core::{CollectionName, Error, ErrorKind, Result};
use parking_lot::Mutex;

const CONTROL_FILE: &str = "mainstay.json";
const LOCK_FILE: &str = "LOCK";
const COLLECTIONS: &str = "collections";
/// What a shard is renamed to before it is removed; a name that no collection has.
const REMOVED_PREFIX: &str = ".removed-";

/// An open directory.
pub struct Directory {
    path: PathBuf,
    lock: Mutex<Option<File>>,
}

impl Directory {
    /// Opens and locks a directory, which is created if it is not there.
    ///
    /// # Errors
    /// `Invalid` if it holds something else, `Unavailable` if another process has it or it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| io("creating", path, e))?;
        if !path.join(LOCK_FILE).exists()
            && fs::read_dir(path).map_err(|e| io("reading", path, e))?.next().is_some()
        {
            return Err(Error::invalid(format!(
                "{} holds something other than an embedded Qdrant store; choose an empty directory",
                path.display()
            )));
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|e| io("opening", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("another process has the embedded Qdrant store {} open", path.display()),
                ));
            }
            Err(TryLockError::Error(e)) => return Err(io("locking", &lock_path, e)),
        }
        let collections = path.join(COLLECTIONS);
        fs::create_dir_all(&collections).map_err(|e| io("creating", &collections, e))?;
        let directory = Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) };
        directory.sweep()?;
        Ok(directory)
    }

    fn entries(&self) -> Result<Vec<String>> {
        let path = self.path.join(COLLECTIONS);
        let entries = fs::read_dir(&path).map_err(|e| io("reading", &path, e))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_, _>>().map_err(|e| io("reading", &path, e))
    }

    /// Removes what an interrupted removal left.
    fn sweep(&self) -> Result<()> {
        for name in self.entries()?.iter().filter(|name| name.starts_with(REMOVED_PREFIX)) {
            let path = self.path.join(COLLECTIONS).join(name);
            fs::remove_dir_all(&path).map_err(|e| io("removing", &path, e))?;
        }
        Ok(())
    }

    /// The collections that have a shard.
    ///
    /// # Errors
    /// `Unavailable` if the directory cannot be read.
    pub fn collections(&self) -> Result<Vec<CollectionName>> {
        Ok(self.entries()?.iter().filter_map(|name| CollectionName::new(name).ok()).collect())
    }

    /// Where the shard of a collection is.
    pub fn shard(&self, name: &CollectionName) -> PathBuf {
        self.path.join(COLLECTIONS).join(name.as_str())
    }

    /// Removes a shard: renamed first, so that no half of it is ever taken for a whole.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be removed.
    pub fn remove(&self, name: &CollectionName) -> Result<()> {
        let from = self.shard(name);
        let to = self.path.join(COLLECTIONS).join(format!("{REMOVED_PREFIX}{}", uuid::Uuid::new_v4()));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
            Err(e) => return Err(io("removing", &from, e)),
        }
        fs::remove_dir_all(&to).map_err(|e| io("removing", &to, e))
    }

    /// The stamp and the control document; `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt` if the file is damaged, `Unavailable` if it cannot be read.
    pub fn control(&self) -> Result<Option<(String, String)>> {
        self.check()?;
        let path = self.path.join(CONTROL_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
            Err(e) => return Err(io("reading", &path, e)),
        };
        let mut lines = text.lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(sum), Some(stamp), Some(document)) if sum == checksum(stamp, document) => {
                Ok(Some((stamp.to_owned(), document.to_owned())))
            }
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} is damaged; restore the directory from a backup, or empty it to have the store filled \
                     again",
                    path.display()
                ),
            )),
        }
    }

    /// Replaces the control document durably: a synced temporary file, renamed, and the directory synced.
    ///
    /// # Errors
    /// `StorageFull` or `Unavailable` if it cannot be written.
    pub fn set_control(&self, stamp: &str, document: &str) -> Result<()> {
        self.check()?;
        let path = self.path.join(CONTROL_FILE);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            write!(file, "{}\n{stamp}\n{document}\n", checksum(stamp, document))?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|e| io("writing", &path, e))
    }

    /// Whether the directory is still the one that was opened.
    ///
    /// # Errors
    /// `Unavailable` if it is gone or was replaced.
    pub fn check(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let held = match &*self.lock.lock() {
            Some(file) => file.metadata(),
            None => return Err(mainstay_core::store::closed()),
        };
        let path = self.path.join(LOCK_FILE);
        let held = held.map_err(|e| io("looking at", &path, e))?;
        let there = fs::metadata(&path).map_err(|e| io("looking at", &path, e))?;
        if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("{} was replaced; open the store again", self.path.display()),
        ))
    }

    /// Lets other processes have the directory.
    pub fn release(&self) {
        self.lock.lock().take();
    }
}

fn checksum(stamp: &str, document: &str) -> String {
    format!("{:08x}", crc32fast::hash(format!("{stamp}\n{document}").as_bytes()))
}

fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let kind =
        if error.kind() == IoKind::StorageFull { ErrorKind::StorageFull } else { ErrorKind::Unavailable };
    Error::new(kind, format!("{doing} {}: {error}", path.display())).with_source(error)
}
