//! A page of metrics over HTTP, for Prometheus: `metrics.listen`.
//!
//! Every tier has a recorder of its own, so that several of one process do not mix, and what the program does with the
//! process's recorder is its own affair. The page is written when it is asked for.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_core::{Error, ErrorKind, Operation, Result};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::tier::counts::{READ_BOUNDS_US, ReadTimes};
use crate::tier::metrics::{METRICS, READ_SECONDS, publish_numbers};
use crate::tier::{Shared, Tier, until_closing};

/// Where the page is.
const PATH: &str = "/metrics";
/// Scrapes at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 8;
/// A scrape is over by then, whoever is slow.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// What Prometheus' text format calls itself.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Tier {
    /// Serves the page at this address, if there is one, until the tier closes. If that cannot be, the tier is closed.
    pub(super) async fn serve_metrics(&self, address: Option<SocketAddr>) -> Result<()> {
        let Some(address) = address else { return Ok(()) };
        match Page::bind(address).await {
            Ok(page) => {
                let _ = self.owner.metrics_address.set(page.address);
                let work = page.serve(Arc::clone(self.shared()), self.shared().closing.clone());
                self.owner.tasks.lock().spawn(work);
                Ok(())
            }
            Err(error) => {
                let closed = self.close().await;
                closed.unwrap_or_else(|error| tracing::warn!(%error, "close failed"));
                Err(error)
            }
        }
    }

    /// Where the page of metrics is served, if it is: the address of `metrics.listen`, with the port that the system
    /// chose if that one is 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.owner.metrics_address.get().copied()
    }
}

/// The address, taken.
struct Page {
    listener: TcpListener,
    address: SocketAddr,
}

/// What writes the page.
struct Writer {
    shared: Arc<Shared>,
    recorder: PrometheusRecorder,
}

impl Page {
    async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let text = format!("the page of metrics cannot be served at {address} (metrics.listen)");
            Error::new(ErrorKind::Unavailable, text).with_source(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Answers scrapes until the tier closes; what is under way then is cut off.
    async fn serve(self, shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let writer = Arc::new(Writer { shared, recorder });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = until_closing(&mut closing) => return,
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(timeout(CONNECTION_TIME, answer(stream, Arc::clone(&writer))));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a scrape was not accepted");
                        tokio::select! {
                            () = until_closing(&mut closing) => return,
                            () = sleep(PAUSE) => {}
                        }
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn answer(stream: TcpStream, writer: Arc<Writer>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = writer.respond(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that went away is none of our business.
    let _ = connection.await;
}

impl Writer {
    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let plain = |status, text: &'static str| {
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = status;
            response
        };
        if path != PATH {
            return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = Response::new(Full::from(self.write()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
        response
    }

    fn write(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || publish_numbers(&self.shared));
        let mut page = self.recorder.handle().render();
        // The recorder would want every single time; the buckets are there already.
        page.push_str(&read_times(self.shared.counts.reads()));
        page
    }
}

/// The histogram of read times in Prometheus' text format.
fn read_times(reads: impl Iterator<Item = (Operation, ReadTimes)>) -> String {
    let help = METRICS.iter().find(|(name, ..)| *name == READ_SECONDS).map_or("", |(.., text)| *text);
    let mut text = format!("# HELP {READ_SECONDS} {help}\n# TYPE {READ_SECONDS} histogram\n");
    for (operation, times) in reads {
        let bounds = READ_BOUNDS_US.iter().map(|bound_us| (*bound_us as f64 / 1e6).to_string());
        let (mut count, mut total_ns) = (0, 0);
        for (bound, (in_bucket, ns)) in bounds.chain(["+Inf".to_owned()]).zip(times) {
            count += in_bucket;
            total_ns += ns;
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "{READ_SECONDS}_bucket{{operation=\"{operation}\",le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{READ_SECONDS}_sum{{operation=\"{operation}\"}} {}", total_ns as f64 / 1e9);
        let _ = writeln!(text, "{READ_SECONDS}_count{{operation=\"{operation}\"}} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_is_shorter_and_the_last_one_everything() {
        let mut times = ReadTimes::default();
        (times[0], times[2], times[READ_BOUNDS_US.len()]) = ((3, 30_000), (2, 170_000), (1, 6_000_000_000));
        let text = read_times([(Operation::Search, times)].into_iter());
        for line in [
            "# TYPE mainstay_read_seconds histogram",
            "mainstay_read_seconds_bucket{operation=\"search\",le=\"0.000025\"} 3",
            "mainstay_read_seconds_bucket{operation=\"search\",le=\"0.00005\"} 3",
            "mainstay_read_seconds_bucket{operation=\"search\",le=\"0.0001\"} 5",
            "mainstay_read_seconds_bucket{operation=\"search\",le=\"5\"} 5",
            "mainstay_read_seconds_bucket{operation=\"search\",le=\"+Inf\"} 6",
            "mainstay_read_seconds_sum{operation=\"search\"} 6.0002",
            "mainstay_read_seconds_count{operation=\"search\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
