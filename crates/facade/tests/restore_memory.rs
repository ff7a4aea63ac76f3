//! How much memory a restore takes. By itself, because the whole process is measured.
#![cfg(all(feature = "snapshots", feature = "memory"))]

use std::time::Duration;

use mainstay::memory::{MemoryOptions, MemoryStore};
use mainstay::restore::{RestoreOptions, open_repository, restore_store};
use mainstay::{CollectionName, CollectionSpec, Config, Distance, Lsn, Point, SaveMode, Tier};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Writes that are archived, and the bytes of each.
const WRITES: u64 = 150;
const WRITE_BYTES: usize = 400_000;

/// Text that does not pack well.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + ((state >> 40) % 75) as u8)
    };
    (0..WRITE_BYTES).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_holds_a_part_of_the_archived_log_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (log, snapshots) = (directory.path().join("log"), directory.path().join("snapshots"));
    let text = format!(
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n[log]\npath = {log:?}\n\
         [snapshots]\ndir = {snapshots:?}\narchive_interval = \"100ms\"\n"
    );
    let mut config = Config::from_toml(&text).unwrap();
    config.snapshots.save = SaveMode::Manual;
    let tier = Tier::open(config.clone()).await.unwrap();
    let docs = CollectionName::new("docs").unwrap();
    tier.create_collection(CollectionSpec::dense(docs.clone(), 2, Distance::Dot)).await.unwrap();
    tier.snapshot().await.unwrap();
    for write in 0..WRITES {
        let point = Point::new(write % 4, vec![write as f32, 1.0]).with_text(noise(write));
        tier.upsert(&docs, vec![point]).await.unwrap();
    }
    let archived = async {
        while tier.status().snapshots.unwrap().archived != Some(tier.status().log.last) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), archived).await.unwrap();
    tier.close().await.unwrap();
    drop(tier);

    let all = WRITES as usize * WRITE_BYTES;
    let repository = open_repository(&config).await.unwrap();
    for dry_run in [true, false] {
        let store = MemoryStore::new(MemoryOptions::default()).unwrap();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let options = RestoreOptions { dry_run, ..RestoreOptions::default() };
        let restored = restore_store(&repository, options, &store, &|_, _| {}).await.unwrap();
        let taken = MEMORY.peak_usage().saturating_sub(before);
        assert_eq!(restored.to, Lsn(WRITES + 1));
        assert!(taken < all / 4 * 3, "dry run {dry_run}: {taken} bytes for {all} archived ones");
    }
}
