//! What a directory or a file holds, as a store in memory would be told of it.

use std::path::Path;
use std::sync::Arc;

use mainstay_core::expected::Survey;
use mainstay_core::{
    CollectionName, CollectionSpec, Distance, Error, Expected, PayloadIndex, PayloadPath, Point, Result,
    Vector, VectorSpec,
};

use crate::import::{BatchLimits, Import};
use crate::index::{Corpus, Recipe, read_source, walk};

/// Points of a file that are read at once.
const BATCH: BatchLimits = BatchLimits { max_points: 1_000, max_bytes: 8 << 20 };

/// The collection that indexing a directory makes.
///
/// # Errors
/// `Invalid` for a dimension that no vector has.
pub fn index_spec(name: &CollectionName, dimension: usize) -> Result<CollectionSpec> {
    let keyword = |key: &str| (PayloadPath::key(key), PayloadIndex::Keyword);
    let mut spec = CollectionSpec::dense(name.clone(), dimension, Distance::Cosine);
    spec.payload_indexes = ["source", "path", "language"].map(keyword).into();
    spec.check()?;
    Ok(spec)
}

/// The collection that points like these need.
///
/// # Errors
/// `Invalid` if no collection can have such vectors.
pub fn spec_for(name: &CollectionName, points: &[Point], distance: Distance) -> Result<CollectionSpec> {
    let vectors = points.iter().flat_map(|point| &point.vectors).map(|(name, vector)| {
        let spec = match vector {
            Vector::Dense(values) => VectorSpec::Dense { dimension: values.len(), distance },
            Vector::Sparse(_) => VectorSpec::Sparse,
        };
        (name.clone(), spec)
    });
    let spec = CollectionSpec {
        name: name.clone(),
        vectors: vectors.collect(),
        payload_indexes: Default::default(),
    };
    spec.check()?;
    Ok(spec)
}

/// The points that indexing a directory makes, with vectors of this dimension.
///
/// # Errors
/// As [`walk`].
pub fn of_directory(directory: &Path, recipe: &Recipe, dimension: usize) -> Result<Expected> {
    let collection = CollectionName::new("estimate")?;
    let spec = index_spec(&collection, dimension)?;
    let source = directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let corpus = Corpus { collection, source };
    // Only how long it is matters.
    let vector = vec![0.0; dimension];
    let mut survey = Survey::default();
    for file in walk(directory, recipe)?.files {
        // A file that cannot be read any more is like one that is gone.
        let Ok(text) = read_source(&file.location) else { continue };
        let chunks = recipe.chunks(&text);
        for chunk in &chunks {
            let point = corpus.chunk_point(&file.path, &file.hash, chunks.len(), chunk, vector.clone());
            survey.add(&Arc::new(point));
        }
    }
    Ok(survey.expected(spec))
}

/// The points of a file that `import` reads; `progress` is told how far it is read, and of how much.
///
/// # Errors
/// As [`Import::open`], with the place of a bad point; `Invalid` for a file without points.
pub fn of_file(file: &Path, distance: Distance, progress: &dyn Fn(u64, u64)) -> Result<Expected> {
    let name = CollectionName::new("estimate")?;
    let mut import = Import::open(file, None, None, BATCH)?;
    let mut survey = Survey::default();
    let mut spec = None;
    while let Some(batch) = import.next() {
        let points = batch?.points;
        if spec.is_none() {
            let found = spec_for(&name, &points, distance)?;
            import.check_by(found.clone());
            spec = Some(found);
        }
        points.into_iter().for_each(|point| survey.add(&Arc::new(point)));
        progress(import.progress().done, import.progress().total);
    }
    let spec = spec.ok_or_else(|| {
        Error::invalid(format!("{} has no points; name a file that `mainstay import` reads", file.display()))
    })?;
    Ok(survey.expected(spec))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn a_file_is_counted_by_different_ids() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("points.jsonl");
        let mut lines = String::new();
        for n in (0..1_500).chain(0..100) {
            writeln!(lines, "{{\"id\": {n}, \"vector\": [0.5, 0.25, 1], \"payload\": {{\"n\": {n}}}}}")
                .unwrap();
        }
        std::fs::write(&file, lines).unwrap();
        let expected = of_file(&file, Distance::Cosine, &|_, _| {}).unwrap();
        assert_eq!(expected.points, 1_500);
        let spec = expected.spec.vector(&Default::default()).unwrap();
        assert_eq!(spec, VectorSpec::Dense { dimension: 3, distance: Distance::Cosine });
        std::fs::write(&file, "").unwrap();
        assert!(of_file(&file, Distance::Cosine, &|_, _| {}).is_err());
    }

    #[test]
    fn a_directory_is_counted_as_it_would_be_indexed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.rs"), "fn main() {}\n").unwrap();
        std::fs::write(directory.path().join("b.txt"), "words and words\n\n".repeat(200)).unwrap();
        std::fs::write(directory.path().join("c.bin"), [0; 64]).unwrap();
        let recipe = Recipe::new(400, "hash");
        let expected = of_directory(directory.path(), &recipe, 256).unwrap();
        let chunks = recipe.chunks(&"words and words\n\n".repeat(200)).len() as u64;
        assert_eq!(expected.points, 1 + chunks);
        assert!(
            expected.sample.iter().all(|point| point.text.is_some() && point.payload.contains_key("path"))
        );
    }
}
