//! Points as a columnar file: an Arrow IPC stream of one schema and one record batch, its buffers packed with zstd.
//!
//! | column | type | what |
//! |---|---|---|
//! | `id` | fixed-size binary, 17 | the id's key: tag (0 number, 1 UUID), then the number in the last 8 bytes, big-endian, or the UUID |
//! | `version` | unsigned, 64 bits | the LSN that last wrote the point |
//! | `payload` | UTF-8, may be null | a JSON object; null is the empty one |
//! | `text` | UTF-8, may be null | |
//! | `dense:NAME` | struct of `b0` to `b3`, may be null | byte 0 to 3 of every number of the vector: fixed-size binary, one byte for each dimension |
//! | `sparse:NAME` | struct of `indices` and `values`, may be null | lists of unsigned 32 bits and of 32-bit floats |
//!
//! There is one column for each vector of the collection's spec, by name. Numbers are IEEE 754, little-endian, so `b3` holds
//! signs and exponents, which are much alike and pack well; apart from the noise of the mantissas they make 2.3 of 1
//! on real vectors, together with it 1.6.

mod body;
mod decode;
mod encode;
mod framing;
mod memory;
mod schema;

#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;
pub(crate) use memory::{FILE_MEMORY_BYTES, memory_bytes};
