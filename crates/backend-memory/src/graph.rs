//! One dense vector of a collection: a usearch graph, and the exact vectors.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use mainstay_core::{Distance, Error, ErrorKind, Result};
use parking_lot::{RwLock, RwLockReadGuard};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::options::{MemoryOptions, Quantization};
use crate::rows::Rows;
use crate::saved::{Image, Links};

/// Numbers that are made halves at once, which processors do for several.
const AT_ONCE: usize = 64;
/// Slots reserved at least, and by how much a full graph grows.
const FIRST_CAPACITY: usize = 1_024;

/// Vectors by slot.
pub struct Graph {
    /// Searches and one adding writer share it; only growing is exclusive, because usearch moves its
    /// tables then.
    index: RwLock<Index>,
    /// The exact vectors where the graph holds others; `None` where the graph holds them.
    exact: Option<RwLock<Rows>>,
    dimension: usize,
    distance: Distance,
    quantization: Quantization,
    rescored: usize,
}

impl Graph {
    /// An empty graph.
    pub fn new(dimension: usize, distance: Distance, options: &MemoryOptions) -> Result<Self> {
        let quantization = quantization(distance, options);
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
        let exact = (quantization != Quantization::F32).then(|| RwLock::new(Rows::new(dimension)));
        let (index, rescored) = (RwLock::new(index), options.rescored);
        Ok(Self { index, exact, dimension, distance, quantization, rescored })
    }

    /// Whether the graph's order is the order of scores; Manhattan has no graph and is scanned.
    pub fn ranks(&self) -> bool {
        self.distance != Distance::Manhattan
    }

    /// Numbers in a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The measure of nearness.
    pub fn distance(&self) -> Distance {
        self.distance
    }

    /// Takes room for so many exact vectors at once, where there are none yet. Answers how many bytes they will take; none
    /// where the graph holds them itself.
    pub fn reserve(&self, vectors: usize) -> u64 {
        let Some(exact) = &self.exact else { return 0 };
        exact.write().reserve(vectors);
        Rows::estimate(vectors, self.dimension) as u64
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
        if let Some(exact) = &self.exact {
            exact.write().add(slot, vector);
        }
        self.insert(slot, vector)
    }

    /// Adds a vector to the graph.
    fn insert(&self, slot: u32, vector: &[f32]) -> Result<()> {
        let full = {
            let index = self.index.read();
            index.size() + 1 >= index.capacity()
        };
        if full {
            let index = self.index.write();
            let capacity = index.capacity().max(FIRST_CAPACITY) * 2;
            index.reserve(capacity).map_err(usearch_error)?;
        }
        self.index.read().add(u64::from(slot), vector).map_err(usearch_error)
    }

