use serde_json::json;

use super::*;
use crate::name::VectorName;
use crate::plain_store::{PlainStore, create, cx, docs, name, run, upsert};
use crate::point::{Point, SparseVector, Vector};
use crate::{Op, ScrollPage, VectorStore};

const POINTS: u64 = 25_000;

fn point(id: u64) -> Point {
    Point::new(id, vec![id as f32, 0.5])
}

async fn store(ops: Vec<Op>) -> PlainStore {
    let store = PlainStore::default();
    store.apply(&cx(), &run(0, ops)).await.unwrap();
    store
}

async fn many(leave_out: Option<u64>) -> PlainStore {
    let points = (0..POINTS).filter(|id| Some(*id) != leave_out).map(point).collect();
    store(vec![create(), upsert(points)]).await
}

#[tokio::test]
async fn equal_stores_have_equal_digests() {
    let (a, b) = (many(None).await, many(None).await);
    let (a, b) = (digest_store(&a, &cx()).await.unwrap(), digest_store(&b, &cx()).await.unwrap());
    assert_eq!(a, b);
    assert_eq!(compare(&a, &b), []);
    assert_eq!((a[0].points, a[0].incarnation), (POINTS, Lsn(1)));
    let ranges = a[0].ranges.len() as u64;
    assert!((POINTS / RANGE_POINTS / 2..POINTS / RANGE_POINTS * 2).contains(&ranges), "{ranges} ranges");
}

#[tokio::test]
async fn one_missing_point_is_found_in_one_short_span() {
    let (a, b) = (many(None).await, many(Some(12_345)).await);
    let (a, b) = (digest_store(&a, &cx()).await.unwrap(), digest_store(&b, &cx()).await.unwrap());
    let differences = compare(&a, &b);
    let [Difference::Points { a, b, spans, .. }] = differences.as_slice() else { panic!("{differences:?}") };
    assert_eq!((*a, *b), (POINTS, POINTS - 1));
    let [(PointId::Num(first), PointId::Num(last))] = spans.as_slice() else { panic!("{spans:?}") };
    assert!((*first..=*last).contains(&12_345) && last - first < 10 * RANGE_POINTS, "{first} to {last}");
    assert!(differences[0].to_string().contains("differs"));
}

#[tokio::test]
async fn the_digest_does_not_depend_on_how_points_came_but_on_their_versions() {
    let once = store(vec![create(), upsert(vec![point(1), point(2)])]).await;
    let reversed = store(vec![create(), upsert(vec![point(2), point(1)])]).await;
    let later = store(vec![create(), upsert(vec![point(1)]), upsert(vec![point(2)])]).await;
    let of = async |store: &PlainStore| digest_collection(store, &cx(), &name()).await.unwrap().hash;
    assert_eq!(of(&once).await, of(&reversed).await);
    assert_ne!(of(&once).await, of(&later).await);
}

#[tokio::test]
async fn versions_alone_do_not_show_a_changed_content_and_the_deep_digest_does() {
    let a = store(vec![create(), upsert(vec![point(1)])]).await;
    let b = store(vec![create(), upsert(vec![point(1).with_text("x")])]).await;
    let plain = async |store: &PlainStore| digest_store(store, &cx()).await.unwrap();
    let deep = async |store: &PlainStore| deep_digest_store(store, &cx()).await.unwrap();
    assert_eq!(plain(&a).await, plain(&b).await);
    assert_eq!(compare(&deep(&a).await, &deep(&b).await).len(), 1);
    assert_ne!(plain(&a).await[0].hash, deep(&a).await[0].hash);
    assert_eq!(deep_digest(&a, &cx(), &name()).await.unwrap(), deep(&a).await[0]);
}

