//! A tier whose primary is a server, and everything that may happen to it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::{Config, Effect, Tier};
use mainstay_cli::drill::{
    Expected, Fault, Load, LoadOptions, LoadReport, LoseServer, at_random, verify_late,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::tier::{DIMENSION, PATIENCE, docs, docs_spec, point};

/// Faults of the longer drill.
const ROUNDS: usize = 5;
/// With it each fault comes once.
const SEED: u64 = 24;

fn config(directory: &Path, address: &str) -> Config {
    let secondary = if cfg!(feature = "lance") {
        format!("[members.secondary]\nbackend = \"lance\"\nuri = \"{}\"\n", directory.join("lance").display())
    } else {
        "[members.secondary]\nbackend = \"memory\"\n".to_owned()
    };
    Config::from_toml(&format!(
        "[tier]\nmembers = [\"primary\", \"secondary\", \"standby\"]\n\
         [members.primary]\nbackend = \"qdrant\"\nurl = \"http://{address}\"\ntimeout = \"500ms\"\n\
         {secondary}\
         [members.standby]\nbackend = \"memory\"\n\
         [log]\npath = \"{}\"\n[failover]\ncheck_interval = \"500ms\"\n",
        directory.join("log").display()
    ))
    .unwrap()
}

/// An address that nothing listens at.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Starts a server under a drill, and a tier over it that holds a few points.
async fn start(directory: &Path) -> (LoseServer, Tier) {
    let (address, storage) = (free_address(), directory.join("qdrant"));
    std::fs::create_dir(&storage).unwrap();
    let command = vec![
        env!("CARGO_BIN_EXE_qdrant-stand-in").to_owned(),
        storage.to_str().unwrap().to_owned(),
        address.clone(),
    ];
    let (drill, config) =
        LoseServer::start(&config(directory, &address), "primary", command, &storage).await.unwrap();
    let tier = Tier::open(config).await.unwrap();
    tier.create_collection(docs_spec()).await.unwrap();
    tier.upsert(&docs(), (0..200).map(|id| point(id, "base")).collect()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    (drill, tier)
}

/// Ends the load, and checks that it kept every promise.
async fn assert_promises(tier: &Tier, load: Load) -> LoadReport {
    let report = load.stop().await;
    tier.wait_caught_up(PATIENCE).await.unwrap();
    let verdict = verify_late(tier, &docs(), &report.expected, PATIENCE).await.unwrap();
    assert_eq!(report.failed_searches, 0, "{:?}", report.failures);
    assert!(report.searches > 0 && report.writes_acked > 0);
    assert_eq!((verdict.writes_lost, verdict.equal), (0, true), "{verdict:?}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_server_fails_a_search_or_loses_an_acked_write() {
    let directory = tempfile::tempdir().unwrap();
    let (drill, tier) = start(directory.path()).await;
    let mut drill = drill.lasting(Duration::from_secs(2), PATIENCE);
    let load = Load::start(&tier, &docs(), DIMENSION, LoadOptions::default());
    for fault in Fault::ALL {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drill.round(&tier, fault).await.unwrap_or_else(|error| panic!("{}: {error}", fault.as_str()));
    }
    let report = assert_promises(&tier, load).await;
    assert!(report.served_by.contains_key("primary"), "{:?}", report.served_by);
    assert!(report.served_by.contains_key("secondary"), "{:?}", report.served_by);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_tasks_and_faults_at_random_leave_every_promise_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (drill, tier) = start(directory.path()).await;
    let mut drill = drill.lasting(Duration::from_millis(500), PATIENCE);
    let load = LoadOptions { searchers: 35, writers: 15, pause: Duration::from_millis(20) };
    let load = Load::start(&tier, &docs(), DIMENSION, load);
    // So many rounds, however long a machine takes for one.
    let faults: Vec<_> = at_random(Fault::ALL.to_vec(), SEED).take(ROUNDS).collect();
    assert!(Fault::ALL.iter().all(|fault| faults.contains(fault)), "{faults:?}");
    for fault in faults {
        drill.round(&tier, fault).await.unwrap_or_else(|error| panic!("{}: {error}", fault.as_str()));
    }
    assert_promises(&tier, load).await;
    tier.close().await.unwrap();
}

/// Upserts that are large enough to be written side by side, some of which put the same points, until told to stop.
/// Answers how many were acked.
async fn import(tier: &Tier, writer: u64, stop: &AtomicBool) -> u64 {
    let mut rng = SmallRng::seed_from_u64(writer);
    let mut acked = 0;
    while !stop.load(Ordering::Relaxed) {
        let first = rng.random_range(0..8) * 75;
        let content = format!("{writer} {acked} {}", "x".repeat(2_000));
        let points = (first..first + 150).map(|id| point(id, &content)).collect();
        match tier.upsert(&docs(), points).await {
            Ok(_) => acked += 1,
            // Its entry is in the log, and is applied later.
            Err(error) => assert_eq!(error.effect(), Effect::Unknown, "{error}"),
        }
        // The members are debug builds on a busy machine, and are to catch up while this goes on.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    acked
}

#[tokio::test(flavor = "multi_thread")]
async fn large_upserts_side_by_side_lose_nothing_to_any_fault() {
    let directory = tempfile::tempdir().unwrap();
    let (drill, tier) = start(directory.path()).await;
    let mut drill = drill.lasting(Duration::from_millis(500), PATIENCE);
    let stop = AtomicBool::new(false);
    let faults = async {
        for fault in Fault::ALL {
            tokio::time::sleep(Duration::from_millis(500)).await;
            drill.round(&tier, fault).await.unwrap_or_else(|error| panic!("{}: {error}", fault.as_str()));
        }
        stop.store(true, Ordering::Relaxed);
    };
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|writer| import(&tier, writer, &stop));
    let ((), a, b, c, d) = tokio::join!(faults, first, second, third, fourth);
    assert!([a, b, c, d].iter().all(|acked| *acked > 0), "{a} {b} {c} {d}");
    tier.wait_caught_up(PATIENCE).await.unwrap();
    // The standby takes one run after the other: what it holds is what the log says.
    let verdict = verify_late(&tier, &docs(), &Expected::default(), PATIENCE).await.unwrap();
    assert!(verdict.equal, "{verdict:?}");
    tier.close().await.unwrap();
}
