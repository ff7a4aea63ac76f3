//! Snapshots in an object store: the real client, over loopback, to the S3 server of `tests/bucket`.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mainstay::config::SaveMode;
use mainstay::restore::{RestoreOptions, open_repository, restore, restore_store};
use mainstay::snapshot::verify::verify;
use mainstay::{
    CollectionName, CollectionSpec, ComponentKind, Config, Distance, ErrorKind, Fields, HealthStatus, Point,
    ScrollQuery, Tier,
};
use mainstay_core::Record;
use mainstay_core::conformance::{ModelStore, state_of};
use mainstay_test_bucket::{ACCESS_KEY, Bucket, Fault, SECRET_KEY};

use crate::snapshot_kills::{kills, leave_tidy, makers_are_killed, restorers_are_killed};
use crate::snapshot_site::Site;
use crate::tier::{PATIENCE, docs};

/// A real object store, such as `s3://bucket/tests`, with what its client needs in the environment.
const URL_VARIABLE: &str = "MAINSTAY_TEST_OBJECT_STORE_URL";
/// Most milliseconds that calls are held up on each side of their effect, so that kills fall there too.
const SLOW: u64 = 1;

/// Whether this process has the key of the stand-in, which comes from the environment alone. One that has not runs the
/// test in a process that has.
fn has_key(test: &str) -> bool {
    if std::env::var("AWS_ACCESS_KEY_ID").is_ok_and(|key| key == ACCESS_KEY) {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("snapshot_objects::{test}"), "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
            child.env_remove(name);
        }
    }
    child.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    // A proxy does not know this machine's loopback.
    let output = child.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    print!("{said}");
    false
}

async fn served(seed: u64) -> Arc<Bucket> {
    Arc::new(Bucket::serve(seed).await.unwrap())
}

fn point(id: u64) -> Point {
    Point::new(id, vec![id as f32, 1.0])
}

fn other() -> CollectionName {
    CollectionName::new("other").unwrap()
}

