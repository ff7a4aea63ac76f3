//! Restarts, crashes, and a directory that goes away.

use std::fs;
use std::path::PathBuf;

use mainstay_core::{ErrorKind, RestoreStep, SearchQuery, VectorStore};

use super::*;
use crate::barrier::table_path;
use crate::position::RECORD_FILE;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// A store with points 0..10 flushed, and its log.
async fn flushed(path: &Path) -> (LanceStore, TestLog, CollectionRef) {
    let store = open(path).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..10).map(point));
    log.feed(&store).await;
    assert_eq!(store.flush(&cx()).await.unwrap(), Some(log.end()));
    (store, log, c)
}

#[tokio::test]
async fn the_position_after_a_crash_is_the_one_of_the_last_flush() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut log, c) = flushed(directory.path()).await;
    log.upsert(&c, (5..15).map(|id| point(id).with_text("new")));
    log.delete(&c, [0]);
    log.feed(&store).await;
    let before = contents(&store, "c").await;
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    assert_eq!(numbers(&contents(&store, "c").await), (0..10).collect::<Vec<_>>());
    let data = table_path(directory.path(), "t1-c").join("data");
    assert_eq!(fs::read_dir(data).unwrap().count(), 1, "what was rolled back takes no room");
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, before);
}

#[tokio::test]
async fn files_torn_after_the_last_flush_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let (store, mut log, c) = flushed(directory.path()).await;
    let mut durable = Vec::new();
    files(directory.path(), &mut durable);
    log.upsert(&c, (5..15).map(|id| point(id).with_text("new")));
    log.delete(&c, [0]);
    log.feed(&store).await;
    let before = contents(&store, "c").await;
    drop(store);
    let mut all = Vec::new();
    files(directory.path(), &mut all);
    let torn: Vec<_> = all.into_iter().filter(|file| !durable.contains(file)).collect();
    assert!(torn.len() > 3, "{torn:?}");
    for file in torn {
        fs::write(file, "").unwrap();
    }
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, before);
    store.close(&cx()).await.unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_taken_away_under_load_comes_back_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let (path, away) = (parent.path().join("store"), parent.path().join("away"));
    let (store, mut log, c) = flushed(&path).await;
    let store = Arc::new(store);
    let taker = {
        let (path, away) = (path.clone(), away.clone());
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(200));
            fs::rename(&path, &away).unwrap();
        })
    };
    let error = loop {
        log.upsert(&c, [point(log.entries.len() as u64 % 50)]);
        let run = log.after(log.entries.len() as u64 - 1);
        if let Err(e) = store.apply(&cx(), &run).await {
            break e;
        }
    };
    taker.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for _ in 0..2 {
        assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let search = store.search(&cx(), &c.name, &SearchQuery::new(vec![1.0, 1.0])).await;
        assert_eq!(search.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.flush(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert!(!path.exists(), "nothing may make the directory anew");
    fs::rename(&away, &path).unwrap();
    // Reads wait until somebody has asked where the store stands.
    assert_eq!(store.count(&cx(), &c.name, None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    store.ping(&cx()).await.unwrap();
    log.feed(&store).await;
    let fresh = tempfile::tempdir().unwrap();
    let other = open(fresh.path()).await;
    log.feed(&other).await;
    assert_eq!(contents(&store, "c").await, contents(&other, "c").await);
}

#[tokio::test]
async fn an_empty_directory_in_its_place_is_an_empty_store() {
    let parent = tempfile::tempdir().unwrap();
    let (path, away) = (parent.path().join("store"), parent.path().join("away"));
    let (store, log, c) = flushed(&path).await;
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    assert_eq!(store.count(&cx(), &c.name, None).await.unwrap_err().kind(), ErrorKind::NotFound);
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), (0..10).collect::<Vec<_>>());
    // Emptied in place, without another directory taking its name.
    store.flush(&cx()).await.unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    assert_eq!(store.flush(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}

#[tokio::test]
async fn an_older_copy_in_its_place_replays_the_difference() {
    let parent = tempfile::tempdir().unwrap();
    let (path, backup, away) =
        (parent.path().join("store"), parent.path().join("backup"), parent.path().join("away"));
    let (store, mut log, c) = flushed(&path).await;
    copy(&path, &backup);
    log.upsert(&c, (20..25).map(point));
    log.feed(&store).await;
    store.flush(&cx()).await.unwrap();
    fs::rename(&path, &away).unwrap();
    fs::rename(&backup, &path).unwrap();
    let run = log.after(3);
    assert_eq!(store.apply(&cx(), &run).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), (0..10).chain(20..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restore_that_was_cut_off_leaves_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let (store, log, c) = flushed(directory.path()).await;
    let records = contents(&store, "c").await;
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let spec = spec(2);
    store.restore(&cx(), RestoreStep::Collection { spec: &spec, incarnation: c.incarnation }).await.unwrap();
    store
        .restore(&cx(), RestoreStep::Points { collection: &c, records: records[..5].to_vec() })
        .await
        .unwrap();
    assert_eq!(store.flush(&cx()).await.unwrap(), None);
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    assert!(store.collections(&cx()).await.unwrap().is_empty());
    let step = RestoreStep::Points { collection: &c, records: records.clone() };
    assert_eq!(store.restore(&cx(), step).await.unwrap_err().kind(), ErrorKind::Invalid);
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, records);
}

#[tokio::test]
async fn damage_is_named_and_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = flushed(directory.path()).await;
    store.close(&cx()).await.unwrap();
    let corrupt = |path: PathBuf| async move {
        let error = LanceStore::open(options(&path)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        error.to_string()
    };
    let scratch = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let path = scratch.path().join(name);
        copy(directory.path(), &path);
        path
    };
    let path = fresh("record");
    fs::write(path.join(RECORD_FILE), "{}").unwrap();
    assert!(corrupt(path).await.contains(RECORD_FILE));
    let path = fresh("table");
    fs::remove_dir_all(table_path(&path, "t1-c")).unwrap();
    assert!(corrupt(path).await.contains("t1-c"));
    let path = fresh("versions");
    fs::remove_dir_all(table_path(&path, "t1-c").join("_versions")).unwrap();
    assert!(corrupt(path).await.contains("t1-c"));
    open(directory.path()).await;
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, ..) = flushed(directory.path()).await;
    let error = LanceStore::open(options(directory.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    store.ping(&cx()).await.unwrap();
}
