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
//! | `saved` | graphs as they are saved and loaded |
//! | `rows` | exact vectors beside a graph of f16 or i8 |
//! | `payload_index` | bitmaps per declared payload index |
//! | `recency` | when a point was last used, where a store may become partial |
//! | `room` | what is held, what may be added, what gives way |
//! | [`estimate`] | what points take, and whether they fit |
//! | `pages` | large pieces of memory |
//! | `heap`, `machine` | what values take on the heap; what is free |
//! | `search` | nearest points: graph or scan, then exact scores |
//!
//! A point lives in a *slot*, a number that is never used twice; an update takes a new slot and buries
//! the old one. One writer adds at a time, because concurrent additions lose reachability in usearch;
//! searches run beside it. When more than a tenth of the slots are buried, a thread builds the collection
//! anew and swaps it in.
//!
//! `max_memory` bounds all of it, a rebuild under way included. A rebuild that does not fit beside what is
//! held does not begin, and the store says so; one that is full waits for a rebuild that is under way. A store that may
//! become partial keeps the room of a rebuild free and lets go what was not used for longest.

mod collection;
pub mod estimate;
mod graph;
mod heap;
mod ids;
mod machine;
mod options;
mod pages;
mod payload_index;
mod recency;
mod room;
mod rows;
mod saved;
mod search;
mod slot;
mod slots;
mod store;

pub use machine::free_bytes;
pub use options::{MemoryOptions, Quantization, WhenFull};
pub use store::MemoryStore;
