//! Search graphs on their way through a repository: which are written, which listed again, which given to a store.
#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

use async_trait::async_trait;
use mainstay_core::conformance::{ModelStore, cx, state_of};
use mainstay_core::entry::{LogId, LogIdentity};
use mainstay_core::store::Capabilities;
use mainstay_core::{
    CollectionInfo, CollectionName, CollectionRef, CollectionSpec, Context, Distance, Entry, EntryHash,
    Error, ErrorKind, Fields, Filter, Graphs, Hit, Lsn, Op, Point, PointId, Position, Record, RestoreStep,
    Result, Run, SavedGraphs, ScrollPage, ScrollQuery, SearchQuery, VectorStore,
};
use mainstay_snapshot::layout;
use mainstay_snapshot::load::load;
use mainstay_snapshot::manifest::Source;
use mainstay_snapshot::place::PlaceOptions;
use mainstay_snapshot::prune::{Keep, PruneOptions, prune};
use mainstay_snapshot::take::{TakeOptions, Written, take};
use mainstay_snapshot::verify::verify;
use mainstay_snapshot::{Manifest, Repository};
use parking_lot::Mutex;
use std::sync::Arc;
use tempfile::TempDir;

const QUIET: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

/// A store with graphs that are only words.
struct Graphed {
    inner: ModelStore,
    position: Position,
    parameters: &'static str,
    /// What it saves; `None` for a part that fails.
    parts: Vec<Option<&'static str>>,
    /// What it was given.
    given: Mutex<Vec<String>>,
}

impl Graphed {
    fn new(parts: &[&'static str]) -> Self {
        Self {
            inner: ModelStore::default(),
            position: Position::start(LogIdentity { id: LogId(Default::default()), epoch: 1 }),
            parameters: "like this",
            parts: parts.iter().copied().map(Some).collect(),
            given: Mutex::default(),
        }
    }

    async fn write(&mut self, op: Op) {
        let lsn = self.position.lsn.next();
        let entry = Entry { lsn, hash: EntryHash([lsn.0 as u8; 32]), op, size_bytes: 0 };
        let run = Run::new(self.position, vec![Arc::new(entry)]).unwrap();
        self.position = self.inner.apply(&cx(), &run).await.unwrap();
    }

    async fn delete(&mut self, ids: std::ops::Range<u64>) {
        self.write(Op::Delete { collection: docs(), ids: ids.map(PointId::Num).collect() }).await;
    }

    async fn upsert(&mut self, ids: std::ops::Range<u64>) {
        let points = ids.map(|id| Arc::new(Point::new(id, vec![id as f32, 1.0]))).collect();
        self.write(Op::Upsert { collection: docs(), points }).await;
    }

    /// With 1,000 points.
    async fn filled(parts: &[&'static str]) -> Self {
        let mut store = Self::new(parts);
        store.write(Op::CreateCollection(CollectionSpec::dense(docs().name, 2, Distance::Dot))).await;
        store.upsert(0..1_000).await;
        store
    }

    async fn snapshot(&self, repository: &Repository, parent: Option<&Manifest>) -> (Manifest, Written) {
        let source = Source { member: "standby".into(), backend: "test".into() };
        let options = TakeOptions::default();
        let draft = take(repository, self, source, self.position, parent, options, QUIET).await.unwrap();
        let written = draft.written();
        (draft.commit(repository, self.position).await.unwrap(), written)
    }

    /// Loads a snapshot and answers what graphs came with it.
    async fn load(&self, repository: &Repository, manifest: &Manifest) -> Vec<String> {
        load(repository, manifest, self, None, QUIET).await.unwrap();
        self.restore(&cx(), RestoreStep::Finish { position: manifest.from }).await.unwrap();
        self.given.lock().clone()
    }
}

fn docs() -> CollectionRef {
    CollectionRef { name: CollectionName::new("docs").unwrap(), incarnation: Lsn(1) }
}

async fn repository() -> (TempDir, Repository) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let repository = Repository::open_for_writing(place, &PlaceOptions::default()).await.unwrap();
    (directory, repository)
}

#[async_trait]
impl Graphs for Graphed {
    fn parameters(&self, _: &CollectionSpec) -> Option<String> {
        Some(self.parameters.to_owned())
    }

