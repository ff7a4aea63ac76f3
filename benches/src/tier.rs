//! `tier.search.p50`: a search through the tier over the same memory store called directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::core::{
    CollectionName, CollectionSpec, Context, Distance, GuardOptions, Guarded, SearchQuery, VectorStore,
};
use mainstay::log::MemoryLog;
use mainstay::{MemberStore, Point, Result, Tier, TierOptions};
use mainstay_memory::{MemoryOptions, MemoryStore};

use crate::report::{Figure, median_us};
use mainstay_tests::dataset::Dataset;

/// Rounds; both sides run in each, one after the other.
const ROUNDS: usize = 9;
/// Points in one upsert.
const BATCH: usize = 1_000;

/// Measures and answers the figures.
pub async fn run(data: &Dataset) -> Result<Vec<Figure>> {
    let name = CollectionName::new("bench")?;
    let store: Arc<dyn VectorStore> = Arc::new(MemoryStore::new(MemoryOptions::default())?);
    let guarded = Guarded::new(Arc::clone(&store), "standby", GuardOptions::default())?;
    let member = MemberStore { name: "standby".into(), backend: "memory", store: Arc::new(guarded) };
    let options = TierOptions {
        max_batch_bytes: 64 << 20,
        deadline: Duration::from_secs(60),
        ..TierOptions::default()
    };
    let tier = Tier::assemble(options, Arc::new(MemoryLog::default()), vec![member]).await?;
    tier.create_collection(CollectionSpec::dense(name.clone(), data.dimension(), Distance::Cosine)).await?;
    for (batch, vectors) in data.points.chunks(BATCH).enumerate() {
        let points =
            vectors.iter().enumerate().map(|(i, v)| Point::new((batch * BATCH + i) as u64, v.clone()));
        tier.upsert(&name, points.collect()).await?;
    }
    let queries: Vec<_> = data.queries.iter().map(|vector| SearchQuery::new(vector.clone())).collect();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut times = Vec::with_capacity(queries.len());
        let mut tier_times = Vec::with_capacity(queries.len());
        for (at, query) in queries.iter().enumerate() {
            // Query by query, so that whatever else the machine does meets both sides alike; in turn first,
            // because the second finds the vectors in the cache.
            for side in [at + round, at + round + 1] {
                let copy = query.clone();
                let start = Instant::now();
                if side % 2 == 0 {
                    let cx = Context::within(Duration::from_secs(5));
                    std::hint::black_box(store.search(&cx, &name, query).await?);
                    times.push(start.elapsed());
                } else {
                    std::hint::black_box(tier.search(&name, copy).await?);
                    tier_times.push(start.elapsed());
                }
            }
        }
        direct.push(median_us(&times));
        through.push(median_us(&tier_times));
    }
    tier.close().await?;
    Ok(vec![Figure::of_rounds("tier.search.p50", "us", &through, &direct)])
}
