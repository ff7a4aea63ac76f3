//! What a run leaves behind.

use mainstay_core::{
    ErrorKind, Lsn, Op, Payload, PayloadPatch, Point, PointId, RestoreStep, SearchQuery, SparseVector,
    Vector, VectorName, VectorSpec, VectorStore,
};

use super::*;

#[tokio::test]
async fn entries_of_one_run_take_effect_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..20).map(point));
    log.feed(&store).await;
    let set = |text: &str| -> Payload { [("s".to_owned(), text.into())].into_iter().collect() };
    let patch = |ids: Vec<u64>, patch| Op::PatchPayload {
        collection: c.clone(),
        ids: ids.into_iter().map(PointId::Num).collect(),
        patch,
    };
    log.delete(&c, [0, 1, 2, 99]);
    log.upsert(&c, [point(1).with_text("again"), point(100)]);
    log.append(patch(vec![1, 2, 3, 100, 500], PayloadPatch::Set(set("a"))));
    log.append(patch(vec![3], PayloadPatch::Delete(vec!["n".parse().unwrap()])));
    log.append(patch(vec![4], PayloadPatch::Overwrite(set("b"))));
    log.delete(&c, [5, 100]);
    let last = log.upsert(&c, [point(5).with_text("new")]);
    let replaced = log.upsert(&c, [point(6).with_text("one")]);
    log.feed(&store).await;

    let records = contents(&store, "c").await;
    assert_eq!(numbers(&records), [1].into_iter().chain(3..20).collect::<Vec<_>>());
    let get = |id: u64| records.iter().find(|record| record.point.id == PointId::Num(id)).unwrap();
    assert_eq!(get(1).point.payload, *serde_json::json!({"n": 1, "s": "a"}).as_object().unwrap());
    assert_eq!(get(1).point.text.as_deref(), Some("again"));
    assert_eq!((get(1).version, get(3).version, get(4).version), (Lsn(5), Lsn(6), Lsn(7)));
    assert_eq!(get(3).point.payload, set("a"));
    assert_eq!(get(3).point.vectors, point(3).vectors);
    assert_eq!(get(4).point.payload, set("b"));
    assert_eq!((get(5).version, get(5).point.text.as_deref()), (last, Some("new")));
    assert_eq!(get(6).version, replaced);
    assert_eq!(get(7).version, Lsn(2));
    assert_eq!(store.count(&cx(), &c.name, None).await.unwrap(), 18);
}

#[tokio::test]
async fn a_suffix_applied_again_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..5).map(point));
    log.delete(&c, [1]);
    log.upsert(&c, [point(1).with_text("later"), point(2).with_text("later")]);
    log.delete(&c, [3]);
    log.feed(&store).await;
    let before = contents(&store, "c").await;
    let source: Vec<_> = before.clone();
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    let spec = spec(2);
    store.restore(&cx(), RestoreStep::Collection { spec: &spec, incarnation: c.incarnation }).await.unwrap();
    store.restore(&cx(), RestoreStep::Points { collection: &c, records: source.clone() }).await.unwrap();
    // The source was ahead of the position that the copy takes.
    store.restore(&cx(), RestoreStep::Finish { position: log.at(1) }).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(1)));
    log.feed(&store).await;
    assert_eq!(contents(&store, "c").await, before);
}

#[tokio::test]
async fn a_collection_made_again_is_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let old = log.create(spec(2));
    log.upsert(&old, (0..5).map(point));
    log.feed(&store).await;
    store.flush(&cx()).await.unwrap();
    log.append(Op::DropCollection(old.clone()));
    let new = log.create(spec(3));
    log.upsert(&old, [point(9)]);
    log.delete(&old, [1]);
    log.append(Op::DropCollection(old));
    log.upsert(&new, [Point::new(1, vec![1.0, 2.0, 3.0])]);
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), [1]);
    let info = store.collections(&cx()).await.unwrap();
    assert_eq!((info.len(), info[0].incarnation, info[0].points), (1, new.incarnation, 1));
    assert_eq!(info[0].spec, spec(3));
    drop(store);
    // Without a flush since: the old one is gone already, the new one not there yet.
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    assert!(store.collections(&cx()).await.unwrap().is_empty());
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), [1]);
}

#[tokio::test]
async fn a_point_that_does_not_fit_is_rejected_and_what_came_before_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, [point(1)]);
    let bad = log.upsert(&c, [point(2), Point::new(3, vec![1.0])]);
    log.upsert(&c, [point(4)]);
    let error = store.apply(&cx(), &log.after(0)).await.unwrap_err();
    assert_eq!((error.kind(), error.lsn()), (ErrorKind::Rejected, Some(bad)));
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.at(2)));
    assert_eq!(numbers(&contents(&store, "c").await), [1]);
}

#[tokio::test]
async fn sparse_vectors_and_missing_vectors_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let words = VectorName::new("words").unwrap();
    let c = log.create(spec(2).with_vector(words.clone(), VectorSpec::Sparse));
    let sparse = |indices: Vec<u32>, values| Vector::Sparse(SparseVector { indices, values });
    let mut lacking = point(4).with_vector(words.clone(), sparse(vec![3], vec![0.5]));
    lacking.vectors.remove(&VectorName::default());
    let points = [
        point(1),
        point(2).with_vector(words.clone(), sparse(vec![], vec![])),
        point(3).with_vector(words.clone(), sparse(vec![0, u32::MAX], vec![-0.0, f32::MIN_POSITIVE])),
        lacking,
    ];
    log.upsert(&c, points.clone());
    log.feed(&store).await;
    // Once more through a merge, and once more through a restart.
    log.upsert(&c, points.clone());
    log.feed(&store).await;
    store.close(&cx()).await.unwrap();
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let store = open(directory.path()).await;
    let records = contents(&store, "c").await;
    assert_eq!(records.iter().map(|record| record.point.clone()).collect::<Vec<_>>(), points);
    let hits = store.search(&cx(), &c.name, &SearchQuery::new(vec![0.0, 1.0]).exact()).await.unwrap();
    let found: Vec<_> = hits.iter().map(|hit| (hit.point.id, hit.score)).collect();
    assert_eq!(found, [(PointId::Num(1), 1.0), (PointId::Num(2), 2.0), (PointId::Num(3), 3.0)]);
    let query = SearchQuery { vector: sparse(vec![3], vec![1.0]), using: words, ..SearchQuery::new(vec![]) };
    let error = store.search(&cx(), &c.name, &query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_caller_who_stops_waiting_leaves_no_half_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.feed(&store).await;
    for round in 0..5 {
        log.upsert(&c, (0..50).map(|id| point(id + round)));
        log.delete(&c, [round]);
        let run = log.after(log.entries.len() as u64 - 2);
        let no_time = Context::within(std::time::Duration::from_millis(round));
        let _ = store.apply(&no_time, &run).await;
    }
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), (5..54).collect::<Vec<_>>());
}
