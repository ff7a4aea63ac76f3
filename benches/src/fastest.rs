//! `read = "fastest"`: a tier of Qdrant and memory beside the bare Qdrant client, while writes run.
//!
//! The server is that of `MAINSTAY_TEST_QDRANT_URL`, whose collection `bench` is replaced, or the stand-in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::config::{
    BackendConfig, Config, MemberConfig, MemoryConfig, QdrantConfig, Quantization, ReadPolicy,
};
use mainstay::{CollectionName, CollectionSpec, Distance, Hit, Point, PointId, Result, SearchQuery, Tier};
use mainstay_tests::dataset::Dataset;
use qdrant_client::qdrant::{QueryPointsBuilder, SearchParamsBuilder};

use crate::report::{Figure, median_us};
use crate::server::{Server, failed};

/// Rounds; both sides run in each.
const ROUNDS: usize = 7;
/// Points in one upsert while the collection is filled.
const BATCH: usize = 500;
/// Hits of a search.
const K: usize = 10;
/// How long the members may take to catch up after the points are written.
const CATCH_UP: Duration = Duration::from_secs(600);
/// Between two writes, so that the server's work on them is not all that is measured.
const WRITE_PAUSE: Duration = Duration::from_millis(5);

/// Measures and answers the figures.
pub async fn run(data: &Dataset) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir().map_err(failed)?;
    let server = Server::start(directory.path(), &["bench"]).await?;
    let mut config = Config::default();
    config.tier.members = vec!["primary".into(), "standby".into()];
    config.tier.read = ReadPolicy::Fastest;
    config.tier.deadline = Duration::from_secs(60);
    config.log.path = directory.path().join("log");
    let primary = BackendConfig::Qdrant(Box::new(QdrantConfig::server(&server.url)));
    let standby =
        BackendConfig::Memory(MemoryConfig { quantization: Quantization::I8, ..MemoryConfig::default() });
    config.members = [("primary", primary), ("standby", standby)]
        .map(|(name, backend)| (name.to_owned(), MemberConfig::new(backend)))
        .into();
    let tier = Tier::open(config).await?;
    let name = CollectionName::new("bench")?;
    tier.create_collection(CollectionSpec::dense(name.clone(), data.dimension(), Distance::Cosine)).await?;
    let points: Vec<Point> = (0_u64..).zip(&data.points).map(|(id, v)| Point::new(id, v.clone())).collect();
    for batch in points.chunks(BATCH) {
        tier.upsert(&name, batch.to_vec()).await?;
    }
    tier.wait_caught_up(CATCH_UP).await?;
    wait_until_indexed(&server).await?;
    let mut nearest = Vec::new();
    let standby = tier.reader().from_member("standby")?;
    for vector in &data.queries {
        let query = SearchQuery::new(vector.clone()).with_limit(K).exact();
        nearest.push(ids(&standby.search(&name, query).await?.value));
    }

    // Rewrites points as they are, so that the nearest stay the nearest.
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (tier, name, stop, acked) = (tier.clone(), name.clone(), Arc::clone(&stop), Arc::clone(&acked));
        tokio::spawn(async move {
            let mut writes = 0_u64;
            for point in points.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let written = tier.upsert(&name, vec![point.clone()]).await?;
                acked.store(written.lsn.0, Ordering::Release);
                writes += 1;
                tokio::time::sleep(WRITE_PAUSE).await;
            }
            Ok::<u64, mainstay::Error>(writes)
        })
    };
    let (mut tier_times, mut bare_times) = (Vec::new(), Vec::new());
    let (mut found, mut by_standby, mut searches, mut stale) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (at, vector) in data.queries.iter().enumerate() {
            for side in [at + round, at + round + 1] {
                let before = acked.load(Ordering::Acquire);
                let start = Instant::now();
                if side % 2 == 0 {
                    let query = SearchQuery::new(vector.clone()).with_limit(K);
                    let answer = tier.search(&name, query).await?;
                    a.push(start.elapsed());
                    found += ids(&answer.value).intersection(&nearest[at]).count();
                    by_standby += usize::from(answer.served_by.as_str() == "standby");
                    stale += usize::from(answer.cursor.0 < before);
                    searches += 1;
                } else {
                    let query = QueryPointsBuilder::new("bench")
                        .query(vector.clone())
                        .limit(K as u64)
                        .with_payload(true)
                        .params(SearchParamsBuilder::default().exact(false));
                    std::hint::black_box(server.client.query(query).await.map_err(failed)?);
                    b.push(start.elapsed());
                }
            }
        }
        tier_times.push(median_us(&a));
        bare_times.push(median_us(&b));
    }
    stop.store(true, Ordering::Relaxed);
    let writes = writer.await.map_err(failed)??;
    tier.close().await?;
    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    Ok(vec![
        Figure::of_rounds("fastest.search.p50", "us", &tier_times, &bare_times),
        Figure::alone("fastest.recall@10", share(found, searches * K), "share of the exact nearest"),
        Figure::alone("fastest.by_standby", share(by_standby, searches), "share of searches"),
        Figure::alone("fastest.stale", stale as f64, "answers behind a write acked before the search"),
        Figure::alone("fastest.writes", writes as f64, "writes acked meanwhile"),
    ])
}

fn ids(hits: &[Hit]) -> BTreeSet<PointId> {
    hits.iter().map(|hit| hit.point.id).collect()
}

/// Waits until the server has built its index: a search of unindexed points is another one.
async fn wait_until_indexed(server: &Server) -> Result<()> {
    use qdrant_client::qdrant::CollectionStatus;
    let indexed = async {
        loop {
            let info = server.client.collection_info("bench").await.map_err(failed)?;
            if info.result.is_some_and(|info| info.status() == CollectionStatus::Green) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(CATCH_UP, indexed).await.map_err(failed)?
}
