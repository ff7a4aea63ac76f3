//! A tier over a Qdrant server beside the bare client, and the answers of Qdrant beside those of memory.
//!
//! The server is that of `MAINSTAY_TEST_QDRANT_URL`, whose collections `bench`, `bare`, `imported` and `imported-bare` are
//! replaced, or the stand-in in this process.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use mainstay::config::{BackendConfig, Config, MemberConfig, MemoryConfig, QdrantConfig};
use mainstay::{CollectionName, CollectionSpec, Distance, Point, Result, SearchQuery, Tier};
use mainstay_tests::agreement::difference;
use mainstay_tests::dataset::Dataset;
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    CollectionStatus, CreateCollectionBuilder, Distance as Measure, OptimizersConfigDiffBuilder, PointStruct,
    QueryPointsBuilder, SearchParamsBuilder, UpdateCollectionBuilder, UpsertPointsBuilder,
    VectorParamsBuilder,
};
use serde_json::json;

use crate::report::{Figure, median_us};
use crate::server::{Server, failed};

/// Rounds; both sides run in each.
const ROUNDS: usize = 5;
/// Searches of a round.
const SEARCHES: usize = 100;
/// Points in one upsert.
const BATCH: usize = 500;
/// Where the tier imports.
const IMPORTED: &str = "imported";
/// Where the bare client does.
const IMPORTED_BARE: &str = "imported-bare";
/// Upserts in flight, on both sides.
const IN_FLIGHT: usize = 4;
/// Hits of a search.
const K: usize = 10;

/// Measures and answers the figures.
pub async fn run(data: &Dataset) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir().map_err(failed)?;
    let Server { url, client } =
        Server::start(directory.path(), &["bench", "bare", IMPORTED, IMPORTED_BARE]).await?;
    let config = |backend: BackendConfig| {
        let mut config = Config::default();
        config.tier.members = vec!["primary".into()];
        config.tier.deadline = Duration::from_secs(60);
        config.members = [("primary".to_owned(), MemberConfig::new(backend))].into();
        config
    };
    let mut served = config(BackendConfig::Qdrant(Box::new(QdrantConfig::server(&url))));
    served.log.path = directory.path().join("log");
    let tier = Tier::open(served).await?;
    let mut in_memory = config(BackendConfig::Memory(MemoryConfig::default()));
    in_memory.log.path = mainstay::config::IN_MEMORY.into();
    let memory = Tier::open(in_memory).await?;
    let name = CollectionName::new("bench")?;
    for tier in [&tier, &memory] {
        tier.create_collection(CollectionSpec::dense(name.clone(), data.dimension(), Distance::Cosine))
            .await?;
    }
    // What the server builds in the background would be measured with whoever happens to wait then.
    index(&client, "bench", 0).await;
    create(&client, "bare", data.dimension()).await?;

    let batches: Vec<Batch<'_>> =
        (0_u64..).zip(&data.points).collect::<Vec<_>>().chunks(BATCH).map(<[_]>::to_vec).collect();
    let mut figures = vec![import(&tier, &client, data.dimension(), &batches).await?];
    through_tier(&tier, &name, &batches).await?;
    through_tier(&memory, &name, &batches).await?;
    through_client(&client, "bare", &batches).await?;
    for name in ["bench", "bare"] {
        index(&client, name, 10_000).await;
    }
    quiet(&client).await?;

    let queries: Vec<&Vec<f32>> = data.queries.iter().take(SEARCHES).collect();
    let (mut tier_times, mut bare_times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (at, vector) in queries.iter().enumerate() {
            for side in [at + round, at + round + 1] {
                let start = Instant::now();
                if side % 2 == 0 {
                    let query = SearchQuery::new((*vector).clone()).with_limit(K);
                    std::hint::black_box(tier.search(&name, query).await?);
                    a.push(start.elapsed());
                } else {
                    let query = QueryPointsBuilder::new("bare")
                        .query((*vector).clone())
                        .limit(K as u64)
                        .with_payload(true)
                        .params(SearchParamsBuilder::default().exact(false));
                    std::hint::black_box(client.query(query).await.map_err(failed)?);
                    b.push(start.elapsed());
                }
            }
        }
        tier_times.push(median_us(&a));
        bare_times.push(median_us(&b));
    }
    figures.push(Figure::of_rounds("qdrant.search.p50", "us", &tier_times, &bare_times));

    let mut agreed = 0;
    for vector in &data.queries {
        let query = |limit| SearchQuery::new(vector.clone()).with_limit(limit).exact();
        // One more, to see whether the last hit is tied with one that is not among them.
        let expected = memory.search(&name, query(K + 1)).await?;
        let found = tier.search(&name, query(K)).await?;
        agreed += usize::from(difference(&expected.value, &found.value, K).is_none());
    }
    let share = agreed as f64 / data.queries.len().max(1) as f64;
    figures.push(Figure::alone("qdrant.exact.agreement", share, "share of queries answered as memory does"));
    tier.close().await?;
    memory.close().await?;
    Ok(figures)
}