    fn save(&self, collection: &CollectionRef) -> Option<SavedGraphs> {
        assert_eq!(*collection, docs());
        let parts = self.parts.clone().into_iter().map(|part| match part {
            Some(part) => Ok(part.as_bytes().to_vec()),
            None => Err(Error::new(ErrorKind::Unavailable, "built anew")),
        });
        Some(SavedGraphs { parameters: self.parameters.to_owned(), parts: Box::new(parts) })
    }

    async fn load(&self, _: &Context, of: &CollectionRef, points: u64, parts: Vec<Vec<u8>>) -> Result<()> {
        assert_eq!((of, points), (&docs(), 1_000));
        *self.given.lock() = parts.into_iter().map(|part| String::from_utf8(part).unwrap()).collect();
        Ok(())
    }
}

#[tokio::test]
async fn graphs_come_back_in_their_parts_and_only_to_a_store_that_would_build_the_same() {
    let (_directory, repository) = repository().await;
    let store = Graphed::filled(&["one", "two", "three"]).await;
    let (manifest, written) = store.snapshot(&repository, None).await;
    assert_eq!(written.files, manifest.content_files().count() as u64);
    assert_eq!(written.bytes, manifest.bytes());
    let into = Graphed::new(&[]);
    assert_eq!(into.load(&repository, &manifest).await, ["one", "two", "three"]);
    assert_eq!(state_of(&into.inner).await, state_of(&store.inner).await);
    let other = Graphed { parameters: "like that", ..Graphed::new(&[]) };
    assert!(other.load(&repository, &manifest).await.is_empty());
    assert_eq!(state_of(&other.inner).await, state_of(&store.inner).await);
}

#[tokio::test]
async fn graphs_are_listed_again_until_one_point_in_fifty_changed() {
    let (_directory, repository) = repository().await;
    let mut store = Graphed::filled(&["old"]).await;
    let (first, _) = store.snapshot(&repository, None).await;
    store.parts = vec![Some("new")];
    store.upsert(0..20).await;
    let (second, _) = store.snapshot(&repository, Some(&first)).await;
    let graph = |manifest: &Manifest| manifest.collections[&docs().name].graph.clone().unwrap();
    assert_eq!(graph(&second), graph(&first));
    store.upsert(20..21).await;
    let (third, _) = store.snapshot(&repository, Some(&second)).await;
    assert_ne!(graph(&third).files, graph(&first).files);
    assert_eq!(graph(&third).lsn, store.position.lsn);
    assert_eq!(Graphed::new(&[]).load(&repository, &third).await, ["new"]);

    // What nothing lists any more goes with its snapshots.
    let options = PruneOptions { keep: Keep { last: 2, ..Keep::default() }, ..PruneOptions::default() };
    prune(&repository, &options).await.unwrap();
    assert_eq!(Graphed::new(&[]).load(&repository, &second).await, ["old"]);
    let (fourth, _) = store.snapshot(&repository, Some(&third)).await;
    assert!(prune(&repository, &options).await.unwrap().files > 0);
    let left = [&third, &fourth].map(|manifest| manifest.content_files().map(|file| file.hash));
    let left: std::collections::BTreeSet<_> = left.into_iter().flatten().collect();
    assert!(graph(&first).files.iter().all(|file| !left.contains(&file.hash)));
    for listed in repository.snapshots().await.unwrap() {
        assert!(verify(&repository, listed, QUIET).await.unwrap().is_good());
    }
}

#[tokio::test]
async fn graphs_are_saved_again_when_one_point_in_fifty_went_however_slowly() {
    let (_directory, repository) = repository().await;
    let mut store = Graphed::filled(&["old"]).await;
    let graph = |manifest: &Manifest| manifest.collections[&docs().name].graph.clone().unwrap();
    let (mut last, _) = store.snapshot(&repository, None).await;
    let first = graph(&last);
    store.parts = vec![Some("new")];
    for gone in 0..19 {
        store.delete(gone..gone + 1).await;
        last = store.snapshot(&repository, Some(&last)).await.0;
        assert_eq!(graph(&last), first, "{gone}");
    }
    store.delete(19..20).await;
    assert_ne!(graph(&store.snapshot(&repository, Some(&last)).await.0).files, first.files);
}

#[tokio::test]
async fn graphs_of_other_parameters_are_not_listed_again_unless_the_source_has_none() {
    let (_directory, repository) = repository().await;
    let mut store = Graphed::filled(&["old"]).await;
    let graph = |manifest: &Manifest| manifest.collections[&docs().name].graph.clone().unwrap();
    let (first, _) = store.snapshot(&repository, None).await;
    let source = Source { member: "primary".into(), backend: "test".into() };
    let (options, position) = (TakeOptions::default(), store.position);
    let of_model =
        take(&repository, &store.inner, source, position, Some(&first), options, QUIET).await.unwrap();
    let of_model = of_model.commit(&repository, position).await.unwrap();
    assert_eq!(graph(&of_model), graph(&first));
    (store.parameters, store.parts) = ("like that", vec![Some("new")]);
    let (second, _) = store.snapshot(&repository, Some(&of_model)).await;
    assert_eq!(graph(&second).parameters, "like that");
    assert_ne!(graph(&second).files, graph(&first).files);
}

#[tokio::test]
async fn a_part_that_cannot_be_had_leaves_a_snapshot_without_graphs() {
    let (_directory, repository) = repository().await;
    let mut store = Graphed::filled(&["one"]).await;
    store.parts.push(None);
    let (manifest, _) = store.snapshot(&repository, None).await;
    assert_eq!(manifest.collections[&docs().name].graph, None);
    let into = Graphed::new(&[]);
    assert!(into.load(&repository, &manifest).await.is_empty());
    assert_eq!(state_of(&into.inner).await, state_of(&store.inner).await);
}

#[tokio::test]
async fn damaged_graphs_are_told_by_a_verification_and_cost_a_restore_nothing_but_time() {
    let (directory, repository) = repository().await;
    let store = Graphed::filled(&["one"]).await;
    let (manifest, _) = store.snapshot(&repository, None).await;
    let file = manifest.collections[&docs().name].graph.as_ref().unwrap().files[0];
    let path = directory.path().join(layout::graph(file.hash).as_ref());
    let bytes = std::fs::read(&path).unwrap();
    for damage in [Some(bytes[..bytes.len() - 1].to_vec()), Some(vec![7; bytes.len()]), None] {
        match damage {
            Some(damaged) => std::fs::write(&path, damaged).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let listed = repository.find(manifest.id).await.unwrap();
        let problems = verify(&repository, listed, QUIET).await.unwrap().problems;
        assert!(problems.len() == 1 && problems[0].to_string().contains(".graph"), "{problems:?}");
        let into = Graphed::new(&[]);
        assert!(into.load(&repository, &manifest).await.is_empty());
        assert_eq!(state_of(&into.inner).await, state_of(&store.inner).await);
    }
    // A file that is there and cannot be read is not the store's failure either.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let into = Graphed::new(&[]);
        assert!(into.load(&repository, &manifest).await.is_empty());
        assert_eq!(state_of(&into.inner).await, state_of(&store.inner).await);
        std::fs::remove_file(&path).unwrap();
    }
    // The next snapshot writes what is missing.
    let (_, written) = store.snapshot(&repository, Some(&manifest)).await;
    assert_eq!(written.files, 1);
}

#[async_trait]
impl VectorStore for Graphed {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn position(&self, cx: &Context) -> Result<Option<Position>> {
        self.inner.position(cx).await
    }

