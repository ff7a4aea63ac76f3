//! The ground of Mainstay: what a point, a collection, a filter, a log entry and a store are.
//!
//! This crate knows no backend and no tier. A store implements [`VectorStore`]; everything above
//! decides by [`Error::kind`], [`Error::effect`] and [`Error::disposition`], never by text.
//!
//! | module | idea |
//! |---|---|
//! | [`id`], [`name`] | newtypes for ids, LSNs and names |
//! | [`spec`], [`point`] | what a collection and a point hold |
//! | [`path`], [`filter`] | payload paths and Qdrant's filter semantics |
//! | [`json`] | points and filters as people and programs write them |
//! | [`query`] | searches, scrolls and their answers |
//! | [`entry`] | log entries, positions and runs |
//! | [`store`] | the [`VectorStore`] trait |
//! | [`pipeline`] | runs that a store has under way side by side |
//! | [`parts`] | what is written, cut into parts |
//! | [`expected`] | what a store is about to be given |
//! | [`error`] | one error type with kinds |
//! | [`breaker`], [`guarded`] | the circuit breaker, and the wrapper that puts it around a store |
//! | [`document`] | what stores keep about themselves, as JSON |
//! | [`digest`] | content hashes that compare stores |
//! | [`embed`] | text to vectors, and the built-in lexical embedder |
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod breaker;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod digest;
pub mod document;
pub mod embed;
pub mod entry;
pub mod error;
pub mod expected;
#[cfg(feature = "conformance")]
pub mod faulty;
pub mod filter;
pub mod graphs;
pub mod guarded;
pub mod id;
pub mod json;
pub mod name;
pub mod parts;
pub mod path;
pub mod pipeline;
#[cfg(test)]
mod plain_store;
pub mod point;
pub mod query;
pub mod score;
pub mod spec;
pub mod store;
mod sync;

pub use breaker::{Breaker, BreakerMetrics, BreakerOptions, BreakerState, Permit};
pub use digest::{CollectionDigest, Difference, Digest, PointDigest, RangeDigest};
pub use embed::{Embedder, HashEmbedder};
pub use entry::{
    CollectionRef, Entry, EntryHash, LogId, LogIdentity, Op, PayloadPatch, Position, Run, StoreId,
};
pub use error::{Disposition, Effect, Error, ErrorKind, Result};
pub use expected::Expected;
#[cfg(feature = "conformance")]
pub use faulty::{Fault, Faulty, Recorded, Recording};
pub use filter::{Condition, FieldTest, Filter, Match, Range, Scalar};
pub use graphs::{GraphParts, Graphs, SavedGraphs};
pub use guarded::{GuardMetrics, GuardOptions, Guarded, Operation, OperationMetrics};
pub use id::{Lsn, PointId};
pub use name::{CollectionName, VectorName};
pub use path::PayloadPath;
pub use pipeline::{Pipeline, Pipelining};
pub use point::{Payload, Point, Record, SparseVector, Vector, Vectors};
pub use query::{Fields, Hit, ScrollPage, ScrollQuery, SearchQuery, Selector, VersionsPage};
pub use spec::{CollectionSpec, Distance, PayloadIndex, VectorSpec};
pub use store::{
    Capabilities, CollectionInfo, Context, Durability, OperationId, RestoreStep, SearchCapabilities,
    VectorStore,
};