/// `qdrant.import`: all points in bulk into a new collection.
async fn import(tier: &Tier, client: &Qdrant, dimension: usize, batches: &[Batch<'_>]) -> Result<Figure> {
    let points = batches.iter().map(Vec::len).sum::<usize>() as f64;
    let name = CollectionName::new(IMPORTED)?;
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who comes second finds the machine as the first one left it.
        for side in [round, round + 1] {
            if side % 2 == 0 {
                tier.create_collection(CollectionSpec::dense(name.clone(), dimension, Distance::Cosine))
                    .await?;
                index(client, IMPORTED, 0).await;
                let start = Instant::now();
                through_tier(tier, &name, batches).await?;
                through.push(points / start.elapsed().as_secs_f64());
                tier.drop_collection(&name).await?;
            } else {
                create(client, IMPORTED_BARE, dimension).await?;
                let start = Instant::now();
                through_client(client, IMPORTED_BARE, batches).await?;
                bare.push(points / start.elapsed().as_secs_f64());
                client.delete_collection(IMPORTED_BARE).await.map_err(failed)?;
            }
        }
    }
    Ok(Figure::of_rounds("qdrant.import", "points per second", &through, &bare))
}

async fn through_tier(tier: &Tier, name: &CollectionName, batches: &[Batch<'_>]) -> Result<()> {
    let upserts = batches.iter().map(|batch| {
        let points = batch.iter().map(|(id, vector)| point(*id, vector)).collect();
        tier.upsert(name, points)
    });
    let upserts = futures::stream::iter(upserts).buffer_unordered(IN_FLIGHT);
    upserts.try_for_each(|_| async { Ok(()) }).await
}

async fn through_client(client: &Qdrant, name: &str, batches: &[Batch<'_>]) -> Result<()> {
    let upserts = batches.iter().map(|batch| {
        let points: Vec<PointStruct> = batch
            .iter()
            .map(|(id, vector)| PointStruct::new(*id, (*vector).clone(), foreign_payload(*id)))
            .collect();
        client.upsert_points(UpsertPointsBuilder::new(name, points).wait(true))
    });
    let upserts = futures::stream::iter(upserts).buffer_unordered(IN_FLIGHT);
    upserts.try_for_each(|_| async { Ok(()) }).await.map_err(failed)
}

/// A collection of the client's own, without a graph for now.
async fn create(client: &Qdrant, name: &str, dimension: usize) -> Result<()> {
    let vectors = VectorParamsBuilder::new(dimension as u64, Measure::Cosine);
    let create = CreateCollectionBuilder::new(name).vectors_config(vectors);
    client.create_collection(create).await.map_err(failed)?;
    index(client, name, 0).await;
    Ok(())
}

/// Points of one upsert.
type Batch<'a> = Vec<(u64, &'a Vec<f32>)>;

/// A point with a payload as an application has one.
fn point(id: u64, vector: &[f32]) -> Point {
    Point::new(id, vector.to_vec()).with_payload(payload(id))
}

fn payload(id: u64) -> serde_json::Value {
    json!({ "number": id, "word": format!("word {id}"), "kind": if id.is_multiple_of(2) { "noun" } else { "verb" } })
}

fn foreign_payload(id: u64) -> qdrant_client::Payload {
    qdrant_client::Payload::try_from(payload(id)).unwrap_or_default()
}

/// Lets the server build the graph of a collection from so many kilobytes of vectors on, or never.
async fn index(client: &Qdrant, name: &str, threshold: u64) {
    let optimizers = OptimizersConfigDiffBuilder::default().indexing_threshold(threshold);
    // The stand-in builds none by itself.
    let _ = client.update_collection(UpdateCollectionBuilder::new(name).optimizers_config(optimizers)).await;
}

/// Waits until the server has nothing to build any more.
async fn quiet(client: &Qdrant) -> Result<()> {
    let mut green = 0;
    while green < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut all = true;
        for name in ["bench", "bare"] {
            let info = client.collection_info(name).await.map_err(failed)?.result;
            all &= info.is_some_and(|info| info.status == CollectionStatus::Green as i32);
        }
        green = if all { green + 1 } else { 0 };
    }
    Ok(())
}
