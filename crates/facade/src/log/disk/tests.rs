//! What only a log on disk can break: restarts, kills, damage, failed syncs, a second process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use mainstay_core::{Effect, Entry, ErrorKind, Lsn};
use rand::{Rng, SeedableRng};

use super::frame::{Frames, head};
use super::watermark::Watermark;
use super::{Barrier, FileLog, Log, LogOptions, MAX_WAITING, Segments, SyncPolicy};
use crate::catalog::Collections;
use crate::log::codec;
use crate::log::suite::upsert;

async fn open(path: &Path) -> FileLog {
    FileLog::open(LogOptions::new(path)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_opens_as_it_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    let identity = log.identity();
    log.append((0..50).map(|id| upsert(id, 200_000)).collect()).await.unwrap();
    log.truncate_before(Lsn(11), Collections::new()).await.unwrap();
    let (bounds, end) = (log.bounds(), log.position_at(Lsn(50)).await.unwrap());
    log.close().await.unwrap();
    drop(log);
    let log = open(directory.path()).await;
    assert_eq!((log.identity(), log.bounds()), (identity, bounds));
    assert_eq!(log.position_at(Lsn(50)).await.unwrap(), end);
    let mut at = Lsn(10);
    while at < Lsn(50) {
        at = log.read(at, 1 << 20).await.unwrap().last().unwrap().lsn;
    }
    assert_eq!(log.append(vec![upsert(1, 1)]).await.unwrap().first, Lsn(51));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_is_told_who_holds_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let _log = open(directory.path()).await;
    let error = FileLog::open(LogOptions::new(directory.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_that_was_acked_is_named_and_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    log.append((0..20).map(|id| upsert(id, 10)).collect()).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let path = first_file(directory.path());
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut frames = Frames::new(Arc::new(file.try_clone().unwrap()), 0, file.metadata().unwrap().len());
    (0..15).for_each(|_| assert!(frames.next_frame().unwrap().is_some()));
    file.set_len(frames.at()).unwrap();
    let error = FileLog::open(LogOptions::new(directory.path())).await.err().unwrap();
    assert_eq!((error.kind(), error.lsn()), (ErrorKind::Corrupt, Some(Lsn(16))));
}

/// What a crash in the middle of a write leaves behind the last entry.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_cut_short_is_taken_away_whole() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    log.append((0..20).map(|id| upsert(id, 300)).collect()).await.unwrap();
    let end = log.position_at(Lsn(20)).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let path = first_file(directory.path());
    let whole = std::fs::read(&path).unwrap();
    let (next, hash) = codec::encode(Lsn(21), end.hash, &upsert(21, 300)).unwrap();
    let (after, _) = codec::encode(Lsn(22), hash, &upsert(22, 300)).unwrap();
    let one = |entry: &[u8], more| [head(entry.len(), more).as_slice(), entry].concat();
    let both = [one(&next, true), one(&after, false)].concat();
    for cut in [1, 3, 4, 100, next.len() + 4, next.len() + 9, both.len() - 1] {
        std::fs::write(&path, [&whole[..], &both[..cut]].concat()).unwrap();
        let log = open(directory.path()).await;
        assert_eq!(log.bounds().last, Lsn(20), "cut at {cut}");
        log.close().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
    let spoiled = [&both[..30], &[both[30] ^ 1], &both[31..]].concat();
    for behind in [vec![0; 5_000], spoiled, one(&after, false)] {
        std::fs::write(&path, [&whole[..], &behind].concat()).unwrap();
        let log = open(directory.path()).await;
        assert_eq!(log.bounds().last, Lsn(20));
        log.close().await.unwrap();
    }
    // Written as a whole, and nobody knows whether somebody was told.
    std::fs::write(&path, [&whole[..], &both].concat()).unwrap();
    let log = open(directory.path()).await;
    assert_eq!(log.bounds().last, Lsn(22));
    assert_eq!(log.append(vec![upsert(1, 1)]).await.unwrap().first, Lsn(23));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_go_on_in_another_file_and_a_file_that_was_cut_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(directory.path().join("entries")).unwrap().count();
    let log = open(directory.path()).await;
    for id in 0..60 {
        log.append(vec![upsert(id, 900_000)]).await.unwrap();
    }
    assert_eq!(files(), 4);
    let all = read_all(&log, Lsn::ZERO).await;
    assert_eq!(all.len(), 60);
    let held = log.bounds().bytes;
    log.truncate_before(Lsn(31), Collections::new()).await.unwrap();
    assert_eq!(files(), 3, "entries 31 to 38 are in the second one");
    let left: u64 = all[30..].iter().map(|entry| entry.size_bytes as u64).sum();
    assert_eq!((log.bounds().bytes, left < held), (left, true));
    log.close().await.unwrap();
    drop(log);
    let log = open(directory.path()).await;
    assert_eq!(log.bounds().bytes, left);
    assert_eq!(read_all(&log, Lsn(30)).await, all[30..]);
    log.close().await.unwrap();
    drop(log);
    // A file in the middle that is lost.
    let mut paths: Vec<_> = std::fs::read_dir(directory.path().join("entries"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    std::fs::remove_file(&paths[1]).unwrap();
    let error = FileLog::open(LogOptions::new(directory.path())).await.err().unwrap();
    let first: u64 = paths[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!((error.kind(), error.lsn()), (ErrorKind::Corrupt, Some(Lsn(first))), "{error}");
}

/// Of a file whose first entries were cut, one of those is damaged: what follows cannot be found any more.
#[tokio::test(flavor = "multi_thread")]
async fn damage_before_the_first_entry_loses_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    log.append((0..20).map(|id| upsert(id, 300)).collect()).await.unwrap();
    log.truncate_before(Lsn(11), Collections::new()).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let path = first_file(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..4].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = FileLog::open(LogOptions::new(directory.path())).await.err().unwrap();
    assert_eq!((error.kind(), error.lsn()), (ErrorKind::Corrupt, Some(Lsn(11))), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // Nothing says that anything after the cut was durable: the log goes on without it, and the file is still there.
    std::fs::remove_file(directory.path().join("watermark")).unwrap();
    let log = open(directory.path()).await;
    assert_eq!(log.append(vec![upsert(1, 1)]).await.unwrap().first, Lsn(11));
    assert_eq!(std::fs::read(path.with_extension("aside")).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_early_version_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("sled")).unwrap();
    let error = FileLog::open(LogOptions::new(directory.path())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("snapshot restore --replace"), "{error}");
}

/// Every entry after one.
async fn read_all(log: &FileLog, mut after: Lsn) -> Vec<Arc<Entry>> {
    let mut all = Vec::new();
    while after < log.bounds().last {
        all.extend(log.read(after, 1 << 20).await.unwrap());
        after = all.last().unwrap().lsn;
    }
    all
}

/// The file of entries that was made first.
fn first_file(directory: &Path) -> std::path::PathBuf {
    directory.join("entries/00000000000000000001.log")
}

/// Flips bytes of the files at random: a start either finds everything as it was, or says that something is
/// damaged. It never answers other entries or fewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_noticed_or_harmless() {
    let original = tempfile::tempdir().unwrap();
    let log = open(original.path()).await;
    for id in 0..200 {
        log.append(vec![upsert(id, 300)]).await.unwrap();
    }
    let entries = log.read(Lsn::ZERO, 1 << 30).await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let mut noticed = 0;
    for case in 0..200 {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(original.path(), copy.path());
        let file = match case % 8 {
            0 => copy.path().join("checkpoint"),
            _ => first_file(copy.path()),
        };
        let mut bytes = std::fs::read(&file).unwrap();
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(&file, bytes).unwrap();
        match FileLog::open(LogOptions::new(copy.path())).await {
            Err(error) => {
                noticed += 1;
                assert_eq!(error.kind(), ErrorKind::Corrupt, "case {case}, byte {at}: {error}");
            }
            Ok(log) => {
                assert_eq!(log.bounds().last, Lsn(200), "case {case}, byte {at}");
                let mut read = Vec::new();
                while read.len() < 200 {
                    read.extend(log.read(Lsn(read.len() as u64), 1 << 20).await.unwrap());
                }
                assert_eq!(read, entries, "case {case}, byte {at}");
                log.close().await.unwrap();
            }
        }
    }
    assert!(noticed > 0, "no flip met anything that matters");
}

fn copy_directory(from: &Path, to: &Path) {
    for file in from.read_dir().unwrap().map(Result::unwrap) {
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_directory(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), to).unwrap();
        }
    }
}

static FAIL: AtomicBool = AtomicBool::new(false);

fn failing_barrier(_: &Segments) -> Barrier {
    Box::new(|| {
        if FAIL.load(Ordering::SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_final_until_a_restart_and_loses_nothing_acked() {
    let directory = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(LogOptions::new(directory.path()), failing_barrier).await.unwrap();
    log.append(vec![upsert(1, 10)]).await.unwrap();
    assert!(log.failure().is_none());
    FAIL.store(true, Ordering::SeqCst);
    let failed = log.append(vec![upsert(2, 10)]).await.unwrap_err();
    assert_eq!(
        (failed.kind(), failed.effect(), failed.lsn()),
        (ErrorKind::StorageFull, Effect::Unknown, Some(Lsn(2)))
    );
    FAIL.store(false, Ordering::SeqCst);
    let refused = log.append(vec![upsert(3, 10)]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::StorageFull, Effect::None));
    assert_eq!(log.failure().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(log.read(Lsn::ZERO, 1 << 20).await.unwrap().len(), 1, "reads go on");
    assert!(log.close().await.is_err());
    drop(log);
    let log = open(directory.path()).await;
    assert!(log.bounds().last >= Lsn(1));
    log.append(vec![upsert(4, 10)]).await.unwrap();
}

/// Where the commit thread is held at its disk, once.
struct Gate {
    shut: AtomicBool,
    arrived: std::sync::Barrier,
    leave: std::sync::Barrier,
}

impl Gate {
    const fn new() -> Self {
        Self {
            shut: AtomicBool::new(false),
            arrived: std::sync::Barrier::new(2),
            leave: std::sync::Barrier::new(2),
        }
    }

    fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    fn barrier(&'static self) -> Barrier {
        Box::new(|| {
            if self.shut.swap(false, Ordering::SeqCst) {
                self.arrived.wait();
                self.leave.wait();
            }
            Ok(())
        })
    }

    /// Waits until the thread is there.
    async fn arrived(&'static self) {
        tokio::task::spawn_blocking(|| self.arrived.wait()).await.unwrap();
    }

    /// Lets it go on.
    async fn open(&'static self) {
        tokio::task::spawn_blocking(|| self.leave.wait()).await.unwrap();
    }
}

static CUT: Gate = Gate::new();

fn gated_barrier(_: &Segments) -> Barrier {
    CUT.barrier()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_taken_in_the_middle_of_a_cut_keeps_every_entry_that_it_speaks_of() {
    let directory = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(LogOptions::new(directory.path()), gated_barrier).await.unwrap();
    let log = std::sync::Arc::new(log);
    log.append((0..10).map(|id| upsert(id, 10)).collect()).await.unwrap();
    CUT.shut();
    let cutting = tokio::spawn({
        let log = std::sync::Arc::clone(&log);
        async move { log.truncate_before(Lsn(6), Collections::new()).await }
    });
    CUT.arrived().await;
    assert_eq!(log.checkpoint().position.lsn, Lsn::ZERO, "the cut is not done yet");
    let (early, late) = (log.hold(Lsn::ZERO), log.hold(Lsn(7)));
    assert_eq!((early.after(), late.after()), (Lsn(5), Lsn(7)));
    CUT.open().await;
    assert_eq!(cutting.await.unwrap().unwrap(), Lsn(5));
    assert_eq!(log.read(early.after(), 1 << 20).await.unwrap().len(), 5);
    assert_eq!(log.truncate_before(Lsn(7), Collections::new()).await.unwrap(), Lsn(5), "entry 6 is held");
    drop(early);
    assert_eq!(log.truncate_before(Lsn(8), Collections::new()).await.unwrap(), Lsn(7));
    assert_eq!(log.truncate_before(Lsn(9), Collections::new()).await.unwrap(), Lsn(7), "entry 8 is held");
}

/// Appends that wait for a commit thread that is held at its disk, as many as may wait.
async fn fill<'a>(
    log: &'a FileLog,
    gate: &'static Gate,
) -> Vec<BoxFuture<'a, mainstay_core::Result<crate::log::Appended>>> {
    gate.shut();
    let mut appends = Vec::new();
    for id in 0..=MAX_WAITING as u64 {
        let mut append = log.append(vec![upsert(id, 1)]);
        assert!(futures::poll!(append.as_mut()).is_pending());
        appends.push(append);
        if id == 0 {
            gate.arrived().await;
        }
    }
    assert_eq!(log.append(vec![upsert(1, 1)]).await.unwrap_err().kind(), ErrorKind::Overloaded);
    appends
}

static BUSY: Gate = Gate::new();

#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_room_in_a_full_queue_and_keeps_what_was_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::new(directory.path());
    let log = FileLog::open_with(options.clone(), |_| BUSY.barrier()).await.unwrap();
    let appends = fill(&log, &BUSY).await;
    let mut closing = log.close();
    assert!(futures::poll!(closing.as_mut()).is_pending());
    BUSY.open().await;
    tokio::time::timeout(Duration::from_secs(60), closing).await.expect("it ends").unwrap();
    for append in appends {
        append.await.unwrap();
    }
    drop(log);
    assert_eq!(FileLog::open(options).await.unwrap().bounds().last, Lsn(MAX_WAITING as u64 + 1));
}

static STUCK: Gate = Gate::new();

#[tokio::test(start_paused = true)]
async fn a_close_that_finds_no_room_in_time_says_so_and_can_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::new(directory.path());
    let log = FileLog::open_with(options, |_| STUCK.barrier()).await.unwrap();
    let appends = fill(&log, &STUCK).await;
    let refused = log.close().await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Timeout, Effect::None), "{refused}");
    STUCK.open().await;
    for append in appends {
        append.await.unwrap();
    }
    log.append(vec![upsert(1, 1)]).await.unwrap();
    log.close().await.unwrap();
}

static HUNG: Gate = Gate::new();

#[tokio::test(start_paused = true)]
async fn a_sync_and_a_cut_that_the_disk_does_not_answer_say_so_in_time_and_happen_when_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { sync: SyncPolicy::Manual, ..LogOptions::new(directory.path()) };
    let log = FileLog::open_with(options, |_| HUNG.barrier()).await.unwrap();
    log.append((0..10).map(|id| upsert(id, 10)).collect()).await.unwrap();
    HUNG.shut();
    let late = log.sync().await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::Timeout, Effect::Unknown), "{late}");
    let late = log.truncate_before(Lsn(6), Collections::new()).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::Timeout, Effect::Unknown), "{late}");
    assert_eq!(log.checkpoint().position.lsn, Lsn::ZERO);
    HUNG.arrived().await;
    HUNG.open().await;
    // From here on a thread is waited for, and not time.
    tokio::time::resume();
    log.sync().await.unwrap();
    assert_eq!(log.checkpoint().position.lsn, Lsn(5), "the cut came before the last sync");
}

