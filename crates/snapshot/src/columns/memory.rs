//! What the points of a file take in memory when it is read. Columns pack well, so the size of a file says little.

use mainstay_core::{CollectionSpec, Record, Vector, VectorName, VectorSpec};

use crate::bounded::map_bytes;
use crate::manifest::MAX_FILE_BYTES;

/// Most that the points of a file may take while they are read.
pub(super) const MAX_MEMORY_BYTES: u64 = 2 * MAX_FILE_BYTES;
/// What a writer puts into a file; well below what a reader takes, as either counts in its own way.
pub(crate) const FILE_MEMORY_BYTES: u64 = MAX_MEMORY_BYTES / 2;
/// A point with nothing in it, and what stands for it while its columns are read.
pub(super) const ROW_BYTES: u64 = size_of::<Record>() as u64 + 128;
/// The map of a point's vectors, which has room for eleven from the first on.
pub(super) const VECTORS_BYTES: u64 = 11 * (size_of::<VectorName>() + size_of::<Vector>()) as u64 + 16;

/// What a point takes, about.
pub(crate) fn memory_bytes(spec: &CollectionSpec, record: &Record) -> u64 {
    let point = &record.point;
    let dense = spec.vectors.values().map(|vector| match vector {
        // Also where it is missing: there are zeros in its column.
        VectorSpec::Dense { dimension, .. } => *dimension as u64 * 4,
        VectorSpec::Sparse => 8,
    });
    let sparse = point.vectors.values().map(|vector| match vector {
        Vector::Sparse(sparse) => sparse.indices.len() as u64 * 8,
        Vector::Dense(_) => 0,
    });
    let text = point.text.as_ref().map_or(0, String::len) as u64;
    let unpacked = 40 + dense.sum::<u64>() + sparse.sum::<u64>() + text;
    ROW_BYTES
        + VECTORS_BYTES * (1 + spec.vectors.len() as u64 / 6)
        + 2 * unpacked
        + 3 * map_bytes(&point.payload)
}
