//! The suite that every store runs, over the embedded engine.
#![cfg(feature = "edge")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use async_trait::async_trait;
use mainstay_core::conformance::StoreFactory;
use mainstay_core::{Context, ErrorKind, VectorStore};
use mainstay_qdrant::{EdgeOptions, QdrantStore};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Stores in directories that live as long as the factory.
#[derive(Default)]
struct Directories(Mutex<Vec<TempDir>>);

impl Directories {
    fn options(&self) -> EdgeOptions {
        let directories = self.0.lock();
        EdgeOptions { optimize_after_points: 500, ..EdgeOptions::new(directories.last().unwrap().path()) }
    }
}

#[async_trait]
impl StoreFactory for Directories {
    type Store = QdrantStore;

    async fn create(&self) -> QdrantStore {
        self.0.lock().push(tempfile::tempdir().unwrap());
        QdrantStore::open(self.options()).await.unwrap()
    }

    async fn reopen(&self, store: QdrantStore) -> Option<QdrantStore> {
        drop(store);
        // Work that was given up holds the directory until it ends.
        for _ in 0..1_000 {
            match QdrantStore::open(self.options()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return Some(opened.unwrap()),
            }
        }
        panic!("the directory stays locked");
    }
}

mainstay_core::conformance!(|| async { Directories::default() });

#[tokio::test]
async fn a_second_store_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = QdrantStore::open(EdgeOptions::new(directory.path())).await.unwrap();
    let error = QdrantStore::open(EdgeOptions::new(directory.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    store.close(&Context::within(Duration::from_secs(5))).await.unwrap();
    QdrantStore::open(EdgeOptions::new(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_directory_with_other_files_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let error = QdrantStore::open(EdgeOptions::new(directory.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_damaged_control_document_is_named() {
    let directory = tempfile::tempdir().unwrap();
    drop(QdrantStore::open(EdgeOptions::new(directory.path())).await.unwrap());
    let path = directory.path().join("mainstay.json");
    std::fs::write(&path, "00000000\nstamp\n{}\n").unwrap();
    let store = QdrantStore::open(EdgeOptions::new(directory.path())).await.unwrap();
    let error = store.position(&Context::within(Duration::from_secs(5))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("mainstay.json"), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_replaced_under_the_store_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = QdrantStore::open(EdgeOptions::new(&path)).await.unwrap();
    let cx = || Context::within(Duration::from_secs(5));
    store.ping(&cx()).await.unwrap();
    std::fs::rename(&path, parent.path().join("away")).unwrap();
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
