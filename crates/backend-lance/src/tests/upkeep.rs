//! Compaction, clean-up and vector indexes.

use std::collections::BTreeSet;
use std::fs;

use mainstay_core::{Condition, Filter, PayloadIndex, Range, SearchQuery, VectorStore};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::barrier::table_path;

#[tokio::test]
async fn compaction_keeps_the_points_and_few_files() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        LanceOptions { compact_after_commits: 8, keep_versions: Duration::ZERO, ..options(directory.path()) };
    let store = LanceStore::open(options).await.unwrap();
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    let files = || fs::read_dir(table_path(directory.path(), "t1-c").join("data")).unwrap().count();
    for round in 0..12_u64 {
        log.upsert(&c, (round..round + 5).map(point));
        log.delete(&c, [round]);
        log.feed(&store).await;
    }
    let (before, many) = (contents(&store, "c").await, files());
    store.maintain().await.unwrap();
    assert_eq!(contents(&store, "c").await, before);
    assert!(many >= 12 && files() <= 3, "{many} files before, {} after", files());
    // The flush before the clean-up covers everything.
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(contents(&store, "c").await, before);
    log.upsert(&c, (0..30).map(point));
    log.feed(&store).await;
    assert_eq!(numbers(&contents(&store, "c").await), (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_maintenance_task_compacts_beside_writes_and_ends_on_close() {
    let directory = tempfile::tempdir().unwrap();
    let options = LanceOptions {
        compact_after_commits: 4,
        keep_versions: Duration::ZERO,
        maintenance: true,
        ..options(directory.path())
    };
    let store = LanceStore::open(options).await.unwrap();
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    for round in 0..40_u64 {
        log.upsert(&c, (round..round + 5).map(point));
        log.feed(&store).await;
        if round % 10 == 0 {
            store.flush(&cx()).await.unwrap();
        }
    }
    assert_eq!(numbers(&contents(&store, "c").await), (0..44).collect::<Vec<_>>());
    store.close(&cx()).await.unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(log.end()));
    assert_eq!(numbers(&contents(&store, "c").await), (0..44).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_search_through_the_index_finds_the_nearest_with_exact_scores() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        LanceOptions { index_threshold_rows: 600, compact_after_commits: 3, ..options(directory.path()) };
    let store = LanceStore::open(options).await.unwrap();
    let mut log = TestLog::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut random = || (0..16).map(|_| rng.random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
    let c = log.create(
        CollectionSpec::dense(name("c"), 16, Distance::Cosine)
            .with_payload_index("n".parse().unwrap(), PayloadIndex::Integer),
    );
    let spec = CollectionSpec::dense(name("c"), 16, Distance::Cosine);
    let mut make = |id: u64| {
        let point = Point::new(id, random()).with_payload(serde_json::json!({ "n": id }));
        spec.admit(point).unwrap()
    };
    log.upsert(&c, (0..700).map(&mut make));
    log.feed(&store).await;
    store.maintain().await.unwrap();
    assert!(store.is_indexed(&c.name));
    let plan = store.search_plan(&c.name, &[0.5; 16]).await;
    assert!(plan.contains("ANN"), "{plan}");
    // Changes that the index does not know yet.
    log.delete(&c, 0..50);
    log.upsert(&c, (700..720).chain(100..110).map(&mut make));
    log.feed(&store).await;
    let low = Filter::all([Condition::in_range(
        "n".parse().unwrap(),
        Range { gte: Some(60.0), lt: Some(75.0), ..Range::default() },
    )]);
    for round in 0..2 {
        let mut found = 0;
        for id in (60..720).step_by(33) {
            let query = SearchQuery::new(match make(id).vectors.into_values().next() {
                Some(mainstay_core::Vector::Dense(values)) => values,
                _ => panic!("a dense vector"),
            });
            let exact = store.search(&cx(), &c.name, &query.clone().exact()).await.unwrap();
            let fast = store.search(&cx(), &c.name, &query).await.unwrap();
            assert_eq!(fast.len(), 10);
            let all: BTreeSet<_> = exact.iter().map(|hit| hit.point.id).collect();
            found += fast.iter().filter(|hit| all.contains(&hit.point.id)).count();
            for (exact, fast) in
                exact.iter().filter_map(|e| Some((e, fast.iter().find(|f| f.point.id == e.point.id)?)))
            {
                assert_eq!(exact, fast);
            }
            let few = store
                .search(&cx(), &c.name, &query.clone().with_limit(20).with_filter(low.clone()))
                .await
                .unwrap();
            assert_eq!(few.len(), 15, "round {round}");
        }
        assert!(found >= 190, "round {round}: {found} of 200");
        log.upsert(&c, (800..900).map(&mut make));
        log.feed(&store).await;
        store.maintain().await.unwrap();
    }
    store.close(&cx()).await.unwrap();
    let store = open(directory.path()).await;
    assert!(store.is_indexed(&c.name));
    assert_eq!(store.count(&cx(), &c.name, None).await.unwrap(), 770);
    let own = contents(&store, "c").await.pop().unwrap();
    let Some(mainstay_core::Vector::Dense(values)) = own.point.vectors.into_values().next() else { panic!() };
    let hits = store.search(&cx(), &c.name, &SearchQuery::new(values).with_limit(1)).await.unwrap();
    assert_eq!(hits[0].point.id, own.point.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_an_index_is_built() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        LanceOptions { index_threshold_rows: 600, compact_after_commits: 4, ..options(directory.path()) };
    let store = Arc::new(LanceStore::open(options).await.unwrap());
    let mut log = TestLog::new();
    let c = log.create(spec(2));
    log.upsert(&c, (0..1_000).map(point));
    log.feed(&store).await;
    for round in 0..3_u64 {
        let building = tokio::spawn({
            let store = store.clone();
            async move { store.maintain().await }
        });
        let mut writes = 0;
        while !building.is_finished() || writes < 3 {
            log.upsert(&c, (0..20).map(|id| point(id * 7 + writes).with_text(format!("{round} {writes}"))));
            log.delete(&c, [900 + writes % 50]);
            let from = log.entries.len() as u64 - 2;
            store.apply(&cx(), &log.after(from)).await.unwrap();
            writes += 1;
        }
        building.await.unwrap().unwrap();
    }
    store.maintain().await.unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let other = open(fresh.path()).await;
    log.feed(&other).await;
    let expected = contents(&other, "c").await;
    assert_eq!(contents(&store, "c").await, expected);
    assert!(store.is_indexed(&c.name));
    for id in [100, 500, 950, 999] {
        let query = SearchQuery::new(vec![id as f32, 1.0]).with_limit(5);
        let (fast, exact) = (
            store.search(&cx(), &c.name, &query).await.unwrap(),
            other.search(&cx(), &c.name, &query.clone().exact()).await.unwrap(),
        );
        assert_eq!(fast[0], exact[0]);
    }
    store.close(&cx()).await.unwrap();
    let store = open(directory.path()).await;
    assert_eq!(contents(&store, "c").await, expected);
}
