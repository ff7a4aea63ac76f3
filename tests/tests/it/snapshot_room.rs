//! Places of snapshots that are full, read only, or gone: the tier serves on, what was complete stays good, status says what
//! failed, and everything is caught up on once the place is well again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mainstay::restore::{RestoreOptions, Until, restore_store};
use mainstay::snapshot::place::PlaceOptions;
use mainstay::snapshot::verify::verify;
use mainstay::snapshot::{Repository, SnapshotId};
use mainstay::{
    CollectionName, CollectionSpec, Config, Distance, ErrorKind, Fields, Point, ScrollQuery, Tier,
};
use mainstay_core::Record;
use mainstay_core::conformance::{ModelStore, state_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::snapshot_history::files;
use crate::snapshot_site::Site;
use crate::tier::PATIENCE;

const CHILD: &str = "MAINSTAY_ROOM_CHILD";
/// Largest file while there is little room.
const SMALL: u64 = 64 << 10;
/// Numbers in a vector; a write of [`many`] takes about a megabyte, which cannot be packed much.
const DIMENSION: usize = 128;

fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

/// A tier whose only files are those of its snapshots.
async fn open(directory: &Path) -> Tier {
    let snapshots = directory.join("snapshots");
    let text = format!(
        "[tier]\nmembers = [\"a\"]\ndeadline = \"60s\"\n[members.a]\nbackend = \"memory\"\n[log]\npath = \":memory:\"\n\
         [snapshots]\ndir = {snapshots:?}\narchive_interval = \"100ms\"\n"
    );
    let tier = Tier::open(Config::from_toml(&text).unwrap()).await.unwrap();
    tier.create_collection(CollectionSpec::dense(docs(), DIMENSION, Distance::Dot)).await.unwrap();
    tier
}

fn many(seed: u64) -> Vec<Point> {
    let mut rng = StdRng::seed_from_u64(seed);
    let vector = |rng: &mut StdRng| (0..DIMENSION).map(|_| rng.random_range(-1.0..1.0_f32)).collect();
    (0..2_000).map(|id| Point::new(id, vector(&mut rng))).collect()
}

async fn held(tier: &Tier) -> Vec<Record> {
    let query = ScrollQuery { limit: 10_000, fields: Fields::ALL, ..ScrollQuery::default() };
    tier.scroll(&docs(), &query).await.unwrap().value.records
}

/// Waits until the archive is as it should be.
async fn until(tier: &Tier, wanted: impl Fn(&mainstay::SnapshotsStatus, mainstay::Lsn) -> bool) {
    let waiting = async {
        loop {
            let status = tier.status();
            if wanted(&status.snapshots.unwrap(), status.log.last) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// While the place takes nothing: a snapshot fails for this reason, and nothing else does.
async fn serves_without(tier: &Tier, seed: u64, kinds: &[ErrorKind]) {
    tier.upsert(&docs(), many(seed)).await.unwrap();
    let error = tier.snapshot().await.unwrap_err();
    assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
    until(tier, |snapshots, _| snapshots.archive_error.is_some() && snapshots.last_error.is_some()).await;
    assert_eq!(held(tier).await.len(), 2_000);
    tier.upsert(&docs(), many(seed + 1)).await.unwrap();
}

/// Once the place is well: the archive and the next snapshot are complete, without a restart.
async fn recovers(tier: &Tier, directory: &Path) {
    tier.snapshot().await.unwrap();
    until(tier, |snapshots, last| {
        snapshots.archived == Some(last)
            && snapshots.archive_error.is_none()
            && snapshots.last_error.is_none()
    })
    .await;
    let before = held(tier).await;
    let place = directory.join("snapshots");
    let litter: Vec<_> = files(&place).into_iter().filter(|f| f.to_string_lossy().contains('#')).collect();
    assert!(litter.is_empty(), "{litter:?}");
    let repository = Repository::open(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
    for listed in repository.snapshots().await.unwrap() {
        assert!(verify(&repository, listed, &|_, _| {}).await.unwrap().is_good(), "{}", listed.id);
    }
    let store = ModelStore::default();
    restore_store(&repository, RestoreOptions::default(), &store, &|_, _| {}).await.unwrap();
    let [(_, _, records)] = &state_of(&store).await[..] else { panic!() };
    assert!(records == &before, "what is restored is not what the tier held");
}

/// The process that may write only small files at first.
#[test]
fn child_that_may_write_only_small_files() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let directory = Path::new(&directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tier = open(directory).await;
        let maximum = getrlimit(Resource::Fsize).maximum;
        tier.upsert(&docs(), many(1)).await.unwrap();
        let good = tier.snapshot().await.unwrap();
        let before = held(&tier).await;
        setrlimit(Resource::Fsize, Rlimit { current: Some(SMALL), maximum }).unwrap();
        serves_without(&tier, 2, &[ErrorKind::StorageFull]).await;
        setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
        recovers(&tier, directory).await;
        tier.close().await.unwrap();
        // The one from before is what it was.
        let snapshot = Some(SnapshotId::parse(&good.id).unwrap());
        let options = RestoreOptions { snapshot, until: Until::Lsn(good.to), ..RestoreOptions::default() };
        let store = ModelStore::default();
        restore_store(&Site::directory(directory).repository().await, options, &store, &|_, _| {})
            .await
            .unwrap();
        assert!(state_of(&store).await[0].2 == before);
        println!("recovered");
    });
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk_and_passes_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    // A process is killed for writing beyond its limit, unless it was started not to be.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "snapshot_room::child_that_may_write_only_small_files", "--nocapture"])
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("recovered"), "{said}\n{errors}");
}

/// A small file system in memory, where one may be mounted.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=4M", "tmpfs"], &at);
        if !mounted {
            println!("SKIPPED: nothing may be mounted here");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    let status = Command::new("mount").args(options).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_write_and_no_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(directory.path().join("snapshots")) else { return };
    let tier = open(directory.path()).await;
    tier.upsert(&docs(), vec![Point::new(1, vec![1.0; DIMENSION])]).await.unwrap();
    tier.snapshot().await.unwrap();
    // As little room as 32 KiB.
    let filler = small.0.join("filler");
    std::fs::write(&filler, vec![1; (4 << 20) - (160 << 10)]).unwrap();
    serves_without(&tier, 2, &[ErrorKind::StorageFull]).await;
    std::fs::remove_file(&filler).unwrap();
    // There is room for a snapshot and the log, and not for putting the log together.
    recovers(&tier, directory.path()).await;
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_read_only_is_told_and_used_once_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(directory.path().join("snapshots")) else { return };
    assert!(mount(&["-o", "remount,ro"], &small.0));
    let tier = open(directory.path()).await;
    serves_without(&tier, 4, &[ErrorKind::Unavailable, ErrorKind::Unauthorized]).await;
    let told = tier.status().snapshots.unwrap().last_error.unwrap();
    assert!(told.contains("snapshots"), "{told}");
    assert!(mount(&["-o", "remount,rw"], &small.0));
    recovers(&tier, directory.path()).await;
    tier.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_vanishes_is_begun_anew_and_holds_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (place, away) = (directory.path().join("snapshots"), directory.path().join("away"));
    let tier = open(directory.path()).await;
    tier.upsert(&docs(), many(6)).await.unwrap();
    tier.snapshot().await.unwrap();
    // Something else is in its place.
    std::fs::rename(&place, &away).unwrap();
    std::fs::write(&place, "x").unwrap();
    serves_without(&tier, 7, &[ErrorKind::Unavailable]).await;
    assert!(tier.status().snapshots.unwrap().last_error.unwrap().contains("snapshots"));
    std::fs::remove_file(&place).unwrap();
    recovers(&tier, directory.path()).await;
    // The one that was moved away comes back.
    std::fs::rename(&place, directory.path().join("other")).unwrap();
    std::fs::rename(&away, &place).unwrap();
    tier.upsert(&docs(), many(8)).await.unwrap();
    recovers(&tier, directory.path()).await;
    tier.close().await.unwrap();
}
