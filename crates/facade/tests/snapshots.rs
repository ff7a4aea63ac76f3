//! Snapshots of a tier, and what comes back from them.
#![cfg(all(feature = "snapshots", feature = "memory"))]
#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use mainstay::restore::{RestoreOptions, Until, restore, restore_store};
use mainstay::snapshot::place::PlaceOptions;
use mainstay::snapshot::{Repository, SnapshotId};
use mainstay::{
    CollectionName, CollectionSpec, Config, Distance, ErrorKind, Event, Fields, Lsn, Point, PointId,
    ScrollQuery, Tier,
};
use mainstay_core::Record;
use mainstay_core::conformance::{ModelStore, state_of};

const PATIENCE: Duration = Duration::from_secs(60);

fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

fn config(directory: &Path) -> Config {
    let (log, snapshots) = (directory.join("log"), directory.join("snapshots"));
    let text = format!(
        "[tier]\nmembers = [\"a\", \"b\"]\n[members.a]\nbackend = \"memory\"\n[members.b]\nbackend = \"memory\"\n\
         [log]\npath = {log:?}\n[snapshots]\ndir = {snapshots:?}\narchive_interval = \"100ms\"\n"
    );
    Config::from_toml(&text).unwrap()
}

async fn open(directory: &Path) -> Tier {
    let tier = Tier::open(config(directory)).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    tier
}

async fn create(tier: &Tier) {
    tier.create_collection(CollectionSpec::dense(docs(), 2, Distance::Dot)).await.unwrap();
}

fn point(id: u64, value: f32) -> Point {
    Point::new(id, vec![value, 1.0]).with_text(format!("text {id} {value}"))
}

/// Everything in the collection, as one member has it.
async fn held(tier: &Tier, member: &str) -> BTreeMap<PointId, Record> {
    let reader = tier.reader().from_member(member).unwrap();
    let query = ScrollQuery { limit: 10_000, fields: Fields::ALL, ..ScrollQuery::default() };
    let page = reader.scroll(&docs(), &query).await.unwrap().value;
    page.records.into_iter().map(|record| (record.point.id, record)).collect()
}

