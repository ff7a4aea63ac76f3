//! Listens, and does what it is told.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use mainstay_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::place::Place;
use super::wire::{MAX_ORDER_BYTES, Order, answer_line, read_order};
use crate::tier::{Release, WeakTier, until_closing};

/// Connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 16;
/// A connection without an order for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// An answer is taken by then, or the connection is closed.
const TAKEN: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The socket of a tier, taken.
pub(crate) struct Server {
    listener: UnixListener,
    /// Who may give orders: the user of this process, who owns the socket, and root.
    user: u32,
    place: Place,
}

impl Server {
    /// Listens in the directory of a log that this process owns.
    ///
    /// # Errors
    /// `Unavailable` if that cannot be.
    pub(crate) fn bind(log: &Path) -> Result<Self> {
        let bind = || {
            let place = Place::of(log)?;
            // Whoever held the log before is gone, and may have left his behind.
            match std::fs::remove_file(&place.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&place.path)?;
            std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o600))?;
            let user = std::fs::metadata(&place.path)?.uid();
            Ok(Self { listener, user, place })
        };
        bind().map_err(|error: std::io::Error| {
            let text = format!("the control socket in {} cannot be made", log.display());
            Error::new(ErrorKind::Unavailable, text).with_source(error)
        })
    }

    /// Does what it is told until the tier closes; what is under way then is cut off.
    pub(crate) async fn serve(self, tier: WeakTier, mut closing: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = until_closing(&mut closing) => break,
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) if self.may_order(&stream) => {
                        connections.spawn(converse(stream, tier.clone()));
                    }
                    Ok(_) => tracing::warn!("another user's connection to the control socket was refused"),
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the control socket was not accepted");
                        tokio::select! {
                            () = until_closing(&mut closing) => break,
                            () = sleep(PAUSE) => {}
                        }
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        // The next holder of the log would remove it too.
        let _ = std::fs::remove_file(&self.place.path);
    }

    fn may_order(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.user || peer.uid() == 0)
    }
}

/// Answers orders until the other side is done. Whoever does not keep to the protocol is hung up on.
async fn converse(stream: UnixStream, tier: WeakTier) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(line) = next_line(&mut reader).await {
        let answer = match read_order(&line) {
            Ok(Order::Events {}) => return tell_events(&tier, reader, writer).await,
            Ok(order) => carry_out(&order, &tier).await,
            Err(error) => Err(error),
        };
        if !write(&mut writer, &answer).await {
            return;
        }
    }
}

async fn next_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = String::new();
    let mut limited = reader.take(MAX_ORDER_BYTES as u64);
    match timeout(IDLE, limited.read_line(&mut line)).await {
        Ok(Ok(1..)) if line.ends_with('\n') => Some(line),
        _ => None,
    }
}

async fn write(writer: &mut OwnedWriteHalf, answer: &Result<Value>) -> bool {
    matches!(timeout(TAKEN, writer.write_all(answer_line(answer).as_bytes())).await, Ok(Ok(())))
}

async fn carry_out(order: &Order, tier: &WeakTier) -> Result<Value> {
    let tier = tier.upgrade().ok_or_else(crate::tier::read::closing)?;
    let done = |done: Result<()>| done.map(|()| json!({}));
    match order {
        Order::Status {} => Ok(tier.status().to_json()),
        Order::Snapshot {} => tier.snapshot().await.map(|report| report.to_json()),
        Order::Failover { member } => done(tier.failover(member)),
        Order::Failback { member } => done(tier.failback(member)),
        Order::Quarantine { member, reason } => done(tier.quarantine(member, reason)),
        Order::Release { member, reload } => {
            done(tier.release(member, if *reload { Release::Reload } else { Release::Resume }))
        }
        // Answered line by line elsewhere.
        Order::Events {} => Ok(json!({})),
    }
}

/// Tells every event until the tier closes or the other side hangs up.
async fn tell_events(tier: &WeakTier, mut reader: BufReader<OwnedReadHalf>, mut writer: OwnedWriteHalf) {
    let Some(mut events) = tier.upgrade().map(|tier| tier.events()) else { return };
    // That listening has begun, so that nothing that happens from now on is missed.
    if !write(&mut writer, &Ok(json!({}))).await {
        return;
    }
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) if write(&mut writer, &Ok(event.to_json())).await => {}
                _ => return,
            },
            // Nothing more is to come from the other side but its end.
            _ = reader.fill_buf() => return,
        }
    }
}
