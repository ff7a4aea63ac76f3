//! The page of metrics, scraped over loopback as Prometheus does.
#![cfg(all(feature = "memory", feature = "prometheus"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use mainstay::{
    CollectionName, CollectionSpec, Config, Distance, ErrorKind, Fields, Point, SearchQuery, Tier,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TIER: &str = "[tier]\nmembers = [\"first\", \"second\"]\n\
     [members.first]\nbackend = \"memory\"\n[members.second]\nbackend = \"memory\"\n\
     [log]\npath = \":memory:\"\n";

fn config(listen: SocketAddr) -> Config {
    Config::from_toml(&format!("{TIER}[metrics]\nlisten = \"{listen}\"\n")).unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Head and body of the answer to a request for this path.
async fn ask(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: tier\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a series on the page.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn a_scrape_shows_what_happened_up_to_that_moment() {
    let tier = Tier::open(config(loopback())).await.unwrap();
    let address = tier.metrics_address().unwrap();
    let docs = CollectionName::new("secret-docs").unwrap();
    tier.create_collection(CollectionSpec::dense(docs.clone(), 2, Distance::Dot)).await.unwrap();
    let text = "unmistakable words";
    tier.upsert(&docs, vec![Point::new(1, vec![0.6, 0.8]).with_text(text)]).await.unwrap();
    let search = || tier.search(&docs, SearchQuery::new(vec![0.6, 0.8]));
    for _ in 0..5 {
        assert_eq!(search().await.unwrap().served_by.as_str(), "first");
    }
    tier.reader().from_member("second").unwrap().get(&docs, &[1.into()], &Fields::ALL).await.unwrap();
    tier.wait_caught_up(std::time::Duration::from_secs(10)).await.unwrap();

    let (head, page) = ask(address, "GET", "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    for (series, expected) in [
        ("mainstay_health", 0.0),
        ("mainstay_service_level", 0.0),
        ("mainstay_collections", 1.0),
        (r#"mainstay_component_health{kind="log",name="log"}"#, 0.0),
        (r#"mainstay_reads_total{operation="search",served_by="first"}"#, 5.0),
        (r#"mainstay_reads_total{operation="search",served_by="second"}"#, 0.0),
        (r#"mainstay_reads_total{operation="get",served_by="second"}"#, 1.0),
        (r#"mainstay_read_seconds_count{operation="search"}"#, 5.0),
        (r#"mainstay_read_seconds_bucket{operation="search",le="+Inf"}"#, 5.0),
        (r#"mainstay_writes_total{operation="upsert",outcome="acked"}"#, 1.0),
        ("mainstay_log_entries_appended_total", 2.0),
        ("mainstay_log_last_lsn", 2.0),
        (r#"mainstay_member_cursor_lsn{member="second"}"#, 2.0),
        (r#"mainstay_member_state{member="first",state="live"}"#, 1.0),
        (r#"mainstay_member_calls_total{member="first",operation="search"}"#, 5.0),
        (r#"mainstay_breaker_state{member="first",state="closed"}"#, 1.0),
        (r#"mainstay_breaker_rejected_total{member="first"}"#, 0.0),
        (r#"mainstay_breaker_availability{member="first"}"#, 1.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} in\n{page}");
    }
    assert!(value(&page, r#"mainstay_read_seconds_sum{operation="search"}"#).unwrap() > 0.0);
    assert!(page.contains("# TYPE mainstay_reads_total counter"), "{page}");
    assert!(page.contains("# TYPE mainstay_read_seconds histogram"), "{page}");
    assert!(page.contains("# HELP mainstay_breaker_rejected_total Calls refused"), "{page}");
    assert!(!page.contains("secret") && !page.contains("unmistakable"), "{page}");

    search().await.unwrap();
    let (_, page) = ask(address, "GET", "/metrics").await;
    assert_eq!(value(&page, r#"mainstay_read_seconds_count{operation="search"}"#), Some(6.0));
    assert_eq!(value(&page, r#"mainstay_reads_total{operation="search",served_by="first"}"#), Some(6.0));
    tier.close().await.unwrap();
}

#[tokio::test]
async fn only_the_page_is_served_and_only_to_read() {
    let tier = Tier::open(config(loopback())).await.unwrap();
    let address = tier.metrics_address().unwrap();
    let (head, body) = ask(address, "HEAD", "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}\n{body}");
    let (head, _) = ask(address, "POST", "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    let (head, _) = ask(address, "GET", "/").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    tier.close().await.unwrap();
}

#[tokio::test]
async fn the_port_is_free_again_once_the_tier_is_closed_whoever_is_connected() {
    let tier = Tier::open(config(loopback())).await.unwrap();
    let address = tier.metrics_address().unwrap();
    // Nobody who is slow to ask keeps the tier from closing.
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(address, "GET", "/metrics").await;
    tier.close().await.unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0);
    let again = Tier::open(config(address)).await.unwrap();
    assert_eq!(again.metrics_address(), Some(address));
    again.close().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_and_leaves_nothing_open() {
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(address);
    config.log.path = directory.path().join("log");
    let error = Tier::open(config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("metrics.listen"), "{text}");
    config.metrics.listen = None;
    let tier = Tier::open(config).await.unwrap();
    assert_eq!(tier.metrics_address(), None);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn tiers_of_one_process_have_pages_of_their_own() {
    let [one, other] =
        [Tier::open(config(loopback())).await.unwrap(), Tier::open(config(loopback())).await.unwrap()];
    let docs = CollectionName::new("docs").unwrap();
    one.create_collection(CollectionSpec::dense(docs, 2, Distance::Dot)).await.unwrap();
    for (tier, collections) in [(&one, 1.0), (&other, 0.0)] {
        let (_, page) = ask(tier.metrics_address().unwrap(), "GET", "/metrics").await;
        assert_eq!(value(&page, "mainstay_collections"), Some(collections));
    }
    one.close().await.unwrap();
    other.close().await.unwrap();
}
