//! Collections that were on the server before Mainstay.

use std::path::Path;
use std::time::Duration;

use mainstay::{Config, ErrorKind, Filter, Lsn, Point, Tier, VectorStore};
use mainstay_core::conformance::name;
use mainstay_core::json::filter_from_json;
use mainstay_core::{Context, ScrollQuery};
use mainstay_qdrant::{QdrantStore, ServerOptions};
use qdrant_client::qdrant::{
    CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Datatype, Distance, FieldType,
    MultiVectorComparator, MultiVectorConfigBuilder, PointStruct, UpsertPointsBuilder, VectorParamsBuilder,
};
use serde_json::json;

use super::server::Server;
use crate::tier::PATIENCE;

const POINTS: u64 = 1_200;

fn cx() -> Context {
    Context::within(Duration::from_secs(20))
}

/// What another program wrote: a keyword index over texts and, in one point of ten, numbers.
async fn write_foreign(server: &Server) {
    let client = server.client();
    let vectors = VectorParamsBuilder::new(4, Distance::Cosine);
    client.create_collection(CreateCollectionBuilder::new("old").vectors_config(vectors)).await.unwrap();
    let index = CreateFieldIndexCollectionBuilder::new("old", "kind", FieldType::Keyword).wait(true);
    client.create_field_index(index).await.unwrap();
    let point = |id: u64| {
        let kind = if id.is_multiple_of(10) { json!(id) } else { json!(format!("k{}", id % 3)) };
        let payload = json!({ "kind": kind, "n": id, "nested": { "list": [id, null, 0.5] } });
        let vector = vec![(id as f32).sin(), (id as f32).cos(), 0.1, 2.0];
        PointStruct::new(id, vector, qdrant_client::Payload::try_from(payload).unwrap())
    };
    for ids in (0..POINTS).collect::<Vec<_>>().chunks(400) {
        let points: Vec<PointStruct> = ids.iter().map(|id| point(*id)).collect();
        client.upsert_points(UpsertPointsBuilder::new("old", points).wait(true)).await.unwrap();
    }
}

fn config(server: &Server, directory: &Path) -> Config {
    Config::from_toml(&format!(
        "[tier]\nmembers = [\"primary\", \"standby\"]\ndeadline = \"20s\"\n\
         [members.primary]\nbackend = \"qdrant\"\nurl = \"{}\"\n\
         [members.standby]\nbackend = \"memory\"\n\
         [log]\npath = \"{}\"\n[failover]\ncheck_interval = \"200ms\"\n",
        server.url,
        directory.join("log").display()
    ))
    .unwrap()
}

async fn connect(server: &Server) -> QdrantStore {
    QdrantStore::connect(ServerOptions::new(&server.url)).await.unwrap()
}

async fn adopt(server: &Server, tier: &Tier) {
    let (spec, store) = connect(server).await.prepare_adoption(&name("old"), cx, &|_| {}).await.unwrap();
    tier.adopt_collection(spec, store).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
}

