//! One process per log directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use mainstay_core::{Error, ErrorKind, Result};

use super::store::io_error;

/// Held while the log is open; the operating system lets it go when the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// `Unavailable` naming the process that holds it.
    pub fn take(directory: &Path) -> Result<Self> {
        let io = |error| io_error("the log's directory cannot be used", directory, error);
        std::fs::create_dir_all(directory).map_err(io)?;
        let path = directory.join("LOCK");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only the message suffers if the holder cannot be read.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() {
                    "another process".to_owned()
                } else {
                    holder.trim().to_owned()
                };
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the log in {} is in use by {holder}; stop it, or use another log.path",
                        directory.display()
                    ),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        let command = std::env::args().next().unwrap_or_default();
        let name = Path::new(&command)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        writeln!(file, "process {} ({name})", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}