/// Waits until everything is archived.
async fn archived(tier: &Tier) {
    let archived = async {
        loop {
            let status = tier.status();
            if status.snapshots.unwrap().archived == Some(status.log.last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, archived).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_machine_loses_no_more_than_what_was_not_archived() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.upsert(&docs(), (0..100).map(|id| point(id, 1.0)).collect()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    let report = tier.snapshot().await.unwrap();
    assert_eq!((report.points, report.collections), (100, 1));
    // After the snapshot, and so only in the archive.
    tier.upsert(&docs(), (50..150).map(|id| point(id, 2.0)).collect()).await.unwrap();
    tier.delete(&docs(), &[7.into(), 60.into()]).await.unwrap();
    archived(&tier).await;
    let before = held(&tier, "a").await;
    let end = tier.status().log.last;
    drop(tier);
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();

    let restored = restore(&config(directory.path()), RestoreOptions::default()).await.unwrap();
    assert_eq!((restored.to, restored.left_out, restored.log.epoch), (end, 0, 2));
    assert!(restored.written_by.is_some_and(|time| time <= Utc::now()));
    let tier = open(directory.path()).await;
    assert_eq!(tier.status().log.last, end);
    for member in ["a", "b"] {
        assert_eq!(held(&tier, member).await, before, "{member}");
    }
    // It goes on from there: writes, snapshots, and one more loss.
    tier.upsert(&docs(), vec![point(1_000, 3.0)]).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    let report = tier.snapshot().await.unwrap();
    assert_eq!(report.points, before.len() as u64 + 1);
    let before = held(&tier, "b").await;
    tier.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    let restored = restore(&config(directory.path()), RestoreOptions::default()).await.unwrap();
    assert_eq!(restored.log.epoch, 3);
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "a").await, before);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_at_any_entry_is_the_state_at_that_entry() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.snapshot().await.unwrap();
    let mut states = Vec::new();
    for round in 0..24_u64 {
        match round % 4 {
            3 => tier.delete(&docs(), &[(round / 2).into()]).await.unwrap(),
            _ => tier
                .upsert(&docs(), (round..round + 5).map(|id| point(id % 16, round as f32)).collect())
                .await
                .unwrap(),
        };
        states.push((tier.status().log.last, held(&tier, "a").await));
        if round % 8 == 5 {
            tier.snapshot().await.unwrap();
        }
    }
    archived(&tier).await;
    tier.close().await.unwrap();
    let repository = repository_of(directory.path()).await;
    for (lsn, state) in states {
        let store = ModelStore::default();
        let options = RestoreOptions { until: Until::Lsn(lsn), ..RestoreOptions::default() };
        let restored = restore_store(&repository, options, &store, &|_, _| {}).await.unwrap();
        assert_eq!(restored.to, lsn);
        let [(_, _, records)] = &state_of(&store).await[..] else { panic!() };
        assert_eq!(records, &state.into_values().collect::<Vec<_>>(), "entry {lsn}");
    }
    let options = RestoreOptions { until: Until::Lsn(Lsn(999)), ..RestoreOptions::default() };
    let error = restore_store(&repository, options, &ModelStore::default(), &|_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("entry 999 is not archived"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_time_leaves_out_what_was_written_later() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.snapshot().await.unwrap();
    tier.upsert(&docs(), vec![point(1, 1.0)]).await.unwrap();
    archived(&tier).await;
    let before = held(&tier, "a").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let time = Utc::now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    tier.upsert(&docs(), vec![point(1, 9.0), point(2, 9.0)]).await.unwrap();
    tier.close().await.unwrap();
    let options = RestoreOptions { until: Until::Time(time), replace: true, ..RestoreOptions::default() };
    let dry = RestoreOptions { dry_run: true, ..options.clone() };
    let dry = restore(&config(directory.path()), dry).await.unwrap();
    assert_eq!((dry.left_out, dry.replaced), (1, None));
    let restored = restore(&config(directory.path()), options).await.unwrap();
    assert_eq!((restored.to, restored.left_out), (dry.to, 1));
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "b").await, before);
    tier.close().await.unwrap();
    let long_ago = Until::Time("2001-01-01T00:00:00Z".parse().unwrap());
    let options = RestoreOptions { until: long_ago, replace: true, ..RestoreOptions::default() };
    assert_eq!(restore(&config(directory.path()), options).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_there_is_replaced_only_on_request_and_kept_aside() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.upsert(&docs(), vec![point(1, 1.0)]).await.unwrap();
    tier.snapshot().await.unwrap();
    let error = restore(&config(directory.path()), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let replace = RestoreOptions { replace: true, ..RestoreOptions::default() };
    let only = RestoreOptions { collections: Some([docs()].into()), ..replace.clone() };
    let error = restore(&config(directory.path()), only).await.unwrap_err();
    assert!(error.to_string().contains("a tier is restored whole"), "{error}");
    let error = restore(&config(directory.path()), replace.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "the tier is open: {error}");
    tier.upsert(&docs(), vec![point(2, 1.0)]).await.unwrap();
    tier.close().await.unwrap();
    let restored = restore(&config(directory.path()), replace).await.unwrap();
    let aside = restored.replaced.unwrap();
    assert!(
        aside.join("checkpoint").exists() && aside.to_string_lossy().contains("log.replaced-"),
        "{aside:?}"
    );
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "a").await.len(), 2);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_costs_nothing_because_an_older_one_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    let mut ids = Vec::new();
    for round in 0..2 {
        tier.upsert(&docs(), (0..50).map(|id| point(round * 50 + id, 1.0)).collect()).await.unwrap();
        ids.push(SnapshotId::parse(&tier.snapshot().await.unwrap().id).unwrap());
    }
    let before = held(&tier, "a").await;
    tier.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    let place = directory.path().join("snapshots");
    let repository = repository_of(directory.path()).await;
    let mut manifests = Vec::new();
    for id in &ids {
        manifests.push(repository.manifest(repository.find(*id).await.unwrap()).await.unwrap());
    }
    let older: Vec<_> = manifests[0].files().map(|file| file.hash).collect();
    let only_newer = manifests[1].files().find(|file| !older.contains(&file.hash)).unwrap();
    let name = only_newer.hash.to_string();
    let file = place.join("buckets").join(&name[..2]).join(format!("{name}.arrows"));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let restored = restore(&config(directory.path()), RestoreOptions::default()).await.unwrap();
    let used = repository.manifest(repository.find(restored.snapshot).await.unwrap()).await.unwrap();
    assert!(used.files().all(|file| file.hash != only_newer.hash));
    assert!(restored.passed_over[0].1.contains(&name), "{:?}", restored.passed_over);
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "a").await, before);
    tier.close().await.unwrap();
}

