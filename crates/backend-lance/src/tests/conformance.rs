//! The suite that every store runs, with maintenance at work beside it.

use async_trait::async_trait;
use mainstay_core::ErrorKind;
use mainstay_core::conformance::StoreFactory;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;

/// Stores in directories that live as long as the factory.
#[derive(Default)]
struct Directories(Mutex<Vec<TempDir>>);

#[async_trait]
impl StoreFactory for Directories {
    type Store = LanceStore;

    async fn create(&self) -> LanceStore {
        let directory = tempfile::tempdir().unwrap();
        let options = LanceOptions {
            compact_after_commits: 5,
            index_threshold_rows: 1_000,
            ..LanceOptions::new(directory.path().to_str().unwrap())
        };
        self.0.lock().push(directory);
        LanceStore::open(options).await.unwrap()
    }

    async fn reopen(&self, store: LanceStore) -> Option<LanceStore> {
        let options = store.options().clone();
        drop(store);
        // A store that was dropped instead of closed holds its directory until its last task ended.
        for _ in 0..1_000 {
            match LanceStore::open(options.clone()).await {
                Err(e)
                    if e.kind() == ErrorKind::Unavailable && e.context().any(|(key, _)| key == "holder") =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return Some(opened.unwrap()),
            }
        }
        panic!("the directory stays locked");
    }
}

mainstay_core::conformance!(|| async { Directories::default() });

/// The same in an object store.
mod in_objects {
    use std::collections::HashMap;

    use super::*;
    use crate::tests::service::{Service, try_open};

    /// Services by the URI of the one store in each.
    #[derive(Default)]
    struct Services(Mutex<HashMap<String, Arc<Service>>>);

    #[async_trait]
    impl StoreFactory for Services {
        type Store = LanceStore;

        async fn create(&self) -> LanceStore {
            let service = Arc::<Service>::default();
            let options = LanceOptions {
                compact_after_commits: 5,
                index_threshold_rows: 1_000,
                ..LanceOptions::new(format!("s3://{}/x", Uuid::new_v4()))
            };
            self.0.lock().insert(options.uri.clone(), service.clone());
            try_open(&service, options).await.unwrap()
        }

        async fn reopen(&self, store: LanceStore) -> Option<LanceStore> {
            let options = store.options().clone();
            let service = self.0.lock()[&options.uri].clone();
            // What the dropped store still does is an earlier holder's.
            drop(store);
            Some(try_open(&service, options).await.unwrap())
        }
    }

    mainstay_core::conformance!(|| async { Services::default() });
}
