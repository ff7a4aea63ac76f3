//! Text to vectors.
//!
//! [`Embedder`] is what a model implements; [`HashEmbedder`] is built in and needs none.

mod features;

#[cfg(test)]
mod tests;

use async_trait::async_trait;

use self::features::for_each_feature;
use crate::error::{Error, Result};
use crate::spec::MAX_DIMENSION;

/// Turns texts into dense vectors of one dimension. Vectors of two embedders, or of two versions of
/// one, must not be compared; [`name`](Self::name) tells them apart.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// Which embedder this is, with its version: equal names give equal vectors for equal texts.
    fn name(&self) -> &str;

    /// The dimension of every vector.
    fn dimension(&self) -> usize;

    /// One vector for each text, in their order.
    ///
    /// # Errors
    /// Whatever the model runs into; then there is no vector for any of the texts.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;
}

/// The dimension unless told otherwise.
pub const DEFAULT_DIMENSION: usize = 384;
/// How much of a text is looked at; what comes after changes nothing. Chunks of text that are worth
/// embedding are far smaller.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// How many texts are embedded before other tasks of the thread get their turn.
const TEXTS_PER_TURN: usize = 16;

/// A lexical embedder: signed feature hashing of words and of the character n-grams inside them.
///
/// Texts are near if they share words or parts of words. It knows nothing of meaning: `car` and
/// `automobile` are strangers to it. What it is good for: search by names and identifiers, tolerant
/// of inflections and typing errors, without a model, a download or a GPU.
///
/// - Words are runs of letters and digits in lower case. Identifiers are split: `parseHttpUrl`,
///   `parse_http_url` and `parse http url` share all their words, and the first two also the feature of
///   the whole identifier.
/// - Each word of three and more letters also gives its n-grams of 3 to 5 characters, with marks at
///   both ends, at a lower weight. One and two letters weigh half a word.
/// - A feature that occurs `n` times weighs √n as much as once.
/// - Each feature is added to one place of the vector, with a sign, both given by a 64-bit hash
///   (FNV-1a with MurmurHash3's final mix). The vector is then normalised to length one.
///
/// The same text gives the same vector on every machine: only operations that IEEE 754 rounds
/// exactly are used, in a fixed order. A text without any feature gives the first unit vector.
///
/// ```
/// use mainstay_core::HashEmbedder;
/// let embedder = HashEmbedder::default();
/// let dot = |a: &str, b: &str| -> f32 {
///     embedder.vector(a).iter().zip(embedder.vector(b)).map(|(x, y)| x * y).sum()
/// };
/// assert!(dot("open the log", "fn open_log()") > dot("open the log", "a red apple"));
/// ```
#[derive(Clone, Debug)]
pub struct HashEmbedder {
    dimension: usize,
    name: String,
}

impl HashEmbedder {
    /// An embedder with this dimension; below 128 unrelated words collide often.
    ///
    /// # Errors
    /// `Invalid` if the dimension is outside 1 to [`MAX_DIMENSION`].
    pub fn new(dimension: usize) -> Result<Self> {
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(Error::invalid(format!(
                "the dimension {dimension} of the embedder is outside 1 to {MAX_DIMENSION}"
            )));
        }
        Ok(Self { dimension, name: format!("hash-v1-{dimension}") })
    }

    /// The vector of one text.
    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut features = Vec::new();
        for_each_feature(head(text), |hash, weight| features.push((hash, weight)));
        // Equal features stand together, and sums are made in an order that only the text decides.
        features.sort_unstable();
        let mut sums = vec![0.0_f64; self.dimension];
        for equal in features.chunk_by(|a, b| a == b) {
            let (hash, weight) = equal[0];
            let value = weight.value() * (equal.len() as f64).sqrt();
            let place = ((hash >> 1) % self.dimension as u64) as usize;
            sums[place] += if hash & 1 == 0 { value } else { -value };
        }
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length < 1e-9 {
            let mut unit = vec![0.0; self.dimension];
            unit[0] = 1.0;
            return unit;
        }
        sums.into_iter().map(|x| (x / length) as f32).collect()
    }
}

impl Default for HashEmbedder {
    fn default() -> Self {
        Self { dimension: DEFAULT_DIMENSION, name: format!("hash-v1-{DEFAULT_DIMENSION}") }
    }
}

#[async_trait]
impl Embedder for HashEmbedder {
    fn name(&self) -> &str {
        &self.name
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for turn in texts.chunks(TEXTS_PER_TURN) {
            vectors.extend(turn.iter().map(|text| self.vector(text)));
            tokio::task::yield_now().await;
        }
        Ok(vectors)
    }
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}
