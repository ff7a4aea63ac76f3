//! SIGKILL at random moments while snapshots are made and pruned, the log is archived and put together, and while a tier
//! is restored: what was complete before is complete after, and the next process finds nothing in its way. The same with a
//! bucket is in `snapshot_objects`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mainstay::log::{FileLog, Log, LogOptions};
use mainstay::restore::{RestoreOptions, Until, restore};
use mainstay::snapshot::SnapshotId;
use mainstay::snapshot::verify::verify;
use mainstay::{Fields, Lsn, ScrollQuery, Tier};
use mainstay_core::{EntryHash, Record};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::snapshot_history::{History, IDS, KEEP, WRITERS, collection, point, spec};
use crate::snapshot_site::{LONG, Site};
use crate::tier::PATIENCE;

/// The entry up to which every second restore goes.
const MIDDLE: &str = "MAINSTAY_RESTORE_MIDDLE";
/// Longest wait after the last line that is waited for, so that kills fall between lines too.
const JITTER_US: u64 = 30_000;

/// How many times a child is killed: so many, or as `MAINSTAY_TEST_KILLS` says.
pub fn kills(default: u64) -> u64 {
    std::env::var("MAINSTAY_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Starts this test binary as a child, kills it at some moment after so many lines and one that begins as `awaited`, and
/// passes on what it said.
fn run_and_kill(
    test: &str,
    set: impl FnOnce(&mut Command),
    (lines, awaited): (u64, &str),
    jitter: Duration,
    mut hear: impl FnMut(&str),
) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    set(&mut command);
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut heard, mut came) = (0, awaited.is_empty());
    while heard < lines || !came {
        let line = said.next().expect("the child lives").unwrap();
        hear(&line);
        heard += 1;
        came |= line.starts_with(awaited);
    }
    std::thread::sleep(jitter);
    child.kill().unwrap();
    // What it said before it died may still be in the pipe; its last line may be cut.
    said.map_while(Result::ok).for_each(|line| hear(&line));
    child.wait().unwrap();
}

async fn open(site: &Site) -> Tier {
    let tier = Tier::open(site.config()).await.unwrap();
    tier.wait_caught_up(PATIENCE).await.unwrap();
    for writer in 0..WRITERS {
        if tier.collection(&collection(writer)).is_err() {
            tier.create_collection(spec(writer)).await.unwrap();
        }
    }
    tier
}

/// Everything that a collection of the tier holds.
async fn held(tier: &Tier, writer: u64) -> Vec<Record> {
    let query = ScrollQuery { limit: 10_000, fields: Fields::ALL, ..ScrollQuery::default() };
    tier.scroll(&collection(writer), &query).await.unwrap().value.records
}

