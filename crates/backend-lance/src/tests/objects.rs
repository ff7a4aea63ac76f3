//! A store in an object store: who has it, what a crash leaves, and answers that never come.

use mainstay_core::{ErrorKind, RestoreStep, SearchQuery, VectorStore};
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use super::service::{Fault, Service, open_on, try_open};
use super::*;
use crate::position::RECORD_FILE;

/// A service that holds a store with points 0..10 flushed, and its log.
async fn flushed() -> (Arc<Service>, LanceStore, TestLog, CollectionRef) {
    let service = Arc::<Service>::default();
    let store = open_on(&service).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..10).map(point));
    log.feed(&store).await;
    assert_eq!(store.flush(&cx()).await.unwrap(), Some(log.end()));
    (service, store, log, c)
}

/// What a store that was never disturbed holds.
async fn expected(log: &TestLog) -> Vec<Record> {
    let store = open_on(&Arc::default()).await;
    log.feed(&store).await;
    contents(&store, "c").await
}

#[tokio::test]
async fn the_position_after_a_crash_is_the_one_of_the_last_flush() {
    let (service, store, mut log, c) = flushed().await;
    log.upsert(&c, (5..15).map(|id| point(id).with_text("new")));
    log.delete(&c, [0]);
    let other = CollectionSpec::dense(name("other"), 2, Distance::Dot);
    let other = log.create(other);
    log.upsert(&other, [point(1)]);
    log.feed(&store).await;
    drop(store);
    for _ in 0..2 {
        let store = open_on(&service).await;
        assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
        assert_eq!(numbers(&contents(&store, "c").await), (0..10).collect::<Vec<_>>());
        assert_eq!(store.collections(&cx()).await.unwrap().len(), 1);
        assert!(service.paths("-other").await.is_empty(), "a table that the record does not name goes");
    }
    let store = open_on(&service).await;
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, expected(&log).await);
    store.close(&cx()).await.unwrap();
    let store = open_on(&service).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, expected(&log).await);
    assert_eq!(store.collections(&cx()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn who_comes_later_has_the_store_and_the_earlier_one_is_told() {
    let (service, first, mut log, c) = flushed().await;
    let second = open_on(&service).await;
    log.upsert(&c, (20..25).map(point));
    log.feed(&first).await;
    // Its record would cover what it wrote, if it were still its own.
    let error = first.flush(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder) && error.to_string().contains("took"), "{error}");
    // It does not take the store back from a living one.
    for _ in 0..2 {
        let error = first.position(&cx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.context().any(|(key, value)| key == "holder" && value.contains(&holder)), "{error}");
        assert!(first.search(&cx(), &c.name, &SearchQuery::new(vec![1.0, 1.0])).await.is_err());
    }
    assert_eq!(second.position(&cx()).await.unwrap(), Some(log.at(2)));
    second.ping(&cx()).await.unwrap();
    second.close(&cx()).await.unwrap();
    assert_eq!(first.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&first).await;
    assert_eq!(contents(&first, "c").await, expected(&log).await);
    first.flush(&cx()).await.unwrap();
}

#[tokio::test]
async fn a_ping_and_a_failed_read_tell_that_the_store_is_lost() {
    let (service, first, ..) = flushed().await;
    let second = open_on(&service).await;
    let error = first.ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("took the store over"), "{error}");
    let third = open_on(&service).await;
    assert!(service.remove("/data/").await > 0);
    let mut query = ScrollQuery { fields: Fields::ALL, ..ScrollQuery::default() };
    query.limit = 3;
    let error = second.scroll(&cx(), &name("c"), &query).await.unwrap_err();
    assert!(error.to_string().contains("took the store over"), "{error}");
    drop(third);
}

