//! A server that speaks S3, on loopback, with one bucket in memory: what is in it is to be seen and made older, and it may
//! be slow, fail, or cut connections.
//!
//! The crate `s3s` speaks for it, signatures and errors included. A request that has arrived whole takes effect although
//! who sent it is gone, and one that was cut has none, as in S3.

mod objects;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use s3s::auth::SimpleAuth;
use s3s::dto::StreamingBlob;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::objects::Objects;

/// The name of the bucket.
pub const NAME: &str = "tests";
/// The key that requests are signed with, for `AWS_ACCESS_KEY_ID`.
pub const ACCESS_KEY: &str = "stand-in";
/// Its secret, for `AWS_SECRET_ACCESS_KEY`.
pub const SECRET_KEY: &str = "known to everybody";
/// The answer of a server that wants to be left alone for a moment.
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
    <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
/// Longest time that what is under way may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How calls go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are answered with 503 and have no effect.
    Refuse,
    /// The connection is cut: before the call has taken effect, after that, or in the middle of the answer.
    Cut,
}

/// The server; dropping it ends it.
#[derive(Debug)]
pub struct Bucket {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    objects: Objects,
    s3: S3Service,
    /// How calls go wrong, and one of how many.
    fault: Mutex<Option<(Fault, u64)>>,
    /// Calls that came so far.
    calls: AtomicU64,
    /// Most milliseconds that a call waits before it takes effect, and after that.
    slow: Mutex<u64>,
    rng: Mutex<StdRng>,
    /// Connections and calls that are under way.
    busy: watch::Sender<usize>,
    /// Changed to cut every connection.
    cut: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Something that is under way.
struct Busy(Arc<Shared>);

impl Busy {
    fn with(shared: &Arc<Shared>) -> Self {
        shared.busy.send_modify(|busy| *busy += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.cut.send_modify(|cut| *cut += 1);
    }
}

impl Bucket {
    /// Serves an empty bucket. How long calls are held up follows from the seed.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn serve(seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let objects = Objects::default();
        let mut s3 = S3ServiceBuilder::new(objects.clone());
        s3.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared {
            objects,
            s3: s3.build(),
            fault: Mutex::new(None),
            calls: AtomicU64::new(0),
            slow: Mutex::new(0),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            busy: watch::Sender::new(0),
            cut: watch::Sender::new(0),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(Arc::clone(&shared), Busy::with(&shared), stream));
                }
            }
        });
        Ok(Self { address, shared, accepting })
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is in it.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.shared.objects.all()
    }

    /// Makes everything in it older.
    pub fn grow_older(&self, by: Duration) {
        self.shared.objects.grow_older(by);
    }

    /// From now on one of so many calls goes wrong, in turn, so that one which is repeated comes through at last.
    pub fn fail(&self, fault: Fault, one_of: u64) {
        *self.shared.fault.lock() = Some((fault, one_of));
    }

    /// No call goes wrong any more.
    pub fn heal(&self) {
        *self.shared.fault.lock() = None;
    }

    /// Calls wait up to so many milliseconds before they take effect, and after that.
    pub fn slow_down(&self, most: u64) {
        *self.shared.slow.lock() = most;
    }

    /// Cuts every connection, and waits until what has arrived has taken effect.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn settle(&self) -> Result<(), tokio::time::error::Elapsed> {
        self.shared.cut.send_modify(|cut| *cut += 1);
        let mut busy = self.shared.busy.subscribe();
        // The sender is in `shared`.
        tokio::time::timeout(PATIENCE, busy.wait_for(|busy| *busy == 0)).await.map(drop)
    }
}

async fn connection(shared: Arc<Shared>, _busy: Busy, stream: TcpStream) {
    let mut cut = shared.cut.subscribe();
    let serving = service_fn(|request| {
        // A task of its own, because it goes on when the connection ends.
        let answering = tokio::spawn(answer(Arc::clone(&shared), Busy::with(&shared), request));
        async move { answering.await? }
    });
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serving) => {}
        _ = cut.changed() => {}
    }
}

async fn answer(shared: Arc<Shared>, _busy: Busy, request: Request<Incoming>) -> io::Result<HttpResponse> {
    let call = shared.calls.fetch_add(1, Ordering::Relaxed);
    let fault = *shared.fault.lock();
    let moment = fault.map_or(0, |(_, one_of)| call / one_of % 3);
    let fault = fault.filter(|(_, one_of)| call.is_multiple_of(*one_of)).map(|(fault, _)| fault);
    let (before, after) = {
        let (most, mut rng) = (*shared.slow.lock(), shared.rng.lock());
        let mut wait = || Duration::from_millis(rng.random_range(0..=most));
        (wait(), wait())
    };
    tokio::time::sleep(before).await;
    let cut = || io::Error::other("the connection is cut");
    if fault == Some(Fault::Refuse) {
        let refused = hyper::Response::builder().status(503).body(Body::from(SLOW_DOWN.to_owned()));
        return refused.map_err(io::Error::other);
    }
    if fault == Some(Fault::Cut) && moment == 0 {
        return Err(cut());
    }
    let answered = shared.s3.call(request.map(Body::from)).await.map_err(io::Error::other)?;
    tokio::time::sleep(after).await;
    if fault.is_none() {
        return Ok(answered);
    }
    let (head, mut body) = answered.into_parts();
    let whole = body.store_all_limited(usize::MAX).await.map_err(io::Error::other)?;
    if moment == 1 || whole.is_empty() {
        return Err(cut());
    }
    let half = stream::iter([Ok(whole.slice(..whole.len() / 2))]);
    // So that the half goes out first.
    let end = stream::once(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Err(cut())
    });
    let half = StreamingBlob::wrap(half.chain(end));
    Ok(hyper::Response::from_parts(head, half.into()))
}