    /// The exact vectors, to look at; adding waits meanwhile.
    pub fn vectors(&self) -> ExactVectors<'_> {
        match &self.exact {
            Some(exact) => ExactVectors::Beside(exact.read()),
            None => ExactVectors::Inside { index: self.index.read(), dimension: self.dimension },
        }
    }

    /// The exact vector of a slot.
    pub fn vector(&self, slot: u32) -> Option<Vec<f32>> {
        match self.vectors() {
            ExactVectors::Beside(rows) => rows.get(slot).map(<[f32]>::to_vec),
            inside @ ExactVectors::Inside { .. } => {
                let mut vector = Vec::new();
                inside.get(slot, &mut vector).is_some().then_some(vector)
            }
        }
    }

    /// The slots nearest to a query, about in order, of those that `accepts` takes.
    pub fn nearest(
        &self,
        query: &[f32],
        count: usize,
        accepts: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Vec<u32>> {
        // Where the graph is not exact, more candidates are scored than are wanted.
        let count = if self.exact.is_some() { (count + count / 2).max(self.rescored) } else { count };
        let index = self.index.read();
        let slot = |key: u64| u32::try_from(key).unwrap_or(u32::MAX);
        let matches = match accepts {
            None => index.search(query, count),
            Some(accepts) => index.filtered_search(query, count, |key| accepts(slot(key))),
        };
        Ok(matches.map_err(usearch_error)?.keys.into_iter().map(slot).collect())
    }

    /// Writes down what slots are linked to, but for links to `all` and beyond. Nothing may be added meanwhile.
    pub fn write_links(&self, slots: Range<u32>, all: u32, out: &mut Vec<u8>) {
        let index = self.index.read();
        let mut keys = Vec::new();
        for key in slots.map(u64::from) {
            if !index.contains(key) {
                out.push(0);
                continue;
            }
            // Levels are drawn so that a tenth is rare.
            let levels = u8::try_from(index.level_of_key(key) + 1).unwrap_or(u8::MAX);
            out.push(levels);
            for level in 0..usize::from(levels) {
                let (at, mut count) = (out.len(), 0_u16);
                out.extend([0; 2]);
                let mut links = index.neighbors(key, level);
                keys.resize(links.total(), 0);
                // All at once: each key is somewhere else in memory, and waiting for one after the other takes ten times as long.
                let there = links.drain_into(&mut keys).min(keys.len());
                for linked in keys[..there].iter().filter(|linked| **linked < u64::from(all)) {
                    out.extend((*linked as u32).to_le_bytes());
                    count += 1;
                }
                out[at..at + 2].copy_from_slice(&count.to_le_bytes());
            }
        }
    }

    /// A file of usearch with these links, for this graph, which is empty.
    pub fn image(&self, links: &Links) -> Result<Image> {
        Image::new(&self.index.read(), links)
    }

    /// Writes the vector of a slot as the graph holds it, and notes the exact one if that is another.
    pub fn write_row(&self, slot: u32, vector: &[f32], row: &mut [u8]) {
        if let Some(exact) = &self.exact {
            exact.write().add(slot, vector);
        }
        match self.quantization {
            Quantization::F32 => {
                row.as_chunks_mut().0.iter_mut().zip(vector).for_each(|(to, from)| *to = from.to_le_bytes());
            }
            Quantization::F16 => {
                let mut halves = [f16::ZERO; AT_ONCE];
                for (row, vector) in row.chunks_mut(AT_ONCE * 2).zip(vector.chunks(AT_ONCE)) {
                    let halves = &mut halves[..vector.len()];
                    halves.convert_from_f32_slice(vector);
                    let halves = halves.iter().map(|half| half.to_le_bytes());
                    row.as_chunks_mut().0.iter_mut().zip(halves).for_each(|(to, from)| *to = from);
                }
            }
            // As usearch does it; graphs are made of what is about right, so it need not be to the bit.
            Quantization::I8 => {
                let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                let scale = if length > 0.0 { 127.0 / length } else { 0.0 };
                let bytes = vector.iter().map(|value| (f64::from(*value) * scale) as i8);
                row.iter_mut().zip(bytes).for_each(|(to, from)| *to = from as u8);
            }
        }
    }

    /// Takes an image.
    pub fn load(&self, image: &Image) -> Result<()> {
        let index = self.index.write();
        index.load_from_buffer(image.bytes()).map_err(usearch_error)?;
        if index.size() == image.rows() && index.dimensions() == self.dimension {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Internal, "usearch did not take the graph as it was given"))
    }

    /// Builds the graph of an image that could not be loaded, from the vectors of these slots.
    pub fn build(&self, image: &Image, slots: &[u32]) -> Result<()> {
        self.index.write().reset().map_err(usearch_error)?;
        for (row, slot) in slots.iter().enumerate() {
            let vector = match &self.exact {
                Some(exact) => exact.read().get(*slot).map(<[f32]>::to_vec),
                None => image.row(row).map(|row| {
                    row.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<_>>()
                }),
            };
            if let Some(vector) = vector {
                self.insert(*slot, &vector)?;
            }
        }
        Ok(())
    }

    /// Bytes that the graph and the exact vectors take.
    pub fn bytes(&self) -> u64 {
        let exact = self.exact.as_ref().map_or(0, |exact| exact.read().bytes());
        let index = self.index.read();
        let stats = index.memory_stats();
        // What is only set aside for later was never touched, and takes no memory.
        let graph = stats.graph_allocated.saturating_sub(stats.graph_reserved);
        let vectors = stats.vectors_allocated.saturating_sub(stats.vectors_reserved);
        let capacity = index.capacity();
        // Tables that are nearly full count as those of twice the size that they are copied into soon.
        let tables = if index.size() > capacity / 16 * 15 { capacity * 2 } else { capacity };
        (graph + vectors + table_bytes(tables) + exact) as u64
    }

    /// About how many bytes a graph of so many vectors takes, with the exact vectors.
    pub fn estimate(vectors: u64, dimension: usize, distance: Distance, options: &MemoryOptions) -> u64 {
        let quantization = quantization(distance, options);
        // Slots are u32.
        let vectors = usize::try_from(vectors.min(u64::from(u32::MAX))).unwrap_or(usize::MAX >> 20);
        let mut capacity = FIRST_CAPACITY;
        while capacity <= vectors + 1 {
            capacity *= 2;
        }
        let connectivity = options.connectivity;
        // Key, level, and twice the neighbours on the lowest level, in steps of 64 bytes; few points have more.
        let lowest = (10 + 4 + connectivity * 8).next_multiple_of(64);
        let upper = (4 + connectivity * 4).next_multiple_of(64) / (connectivity - 1);
        let (in_graph, beside) = match quantization {
            Quantization::F32 => (dimension * 4, 0),
            Quantization::F16 => (dimension * 2, Rows::estimate(vectors, dimension)),
            Quantization::I8 => (dimension, Rows::estimate(vectors, dimension)),
        };
        let each = lowest + upper + in_graph.next_multiple_of(8);
        (vectors * each + table_bytes(capacity) + beside) as u64
    }
}

