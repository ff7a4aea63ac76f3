//! A server that speaks Qdrant's gRPC protocol, with qdrant-edge as its engine.
//!
//! It answers the calls that Mainstay makes as Qdrant 1.18 does, errors included, and declines the others as
//! `Unimplemented`. A write that was answered is durable, as Qdrant's is with `wait`. What it does not have:
//! clusters (it can say that it is in one), snapshots, the rates of strict mode.

mod collection;
mod convert;
mod service;
mod strict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use qdrant_client::qdrant::WriteOrderingType;
use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::QdrantServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::{Request, Status};

use self::collection::Collection;

/// Largest request, Qdrant's own default.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// Anything that ends the server.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The server.
#[derive(Clone)]
pub struct StandIn {
    storage: PathBuf,
    api_key: Option<String>,
    /// How many other nodes it says have its collections too.
    other_replicas: u64,
    orderings: Arc<Mutex<BTreeMap<String, WriteOrderingType>>>,
    collections: Arc<RwLock<BTreeMap<String, Arc<Collection>>>>,
}

impl StandIn {
    /// Opens a directory, which is created if it is not there.
    ///
    /// # Errors
    /// If a collection in it cannot be opened.
    pub fn open(storage: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(storage)?;
        let mut collections = BTreeMap::new();
        for entry in std::fs::read_dir(storage)? {
            let entry = entry?;
            if let Some(collection) = Collection::open(&entry.path())? {
                let name = entry.file_name().to_string_lossy().into_owned();
                collections.insert(name, Arc::new(collection));
            }
        }
        Ok(Self {
            storage: storage.to_owned(),
            api_key: None,
            other_replicas: 0,
            orderings: Arc::default(),
            collections: Arc::new(RwLock::new(collections)),
        })
    }

    /// The same server, which wants this key.
    #[must_use]
    pub fn with_api_key(self, api_key: Option<String>) -> Self {
        Self { api_key, ..self }
    }

    /// The same server, which says that so many other nodes have its collections too.
    #[must_use]
    pub fn with_other_replicas(self, other_replicas: u64) -> Self {
        Self { other_replicas, ..self }
    }

    /// How the last upsert to a collection was to be ordered.
    pub fn last_ordering(&self, collection: &str) -> Option<WriteOrderingType> {
        self.orderings.lock().get(collection).copied()
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// If the connection ends.
    pub async fn serve(self, listener: TcpListener) -> Result<(), Error> {
        let api_key = self.api_key.clone();
        let authorize = move |request: Request<()>| {
            let given = request.metadata().get("api-key").and_then(|key| key.to_str().ok());
            match &api_key {
                Some(wanted) if given != Some(wanted) => {
                    Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token"))
                }
                _ => Ok(request),
            }
        };
        let points = PointsServer::new(self.clone())
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let points = tonic::service::interceptor::InterceptedService::new(points, authorize.clone());
        let collections = CollectionsServer::with_interceptor(self.clone(), authorize);
        Server::builder()
            .add_service(points)
            .add_service(collections)
            .add_service(QdrantServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await?;
        Ok(())
    }

    fn collection(&self, name: &str) -> Result<Arc<Collection>, Status> {
        let collection = self.collections.read().get(name).cloned();
        collection.ok_or_else(|| Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")))
    }
}
