//! One dense vector of a collection: a usearch graph, and the exact vectors.

use mainstay_core::{Distance, Error, ErrorKind, Result};
use parking_lot::RwLock;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::options::{MemoryOptions, Quantization};

/// Slots reserved at least, and by how much a full graph grows.
const FIRST_CAPACITY: usize = 1_024;

/// Exact vectors by slot; `None` for a slot without one.
type BySlot = Vec<Option<Box<[f32]>>>;

/// Vectors by slot.
pub struct Graph {
    /// Searches and one adding writer share it; only growing is exclusive, because usearch moves its
    /// tables then.
    index: RwLock<Index>,
    /// The exact vectors by slot where the graph holds others; `None` where the graph holds them.
    exact: Option<RwLock<BySlot>>,
    dimension: usize,
    distance: Distance,
    rescored: usize,
}

impl Graph {
    /// An empty graph.
    pub fn new(dimension: usize, distance: Distance, options: &MemoryOptions) -> Result<Self> {
        let quantization = match distance {
            Distance::Cosine => options.quantization,
            _ => Quantization::F32,
        };
        let index = Index::new(&IndexOptions {
            dimensions: dimension,
            // Cosine vectors are normalised, so that the inner product is the cosine.
            metric: match distance {
                Distance::Cosine | Distance::Dot => MetricKind::IP,
                Distance::Euclidean | Distance::Manhattan => MetricKind::L2sq,
            },
            quantization: match quantization {
                Quantization::F32 => ScalarKind::F32,
                Quantization::F16 => ScalarKind::F16,
                Quantization::I8 => ScalarKind::I8,
            },
            connectivity: options.connectivity,
            expansion_add: options.expansion_add,
            expansion_search: options.expansion_search,
            multi: false,
        });
        let index = index.map_err(usearch_error)?;
        index.reserve(FIRST_CAPACITY).map_err(usearch_error)?;
        let exact = (quantization != Quantization::F32).then(|| RwLock::new(Vec::new()));
        Ok(Self { index: RwLock::new(index), exact, dimension, distance, rescored: options.rescored })
    }

    /// Whether the graph's order is the order of scores; Manhattan has no graph and is scanned.
    pub fn ranks(&self) -> bool {
        self.distance != Distance::Manhattan
    }

    /// The measure of nearness.
    pub fn distance(&self) -> Distance {
        self.distance
    }

    /// Adds a vector. Only one thread may add at a time.
    pub fn add(&self, slot: u32, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dimension {
            return Err(Error::invalid(format!(
                "a vector of {} dimensions; {} are wanted",
                vector.len(),
                self.dimension
            )));
        }
        let full = {
            let index = self.index.read();
            index.size() + 1 >= index.capacity()
        };
        if full {
            let index = self.index.write();
            let capacity = index.capacity().max(FIRST_CAPACITY) * 3 / 2;
            index.reserve(capacity).map_err(usearch_error)?;
        }
        if let Some(exact) = &self.exact {
            let mut exact = exact.write();
            let at = slot as usize;
            if exact.len() <= at {
                exact.resize_with(at + 1, || None);
            }
            exact[at] = Some(vector.into());
        }
        self.index.read().add(u64::from(slot), vector).map_err(usearch_error)
    }

    /// Looks at one exact vector; `None` if the slot has none.
    pub fn with_vector<T>(
        &self,
        slot: u32,
        buffer: &mut Vec<f32>,
        look: impl FnOnce(&[f32]) -> T,
    ) -> Option<T> {
        match &self.exact {
            Some(exact) => exact.read().get(slot as usize).and_then(|vector| vector.as_deref()).map(look),
            None => {
                buffer.resize(self.dimension, 0.0);
                let found = self.index.read().get(u64::from(slot), buffer).is_ok_and(|count| count > 0);
                found.then(|| look(buffer))
            }
        }
    }

    /// The exact vector of a slot.
    pub fn vector(&self, slot: u32) -> Option<Vec<f32>> {
        let mut buffer = Vec::new();
        self.with_vector(slot, &mut buffer, <[f32]>::to_vec)
    }

    /// The slots nearest to a query, about in order, of those that `accepts` takes.
    pub fn nearest(
        &self,
        query: &[f32],
        count: usize,
        accepts: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Vec<u32>> {
        // Where the graph is not exact, more candidates are scored than are wanted.
        let count = if self.exact.is_some() { count.max(self.rescored) } else { count };
        let index = self.index.read();
        let slot = |key: u64| u32::try_from(key).unwrap_or(u32::MAX);
        let matches = match accepts {
            None => index.search(query, count),
            Some(accepts) => index.filtered_search(query, count, |key| accepts(slot(key))),
        };
        Ok(matches.map_err(usearch_error)?.keys.into_iter().map(slot).collect())
    }

    /// Bytes that the graph and the exact vectors take.
    pub fn bytes(&self) -> u64 {
        let exact = self.exact.as_ref().map_or(0, |exact| {
            let exact = exact.read();
            exact.capacity() * size_of::<Option<Box<[f32]>>>()
                + exact.iter().flatten().count() * self.dimension * 4
        });
        (self.index.read().memory_usage() + exact) as u64
    }
}

/// The one mapping of usearch's errors.
fn usearch_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = error.to_string();
    let kind = if text.to_ascii_lowercase().contains("memory") {
        ErrorKind::StorageFull
    } else {
        ErrorKind::Internal
    };
    Error::new(kind, format!("the vector index failed: {text}")).with_source(error)
}
