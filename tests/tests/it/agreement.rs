//! Every backend that is compiled in gives the same answers to exact searches.

use std::collections::BTreeMap;
use std::path::Path;

use mainstay::config::{BackendConfig, LanceConfig, MemoryConfig, QdrantConfig};
use mainstay::{
    COMPILED_IN_BACKENDS, CollectionSpec, Distance, Hit, Point, SearchQuery, VectorStore, open_store,
};
use mainstay_core::conformance::{ModelStore, Script, cx, name};
use mainstay_tests::dataset::Dataset;

/// Names a directory with `points.parquet` and `queries.parquet`; generated vectors without it.
const DATASET_VARIABLE: &str = "MAINSTAY_TEST_DATASET";
/// Hits of a search.
const K: usize = 10;
/// Scores of two backends may differ by this much: sums of floats in another order.
const SCORES: f32 = 1e-5;

#[tokio::test(flavor = "multi_thread")]
async fn every_backend_gives_the_same_exact_answers() {
    let data = match std::env::var_os(DATASET_VARIABLE) {
        Some(directory) => Dataset::read(Path::new(&directory)).unwrap(),
        None => Dataset::clusters(1_500, 30),
    };
    let directory = tempfile::tempdir().unwrap();
    #[cfg(feature = "qdrant")]
    let server = crate::qdrant::server::Server::start().await;
    let mut backends = vec![
        BackendConfig::Memory(MemoryConfig::default()),
        BackendConfig::Lance(LanceConfig::new(directory.path().join("lance").to_str().unwrap())),
        BackendConfig::Qdrant(Box::new(QdrantConfig::directory(directory.path().join("edge")))),
    ];
    backends.retain(|backend| COMPILED_IN_BACKENDS.contains(&backend.feature()));
    #[cfg(feature = "qdrant")]
    backends.push(BackendConfig::Qdrant(Box::new(QdrantConfig::server(&server.url))));

    let docs = name("docs");
    let spec = CollectionSpec::dense(docs.clone(), data.dimension(), Distance::Cosine);
    let mut script = Script::new(1);
    let collection = script.create(&spec);
    let points: Vec<(u64, Vec<f32>)> = (0..).zip(data.points).collect();
    for points in points.chunks(500) {
        let admitted = points.iter().map(|(id, vector)| spec.admit(Point::new(*id, vector.clone())).unwrap());
        script.upsert(&collection, admitted.collect());
    }
    let model = ModelStore::default();
    script.apply_to(&model).await;
    let query =
        |vector: &Vec<f32>| SearchQuery::new(vector.clone()).with_limit(K).exact().admit(&spec).unwrap();
    let queries: Vec<SearchQuery> = data.queries.iter().map(query).collect();
    let mut expected = Vec::new();
    for query in &queries {
        // One more, to see whether the last hit is tied with one that is not among them.
        let query = SearchQuery { limit: K + 1, ..query.clone() };
        expected.push(model.search(&cx(), &docs, &query).await.unwrap());
    }
    for backend in backends {
        let store = open_store(&backend).await.unwrap();
        script.apply_to(&*store).await;
        for (at, (query, expected)) in queries.iter().zip(&expected).enumerate() {
            let found = store.search(&cx(), &docs, query).await.unwrap();
            assert_same(expected, &found, &format!("query {at} of {}", backend.feature()));
        }
        println!("{}: {} queries over {} points agree", backend.feature(), queries.len(), points.len());
        store.close(&cx()).await.unwrap();
    }
}

/// The same scores, and the same ids wherever no other score is as near.
fn assert_same(expected: &[Hit], found: &[Hit], what: &str) {
    let near = |x: f32, y: f32| (x - y).abs() <= SCORES;
    assert_eq!(found.len(), expected.len().min(K), "{what}");
    let scores: BTreeMap<_, _> = expected.iter().map(|hit| (hit.point.id, hit.score)).collect();
    for (at, (want, have)) in expected.iter().zip(found).enumerate() {
        assert!(near(want.score, have.score), "{what}, hit {at}: {} and {}", want.score, have.score);
        let tied = expected.iter().enumerate().any(|(other, hit)| other != at && near(hit.score, want.score));
        let id = have.point.id;
        assert!(
            id == want.point.id || (tied && scores.get(&id).is_none_or(|score| near(*score, have.score))),
            "{what}, hit {at}: point {id} instead of {}",
            want.point.id
        );
    }
}
