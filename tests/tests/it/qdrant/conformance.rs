//! The suite that every store runs, over the real client and the real wire.

use async_trait::async_trait;
use mainstay_core::conformance::StoreFactory;
use mainstay_qdrant::{Compression, QdrantStore, ServerOptions};
use tokio::sync::Mutex;

use super::server::{Server, URL_VARIABLE};

/// Stores on a server each; a real one is emptied for each.
#[derive(Default)]
struct Servers {
    compression: Compression,
    servers: Mutex<Vec<Server>>,
}

impl Servers {
    async fn connect(&self) -> QdrantStore {
        let servers = self.servers.lock().await;
        let options = ServerOptions {
            compression: self.compression,
            ..ServerOptions::new(&servers.last().unwrap().url)
        };
        QdrantStore::connect(options).await.unwrap()
    }
}

#[async_trait]
impl StoreFactory for Servers {
    type Store = QdrantStore;

    async fn create(&self) -> QdrantStore {
        let mut servers = self.servers.lock().await;
        match servers.last() {
            Some(server) if std::env::var(URL_VARIABLE).is_ok() => server.clear().await,
            _ => servers.push(Server::start().await),
        }
        drop(servers);
        self.connect().await
    }

    async fn reopen(&self, store: QdrantStore) -> Option<QdrantStore> {
        drop(store);
        Some(self.connect().await)
    }
}

mainstay_core::conformance!(|| async { Servers::default() });

mod compressed {
    use super::{Compression, Servers};

    #[tokio::test(flavor = "multi_thread")]
    async fn points_are_kept_to_the_bit() {
        let servers = Servers { compression: Compression::Gzip, ..Servers::default() };
        mainstay_core::conformance::points_are_kept_to_the_bit(&servers).await;
    }
}
