//! What a collection is, and the checks that keep bad input out of the log.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};
use crate::name::{CollectionName, VectorName};
use crate::path::PayloadPath;
use crate::point::{Point, SparseVector, Vector};

/// Largest dimension of a dense vector; Qdrant's limit.
pub const MAX_DIMENSION: usize = 65_536;
/// Most named vectors in a collection.
pub const MAX_VECTORS: usize = 64;
/// Most declared payload indexes in a collection.
pub const MAX_PAYLOAD_INDEXES: usize = 64;
/// Deepest nesting of a payload; JSON readers below us stop at 128.
pub const MAX_PAYLOAD_DEPTH: usize = 64;

/// How near two dense vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distance {
    /// Cosine similarity, −1 to 1, higher is nearer. Vectors are normalised before the log.
    Cosine,
    /// Dot product, higher is nearer.
    Dot,
    /// Euclidean (L2) distance, lower is nearer.
    Euclidean,
    /// Manhattan (L1) distance, lower is nearer.
    Manhattan,
}

impl Distance {
    /// All distances, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];

    /// Whether a higher score is a nearer point.
    pub const fn higher_is_nearer(self) -> bool {
        matches!(self, Self::Cosine | Self::Dot)
    }

    /// The word in configs, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }

    /// Reads the word of [`as_str`](Self::as_str), in any case; `euclid` is Qdrant's word.
    ///
    /// # Errors
    /// `Invalid` with the known words.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "cosine" => Ok(Self::Cosine),
            "dot" => Ok(Self::Dot),
            "euclidean" | "euclid" => Ok(Self::Euclidean),
            "manhattan" => Ok(Self::Manhattan),
            _ => Err(Error::invalid(format!(
                "unknown distance {text:?}; use cosine, dot, euclidean or manhattan"
            ))),
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one named vector of a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorSpec {
    /// Numbers in every dimension, searched by every store.
    Dense {
        /// 1 to [`MAX_DIMENSION`].
        dimension: usize,
        /// The measure of nearness.
        distance: Distance,
    },
    /// Indices and values, scored by dot product; kept by every store, searched by some.
    Sparse,
}

/// The type of a declared payload index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadIndex {
    /// Exact strings (UUIDs too).
    Keyword,
    /// 64-bit signed integers.
    Integer,
    /// Numbers.
    Float,
    /// true and false.
    Bool,
    /// RFC 3339 datetimes.
    Datetime,
}

impl PayloadIndex {
    /// The word in configs, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Datetime => "datetime",
        }
    }

    /// Reads the word of [`as_str`](Self::as_str).
    ///
    /// # Errors
    /// `Invalid` with the known words.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "keyword" => Ok(Self::Keyword),
            "integer" => Ok(Self::Integer),
            "float" => Ok(Self::Float),
            "bool" => Ok(Self::Bool),
            "datetime" => Ok(Self::Datetime),
            _ => Err(Error::invalid(format!(
                "unknown payload index {text:?}; use keyword, integer, float, bool or datetime"
            ))),
        }
    }
}

/// What a collection is: its name, its vectors and its declared payload indexes.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionSpec {
    /// The name.
    pub name: CollectionName,
    /// Named vectors; the default one has the empty name.
    pub vectors: BTreeMap<VectorName, VectorSpec>,
    /// Payload keys that stores index for filters, with their types.
    pub payload_indexes: BTreeMap<PayloadPath, PayloadIndex>,
}

impl CollectionSpec {
    /// A collection with one dense default vector.
    ///
    /// ```
    /// use mainstay_core::{CollectionName, CollectionSpec, Distance};
    /// let spec = CollectionSpec::dense(CollectionName::new("docs")?, 384, Distance::Cosine);
    /// spec.check()?;
    /// # Ok::<(), mainstay_core::Error>(())
    /// ```
    pub fn dense(name: CollectionName, dimension: usize, distance: Distance) -> Self {
        Self {
            name,
            vectors: [(VectorName::default(), VectorSpec::Dense { dimension, distance })].into(),
            payload_indexes: BTreeMap::new(),
        }
    }

    /// The same collection with one more named vector.
    #[must_use]
    pub fn with_vector(mut self, name: VectorName, vector: VectorSpec) -> Self {
        self.vectors.insert(name, vector);
        self
    }

    /// The same collection with one more declared payload index.
    #[must_use]
    pub fn with_payload_index(mut self, path: PayloadPath, index: PayloadIndex) -> Self {
        self.payload_indexes.insert(path, index);
        self
    }

