//! Chunks as points.

use mainstay_core::{CollectionName, Payload, Point, PointId};

use super::chunk::Chunk;
use super::language::language;

/// The keys of a chunk's payload that [`StoredFiles`](super::StoredFiles) reads.
pub const PAYLOAD_KEYS: [&str; 4] = ["source", "path", "file_hash", "chunks"];

/// Where the chunks of a directory are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The collection.
    pub collection: CollectionName,
    /// The name of the directory within the collection, so that several can share one.
    pub source: String,
}

impl Corpus {
    /// The id of a chunk: a UUID made of the hash of collection, source, path and the chunk's
    /// number, so that the same chunk is the same point in every run and on every machine.
    pub fn chunk_id(&self, path: &str, number: usize) -> PointId {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay index 1: id of a chunk");
        let number = (number as u64).to_le_bytes();
        for part in [self.collection.as_str().as_bytes(), self.source.as_bytes(), path.as_bytes(), &number] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        PointId::Uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The point of a chunk: `chunks` is how many chunks the file has.
    pub fn chunk_point(
        &self,
        path: &str,
        file_hash: &str,
        chunks: usize,
        chunk: &Chunk<'_>,
        vector: Vec<f32>,
    ) -> Point {
        let mut payload = Payload::new();
        payload.insert("source".into(), self.source.as_str().into());
        payload.insert("path".into(), path.into());
        payload.insert("file_hash".into(), file_hash.into());
        payload.insert("chunk".into(), chunk.number.into());
        payload.insert("chunks".into(), chunks.into());
        payload.insert("start_line".into(), chunk.start_line.into());
        payload.insert("end_line".into(), chunk.end_line.into());
        if let Some(language) = language(path) {
            payload.insert("language".into(), language.into());
        }
        let id = self.chunk_id(path, chunk.number);
        Point { payload, ..Point::new(id, vector).with_text(chunk.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(collection: &str, source: &str, path: &str, number: usize) -> PointId {
        let collection = CollectionName::new(collection).unwrap();
        Corpus { collection, source: source.into() }.chunk_id(path, number)
    }

    #[test]
    fn an_id_depends_on_collection_source_path_and_number_alone() {
        let first = id("docs", "src", "a/b.rs", 7);
        assert_eq!(first, id("docs", "src", "a/b.rs", 7));
        // What is stored today is found by every later version.
        assert_eq!(first.to_string(), "4b2696b1-36e3-86d9-bb9a-3b743c23c8ba");
        for other in [
            id("doc", "src", "a/b.rs", 7),
            id("docs", "sr", "ca/b.rs", 7),
            id("docs", "src", "a/b.r", 7),
            id("docs", "src", "a/b.rs", 8),
        ] {
            assert_ne!(first, other);
        }
    }
}
