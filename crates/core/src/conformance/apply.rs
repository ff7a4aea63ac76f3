//! Checks of `apply`.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use std::collections::BTreeSet;
use std::task::Poll;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::generate::{payload_path, vector_name};
use super::script::{Script, cx, name, state_of};
use super::{Generator, ModelStore, StoreFactory, cases};
use crate::entry::{EntryHash, Op, Position, Run};
use crate::error::ErrorKind;
use crate::id::{Lsn, PointId};
use crate::point::{Point, SparseVector, Vector};
use crate::query::{Fields, ScrollQuery};
use crate::spec::{CollectionSpec, Distance, VectorSpec};
use crate::store::VectorStore;

fn small() -> Script {
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    for id in 0..5 {
        script.upsert(&docs, vec![Point::new(id, vec![id as f32, 1.0])]);
    }
    script
}

/// A store starts without a position, and each run moves it to the run's end.
pub async fn runs_advance_the_position<F: StoreFactory>(factory: &F) {
    let (store, script) = (factory.create().await, small());
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    for lsn in 1..=script.end().0 {
        let run = script.run(Lsn(lsn - 1), Lsn(lsn));
        assert_eq!(store.apply(&cx(), &run).await.unwrap(), script.position(Lsn(lsn)));
        assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(Lsn(lsn))));
    }
    store.ping(&cx()).await.unwrap();
}

/// A run that starts before the position is applied from the position on.
pub async fn an_applied_prefix_is_skipped<F: StoreFactory>(factory: &F) {
    let (store, script) = (factory.create().await, small());
    store.apply(&cx(), &script.run(Lsn(0), Lsn(3))).await.unwrap();
    let reached = store.apply(&cx(), &script.run(Lsn(0), Lsn(6))).await.unwrap();
    assert_eq!(reached, script.position(Lsn(6)));
    assert_eq!(store.apply(&cx(), &script.run(Lsn(2), Lsn(4))).await.unwrap(), script.position(Lsn(6)));
    assert_eq!(store.count(&cx(), &name("docs"), None).await.unwrap(), 5);
}

/// A gap, another log and another history answer `LogGap` and leave the store as it was.
pub async fn a_gap_or_another_history_is_refused_and_changes_nothing<F: StoreFactory>(factory: &F) {
    let (store, script) = (factory.create().await, small());
    let refused = |run: Run| {
        let store = &store;
        async move { assert_eq!(store.apply(&cx(), &run).await.unwrap_err().kind(), ErrorKind::LogGap) }
    };
    refused(script.run(Lsn(1), Lsn(2))).await;
    store.apply(&cx(), &script.run(Lsn(0), Lsn(3))).await.unwrap();
    let before = state_of(&store).await;
    refused(script.run(Lsn(4), Lsn(6))).await;
    let mut other = Script::new(2);
    other.create(&CollectionSpec::dense(name("other"), 2, Distance::Dot));
    for _ in 0..5 {
        other.push(Op::CreateCollection(CollectionSpec::dense(name("x"), 1, Distance::Dot)));
    }
    refused(other.run(Lsn(0), Lsn(6))).await;
    let parted = Position { hash: EntryHash([9; 32]), ..script.position(Lsn(3)) };
    refused(Run::new(parted, script.run(Lsn(3), Lsn(5)).entries().to_vec()).unwrap()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(Lsn(3))));
    assert_eq!(state_of(&store).await, before);
}

/// Random histories, cut into random runs, leave exactly the state of the model.
pub async fn random_histories_in_random_runs_give_the_state_of_the_model<F: StoreFactory>(factory: &F) {
    for seed in 0..cases(3) {
        let mut generator = Generator::new(seed);
        let script = generator.history(60);
        let (store, model) = (factory.create().await, ModelStore::default());
        let mut at = Lsn::ZERO;
        while at < script.end() {
            let to = Lsn(at.0 + generator.rng().random_range(1..=20)).min(script.end());
            let run = script.run(at, to);
            store.apply(&cx(), &run).await.unwrap();
            model.apply(&cx(), &run).await.unwrap();
            assert_eq!(state_of(&store).await, state_of(&model).await, "seed {seed}, entry {to}");
            at = to;
        }
    }
}

