//! A directory of text and source files as points.
//!
//! [`walk`](fn@walk) finds the files as git would, [`Recipe::chunks`] cuts each into chunks, and
//! [`Corpus::chunk_point`] makes a chunk and its vector a point with an id that depends on the
//! collection, the source, the path and the chunk's number alone. [`plan`](fn@plan) compares what is stored with what is
//! there, so that a second run touches only what changed.
//!
//! A point's payload: `source` (the name of the directory), `path` (below it), `file_hash`, `chunk` (from 0), `chunks` (how many the file has),
//! `start_line`, `end_line` (from 1) and, if it is known by the name, `language`. Its text is the
//! chunk's.

mod chunk;
mod language;
mod plan;
mod point;
mod walk;

pub use chunk::{Chunk, DEFAULT_CHUNK_CHARS, Recipe};
pub use language::language;
pub use plan::{Change, Plan, StoredFile, StoredFiles, plan};
pub use point::{Corpus, PAYLOAD_KEYS};
pub use walk::{MAX_FILE_BYTES, SkipReason, Skipped, SourceFile, Walked, read_source, walk};
