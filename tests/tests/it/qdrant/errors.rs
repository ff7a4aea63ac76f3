//! What the store says when Qdrant says no, or nothing.

use std::time::Duration;

use mainstay_core::conformance::Script;
use mainstay_core::{
    CollectionName, CollectionSpec, Context, Distance, ErrorKind, Fields, Lsn, Point, ScrollQuery,
    SearchQuery, VectorStore,
};
use mainstay_qdrant::{QdrantStore, Secret, ServerOptions};
use mainstay_tests::stand_in::StandIn;
use qdrant_client::qdrant::{
    CreateCollectionBuilder, DeletePointsBuilder, StrictModeConfigBuilder, UpdateCollectionBuilder,
    VectorParamsBuilder, WriteOrderingType,
};

use super::server::Server;

fn cx() -> Context {
    Context::within(Duration::from_secs(5))
}

fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

fn small() -> Script {
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(docs(), 2, Distance::Dot));
    script.upsert(&docs, (0..10).map(|id| Point::new(id, vec![id as f32, 1.0])).collect());
    script
}

async fn connect(server: &Server) -> QdrantStore {
    QdrantStore::connect(ServerOptions::new(&server.url)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_api_key_is_unauthorized_and_never_shown() {
    let server = Server::stand_in(Some("correct-key".into())).await;
    for (key, works) in [("correct-key", true), ("other-key", false)] {
        let options = ServerOptions { api_key: Some(Secret::new(key)), ..ServerOptions::new(&server.url) };
        assert!(!format!("{options:?}").contains("-key"), "{options:?}");
        let position = QdrantStore::connect(options).await.unwrap().position(&cx()).await;
        match position {
            Ok(None) => assert!(works),
            Ok(Some(_)) => panic!("an empty server has no position"),
            Err(error) => {
                assert!(!works);
                assert_eq!(error.kind(), ErrorKind::Unauthorized);
                assert!(!format!("{error} {error:?}").contains("other-key"), "{error:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_unavailable_and_may_come_later() {
    let options = ServerOptions::new("http://127.0.0.1:1");
    let store = QdrantStore::connect(options).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let nodes = ServerOptions::default();
    let server = Server::start().await;
    let urls = vec!["http://127.0.0.1:1".to_owned(), server.url.clone()];
    let store = QdrantStore::connect(ServerOptions { urls, ..nodes }).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), None, "the second node answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_is_refused() {
    for url in ["localhost:6334", "ftp://x", "http://", ""] {
        let refused = QdrantStore::connect(ServerOptions::new(url)).await.err();
        assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::Invalid), "{url:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_somebody_else_is_never_touched() {
    let server = Server::start().await;
    let vectors = VectorParamsBuilder::new(2, qdrant_client::qdrant::Distance::Dot);
    let create = CreateCollectionBuilder::new("docs").vectors_config(vectors);
    server.client().create_collection(create).await.unwrap();
    let store = connect(&server).await;
    let script = small();
    let refused = store.apply(&cx(), &script.run(0.into_lsn(), script.end())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert!(refused.to_string().contains("adopt"), "{refused}");
    assert!(server.client().collection_exists("docs").await.unwrap());
    assert_eq!(store.collections(&cx()).await.unwrap(), []);
}

trait IntoLsn {
    fn into_lsn(self) -> mainstay_core::Lsn;
}

impl IntoLsn for u64 {
    fn into_lsn(self) -> mainstay_core::Lsn {
        mainstay_core::Lsn(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_data_underneath_says_that_it_is_empty() {
    let server = Server::start().await;
    let (store, script) = (connect(&server).await, small());
    script.apply_to(&store).await;
    assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(script.end())));
    server.clear().await;
    let search = store.search(&cx(), &docs(), &SearchQuery::new(vec![1.0, 0.0])).await;
    assert_eq!(search.unwrap_err().kind(), ErrorKind::Unavailable, "nothing is served from a store in doubt");
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_collection_is_gone_counts_as_empty() {
    let server = Server::start().await;
    let (store, script) = (connect(&server).await, small());
    script.apply_to(&store).await;
    server.client().delete_collection("docs").await.unwrap();
    assert_eq!(store.count(&cx(), &docs(), None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_the_server_makes_the_first_one_look_again() {
    let server = Server::start().await;
    let (first, mut script) = (connect(&server).await, small());
    script.apply_to(&first).await;
    let second = connect(&server).await;
    let at = script.end();
    let docs = mainstay_core::CollectionRef { name: docs(), incarnation: mainstay_core::Lsn(1) };
    script.upsert(&docs, vec![Point::new(99, vec![1.0, 1.0])]);
    second.apply(&cx(), &script.run(at, script.end())).await.unwrap();
    assert_eq!(first.position(&cx()).await.unwrap(), Some(script.position(script.end())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_runs_ahead_of_the_document_is_proven_by_the_newest_point() {
    let server = Server::start().await;
    let (store, mut script) = (connect(&server).await, small());
    script.apply_to(&store).await;
    let docs = mainstay_core::CollectionRef { name: docs(), incarnation: mainstay_core::Lsn(1) };
    // The document is written once a second; on a slow machine that may be after every run.
    let (saved, newest) = loop {
        let (at, newest) = (script.end(), 10 + script.end().0);
        script.upsert(&docs, vec![Point::new(newest, vec![1.0, 1.0])]);
        store.apply(&cx(), &script.run(at, script.end())).await.unwrap();
        let saved = connect(&server).await.position(&cx()).await.unwrap().unwrap();
        if saved.lsn < script.end() {
            break (saved, newest);
        }
    };
    let end = script.position(script.end());
    assert_eq!(store.position(&cx()).await.unwrap(), Some(end));
    // As a volume that was set back to the moment after the document was written.
    let delete = DeletePointsBuilder::new("docs").points([newest]).wait(true);
    server.client().delete_points(delete).await.unwrap();
    let refused = store.flush(&cx()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(store.position(&cx()).await.unwrap(), Some(saved), "what nothing proves is applied again");
    store.apply(&cx(), &script.run(saved.lsn, script.end())).await.unwrap();
    assert_eq!(store.flush(&cx()).await.unwrap(), Some(end));
    assert_eq!(connect(&server).await.position(&cx()).await.unwrap(), Some(end));
    let newest = store.get(&cx(), &docs.name, &[newest.into()], &Fields::ALL).await.unwrap();
    assert_eq!(newest.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_ordered_where_there_are_replicas_to_order_them_for() {
    for (other_replicas, ordering) in [(0, WriteOrderingType::Weak), (2, WriteOrderingType::Medium)] {
        let directory = tempfile::tempdir().unwrap();
        let stand_in = StandIn::open(directory.path()).unwrap().with_other_replicas(other_replicas);
        let server = Server::serve(stand_in.clone(), directory).await;
        let store = connect(&server).await;
        let mut script = Script::new(1);
        let docs = script.create(&CollectionSpec::dense(docs(), 2, Distance::Dot));
        script.upsert(&docs, vec![Point::new(1, vec![0.0, 1.0])]);
        store.apply(&cx(), &script.run(Lsn(0), script.end())).await.unwrap();
        assert_eq!(stand_in.last_ordering("docs"), Some(ordering), "{other_replicas} other replicas");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_strict_mode_are_kept_and_what_it_declines_is_no_fault_of_the_caller() {
    let server = Server::start().await;
    let store = connect(&server).await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(docs(), 2, Distance::Dot));
    store.apply(&cx(), &script.run(Lsn(0), Lsn(1))).await.unwrap();
    let strict = StrictModeConfigBuilder::default()
        .enabled(true)
        .upsert_max_batchsize(7)
        .max_query_limit(12)
        .max_timeout(2)
        .search_allow_exact(false);
    let update = UpdateCollectionBuilder::new("docs").strict_mode_config(strict);
    server.client().update_collection(update).await.unwrap();
    script.upsert(&docs, (0..50).map(|id| Point::new(id, vec![id as f32, 1.0])).collect());
    store.apply(&cx(), &script.run(Lsn(1), Lsn(2))).await.unwrap();
    let page = ScrollQuery { limit: 30, ..ScrollQuery::default() };
    assert_eq!(store.scroll(&cx(), &docs.name, &page).await.unwrap().records.len(), 30);
    let search = |limit: usize| SearchQuery::new(vec![1.0, 0.0]).with_limit(limit);
    assert_eq!(store.search(&cx(), &docs.name, &search(12)).await.unwrap().len(), 12);
    for declined in [search(13), search(3).exact()] {
        let error = store.search(&cx(), &docs.name, &declined).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "the next member is asked: {error}");
    }
}