/// Bytes of usearch's tables, which are as large as its capacity: two pointers a slot, and a hash table of keys that is
/// between two thirds and a third full.
fn table_bytes(capacity: usize) -> usize {
    let slots = (capacity * 3).div_ceil(2).next_power_of_two();
    capacity * 16 + slots * 16 + slots / 4
}

/// The numbers of a graph for this distance.
pub fn quantization(distance: Distance, options: &MemoryOptions) -> Quantization {
    match distance {
        Distance::Cosine => options.quantization,
        _ => Quantization::F32,
    }
}

/// A look at the exact vectors of a graph.
pub enum ExactVectors<'a> {
    /// They are beside it.
    Beside(RwLockReadGuard<'a, Rows>),
    /// The graph itself holds them.
    Inside {
        /// The graph.
        index: RwLockReadGuard<'a, Index>,
        /// Numbers in a vector.
        dimension: usize,
    },
}

impl ExactVectors<'_> {
    /// The vector of a slot, if it has one. `buffer` is for graphs that only give copies.
    pub fn get<'b>(&'b self, slot: u32, buffer: &'b mut Vec<f32>) -> Option<&'b [f32]> {
        match self {
            Self::Beside(rows) => rows.get(slot),
            Self::Inside { index, dimension } => {
                buffer.resize(*dimension, 0.0);
                let found = index.get(u64::from(slot), buffer).is_ok_and(|count| count > 0);
                found.then_some(buffer.as_slice())
            }
        }
    }
}

/// The one mapping of usearch's errors.
pub fn usearch_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = error.to_string();
    let kind = if text.to_ascii_lowercase().contains("memory") {
        ErrorKind::StorageFull
    } else {
        ErrorKind::Internal
    };
    Error::new(kind, format!("the vector index failed: {text}")).with_source(error)
}
