//! `diff` and `copy`: stores themselves, without the tier above them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mainstay::{Config, Error, ErrorKind, PointId, Result, VectorStore};
use mainstay_cli::copy::copy as copy_store;
use mainstay_cli::diff::{StoreDiff, diff as diff_stores};
use mainstay_cli::place::Place;
use mainstay_core::Context;
use serde_json::{Value, json};

use crate::output::Output;

/// Ids of one kind that are shown; JSON has all of them.
const SHOWN: usize = 20;
/// Closing a store includes making it durable.
const CLOSE: Duration = Duration::from_secs(600);

/// The config, if there is one; places can do without.
fn config(path: &Path) -> Result<Option<Config>> {
    if path.exists() { Ok(Some(Config::load(path)?)) } else { Ok(None) }
}

/// Says which points two stores hold differently; exit code 3 if there are any.
pub async fn diff(path: &Path, a: &str, b: &str, deep: bool, output: Output) -> Result<ExitCode> {
    let config = config(path)?;
    let (a, b) = (Place::parse(a, config.as_ref())?, Place::parse(b, config.as_ref())?);
    let (left, right) = open_both(&a, &b).await?;
    let found = diff_stores(&*left, &*right, deep).await;
    close(&*left).await;
    close(&*right).await;
    let found = found?;
    output.print(&json(&found), || text(&found, &a.name, &b.name));
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// Copies a store into another one and compares them.
pub async fn copy(path: &Path, from: &str, into: &str, replace: bool, output: Output) -> Result<ExitCode> {
    let config = config(path)?;
    let (from, into) = (Place::parse(from, config.as_ref())?, Place::parse(into, config.as_ref())?);
    let (source, target) = open_both(&from, &into).await?;
    let bar = output.bar(0, "copying");
    let progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let copied = copy_store(&*source, &*target, replace, &progress).await;
    bar.finish_and_clear();
    let closed = target.close(&Context::within(CLOSE)).await;
    close(&*source).await;
    let copied = copied?;
    closed?;
    let rate = copied.points as f64 / copied.took.as_secs_f64().max(1e-9);
    let value = json!({
        "collections": copied.collections,
        "points": copied.points,
        "resumed": copied.resumed,
        "seconds": copied.took.as_secs_f64(),
        "points_per_second": rate,
        "equal": copied.diff.is_empty(),
        "diff": json(&copied.diff),
    });
    output.print(&value, || {
        let (collections, points) = (copied.collections, copied.points);
        let before = match copied.resumed {
            0 => String::new(),
            before => format!(" (an earlier run copied {before})"),
        };
        let seconds = copied.took.as_secs_f64();
        let head = format!(
            "copied {points} points of {collections} collections in {seconds:.1} s ({rate:.0}/s){before}"
        );
        format!("{head}\n{}", text(&copied.diff, &from.name, &into.name))
    });
    Ok(if copied.diff.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

async fn open_both(
    a: &Place,
    b: &Place,
) -> Result<(std::sync::Arc<dyn VectorStore>, std::sync::Arc<dyn VectorStore>)> {
    if a.backend == b.backend {
        return Err(Error::new(ErrorKind::Invalid, format!("`{}` and `{}` are one store", a.name, b.name)));
    }
    let left = a.open().await?;
    match b.open().await {
        Ok(right) => Ok((left, right)),
        Err(error) => {
            close(&*left).await;
            Err(error)
        }
    }
}

/// Closes a store that was only read.
async fn close(store: &dyn VectorStore) {
    if let Err(error) = store.close(&Context::within(CLOSE)).await {
        tracing::warn!(%error, "close failed");
    }
}

fn ids(ids: &[PointId]) -> Vec<Value> {
    ids.iter()
        .map(|id| match id {
            PointId::Num(id) => json!(id),
            PointId::Uuid(id) => json!(id.to_string()),
        })
        .collect()
}

fn json(found: &StoreDiff) -> Value {
    let points = found.points.iter().map(|(name, points)| {
        json!({
            "collection": name.as_str(),
            "only_in_a": ids(&points.only_in_a),
            "only_in_b": ids(&points.only_in_b),
            "changed": ids(&points.changed),
        })
    });
    let incarnations = found
        .other_incarnation
        .iter()
        .map(|(name, a, b)| json!({ "collection": name.as_str(), "a": a.0, "b": b.0 }));
    let names = |names: &[mainstay::CollectionName]| {
        names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    json!({
        "equal": found.is_empty(),
        "points_a": found.counts.0,
        "points_b": found.counts.1,
        "collections_only_in_a": names(&found.only_in_a),
        "collections_only_in_b": names(&found.only_in_b),
        "other_incarnation": incarnations.collect::<Vec<_>>(),
        "points": points.collect::<Vec<_>>(),
    })
}

fn text(found: &StoreDiff, a: &str, b: &str) -> String {
    if found.is_empty() {
        return format!("equal: {} points", found.counts.0);
    }
    let mut lines = vec![format!("{a} has {} points, {b} has {}", found.counts.0, found.counts.1)];
    lines.extend(found.only_in_a.iter().map(|name| format!("collection {name} is only in {a}")));
    lines.extend(found.only_in_b.iter().map(|name| format!("collection {name} is only in {b}")));
    lines.extend(found.other_incarnation.iter().map(|(name, left, right)| {
        format!("collection {name} was created by entry {left} in {a}, by entry {right} in {b}")
    }));
    for (name, points) in &found.points {
        let kinds = [
            (format!("only in {a}"), &points.only_in_a),
            (format!("only in {b}"), &points.only_in_b),
            ("different".to_owned(), &points.changed),
        ];
        for (kind, ids) in kinds.iter().filter(|(_, ids)| !ids.is_empty()) {
            let shown: Vec<String> = ids.iter().take(SHOWN).map(PointId::to_string).collect();
            let more = if ids.len() > SHOWN { ", …" } else { "" };
            lines.push(format!("{name}: {} points {kind}: {}{more}", ids.len(), shown.join(", ")));
        }
    }
    lines.join("\n")
}
