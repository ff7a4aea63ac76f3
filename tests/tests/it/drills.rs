//! Lost members through the public API of a tier opened from TOML.

use mainstay::{Config, ErrorKind, Tier};

use crate::tier::{docs, open, point, toml};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_log_is_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path(), "").await;
    let error = Tier::open(Config::from_toml(&toml(directory.path(), "")).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_an_empty_standby_up_from_the_log_or_another_member() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let tier = open(directory.path(), "").await;
        tier.wait_caught_up(crate::tier::PATIENCE).await.unwrap();
        let reader = tier.reader().from_member("standby").unwrap();
        assert_eq!(reader.count(&docs(), None).await.unwrap().value, round * 10);
        tier.upsert(&docs(), (0..10).map(|id| point(round * 10 + id, "x")).collect()).await.unwrap();
        tier.close().await.unwrap();
    }
}

#[cfg(feature = "lance")]
mod lance {
    use std::time::{Duration, Instant};

    use mainstay::{SearchQuery, ServiceLevel};
    use mainstay_cli::drill::{Load, LoadOptions, LoseMember, verify};

    use crate::tier::{DIMENSION, PATIENCE, docs, open, point};

    #[tokio::test(flavor = "multi_thread")]
    async fn searches_go_on_while_the_primary_is_gone_and_it_comes_back_equal() {
        let directory = tempfile::tempdir().unwrap();
        let tier = open(directory.path(), "").await;
        tier.upsert(&docs(), (0..200).map(|id| point(id, "base")).collect()).await.unwrap();
        tier.wait_caught_up(PATIENCE).await.unwrap();
        let load = Load::start(&tier, &docs(), DIMENSION, LoadOptions::default());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let fault = LoseMember::at(&directory.path().join("lance")).lasting(Duration::from_secs(2), PATIENCE);
        for empty in [false, true] {
            fault.round(&tier, empty).await.unwrap();
        }
        let report = load.stop().await;
        tier.wait_caught_up(PATIENCE).await.unwrap();
        let verdict = verify(&tier, &docs(), &report.expected, PATIENCE).await.unwrap();
        assert_eq!(report.failed_searches, 0, "{:?}", report.failures);
        assert!(report.searches > 0 && report.writes_acked > 0);
        assert_eq!((verdict.writes_lost, verdict.equal), (0, true), "{verdict:?}");
        assert!(report.served_by.contains_key("standby"), "{:?}", report.served_by);
        tier.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_answer_says_that_a_standby_serves_and_who_serves_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let tier = open(directory.path(), "").await;
        tier.upsert(&docs(), vec![point(1, "x")]).await.unwrap();
        tier.wait_caught_up(PATIENCE).await.unwrap();
        let (here, aside) = (directory.path().join("lance"), directory.path().join("aside"));
        std::fs::rename(&here, &aside).unwrap();
        let collection = docs();
        let search = || tier.search(&collection, SearchQuery::new(vec![1.0; DIMENSION]));
        let answer = search().await.unwrap();
        assert_eq!((answer.served_by.as_str(), answer.value.len()), ("standby", 1));
        tier.upsert(&docs(), vec![point(2, "y")]).await.unwrap();
        assert_eq!(search().await.unwrap().level, ServiceLevel::MemoryOnly);
        std::fs::rename(&aside, &here).unwrap();
        tier.wait_caught_up(PATIENCE).await.unwrap();
        assert_eq!(search().await.unwrap().served_by.as_str(), "standby", "it has only just come back");
        tier.failback("primary").unwrap();
        let until = Instant::now() + PATIENCE;
        while search().await.unwrap().served_by.as_str() != "primary" {
            assert!(Instant::now() < until, "the primary never served again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(search().await.unwrap().value.len(), 2);
        tier.close().await.unwrap();
    }
}
