//! The memory store: usearch graphs for dense vectors, bitmaps for payload filters.
//!
//! | module | idea |
//! |---|---|
//! | `options` | what a store goes by |
//! | `store` | the [`VectorStore`](mainstay_core::VectorStore): entries in, answers out |
//! | `collection` | one collection: writes, tombstones, rebuild |
//! | `slot` | what a point is beside its vectors |
//! | `slots` | the table of slots |
//! | `ids` | which slot a point is in |
//! | `graph` | one dense vector of a collection: a usearch graph and the exact vectors |
//! | `rows` | exact vectors beside a graph of f16 or i8 |
//! | `payload_index` | bitmaps per declared payload index |
//! | `search` | nearest points: graph or scan, then exact scores |
//!
//! A point lives in a *slot*, a number that is never used twice; an update takes a new slot and buries
//! the old one. One writer adds at a time, because concurrent additions lose reachability in usearch;
//! searches run beside it. When more than a tenth of the slots are buried, a thread builds the collection
//! anew and swaps it in.

mod collection;
mod graph;
mod ids;
mod options;
mod payload_index;
mod rows;
mod search;
mod slot;
mod slots;
mod store;

pub use options::{MemoryOptions, Quantization};
pub use store::MemoryStore;
