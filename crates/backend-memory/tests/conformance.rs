//! The suite that every store runs, over each quantization.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use mainstay_core::conformance::StoreFactory;
use mainstay_memory::{MemoryOptions, MemoryStore, Quantization};

struct Memory(Quantization);

#[async_trait]
impl StoreFactory for Memory {
    type Store = MemoryStore;

    async fn create(&self) -> MemoryStore {
        MemoryStore::new(MemoryOptions { quantization: self.0, ..MemoryOptions::default() }).unwrap()
    }

    async fn reopen(&self, _: MemoryStore) -> Option<MemoryStore> {
        None
    }
}

mod f32 {
    mainstay_core::conformance!(|| async { super::Memory(super::Quantization::F32) });
}

mod f16 {
    mainstay_core::conformance!(|| async { super::Memory(super::Quantization::F16) });
}

mod i8 {
    mainstay_core::conformance!(|| async { super::Memory(super::Quantization::I8) });
}
