//! The suite that every store runs, over a store from outside the workspace.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use custom_store::Audited;
use mainstay_core::conformance::StoreFactory;
use mainstay_memory::{MemoryOptions, MemoryStore};

struct Factory;

#[async_trait]
impl StoreFactory for Factory {
    type Store = Audited<MemoryStore>;

    async fn create(&self) -> Self::Store {
        Audited::new(MemoryStore::new(MemoryOptions::default()).unwrap())
    }

    async fn reopen(&self, _: Self::Store) -> Option<Self::Store> {
        None // A volatile store has nothing to open again.
    }
}

mainstay_core::conformance!(|| async { Factory });
