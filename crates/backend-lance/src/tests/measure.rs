//! Latencies, printed by `cargo test -p mainstay-lance -- --ignored measure --nocapture`.

use std::time::Instant;

use mainstay_core::{SearchQuery, VectorStore};

use super::*;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn measure_latencies() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let mut log = TestLog::new();
    let c = log.create(CollectionSpec::dense(name("c"), 384, Distance::Cosine));
    let make = |id: u64| {
        let mut n = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let vector = (0..384).map(|_| {
            n ^= n << 13;
            n ^= n >> 7;
            n ^= n << 17;
            (n % 2_001) as f32 / 1_000.0 - 1.0
        });
        Point::new(id, vector.collect()).with_payload(serde_json::json!({ "n": id, "path": "src/lib.rs" }))
    };
    log.feed(&store).await;
    let mut times = Vec::new();
    for batch in 0..10_u64 {
        log.upsert(&c, (batch * 1_000..(batch + 1) * 1_000).map(make));
        let start = Instant::now();
        log.feed(&store).await;
        times.push(start.elapsed());
    }
    println!("append of 1,000 points: {:?}", median(times));
    for (what, base) in [("new", 20_000), ("changed", 5_000)] {
        let mut times = Vec::new();
        for id in 0..20 {
            log.upsert(&c, [make(base + id)]);
            let start = Instant::now();
            log.feed(&store).await;
            times.push(start.elapsed());
        }
        println!("apply of 1 {what} point: {:?}", median(times));
    }
    let mut times = Vec::new();
    for batch in 0..3_u64 {
        log.upsert(&c, (batch * 1_000..(batch + 1) * 1_000).map(make));
        let start = Instant::now();
        log.feed(&store).await;
        times.push(start.elapsed());
    }
    println!("apply of 1,000 changed points: {:?}", median(times));
    let start = Instant::now();
    store.flush(&cx()).await.unwrap();
    println!("first flush: {:?}", start.elapsed());
    log.upsert(&c, [make(1)]);
    log.feed(&store).await;
    let start = Instant::now();
    store.flush(&cx()).await.unwrap();
    println!("flush after one apply: {:?}", start.elapsed());
    let mut times = Vec::new();
    for id in 0..10 {
        let Some(mainstay_core::Vector::Dense(vector)) = make(id).vectors.into_values().next() else {
            panic!()
        };
        let start = Instant::now();
        let hits = store.search(&cx(), &c.name, &SearchQuery::new(vector).exact()).await.unwrap();
        times.push(start.elapsed());
        assert_eq!(hits.len(), 10);
    }
    println!("exact search in 10,020 points: {:?}", median(times));
    let ids: Vec<_> = (0..10).map(PointId::Num).collect();
    let start = Instant::now();
    store.get(&cx(), &c.name, &ids, &Fields::ALL).await.unwrap();
    println!("get of 10: {:?}", start.elapsed());
    let start = Instant::now();
    store.scroll(&cx(), &c.name, &mainstay_core::ScrollQuery::default()).await.unwrap();
    println!("scroll of 100: {:?}", start.elapsed());
    for id in 0..30 {
        log.upsert(&c, [make(id)]);
        log.feed(&store).await;
    }
    let start = Instant::now();
    store.maintain().await.unwrap();
    println!("compaction: {:?}", start.elapsed());
    let start = Instant::now();
    store.close(&cx()).await.unwrap();
    let store = open(directory.path()).await;
    println!("close and open: {:?}", start.elapsed());
    drop(store);
}
