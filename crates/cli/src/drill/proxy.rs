//! A proxy on loopback that loses what it should carry.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Carries everything.
    Fair,
    /// Takes connections and bytes, and passes nothing on.
    Dropping,
    /// Cuts every connection, and each new one.
    Cutting,
}

/// A running proxy. It ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of `target` (host:port).
    ///
    /// # Errors
    /// `Unavailable` if no port is free.
    pub async fn start(target: &str) -> Result<Self> {
        let fail = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the proxy cannot listen").with_source(error)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let (weather, watched) = watch::channel(Weather::Fair);
        let target: Arc<str> = target.into();
        let task = tokio::spawn(async move {
            // Dropped with this task, which ends the connections too.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(client, Arc::clone(&target), watched.clone()));
            }
        });
        Ok(Self { address, weather, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, for connections that are there too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, target: Arc<str>, weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Cutting {
        return;
    }
    let Ok(server) = TcpStream::connect(&*target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, weather.clone()) => {}
        () = pass(from_server, to_client, weather.clone()) => {}
        () = cut(weather) => {}
    }
}

async fn cut(mut weather: watch::Receiver<Weather>) {
    // An error says that the proxy ended.
    let _ = weather.wait_for(|weather| *weather == Weather::Cutting).await;
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 16 << 10];
    // A connection that lost bytes is of no use any more, like one whose packets never came through.
    let mut lost = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        lost |= *weather.borrow() == Weather::Dropping;
        if lost {
            if *weather.borrow() == Weather::Fair {
                return;
            }
            continue;
        }
        let Some(bytes) = buffer.get(..read) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