/// Entries that mostly put points, a few of which meet.
fn mostly_puts(seed: u64) -> Script {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    for _ in 0..60 {
        let ids: BTreeSet<u64> = (0..rng.random_range(1..5)).map(|_| rng.random_range(0..60)).collect();
        if rng.random_ratio(1, 8) {
            script.push(Op::Delete {
                collection: docs.clone(),
                ids: ids.into_iter().map(PointId::Num).collect(),
            });
        } else {
            let point = |id| Point::new(id, vec![rng.random_range(0..100) as f32, 1.0]);
            script.upsert(&docs, ids.into_iter().map(point).collect());
        }
    }
    script
}

/// Runs that a store takes at once leave what they leave one after the other, and each is answered where it ends; a
/// store that takes one at a time is given one.
pub async fn runs_side_by_side_leave_the_state_of_the_model<F: StoreFactory>(factory: &F) {
    for seed in 20..20 + cases(3) {
        let script = mostly_puts(seed);
        let mut rng = SmallRng::seed_from_u64(seed);
        let (store, model) = (factory.create().await, ModelStore::default());
        let at_once = store.capabilities().pipelining.runs > 1;
        let mut at = Lsn::ZERO;
        while at < script.end() {
            let mut next = |after: Lsn| Lsn(after.0 + rng.random_range(1..=3)).min(script.end());
            let first = next(at);
            let apply = async |after, to| {
                let reached = store.apply(&cx(), &script.run(after, to)).await.unwrap();
                assert_eq!(reached, script.position(to), "seed {seed}");
            };
            let last = if at_once && first < script.end() {
                let second = next(first);
                tokio::join!(biased; apply(at, first), apply(first, second));
                second
            } else {
                apply(at, first).await;
                first
            };
            assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(last)));
            model.apply(&cx(), &script.run(at, last)).await.unwrap();
            at = last;
        }
        assert_eq!(state_of(&store).await, state_of(&model).await, "seed {seed}");
    }
}

/// A run that is given up while others are under way leaves a store that takes all of them again.
pub async fn a_run_that_is_given_up_is_taken_again_with_those_beside_it<F: StoreFactory>(factory: &F) {
    for polls in 1..=cases(6) {
        let (store, script) = (factory.create().await, small());
        store.apply(&cx(), &script.run(Lsn(0), Lsn(2))).await.unwrap();
        {
            let runs = [script.run(Lsn(2), Lsn(4)), script.run(Lsn(4), Lsn(6))];
            let context = cx();
            let mut first = store.apply(&context, &runs[0]);
            let mut second = store.apply(&context, &runs[1]);
            let mut begins = store.capabilities().pipelining.runs > 1;
            let mut left = polls;
            // Both are dropped after a few polls, wherever they are then.
            std::future::poll_fn(|task| {
                left = left.saturating_sub(1);
                let done = first.as_mut().poll(task).is_ready();
                if begins && !done && left > 0 {
                    begins = second.as_mut().poll(task).is_pending();
                }
                if done || left == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        script.apply_to(&store).await;
        assert_eq!(store.count(&cx(), &name("docs"), None).await.unwrap(), 5, "{polls} polls");
        assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(script.end())));
    }
}

/// A store that is set back to an older position and replays is the same in the end: positions are given
/// through a restore that brings the newer state under the older position.
pub async fn replaying_any_suffix_changes_nothing<F: StoreFactory>(factory: &F) {
    for seed in 10..10 + cases(2) {
        let mut generator = Generator::new(seed);
        let script = generator.history(40);
        let model = ModelStore::default();
        script.apply_to(&model).await;
        let store = factory.create().await;
        let back = Lsn(generator.rng().random_range(0..script.end().0));
        super::restore::copy(&model, &store, script.position(back)).await;
        script.apply_to(&store).await;
        assert_eq!(state_of(&store).await, state_of(&model).await, "seed {seed}, back to {back}");
    }
}

/// Entries name the incarnation: those of a dropped one change nothing in its successor.
pub async fn entries_of_a_dropped_incarnation_are_passed_over<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let first = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.upsert(&first, vec![Point::new(1, vec![1.0, 1.0])]);
    script.push(Op::DropCollection(first.clone()));
    let second = script.create(&CollectionSpec::dense(name("docs"), 3, Distance::Cosine));
    script.upsert(&second, vec![Point::new(1, vec![1.0, 0.0, 0.0])]);
    script.upsert(&first, vec![Point::new(2, vec![1.0, 1.0])]);
    script.push(Op::Delete { collection: first.clone(), ids: vec![1.into()] });
    script.push(Op::DropCollection(first));
    script.apply_to(&store).await;
    let info = store.collections(&cx()).await.unwrap();
    assert_eq!(info.len(), 1);
    assert_eq!((info[0].incarnation, info[0].points), (second.incarnation, 1));
    assert!(store.get(&cx(), &name("docs"), &[2.into()], &Fields::ALL).await.unwrap().is_empty());
}

