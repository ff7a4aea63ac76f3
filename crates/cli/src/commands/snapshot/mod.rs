//! `snapshot`: making, looking at and restoring snapshots.

mod older;
#[cfg(feature = "memory")]
mod trial;
#[cfg(not(feature = "memory"))]
#[path = "no_trial.rs"]
mod trial;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::ProgressBar;
use mainstay::control::{Control, Order};
use mainstay::restore::{RestoreOptions, Restored, Until, open_repository, restore, restore_store};
use mainstay::snapshot::diff::{SnapshotDiff, between, since};
use mainstay::snapshot::prune::{PruneOptions, Pruned, prune};
use mainstay::snapshot::repository::Listed;
use mainstay::snapshot::verify::{Verified, verify};
use mainstay::snapshot::{Manifest, Repository, SnapshotId};
use mainstay::{CollectionName, Config, Error, Lsn, Result, Tier};
use mainstay_cli::place::Place;
use mainstay_core::Context;
use serde_json::{Value, json};

use crate::args::snapshot::{RestoreArgs, SnapshotCommand, unique};
use crate::output::{Output, short, table};

/// Closing a store includes making it durable.
const CLOSE: Duration = Duration::from_secs(600);
/// Members have so long to catch up before a tier that was opened for it is read.
const CATCH_UP: Duration = Duration::from_secs(600);

