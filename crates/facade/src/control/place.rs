//! Where the socket is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the socket in the directory of the log.
const SOCKET: &str = "control.sock";

/// The socket of a directory, by a path that is short enough for a socket's address (107 bytes on Linux), however
/// deep the directory is.
pub struct Place {
    /// The path to bind or connect.
    pub path: PathBuf,
    /// Keeps the number in `path` ours.
    _directory: File,
}

impl Place {
    /// The socket of the log in this directory.
    pub fn of(log: &Path) -> io::Result<Self> {
        let directory = File::open(log)?;
        Ok(Self { path: through(&directory, log).join(SOCKET), _directory: directory })
    }
}

#[cfg(target_os = "linux")]
fn through(directory: &File, path: &Path) -> PathBuf {
    use std::os::fd::AsRawFd;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    // Without /proc the plain path has to do.
    if short.is_dir() { short } else { path.to_owned() }
}

#[cfg(not(target_os = "linux"))]
fn through(_directory: &File, path: &Path) -> PathBuf {
    path.to_owned()
}
