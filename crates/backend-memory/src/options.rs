//! What a memory store goes by.

use mainstay_core::{Error, Result};

/// The numbers that a search graph is made of. Scores are exact in each case: candidates from the graph
/// are scored again with the vectors as they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// 4 bytes a dimension; the graph is the only copy of the vectors.
    #[default]
    F32,
    /// 2 bytes a dimension, beside the exact vectors.
    F16,
    /// 1 byte a dimension, beside the exact vectors. Cosine vectors only, whose numbers lie within −1
    /// and 1; other distances use f32.
    I8,
}

/// Options of a [`MemoryStore`](crate::MemoryStore).
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Most bytes that the store may hold; a write beyond it answers `StorageFull`.
    pub max_memory: Option<u64>,
    /// The numbers of the graph.
    pub quantization: Quantization,
    /// Share of buried slots from which a collection is built anew, 0 to 1 (exclusive).
    pub tombstone_ratio: f64,
    /// Neighbours of a point in the graph (usearch's default).
    pub connectivity: usize,
    /// Candidates looked at when a point is added (usearch's default).
    pub expansion_add: usize,
    /// Candidates looked at in a search (usearch's default); a search for more hits looks at more.
    pub expansion_search: usize,
    /// Fewest candidates that are scored exactly in a search with f16 or i8; a search for more hits scores
    /// half as many again as it wants. Measured on 40,000 real embeddings with i8, 16 candidates for 10 hits
    /// give the same recall@10 as 40 (0.983), limited by the graph, in two thirds of the time.
    pub rescored: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_memory: None,
            quantization: Quantization::F32,
            tombstone_ratio: 0.10,
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 64,
            rescored: 20,
        }
    }
}

impl MemoryOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// `Invalid` with the option that is out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.tombstone_ratio > 0.0 && self.tombstone_ratio < 1.0) {
            return Err(Error::invalid(format!(
                "tombstone_ratio {} is not between 0 and 1",
                self.tombstone_ratio
            )));
        }
        let counts = [
            ("connectivity", self.connectivity, 2..=256),
            ("expansion_add", self.expansion_add, 1..=10_000),
            ("expansion_search", self.expansion_search, 1..=10_000),
            ("rescored", self.rescored, 1..=10_000),
        ];
        for (name, value, range) in counts {
            if !range.contains(&value) {
                return Err(Error::invalid(format!(
                    "{name} {value} is outside {} to {}",
                    range.start(),
                    range.end()
                )));
            }
        }
        Ok(())
    }
}
