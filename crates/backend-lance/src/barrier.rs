//! Making files durable, and going back to what was durable.
//!
//! LanceDB never changes a file after writing it, so a file synced once needs no second sync. (The
//! hint at the newest version it does replace; a roll-back removes the hint.)

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind};
use std::path::{Path, PathBuf};

use mainstay_core::Result;
use parking_lot::Mutex;

use crate::error;
use crate::root::TRASH_PREFIX;

/// The extension of a table's directory.
const TABLE_EXTENSION: &str = "lance";
/// Directories inside a table are at most this deep (`_indices/<uuid>/<part>`), with room to spare.
const MAX_DEPTH: usize = 8;

/// Remembers which files are durable.
#[derive(Default)]
pub(crate) struct Barrier {
    synced: Mutex<HashMap<String, HashSet<PathBuf>>>,
}

impl Barrier {
    /// Syncs every file of a table that was not synced before, and its directories.
    pub(crate) fn sync(&self, base: &Path, table: &str) -> Result<()> {
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        list(&table_path(base, table), 0, &mut files, &mut directories)
            .map_err(|e| error::io("listing a table", e))?;
        let before = self.synced.lock().remove(table).unwrap_or_default();
        let mut synced = HashSet::with_capacity(files.len());
        for file in files {
            if !before.contains(&file) {
                match File::open(&file).and_then(|file| file.sync_all()) {
                    Ok(()) => {}
                    // Clean-up removed it, so no version that is kept needs it.
                    Err(e) if e.kind() == IoKind::NotFound => continue,
                    Err(e) => return Err(error::io("syncing a file of a table", e)),
                }
            }
            synced.insert(file);
        }
        // What was inside comes before what names it.
        directories.iter().rev().try_for_each(|directory| sync_directory(directory))?;
        self.synced.lock().insert(table.to_owned(), synced);
        Ok(())
    }
}

/// Makes the names in a directory durable; one that is gone needs nothing.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    match File::open(path).and_then(|directory| directory.sync_all()) {
        Err(e) if e.kind() != IoKind::NotFound => {
            Err(error::io(&format!("syncing the directory {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

fn list(
    path: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    directories: &mut Vec<PathBuf>,
) -> io::Result<()> {
    directories.push(path.to_owned());
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == IoKind::NotFound && depth > 0 => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                list(&entry.path(), depth + 1, files, directories)?
            }
            Ok(_) => files.push(entry.path()),
            Err(e) if e.kind() == IoKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The name of a table's directory.
pub(crate) fn table_directory(table: &str) -> String {
    format!("{table}.{TABLE_EXTENSION}")
}

/// The directory of a table.
pub(crate) fn table_path(base: &Path, table: &str) -> PathBuf {
    base.join(table_directory(table))
}

/// The table whose files are in a directory of this name.
pub(crate) fn table_of_directory(name: &str) -> Option<&str> {
    name.rsplit_once('.').and_then(|(table, extension)| (extension == TABLE_EXTENSION).then_some(table))
}

/// The tables in a directory; what earlier removals left behind is deleted.
pub(crate) fn list_tables(base: &Path) -> Result<Vec<String>> {
    let reading = |e| error::io("listing the tables", e);
    let mut tables = Vec::new();
    for entry in fs::read_dir(base).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(TRASH_PREFIX) {
            fs::remove_dir_all(entry.path()).map_err(|e| error::io("deleting a removed table", e))?;
        } else if let Some(table) = table_of_directory(&name) {
            tables.push(table.to_owned());
        }
    }
    Ok(tables)
}

/// Removes a table: it leaves its name in one durable step, then its files go.
pub(crate) fn remove_table(base: &Path, table: &str) -> Result<()> {
    let removing = |e| error::io("removing a table", e);
    let trash = base.join(format!("{TRASH_PREFIX}{}", uuid::Uuid::new_v4()));
    match fs::rename(table_path(base, table), &trash) {
        Ok(()) => {}
        Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
        Err(e) => return Err(removing(e)),
    }
    sync_directory(base)?;
    fs::remove_dir_all(&trash).map_err(removing)
}

/// Removes every version of a table after `version`: they came after the last barrier, so that a
/// crash may have torn them, and the log holds what they did.
pub(crate) fn roll_back(base: &Path, table: &str, version: u64) -> Result<()> {
    let versions = table_path(base, table).join("_versions");
    let missing = || {
        error::corrupt(format!("version {version} of table {table} is missing; {}", error::RESTORE_OR_EMPTY))
    };
    let entries = match fs::read_dir(&versions) {
        Err(e) if e.kind() == IoKind::NotFound => return Err(missing()),
        entries => entries.map_err(|e| error::io("listing the versions of a table", e))?,
    };
    let (mut found, mut newer) = (false, Vec::new());
    for entry in entries {
        let entry = entry.map_err(|e| error::io("listing the versions of a table", e))?;
        match entry.file_name().to_str().map(manifest_version) {
            Some(Some(at)) if at > version => newer.push(entry.path()),
            Some(Some(at)) => found |= at == version,
            // Hints and temporary files speak of versions that may be gone.
            _ if entry.file_type().is_ok_and(|kind| kind.is_file()) => newer.push(entry.path()),
            _ => {}
        }
    }
    if !found {
        return Err(missing());
    }
    for path in newer {
        fs::remove_file(path).map_err(|e| error::io("rolling a table back", e))?;
    }
    Ok(())
}

/// The version that a manifest's name speaks of, in LanceDB's old naming (`7.manifest`) or its new one
/// (20 digits, counted down from the largest number, so that the newest sorts first).
pub(crate) fn manifest_version(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".manifest")?;
    let number: u64 = digits.parse().ok()?;
    Some(if digits.len() == 20 { u64::MAX - number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_after_the_barrier_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let versions = table_path(directory.path(), "t").join("_versions");
        fs::create_dir_all(&versions).unwrap();
        for version in 1..=5_u64 {
            let name =
                if version % 2 == 0 { format!("{version}") } else { format!("{:020}", u64::MAX - version) };
            fs::write(versions.join(format!("{name}.manifest")), "").unwrap();
        }
        roll_back(directory.path(), "t", 3).unwrap();
        let mut left: Vec<_> = fs::read_dir(&versions)
            .unwrap()
            .map(|entry| manifest_version(entry.unwrap().file_name().to_str().unwrap()).unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3]);
        let error = roll_back(directory.path(), "t", 4).unwrap_err();
        assert_eq!(error.kind(), mainstay_core::ErrorKind::Corrupt);
    }

    #[test]
    fn a_removed_table_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(table_path(directory.path(), "a.b").join("data")).unwrap();
        fs::create_dir_all(directory.path().join(format!("{TRASH_PREFIX}x/data"))).unwrap();
        assert_eq!(list_tables(directory.path()).unwrap(), ["a.b"]);
        remove_table(directory.path(), "a.b").unwrap();
        remove_table(directory.path(), "a.b").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