/// A tier with three snapshots, restored to before the last two of them.
async fn restored_to_before_two_snapshots(directory: &Path) -> Tier {
    let tier = Tier::open(manual(directory)).await.unwrap();
    create(&tier).await;
    tier.upsert(&docs(), vec![point(1, 1.0)]).await.unwrap();
    tier.snapshot().await.unwrap();
    tier.upsert(&docs(), vec![point(2, 1.0)]).await.unwrap();
    let wanted = tier.status().log.last;
    let before = held(&tier, "a").await;
    for id in 3..=4 {
        tier.delete(&docs(), &[1.into(), 2.into()]).await.unwrap();
        tier.upsert(&docs(), vec![point(id, 1.0)]).await.unwrap();
        tier.snapshot().await.unwrap();
    }
    archived(&tier).await;
    tier.close().await.unwrap();
    let options = RestoreOptions { until: Until::Lsn(wanted), replace: true, ..RestoreOptions::default() };
    let restored = restore(&manual(directory), options).await.unwrap();
    assert_eq!((restored.to, restored.log.epoch), (wanted, 2));
    let tier = Tier::open(manual(directory)).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    assert_eq!(held(&tier, "a").await, before);
    tier
}

async fn repository_of(directory: &Path) -> Repository {
    let place = directory.join("snapshots");
    Repository::open(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap()
}

/// No snapshot is made that is not asked for.
fn manual(directory: &Path) -> Config {
    let mut config = config(directory);
    config.snapshots.save = mainstay::config::SaveMode::Manual;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_what_a_restore_undid_count_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tier = restored_to_before_two_snapshots(directory.path()).await;
    // The log goes past where they were.
    for id in 10..40 {
        tier.upsert(&docs(), vec![point(id, 1.0)]).await.unwrap();
    }
    let looked = async {
        while tier.status().snapshots.unwrap().good == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap();
    archived(&tier).await;
    assert_eq!(tier.status().snapshots.unwrap().good, 1, "the one from before what was wanted");
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_a_restore_is_restored_before_there_is_a_new_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let tier = restored_to_before_two_snapshots(directory.path()).await;
    tier.upsert(&docs(), vec![point(50, 7.0)]).await.unwrap();
    archived(&tier).await;
    let before = held(&tier, "a").await;
    let end = tier.status().log.last;
    tier.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    let restored = restore(&manual(directory.path()), RestoreOptions::default()).await.unwrap();
    assert_eq!((restored.to, restored.log.epoch), (end, 3));
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "b").await, before);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_opens_the_log_that_a_restore_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let tier = Tier::open(manual(directory.path())).await.unwrap();
    create(&tier).await;
    for id in 1..=3 {
        tier.upsert(&docs(), vec![point(id, 1.0)]).await.unwrap();
        tier.wait_caught_up(PATIENCE).await.unwrap();
        tier.snapshot().await.unwrap();
    }
    tier.close().await.unwrap();
    // Whoever reads the two newest snapshots waits for somebody who writes to a file of each.
    let repository = repository_of(directory.path()).await;
    let mut pipes = Vec::new();
    for listed in repository.snapshots().await.unwrap().into_iter().skip(1) {
        let manifest = repository.manifest(listed).await.unwrap();
        let bucket = mainstay::snapshot::layout::bucket(manifest.files().next().unwrap().hash);
        let pipe = directory.path().join("snapshots").join(bucket.as_ref());
        std::fs::remove_file(&pipe).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        pipes.push(pipe);
    }
    let config = config(directory.path());
    let replace = || RestoreOptions { replace: true, ..RestoreOptions::default() };
    let restoring = tokio::spawn({
        let (config, options) = (config.clone(), replace());
        async move { restore(&config, options).await }
    });
    let mut unread = pipes.clone();
    let mut write_next = || {
        let pipe = unread.pop().unwrap();
        let open = move || std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
        tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(open))
    };
    // It has begun, and comes to the next.
    drop(write_next().await.unwrap().unwrap());
    let refused = Tier::open(config.clone()).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(restore(&config, replace()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    drop(write_next().await.unwrap().unwrap());
    let restored = restoring.await.unwrap().unwrap();
    assert!(restored.replaced.is_some() && restored.passed_over.len() == 2, "{restored:?}");
    pipes.iter().for_each(|pipe| std::fs::remove_file(pipe).unwrap());
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "a").await.len(), 3);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_restored_up_to_the_damage_only_if_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.snapshot().await.unwrap();
    for id in 1..=3 {
        tier.upsert(&docs(), vec![point(id, 1.0)]).await.unwrap();
        archived(&tier).await;
    }
    tier.close().await.unwrap();
    let place = directory.path().join("snapshots");
    let repository = repository_of(directory.path()).await;
    let log = repository.logs().await.unwrap().remove(0);
    let segments = repository.segments(log).await.unwrap();
    let second = segments.iter().find(|segment| segment.first == Lsn(3)).unwrap();
    let path = place.join(mainstay::snapshot::layout::segment(log, *second).as_ref());
    let whole = std::fs::read(&path).unwrap();
    let replace = |until| RestoreOptions { until, replace: true, ..RestoreOptions::default() };
    for damage in [Some(whole[..whole.len() - 1].to_vec()), None] {
        match damage {
            Some(damaged) => std::fs::write(&path, damaged).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        for until in [Until::End, Until::Lsn(Lsn(4)), Until::Time(Utc::now())] {
            let error = restore(&config(directory.path()), replace(until)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{until:?}: {error}");
            assert!(error.to_string().contains("--until-lsn 2"), "{error}");
        }
        let dry = RestoreOptions { dry_run: true, ..replace(Until::Lsn(Lsn(2))) };
        assert_eq!(restore(&config(directory.path()), dry).await.unwrap().to, Lsn(2));
    }
    let restored = restore(&config(directory.path()), replace(Until::Lsn(Lsn(2)))).await.unwrap();
    assert_eq!(restored.to, Lsn(2));
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "a").await.len(), 1);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_to_is_told_and_the_tier_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    // A file where the directory should be.
    std::fs::write(directory.path().join("snapshots"), "x").unwrap();
    let tier = open(directory.path()).await;
    let mut events = tier.events();
    create(&tier).await;
    tier.upsert(&docs(), vec![point(1, 1.0)]).await.unwrap();
    let error = tier.snapshot().await.unwrap_err();
    assert!(error.to_string().contains("snapshots"), "{error}");
    let failed = async {
        loop {
            if let Event::SnapshotFailed { reason } = events.next().await.unwrap() {
                return reason;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, failed).await.unwrap().contains("snapshots"));
    let status = tier.status().snapshots.unwrap();
    assert!(status.last_error.is_some() && status.newest.is_none(), "{status:?}");
    assert_eq!(held(&tier, "a").await.len(), 1);
    // Once the place is there, snapshots are made without a restart.
    std::fs::remove_file(directory.path().join("snapshots")).unwrap();
    tier.snapshot().await.unwrap();
    archived(&tier).await;
    assert!(tier.status().snapshots.unwrap().last_error.is_none());
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_snapshot_of_what_did_not_change_writes_no_points() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.upsert(&docs(), (0..500).map(|id| point(id, 1.0)).collect()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    let first = tier.snapshot().await.unwrap();
    let second = tier.snapshot().await.unwrap();
    assert_eq!((second.new_files, second.reused_files), (0, first.new_files + first.reused_files));
    let (a, b) = tokio::join!(tier.snapshot(), tier.snapshot());
    assert_ne!(a.unwrap().id, b.unwrap().id, "one after the other");
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_while_a_snapshot_is_made_are_in_what_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.upsert(&docs(), (0..2_000).map(|id| point(id, 1.0)).collect()).await.unwrap();
    let writing = async {
        for round in 0..50_u64 {
            tier.upsert(&docs(), vec![point(round * 37, 5.0), point(9_000 + round, 5.0)]).await.unwrap();
            tier.delete(&docs(), &[(round * 31 + 1).into()]).await.unwrap();
        }
    };
    let (report, ()) = tokio::join!(tier.snapshot(), writing);
    report.unwrap();
    archived(&tier).await;
    let before = held(&tier, "a").await;
    tier.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    restore(&config(directory.path()), RestoreOptions::default()).await.unwrap();
    let tier = open(directory.path()).await;
    assert_eq!(held(&tier, "b").await, before);
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_health_and_metrics_tell_of_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    create(&tier).await;
    tier.upsert(&docs(), (0..10).map(|id| point(id, 1.0)).collect()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    let report = tier.snapshot().await.unwrap();
    archived(&tier).await;
    let status = tier.status();
    let value = status.to_json();
    assert_eq!(value["snapshots"]["points"], 10);
    assert_eq!(value["snapshots"]["newest"], report.id.as_str());
    let component = status.health.components.iter().find(|c| c.name == "snapshots").unwrap();
    assert!(component.message.contains(&report.id), "{component:?}");
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || tier.publish_metrics());
    let published = recorder.snapshotter().snapshot().into_vec();
    let names: Vec<_> = published.iter().map(|(key, ..)| key.key().name()).collect();
    for name in [
        "mainstay_snapshots_total",
        "mainstay_snapshot_age_seconds",
        "mainstay_snapshot_lsn",
        "mainstay_snapshot_points",
        "mainstay_snapshot_bytes",
        "mainstay_archive_lag_entries",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    tier.close().await.unwrap();
}
