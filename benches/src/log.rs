//! Appends to the log beside bare appends to a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::core::{CollectionRef, Lsn, Op};
use mainstay::log::{FileLog, Log, LogOptions};
use mainstay::{CollectionName, Error, ErrorKind, Point, Result};

use crate::report::{Figure, median_us};

/// Rounds; both sides run in each.
const ROUNDS: usize = 7;
/// Appends of one writer in a round.
const APPENDS: usize = 200;
/// Writers that append at once.
const WRITERS: usize = 64;
/// Appends of each of them in a round.
const APPENDS_EACH: usize = 40;
/// Bytes of the text in an entry; with its frame an entry has about 2 KB.
const TEXT_BYTES: usize = 1_900;

/// Measures and answers the figures.
pub async fn run() -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir().map_err(io)?;
    let log = Arc::new(FileLog::open(LogOptions::new(directory.path().join("log"))).await?);
    let before = log.bounds().bytes;
    log.append(vec![entry(0)?]).await?;
    let entry_bytes = usize::try_from(log.bounds().bytes - before).unwrap_or(TEXT_BYTES);
    let (mut one, mut bare, mut many, mut single) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_appends(&directory.path().join("bare"), entry_bytes)?);
        let mut times = Vec::with_capacity(APPENDS);
        for id in 0..APPENDS {
            let op = entry(id as u64)?;
            let start = Instant::now();
            log.append(vec![op]).await?;
            times.push(start.elapsed());
        }
        one.push(median_us(&times));
        let total: Duration = times.iter().sum();
        single.push(APPENDS as f64 / total.as_secs_f64());
        many.push(concurrent(&log).await?);
    }
    log.close().await?;
    Ok(vec![
        Figure::alone("log.entry_bytes", entry_bytes as f64, "bytes"),
        Figure::of_rounds("log.writer1", "us per append", &one, &bare),
        Figure::of_rounds("log.writers64", "appends per second", &many, &single),
    ])
}

fn entry(id: u64) -> Result<Op> {
    let collection = CollectionRef { name: CollectionName::new("bench")?, incarnation: Lsn(1) };
    // Text that differs, so that nothing below can share it.
    let text = format!("{id:08}").repeat(TEXT_BYTES / 8);
    Ok(Op::Upsert { collection, points: vec![Arc::new(Point::new(id, Vec::new()).with_text(text))] })
}

/// The median time of an append of as many bytes and an fdatasync.
fn bare_appends(path: &std::path::Path, bytes: usize) -> Result<f64> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
    let data = vec![7_u8; bytes];
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let start = Instant::now();
        file.write_all(&data).and_then(|()| file.sync_data()).map_err(io)?;
        times.push(start.elapsed());
    }
    Ok(median_us(&times))
}

/// Appends per second of all writers together.
async fn concurrent(log: &Arc<FileLog>) -> Result<f64> {
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for writer in 0..WRITERS {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            for id in 0..APPENDS_EACH {
                log.append(vec![entry((writer * APPENDS_EACH + id) as u64)?]).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))??;
    }
    Ok((WRITERS * APPENDS_EACH) as f64 / start.elapsed().as_secs_f64())
}

fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string())
}