/// The process that is killed: it writes, and makes one snapshot after the other. Each line ends with a dot, which one that
/// was cut does not.
#[test]
fn child_that_makes_snapshots_until_it_is_killed() {
    let Some(site) = Site::of_parent() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tier = open(&site).await;
        let start = tier.log_end().0;
        println!("ready .");
        for writer in 0..WRITERS {
            let tier = tier.clone();
            tokio::spawn(async move {
                // One that writes seldom, so that some snapshots share its files.
                let pause = Duration::from_millis(if writer == 0 { 300 } else { 15 });
                for step in 0_u64.. {
                    let id = (start + step * 7) % IDS;
                    let written = if step % 4 == 3 {
                        println!("try {writer} {id} - .");
                        tier.delete(&collection(writer), &[id.into()]).await.unwrap()
                    } else {
                        let text = format!("{start}.{writer}.{step}");
                        println!("try {writer} {id} {text} .");
                        tier.upsert(&collection(writer), vec![point(id, &text)]).await.unwrap()
                    };
                    println!("ack {writer} {} .", written.lsn);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        let watched = tier.clone();
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let archived = watched.status().snapshots.and_then(|snapshots| snapshots.archived);
                if let Some(archived) = archived.filter(|_| archived != told) {
                    println!("archived {archived} .");
                    told = Some(archived);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        loop {
            let made = tier.snapshot().await.unwrap();
            println!("snapshot {} {} .", made.id, made.to);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_survive_sigkill_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    makers_are_killed(&Site::directory(directory.path()), kills(40), 120, 11).await;
}

/// Kills processes that make and prune snapshots, one after the other, each before it has said so many lines, and looks
/// after each at what it left.
pub async fn makers_are_killed(site: &Site, rounds: u64, most: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut history = History::default();
    for round in 0..rounds {
        let lines = rng.random_range(0..most);
        let jitter = Duration::from_micros(rng.random_range(0..JITTER_US));
        let test = "snapshot_kills::child_that_makes_snapshots_until_it_is_killed";
        // However slow the machine is, two of three get to make a snapshot.
        let awaited = if round % 3 == 2 { "" } else { "snapshot " };
        let set = |child: &mut Command| site.pass_on(child);
        run_and_kill(test, set, (lines, awaited), jitter, |line| history.hear(line));
        history.close();
        site.settle().await;
        check(site, &history, round % 5 == 4).await;
        // So that files which nothing has needed for long are removed while the next one runs.
        site.grow_older(LONG / 4);
    }
    let (acks, snapshots) = (history.acks, history.snapshots.len() as u64);
    assert!(acks > rounds && snapshots > rounds / 2, "the children did little: {acks}, {snapshots}");

    let tier = open(site).await;
    let end = tier.log_end();
    for writer in 0..WRITERS {
        let wrong = history.wrong(writer, end, &held(&tier, writer).await);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    leave_tidy(site, tier).await;
    let to = history.check_restore(&site.repository().await, RestoreOptions::default()).await;
    assert_eq!(to, end, "a tier that was closed is archived to its end");
    println!("{rounds} kills, {acks} acks, {snapshots} snapshots");
}

/// Takes snapshots until the earlier ones are gone, and what only they needed: then nothing of them is left.
pub async fn leave_tidy(site: &Site, tier: Tier) {
    for _ in 0..=KEEP {
        tier.snapshot().await.unwrap();
    }
    site.grow_older(LONG);
    tier.snapshot().await.unwrap();
    tier.close().await.unwrap();
    site.check_tidy().await;
}

/// What is in the repository after a kill, for whoever writes to it next.
async fn check(site: &Site, history: &History, thorough: bool) {
    let repository = site.repository().await;
    site.check_whole();
    let listed = repository.snapshots().await.unwrap();
    for one in &listed {
        let verified = verify(&repository, *one, &|_, _| {}).await.unwrap();
        assert!(verified.is_good(), "{}: {:?}", one.id, verified.problems);
    }
    for (id, to) in &history.snapshots {
        let id = SnapshotId::parse(id).unwrap();
        if !listed.iter().any(|one| one.id == id) {
            let newer = listed.iter().filter(|one| one.id > id).count();
            assert!(newer >= KEEP, "{id} is gone, and only {newer} are newer: {listed:?}");
        } else if thorough {
            let options = RestoreOptions { snapshot: Some(id), until: Until::Lsn(*to), ..Default::default() };
            assert_eq!(history.check_restore(&repository, options).await, *to);
        }
    }
    if thorough && !listed.is_empty() {
        let to = history.check_restore(&repository, RestoreOptions::default()).await;
        assert!(to >= history.archived, "{} was archived, and {to} is what was restored", history.archived);
    }
}

/// The process that is killed while it restores, now to an entry in the middle, now to the end.
#[test]
fn child_that_restores_until_it_is_killed() {
    let Some(site) = Site::of_parent() else { return };
    let middle = Lsn(std::env::var(MIDDLE).unwrap().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = site.config();
        for turn in 0_u64.. {
            let until = if turn % 2 == 0 { Until::Lsn(middle) } else { Until::End };
            let options = RestoreOptions { until, replace: true, ..RestoreOptions::default() };
            println!("begin .");
            restore(&config, options).await.unwrap();
            println!("done .");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_the_old_log_or_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    restorers_are_killed(&Site::directory(directory.path()), kills(40), 12).await;
}

/// Kills processes that restore, one after the other, and looks after each at the log.
pub async fn restorers_are_killed(site: &Site, rounds: u64, seed: u64) {
    let directory = &site.directory;
    let tier = open(site).await;
    tier.snapshot().await.unwrap();
    let mut middle = Lsn::ZERO;
    for round in 0..600_u64 {
        let writer = round % WRITERS;
        let text = format!("{round}{}", "-".repeat(300));
        tier.upsert(&collection(writer), vec![point(round % IDS, &text)]).await.unwrap();
        if round == 300 {
            middle = tier.log_end();
        }
    }
    let before = [held(&tier, 0).await, held(&tier, 1).await, held(&tier, 2).await];
    tier.close().await.unwrap();
    let path = directory.join("log");
    let log = FileLog::open(LogOptions::new(&path)).await.unwrap();
    let end = log.bounds().last;
    let known = [
        (middle, log.position_at(middle).await.unwrap().hash),
        (end, log.position_at(end).await.unwrap().hash),
    ];
    let mut epoch = log.identity().epoch;
    log.close().await.unwrap();

    let mut rng = StdRng::seed_from_u64(seed);
    let mut replacements = 0;
    for round in 0..rounds {
        let lines = rng.random_range(0..12);
        let jitter = Duration::from_micros(rng.random_range(0..JITTER_US * 4));
        let test = "snapshot_kills::child_that_restores_until_it_is_killed";
        let set = |child: &mut Command| {
            site.pass_on(child);
            child.env(MIDDLE, middle.to_string());
        };
        run_and_kill(test, set, (lines, ""), jitter, |_| {});
        site.settle().await;
        let mut epochs = vec![whole(&path, &known).await];
        let replaced = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        for aside in replaced.filter(|path| path.to_string_lossy().contains("log.replaced-")) {
            epochs.push(whole(&aside, &known).await);
            std::fs::remove_dir_all(aside).unwrap();
            replacements += 1;
        }
        assert!(
            epochs.contains(&epoch),
            "round {round}: the log of epoch {epoch} is gone, {epochs:?} are there"
        );
        epoch = epochs[0];
    }
    assert!(replacements > 0, "no restore was done");
    let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
    restore(&site.config(), options).await.unwrap();
    assert!(!directory.join("log.restoring").exists());
    let tier = open(site).await;
    for (writer, before) in (0..).zip(before) {
        assert_eq!(held(&tier, writer).await, before);
    }
    leave_tidy(site, tier).await;
    println!("{rounds} kills, {replacements} replacements");
}

/// Checks that a log is one of those that are known, down to its first entry, and answers its epoch.
async fn whole(path: &Path, known: &[(Lsn, EntryHash)]) -> u64 {
    let log = FileLog::open(LogOptions::new(path)).await.unwrap();
    let (last, mut at) = (log.bounds().last, log.checkpoint().position.lsn);
    let hash = log.position_at(last).await.unwrap().hash;
    assert!(known.contains(&(last, hash)), "{} ends at {last}", path.display());
    while at < last {
        at = log.read(at, 1 << 20).await.unwrap().last().expect("a log has no gap").lsn;
    }
    let epoch = log.identity().epoch;
    log.close().await.unwrap();
    epoch
}
