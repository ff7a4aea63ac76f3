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
