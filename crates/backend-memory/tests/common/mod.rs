//! A store that is filled by entries, which nobody keeps.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use mainstay_core::conformance::name;
use mainstay_core::{
    CollectionRef, CollectionSpec, Distance, Entry, EntryHash, LogId, LogIdentity, Lsn, Op, PayloadIndex,
    PayloadPath, Point, Position, Result, Run, VectorStore,
};
use mainstay_memory::{MemoryOptions, MemoryStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use mainstay_core::conformance::cx;

/// What points are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub dimension: usize,
    /// Whether they have a payload as an index of source files makes it, a text and payload indexes.
    pub documents: bool,
}

impl Shape {
    pub fn spec(self) -> CollectionSpec {
        let mut spec = CollectionSpec::dense(name("docs"), self.dimension, Distance::Cosine);
        if self.documents {
            let keyword = |key: &str| (PayloadPath::key(key), PayloadIndex::Keyword);
            spec.payload_indexes = ["source", "path"].map(keyword).into();
        }
        spec
    }

    pub fn point(self, id: u64, rng: &mut StdRng) -> Point {
        let vector = (0..self.dimension).map(|_| rng.random_range(-1.0..1.0)).collect();
        let point = if self.documents {
            let payload = serde_json::json!({
                "source": "src",
                "path": format!("crates/some/folder/file{}.rs", id / 4),
                "file_hash": format!("{:032x}", id / 4),
                "chunk": id % 4,
                "chunks": 4,
                "start_line": id * 7 % 1_000,
                "end_line": id * 7 % 1_000 + 30,
                "language": "rust",
            });
            let uuid =
                uuid::Uuid::from_u128(u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            Point::new(uuid, vector)
                .with_payload(payload)
                .with_text("word ".repeat(rng.random_range(20..180)))
        } else {
            Point::new(id, vector)
        };
        self.spec().admit(point).unwrap()
    }
}

/// A store and how far it has come.
pub struct Filled {
    pub store: MemoryStore,
    pub position: Position,
    pub collection: CollectionRef,
    pub shape: Shape,
    pub rng: StdRng,
}

impl Filled {
    pub async fn new(options: MemoryOptions, shape: Shape) -> Self {
        let store = MemoryStore::new(options).unwrap();
        let position = Position::start(LogIdentity { id: LogId(uuid::Uuid::from_u128(1)), epoch: 1 });
        let collection = CollectionRef { name: name("docs"), incarnation: Lsn(1) };
        let mut filled = Self { store, position, collection, shape, rng: StdRng::seed_from_u64(1) };
        filled.apply(Op::CreateCollection(shape.spec())).await.unwrap();
        filled
    }

    /// Applies one more entry.
    pub async fn apply(&mut self, op: Op) -> Result<()> {
        let lsn = self.position.lsn.next();
        let entry = Entry { lsn, hash: EntryHash([(lsn.0 % 251) as u8; 32]), op, size_bytes: 0 };
        let run = Run::new(self.position, vec![Arc::new(entry)])?;
        self.position = self.store.apply(&cx(), &run).await?;
        Ok(())
    }

    /// Writes points, a few hundred at a time.
    pub async fn write(&mut self, ids: impl IntoIterator<Item = u64>) -> Result<()> {
        let ids: Vec<u64> = ids.into_iter().collect();
        for ids in ids.chunks(250) {
            let points = ids.iter().map(|id| Arc::new(self.shape.point(*id, &mut self.rng))).collect();
            self.apply(Op::Upsert { collection: self.collection.clone(), points }).await?;
        }
        Ok(())
    }

    /// Waits for rebuilds that are under way.
    pub async fn rebuilt(&self) {
        while self.store.is_rebuilding() {
            tokio::task::yield_now().await;
        }
    }

    pub fn held(&self) -> u64 {
        self.store.memory_bytes().unwrap()
    }

    pub async fn count(&self) -> u64 {
        self.store.count(&cx(), &self.collection.name, None).await.unwrap()
    }
}
