//! What a process that writes and makes snapshots said before it was killed, and what may follow from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mainstay::restore::{RestoreOptions, restore_store};
use mainstay::snapshot::Repository;
use mainstay::{CollectionName, CollectionSpec, Distance, Lsn, Point, PointId};
use mainstay_core::Record;
use mainstay_core::conformance::{ModelStore, state_of};

/// Tasks that write, each to a collection of its own.
pub const WRITERS: u64 = 3;
/// Ids of one writer.
pub const IDS: u64 = 40;
/// How many snapshots stay.
pub const KEEP: usize = 3;

/// The collection of a writer.
pub fn collection(writer: u64) -> CollectionName {
    CollectionName::new(&format!("docs{writer}")).unwrap()
}

/// What it is.
pub fn spec(writer: u64) -> CollectionSpec {
    CollectionSpec::dense(collection(writer), 4, Distance::Cosine)
}

/// A point whose vector and payload follow from its id and text.
pub fn point(id: u64, text: &str) -> Point {
    let vector = (0..4).map(|i| ((id * 31 + i * 17 + text.len() as u64) % 13) as f32 + 1.0).collect();
    Point::new(id, vector).with_text(text).with_payload(serde_json::json!({ "text": text }))
}

/// The files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// A write: its LSN if it was acked, and the text of the point, or none if it was deleted.
#[derive(Clone, Debug, Default)]
struct Write {
    lsn: Option<Lsn>,
    text: Option<String>,
}

/// What was said.
#[derive(Default)]
pub struct History {
    writes: BTreeMap<(u64, u64), Vec<Write>>,
    begun: BTreeMap<u64, (u64, Option<String>)>,
    /// Snapshots that were complete, with the LSN that each reaches to.
    pub snapshots: BTreeMap<String, Lsn>,
    /// Everything up to here was archived.
    pub archived: Lsn,
    /// Writes that were acked.
    pub acks: u64,
}

impl History {
    /// Takes a line; one that was cut by the kill says nothing.
    pub fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        match (words.first().copied().unwrap_or_default(), words.len()) {
            ("try", 5) => {
                if let (Some(writer), Some(id)) = (number(1), number(2)) {
                    self.begun.insert(writer, (id, (words[3] != "-").then(|| words[3].to_owned())));
                }
            }
            ("ack", 4) => {
                if let (Some(writer), Some(lsn)) = (number(1), number(2))
                    && let Some((id, text)) = self.begun.remove(&writer)
                {
                    self.acks += 1;
                    self.writes.entry((writer, id)).or_default().push(Write { lsn: Some(Lsn(lsn)), text });
                }
            }
            ("snapshot", 4) => {
                if let Some(to) = number(2) {
                    self.snapshots.insert(words[1].to_owned(), Lsn(to));
                }
            }
            ("archived", 3) => self.archived = number(1).map_or(self.archived, Lsn),
            _ => {}
        }
    }

    /// The process is dead: what it had begun may have happened.
    pub fn close(&mut self) {
        for (writer, (id, text)) in std::mem::take(&mut self.begun) {
            self.writes.entry((writer, id)).or_default().push(Write { lsn: None, text });
        }
    }

    /// What is wrong with a collection's points as they are said to have been at an LSN.
    pub fn wrong(&self, writer: u64, at: Lsn, records: &[Record]) -> Vec<String> {
        let held: BTreeMap<_, _> = records.iter().map(|record| (record.point.id, record)).collect();
        let mut wrong = Vec::new();
        for id in 0..IDS {
            let mut allowed = vec![Write::default()];
            for write in self.writes.get(&(writer, id)).into_iter().flatten() {
                match write.lsn {
                    Some(lsn) if lsn <= at => allowed = vec![write.clone()],
                    Some(_) => break,
                    None => allowed.push(write.clone()),
                }
            }
            let found = held.get(&PointId::Num(id));
            let text = found.and_then(|record| record.point.text.clone());
            let fits = |write: &Write| {
                let version =
                    write.lsn.is_none() || found.is_none_or(|record| Some(record.version) == write.lsn);
                write.text == text && version
            };
            let whole = found.is_none_or(|record| {
                let made = point(id, text.as_deref().unwrap_or_default());
                record.point.payload == made.payload && record.point.vectors.len() == made.vectors.len()
            });
            if !whole || !allowed.iter().any(fits) {
                let version = found.map(|record| record.version);
                wrong.push(format!("{writer}/{id} is {text:?} of {version:?}, not one of {allowed:?}"));
            }
        }
        if held.keys().any(|id| !matches!(id, PointId::Num(id) if *id < IDS)) {
            wrong.push(format!("{writer} has points that were never written"));
        }
        wrong
    }

    /// Restores into a store and compares it with what was said. Answers the last entry of what was restored.
    pub async fn check_restore(&self, repository: &Repository, options: RestoreOptions) -> Lsn {
        let store = ModelStore::default();
        let restored = restore_store(repository, options, &store, &|_, _| {}).await.unwrap();
        assert!(restored.passed_over.is_empty(), "{:?}", restored.passed_over);
        let state = state_of(&store).await;
        for writer in 0..WRITERS {
            let of_writer = state.iter().find(|(spec, _, _)| spec.name == collection(writer));
            let records = of_writer.map(|(_, _, records)| records.as_slice()).unwrap_or_default();
            let wrong = self.wrong(writer, restored.to, records);
            assert!(wrong.is_empty(), "{} at {}: {wrong:?}", restored.snapshot, restored.to);
        }
        restored.to
    }
}
