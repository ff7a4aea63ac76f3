//! Graphs as they are saved and loaded.
//!
//! | module | idea |
//! |---|---|
//! | `write` | the links of a collection's graphs, in parts |
//! | `read` | parts back into links, none of them believed |
//! | `image` | links and vectors as a file of usearch, which is the one way to give it links |
//! | `load` | a collection that is filled while its graphs are already known |
//!
//! # A part
//!
//! Parts follow each other from slot 0. Numbers are little-endian.
//!
//! ```text
//! slots u32
//! for each slot: key of the point's id (17 bytes), or 17 bytes 0xff where no point is
//! for each slot: version u64
//! for each dense vector of the collection by name, for each slot:
//!     levels u8, 0 where the slot lacks the vector; for each level from the lowest: links u16, each the u32 of a slot
//! ```
//!
//! Vectors are not in it, they come with the points. A slot whose point went, or comes in another version, keeps its links and
//! is given the vector of a neighbour: searches pass through it as before and never find it.

use mainstay_core::{CollectionSpec, VectorSpec};
use serde_json::{Map, json};

use crate::graph::quantization;
use crate::options::{MemoryOptions, WhenFull};

mod image;
mod load;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use image::Image;
pub use load::Load;
pub use read::Links;
pub use write::Writer;

/// What stands for the id of no point.
const NO_ID: [u8; ID_BYTES] = [0xff; ID_BYTES];
const ID_BYTES: usize = 17;
/// A slot without a vector, or a row without a slot.
const NONE: u32 = u32::MAX;

/// What the graphs of a collection are made of. A store that lets points go saves and loads none.
pub fn parameters(spec: &CollectionSpec, options: &MemoryOptions) -> Option<String> {
    let dense = spec.vectors.iter().filter_map(|(name, vector)| match vector {
        VectorSpec::Dense { dimension, distance } => {
            let quantization = quantization(*distance, options).as_str();
            let made_of = json!({ "dimension": dimension, "distance": distance.as_str(), "quantization": quantization });
            Some((name.as_str().to_owned(), made_of))
        }
        VectorSpec::Sparse => None,
    });
    let vectors: Map<_, _> = dense.collect();
    if vectors.is_empty() || options.when_full == WhenFull::Partial {
        return None;
    }
    let built = json!({
        "graphs": 1,
        "connectivity": options.connectivity,
        "expansion_add": options.expansion_add,
        "vectors": vectors,
    });
    Some(built.to_string())
}
