//! The Qdrant store: a server or cluster over gRPC, or qdrant-edge in the same process.
//!
//! | module | idea |
//! |---|---|
//! | `store` | the [`VectorStore`](mainstay_core::VectorStore): what is exact about it, whichever engine is below |
//! | `session` | what a store knows about its place: the control document, what is in doubt |
//! | `apply` | runs, alone or beside each other |
//! | `changes` | a run of entries folded into one change per point |
//! | `adopt` | collections that Mainstay did not create |
//! | `control` | the document that holds the position and the collections |
//! | `payload` | user payloads and what is kept beside them under reserved keys |
//! | `engine` | what the store needs of an engine |
//! | `server` | the engine behind gRPC (feature `server`) |
//! | `edge` | the engine in this process (feature `edge`) |
//!
//! A Mainstay collection is the Qdrant collection of the same name. Each point carries the LSN that wrote
//! it under the payload key `__mainstay_version`. The position and the specs are one *control document*,
//! a point of the collection `mainstay_control` on a server, a file of an embedded store. It is written
//! after the data that it speaks of is durable. While upserts follow each other it is written once a second; until
//! then the newest point proves that the store still holds what the document does not say.
//! It also names a *ceiling*, an LSN that no point's version is beyond, and is raised before one gets there: a process
//! that died may have written points that are newer than the position, so up to there the versions of the points that an
//! entry touches are looked at before it is applied. Thus Qdrant needs no index on versions.
//!
//! A server is given several runs at once, as long as each only puts points that no other under way puts. Their points
//! may be there in any order, and below the ceiling; the position passes the runs in theirs.
//!
//! A write whose outcome is unknown may take effect late, after newer ones. Its entries are *held*: the
//! stored position stays before them, and after a grace time they are applied again, which changes only
//! points that are older than the entry.

mod adopt;
mod apply;
mod changes;
mod control;
mod engine;
mod payload;
mod session;
mod store;

#[cfg(feature = "edge")]
mod edge;
#[cfg(feature = "server")]
mod server;

pub use adopt::ForeignCollection;
#[cfg(feature = "edge")]
pub use edge::EdgeOptions;
#[cfg(feature = "server")]
pub use server::{
    CollectionOptions, Compression, Consistency, Ordering, QuantizationKind, Secret, ServerOptions,
};
pub use store::QdrantStore;
