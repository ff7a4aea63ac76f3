//! The text files of a directory, as git would list them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use mainstay_core::{Error, ErrorKind, Result};

use super::chunk::Recipe;

/// Largest file that is indexed; what is larger is seldom written by a person.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A text file to index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path below the directory, with `/` between its parts on every system.
    pub path: String,
    /// Where it is.
    pub location: PathBuf,
    /// The hash of its content under the recipe.
    pub hash: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A file that is not indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub location: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why a file is not indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It holds no text (a NUL byte, or not UTF-8).
    Binary,
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge,
    /// It holds nothing but white space.
    Empty,
    /// Its name is not UTF-8, so no payload could name it.
    Name,
    /// It could not be read.
    Unreadable(String),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary => f.write_str("no text"),
            Self::TooLarge => write!(f, "larger than {} MiB", MAX_FILE_BYTES >> 20),
            Self::Empty => f.write_str("empty"),
            Self::Name => f.write_str("its name is not UTF-8"),
            Self::Unreadable(error) => f.write_str(error),
        }
    }
}

/// What a walk found, both in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The files to index.
    pub files: Vec<SourceFile>,
    /// The files that are not indexed, but for those that git ignores and hidden ones.
    pub skipped: Vec<Skipped>,
}

/// Walks a directory: what `.gitignore` files name and hidden files are passed over in silence,
/// links are not followed, and files that hold no text, are too large or cannot be read are
/// answered as skipped.
///
/// Ignore files above the directory count only if it lies in a git work tree.
///
/// # Errors
/// `Invalid` if there is no such directory, `Unavailable` if it cannot be read.
pub fn walk(dir: &Path, recipe: &Recipe) -> Result<Walked> {
    let meta = std::fs::metadata(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(format!("there is no directory {}", dir.display())),
        _ => Error::new(ErrorKind::Unavailable, format!("cannot read {}: {error}", dir.display())),
    })?;
    if !meta.is_dir() {
        return Err(Error::invalid(format!("{} is not a directory", dir.display())));
    }
    std::fs::read_dir(dir).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot read {}: {error}", dir.display()))
    })?;
    let mut builder = WalkBuilder::new(dir);
    builder
        .standard_filters(true)
        .ignore(false)
        .require_git(false)
        .parents(in_work_tree(dir))
        .follow_links(false)
        .sort_by_file_name(std::ffi::OsStr::cmp);
    let mut walked = Walked::default();
    for entry in builder.build() {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                let location = entry.into_path();
                match source_file(dir, &location, recipe) {
                    Ok(file) => walked.files.push(file),
                    Err(reason) => walked.skipped.push(Skipped { location, reason }),
                }
            }
            Ok(_) => {}
            Err(error) => {
                let location = error_path(&error).unwrap_or(dir).to_owned();
                walked.skipped.push(Skipped { location, reason: SkipReason::Unreadable(error.to_string()) });
            }
        }
    }
    walked.files.sort_by(|a, b| a.path.cmp(&b.path));
    walked.skipped.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(walked)
}

/// Reads a file that a walk found; it may have changed since.
///
/// # Errors
/// Why it cannot be indexed any more.
pub fn read_source(location: &Path) -> std::result::Result<String, SkipReason> {
    let unreadable = |error: std::io::Error| SkipReason::Unreadable(error.to_string());
    let file = File::open(location).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more tells a file that is too large, whatever its metadata said.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(SkipReason::TooLarge);
    }
    if bytes.contains(&0) {
        return Err(SkipReason::Binary);
    }
    let text = String::from_utf8(bytes).map_err(|_| SkipReason::Binary)?;
    if text.trim().is_empty() {
        return Err(SkipReason::Empty);
    }
    Ok(text)
}

fn source_file(dir: &Path, location: &Path, recipe: &Recipe) -> std::result::Result<SourceFile, SkipReason> {
    let below = location.strip_prefix(dir).unwrap_or(location);
    let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
    let path = parts.ok_or(SkipReason::Name)?.join("/");
    let text = read_source(location)?;
    Ok(SourceFile {
        path,
        location: location.to_owned(),
        hash: recipe.file_hash(text.as_bytes()),
        size_bytes: text.len() as u64,
    })
}

fn in_work_tree(dir: &Path) -> bool {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().any(|above| above.join(".git").exists())
}

fn error_path(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => error_path(err),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn paths(dir: &Path) -> Vec<String> {
        walk(dir, &Recipe::new(100, "test")).unwrap().files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn files_are_listed_as_git_would() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for path in [
            "b.rs",
            "a/z.txt",
            "a/y.md",
            "target/out.rs",
            "a/secret.log",
            "a/keep.log",
            ".hidden",
            ".git/config",
        ] {
            write(dir, path, "text");
        }
        write(dir, ".gitignore", "target/\n*.log\n!keep.log\n");
        assert_eq!(paths(dir), ["a/keep.log", "a/y.md", "a/z.txt", "b.rs"]);
    }

    #[test]
    fn an_ignore_file_above_counts_inside_a_work_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".gitignore", "*.rs\n");
        write(dir.path(), "sub/a.rs", "text");
        assert_eq!(paths(&dir.path().join("sub")), ["a.rs"]);
        write(dir.path(), ".git/HEAD", "ref: refs/heads/main");
        assert!(paths(&dir.path().join("sub")).is_empty());
    }

    #[test]
    fn what_is_no_text_is_skipped_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "good.txt", "text");
        write(dir, "nul.bin", b"a\0b");
        write(dir, "latin.txt", b"caf\xe9");
        write(dir, "blank.txt", " \n");
        write(dir, "large.txt", "x".repeat(MAX_FILE_BYTES as usize + 1));
        write(dir, "just.txt", "x".repeat(MAX_FILE_BYTES as usize));
        let walked = walk(dir, &Recipe::new(100, "test")).unwrap();
        let files: Vec<_> = walked.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["good.txt", "just.txt"]);
        let skipped: Vec<_> = walked
            .skipped
            .iter()
            .map(|skipped| (skipped.location.file_name().unwrap().to_str().unwrap(), skipped.reason.clone()))
            .collect();
        assert_eq!(
            skipped,
            [
                ("blank.txt", SkipReason::Empty),
                ("large.txt", SkipReason::TooLarge),
                ("latin.txt", SkipReason::Binary),
                ("nul.bin", SkipReason::Binary),
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/file.txt", "text");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("a/file.txt"), dir.path().join("link.txt")).unwrap();
        assert_eq!(paths(dir.path()), ["a/file.txt"]);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "file", "text");
        let recipe = Recipe::new(100, "test");
        for bad in ["none", "file"] {
            assert_eq!(walk(&dir.path().join(bad), &recipe).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
