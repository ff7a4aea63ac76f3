//! Snapshots: the state of a store at an LSN, in a repository of files that are named by what is in them.
//!
//! A repository is a directory or a prefix of an object store. Points are put into buckets by a hash of their id; a
//! bucket is one or more columnar files ([`columns`]), each named by its BLAKE3 hash, so that what did not change is
//! never written twice. A manifest lists them, with hashes that form a tree: two snapshots, or a snapshot and a
//! living store, are compared without reading points. `docs/snapshot-format.md` is the specification.
//!
//! | module | idea |
//! |---|---|
//! | [`place`] | directories and object stores |
//! | [`layout`] | what lies where, and what is a name |
//! | [`manifest`] | what a snapshot is made of |
//! | [`columns`] | points as a columnar file |
//! | [`buckets`] | which bucket a point is in, and the hash of a bucket |
//! | [`repository`] | reading and writing files that are what their names say |
//! | [`graphs`] | search graphs beside the points, so that a restore need not build them |
//! | [`take`] | making a snapshot while writes go on |
//! | [`load`] | a snapshot back into a store |
//! | [`verify`] | every checksum and count |
//! | [`diff`] | what changed between two snapshots, or since one |
//! | [`prune`] | which snapshots are kept, and removing what none of them needs |
//! | [`segment`] | the log between snapshots |
//! | [`older`] | JSON backup files of versions 1.0 and 2.0 |

mod bounded;
pub mod buckets;
pub mod columns;
pub mod diff;
pub mod graphs;
pub mod layout;
pub mod load;
pub mod manifest;
pub mod older;
pub mod place;
pub mod prune;
pub mod repository;
pub mod segment;
pub mod take;
pub mod verify;
mod work;

#[cfg(test)]
mod tests;

pub use layout::{ContentHash, SnapshotId};
pub use manifest::Manifest;
pub use repository::Repository;
