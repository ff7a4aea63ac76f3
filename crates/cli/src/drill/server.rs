//! The server of a member, as a process that the drill owns.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mainstay::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a server may take until it accepts connections.
const START: Duration = Duration::from_secs(60);

/// A server process. It is killed when this is dropped.
pub struct ServerProcess {
    command: Vec<String>,
    address: String,
    storage: PathBuf,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts a server and waits until it accepts connections at `address` (host:port).
    ///
    /// # Errors
    /// `Invalid` if the command is empty or cannot be run, `Unavailable` if something is at the address already,
    /// `Timeout` if nothing accepts connections there.
    pub async fn start(command: Vec<String>, address: &str, storage: &Path) -> Result<Self> {
        if TcpStream::connect(address).await.is_ok() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("something listens at {address} already; the drill starts the server itself"),
            ));
        }
        let mut server =
            Self { command, address: address.to_owned(), storage: storage.to_owned(), child: None };
        server.run().await?;
        Ok(server)
    }

    async fn run(&mut self) -> Result<()> {
        let Some((program, args)) = self.command.split_first() else {
            return Err(Error::invalid("the command that starts the server is empty"));
        };
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::invalid(format!("cannot run {program}: {error}")))?;
        self.child = Some(child);
        let until = Instant::now() + START;
        while TcpStream::connect(&self.address).await.is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{program} ended with {status} instead of listening at {}", self.address),
                ));
            }
            if Instant::now() > until {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{program} does not listen at {} after {} s", self.address, START.as_secs()),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the server is not running"))?;
        kill_process(pid, signal).map_err(|error| {
            Error::new(ErrorKind::Internal, "the server cannot be signalled").with_source(error)
        })
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// `Unavailable` if it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if let Some(mut child) = self.child.take() {
            let ended = child.wait().await;
            ended.map_err(|error| {
                Error::new(ErrorKind::Internal, "the server does not end").with_source(error)
            })?;
        }
        Ok(())
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.run().await
    }

    /// Removes everything that it stored; it must not run.
    ///
    /// # Errors
    /// `Unavailable` if something cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        let wipe = || {
            for entry in std::fs::read_dir(&self.storage)? {
                let path = entry?.path();
                if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
            }
            Ok(())
        };
        wipe().map_err(|error: std::io::Error| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the drill cannot empty {}: {error}", self.storage.display()),
            )
        })
    }

    /// Stops it where it is (SIGSTOP): connections stay, answers do not come.
    ///
    /// # Errors
    /// `Unavailable` if it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// `Unavailable` if it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }
}