/// Does what was asked for.
pub async fn run(command: SnapshotCommand, path: &Path, output: Output) -> Result<ExitCode> {
    let config = Config::load(path)?;
    match command {
        SnapshotCommand::Create => create(&config, output).await?,
        SnapshotCommand::List => list(&config, output).await?,
        SnapshotCommand::Show { id } => show(&config, &id, output).await?,
        SnapshotCommand::Verify { ids, all, deep } => {
            return check(&config, &ids, all, deep, output).await;
        }
        SnapshotCommand::Restore(args) => bring_back(&config, args, output).await?,
        SnapshotCommand::Diff { a, b, store } => {
            return diff(&config, &a, b.as_deref(), store.as_deref(), output).await;
        }
        SnapshotCommand::Prune { dry_run } => clean(&config, dry_run, output).await?,
        SnapshotCommand::Export { file, snapshot } => {
            older::export(&config, &snapshot, &file, output).await?
        }
        SnapshotCommand::Import { file, merge } => older::import(&config, &file, merge, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(config: &Config, output: Output) -> Result<()> {
    let report = match Control::connect(config).await? {
        Some(mut control) => control.order(&Order::Snapshot {}).await?,
        None => {
            let tier = Tier::open(config.clone()).await?;
            if let Err(error) = tier.wait_caught_up(CATCH_UP).await {
                output.note(&error.to_string());
            }
            let made = tier.snapshot().await;
            let closed = tier.close().await;
            let report = made?;
            closed?;
            report.to_json()
        }
    };
    output.print(&report, || {
        format!(
            "{}: {} points of {} collections at entry {} from {}, {}; {} in {} new files, {} files shared",
            text(&report["id"]),
            report["points"],
            report["collections"],
            report["from"],
            text(&report["source"]),
            bytes(report["bytes"].as_u64().unwrap_or_default()),
            bytes(report["new_bytes"].as_u64().unwrap_or_default()),
            report["new_files"],
            report["reused_files"],
        )
    });
    Ok(())
}

async fn list(config: &Config, output: Output) -> Result<()> {
    let repository = open_repository(config).await?;
    let mut found = Vec::new();
    for listed in repository.snapshots().await?.into_iter().rev() {
        found.push((listed.id, repository.manifest(listed).await));
    }
    let value: Vec<_> = found
        .iter()
        .map(|(id, manifest)| match manifest {
            Ok(manifest) => summary(manifest),
            Err(error) => json!({ "id": id.to_string(), "damaged": error.to_string() }),
        })
        .collect();
    output.print(&json!({ "place": repository.place(), "snapshots": value }), || {
        let rows = found.iter().map(|(id, manifest)| match manifest {
            Ok(manifest) => [
                id.to_string(),
                age(*id),
                manifest.source.member.clone(),
                manifest.collections.len().to_string(),
                manifest.points().to_string(),
                bytes(manifest.bytes()),
                format!("{} to {}", manifest.from.lsn, manifest.to.lsn),
                manifest.from.log.epoch.to_string(),
            ],
            Err(error) => {
                let mut row = std::array::from_fn(|_| "-".to_owned());
                (row[0], row[1], row[2]) = (id.to_string(), age(*id), short(&error.to_string(), 60));
                row
            }
        });
        let header = ["snapshot", "age", "source", "collections", "points", "size", "entries", "epoch"];
        format!("{}\n{}", table(header, rows), repository.place())
    });
    Ok(())
}

async fn show(config: &Config, id: &str, output: Output) -> Result<()> {
    let repository = open_repository(config).await?;
    let manifest = repository.manifest(find(&repository, id).await?).await?;
    let mut value = summary(&manifest);
    value["collections"] = manifest
        .collections
        .values()
        .map(|collection| {
            json!({
                "name": collection.spec.name.as_str(),
                "incarnation": collection.incarnation.0,
                "points": collection.points(),
                "buckets": collection.buckets.len(),
                "hash": collection.hash().to_string(),
            })
        })
        .collect();
    output.print(&value, || {
        let rows = manifest.collections.values().map(|collection| {
            let files = collection.buckets.iter().flat_map(|bucket| &bucket.files);
            [
                collection.spec.name.to_string(),
                collection.points().to_string(),
                collection.buckets.len().to_string(),
                bytes(files.map(|file| file.bytes).sum()),
                collection.hash().to_string()[..16].to_owned(),
            ]
        });
        let table = table(["collection", "points", "buckets", "size", "hash"], rows);
        format!(
            "{}: made of {} ({}) by {}, entries {} to {} of log {} epoch {}\n{table}",
            manifest.id,
            manifest.source.member,
            manifest.source.backend,
            manifest.tool,
            manifest.from.lsn,
            manifest.to.lsn,
            manifest.from.log.id,
            manifest.from.log.epoch,
        )
    });
    Ok(())
}

async fn check(config: &Config, ids: &[String], all: bool, deep: bool, output: Output) -> Result<ExitCode> {
    let repository = open_repository(config).await?;
    let mut wanted = Vec::new();
    match (all, ids) {
        (true, _) => wanted = repository.snapshots().await?,
        (false, []) => wanted.push(find(&repository, "latest").await?),
        (false, ids) => {
            for id in unique(ids) {
                wanted.push(find(&repository, id).await?);
            }
        }
    }
    let mut found = Vec::new();
    for listed in wanted {
        let bar = output.bar(0, "verifying");
        let mut verified = verify(&repository, listed, &progress(&bar)).await?;
        bar.finish_and_clear();
        if deep && verified.is_good() {
            let manifest = repository.manifest(listed).await?;
            verified.problems.extend(trial::load(&repository, &manifest).await?);
        }
        found.push((listed.id, verified));
    }
    let good = found.iter().all(|(_, verified)| verified.is_good());
    let one = |(id, verified): &(SnapshotId, Verified)| {
        let problems: Vec<_> = verified.problems.iter().map(ToString::to_string).collect();
        json!({
            "id": id.to_string(),
            "good": verified.is_good(),
            "files": verified.files,
            "bytes": verified.bytes,
            "points": verified.points,
            "problems": problems,
        })
    };
    output.print(&json!({ "good": good, "snapshots": found.iter().map(one).collect::<Vec<_>>() }), || {
        let line = |(id, verified): &(SnapshotId, Verified)| match verified.problems.as_slice() {
            [] => format!("{id}: good, {} points in {} files", verified.points, verified.files),
            problems => {
                let texts: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
                format!("{id}: damaged{}", texts.concat())
            }
        };
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::from(if good { 0 } else { 5 }))
}

async fn bring_back(config: &Config, args: RestoreArgs, output: Output) -> Result<()> {
    let until = match (args.until_lsn, &args.until_time) {
        (Some(lsn), _) => Until::Lsn(Lsn(lsn)),
        (None, Some(time)) => Until::Time(time.parse().map_err(|error| {
            Error::invalid(format!("{time:?} is no time ({error}); write for example 2026-01-31T12:00:00Z"))
        })?),
        (None, None) => Until::End,
    };
    let snapshot = match args.id.as_deref() {
        None | Some("latest") => None,
        Some(id) => Some(SnapshotId::parse(id)?),
    };
    let collections = match args.collections.as_slice() {
        [] => None,
        names => Some(names.iter().map(|name| CollectionName::new(name)).collect::<Result<_>>()?),
    };
    let options =
        RestoreOptions { snapshot, until, collections, replace: args.replace, dry_run: args.dry_run };
    let restored = match &args.into {
        None => restore(config, options).await?,
        Some(place) => {
            let repository = open_repository(config).await?;
            let store = Place::parse(place, Some(config))?.open().await?;
            let bar = output.bar(0, "restoring");
            let done = restore_store(&repository, options, &*store, &progress(&bar)).await;
            bar.finish_and_clear();
            let closed = store.close(&Context::within(CLOSE)).await;
            let restored = done?;
            closed?;
            restored
        }
    };
    output.print(&restored_json(&restored, &args), || restored_text(&restored, &args));
    Ok(())
}

fn restored_json(restored: &Restored, args: &RestoreArgs) -> Value {
    let passed: Vec<_> =
        restored.passed_over.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why })).collect();
    json!({
        "snapshot": restored.snapshot.to_string(),
        "passed_over": passed,
        "log": restored.log.id.to_string(),
        "epoch": restored.log.epoch,
        "from": restored.from.0,
        "to": restored.to.0,
        "written_by": restored.written_by.map(|time| time.to_rfc3339()),
        "left_out": restored.left_out,
        "collections": restored.collections,
        "points": restored.points,
        "replaced": restored.replaced.as_ref().map(|path| path.display().to_string()),
        "dry_run": args.dry_run,
        "only": (!args.collections.is_empty()).then_some(&args.collections),
    })
}

fn restored_text(restored: &Restored, args: &RestoreArgs) -> String {
    let mut lines: Vec<_> =
        restored.passed_over.iter().map(|(id, why)| format!("passed over {id}: {why}")).collect();
    let verb = if args.dry_run { "would restore" } else { "restored" };
    let entries = match restored.to > restored.from {
        true => format!(" and entries {} to {} of the archived log", restored.from.next(), restored.to),
        false => format!(" at entry {}", restored.to),
    };
    lines.push(format!(
        "{verb} snapshot {} ({} points of {} collections){entries}",
        restored.snapshot, restored.points, restored.collections
    ));
    if !args.collections.is_empty() {
        let verb = if args.dry_run { "would hold" } else { "holds" };
        let names = args.collections.join(", ");
        lines.push(format!(
            "the store {verb} only {names}, and no tier takes it for a member that has caught up"
        ));
    }
    if let Some(time) = restored.written_by {
        lines.push(format!(
            "everything archived by {} is in it; what was written later is not",
            time.to_rfc3339()
        ));
    }
    if restored.left_out > 0 {
        lines.push(format!("{} archived entries after it are left out, as was asked for", restored.left_out));
    }
    if let Some(old) = &restored.replaced {
        lines.push(format!("the log from before is in {}", old.display()));
    }
    if !args.dry_run && args.into.is_none() {
        lines.push("the members are loaded when the tier is opened next".to_owned());
    }
    lines.join("\n")
}

async fn diff(
    config: &Config,
    a: &str,
    b: Option<&str>,
    store: Option<&str>,
    output: Output,
) -> Result<ExitCode> {
    let repository = open_repository(config).await?;
    let first = repository.manifest(find(&repository, a).await?).await?;
    let found = match (b, store) {
        (Some(b), _) => {
            let second = repository.manifest(find(&repository, b).await?).await?;
            between(&repository, &first, &second).await?
        }
        (None, store) => {
            let store = Place::parse(store.unwrap_or_default(), Some(config))?.open().await?;
            let found = since(&repository, &first, &*store).await;
            if let Err(error) = store.close(&Context::within(CLOSE)).await {
                tracing::warn!(%error, "close failed");
            }
            found?
        }
    };
    output.print(&diff_json(&found), || diff_text(&found));
    Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }))
}

