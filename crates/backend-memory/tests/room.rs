//! A store holds to `max_memory`, and what happens when it is full.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Filled, Shape, cx};
use mainstay_core::{
    ErrorKind, Expected, Fields, Op, Payload, PayloadPatch, PointId, Record, RestoreStep, SearchQuery,
    Vector, VectorStore,
};
use mainstay_memory::{MemoryOptions, MemoryStore, Quantization, WhenFull};

const SHAPE: Shape = Shape { dimension: 24, documents: false };
const MIB: u64 = 1 << 20;

fn refusing(max_memory: u64) -> MemoryOptions {
    MemoryOptions { max_memory: Some(max_memory), ..MemoryOptions::default() }
}

fn partial(max_memory: u64) -> MemoryOptions {
    MemoryOptions { when_full: WhenFull::Partial, ..refusing(max_memory) }
}

async fn ids_of(filled: &Filled, ids: impl Iterator<Item = u64>) -> Vec<PointId> {
    let ids: Vec<_> = ids.map(PointId::Num).collect();
    let records = filled.store.get(&cx(), &filled.collection.name, &ids, &Fields::NONE).await.unwrap();
    records.into_iter().map(|record| record.point.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_what_does_not_fit_and_keeps_the_rest() {
    let mut filled = Filled::new(refusing(4 * MIB), SHAPE).await;
    let error = filled.write(0..50_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("max_memory allows 4.0 MiB"), "{error}");
    assert!(filled.held() <= 4 * MIB && filled.held() > 3 * MIB, "{}", filled.held());
    assert!(filled.count().await > 4_000);
    assert!(!filled.store.is_partial());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_runs_only_where_max_memory_has_room_for_it_and_a_store_says_so() {
    for (share, has_room) in [(1.5, false), (2.6, true)] {
        let mut measured = Filled::new(MemoryOptions::default(), SHAPE).await;
        measured.write(0..4_000).await.unwrap();
        let max = (measured.held() as f64 * share) as u64;
        let mut filled = Filled::new(refusing(max), SHAPE).await;
        filled.write(0..4_000).await.unwrap();
        let full = filled.held();
        filled.write(0..600).await.unwrap();
        while filled.store.is_rebuilding() {
            assert!(filled.held() <= max);
            tokio::task::yield_now().await;
        }
        assert_eq!(filled.count().await, 4_000);
        let notice = filled.store.notice();
        if has_room {
            assert!(filled.held() <= full + full / 8, "{} after {full}", filled.held());
            assert_eq!(notice, None);
        } else {
            assert!(filled.held() > full, "{} after {full}", filled.held());
            assert!(notice.unwrap().contains("no room for the rebuild"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_store_keeps_what_was_used_last_within_max_memory() {
    let mut filled = Filled::new(partial(8 * MIB), SHAPE).await;
    filled.write(0..1_000).await.unwrap();
    assert!(!filled.store.is_partial());
    for from in (1_000..40_000).step_by(500) {
        filled.write(from..from + 500).await.unwrap();
        // Some are asked for by id, one is found by its vector.
        assert_eq!(ids_of(&filled, 0..100).await.len(), 100, "at {from}");
        let wanted =
            filled.store.get(&cx(), &filled.collection.name, &[100.into()], &Fields::ALL).await.unwrap();
        let vector = wanted[0].point.vectors.values().next().unwrap().clone();
        let Vector::Dense(vector) = vector else { unreachable!() };
        let query = SearchQuery::new(vector).with_limit(1).exact();
        let hits = filled.store.search(&cx(), &filled.collection.name, &query).await.unwrap();
        assert_eq!(hits[0].point.id, 100.into());
        assert!(filled.held() <= 8 * MIB, "{} at {from}", filled.held());
    }
    assert!(filled.store.is_partial());
    assert!(filled.store.notice().unwrap().contains("partial"));
    let count = filled.count().await;
    assert!((3_000..20_000).contains(&count), "{count}");
    // What was written last is there, what was written first and never asked for is not.
    assert_eq!(ids_of(&filled, 39_500..40_000).await.len(), 500);
    assert!(ids_of(&filled, 101..10_000).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_was_let_go_comes_back_whole_or_not_at_all() {
    let mut filled = Filled::new(partial(4 * MIB), SHAPE).await;
    filled.write(0..20_000).await.unwrap();
    assert!(ids_of(&filled, 0..10).await.is_empty());
    let mut payload = Payload::new();
    payload.insert("n".into(), 1.into());
    let patch = Op::PatchPayload {
        collection: filled.collection.clone(),
        ids: vec![5.into(), 19_999.into()],
        patch: PayloadPatch::Set(payload.clone()),
    };
    filled.apply(patch).await.unwrap();
    assert!(ids_of(&filled, 0..10).await.is_empty());
    filled.write([5]).await.unwrap();
    let ids = [5.into(), 19_999.into()];
    let records = filled.store.get(&cx(), &filled.collection.name, &ids, &Fields::ALL).await.unwrap();
    assert_eq!(records.len(), 2);
    assert!(records[0].point.payload.is_empty() && records[0].point.vectors.len() == 1);
    assert_eq!((&records[1].point.payload, records[1].version.next()), (&payload, filled.position.lsn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_store_that_is_loaded_keeps_the_newest_points() {
    let mut source = Filled::new(MemoryOptions::default(), SHAPE).await;
    source.write(1_000..16_000).await.unwrap();
    // Low ids are loaded first and were written last.
    source.write(0..1_000).await.unwrap();
    let store = MemoryStore::new(partial(4 * MIB)).unwrap();
    let (spec, collection) = (source.shape.spec(), source.collection.clone());
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let step = RestoreStep::Collection { spec: &spec, incarnation: collection.incarnation };
    store.restore(&cx(), step).await.unwrap();
    let ids: Vec<_> = (0..16_000).map(PointId::Num).collect();
    for ids in ids.chunks(500) {
        let records: Vec<Record> =
            source.store.get(&cx(), &collection.name, ids, &Fields::ALL).await.unwrap();
        store.restore(&cx(), RestoreStep::Points { collection: &collection, records }).await.unwrap();
    }
    store.restore(&cx(), RestoreStep::Finish { position: source.position }).await.unwrap();
    assert!(store.is_partial() && store.memory_bytes().unwrap() <= 4 * MIB);
    let newest = store.get(&cx(), &collection.name, &ids[..1_000], &Fields::NONE).await.unwrap();
    assert_eq!(newest.len(), 1_000);
    // A store that is loaded anew starts whole.
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    assert!(!store.is_partial());
}

#[tokio::test]
async fn a_store_takes_less_than_it_was_told_to_rather_than_refuse_and_says_so() {
    let points = 4_096;
    let sample = vec![std::sync::Arc::new(mainstay_core::Point::new(1, vec![0.5; 24]))];
    let expected = [Expected { spec: SHAPE.spec(), points, sample }];
    let size = |quantization| {
        mainstay_memory::estimate::bytes(
            &MemoryOptions { quantization, ..MemoryOptions::default() },
            &expected,
        )
    };
    let options = |max| MemoryOptions { quantization: Quantization::F16, ..refusing(max) };
    let mut filled = Filled::new(options(size(Quantization::F32) * 21 / 20), SHAPE).await;
    // As if it were empty: the collection made after this goes by it.
    filled.store.expect(&cx(), &expected).await.unwrap();
    assert!(filled.store.notice().unwrap().contains("f32 instead of f16"));
    filled.apply(Op::DropCollection(filled.collection.clone())).await.unwrap();
    filled.apply(Op::CreateCollection(SHAPE.spec())).await.unwrap();
    filled.collection.incarnation = filled.position.lsn;
    filled.write(0..points).await.unwrap();
    assert_eq!(filled.count().await, points);
    let store = MemoryStore::new(options(size(Quantization::F32) - MIB / 4)).unwrap();
    let refusal = store.expect(&cx(), &expected).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Rejected);
    assert!(refusal.to_string().contains("4096 points"), "{refusal}");
}
