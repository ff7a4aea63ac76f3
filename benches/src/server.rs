//! The Qdrant server to measure with.

use std::path::Path;
use std::time::Duration;

use mainstay::{Error, ErrorKind, Result};
use mainstay_tests::stand_in::StandIn;
use qdrant_client::Qdrant;

/// A running server: that of `MAINSTAY_TEST_QDRANT_URL`, or the stand-in in this process.
pub struct Server {
    /// Where it listens.
    pub url: String,
    /// Speaks to it directly.
    pub client: Qdrant,
}

impl Server {
    /// Reaches or starts the server, which lets go these collections and the control document of a tier.
    pub async fn start(directory: &Path, collections: &[&str]) -> Result<Self> {
        let url = match std::env::var("MAINSTAY_TEST_QDRANT_URL") {
            Ok(url) => url,
            Err(_) => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
                let url = format!("http://{}", listener.local_addr().map_err(failed)?);
                let stand_in = StandIn::open(&directory.join("qdrant")).map_err(failed)?;
                // It ends with this process.
                tokio::spawn(stand_in.serve(listener));
                url
            }
        };
        let client =
            Qdrant::from_url(&url).skip_compatibility_check().timeout(Duration::from_secs(60)).build();
        let client = client.map_err(failed)?;
        for name in collections.iter().chain(&["mainstay_control"]) {
            client.delete_collection(*name).await.map_err(failed)?;
        }
        Ok(Self { url, client })
    }
}

/// An error of the measurement itself.
pub fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}