/// Vectors, payloads and texts come back exactly, odd ones too.
pub async fn points_are_kept_to_the_bit<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let spec = CollectionSpec::dense(name("docs"), 6, Distance::Dot)
        .with_vector(vector_name("s"), VectorSpec::Sparse)
        .with_payload_index(payload_path("n"), crate::spec::PayloadIndex::Integer);
    let docs = script.create(&spec);
    let odd = vec![-0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 1.0e-38, 0.1, -12_345.679];
    let sparse = SparseVector { indices: vec![0, 7, u32::MAX], values: vec![0.1, -0.0, 1e30] };
    let payload = serde_json::json!({
        "": {"": []}, "n": i64::MIN, "u": u64::MAX, "f": 0.1, "e": 1e-300, "z": -0.0, "whole": 5.0,
        "unicode": "äöü 🦀 \u{0} \" \\ \n", "deep": [[[[{"x": [null, true]}]]]],
    });
    let points = vec![
        Point::new(u64::MAX, odd).with_vector(vector_name("s"), Vector::Sparse(sparse)).with_payload(payload),
        Point::new(PointId::Uuid(uuid::Uuid::max()), vec![0.5; 6]).with_text(""),
        Point { vectors: Default::default(), ..Point::new(0, Vec::new()) }.with_text("no vectors"),
    ];
    script.upsert(&docs, points.clone());
    script.apply_to(&store).await;
    let ids: Vec<_> = points.iter().map(|point| point.id).collect();
    let found = store.get(&cx(), &name("docs"), &ids, &Fields::ALL).await.unwrap();
    assert_eq!(found.len(), 3);
    for (found, point) in found.iter().zip(&points) {
        assert_eq!(found.point, *point);
        assert_eq!(found.version, script.end());
        // Equality takes −0.0 for 0.0; the bits do not.
        assert_eq!(format!("{:?}", found.point.vectors), format!("{:?}", point.vectors));
        assert_eq!(format!("{:?}", found.point.payload), format!("{:?}", point.payload));
    }
}

/// Reads never fail and never see half a point while entries are applied.
pub async fn reads_go_on_while_entries_are_applied<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.apply_to(&store).await;
    // In every version of a point, vector, payload and text carry the same number.
    let version = |id: u64, n: u64| {
        Point::new(id, vec![n as f32, 1.0])
            .with_payload(serde_json::json!({ "n": n }))
            .with_text(n.to_string())
    };
    script.upsert(&docs, (0..30).map(|id| version(id, 0)).collect());
    script.apply_to(&store).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let reading = async {
        let mut reads = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let query = ScrollQuery { fields: Fields::ALL, ..ScrollQuery::default() };
            let page = store.scroll(&cx(), &name("docs"), &query).await.unwrap();
            assert_eq!(page.records.len(), 30);
            for record in page.records {
                let n = record.point.payload["n"].as_u64().unwrap();
                assert_eq!(record.point, version(record.point.id.to_string().parse().unwrap(), n));
            }
            reads += 1;
            tokio::task::yield_now().await;
        }
        assert!(reads > 0);
    };
    let writing = async {
        for n in 1..15 {
            script.upsert(&docs, (0..30).map(|id| version(id, n)).collect());
            script.apply_to(&store).await;
            tokio::task::yield_now().await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(reading, writing);
}
