//! When snapshots are made, under tokio's paused clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::faulty::Fault;
use mainstay_core::{Context, Durability, ErrorKind, Lsn, Operation, RestoreStep, VectorStore};
use mainstay_snapshot::Repository;
use mainstay_snapshot::place::PlaceOptions;
use tempfile::TempDir;
use tokio::time::sleep;
#[cfg(target_os = "linux")]
use tokio::time::{Instant, advance};

use crate::config::{SaveMode, SnapshotsConfig};
use crate::log::{Log, MemoryLog};
use crate::tier::exposed::Exposed;
use crate::tier::status::SnapshotsStatus;
use crate::tier::tests::{Double, MINUTE, assert_equal_members, docs, point, spec, store, tier_of};
use crate::tier::{MemberState, Tier, TierOptions};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn options(directory: &Path, save: SaveMode) -> TierOptions {
    let dir = Some(directory.join("snapshots").to_string_lossy().into_owned());
    TierOptions {
        snapshots: SnapshotsConfig { dir, save, ..SnapshotsConfig::default() },
        ..TierOptions::default()
    }
}

struct Saved {
    tier: Tier,
    primary: Double,
    directory: TempDir,
}

impl Saved {
    async fn new(save: SaveMode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
        let tier = tier_of(options(directory.path(), save), &log, &[&primary, &standby]).await;
        Self { tier, primary, directory }
    }

    fn status(&self) -> SnapshotsStatus {
        self.tier.status().snapshots.unwrap()
    }

    fn made(&self) -> u64 {
        self.status().made
    }

    async fn write(&self, id: u64) {
        self.tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
    }

