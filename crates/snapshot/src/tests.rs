//! What crosses the modules: histories into repositories and back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_core::conformance::{Generator, ModelStore, Script, cx, name, state_of};
use mainstay_core::entry::LogIdentity;
use mainstay_core::{CollectionSpec, Distance, ErrorKind, Lsn, Op, Point, RestoreStep, VectorStore};
use tempfile::TempDir;

use crate::layout::{self, ContentHash};
use crate::manifest::{Manifest, Source};
use crate::place::PlaceOptions;
use crate::prune::{Keep, PruneOptions, prune};
use crate::repository::Repository;
use crate::take::{TakeOptions, Written, take};
use crate::verify::verify;
use crate::{diff, load};

const QUIET: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

struct Folder {
    directory: TempDir,
    repository: Repository,
}

impl Folder {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("snapshots");
        let repository =
            Repository::open_for_writing(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
        Self { directory, repository }
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("snapshots")
    }

    /// A snapshot of a store that holds all of a script, as if its position had been read after `from`.
    async fn take(&self, store: &ModelStore, script: &Script, from: Lsn) -> (Manifest, Written) {
        let source = Source { member: "standby".into(), backend: "model".into() };
        let options = TakeOptions { bucket_bytes: 16_384, ..TakeOptions::default() };
        let listed = self.repository.snapshots().await.unwrap();
        let parent = match listed.last() {
            Some(last) => Some(self.repository.manifest(*last).await.unwrap()),
            None => None,
        };
        let position = script.position(from);
        let draft =
            take(&self.repository, store, source, position, parent.as_ref(), options, QUIET).await.unwrap();
        let written = draft.written();
        (draft.commit(&self.repository, script.position(script.end())).await.unwrap(), written)
    }

    fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        walk(&self.place(), &mut files);
        files.sort();
        files
    }
}

/// Loads a snapshot, replays what came while it was made, and answers the store.
async fn restored(repository: &Repository, manifest: &Manifest, script: &Script) -> ModelStore {
    let store = ModelStore::default();
    load::load(repository, manifest, &store, None, QUIET).await.unwrap();
    store.restore(&cx(), RestoreStep::Finish { position: manifest.from }).await.unwrap();
    script.apply_to(&store).await;
    store
}

fn many(points: u64) -> (Script, mainstay_core::CollectionRef) {
    let mut script = Script::new(1);
    let spec = CollectionSpec::dense(name("docs"), 4, Distance::Dot);
    let docs = script.create(&spec);
    for chunk in (0..points).collect::<Vec<_>>().chunks(50) {
        script.upsert(&docs, chunk.iter().map(|n| Point::new(*n, vec![*n as f32, 0.5, -1.0, 2.0])).collect());
    }
    (script, docs)
}

