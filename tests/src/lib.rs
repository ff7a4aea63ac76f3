//! Tests that cross crates are in `tests/it`; here is what they share.
//!
//! [`dataset`] reads the vectors that benchmarks and long tests go by.
//!
//! With the feature `qdrant`, [`stand_in`] is a server that speaks Qdrant's protocol, for tests that a real one
//! is not there for.

pub mod agreement;
pub mod dataset;
#[cfg(feature = "qdrant")]
pub mod stand_in;
