//! A server for a test, empty at its start.

use std::sync::Arc;

use mainstay_tests::stand_in::StandIn;
use qdrant_client::Qdrant;
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

/// Names a real server that the tests use instead of the stand-in. They remove all of its collections.
pub const URL_VARIABLE: &str = "MAINSTAY_TEST_QDRANT_URL";

/// A real server is shared; tests take turns.
static TURN: std::sync::LazyLock<Arc<Mutex<()>>> = std::sync::LazyLock::new(Arc::default);

/// A running server.
pub struct Server {
    pub url: String,
    _stand_in: Option<(Abort, TempDir)>,
    _turn: Option<OwnedMutexGuard<()>>,
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// The real server without its collections, or a stand-in of its own.
    pub async fn start() -> Self {
        if let Ok(url) = std::env::var(URL_VARIABLE) {
            let turn = Arc::clone(&TURN).lock_owned().await;
            let server = Self { url, _stand_in: None, _turn: Some(turn) };
            server.clear().await;
            return server;
        }
        Self::stand_in(None).await
    }

    /// A stand-in that wants an API key.
    pub async fn stand_in(api_key: Option<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stand_in = StandIn::open(directory.path()).unwrap().with_api_key(api_key);
        Self::serve(stand_in, directory).await
    }

    /// This stand-in over a directory.
    pub async fn serve(stand_in: StandIn, directory: TempDir) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { stand_in.serve(listener).await.unwrap() });
        Self { url, _stand_in: Some((Abort(serving), directory)), _turn: None }
    }

    /// The bare client.
    pub fn client(&self) -> Qdrant {
        Qdrant::from_url(&self.url).skip_compatibility_check().build().unwrap()
    }

    /// Removes everything.
    pub async fn clear(&self) {
        let client = self.client();
        for collection in client.list_collections().await.unwrap().collections {
            client.delete_collection(collection.name).await.unwrap();
        }
    }
}
