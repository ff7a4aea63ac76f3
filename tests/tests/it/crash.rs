//! SIGKILL at random moments, over and over on one directory: every acked write is there, nothing that was never
//! written is, and the members converge.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mainstay::{PointId, ScrollQuery};
use mainstay_cli::drill::{Expected, verify};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::tier::{PATIENCE, docs, open, point};

const CHILD: &str = "MAINSTAY_CRASH_CHILD";
/// A small log, so that it is cut while the child runs; a tier of memory alone never cuts its log.
const LOG: &str = if cfg!(feature = "lance") { "max_bytes = \"32MiB\"\n" } else { "" };
/// Tasks of the child that write.
const WRITERS: u64 = 3;
/// Ids of one writer.
const IDS: u64 = 60;

/// The process that is killed. It says what it is about to write, and what was acked.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tier = open(Path::new(&directory), LOG).await;
        let start = tier.log_end().0;
        for writer in 0..WRITERS {
            let tier = tier.clone();
            tokio::spawn(async move {
                for step in 0_u64.. {
                    let id = writer * IDS + (start + step * 7) % IDS;
                    if step % 4 == 3 {
                        println!("try {id} -");
                        tier.delete(&docs(), &[id.into()]).await.unwrap();
                    } else {
                        let content = format!("{start}.{writer}.{step}.{}", "x".repeat(600));
                        println!("try {id} {content}");
                        tier.upsert(&docs(), vec![point(id, &content)]).await.unwrap();
                    }
                    println!("ack {id}");
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

/// What the child said, line by line.
#[derive(Default)]
struct Witness {
    expected: Expected,
    begun: BTreeMap<PointId, Option<String>>,
    acks: u64,
}

impl Witness {
    /// Takes a line; false if it is not one of the child's, or was cut by the kill.
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        match (words.next(), words.next().and_then(|id| id.parse::<u64>().ok()), words.next()) {
            (Some("try"), Some(id), Some(content)) => {
                let content = (content != "-").then(|| content.to_owned());
                self.begun.insert(id.into(), content);
            }
            (Some("ack"), Some(id), None) => {
                if let Some(content) = self.begun.remove(&id.into()) {
                    self.expected.acked(id.into(), content);
                    self.acks += 1;
                }
            }
            _ => {}
        }
    }

    /// The child is dead: what it had begun may have happened.
    fn close(&mut self) {
        for (id, content) in std::mem::take(&mut self.begun) {
            self.expected.unknown(id, content);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acked_writes_survive_sigkill_at_any_moment_and_members_converge() {
    let rounds: u64 = std::env::var("MAINSTAY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let directory = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut witness = Witness::default();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Most rounds die early; some live long enough to flush, cut the log and compact.
        let least = Duration::from_millis(if round % 20 == 7 { 7_000 } else { 0 });
        let wanted = witness.acks + rng.random_range(0..60);
        let start = Instant::now();
        while witness.acks < wanted || start.elapsed() < least {
            let line = lines.next().expect("the child lives").unwrap();
            witness.hear(&line);
        }
        child.kill().unwrap();
        // What it said before it died may still be in the pipe; its last line may be cut.
        for line in lines.map_while(Result::ok) {
            witness.hear(&line);
        }
        child.wait().unwrap();
        witness.close();
        if round % 10 == 9 || round + 1 == rounds {
            check(directory.path(), &witness.expected, round).await;
        }
    }
    assert!(witness.acks > rounds, "the children acked only {} writes", witness.acks);
}

/// Opens the tier, waits until the members are at one, and compares them with what the children said.
async fn check(directory: &Path, expected: &Expected, round: u64) {
    let tier = open(directory, LOG).await;
    tier.wait_caught_up(PATIENCE).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
    let verdict = verify(&tier, &docs(), expected, PATIENCE).await.unwrap();
    assert_eq!(verdict.writes_lost, 0, "round {round}: {verdict:?}");
    assert!(verdict.equal, "round {round}: {verdict:?}");
    let page = tier.scroll(&docs(), &ScrollQuery { limit: 10_000, ..ScrollQuery::default() }).await.unwrap();
    let never_written = page.value.records.iter().filter(|record| {
        let PointId::Num(id) = record.point.id else { return true };
        id >= WRITERS * IDS
    });
    assert_eq!(never_written.count(), 0, "round {round}");
    tier.close().await.unwrap();
}
