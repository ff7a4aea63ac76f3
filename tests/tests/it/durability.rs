//! The order of system calls, as strace sees it: no write is acked before an fdatasync of the log that covers it,
//! and no position is put in place before the files that it speaks of are synced.

use std::path::Path;
use std::process::Command;

use crate::tier::{docs, open, point};

const CHILD: &str = "MAINSTAY_STRACE_CHILD";
const WRITES: u64 = 12;
/// The file of the log, as strace names it.
const LOG: &str = "/log/entries/00000000000000000001.log>";

/// The process that is watched: each ack is a write to standard output of its own.
#[test]
fn child_that_is_watched() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tier = open(Path::new(&directory), "").await;
        for id in 0..WRITES {
            println!("BEGIN{id}");
            tier.upsert(&docs(), vec![point(id, "watched")]).await.unwrap();
            println!("ACKED{id}");
        }
        tier.close().await.unwrap();
    });
}

fn have_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("MAINSTAY_REQUIRE_STRACE").is_none(), "strace is wanted and not installed");
        println!("SKIPPED: strace is not installed");
    }
    found
}

/// The calls of the child in order, one a line.
fn trace(directory: &Path) -> Vec<String> {
    let output = directory.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "trace=write,pwrite64,fdatasync,fsync,rename,renameat,renameat2"])
        .args(["-s", "64", "-o"])
        .arg(&output)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_that_is_watched", "--nocapture"])
        .env(CHILD, directory)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read_to_string(output).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn no_write_is_acked_before_the_log_is_synced_and_no_position_before_its_data() {
    if !have_strace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let calls = trace(directory.path());
    let find =
        |what: &str| calls.iter().position(|call| call.contains(what)).unwrap_or_else(|| panic!("no {what}"));
    for id in 0..WRITES {
        let (begun, acked) = (find(&format!("BEGIN{id}\\n")), find(&format!("ACKED{id}\\n")));
        let between = &calls[begun..acked];
        // One write is under way at a time, so every write to the log before its ack is its own.
        let written = between.iter().rposition(|call| call.contains("pwrite64(") && call.contains(LOG));
        let written = written.unwrap_or_else(|| panic!("write {id} was acked without a write to the log"));
        assert!(
            (written..between.len()).any(|at| is_synced_by(between, at, LOG)),
            "write {id} was acked before an fdatasync of the log:\n{}",
            between.join("\n")
        );
    }
    if cfg!(feature = "lance") {
        positions_follow_their_data(&calls);
    }
}

/// Whether the call at `at` begins a sync of a file that succeeds within these calls. strace shows a call that
/// another thread interrupts in two parts, each with the thread's number.
fn is_synced_by(calls: &[String], at: usize, file: &str) -> bool {
    let call = &calls[at];
    if !(call.contains("fdatasync(") || call.contains("fsync(")) || !call.contains(file) {
        return false;
    }
    if !call.contains("<unfinished ...>") {
        return call.ends_with("= 0");
    }
    let thread = call.split_whitespace().next();
    calls[at + 1..]
        .iter()
        .find(|later| later.split_whitespace().next() == thread)
        .is_some_and(|later| later.contains("resumed>") && later.ends_with("= 0"))
}

/// Every file of a table that was written before a position was put in place was synced before it, too.
fn positions_follow_their_data(calls: &[String]) {
    let placed: Vec<usize> = calls
        .iter()
        .enumerate()
        .filter(|(_, call)| call.contains("rename") && call.contains("mainstay.json"))
        .map(|(at, _)| at)
        .collect();
    assert!(!placed.is_empty(), "no position was put in place");
    let last = placed[placed.len() - 1];
    let mut files: Vec<&str> = calls[..last]
        .iter()
        .filter(|call| call.contains(" write(") || call.contains("pwrite64("))
        .filter_map(|call| call.split('<').nth(1)?.split('>').next())
        .filter(|path| path.contains(".lance/"))
        .collect();
    files.sort_unstable();
    files.dedup();
    assert!(!files.is_empty(), "no table was written");
    // The store writes under a temporary name and renames; a sync of any name of the same file counts, and what
    // clean-up removed needs none.
    let unsynced: Vec<_> = files
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .filter(|path| !(0..last).any(|at| is_synced_by(&calls[..last], at, &format!("{path}>"))))
        .collect();
    assert!(unsynced.is_empty(), "a position was put in place before these files were synced: {unsynced:?}");
}