#[test]
fn every_part_of_a_point_is_in_its_deep_digest() {
    let sparse = |indices, values| Vector::Sparse(SparseVector { indices, values });
    let other = VectorName::new("other").unwrap();
    let points = [
        point(1),
        point(2),
        Point::new(1_u64, vec![1.0, 0.25]),
        Point::new(1_u64, vec![1.0, 0.5, 0.0]),
        point(1).with_vector(other.clone(), Vector::Dense(vec![])),
        point(1).with_vector(other.clone(), sparse(vec![], vec![])),
        point(1).with_vector(other.clone(), sparse(vec![1], vec![1.0])),
        point(1).with_vector(other, sparse(vec![2], vec![1.0])),
        point(1).with_text(""),
        point(1).with_text("a"),
        point(1).with_payload(json!({"a": null})),
        point(1).with_payload(json!({"a": 1})),
        point(1).with_payload(json!({"a": 1.0})),
        point(1).with_payload(json!({"a": "1"})),
        point(1).with_payload(json!({"a": [1]})),
        point(1).with_payload(json!({"a": [[1]]})),
        point(1).with_payload(json!({"a": {"b": 1}})),
        point(1).with_payload(json!({"a": {}, "b": 1})),
        point(1).with_payload(json!({"a": true})),
        point(1).with_payload(json!({"a": false})),
    ];
    let mut records: Vec<_> = points.into_iter().map(|point| Record { version: Lsn(1), point }).collect();
    records.push(Record { version: Lsn(2), point: point(1) });
    let digests: std::collections::HashSet<_> = records.iter().map(PointDigest::deep).collect();
    assert_eq!(digests.len(), records.len());
}

#[test]
fn the_order_of_keys_in_a_payload_does_not_matter() {
    let of = |text: &str| {
        let payload = serde_json::from_str(text).unwrap();
        PointDigest::deep(&Record { version: Lsn(1), point: point(1).with_payload(payload) })
    };
    assert_eq!(of(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#), of(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#));
}

#[tokio::test]
async fn differing_collections_are_named() {
    let digest = |name: &str, incarnation| CollectionDigest {
        name: CollectionName::new(name).unwrap(),
        incarnation: Lsn(incarnation),
        points: 0,
        hash: Digest([0; 32]),
        ranges: vec![],
    };
    let (a, b) = ([digest("x", 1), digest("y", 2)], [digest("y", 5), digest("z", 3)]);
    let names = ["x", "y", "z"].map(|name| CollectionName::new(name).unwrap());
    let [x, y, z] = names;
    assert_eq!(
        compare(&a, &b),
        [
            Difference::OnlyInA(x),
            Difference::Incarnation { name: y, a: Lsn(2), b: Lsn(5) },
            Difference::OnlyInB(z),
        ]
    );
}

#[tokio::test]
async fn an_empty_and_an_unknown_collection_are_told_apart() {
    let empty = store(vec![create()]).await;
    let digest = digest_collection(&empty, &cx(), &name()).await.unwrap();
    assert_eq!((digest.points, digest.ranges.len(), digest.incarnation), (0, 0, docs().incarnation));
    assert_ne!(deep_digest(&empty, &cx(), &name()).await.unwrap().hash, digest.hash, "even without points");
    let nothing = PlainStore::default();
    assert_eq!(digest_collection(&nothing, &cx(), &name()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(digest_store(&nothing, &cx()).await.unwrap(), []);
}

#[test]
fn a_digest_prints_as_hexadecimal() {
    let digest = Digest([0xa5; 32]);
    assert_eq!(digest.to_string(), "a5".repeat(32));
    assert_eq!(format!("{digest:?}"), "a5a5a5a5");
}

#[test]
fn a_known_point_has_its_known_digest() {
    let digest = PointDigest::of(PointId::Num(1), Lsn(1)).0;
    assert_eq!(digest.to_string(), "f1dca48a97a206a2da469d76387788f2ad9c91c6ecff2a05d30f7c1a7d38ad25");
}

#[tokio::test]
async fn a_store_that_scrolls_in_circles_or_backwards_is_an_error() {
    let next = Some(PointId::Num(2));
    for (ids, next) in [(vec![1, 2], next), (vec![2, 1], None), (vec![1, 1], None), (vec![], next)] {
        let records = ids.into_iter().map(|id| Record { version: Lsn(1), point: point(id) }).collect();
        let store = PlainStore::default();
        store.scrolls(ScrollPage { incarnation: Lsn(1), records, next });
        let error = digest_collection(&store, &cx(), &name()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
