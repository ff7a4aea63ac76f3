//! What to index and what to delete: the stored files compared with those that are there.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_core::{Payload, PointId};
use serde_json::Value;

use super::walk::SourceFile;

/// What is stored of each path of one source, gathered from the payloads of all chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFiles {
    source: String,
    files: BTreeMap<String, StoredFile>,
}

/// What is stored of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredFile {
    /// The points of its chunks.
    pub ids: BTreeSet<PointId>,
    /// The hash and the number of chunks, each as the chunks have it: one if they agree.
    versions: BTreeSet<(String, u64)>,
}

impl StoredFile {
    /// Whether all of the file is stored, and as it is now: a run that was interrupted leaves
    /// chunks missing or chunks of two versions.
    pub fn is_current(&self, hash: &str) -> bool {
        let mut versions = self.versions.iter();
        match (versions.next(), versions.next()) {
            (Some((stored, chunks)), None) => stored == hash && *chunks == self.ids.len() as u64,
            _ => false,
        }
    }
}

impl StoredFiles {
    /// Nothing yet of this source.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), files: BTreeMap::new() }
    }

    /// Takes note of a stored point; what another source or no index made is passed over.
    pub fn add(&mut self, id: PointId, payload: &Payload) {
        let text = |key| payload.get(key).and_then(Value::as_str);
        if text("source") != Some(&self.source) {
            return;
        }
        let (Some(path), Some(hash)) = (text("path"), text("file_hash")) else { return };
        let chunks = payload.get("chunks").and_then(Value::as_u64).unwrap_or(0);
        let file = self.files.entry(path.to_owned()).or_default();
        file.ids.insert(id);
        file.versions.insert((hash.to_owned(), chunks));
    }

    /// What is stored of this path.
    pub fn get(&self, path: &str) -> Option<&StoredFile> {
        self.files.get(path)
    }

    /// How many files are stored.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// What an index run does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files to index, in the order of paths.
    pub changes: Vec<Change>,
    /// Paths that are stored but not there any more, with the points to delete.
    pub vanished: Vec<(String, Vec<PointId>)>,
    /// How many files are stored as they are.
    pub unchanged: usize,
}

/// A file that is new or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub file: SourceFile,
    /// What is stored of it; empty for a new one.
    pub stored: BTreeSet<PointId>,
}

impl Change {
    /// The stored points that the new chunks do not replace: delete them after the new chunks are
    /// written, so that a search finds the old or the new meanwhile, never nothing.
    pub fn surplus<'a>(&self, new: impl IntoIterator<Item = &'a PointId>) -> Vec<PointId> {
        let new: BTreeSet<&PointId> = new.into_iter().collect();
        self.stored.iter().filter(|id| !new.contains(id)).copied().collect()
    }
}

/// Compares what is stored with the files of a walk.
pub fn plan(stored: StoredFiles, files: Vec<SourceFile>) -> Plan {
    let mut stored = stored.files;
    let mut plan = Plan::default();
    for file in files {
        match stored.remove(&file.path) {
            Some(known) if known.is_current(&file.hash) => plan.unchanged += 1,
            known => plan.changes.push(Change { file, stored: known.unwrap_or_default().ids }),
        }
    }
    plan.vanished = stored.into_iter().map(|(path, file)| (path, file.ids.into_iter().collect())).collect();
    plan
}

#[cfg(test)]
mod tests {
    use mainstay_core::{CollectionName, Point};

    use super::*;
    use crate::index::{Corpus, Recipe};

    fn file(path: &str, content: &str) -> SourceFile {
        SourceFile {
            path: path.into(),
            location: path.into(),
            hash: recipe().file_hash(content.as_bytes()),
            size_bytes: content.len() as u64,
        }
    }

    fn recipe() -> Recipe {
        Recipe::new(20, "test")
    }

    fn points(path: &str, content: &str) -> Vec<Point> {
        points_of("here", path, content)
    }

    fn points_of(source: &str, path: &str, content: &str) -> Vec<Point> {
        let corpus = Corpus { collection: CollectionName::new("docs").unwrap(), source: source.into() };
        let (recipe, hash) = (recipe(), file(path, content).hash);
        let chunks = recipe.chunks(content);
        chunks.iter().map(|c| corpus.chunk_point(path, &hash, chunks.len(), c, vec![1.0])).collect()
    }

    fn stored(points: &[Point]) -> StoredFiles {
        let mut stored = StoredFiles::new("here");
        points.iter().for_each(|point| stored.add(point.id, &point.payload));
        stored
    }

    const LONG: &str = "one two three four\nfive six seven\neight nine ten eleven\n";

    #[test]
    fn a_second_run_touches_only_what_changed() {
        let before =
            [points("same.txt", LONG), points("changed.txt", LONG), points("gone.txt", LONG)].concat();
        let plan = plan(
            stored(&before),
            vec![file("changed.txt", "short"), file("new.txt", "new"), file("same.txt", LONG)],
        );
        assert_eq!(plan.unchanged, 1);
        let paths: Vec<_> = plan.changes.iter().map(|change| change.file.path.as_str()).collect();
        assert_eq!(paths, ["changed.txt", "new.txt"]);
        let [(path, ids)] = plan.vanished.as_slice() else { panic!("{:?}", plan.vanished) };
        assert_eq!((path.as_str(), ids.len()), ("gone.txt", points("gone.txt", LONG).len()));
    }

    #[test]
    fn chunks_that_a_shorter_file_lost_are_surplus() {
        let old = points("a.txt", LONG);
        let new = points("a.txt", "short");
        let plan = plan(stored(&old), vec![file("a.txt", "short")]);
        let surplus = plan.changes[0].surplus(new.iter().map(|point| &point.id));
        assert_eq!(surplus.len(), old.len() - 1);
        assert!(!surplus.contains(&new[0].id));
    }

    #[test]
    fn what_an_interrupted_run_left_is_indexed_again() {
        let all = points("a.txt", LONG);
        assert!(all.len() > 2);
        let half = stored(&all[1..]);
        assert_eq!(plan(half, vec![file("a.txt", LONG)]).changes.len(), 1);
        // The first chunk is of the new version, the others are of the old one.
        let mixed = stored(&[&points("a.txt", "new version")[..1], &all[1..]].concat());
        assert_eq!(plan(mixed, vec![file("a.txt", "new version")]).changes.len(), 1);
        assert_eq!(plan(stored(&all), vec![file("a.txt", LONG)]).unchanged, 1);
    }

    #[test]
    fn what_another_source_or_no_index_made_is_left_alone() {
        let strange = [
            Point::new(1, vec![1.0]),
            Point::new(2, vec![1.0]).with_payload(serde_json::json!({"path": 5, "file_hash": "x"})),
            Point::new(3, vec![1.0]).with_payload(serde_json::json!({"source": "here", "path": "a.txt"})),
        ];
        let elsewhere = points_of("elsewhere", "a.txt", LONG);
        let plan = plan(stored(&[&strange[..], &elsewhere].concat()), vec![]);
        assert_eq!(plan, Plan::default());
    }
}