    async fn apply(&self, cx: &Context, run: &Run) -> Result<Position> {
        self.inner.apply(cx, run).await
    }

    async fn flush(&self, cx: &Context) -> Result<Option<Position>> {
        self.inner.flush(cx).await
    }

    async fn restore(&self, cx: &Context, step: RestoreStep<'_>) -> Result<()> {
        self.inner.restore(cx, step).await
    }

    async fn search(&self, cx: &Context, of: &CollectionName, query: &SearchQuery) -> Result<Vec<Hit>> {
        self.inner.search(cx, of, query).await
    }

    async fn get(
        &self,
        cx: &Context,
        of: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.inner.get(cx, of, ids, fields).await
    }

    async fn scroll(&self, cx: &Context, of: &CollectionName, query: &ScrollQuery) -> Result<ScrollPage> {
        self.inner.scroll(cx, of, query).await
    }

    async fn count(&self, cx: &Context, of: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.inner.count(cx, of, filter).await
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<CollectionInfo>> {
        self.inner.collections(cx).await
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        self.inner.ping(cx).await
    }

    async fn close(&self, cx: &Context) -> Result<()> {
        self.inner.close(cx).await
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.inner.memory_bytes()
    }

    fn graphs(&self) -> Option<&dyn Graphs> {
        Some(self)
    }
}
