//! Every backend that is compiled in gives the same answers to exact searches.

use std::path::Path;

use mainstay::config::{BackendConfig, LanceConfig, MemoryConfig, QdrantConfig};
use mainstay::{COMPILED_IN_BACKENDS, CollectionSpec, Distance, Point, SearchQuery, VectorStore, open_store};
use mainstay_core::conformance::{ModelStore, Script, cx, name};
use mainstay_tests::agreement::difference;
use mainstay_tests::dataset::Dataset;

/// Names a directory with `points.parquet` and `queries.parquet`; generated vectors without it.
const DATASET_VARIABLE: &str = "MAINSTAY_TEST_DATASET";
/// Hits of a search.
const K: usize = 10;

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
            let differs = difference(expected, &found, K);
            assert_eq!(differs, None, "query {at} of {}", backend.feature());
        }
        println!("{}: {} queries over {} points agree", backend.feature(), queries.len(), points.len());
        store.close(&cx()).await.unwrap();
    }
}