async fn assert_equal(tier: &Tier) {
    let primary = tier.digest("primary").await.unwrap();
    assert_eq!(primary, tier.digest("standby").await.unwrap());
    assert_eq!(primary.len(), tier.collections().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_collection_is_the_base_of_the_tier() {
    let (server, directory) = (Server::start().await, tempfile::tempdir().unwrap());
    write_foreign(&server).await;
    let tier = Tier::open(config(&server, directory.path())).await.unwrap();
    adopt(&server, &tier).await;
    let old = name("old");
    assert_eq!(tier.count(&old, None).await.unwrap().value, POINTS);
    assert_equal(&tier).await;
    let page = tier.scroll(&old, &ScrollQuery { limit: 3, ..ScrollQuery::default() }).await.unwrap().value;
    assert!(page.records.iter().all(|record| record.version == Lsn::ZERO), "{page:?}");
    assert_eq!(page.records[1].point.payload["nested"], json!({ "list": [1, null, 0.5] }));
    assert_eq!(page.records[1].point.payload.len(), 3, "nothing of ours is shown");

    // A keyword index does not know the numbers; the answer does.
    let not = json!({ "must": [{ "key": "kind", "match": { "except": ["k1"] } }] });
    let filter: Filter = filter_from_json(&not).unwrap();
    let accepted = (0..POINTS).filter(|id| id.is_multiple_of(10) || id % 3 != 1).count() as u64;
    assert_eq!(tier.count(&old, Some(&filter)).await.unwrap().value, accepted);

    // From here on it is a collection as any other.
    let again = vec![Point::new(5, vec![1.0, 0.0, 0.0, 0.0]), Point::new(POINTS, vec![0.0, 1.0, 0.0, 0.0])];
    tier.upsert(&old, again).await.unwrap();
    tier.delete(&old, &[7.into()]).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    assert_eq!(tier.count(&old, None).await.unwrap().value, POINTS);
    assert_equal(&tier).await;

    let twice = connect(&server).await.prepare_adoption(&old, cx, &|_| {}).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    tier.close().await.unwrap();

    // The standby cannot replay what it has to be loaded with; neither can a server that lost it.
    let tier = Tier::open(config(&server, directory.path())).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    assert_equal(&tier).await;
    server.clear().await;
    for _ in 0..600 {
        let _ = tier.wait_caught_up(PATIENCE).await;
        if tier.digest("primary").await.is_ok_and(|digest| digest.iter().any(|d| d.points == POINTS)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_equal(&tier).await;
    assert_eq!(tier.count(&old, None).await.unwrap().value, POINTS);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_a_log_that_is_lost_are_adopted_as_if_nobody_had_versioned_them() {
    let (server, directory) = (Server::start().await, tempfile::tempdir().unwrap());
    write_foreign(&server).await;
    let first = Tier::open(config(&server, &directory.path().join("first"))).await.unwrap();
    adopt(&server, &first).await;
    for _ in 0..5 {
        first
            .upsert(&name("old"), vec![Point::new(1, vec![0.0, 0.0, 1.0, 0.0]).with_text("t")])
            .await
            .unwrap();
    }
    first.close().await.unwrap();
    server.client().delete_collection("mainstay_control").await.unwrap();
    let second = Tier::open(config(&server, &directory.path().join("second"))).await.unwrap();
    adopt(&server, &second).await;
    let held = second.get(&name("old"), &[1.into()], &mainstay::Fields::ALL).await.unwrap().value;
    assert_eq!((held[0].version, held[0].point.text.as_deref()), (Lsn::ZERO, Some("t")));
    // Entry 2 of the new log is newer than entry 6 of the lost one.
    second.upsert(&name("old"), vec![Point::new(1, vec![1.0, 0.0, 0.0, 0.0])]).await.unwrap();
    let held = second.get(&name("old"), &[1.into()], &mainstay::Fields::ALL).await.unwrap().value;
    assert_eq!((held[0].version, held[0].point.text.as_deref()), (Lsn(2), None));
    second.wait_caught_up(PATIENCE).await.unwrap();
    assert_equal(&second).await;
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_cannot_be_adopted_says_why() {
    let server = Server::start().await;
    let client = server.client();
    let vectors = || VectorParamsBuilder::new(4, Distance::Dot);
    let multi = MultiVectorConfigBuilder::new(MultiVectorComparator::MaxSim);
    for (name, vectors) in [
        ("bytes", vectors().datatype(Datatype::Uint8)),
        ("fine", vectors()),
        ("multi", vectors().multivector_config(multi)),
    ] {
        client.create_collection(CreateCollectionBuilder::new(name).vectors_config(vectors)).await.unwrap();
    }
    let store = connect(&server).await;
    let found = store.foreign_collections(&cx()).await.unwrap();
    let why: Vec<_> =
        found.iter().map(|f| (&*f.name, f.spec.as_ref().err().map_or("", String::as_str))).collect();
    assert!(why[0].0 == "bytes" && why[0].1.contains("less than 32 bits"), "{why:?}");
    assert_eq!(why[1], ("fine", ""));
    assert!(why[2].0 == "multi" && why[2].1.contains("multi-vector"), "{why:?}");
    for (collection, kind) in [("bytes", ErrorKind::Unsupported), ("none", ErrorKind::NotFound)] {
        let refused = store.prepare_adoption(&name(collection), cx, &|_| {}).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
    }
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}