fn diff_json(found: &SnapshotDiff) -> Value {
    let names = |names: &std::collections::BTreeSet<CollectionName>| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ids = |ids: &[mainstay::PointId]| {
        ids.iter().map(|id| mainstay_core::json::id_to_json(*id)).collect::<Vec<_>>()
    };
    let points = found.points.iter().map(|(name, points)| {
        json!({
            "collection": name.as_str(),
            "added": ids(&points.added),
            "removed": ids(&points.removed),
            "changed": ids(&points.changed),
        })
    });
    json!({
        "equal": found.is_empty(),
        "added": names(&found.added),
        "removed": names(&found.removed),
        "points": points.collect::<Vec<_>>(),
    })
}

fn diff_text(found: &SnapshotDiff) -> String {
    if found.is_empty() {
        return "equal".to_owned();
    }
    let mut lines: Vec<_> = found.removed.iter().map(|name| format!("collection {name} is gone")).collect();
    lines.extend(found.added.iter().map(|name| format!("collection {name} is new")));
    lines.extend(found.points.iter().map(|(name, points)| {
        let (added, removed, changed) = (points.added.len(), points.removed.len(), points.changed.len());
        format!("{name}: {added} points added, {removed} removed, {changed} changed")
    }));
    lines.join("\n")
}

