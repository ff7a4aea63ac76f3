//! LanceDB in an object store, against the server of `MAINSTAY_TEST_OBJECT_STORE_URL` (such as
//! `s3://bucket/tests`; the variables of the provider say the rest: `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`,
//! `AWS_ACCESS_KEY_ID`, …; `AZURE_STORAGE_USE_EMULATOR`). Each test has a prefix of its own below it and leaves it there.
//! Without the variable nothing is tested.

use mainstay::config::{BackendConfig, LanceConfig};
use mainstay::{VectorStore, open_store};
use mainstay_cli::copy::copy;
use mainstay_core::conformance::{Generator, ModelStore, StoreFactory, cx, state_of};
use mainstay_core::{ErrorKind, Faulty};

const URL_VARIABLE: &str = "MAINSTAY_TEST_OBJECT_STORE_URL";

fn quiet(_: u64, _: u64) {}

/// A place of its own, if there is a server.
fn place(name: &str) -> Option<BackendConfig> {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        eprintln!("{URL_VARIABLE} is not set: nothing is tested");
        return None;
    };
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    Some(BackendConfig::Lance(LanceConfig::new(format!("{url}/{name}-{started}"))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_into_an_object_store_and_back_is_the_same() {
    let Some(place) = place("copy") else { return };
    let remote = open_store(&place).await.unwrap();
    let script = Generator::new(7).history(60);
    let (from, back) = (ModelStore::default(), ModelStore::default());
    script.apply_to(&from).await;
    assert!(copy(&from, &*remote, false, &quiet).await.unwrap().diff.is_empty());
    remote.close(&cx()).await.unwrap();
    let remote = open_store(&place).await.unwrap();
    assert!(copy(&*remote, &back, false, &quiet).await.unwrap().diff.is_empty());
    assert_eq!(state_of(&back).await, state_of(&from).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_process_vanished_goes_on() {
    let Some(place) = place("resume") else { return };
    let script = Generator::new(8).history(200);
    let from = ModelStore::default();
    script.apply_to(&from).await;
    let remote = Faulty::new(open_store(&place).await.unwrap(), 1);
    copy(&from, &remote, false, &|_, _| remote.set_down(true)).await.unwrap_err();
    // Not closed, and in nobody's way.
    let again = open_store(&place).await.unwrap();
    assert!(copy(&from, &*again, false, &quiet).await.unwrap().diff.is_empty());
    assert_eq!(state_of(&*again).await, state_of(&from).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_holders_the_later_one_has_the_store() {
    let Some(place) = place("holders") else { return };
    let script = Generator::new(9).history(40);
    let first = open_store(&place).await.unwrap();
    script.apply_to(&*first).await;
    first.flush(&cx()).await.unwrap();
    let state = state_of(&*first).await;
    let second = open_store(&place).await.unwrap();
    let error = first.ping(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("took the store over"), "{error}");
    assert!(first.position(&cx()).await.is_err());
    assert_eq!(state_of(&*second).await, state);
    second.close(&cx()).await.unwrap();
    assert_eq!(first.position(&cx()).await.unwrap(), Some(script.position(script.end())));
    assert_eq!(state_of(&*first).await, state);
}

/// Stores at places of their own.
struct Places;

#[async_trait::async_trait]
impl StoreFactory for Places {
    type Store = Faulty<dyn VectorStore>;

    async fn create(&self) -> Self::Store {
        Faulty::new(open_store(&place("conformance").unwrap()).await.unwrap(), 1)
    }

    async fn reopen(&self, _store: Self::Store) -> Option<Self::Store> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_give_the_state_of_the_model() {
    if place("conformance").is_some() {
        mainstay_core::conformance::random_histories_in_random_runs_give_the_state_of_the_model(&Places)
            .await;
    }
}
