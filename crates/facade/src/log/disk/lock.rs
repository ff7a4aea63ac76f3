//! One process per log directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use mainstay_core::{Error, ErrorKind, Result};

use super::io_error;

/// A fifth of a second in all.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Held while the log is open; the operating system lets it go when the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// `Unavailable` naming the process that holds it, its host and since when.
    pub fn take(directory: &Path) -> Result<Self> {
        let io = |error| io_error("the log's directory cannot be used", directory, error);
        let path = directory.join("LOCK");
        loop {
            std::fs::create_dir_all(directory).map_err(io)?;
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
            let held = Self::hold(file, directory)?;
            // A restore puts another directory in the place of the one that it holds.
            if is_at(&held.file, &path) {
                return Ok(held);
            }
        }
    }

    fn hold(mut file: File, directory: &Path) -> Result<Self> {
        let io = |error| io_error("the log's directory cannot be used", directory, error);
        match try_lock(&file) {
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
        // At once, so that nobody reads half of it.
        file.write_all(holder().as_bytes()).map_err(io)?;
        Ok(Self { file })
    }
}

/// Whether a file that was opened is still the one at its path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => number(held) == number(there),
        _ => false,
    }
}

/// Elsewhere what is open cannot be replaced.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Takes the lock; tries for a moment, because a child that the last holder was just starting has the file until it begins
/// its own program.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            locked => return locked,
        }
    }
    file.try_lock()
}

/// This process, for people who look for it: its id, name and host, and when it opened the log (RFC 3339, UTC).
fn holder() -> String {
    let command = std::env::args().next().unwrap_or_default();
    let name = Path::new(&command).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let host = sysinfo::System::host_name().unwrap_or_else(|| "an unknown host".to_owned());
    let since = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("process {} ({name}) on {host} since {since}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_log_where_and_since_when() {
        let directory = tempfile::tempdir().unwrap();
        // What an earlier holder left is longer than what the next one says.
        std::fs::write(directory.path().join("LOCK"), "x".repeat(4_096)).unwrap();
        let began = SystemTime::now() - Duration::from_secs(1);
        let held = DirectoryLock::take(directory.path()).unwrap();
        // A lock of its own for each opening, whichever process it is.
        let error = DirectoryLock::take(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        let (_, who) = text.split_once("is in use by process ").unwrap();
        let (who, _) = who.split_once("; stop it").unwrap();
        let (who, since) = who.split_once(" since ").unwrap();
        let (who, host) = who.split_once(" on ").unwrap();
        assert_eq!(who.split_once(" (").unwrap().0, std::process::id().to_string());
        assert_eq!(host, sysinfo::System::host_name().unwrap());
        let since = humantime::parse_rfc3339(since).unwrap();
        assert!(began <= since && since <= SystemTime::now(), "{text}");
        drop(held);
        DirectoryLock::take(directory.path()).unwrap();
    }
}