async fn clean(config: &Config, dry_run: bool, output: Output) -> Result<()> {
    let options = PruneOptions { dry_run, ..mainstay::restore::prune_options(config) };
    let repository = mainstay::restore::open_repository_for_writing(config).await?;
    let pruned = prune(&repository, &options).await?;
    let names = |ids: &[SnapshotId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = json!({
        "snapshots": names(&pruned.snapshots),
        "in_use": names(&pruned.in_use),
        "files": pruned.files,
        "bytes": pruned.bytes,
        "segments": pruned.segments,
        "dry_run": dry_run,
    });
    output.print(&value, || pruned_text(&pruned, dry_run));
    Ok(())
}

fn pruned_text(pruned: &Pruned, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut text = format!(
        "{verb} {} snapshots, {} files ({}) and {} segments of the log",
        pruned.snapshots.len(),
        pruned.files,
        bytes(pruned.bytes),
        pruned.segments
    );
    if !pruned.in_use.is_empty() {
        text.push_str(&format!("; {} are being restored and stay", pruned.in_use.len()));
    }
    text
}

/// The snapshot of an id, or the newest.
async fn find(repository: &Repository, id: &str) -> Result<Listed> {
    if id != "latest" {
        return repository.find(SnapshotId::parse(id)?).await;
    }
    let newest = repository.snapshots().await?.pop();
    let text = format!(
        "there is no snapshot at {} yet; make one with `mainstay snapshot create`",
        repository.place()
    );
    newest.ok_or_else(|| Error::new(mainstay::ErrorKind::NotFound, text))
}

fn summary(manifest: &Manifest) -> Value {
    json!({
        "id": manifest.id.to_string(),
        "source": { "member": manifest.source.member, "backend": manifest.source.backend },
        "tool": manifest.tool,
        "ended": manifest.ended.to_rfc3339(),
        "log": manifest.from.log.id.to_string(),
        "epoch": manifest.from.log.epoch,
        "from": manifest.from.lsn.0,
        "to": manifest.to.lsn.0,
        "collections": manifest.collections.len(),
        "points": manifest.points(),
        "bytes": manifest.bytes(),
        "hash": manifest.hash().to_string(),
    })
}

fn progress(bar: &ProgressBar) -> impl Fn(u64, u64) + Sync + '_ {
    |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    }
}

fn age(id: SnapshotId) -> String {
    let age = id.age();
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
