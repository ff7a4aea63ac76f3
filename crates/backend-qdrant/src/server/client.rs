//! Connections: one pool of channels per node, and the node that is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::uri::PathAndQuery;
use mainstay_core::{Context, Error, ErrorKind, Result};
use qdrant_client::qdrant::PointsOperationResponse;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::qdrant_client::QdrantClient;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use super::error;
use super::options::{Compression, ServerOptions};
use super::upsert::{Upsert, UpsertCodec};

/// The header that Qdrant takes its API key from.
const API_KEY_HEADER: &str = "api-key";
/// Largest answer that is read; a page of large points. Longer ones are refused instead of filling memory.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// Where the points service takes upserts.
const UPSERT: &str = "/qdrant.Points/Upsert";

type Service = InterceptedService<Channel, Authorized>;

/// Adds the API key to every request.
#[derive(Clone)]
pub struct Authorized(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorized {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert(API_KEY_HEADER, key.clone());
        }
        Ok(request)
    }
}

/// The nodes of a server or cluster. Requests go to one of them until it cannot be reached.
pub struct Nodes {
    /// The channels of each node.
    pools: Vec<Vec<Channel>>,
    node: AtomicUsize,
    next: AtomicUsize,
    authorized: Authorized,
    compression: Option<CompressionEncoding>,
}

impl Nodes {
    /// Channels that connect when they are first used, and again after a connection broke.
    ///
    /// # Errors
    /// `Invalid` for a URL or an API key that cannot be used.
    pub fn new(options: &ServerOptions) -> Result<Self> {
        let authorized = match &options.api_key {
            None => None,
            Some(key) => {
                let mut value: MetadataValue<Ascii> = key.expose().parse().map_err(|_| {
                    Error::invalid("the API key holds characters that cannot stand in a header")
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let pools = options.urls.iter().map(|url| {
            let endpoint = endpoint(url, options)?;
            Ok((0..options.pool_size).map(|_| endpoint.connect_lazy()).collect())
        });
        Ok(Self {
            pools: pools.collect::<Result<_>>()?,
            node: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            authorized: Authorized(authorized),
            compression: match options.compression {
                Compression::None => None,
                Compression::Gzip => Some(CompressionEncoding::Gzip),
            },
        })
    }

    fn service_of(&self, node: usize) -> Result<Service> {
        let pool = self.pools.get(node % self.pools.len().max(1));
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let channel = pool.and_then(|pool| pool.get(at % pool.len().max(1)));
        let channel = channel.ok_or_else(|| Error::new(ErrorKind::Internal, "there is no channel"))?;
        Ok(InterceptedService::new(channel.clone(), self.authorized.clone()))
    }

    /// Asks the current node, within the deadline. If it cannot be reached, the next one is current.
    async fn ask<T, O: Future<Output = Result<Response<T>, Status>>>(
        &self,
        cx: &Context,
        call: impl FnOnce(Service) -> O,
    ) -> Result<T> {
        let node = self.node.load(Ordering::Relaxed);
        let answer = tokio::time::timeout_at(cx.deadline, call(self.service_of(node)?)).await;
        let outcome = match answer {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => error::of_status(status),
            Err(_) => Error::new(ErrorKind::Timeout, "Qdrant did not answer before the deadline"),
        };
        if matches!(outcome.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            // Only one of many concurrent failures moves on.
            let next = (node + 1) % self.pools.len().max(1);
            let _ = self.node.compare_exchange(node, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(outcome)
    }

    /// A call of the points service.
    pub async fn points<T, O: Future<Output = Result<Response<T>, Status>>>(
        &self,
        cx: &Context,
        call: impl FnOnce(PointsClient<Service>) -> O,
    ) -> Result<T> {
        self.ask(cx, |service| {
            let mut api = PointsClient::new(service).max_decoding_message_size(MAX_ANSWER_BYTES);
            if let Some(encoding) = self.compression {
                api = api.send_compressed(encoding).accept_compressed(encoding);
            }
            call(api)
        })
        .await
    }

    /// Upserts points.
    pub async fn upsert(&self, cx: &Context, upsert: Upsert) -> Result<PointsOperationResponse> {
        self.ask(cx, |service| async move {
            let mut api = Grpc::new(service);
            if let Some(encoding) = self.compression {
                api = api.send_compressed(encoding).accept_compressed(encoding);
            }
            api.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            api.unary(Request::new(upsert), PathAndQuery::from_static(UPSERT), UpsertCodec).await
        })
        .await
    }

    /// A call of the collections service.
    pub async fn collections<T, O: Future<Output = Result<Response<T>, Status>>>(
        &self,
        cx: &Context,
        call: impl FnOnce(CollectionsClient<Service>) -> O,
    ) -> Result<T> {
        self.ask(cx, |service| call(CollectionsClient::new(service))).await
    }

    /// A call of the root service.
    pub async fn service<T, O: Future<Output = Result<Response<T>, Status>>>(
        &self,
        cx: &Context,
        call: impl FnOnce(QdrantClient<Service>) -> O,
    ) -> Result<T> {
        self.ask(cx, |service| call(QdrantClient::new(service))).await
    }
}

fn endpoint(url: &str, options: &ServerOptions) -> Result<Endpoint> {
    let invalid = |error: &dyn std::fmt::Display| Error::invalid(format!("url {url:?}: {error}"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| invalid(&error))?;
    let endpoint = match endpoint.uri().scheme_str() {
        Some("http") => endpoint,
        Some("https") => endpoint
            .tls_config(ClientTlsConfig::new().with_native_roots())
            .map_err(|error| invalid(&error))?,
        _ => return Err(invalid(&"it must start with http:// or https://")),
    };
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        // A peer that is gone without a word is noticed though no request waits for it.
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.connect_timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
