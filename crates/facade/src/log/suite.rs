//! The promises that every log keeps, checked for both.

use std::sync::Arc;

use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Distance, ErrorKind, Lsn, Op, PayloadPatch, Point,
    PointId, Position, SparseVector, StoreId, Vector, VectorName, VectorSpec,
};
use proptest::prelude::*;

use super::{FileLog, Log, LogOptions, MemoryLog, codec, scan};
use crate::catalog::Collections;

pub(super) fn upsert(id: u64, bytes: usize) -> Op {
    let collection = CollectionRef { name: CollectionName::new("c").unwrap(), incarnation: Lsn(1) };
    let point = Point::new(id, vec![id as f32; 4]).with_text("x".repeat(bytes));
    Op::Upsert { collection, points: vec![Arc::new(point)] }
}

async fn appends_are_contiguous_and_chained(log: &dyn Log) {
    for step in 1..=20 {
        let appended = log.append((0..step).map(|id| upsert(id, 10)).collect()).await.unwrap();
        assert_eq!(appended.last.0 - appended.first.0 + 1, step);
    }
    let end = log.bounds().last;
    assert_eq!((end, log.bounds().first), (Lsn(210), Lsn(1)));
    assert_eq!(*log.watch_end().borrow(), end);
    let mut at = Lsn::ZERO;
    while at < end {
        let entries = log.read(at, 500).await.unwrap();
        assert!(entries.iter().map(|entry| entry.size_bytes).sum::<usize>() < 1_500, "a read is bounded");
        for entry in entries {
            assert_eq!(entry.lsn, at.next());
            assert_eq!(log.position_at(entry.lsn).await.unwrap().hash, entry.hash);
            at = entry.lsn;
        }
    }
    assert!(log.read(end, 500).await.unwrap().is_empty());
    assert_eq!(log.position_at(Lsn::ZERO).await.unwrap(), Position::start(log.identity()));
    assert_eq!(log.position_at(end.next()).await.unwrap_err().kind(), ErrorKind::LogGap);
}

async fn a_scan_passes_every_entry_up_to_its_end_once(log: &dyn Log) {
    // More than a scan reads at once.
    for id in 0..12 {
        log.append(vec![upsert(id, 600 << 10)]).await.unwrap();
    }
    let cut = log.truncate_before(Lsn(2), Collections::new()).await.unwrap();
    for (after, end, last) in [(1, 12, 12), (3, 9, 9), (3, 40, 12), (5, 5, 5), (12, 12, 12), (7, 8, 8)] {
        let mut seen = Vec::new();
        let reached = scan(log, Lsn(after), Lsn(end), |entry| seen.push(entry.lsn.0)).await.unwrap();
        assert_eq!((reached, seen), (Lsn(last), (after + 1..=last).collect()), "{after} to {end}");
    }
    assert_eq!(scan(log, Lsn::ZERO, Lsn(4), |_| {}).await.unwrap_err().kind(), ErrorKind::LogGap, "{cut}");
}

