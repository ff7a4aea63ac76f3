//! Tests that cross crates.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agreement;
mod bad_input;
mod copies;
mod crash;
mod drills;
mod durability;
#[cfg(feature = "lance-cloud")]
mod objects;
#[cfg(feature = "qdrant")]
mod qdrant;
mod snapshot_history;
mod snapshot_kills;
#[cfg(feature = "snapshots-cloud")]
mod snapshot_objects;
mod snapshot_room;
mod snapshot_site;
mod tier;
