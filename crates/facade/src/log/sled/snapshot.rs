//! sled's note of where its pages are, as a start found it.
//!
//! When sled is opened it reads its file from its last note on, and makes a new note, durably, of all pages that it found.
//! It may have found pages that the operating system shows and the disk does not have, because a sync failed before. A start
//! writes them again; but one that fails at that leaves a note of pages that a power loss then takes, and sled would look
//! for them and refuse the whole file, with all that is durable in it. So a start that fails puts back the note that it
//! found: the next one reads the same pages again, or does without those that are gone.
//!
//! An older note than that of the last start does not do: sled gives room away by what it noted last.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How sled's notes are called.
const PREFIX: &str = "snap.";
/// What follows the name of one that is being written.
const UNFINISHED: &str = "generating";

/// The note that a start found.
pub struct Snapshot {
    directory: PathBuf,
    files: Vec<(OsString, Vec<u8>)>,
}

impl Snapshot {
    /// Reads it from sled's directory, before sled is opened; there may be none yet.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn find(directory: &Path) -> std::io::Result<Self> {
        let mut files = Vec::new();
        for path in notes(directory)?.into_iter().filter(|path| !is_unfinished(path)) {
            if let Some(name) = path.file_name() {
                files.push((name.to_owned(), std::fs::read(&path)?));
            }
        }
        Ok(Self { directory: directory.to_owned(), files })
    }

    /// Puts it back in place of what sled noted since. The directory is still locked, and sled is closed.
    ///
    /// # Errors
    /// Whatever the file system says; then the newer note may be there still.
    pub fn put_back(&self) -> std::io::Result<()> {
        for (name, bytes) in &self.files {
            // Under another name first, so that there is never half of one.
            let aside = self.directory.join("found.note");
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&aside, self.directory.join(name))?;
        }
        for path in notes(&self.directory)? {
            if !self.files.iter().any(|(name, _)| path.file_name() == Some(name)) {
                std::fs::remove_file(path)?;
            }
        }
        match File::open(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_all(),
        }
    }
}

/// Removes notes that sled did not finish, because its process was killed in the middle of a start. sled takes the one of
/// the highest LSN for its last note, finished or not, and refuses the whole file if it cannot be read.
///
/// # Errors
/// Whatever the file system says.
pub fn remove_unfinished(directory: &Path) -> std::io::Result<()> {
    notes(directory)?.into_iter().filter(|path| is_unfinished(path)).try_for_each(std::fs::remove_file)
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

fn notes(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let files = match directory.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let paths = files.map(|file| Ok(file?.path()));
    let is_note =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    Ok(paths.collect::<Result<Vec<_>, Error>>()?.into_iter().filter(is_note).collect())
}
