//! Copying stores, and telling where they differ.

use std::sync::Arc;

use mainstay::{CollectionName, CollectionSpec, Distance, Lsn, Point, PointId};
use mainstay_cli::copy::copy;
use mainstay_cli::diff::{PointsDiff, diff};
use mainstay_core::conformance::{Generator, ModelStore, Script, cx, name, state_of};
use mainstay_core::{CollectionRef, ErrorKind, Faulty, Op, VectorStore};

fn quiet(_: u64, _: u64) {}

fn docs() -> CollectionName {
    name("docs")
}

/// A history of 5,000 points, some of them written twice.
fn history() -> (Script, CollectionRef) {
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(docs(), 2, Distance::Dot));
    for batch in 0..10 {
        let ids = batch * 500..(batch + 1) * 500;
        script.upsert(&docs, ids.map(|id| Point::new(id, vec![id as f32, 1.0])).collect());
    }
    script.upsert(&docs, (0..50).map(|id| Point::new(id * 100, vec![0.5, 0.5])).collect());
    (script, docs)
}

#[tokio::test]
async fn equal_stores_have_no_difference_and_each_different_point_is_named() {
    let (mut script, docs) = history();
    let (a, b) = (ModelStore::default(), ModelStore::default());
    script.apply_to(&a).await;
    script.apply_to(&b).await;
    assert!(diff(&a, &b, false).await.unwrap().is_empty());
    let at = script.end();
    script.upsert(&docs, vec![Point::new(7, vec![1.0, 1.0]), Point::new(9_000, vec![1.0, 1.0])]);
    script.push(Op::Delete { collection: docs.clone(), ids: vec![4_321.into()] });
    b.apply(&cx(), &script.run(at, script.end())).await.unwrap();
    for deep in [false, true] {
        let found = diff(&a, &b, deep).await.unwrap();
        let points = PointsDiff {
            only_in_a: vec![PointId::Num(4_321)],
            only_in_b: vec![PointId::Num(9_000)],
            changed: vec![PointId::Num(7)],
        };
        assert_eq!(found.points.get(&docs.name), Some(&points));
        assert_eq!(found.counts, (5_000, 5_000));
    }
}

#[tokio::test]
async fn a_copy_holds_everything_and_goes_on_from_the_position_of_its_source() {
    let mut generator = Generator::new(5);
    let script = generator.history(80);
    let (from, into) = (ModelStore::default(), ModelStore::default());
    script.apply_to(&from).await;
    let copied = copy(&from, &into, false, &quiet).await.unwrap();
    assert!(copied.diff.is_empty(), "{:?}", copied.diff);
    assert_eq!(state_of(&into).await, state_of(&from).await);
    assert_eq!(into.position(&cx()).await.unwrap(), Some(script.position(script.end())));
}

#[tokio::test]
async fn a_copy_never_goes_over_what_is_there_unless_it_may() {
    let (script, _) = history();
    let (from, into) = (ModelStore::default(), ModelStore::default());
    script.apply_to(&from).await;
    into.apply(&cx(), &script.run(Lsn(0), Lsn(3))).await.unwrap();
    let refused = copy(&from, &into, false, &quiet).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(into.position(&cx()).await.unwrap(), Some(script.position(Lsn(3))), "nothing was touched");
    assert_eq!(copy(&from, &into, true, &quiet).await.unwrap().points, 5_000);
    let empty = copy(&ModelStore::default(), &into, true, &quiet).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid, "an empty source never empties a target");
    assert_eq!(into.count(&cx(), &docs(), None).await.unwrap(), 5_000);
}

#[tokio::test]
async fn a_copy_that_was_cut_short_goes_on_and_never_over_another_store() {
    let (mut script, docs) = history();
    let (from, into) = (ModelStore::default(), Arc::new(ModelStore::default()));
    script.apply_to(&from).await;
    let cut = Faulty::new(Arc::clone(&into), 1);
    let error = copy(&from, &cut, false, &|_, _| cut.set_down(true)).await.unwrap_err();
    let into = &*into;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let held = into.count(&cx(), &docs.name, None).await.unwrap();
    assert!(0 < held && held < 5_000, "{held}");
    assert_eq!(into.position(&cx()).await.unwrap(), None);

    let other = ModelStore::default();
    let end = script.end();
    script.upsert(&docs, vec![Point::new(0, vec![9.0, 9.0])]);
    script.apply_to(&other).await;
    let refused = copy(&other, into, false, &quiet).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "a newer state is another one");

    let copied = copy(&from, into, false, &quiet).await.unwrap();
    assert_eq!((copied.points, copied.resumed), (5_000 - held, held));
    assert!(copied.diff.is_empty(), "{:?}", copied.diff);
    assert_eq!(into.position(&cx()).await.unwrap(), Some(script.position(end)));
    assert_eq!(state_of(into).await, state_of(&from).await);
}

#[cfg(feature = "qdrant")]
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_into_qdrant_and_back_is_the_same() {
    use mainstay_qdrant::{QdrantStore, ServerOptions};

    let server = crate::qdrant::server::Server::start().await;
    let qdrant = QdrantStore::connect(ServerOptions::new(&server.url)).await.unwrap();
    let script = Generator::new(6).history(60);
    let (from, back) = (ModelStore::default(), ModelStore::default());
    script.apply_to(&from).await;
    assert!(copy(&from, &qdrant, false, &quiet).await.unwrap().diff.is_empty());
    assert!(copy(&qdrant, &back, false, &quiet).await.unwrap().diff.is_empty());
    assert_eq!(state_of(&back).await, state_of(&from).await);
}