#[tokio::test]
async fn a_snapshot_and_the_log_after_it_are_the_state_exactly() {
    for seed in 0..60 {
        let script = Generator::new(seed).history(60);
        let store = ModelStore::default();
        script.apply_to(&store).await;
        let folder = Folder::new().await;
        // The position was read long before the last point was.
        let from = Lsn(seed % script.end().0);
        let (manifest, _) = folder.take(&store, &script, from).await;
        let listed = folder.repository.snapshots().await.unwrap();
        assert_eq!(folder.repository.manifest(listed[0]).await.unwrap(), manifest);
        let verified = verify(&folder.repository, listed[0], QUIET).await.unwrap();
        assert!(verified.is_good() && verified.points == manifest.points(), "{verified:?}");
        let again = restored(&folder.repository, &manifest, &script).await;
        assert_eq!(state_of(&again).await, state_of(&store).await, "seed {seed}");
        assert!(diff::since(&folder.repository, &manifest, &store).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn only_buckets_that_changed_are_written_again() {
    let (mut script, docs) = many(2_000);
    let store = ModelStore::default();
    script.apply_to(&store).await;
    let folder = Folder::new().await;
    let (first, written) = folder.take(&store, &script, script.end()).await;
    assert!(written.files > 100 && written.reused == 0, "{written:?}");
    script.upsert(&docs, vec![Point::new(7, vec![0.0; 4]), Point::new(5_000, vec![1.0; 4])]);
    script.push(Op::Delete { collection: docs.clone(), ids: vec![8.into()] });
    script.apply_to(&store).await;
    let (second, written) = folder.take(&store, &script, script.end()).await;
    assert!(written.files <= 3 && written.reused > 100, "{written:?}");
    assert_eq!(state_of(&restored(&folder.repository, &second, &script).await).await, state_of(&store).await);
    let changed = diff::between(&folder.repository, &first, &second).await.unwrap();
    let points = &changed.points[&name("docs")];
    assert_eq!(points.added, [5_000.into()]);
    assert_eq!((points.removed.as_slice(), points.changed.as_slice()), (&[8.into()][..], &[7.into()][..]));
    assert_eq!(diff::since(&folder.repository, &first, &store).await.unwrap(), changed);
}

#[tokio::test]
async fn a_snapshot_of_another_log_lends_nothing() {
    let (script, _) = many(300);
    let store = ModelStore::default();
    script.apply_to(&store).await;
    let folder = Folder::new().await;
    folder.take(&store, &script, script.end()).await;
    let mut other = Script::new(2);
    let docs = other.create(&CollectionSpec::dense(name("docs"), 4, Distance::Dot));
    for chunk in (0..300).collect::<Vec<_>>().chunks(50) {
        other.upsert(&docs, chunk.iter().map(|n| Point::new(*n, vec![9.0; 4])).collect());
    }
    let store = ModelStore::default();
    other.apply_to(&store).await;
    let (manifest, written) = folder.take(&store, &other, other.end()).await;
    assert_eq!(written.reused, 0);
    assert_eq!(
        state_of(&restored(&folder.repository, &manifest, &other).await).await,
        state_of(&store).await
    );
}

#[tokio::test]
async fn pruning_leaves_every_kept_snapshot_whole_and_nothing_else() {
    let (mut script, docs) = many(500);
    let store = ModelStore::default();
    let folder = Folder::new().await;
    let mut states = Vec::new();
    for round in 0..6 {
        script.upsert(&docs, vec![Point::new(round, vec![round as f32; 4])]);
        script.apply_to(&store).await;
        folder.take(&store, &script, script.end()).await;
        states.push(state_of(&store).await);
    }
    let listed = folder.repository.snapshots().await.unwrap();
    let options = PruneOptions { keep: Keep { last: 2, ..Keep::default() }, ..PruneOptions::default() };
    let would = prune(&folder.repository, &PruneOptions { dry_run: true, ..options.clone() }).await.unwrap();
    assert_eq!(folder.repository.snapshots().await.unwrap(), listed);
    let pruned = prune(&folder.repository, &options).await.unwrap();
    assert_eq!(pruned.snapshots, listed[..4].iter().map(|l| l.id).collect::<Vec<_>>());
    assert_eq!((would.snapshots.len(), pruned.files > 0), (4, true));
    let mut needed = BTreeSet::new();
    for (listed, state) in folder.repository.snapshots().await.unwrap().iter().zip(&states[4..]) {
        assert!(verify(&folder.repository, *listed, QUIET).await.unwrap().is_good());
        let manifest = folder.repository.manifest(*listed).await.unwrap();
        needed.extend(manifest.files().map(|file| file.hash));
        let loaded = ModelStore::default();
        load::load(&folder.repository, &manifest, &loaded, None, QUIET).await.unwrap();
        loaded.restore(&cx(), RestoreStep::Finish { position: manifest.from }).await.unwrap();
        assert_eq!(state_of(&loaded).await, *state);
    }
    let there: BTreeSet<_> =
        folder.repository.content_files().await.unwrap().into_iter().map(|file| file.hash).collect();
    assert_eq!(there, needed);
}

#[tokio::test]
async fn with_a_grace_time_a_file_goes_only_after_it_was_without_use_for_so_long() {
    let (mut script, docs) = many(100);
    let store = ModelStore::default();
    let folder = Folder { repository: Repository::in_memory(), ..Folder::new().await };
    for round in 0..4 {
        script.upsert(&docs, vec![Point::new(round, vec![9.0; 4])]);
        script.apply_to(&store).await;
        folder.take(&store, &script, script.end()).await;
    }
    let options =
        |grace| PruneOptions { keep: Keep { last: 2, ..Keep::default() }, grace, ..PruneOptions::default() };
    let hour = Duration::from_secs(3_600);
    let before = folder.repository.content_files().await.unwrap().len();
    for _ in 0..2 {
        let pruned = prune(&folder.repository, &options(hour)).await.unwrap();
        assert_eq!(pruned.files, 0);
    }
    assert_eq!(folder.repository.content_files().await.unwrap().len(), before);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let pruned = prune(&folder.repository, &options(Duration::from_millis(10))).await.unwrap();
    assert!(pruned.files > 0);
    assert!(folder.repository.list(&layout::GARBAGE.into()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_was_written_again_after_its_mark_goes_after_another_grace_time() {
    let (script, _) = many(100);
    let store = ModelStore::default();
    script.apply_to(&store).await;
    let folder = Folder { repository: Repository::in_memory(), ..Folder::new().await };
    let repository = &folder.repository;
    folder.take(&store, &script, script.end()).await;
    let needed = repository.content_files().await.unwrap();
    let path = layout::bucket(ContentHash::of(b"x"));
    let prune = async |grace| {
        let options = PruneOptions { grace: Duration::from_millis(grace), ..PruneOptions::default() };
        prune(repository, &options).await.unwrap().files
    };
    repository.write(&path, "x".into()).await.unwrap();
    assert_eq!(prune(3_600_000).await, 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    repository.write(&path, "x".into()).await.unwrap();
    assert_eq!(prune(10).await, 0, "somebody may be about to need it");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(prune(10).await, 1);
    assert_eq!(repository.content_files().await.unwrap(), needed);
}

#[tokio::test]
async fn a_mark_whose_file_is_gone_goes_with_the_next_prune() {
    let repository = Repository::in_memory();
    let options = PruneOptions { grace: Duration::from_secs(3_600), ..PruneOptions::default() };
    repository.write(&layout::garbage(ContentHash::of(b"x")), bytes::Bytes::new()).await.unwrap();
    prune(&repository, &PruneOptions { dry_run: true, ..options.clone() }).await.unwrap();
    assert_eq!(repository.list(&layout::GARBAGE.into()).await.unwrap().len(), 1);
    prune(&repository, &options).await.unwrap();
    assert_eq!(repository.list(&layout::GARBAGE.into()).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_snapshot_that_is_being_restored_is_not_removed() {
    let (mut script, docs) = many(50);
    let store = ModelStore::default();
    let folder = Folder::new().await;
    for round in 0..3 {
        script.upsert(&docs, vec![Point::new(round, vec![9.0; 4])]);
        script.apply_to(&store).await;
        folder.take(&store, &script, script.end()).await;
    }
    let oldest = folder.repository.snapshots().await.unwrap()[0];
    let mark = layout::in_use(oldest.id, uuid::Uuid::new_v4());
    folder.repository.touch(&mark, bytes::Bytes::new()).await.unwrap();
    let options = PruneOptions { keep: Keep { last: 2, ..Keep::default() }, ..PruneOptions::default() };
    let pruned = prune(&folder.repository, &options).await.unwrap();
    assert_eq!((pruned.in_use, pruned.snapshots), (vec![oldest.id], vec![]));
    folder.repository.remove(&mark).await.unwrap();
    assert_eq!(prune(&folder.repository, &options).await.unwrap().snapshots, [oldest.id]);
}

/// Each file of a repository damaged in turn; what is wrong is named.
#[tokio::test]
async fn a_damaged_file_is_noticed_and_named() {
    let (script, _) = many(60);
    let store = ModelStore::default();
    script.apply_to(&store).await;
    let folder = Folder::new().await;
    folder.take(&store, &script, script.end()).await;
    let listed = folder.repository.snapshots().await.unwrap()[0];
    let files: Vec<_> = folder
        .files()
        .into_iter()
        .filter(|path| !path.ends_with("LOCK") && !path.ends_with("repository.json"))
        .collect();
    assert!(files.len() > 3);
    for path in &files {
        let good = std::fs::read(path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let damages = (0..good.len()).step_by(41).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            Some(bad)
        });
        let swapped = files.iter().find(|other| *other != path).map(|other| std::fs::read(other).unwrap());
        for bad in damages.chain([Some(good[..good.len() / 2].to_vec()), Some(vec![]), swapped, None]) {
            match bad {
                Some(bad) => std::fs::write(path, bad).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let verified = verify(&folder.repository, listed, QUIET).await.unwrap();
            assert!(!verified.is_good(), "{file}");
            for problem in &verified.problems {
                assert!(problem.to_string().contains(file), "{file}: {problem}");
            }
        }
        std::fs::write(path, good).unwrap();
    }
    assert!(verify(&folder.repository, listed, QUIET).await.unwrap().is_good());
}

#[tokio::test]
async fn a_bucket_that_was_lost_is_written_anew_by_the_next_snapshot() {
    let (script, _) = many(200);
    let store = ModelStore::default();
    script.apply_to(&store).await;
    let folder = Folder::new().await;
    let (manifest, _) = folder.take(&store, &script, script.end()).await;
    let lost = manifest.files().next().unwrap();
    folder.repository.remove(&layout::bucket(lost.hash)).await.unwrap();
    let (_, written) = folder.take(&store, &script, script.end()).await;
    assert_eq!(written.files, 1);
    for listed in folder.repository.snapshots().await.unwrap() {
        assert!(verify(&folder.repository, listed, QUIET).await.unwrap().is_good());
    }
}

#[tokio::test]
async fn one_process_writes_to_a_directory_and_its_litter_is_removed_by_the_next() {
    let folder = Folder::new().await;
    let place = folder.place().to_str().unwrap().to_owned();
    let error = Repository::open_for_writing(&place, &PlaceOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert!(Repository::open(&place, &PlaceOptions::default()).await.is_ok());
    let litter = ["buckets/ab", "graphs/ab", "log/x.1", "snapshots"].map(|name| folder.place().join(name));
    for litter in &litter {
        std::fs::create_dir_all(litter).unwrap();
        std::fs::write(litter.join("file.arrows#1"), "x").unwrap();
        std::fs::write(litter.join("mine.txt"), "x").unwrap();
    }
    let Folder { directory, repository } = folder;
    drop(repository);
    Repository::open_for_writing(&place, &PlaceOptions::default()).await.unwrap();
    for litter in &litter {
        let left: Vec<_> = std::fs::read_dir(litter).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["mine.txt"], "{litter:?}");
    }
    drop(directory);
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_a_link_is_not_written_through() {
    let directory = tempfile::tempdir().unwrap();
    let (place, elsewhere) = (directory.path().join("snapshots"), directory.path().join("elsewhere"));
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.join("buckets")).unwrap();
    let error =
        Repository::open_for_writing(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap_err();
    assert!(format!("{error:?}").contains("is a link"), "{error:?}");
}

#[tokio::test]
async fn a_place_without_snapshots_says_so() {
    let directory = tempfile::tempdir().unwrap();
    for place in [directory.path().to_str().unwrap(), "/no/such/place"] {
        let error = Repository::open(place, &PlaceOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    for (place, word) in [("s3://bucket/x", "snapshots-cloud"), ("ftp://x/y", "s3://")] {
        let error = Repository::open(place, &PlaceOptions::default()).await.unwrap_err();
        assert!(cfg!(feature = "cloud") || error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn the_archived_log_goes_with_the_snapshots_that_need_it() {
    use crate::segment::{Segment, TimeMark};

    let folder = Folder::new().await;
    let write = async |epoch: u64, first: u64, last: u64| {
        let log = LogIdentity { epoch, ..Script::new(1).position(Lsn::ZERO).log };
        let marks = vec![TimeMark { lsn: Lsn(last), time: chrono::DateTime::UNIX_EPOCH }];
        let entries = (first..=last).map(|lsn| vec![lsn as u8]).collect();
        folder.repository.write_segment(Segment { log, first: Lsn(first), marks, entries }).await.unwrap();
    };
    let (mut script, docs) = many(50);
    let store = ModelStore::default();
    for round in 0..3 {
        script.upsert(&docs, vec![Point::new(round, vec![9.0; 4])]);
        script.apply_to(&store).await;
        folder.take(&store, &script, script.end()).await;
    }
    let options = PruneOptions { keep: Keep { last: 2, ..Keep::default() }, ..PruneOptions::default() };
    let kept = folder.repository.snapshots().await.unwrap()[1].id.lsn();
    write(1, 1, kept.0 - 1).await;
    write(1, kept.0, kept.0 + 1).await;
    write(2, 1, 5).await;
    assert_eq!(prune(&folder.repository, &options).await.unwrap().segments, 1, "the second one is needed");
    let logs = folder.repository.logs().await.unwrap();
    assert_eq!(logs.iter().map(|log| log.epoch).collect::<Vec<_>>(), [1, 2], "a later epoch is no garbage");
}

#[tokio::test]
async fn parts_that_were_left_beside_their_whole_are_removed_when_segments_are_put_together_again() {
    use crate::segment::{Segment, TimeMark};

    let repository = Repository::in_memory();
    let log = Script::new(1).position(Lsn::ZERO).log;
    let whole = |first: u64, last: u64| {
        let marks = vec![TimeMark { lsn: Lsn(last), time: chrono::DateTime::UNIX_EPOCH }];
        let entries = (first..=last).map(|lsn| vec![lsn as u8]).collect();
        Segment { log, first: Lsn(first), marks, entries }
    };
    // As if the one that made 1 to 6 of three had been killed before it removed the second and the third.
    for (first, last) in [(1, 6), (3, 4), (5, 6), (7, 8)] {
        repository.write_segment(whole(first, last)).await.unwrap();
    }
    assert_eq!(repository.merge_segments(log).await.unwrap(), 3);
    let [one] = repository.segments(log).await.unwrap()[..] else { panic!() };
    let read = repository.read_segment(log, one).await.unwrap();
    assert_eq!((read.first, read.entries), (Lsn(1), whole(1, 8).entries));

    // A whole that is damaged is none.
    let part = repository.write_segment(whole(2, 3)).await.unwrap();
    repository.write(&layout::segment(log, one), "x".into()).await.unwrap();
    assert_eq!(repository.merge_segments(log).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(repository.segments(log).await.unwrap(), [one, part]);
}
