//! Qdrant behind gRPC: the stand-in of this package, or the server of `MAINSTAY_TEST_QDRANT_URL`.

mod adopt;
mod conformance;
mod errors;
mod outages;
pub mod server;