    /// The entry up to which the newest snapshot holds everything by itself.
    async fn newest_holds(&self) -> Lsn {
        let place = self.directory.path().join("snapshots");
        let repository = Repository::open(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
        let newest = repository.snapshots().await.unwrap().pop().unwrap();
        repository.manifest(newest).await.unwrap().from.lsn
    }
}

#[tokio::test(start_paused = true)]
async fn an_immediate_snapshot_follows_a_write_and_none_is_made_while_nothing_is_written() {
    let saved = Saved::new(SaveMode::Immediate).await;
    sleep(HOUR).await;
    assert_eq!(saved.made(), 0);
    saved.tier.create_collection(spec()).await.unwrap();
    for id in 0..3 {
        let before = saved.made();
        saved.write(id).await;
        sleep(10 * SECOND).await;
        assert!(saved.made() > before);
        assert_eq!(saved.newest_holds().await, saved.tier.status().log.last);
        let made = saved.made();
        sleep(HOUR).await;
        assert_eq!(saved.made(), made);
    }
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn immediate_snapshots_leave_a_pause_between_them_however_much_is_written() {
    let saved = Saved::new(SaveMode::Immediate).await;
    saved.tier.create_collection(spec()).await.unwrap();
    sleep(MINUTE).await;
    let before = saved.made();
    for id in 0..300 {
        saved.write(id).await;
        sleep(SECOND / 10).await;
    }
    let made = saved.made() - before;
    assert!((15..=31).contains(&made), "{made} in 30 s");
    sleep(MINUTE).await;
    assert_eq!(saved.newest_holds().await, saved.tier.status().log.last);
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn making_immediate_snapshots_takes_at_most_half_of_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let (log, store) = (Arc::new(MemoryLog::default()), Exposed::new(Durability::Volatile));
    store.prepare_takes(10 * SECOND, None);
    let options = options(directory.path(), SaveMode::Immediate);
    let tier = Tier::assemble(options, log as Arc<dyn Log>, vec![store.member("only")]).await.unwrap();
    tier.create_collection(spec()).await.unwrap();
    let made = || tier.status().snapshots.unwrap().made;
    for id in 0..200 {
        tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        sleep(SECOND).await;
    }
    // Ten seconds each, and ten seconds between them.
    assert!((8..=10).contains(&made()), "{}", made());
    // One that is asked for counts too: the next one leaves it as long a pause.
    tier.snapshot().await.unwrap();
    let asked = made();
    tier.upsert(&docs(), vec![point(1, 0.7)]).await.unwrap();
    sleep(19 * SECOND).await;
    assert_eq!(made(), asked);
    sleep(2 * SECOND).await;
    assert_eq!(made(), asked + 1);
    tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_immediate_snapshot_waits_until_the_first_member_serves() {
    let saved = Saved::new(SaveMode::Immediate).await;
    saved.tier.create_collection(spec()).await.unwrap();
    sleep(MINUTE).await;
    let before = saved.made();
    saved.primary.set_down(true);
    sleep(MINUTE).await;
    saved.write(1).await;
    sleep(HOUR).await;
    assert_eq!(saved.made(), before);
    saved.primary.set_down(false);
    sleep(HOUR).await;
    assert_eq!(saved.made(), before + 1);
    assert_eq!(saved.newest_holds().await, saved.tier.status().log.last);
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_immediate_snapshot_that_fails_is_tried_again_now_and_then_without_another_write() {
    let saved = Saved::new(SaveMode::Immediate).await;
    saved.tier.create_collection(spec()).await.unwrap();
    sleep(MINUTE).await;
    let before = saved.made();
    let place = saved.directory.path().join("snapshots");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "a file").unwrap();
    saved.write(1).await;
    sleep(10 * MINUTE).await;
    let status = saved.status();
    assert!(status.made == before && (5..=11).contains(&status.failed), "{status:?}");
    std::fs::remove_file(&place).unwrap();
    sleep(2 * MINUTE).await;
    assert_eq!(saved.status().last_error, None);
    assert_eq!(saved.newest_holds().await, saved.tier.status().log.last);
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn manual_snapshots_are_made_on_demand_alone_and_the_archive_goes_on() {
    let saved = Saved::new(SaveMode::Manual).await;
    saved.tier.create_collection(spec()).await.unwrap();
    for made in 0..3 {
        saved.write(made).await;
        sleep(HOUR).await;
        let status = saved.status();
        assert_eq!((status.made, status.archived), (made, Some(saved.tier.status().log.last)));
        saved.tier.snapshot().await.unwrap();
    }
    assert_eq!((saved.made(), saved.status().good), (3, 3));
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manual_tier_that_is_opened_again_knows_the_snapshots_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let (log, primary) = (Arc::new(MemoryLog::default()), store(1));
    for made in 0..2 {
        let tier = tier_of(options(directory.path(), SaveMode::Manual), &log, &[&primary]).await;
        sleep(HOUR).await;
        let status = tier.status().snapshots.unwrap();
        assert_eq!((status.made, status.good, status.newest.is_some()), (0, made, made > 0));
        tier.snapshot().await.unwrap();
        drop(tier);
        sleep(MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn periodic_snapshots_are_made_every_interval_whatever_is_written() {
    let saved = Saved::new(SaveMode::Periodic).await;
    saved.tier.create_collection(spec()).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(saved.made(), 1);
    for id in 0..10 {
        saved.write(id).await;
        sleep(20 * SECOND).await;
    }
    assert_eq!(saved.made(), 1);
    for made in 2..5 {
        sleep(5 * MINUTE).await;
        assert_eq!(saved.made(), made);
    }
    saved.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_puts_itself_in_order_before_it_is_read_and_costs_no_snapshot_if_it_cannot() {
    for (takes, failure, whole) in [
        (SECOND, None, true),
        (SECOND, Some(ErrorKind::Internal), true),
        // Longer than it may: it is read as it is.
        (24 * HOUR, None, false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (log, store) = (Arc::new(MemoryLog::default()), Exposed::new(Durability::Volatile));
        store.prepare_takes(takes, failure);
        let options = options(directory.path(), SaveMode::Manual);
        let tier = Tier::assemble(options, log as Arc<dyn Log>, vec![store.member("only")]).await.unwrap();
        tier.create_collection(spec()).await.unwrap();
        tier.upsert(&docs(), (0..10).map(|id| point(id, 0.5)).collect()).await.unwrap();
        let report = tier.snapshot().await.unwrap();
        assert!(report.points == 10 && report.took < HOUR, "{report:?}");
        let calls: &[_] = if whole { &["prepare", "prepared", "scroll"] } else { &["prepare", "scroll"] };
        assert_eq!(store.calls(), calls);
        tier.close().await.unwrap();
    }
}

/// A tier with snapshots whose log was cut at entry 10, and whose second member lost everything.
struct Emptied {
    tier: Tier,
    log: Arc<MemoryLog>,
    standby: Double,
    _directory: TempDir,
}

impl Emptied {
    /// `between` is done before the member loses what it held.
    async fn new(between: impl AsyncFnOnce(&Tier)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
        let options = options(directory.path(), SaveMode::Manual);
        let tier = tier_of(options, &log, &[&primary, &standby]).await;
        tier.create_collection(spec()).await.unwrap();
        for id in 0..20 {
            tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        }
        tier.wait_caught_up(MINUTE).await.unwrap();
        between(&tier).await;
        let emptied = Self { tier, log, standby, _directory: directory };
        assert_eq!(emptied.cut(Lsn(10)).await, Lsn(10));
        let begin = RestoreStep::Begin;
        emptied.standby.store().restore(&Context::within(MINUTE), begin).await.unwrap();
        emptied
    }

    async fn cut(&self, to: Lsn) -> Lsn {
        let catalog = &self.tier.shared().catalog;
        let reached = self.log.truncate_before(to.next(), catalog.at(to)).await.unwrap();
        catalog.cut(reached);
        reached
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_keeps_no_member_from_being_loaded_from_another() {
    let emptied = Emptied::new(async |_| {}).await;
    let snapshots = emptied.tier.shared().snapshots.clone().unwrap();
    let hangs = snapshots.opening.acquire().await.unwrap();
    sleep(MINUTE).await;
    assert_equal_members(&emptied.tier, &["primary", "secondary"]).await;
    drop(hangs);
    emptied.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_being_loaded_holds_the_entries_after_it_and_no_others() {
    let between = async |tier: &Tier| {
        assert_eq!(tier.snapshot().await.unwrap().from, Lsn(21));
        tier.upsert(&docs(), vec![point(20, 0.5)]).await.unwrap();
        tier.wait_caught_up(MINUTE).await.unwrap();
    };
    let emptied = Emptied::new(between).await;
    emptied.standby.fail_next_of(Operation::Restore, 1, Fault::Delay(SECOND));
    while emptied.tier.status().members[1].state != MemberState::Bootstrapping {
        sleep(SECOND / 10).await;
    }
    sleep(SECOND / 2).await;
    assert_eq!(emptied.cut(Lsn(21)).await, Lsn(21));
    assert_eq!(emptied.cut(Lsn(22)).await, Lsn(21), "entry 22 is about to be replayed");
    assert_equal_members(&emptied.tier, &["primary", "secondary"]).await;
    assert_eq!(emptied.cut(Lsn(22)).await, Lsn(22));
    emptied.tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_being_made_holds_the_entries_after_it_and_no_others() {
    let emptied = Emptied::new(async |_| {}).await;
    let tier = &emptied.tier;
    tier.wait_caught_up(MINUTE).await.unwrap();
    sleep(MINUTE).await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    emptied.standby.fail_next_of(Operation::Scroll, 1, Fault::Delay(SECOND));
    let meanwhile = async {
        sleep(SECOND / 2).await;
        tier.upsert(&docs(), vec![point(20, 0.5)]).await.unwrap();
        (emptied.cut(Lsn(21)).await, emptied.cut(Lsn(22)).await)
    };
    let (made, cuts) = tokio::join!(tier.snapshot(), meanwhile);
    assert_eq!(cuts, (Lsn(21), Lsn(21)), "entry 22 came while the member was read");
    assert_eq!((made.unwrap().from, emptied.cut(Lsn(22)).await), (Lsn(21), Lsn(22)));
    tier.close().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_is_told_of_and_holds_up_neither_writes_nor_the_close() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshots");
    std::fs::create_dir(&place).unwrap();
    // Whoever opens a pipe waits for the other end.
    let pipe = place.join("repository.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let (log, primary) = (Arc::new(MemoryLog::default()), store(1));
    let tier = tier_of(options(directory.path(), SaveMode::Periodic), &log, &[&primary]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    // The clock stands still by itself while a thread waits.
    let pass_until = async |done: &(dyn Fn() -> bool + Sync)| {
        for _ in 0..1_000_000 {
            if done() {
                return true;
            }
            advance(SECOND).await;
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        }
        false
    };
    let told = || tier.status().snapshots.unwrap().archive_error;
    let is_told = pass_until(&|| told().is_some_and(|told| told.contains("no answer in time"))).await;
    tier.upsert(&docs(), vec![point(2, 0.5)]).await.unwrap();
    let began = Instant::now();
    let tier = tier.clone();
    let close = tokio::spawn(async move { (tier.close().await, began.elapsed()) });
    let is_closed = pass_until(&|| close.is_finished()).await;
    // Else this would end no more.
    let _other_end = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    assert!(is_told && is_closed);
    let (closed, took) = close.await.unwrap();
    closed.unwrap();
    assert!(took < TierOptions::default().close_timeout, "{took:?}");
}
