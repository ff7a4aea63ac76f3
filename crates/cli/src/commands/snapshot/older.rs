//! `snapshot export` and `snapshot import`: JSON backup files of versions 1.0 and 2.0.

use std::path::Path;

use mainstay::restore::{RestoreOptions, Until, open_repository, restore_store};
use mainstay::snapshot::older::{Backup, Collection, Limits, Outcome, export as write, validate_file};
use mainstay::{CollectionName, Config, Error, ErrorKind, Point, Result, Tier};
use mainstay_core::Context;
use serde_json::json;
use tokio::sync::mpsc;

use super::{CLOSE, find, progress, trial};
use crate::output::Output;

/// Points in one write.
const BATCH: usize = 1_000;
/// Batches that wait to be written.
const WAITING: usize = 4;

/// Writes a snapshot as it was at its end.
pub async fn export(config: &Config, id: &str, file: &Path, output: Output) -> Result<()> {
    if file.exists() {
        let text = format!("{} is there already; name another file", file.display());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let repository = open_repository(config).await?;
    let manifest = repository.manifest(find(&repository, id).await?).await?;
    let store = trial::scratch()?;
    let until = Until::Lsn(manifest.to.lsn);
    let options = RestoreOptions { snapshot: Some(manifest.id), until, ..RestoreOptions::default() };
    let bar = output.bar(0, "reading");
    restore_store(&repository, options, &*store, &progress(&bar)).await?;
    bar.finish_and_clear();
    let bar = output.bar(0, "writing");
    let exported = write(&*store, file, &progress(&bar)).await;
    bar.finish_and_clear();
    store.close(&Context::within(CLOSE)).await?;
    let exported = exported?;
    let value = json!({
        "snapshot": manifest.id.to_string(),
        "file": file.display().to_string(),
        "collections": exported.collections,
        "points": exported.points,
        "bytes": exported.bytes,
    });
    output.print(&value, || {
        format!("{} points of {} collections in {}", exported.points, exported.collections, file.display())
    });
    Ok(())
}

/// Checks a file and writes its points.
pub async fn import(config: &Config, file: &Path, merge: bool, output: Output) -> Result<()> {
    let path = file.to_owned();
    let backup = blocking(move || {
        let limits = Limits::default();
        for checked in validate_file(&path, &limits) {
            if let Outcome::Failed(what) = checked.outcome {
                let text = format!("{} is no good backup ({}): {what}", path.display(), checked.check);
                return Err(Error::new(ErrorKind::Corrupt, text));
            }
        }
        Backup::open(&path, limits)
    })
    .await?;
    backup.notes().iter().for_each(|note| output.note(note));
    for collection in backup.collections() {
        let name = &collection.spec.name;
        collection.notes.iter().for_each(|note| output.note(&format!("{name}: {note}")));
    }
    let tier = Tier::open(config.clone()).await?;
    let written = write_all(&tier, backup, merge, output).await;
    let closed = tier.close().await;
    let (collections, points) = written?;
    closed?;
    let value = json!({ "file": file.display().to_string(), "collections": collections, "points": points });
    output.print(&value, || format!("{points} points of {collections} collections from {}", file.display()));
    Ok(())
}

async fn write_all(tier: &Tier, mut backup: Backup, merge: bool, output: Output) -> Result<(usize, u64)> {
    let collections = backup.collections().to_vec();
    for collection in &collections {
        prepare(tier, collection, merge).await?;
    }
    let total = collections.iter().map(|collection| collection.points).sum();
    let bar = output.bar(total, "importing");
    let (send, mut batches) = mpsc::channel::<(CollectionName, Vec<Point>)>(WAITING);
    let reading = blocking(move || {
        backup.points(&mut |collection, points| {
            let batch = (collection.spec.name.clone(), points);
            let gone = |_| Error::new(ErrorKind::Unavailable, "nobody writes the points any more");
            send.blocking_send(batch).map_err(gone)
        })
    });
    let progress = &bar;
    // It ends with the receiver, and with that the reading: why the writing failed is what counts.
    let writing = async move {
        let mut done = 0;
        while let Some((name, mut points)) = batches.recv().await {
            while !points.is_empty() {
                let rest = points.split_off(points.len().min(BATCH));
                done += points.len() as u64;
                tier.upsert(&name, points).await?;
                progress.set_position(done);
                points = rest;
            }
        }
        Ok::<_, Error>(done)
    };
    let (read, written) = tokio::join!(reading, writing);
    bar.finish_and_clear();
    let written = written?;
    read?;
    Ok((collections.len(), written))
}

/// Creates a collection, or takes the one that is there.
async fn prepare(tier: &Tier, collection: &Collection, merge: bool) -> Result<()> {
    let name = &collection.spec.name;
    match tier.collection(name) {
        Err(_) => tier.create_collection(collection.spec.clone()).await.map(drop),
        Ok(there) if merge && there.vectors == collection.spec.vectors => Ok(()),
        Ok(_) if merge => {
            Err(Error::invalid("the collection that is there has other vectors").with_collection(name))
        }
        Ok(_) => {
            let text = "the collection is there already; --merge writes into it";
            Err(Error::new(ErrorKind::AlreadyExists, text).with_collection(name))
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "reading the file broke off").with_source(error))
    })
}