#[tokio::test]
async fn what_an_earlier_holder_still_commits_is_never_taken_for_ours() {
    let (service, first, mut log, c) = flushed().await;
    let second = open_on(&service).await;
    // The earlier one, which does not know yet, goes on with a history of its own.
    let mut stray = TestLog { identity: log.identity, entries: log.entries.clone() };
    stray.upsert(&c, (100..150).map(point));
    stray.feed(&first).await;
    log.upsert(&c, (20..25).map(point));
    let error = second.apply(&cx(), &log.after(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(second.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&second).await;
    assert_eq!(contents(&second, "c").await, expected(&log).await);
    second.flush(&cx()).await.unwrap();
    // Nor after its commit came last.
    stray.delete(&c, [1]);
    let _ = first.apply(&cx(), &stray.after(3)).await;
    second.close(&cx()).await.unwrap();
    let third = open_on(&service).await;
    assert_eq!(third.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&third, "c").await, expected(&log).await);
}

#[tokio::test]
async fn what_an_earlier_holder_removes_is_not_ours() {
    let (service, first, log, c) = flushed().await;
    let records = contents(&first, "c").await;
    let old = service.paths(".lance").await;
    first.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let second = open_on(&service).await;
    assert_eq!(second.position(&cx()).await.unwrap(), None);
    log.feed(&second).await;
    second.flush(&cx()).await.unwrap();
    let new = service.paths(".lance").await;
    assert!(old.len() > 3 && new.len() > 3 && new.iter().all(|path| !old.contains(path)), "{new:?}");
    let spec = spec(2);
    let begun = RestoreStep::Collection { spec: &spec, incarnation: c.incarnation };
    let _ = first.restore(&cx(), begun).await;
    assert!(first.restore(&cx(), RestoreStep::Begin).await.is_err());
    assert_eq!(contents(&second, "c").await, records);
    second.close(&cx()).await.unwrap();
    assert_eq!(contents(&open_on(&service).await, "c").await, records);
}

#[tokio::test]
async fn a_put_of_the_record_without_an_answer_is_looked_after() {
    for faults in [
        &[Fault::NoAnswer][..],
        &[Fault::NoRequest],
        &[Fault::NoRequest, Fault::NoAnswer],
        &[Fault::NoRequest, Fault::NoRequest],
    ] {
        let (service, store, mut log, c) = flushed().await;
        log.upsert(&c, (20..25).map(point));
        log.feed(&store).await;
        faults.iter().for_each(|fault| service.fault(RECORD_FILE, *fault));
        assert_eq!(store.flush(&cx()).await.unwrap(), Some(log.end()), "{faults:?}");
        assert_eq!(service.faults_left(), 0);
        // The next one knows what is in place.
        log.delete(&c, [1]);
        log.feed(&store).await;
        store.flush(&cx()).await.unwrap();
        drop(store);
        let store = open_on(&service).await;
        assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()), "{faults:?}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_put_ends_the_session_and_the_store_says_where_it_is() {
    let (service, store, mut log, c) = flushed().await;
    log.upsert(&c, (20..25).map(point));
    log.feed(&store).await;
    for _ in 0..3 {
        service.fault(RECORD_FILE, Fault::NoRequest);
    }
    assert_eq!(store.flush(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, expected(&log).await);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_not_made_twice() {
    for fault in [Fault::NoAnswer, Fault::NoRequest] {
        let (service, store, mut log, c) = flushed().await;
        log.upsert(&c, (20..25).map(point));
        service.fault("_versions/", fault);
        let applied = store.apply(&cx(), &log.after(2)).await;
        assert_eq!(service.faults_left(), 0);
        match applied {
            // It is looked for, as it was put.
            Ok(position) => assert_eq!((position, fault), (log.end(), Fault::NoAnswer)),
            Err(error) => {
                assert_eq!((error.kind(), fault), (ErrorKind::Unavailable, Fault::NoRequest), "{error}");
                assert_eq!(error.effect(), mainstay_core::Effect::Unknown);
                assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
                log.feed(&store).await;
            }
        }
        assert_eq!(store.flush(&cx()).await.unwrap(), Some(log.end()));
        assert_eq!(contents(&store, "c").await, expected(&log).await);
    }
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_refused() {
    let ignores_create = Service { ignores_create: true, ..Service::default() };
    let ignores_update = Service { ignores_update: true, ..Service::default() };
    let declines = Service { declines_conditions: true, ..Service::default() };
    for service in [ignores_create, ignores_update, declines] {
        let service = Arc::new(service);
        let error = try_open(&service, LanceOptions::default()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("condition") || error.to_string().contains("If-"), "{error}");
        assert!(service.paths("").await.is_empty(), "the probe goes");
    }
}

#[tokio::test]
async fn an_outage_ends_no_session() {
    let (service, store, log, c) = flushed().await;
    service.set_away(true);
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let all = SearchQuery::new(vec![1.0, 1.0]);
    assert_eq!(store.search(&cx(), &c.name, &all).await.unwrap_err().kind(), ErrorKind::Unavailable);
    service.set_away(false);
    store.ping(&cx()).await.unwrap();
    assert_eq!(store.search(&cx(), &c.name, &all).await.unwrap().len(), 10);
    // A write in it does, and the store comes back as it was flushed.
    let mut log = log;
    log.upsert(&c, [point(50)]);
    service.set_away(true);
    let error = store.apply(&cx(), &log.after(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    service.set_away(false);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, expected(&log).await);
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_at_the_start_is_opened_when_it_can() {
    let (service, first, log, _) = flushed().await;
    service.set_away(true);
    let store = open_on(&service).await;
    assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    service.set_away(false);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, expected(&log).await);
    assert!(first.ping(&cx()).await.unwrap_err().to_string().contains("took the store over"));
}

#[tokio::test]
async fn damage_is_named_and_somebody_elses_objects_are_left_alone() {
    let corrupt = |service: Arc<Service>| async move {
        let error = try_open(&service, LanceOptions::default()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        error.to_string()
    };
    let (service, store, ..) = flushed().await;
    store.close(&cx()).await.unwrap();
    let record = ObjectPath::from(format!("some/prefix/{RECORD_FILE}"));
    service.inner.put(&record, "{}".into()).await.unwrap();
    assert!(corrupt(service).await.contains(RECORD_FILE));
    let (service, store, mut log, c) = flushed().await;
    log.upsert(&c, [point(70)]);
    let versions = service.paths("_versions/").await;
    log.feed(&store).await;
    drop(store);
    for path in versions {
        service.inner.delete(&ObjectPath::from(path)).await.unwrap();
    }
    assert!(corrupt(service).await.contains("version"));
    let (service, store, ..) = flushed().await;
    store.close(&cx()).await.unwrap();
    service.remove(".lance/").await;
    assert!(corrupt(service).await.contains("is missing"));
    let service = Arc::<Service>::default();
    let thesis = ObjectPath::from("some/prefix/thesis.tex");
    service.inner.put(&thesis, "text".into()).await.unwrap();
    let error = try_open(&service, LanceOptions::default()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(service.paths("").await, [thesis.to_string()]);
}

#[tokio::test]
async fn an_emptied_prefix_is_an_empty_store() {
    let (service, store, log, _) = flushed().await;
    service.remove("").await;
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    log.feed(&store).await;
    store.flush(&cx()).await.unwrap();
    assert_eq!(contents(&store, "c").await, expected(&log).await);
}

#[tokio::test]
async fn compaction_keeps_the_points_and_few_objects() {
    let service = Arc::<Service>::default();
    let options = LanceOptions {
        compact_after_commits: 8,
        keep_versions: Duration::ZERO,
        maintenance: false,
        ..LanceOptions::default()
    };
    let store = try_open(&service, options).await.unwrap();
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    for round in 0..12_u64 {
        log.upsert(&c, (round..round + 5).map(point));
        log.delete(&c, [round]);
        log.feed(&store).await;
    }
    let many = service.paths("/data/").await.len();
    store.maintain().await.unwrap();
    let few = service.paths("/data/").await.len();
    assert!(many >= 12 && few <= 3, "{many} objects before, {few} after");
    assert_eq!(contents(&store, "c").await, expected(&log).await);
    // What the record speaks of is still there.
    drop(store);
    let store = open_on(&service).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, expected(&log).await);
}

#[tokio::test]
async fn old_versions_go_only_before_the_recorded_one() {
    let (service, store, mut log, c) = flushed().await;
    for id in 20..30 {
        log.upsert(&c, [point(id)]);
        log.feed(&store).await;
    }
    let recorded = service.paths("_versions/").await.len();
    // A holder that lost the store while it was about to clean up.
    let table = store.native_table(&c.name);
    let second = open_on(&service).await;
    table.remove_old_versions(Duration::ZERO, Some(3)).await.unwrap();
    drop(store);
    assert!(service.paths("_versions/").await.len() >= recorded - 2);
    assert_eq!(numbers(&contents(&second, "c").await), (0..10).collect::<Vec<_>>());
    log.feed(&second).await;
    assert_eq!(contents(&second, "c").await, expected(&log).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_built_beside_writes() {
    let service = Arc::<Service>::default();
    let options = LanceOptions {
        index_threshold_rows: 600,
        compact_after_commits: 4,
        maintenance: false,
        ..LanceOptions::default()
    };
    let store = Arc::new(try_open(&service, options).await.unwrap());
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..1_000).map(point));
    log.feed(&store).await;
    let building = tokio::spawn({
        let store = store.clone();
        async move { store.maintain().await }
    });
    let mut writes = 0;
    while !building.is_finished() || writes < 3 {
        log.upsert(&c, (0..20).map(|id| point(id * 7 + writes)));
        log.feed(&store).await;
        writes += 1;
    }
    building.await.unwrap().unwrap();
    assert!(store.is_indexed(&c.name));
    store.close(&cx()).await.unwrap();
    let store = open_on(&service).await;
    assert!(store.is_indexed(&c.name));
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, expected(&log).await);
}