    /// Checks the collection itself.
    ///
    /// # Errors
    /// `Invalid` if there is no vector or too many, a dimension is 0 or too large, or there are
    /// too many payload indexes.
    pub fn check(&self) -> Result<()> {
        let fail = |text: String| Err(Error::invalid(text).with_collection(&self.name));
        if self.vectors.is_empty() {
            return fail("the collection declares no vector".into());
        }
        if self.vectors.len() > MAX_VECTORS {
            return fail(format!(
                "{} vectors declared; at most {MAX_VECTORS} are allowed",
                self.vectors.len()
            ));
        }
        for (name, vector) in &self.vectors {
            if let VectorSpec::Dense { dimension, .. } = vector
                && !(1..=MAX_DIMENSION).contains(dimension)
            {
                return fail(format!(
                    "dimension {dimension} of vector {name:?} is outside 1 to {MAX_DIMENSION}"
                ));
            }
        }
        if self.payload_indexes.len() > MAX_PAYLOAD_INDEXES {
            return fail(format!(
                "{} payload indexes declared; at most {MAX_PAYLOAD_INDEXES} are allowed",
                self.payload_indexes.len()
            ));
        }
        Ok(())
    }

    /// The declared vector of this name.
    ///
    /// # Errors
    /// `Invalid` with the declared names if there is none.
    pub fn vector(&self, name: &VectorName) -> Result<VectorSpec> {
        self.vectors.get(name).copied().ok_or_else(|| {
            let known: Vec<_> = self.vectors.keys().map(|n| format!("{n:?}")).collect();
            Error::invalid(format!("the collection has no vector {name:?}; it has {}", known.join(", ")))
                .with_collection(&self.name)
        })
    }

    /// Checks one vector against its declaration.
    ///
    /// # Errors
    /// `Invalid`: wrong kind, wrong dimension, NaN or infinity, a zero vector under cosine, or a
    /// sparse vector whose indices are not strictly ascending or not as many as its values.
    pub fn check_vector(&self, name: &VectorName, vector: &Vector) -> Result<()> {
        let fail = |text: String| Err(Error::invalid(text).with_collection(&self.name));
        match (self.vector(name)?, vector) {
            (VectorSpec::Dense { dimension, distance }, Vector::Dense(values)) => {
                if values.len() != dimension {
                    return fail(format!(
                        "vector {name:?} has {} dimensions; the collection wants {dimension}",
                        values.len()
                    ));
                }
                let largest = largest_magnitude(values);
                if !largest.is_finite()
                    && let Some(at) = values.iter().position(|v| !v.is_finite())
                {
                    return fail(format!("vector {name:?} holds {} at dimension {at}", values[at]));
                }
                if distance == Distance::Cosine && largest == 0.0 {
                    return fail(format!(
                        "vector {name:?} has length zero, which has no direction under cosine"
                    ));
                }
                Ok(())
            }
            (VectorSpec::Sparse, Vector::Sparse(SparseVector { indices, values })) => {
                if indices.len() != values.len() {
                    return fail(format!(
                        "sparse vector {name:?} has {} indices but {} values",
                        indices.len(),
                        values.len()
                    ));
                }
                if let Some(at) = indices.windows(2).position(|w| w[0] >= w[1]) {
                    return fail(format!(
                        "indices of sparse vector {name:?} must ascend strictly; {} is followed by {}",
                        indices[at],
                        indices[at + 1]
                    ));
                }
                if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                    return fail(format!(
                        "sparse vector {name:?} holds {} at index {}",
                        values[at], indices[at]
                    ));
                }
                Ok(())
            }
            (VectorSpec::Dense { .. }, Vector::Sparse(_)) => {
                fail(format!("vector {name:?} is dense, but a sparse one was given"))
            }
            (VectorSpec::Sparse, Vector::Dense(_)) => {
                fail(format!("vector {name:?} is sparse, but a dense one was given"))
            }
        }
    }

    /// Checks a point and makes it what goes into the log: cosine vectors are normalised.
    ///
    /// # Errors
    /// `Invalid`, naming the point, as [`check_vector`](Self::check_vector), or a payload nested
    /// deeper than [`MAX_PAYLOAD_DEPTH`].
    pub fn admit(&self, mut point: Point) -> Result<Point> {
        let id = point.id;
        let name_point = |error: Error| error.with_context("point", id);
        for (name, vector) in &mut point.vectors {
            self.check_vector(name, vector).map_err(name_point)?;
            self.normalize(name, vector);
        }
        check_payload_depth(&point.payload).map_err(name_point)?;
        Ok(point)
    }

    /// Normalises a checked vector if its distance is cosine; any other stays as it is.
    pub fn normalize(&self, name: &VectorName, vector: &mut Vector) {
        if let (Some(VectorSpec::Dense { distance: Distance::Cosine, .. }), Vector::Dense(values)) =
            (self.vectors.get(name), vector)
        {
            normalize(values);
        }
    }
}