async fn a_refused_append_leaves_no_trace(log: &dyn Log) {
    log.append(vec![upsert(1, 10)]).await.unwrap();
    let before = log.bounds();
    assert_eq!(log.append(vec![]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let oversized = log.append(vec![upsert(1, 10), upsert(2, 2 << 20)]).await.unwrap_err();
    assert_eq!(oversized.kind(), ErrorKind::Invalid);
    assert_eq!(log.bounds(), before);
    assert_eq!(log.append(vec![upsert(3, 10)]).await.unwrap().first, before.last.next());
}

async fn a_cut_keeps_what_is_held_and_the_state_before_the_first_entry(log: &dyn Log) {
    log.append((0..30).map(|id| upsert(id, 100)).collect()).await.unwrap();
    let (bytes, tenth) = (log.bounds().bytes, log.position_at(Lsn(10)).await.unwrap());
    let mut hold = log.hold(Lsn(5));
    assert_eq!(log.truncate_before(Lsn(11), Collections::new()).await.unwrap(), Lsn::ZERO, "entry 6 is held");
    hold.move_to(Lsn(9));
    assert_eq!(
        log.truncate_before(Lsn(11), Collections::new()).await.unwrap(),
        Lsn::ZERO,
        "entry 10 is held"
    );
    drop(hold);
    let spec = CollectionSpec::dense(CollectionName::new("c").unwrap(), 4, Distance::Dot);
    let collection = crate::Collection { spec: Arc::new(spec), incarnation: Lsn(1) };
    let collections = Collections::from([(collection.spec.name.clone(), collection)]);
    assert_eq!(log.truncate_before(Lsn(11), collections.clone()).await.unwrap(), Lsn(10));
    assert_eq!(log.bounds().first, Lsn(11));
    let mut late = log.hold(Lsn(12));
    late.move_to(Lsn(3));
    assert_eq!(late.after(), Lsn(10), "what is gone is not held");
    drop(late);
    assert!(log.bounds().bytes < bytes);
    assert_eq!((log.checkpoint().position, log.checkpoint().collections), (tenth, collections));
    assert_eq!(log.read(Lsn(9), 100).await.unwrap_err().kind(), ErrorKind::LogGap);
    assert_eq!(log.read(Lsn(10), 1 << 20).await.unwrap().len(), 20);
    assert_eq!(
        log.truncate_before(Lsn(5), Collections::new()).await.unwrap(),
        Lsn(10),
        "a cut never goes back"
    );
    assert_eq!(log.append(vec![upsert(99, 10)]).await.unwrap().first, Lsn(31));
}

async fn a_closed_log_takes_nothing_more(log: &dyn Log) {
    log.append(vec![upsert(1, 10)]).await.unwrap();
    log.close().await.unwrap();
    assert_eq!(log.append(vec![upsert(2, 10)]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    log.close().await.unwrap();
}

async fn many_writers_share_one_order(log: Arc<dyn Log>) {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let log = Arc::clone(&log);
        tasks.spawn(async move {
            let mut lsns = Vec::new();
            for step in 0..20 {
                lsns.push(log.append(vec![upsert(writer * 100 + step, 10)]).await.unwrap().last);
            }
            assert!(lsns.is_sorted());
            lsns
        });
    }
    let mut all = Vec::new();
    while let Some(lsns) = tasks.join_next().await {
        all.extend(lsns.unwrap());
    }
    all.sort();
    assert_eq!(all, (1..=320).map(Lsn).collect::<Vec<_>>());
}

macro_rules! both {
    ($($name:ident),*) => {$(
        mod $name {
            #[tokio::test]
            async fn memory() {
                super::$name(&super::MemoryLog::default()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn disk() {
                let directory = tempfile::tempdir().unwrap();
                let log = super::FileLog::open(super::LogOptions::new(directory.path())).await.unwrap();
                super::$name(&log).await;
            }
        }
    )*};
}

both!(
    appends_are_contiguous_and_chained,
    a_scan_passes_every_entry_up_to_its_end_once,
    a_refused_append_leaves_no_trace,
    a_cut_keeps_what_is_held_and_the_state_before_the_first_entry,
    a_closed_log_takes_nothing_more
);

#[tokio::test(flavor = "multi_thread")]
async fn writers_share_one_order_in_memory_and_on_disk() {
    many_writers_share_one_order(Arc::new(MemoryLog::default())).await;
    let directory = tempfile::tempdir().unwrap();
    let log = FileLog::open(LogOptions::new(directory.path())).await.unwrap();
    many_writers_share_one_order(Arc::new(log)).await;
}

#[tokio::test]
async fn a_full_log_refuses_and_goes_on_after_a_cut() {
    let log = MemoryLog::new(10_000);
    let refused = loop {
        if let Err(error) = log.append(vec![upsert(1, 500)]).await {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    log.truncate_before(log.bounds().last, Collections::new()).await.unwrap();
    log.append(vec![upsert(1, 500)]).await.unwrap();
}

fn arbitrary_op() -> impl Strategy<Value = Op> {
    let collection = || CollectionRef { name: CollectionName::new("c-1.x").unwrap(), incarnation: Lsn(77) };
    let spec = || {
        CollectionSpec::dense(CollectionName::new("c").unwrap(), 7, Distance::Manhattan)
            .with_vector(VectorName::new("s").unwrap(), VectorSpec::Sparse)
            .with_payload_index("a.b".parse().unwrap(), mainstay_core::PayloadIndex::Datetime)
    };
    let id = prop_oneof![
        any::<u64>().prop_map(PointId::Num),
        any::<u128>().prop_map(|u| PointId::Uuid(uuid::Uuid::from_u128(u)))
    ];
    let floats = || {
        prop::collection::vec(
            any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |f| f.is_finite()),
            0..6,
        )
    };
    let payload = || {
        prop::collection::btree_map(
            ".{0,4}",
            prop_oneof![
                Just(serde_json::Value::Null),
                any::<i64>().prop_map(Into::into),
                any::<u64>().prop_map(Into::into),
                any::<f64>().prop_map(|f| serde_json::json!(f)),
                ".{0,6}".prop_map(Into::into),
                any::<bool>().prop_map(|b| serde_json::json!([b, {"": []}])),
            ],
            0..4,
        )
        .prop_map(|map| map.into_iter().collect::<mainstay_core::Payload>())
    };
    let point = (id.clone(), floats(), floats(), payload(), prop::option::of(".{0,8}")).prop_map(
        |(id, dense, values, payload, text)| {
            let indices = (0..values.len() as u32).map(|i| i * 7).collect();
            let mut point = Point::new(id, dense)
                .with_vector(VectorName::new("s").unwrap(), Vector::Sparse(SparseVector { indices, values }));
            point.payload = payload;
            point.text = text;
            Arc::new(point)
        },
    );
    prop_oneof![
        prop::collection::vec(point, 0..3)
            .prop_map(move |points| Op::Upsert { collection: collection(), points }),
        prop::collection::vec(id.clone(), 0..5)
            .prop_map(move |ids| Op::Delete { collection: collection(), ids }),
        (prop::collection::vec(id, 0..3), payload()).prop_map(move |(ids, payload)| Op::PatchPayload {
            collection: collection(),
            ids,
            patch: PayloadPatch::Set(payload)
        }),
        Just(Op::DropCollection(collection())),
        Just(Op::CreateCollection(spec())),
        any::<u128>().prop_map(move |id| Op::AdoptCollection {
            spec: spec(),
            store: StoreId(uuid::Uuid::from_u128(id))
        }),
    ]
}

#[test]
fn the_bytes_of_version_1_stay_as_they_are() {
    let collection = CollectionRef { name: CollectionName::new("docs").unwrap(), incarnation: Lsn(1) };
    let spec = CollectionSpec::dense(collection.name.clone(), 2, Distance::Cosine)
        .with_vector(VectorName::new("sparse").unwrap(), VectorSpec::Sparse)
        .with_payload_index("a.b".parse().unwrap(), mainstay_core::PayloadIndex::Datetime);
    let uuid = uuid::Uuid::from_u128(7);
    let sparse = SparseVector { indices: vec![3, 70_000], values: vec![1.0, f32::MIN_POSITIVE] };
    let point = Point::new(PointId::Uuid(uuid), vec![0.5, -1.5])
        .with_vector(VectorName::new("sparse").unwrap(), Vector::Sparse(sparse))
        .with_payload(serde_json::json!({"z": [1, null], "a": "\u{e9}"}))
        .with_text("text");
    let patch = PayloadPatch::Delete(vec!["a.b".parse().unwrap()]);
    let ids = vec![PointId::Num(300), PointId::Uuid(uuid)];
    let ops = [
        Op::AdoptCollection { spec: spec.clone(), store: StoreId(uuid) },
        Op::CreateCollection(spec),
        Op::Upsert {
            collection: collection.clone(),
            points: vec![Arc::new(point), Arc::new(Point::new(300, vec![]))],
        },
        Op::PatchPayload { collection: collection.clone(), ids: ids.clone(), patch },
        Op::Delete { collection: collection.clone(), ids },
        Op::DropCollection(collection),
    ];
    let last = ops.iter().zip(1..).fold(mainstay_core::EntryHash::ZERO, |before, (op, lsn)| {
        codec::encode(Lsn(lsn), before, op).unwrap().1
    });
    // Each hash covers the one before it, and all bytes of its entry.
    assert_eq!(last.to_string(), "6375e2026e04c033db30744f4171dcd66345bc003bcb69a26720103134660544");
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_written(op in arbitrary_op(), lsn in 1_u64.., before in any::<[u8; 32]>()) {
        let before = mainstay_core::EntryHash(before);
        let (bytes, hash) = codec::encode(Lsn(lsn), before, &op).unwrap();
        let entry = codec::decode(Lsn(lsn), Some(before), &bytes).unwrap();
        prop_assert_eq!((entry.hash, &entry.op, entry.size_bytes), (hash, &op, bytes.len()));
    }

    #[test]
    fn a_damaged_entry_is_named_and_never_read(op in arbitrary_op(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut bytes, _) = codec::encode(Lsn(42), mainstay_core::EntryHash::ZERO, &op).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let error = codec::decode(Lsn(42), Some(mainstay_core::EntryHash::ZERO), &bytes).unwrap_err();
        prop_assert_eq!((error.kind(), error.lsn()), (ErrorKind::Corrupt, Some(Lsn(42))));
    }

    #[test]
    fn points_are_split_into_entries_that_fit(sizes in prop::collection::vec(0_usize..400_000, 1..20)) {
        let points: Vec<_> = sizes.iter().enumerate().map(|(i, n)| Arc::new(Point::new(i as u64, vec![]).with_text("x".repeat(*n)))).collect();
        let groups = super::split_points(points.clone());
        prop_assert_eq!(groups.concat(), points);
        let collection = CollectionRef { name: CollectionName::new("c").unwrap(), incarnation: Lsn(1) };
        for points in groups {
            let op = Op::Upsert { collection: collection.clone(), points };
            let (bytes, _) = codec::encode(Lsn(1), mainstay_core::EntryHash::ZERO, &op).unwrap();
            prop_assert!(bytes.len() <= super::MAX_ENTRY_BYTES);
        }
    }
}
