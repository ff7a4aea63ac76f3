//! Tells the process that holds a tier what to do.

use std::io::ErrorKind as IoKind;
use std::path::Path;
use std::time::Duration;

use mainstay_core::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::place::Place;
use super::wire::{Order, order_line, read_answer};
use crate::config::Config;

/// The process that holds the tier answers by then.
const ANSWERED: Duration = Duration::from_secs(10);
/// A snapshot is made by then.
const SNAPSHOT: Duration = Duration::from_secs(6 * 3_600);

/// A connection to the process that holds a tier.
///
/// ```no_run
/// use mainstay::Config;
/// use mainstay::control::{Control, Order};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::load("mainstay.toml")?;
/// if let Some(mut tier) = Control::connect(&config).await? {
///     tier.order(&Order::Failover { member: "secondary".into() }).await?;
///     println!("{}", tier.order(&Order::Status {}).await?);
/// }
/// # Ok(()) }
/// ```
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Reaches the process that holds the tier of this config; `None` if there is none, or its log is in memory.
    ///
    /// # Errors
    /// `Unavailable` if it does not take the connection.
    pub async fn connect(config: &Config) -> Result<Option<Self>> {
        if config.log.is_in_memory() {
            return Ok(None);
        }
        match Self::connect_at(&config.log.path).await {
            Ok(control) => Ok(Some(control)),
            // No directory, no socket, or one that a process left behind when it was killed.
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::ConnectionRefused) => Ok(None),
            Err(error) => {
                let text = "the process that holds the tier does not take a connection";
                Err(Error::new(ErrorKind::Unavailable, text).with_source(error))
            }
        }
    }

    async fn connect_at(log: &Path) -> std::io::Result<Self> {
        let place = Place::of(log)?;
        let stream = timeout(ANSWERED, UnixStream::connect(&place.path)).await??;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Gives an order and answers what the tier said. To [`Order::Events`] each [`next`](Self::next) is an event.
    ///
    /// # Errors
    /// What the tier said, `Timeout` if it says nothing, `Unavailable` if the connection ends.
    pub async fn order(&mut self, order: &Order) -> Result<Value> {
        let line = order_line(order)?;
        let told = async {
            self.stream.get_mut().write_all(line.as_bytes()).await.map_err(lost)?;
            self.next().await?.ok_or_else(|| lost(IoKind::UnexpectedEof.into()))
        };
        // Reading every point takes its time.
        let answered = if matches!(order, Order::Snapshot {}) { SNAPSHOT } else { ANSWERED };
        timeout(answered, told).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "the process that holds the tier does not answer"))
        })
    }

    /// The next answer; `None` if the other side is done.
    ///
    /// # Errors
    /// As [`order`](Self::order); it waits as long as it takes.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await.map_err(lost)? {
            0 => Ok(None),
            _ => read_answer(&line).map(Some),
        }
    }
}

fn lost(error: std::io::Error) -> Error {
    let text = "the connection to the process that holds the tier ended";
    Error::new(ErrorKind::Unavailable, text).with_source(error)
}