async fn open(config: &Config) -> Tier {
    let tier = Tier::open(config.clone()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    if tier.collection(&docs()).is_err() {
        tier.create_collection(CollectionSpec::dense(docs(), 2, Distance::Dot)).await.unwrap();
    }
    tier
}

/// Snapshots of a tier at a place that is empty, and the tier again when all else is lost.
async fn comes_back(mut config: Config) {
    // By itself the tier would make one as soon as it sees that there is none: before the first points, or after.
    config.snapshots.save = SaveMode::Manual;
    let tier = open(&config).await;
    tier.upsert(&docs(), (0..500).map(point).collect()).await.unwrap();
    tier.create_collection(CollectionSpec::dense(other(), 2, Distance::Dot)).await.unwrap();
    tier.upsert(&other(), (0..50).map(point).collect()).await.unwrap();
    let first = tier.snapshot().await.unwrap();
    let second = tier.snapshot().await.unwrap();
    assert_eq!((first.points, second.new_files, second.reused_files), (550, 0, first.new_files));
    tier.upsert(&docs(), (500..600).map(point).collect()).await.unwrap();
    let third = tier.snapshot().await.unwrap();
    assert!(third.new_files > 0 && third.reused_files > 0, "{third:?}");
    tier.upsert(&docs(), (600..700).map(point).collect()).await.unwrap();
    let digests = tier.digest("a").await.unwrap();
    tier.close().await.unwrap();
    let repository = open_repository(&config).await.unwrap();
    let listed = repository.snapshots().await.unwrap();
    assert_eq!(listed.len(), 3);
    for one in listed {
        let verified = verify(&repository, one, &|_, _| {}).await.unwrap();
        assert!(verified.is_good(), "{:?}", verified.problems);
    }
    std::fs::remove_dir_all(&config.log.path).unwrap();
    restore(&config, RestoreOptions::default()).await.unwrap();
    let tier = open(&config).await;
    assert_eq!(tier.digest("a").await.unwrap(), digests);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_comes_back_from_snapshots_in_an_object_store() {
    let directory = tempfile::tempdir().unwrap();
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        if has_key("a_tier_comes_back_from_snapshots_in_an_object_store") {
            let site = Site::bucket(directory.path(), &served(1).await);
            comes_back(site.config()).await;
            site.check_whole();
        }
        return;
    };
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let mut config = Site::directory(directory.path()).config();
    config.snapshots.dir = Some(format!("{url}/snapshots-{started}"));
    comes_back(config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_in_a_bucket_survive_sigkill_at_any_moment() {
    if !has_key("snapshots_in_a_bucket_survive_sigkill_at_any_moment") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bucket = served(13).await;
    bucket.slow_down(SLOW);
    makers_are_killed(&Site::bucket(directory.path(), &bucket), kills(12), 300, 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_a_bucket_that_is_killed_leaves_the_old_log_or_the_new_one() {
    if !has_key("a_restore_from_a_bucket_that_is_killed_leaves_the_old_log_or_the_new_one") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bucket = served(14).await;
    bucket.slow_down(SLOW);
    restorers_are_killed(&Site::bucket(directory.path(), &bucket), kills(8), 14).await;
}

async fn held(tier: &Tier) -> Vec<Record> {
    let query = ScrollQuery { limit: 10_000, fields: Fields::ALL, ..ScrollQuery::default() };
    tier.scroll(&docs(), &query).await.unwrap().value.records
}

/// While the bucket does not answer: snapshots fail, which is told, and nothing else does.
async fn serves_without(tier: &Tier, from: u64) {
    tier.upsert(&docs(), (from..from + 50).map(point).collect()).await.unwrap();
    let error = tier.snapshot().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let told = async {
        loop {
            let snapshots = tier.status().snapshots.unwrap();
            if snapshots.archive_error.is_some() && snapshots.last_error.is_some() {
                return snapshots;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(told.last_error.unwrap().contains("s3://tests/of/a/tier"));
    let health = tier.health();
    let snapshots = health.components.iter().find(|one| one.kind == ComponentKind::Snapshots).unwrap();
    assert_eq!((health.status, snapshots.status), (HealthStatus::Degraded, HealthStatus::Degraded));
    tier.upsert(&docs(), (from + 50..from + 100).map(point).collect()).await.unwrap();
    assert_eq!(held(tier).await.len() as u64, from + 100);
}

/// Once it answers: the next snapshot and the archive hold everything, without a restart.
async fn catches_up(tier: &Tier, config: &Config) {
    tier.snapshot().await.unwrap();
    let caught_up = async {
        loop {
            let (snapshots, log) = (tier.status().snapshots.unwrap(), tier.status().log);
            if snapshots.archived == Some(log.last)
                && snapshots.archive_error.is_none()
                && snapshots.last_error.is_none()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, caught_up).await.unwrap();
    let store = ModelStore::default();
    let repository = open_repository(config).await.unwrap();
    restore_store(&repository, RestoreOptions::default(), &store, &|_, _| {}).await.unwrap();
    let [(_, _, records)] = &state_of(&store).await[..] else { panic!() };
    assert!(records == &held(tier).await, "what is restored is not what the tier held");
}

/// A tier that is opened, and later used, while the bucket does not answer.
async fn is_told_and_caught_up_on(fault: Fault, seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let bucket = served(seed).await;
    let config = Site::bucket(directory.path(), &bucket).config();
    bucket.fail(fault, 1);
    let tier = open(&config).await;
    for from in [0, 100] {
        bucket.fail(fault, 1);
        serves_without(&tier, from).await;
        bucket.heal();
        catches_up(&tier, &config).await;
    }
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_every_call_is_told_and_caught_up_on() {
    if has_key("a_bucket_that_refuses_every_call_is_told_and_caught_up_on") {
        is_told_and_caught_up_on(Fault::Refuse, 15).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cuts_every_connection_is_told_and_caught_up_on() {
    if has_key("a_bucket_that_cuts_every_connection_is_told_and_caught_up_on") {
        is_told_and_caught_up_on(Fault::Cut, 16).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_go_wrong_now_and_then_leave_no_trace() {
    if !has_key("calls_that_go_wrong_now_and_then_leave_no_trace") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bucket = served(17).await;
    let site = Site::bucket(directory.path(), &bucket);
    let tier = open(&site.config()).await;
    let write = async |from| tier.upsert(&docs(), (from..from + 50).map(point).collect()).await.unwrap();
    bucket.fail(Fault::Refuse, 3);
    for round in 0..2 {
        write(round * 50).await;
        tier.snapshot().await.unwrap();
    }
    // The client repeats a call whose connection was cut, but no listing whose answer was cut.
    bucket.fail(Fault::Cut, 10);
    let mut made = 0;
    for round in 0..50 {
        write(round * 50).await;
        match tier.snapshot().await {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        if made == 2 {
            break;
        }
    }
    assert_eq!(made, 2);
    bucket.heal();
    catches_up(&tier, &site.config()).await;
    site.check_whole();
    leave_tidy(&site, tier).await;
}
