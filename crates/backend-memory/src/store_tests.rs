//! What a store does before a snapshot of it is taken.

use std::time::Duration;

use mainstay_core::conformance::{cx, name};
use mainstay_core::{
    CollectionRef, CollectionSpec, Distance, Entry, EntryHash, LogId, LogIdentity, Lsn, Op, Point, PointId,
    Position,
};

use super::*;

const POINTS: u64 = 200;

/// A store whose rebuilds have been put off: so many collections with more than half of their slots buried.
async fn put_off(collections: u64) -> (MemoryStore, Running) {
    let store = MemoryStore::new(MemoryOptions::default()).unwrap();
    // What is counted as under way keeps others from being begun.
    let under_way = Running::new(&store.inner);
    let mut ops = Vec::new();
    for at in 1..=collections {
        let name = name(&format!("c{at}"));
        ops.push(Op::CreateCollection(CollectionSpec::dense(name, 2, Distance::Dot)));
    }
    for round in 0..3 {
        for at in 1..=collections {
            let collection = CollectionRef { name: name(&format!("c{at}")), incarnation: Lsn(at) };
            let point = |id| Arc::new(Point::new(id, vec![id as f32, round as f32]));
            ops.push(Op::Upsert { collection, points: (0..POINTS).map(point).collect() });
        }
    }
    let log = LogIdentity { id: LogId(uuid::Uuid::from_u128(1)), epoch: 1 };
    let entry = |(lsn, op)| Arc::new(Entry { lsn: Lsn(lsn), hash: EntryHash([1; 32]), op, size_bytes: 0 });
    let run = Run::new(Position::start(log), (1..).zip(ops).map(entry).collect()).unwrap();
    store.apply(&cx(), &run).await.unwrap();
    (store, under_way)
}

fn buried(store: &MemoryStore) -> Vec<u64> {
    store.inner.all().iter().map(|collection| collection.state.read().buried.len()).collect()
}

#[tokio::test]
async fn what_is_buried_is_gone_before_a_snapshot_and_every_point_is_there() {
    let (store, under_way) = put_off(3).await;
    assert_eq!(buried(&store), [2 * POINTS; 3]);
    drop(under_way);
    store.prepare_snapshot(&cx()).await.unwrap();
    assert_eq!(buried(&store), [0; 3]);
    let ids: Vec<_> = (0..POINTS).map(PointId::Num).collect();
    for collection in ["c1", "c2", "c3"].map(name) {
        let records = store.get(&cx(), &collection, &ids, &Fields::ALL).await.unwrap();
        let fits = |record: &Record| {
            let PointId::Num(id) = record.point.id else { return false };
            record.point.vectors == Point::new(id, vec![id as f32, 2.0]).vectors
        };
        assert!(records.len() == ids.len() && records.iter().all(fits));
    }
    // There is nothing to do, and it does nothing.
    store.prepare_snapshot(&cx()).await.unwrap();
}

#[tokio::test]
async fn what_there_is_no_room_to_build_beside_another_is_built_after_it() {
    let (measured, under_way) = put_off(2).await;
    drop(under_way);
    let (held, one) = (measured.inner.measure(), measured.inner.all()[0].rebuild_bytes());
    drop(measured);
    let (mut store, under_way) = put_off(2).await;
    drop(under_way);
    Arc::get_mut(&mut store.inner).unwrap().options.max_memory = Some(held + one + one / 2);
    store.prepare_snapshot(&cx()).await.unwrap();
    assert_eq!(buried(&store), [0, 0]);
}

#[tokio::test]
async fn without_room_for_a_rebuild_a_snapshot_does_not_wait_for_one() {
    let (mut store, under_way) = put_off(1).await;
    drop(under_way);
    Arc::get_mut(&mut store.inner).unwrap().options.max_memory = Some(store.inner.measure());
    store.prepare_snapshot(&cx()).await.unwrap();
    assert_eq!(buried(&store), [2 * POINTS]);
    assert!(store.notice().unwrap().contains("no room for the rebuild"));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_does_not_end_is_waited_for_until_the_deadline() {
    let (store, _under_way) = put_off(1).await;
    let soon = Context::within(Duration::from_secs(5));
    let error = store.prepare_snapshot(&soon).await.unwrap_err();
    assert_eq!((error.kind(), soon.remaining()), (ErrorKind::Timeout, Duration::ZERO));
    assert_eq!(store.count(&cx(), &name("c1"), None).await.unwrap(), POINTS);
    store.close(&cx()).await.unwrap();
    assert_eq!(store.prepare_snapshot(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn work_without_room_is_tried_again_after_a_rebuild_that_ended_before_anybody_looked() {
    let store = MemoryStore::new(MemoryOptions::default()).unwrap();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let full = || Err(Error::new(ErrorKind::StorageFull, "no room"));
    let cx = cx();
    let done = store.with_room(&cx, || {
        let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            drop(Running::new(&store.inner));
        }
        std::future::ready(if first { full() } else { Ok(()) })
    });
    done.await.unwrap();
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    // Where no rebuild ended there is nothing to wait for.
    let refused = store.with_room(&cx, || std::future::ready(full())).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn no_point_is_let_go_for_room_that_is_about_to_be_free() {
    let options = MemoryOptions {
        max_memory: Some(2 << 20),
        when_full: crate::WhenFull::Partial,
        ..MemoryOptions::default()
    };
    let store = MemoryStore::new(options).unwrap();
    let log = LogIdentity { id: LogId(uuid::Uuid::from_u128(1)), epoch: 1 };
    let mut after = Position::start(log);
    let mut write = |op: Op| {
        let entry = Entry { lsn: after.lsn.next(), hash: EntryHash([1; 32]), op, size_bytes: 0 };
        let done = store.inner.apply(&Run::new(after, vec![Arc::new(entry)]).unwrap());
        done.map(|position| after = position)
    };
    write(Op::CreateCollection(CollectionSpec::dense(name("c"), 2, Distance::Dot))).unwrap();
    let collection = store.inner.all().remove(0);
    let points = |batch: u64| Op::Upsert {
        collection: CollectionRef { name: name("c"), incarnation: Lsn(1) },
        points: (batch * 50..(batch + 1) * 50).map(|id| Arc::new(Point::new(id, vec![1.0, 2.0]))).collect(),
    };
    collection.freeing.store(true, Ordering::Relaxed);
    let refused = (0..10_000).find_map(|batch| write(points(batch)).err().map(|error| (batch, error)));
    let (batch, error) = refused.unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(batch > 0 && !store.is_partial());
    assert_eq!(collection.len(), batch * 50);
    collection.freeing.store(false, Ordering::Relaxed);
    write(points(batch)).unwrap();
    assert!(store.is_partial());
}
