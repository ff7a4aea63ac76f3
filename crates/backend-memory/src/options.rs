//! What a memory store goes by.

use mainstay_core::{Error, Result};

/// The numbers that a search graph is made of. Scores are exact in each case: candidates from the graph
/// are scored again with the vectors as they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// 4 bytes a dimension; the graph is the only copy of the vectors, which makes this the smallest.
    #[default]
    F32,
    /// 2 bytes a dimension, beside the exact vectors: 6 in all. Cosine vectors only; other distances use f32.
    F16,
    /// 1 byte a dimension, beside the exact vectors: 5 in all. Cosine vectors only; other distances use f32.
    I8,
}

impl Quantization {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }
}

/// What a store does when `max_memory` is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It takes no more: a write answers `StorageFull`.
    #[default]
    Refuse,
    /// It lets the points go that were not written or found for longest, and says that it is partial. The room of a
    /// rebuild is kept free, so that it holds about half of `max_memory` in points.
    Partial,
}

/// Options of a [`MemoryStore`](crate::MemoryStore).
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Most bytes that the store may hold, a rebuild included; what happens beyond them says `when_full`.
    pub max_memory: Option<u64>,
    /// What the store does when `max_memory` is reached.
    pub when_full: WhenFull,
    /// Whether the store may be filled with more than [`RED_POINTS`](crate::estimate::RED_POINTS) points.
    pub allow_red_zone: bool,
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
            when_full: WhenFull::Refuse,
            allow_red_zone: false,
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