/// Refuses a payload nested deeper than [`MAX_PAYLOAD_DEPTH`].
///
/// # Errors
/// `Invalid`.
pub fn check_payload_depth(payload: &crate::point::Payload) -> Result<()> {
    fn too_deep(value: &serde_json::Value, left: usize) -> bool {
        match value {
            serde_json::Value::Array(values) => left == 0 || values.iter().any(|v| too_deep(v, left - 1)),
            serde_json::Value::Object(map) => left == 0 || map.values().any(|v| too_deep(v, left - 1)),
            _ => false,
        }
    }
    if payload.values().any(|v| too_deep(v, MAX_PAYLOAD_DEPTH - 1)) {
        return Err(Error::invalid(format!("the payload is nested deeper than {MAX_PAYLOAD_DEPTH} levels")));
    }
    Ok(())
}

/// In several sums: in one, each addition would wait for the one before it.
fn squared_length(values: &[f32]) -> f64 {
    const SUMS: usize = 8;
    let squared = |v: &f32| f64::from(*v) * f64::from(*v);
    let (lanes, rest) = values.as_chunks::<SUMS>();
    let mut sums = [0.0; SUMS];
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, v)| *sum += squared(v));
    }
    sums.iter().sum::<f64>() + rest.iter().map(squared).sum::<f64>()
}

/// The largest magnitude; NaN counts as the largest of all. The bits of magnitudes are in the order of the values, and
/// whole numbers are compared many at once.
fn largest_magnitude(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().map(|v| v.to_bits() & (u32::MAX >> 1)).fold(0, u32::max))
}

/// Scales a vector to length 1 in f64. A vector that is already within 1e-6 of length 1 stays as
/// it is to the bit, so that normalising twice changes nothing.
fn normalize(values: &mut [f32]) {
    let length = squared_length(values).sqrt();
    if length > 0.0 && (length - 1.0).abs() > 1e-6 {
        for v in values {
            *v = (f64::from(*v) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(distance: Distance) -> CollectionSpec {
        CollectionSpec::dense(CollectionName::new("c").unwrap(), 2, distance)
    }

    #[test]
    fn cosine_vectors_are_normalised_once_and_for_all() {
        let spec = spec(Distance::Cosine);
        let once = spec.admit(Point::new(1, vec![3.0, 4.0])).unwrap();
        assert_eq!(once.vectors[&VectorName::default()], Vector::Dense(vec![0.6, 0.8]));
        assert_eq!(spec.admit(once.clone()).unwrap(), once);
    }

    #[test]
    fn tiny_and_huge_vectors_keep_their_direction() {
        let spec = spec(Distance::Cosine);
        for scale in [1e-38_f32, 1e38] {
            let point = spec.admit(Point::new(1, vec![scale, 0.0])).unwrap();
            assert_eq!(point.vectors[&VectorName::default()], Vector::Dense(vec![1.0, 0.0]));
        }
    }

    #[test]
    fn bad_vectors_are_refused_with_the_reason() {
        let spec = spec(Distance::Cosine);
        for (values, word) in [
            (vec![1.0], "1 dimensions"),
            (vec![f32::NAN, 1.0], "NaN"),
            (vec![1.0, f32::INFINITY], "inf"),
            (vec![0.0, 0.0], "length zero"),
        ] {
            let error = spec.admit(Point::new(9, values)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            assert!(error.to_string().contains(word) && error.to_string().contains('9'), "{error}");
        }
    }

    #[test]
    fn a_bottomless_payload_is_refused() {
        let mut value = serde_json::Value::Null;
        for _ in 0..MAX_PAYLOAD_DEPTH {
            value = serde_json::json!([value]);
        }
        let point = Point::new(1, vec![1.0, 0.0]).with_payload(serde_json::json!({ "a": value }));
        assert!(spec(Distance::Dot).admit(point).is_err());
    }
}