static CUT_OFF: Gate = Gate::new();

#[tokio::test(flavor = "multi_thread")]
async fn a_close_whose_caller_stopped_waiting_frees_the_directory_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { sync: SyncPolicy::Manual, ..LogOptions::new(directory.path()) };
    let log = FileLog::open_with(options.clone(), |_| CUT_OFF.barrier()).await.unwrap();
    log.append(vec![upsert(1, 1)]).await.unwrap();
    CUT_OFF.shut();
    let mut closing = log.close();
    assert!(futures::poll!(closing.as_mut()).is_pending());
    CUT_OFF.arrived().await;
    drop(closing);
    CUT_OFF.open().await;
    // It may be told that the log is closed already.
    drop(log.close().await);
    assert_eq!(FileLog::open(options).await.unwrap().bounds().last, Lsn(1));
}

static FAIL_CUT: AtomicBool = AtomicBool::new(false);

fn barrier_that_fails_a_cut(_: &Segments) -> Barrier {
    let fails = || FAIL_CUT.load(Ordering::SeqCst);
    Box::new(move || if fails() { Err(std::io::Error::other("the device failed")) } else { Ok(()) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_writes_again_what_a_cut_wrote_whose_sync_failed() {
    let directory = tempfile::tempdir().unwrap();
    let options = || LogOptions::new(directory.path());
    let in_doubt = || Watermark::open(directory.path()).unwrap().1.in_doubt;
    let log = FileLog::open_with(options(), barrier_that_fails_a_cut).await.unwrap();
    log.append((0..10).map(|id| upsert(id, 10)).collect()).await.unwrap();
    log.truncate_before(Lsn(3), Collections::new()).await.unwrap();
    assert!(!in_doubt(), "the sync went well");
    FAIL_CUT.store(true, Ordering::SeqCst);
    log.truncate_before(Lsn(6), Collections::new()).await.unwrap_err();
    assert!(in_doubt());
    log.close().await.unwrap_err();
    drop(log);
    // A start that cannot sync it either is refused, and the next one knows of it.
    let refused = FileLog::open_with(options(), barrier_that_fails_a_cut).await.err().unwrap();
    assert!(refused.to_string().contains("could not be synced"), "{refused}");
    assert!(in_doubt());
    FAIL_CUT.store(false, Ordering::SeqCst);
    let log = FileLog::open_with(options(), barrier_that_fails_a_cut).await.unwrap();
    assert!(!in_doubt());
    assert_eq!(log.append(vec![upsert(1, 10)]).await.unwrap().first, Lsn(11));
}

static FAIL_TAIL: AtomicBool = AtomicBool::new(false);

fn barrier_that_fails_the_tail(_: &Segments) -> Barrier {
    let fails = || FAIL_TAIL.load(Ordering::SeqCst);
    Box::new(move || if fails() { Err(std::io::Error::other("the device failed")) } else { Ok(()) })
}

/// A sync fails and its pages are lost, although the operating system goes on to show them. The process starts again, reads
/// them, and the power goes before they are written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_during_a_start_takes_no_acked_entry_with_what_was_lost_before() {
    for (acked, size) in [(10_u64, 100), (40, 3_000), (60, 80_000), (90, 100_000)] {
        let directory = tempfile::tempdir().unwrap();
        let options = || LogOptions::new(directory.path());
        let file = first_file(directory.path());
        let log = FileLog::open_with(options(), barrier_that_fails_the_tail).await.unwrap();
        for id in 0..acked {
            log.append(vec![upsert(id, size)]).await.unwrap();
        }
        let durable = std::fs::read(&file).unwrap();
        FAIL_TAIL.store(true, Ordering::SeqCst);
        log.append((0..5).map(|id| upsert(id, size)).collect()).await.unwrap_err();
        log.close().await.unwrap_err();
        drop(log);
        let shown = std::fs::read(&file).unwrap();
        // It gets as far as to the sync.
        FileLog::open_with(options(), barrier_that_fails_the_tail).await.err().unwrap();
        FAIL_TAIL.store(false, Ordering::SeqCst);
        let mut left = std::fs::read(&file).unwrap();
        for (at, byte) in left.iter_mut().enumerate() {
            let was = durable.get(at).copied().unwrap_or(0);
            if shown.get(at).is_some_and(|shown| *shown != was) {
                *byte = was;
            }
        }
        std::fs::write(&file, left).unwrap();
        let log = FileLog::open(options()).await.unwrap();
        assert!(log.bounds().last >= Lsn(acked), "{acked}");
        let mut at = Lsn::ZERO;
        while at < Lsn(acked) {
            at = log.read(at, 1 << 20).await.unwrap().last().unwrap().lsn;
        }
        log.append(vec![upsert(1, 10)]).await.unwrap();
    }
}

fn panicking_barrier(_: &Segments) -> Barrier {
    Box::new(|| panic!("the test wants the commit thread to end here"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_thread_died_after_the_write_does_not_claim_that_nothing_happened() {
    let directory = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(LogOptions::new(directory.path()), panicking_barrier).await.unwrap();
    let lost = log.append(vec![upsert(1, 10)]).await.unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    let refused = log.append(vec![upsert(2, 10)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn periodic_and_manual_logs_keep_everything_over_a_close() {
    for sync in [SyncPolicy::Periodic(std::time::Duration::from_millis(5)), SyncPolicy::Manual] {
        let directory = tempfile::tempdir().unwrap();
        let options = LogOptions { sync, ..LogOptions::new(directory.path()) };
        let log = FileLog::open(options.clone()).await.unwrap();
        for id in 0..10 {
            log.append(vec![upsert(id, 10)]).await.unwrap();
        }
        log.sync().await.unwrap();
        log.close().await.unwrap();
        drop(log);
        assert_eq!(FileLog::open(options).await.unwrap().bounds().last, Lsn(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_space_does_not_grow_with_writes_that_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).await;
    let mut sizes = Vec::new();
    for _ in 0..12 {
        for _ in 0..20 {
            log.append((0..5).map(|id| upsert(id, 20_000)).collect()).await.unwrap();
        }
        let end = log.bounds().last;
        log.truncate_before(end, Collections::new()).await.unwrap();
        let files = std::fs::read_dir(directory.path().join("entries")).unwrap();
        sizes.push(files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>());
    }
    // 24 MB were written in all.
    assert!(sizes.iter().all(|size| *size < 20 << 20) && sizes[11] < sizes[6], "{sizes:?}");
}

const CHILD: &str = "MAINSTAY_LOG_TEST_CHILD";

/// The process that is killed: appends and cuts, and prints every acked LSN.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = std::sync::Arc::new(open(Path::new(&directory)).await);
        for writer in 0..4_u64 {
            let log = std::sync::Arc::clone(&log);
            tokio::spawn(async move {
                loop {
                    let appended =
                        log.append(vec![upsert(writer, 500), upsert(writer + 1, 3_000)]).await.unwrap();
                    println!("acked {}", appended.last);
                    if appended.last.0 % 97 == 0 {
                        log.truncate_before(Lsn(appended.last.0 - 40), Collections::new()).await.unwrap();
                    }
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acked_entry_survives_sigkill_at_any_moment() {
    let kills: u64 = std::env::var("MAINSTAY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(15);
    let directory = tempfile::tempdir().unwrap();
    let mut rng = rand::rngs::StdRng::seed_from_u64(11);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::disk::tests::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = rng.random_range(1..120);
        let mut acked = Lsn::ZERO;
        let mut count = 0;
        let note = |line: &str, acked: &mut Lsn| {
            if let Some(lsn) = line.strip_prefix("acked ") {
                *acked = (*acked).max(Lsn(lsn.parse().unwrap()));
                return true;
            }
            false
        };
        for line in lines.by_ref() {
            count += u64::from(note(&line.unwrap(), &mut acked));
            if count >= wanted {
                break;
            }
        }
        child.kill().unwrap();
        // What was acked before the kill may still be in the pipe.
        lines.map_while(Result::ok).filter(|line| !line.is_empty()).for_each(|line| {
            let whole = line.strip_prefix("acked ").is_some_and(|n| n.parse::<u64>().is_ok());
            if whole {
                note(&line, &mut acked);
            }
        });
        child.wait().unwrap();
        assert!(acked > Lsn::ZERO, "kill {kill}: the child acked nothing");
        let log = open(directory.path()).await;
        let bounds = log.bounds();
        assert!(
            bounds.last >= acked,
            "kill {kill}: entry {acked} was acked, the log ends at {}",
            bounds.last
        );
        log.close().await.unwrap();
    }
}
