//! The LanceDB store: one table per collection, in a directory on local disk or in an object store.
//!
//! LanceDB's commits on local disk do not reach the disk by themselves. So the store keeps a
//! *record* (`mainstay.json`) beside the tables: the position, and for every table the version that
//! belongs to it. A flush syncs every new file, then replaces the record. On opening, tables are
//! rolled back to the versions of the record and the log replays the rest; whatever a crash left
//! half-written after the last flush is never read.
//!
//! In an object store what was answered is durable, and nothing is locked. There the record is the fence: it
//! is replaced only in place of the one last seen, so of two processes that both think they have the store one
//! fails at its next flush. The other one never takes what the first still commits for its own.
//!
//! | module | idea |
//! |---|---|
//! | [`config`](LanceOptions) | options |
//! | `store` | [`LanceStore`]: the `VectorStore` over a session |
//! | `shared` | the open session and who writes to it, for calls and maintenance |
//! | `session` | what is open: the place, its tables, the position |
//! | `place` | the two kinds of places, and what a session asks of either |
//! | `objects` | a prefix of an object store: who has it, the record as the fence, commits above our own only |
//! | `root` | the directory: identity, lock, and writes that follow it when it is renamed |
//! | `position` | the record |
//! | `barrier` | making files durable, and rolling back to what was durable |
//! | `effects` | a run of entries folded into one change per point |
//! | `table` | one collection incarnation in one table |
//! | `layout`, `convert` | columns, and points to and from Arrow |
//! | `filter` | the part of a filter that columns can decide |
//! | `search`, `read` | searches; get, scroll and count |
//! | `maintenance` | compaction, clean-up and vector indexes in the background |
//! | `error` | LanceDB's errors as kinds |
//!
//! # Invariants
//! - The record is written after a barrier that covers the data it speaks of.
//! - One process owns a place (a directory by a lock file, an object store by the record), and one task at a
//!   time writes to it.
//! - A filter in columns accepts at least what the filter accepts; [`Filter::accepts`] decides.
//!
//! [`Filter::accepts`]: mainstay_core::Filter::accepts
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod barrier;
mod config;
mod convert;
mod effects;
mod error;
mod filter;
mod layout;
mod maintenance;
mod objects;
mod place;
mod position;
mod read;
mod root;
mod search;
mod session;
mod shared;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use config::{LanceOptions, StorageOptions};
pub use store::LanceStore;
