//! The commands of `mainstay`, built with the features that a config needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// The commands that are passed on.
pub const COMMANDS: &[&str] = &[
    "init",
    "config",
    "status",
    "events",
    "failover",
    "failback",
    "quarantine",
    "release",
    "collections",
    "import",
    "index",
    "search",
    "get",
    "count",
    "delete",
    "export",
    "adopt",
    "copy",
    "diff",
    "estimate",
    "drift",
    "drill",
    "snapshot",
];

/// Runs a command of `mainstay` in the folder that the caller is in.
pub fn run(args: &[String]) -> Result<ExitCode> {
    let features = features(config_path(args)).into_iter().collect::<Vec<_>>().join(",");
    let mainstay = cargo::build(
        "mainstay-cli",
        "mainstay",
        &["--no-default-features", "--features", &features],
        "debug",
    )?;
    cargo::pass_on(Command::new(mainstay).args(args))
}

fn config_path(args: &[String]) -> &str {
    for (at, arg) in args.iter().enumerate() {
        if let Some(path) = arg.strip_prefix("--config=") {
            return path;
        }
        if arg == "--config" || arg == "-c" {
            return args.get(at + 1).map_or("mainstay.toml", String::as_str);
        }
    }
    "mainstay.toml"
}

/// The backends that a config names, and the page of metrics and the snapshots if it has them, are the features that it
/// needs. A config that cannot be read is left for `mainstay` to complain about.
fn features(path: impl AsRef<Path>) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let config: toml::Table = text.parse().unwrap_or_default();
    let members = config.get("members").and_then(toml::Value::as_table);
    let needed =
        members.into_iter().flatten().filter_map(|(_, member)| match member.get("backend")?.as_str()? {
            "memory" => Some("memory"),
            "lance"
                if member.get("uri").and_then(toml::Value::as_str).is_some_and(|uri| uri.contains("://")) =>
            {
                Some("lance-cloud")
            }
            "lance" => Some("lance"),
            "qdrant" if member.get("path").is_some() => Some("qdrant-edge"),
            "qdrant" => Some("qdrant"),
            _ => None,
        });
    let mut features: BTreeSet<String> = needed.map(str::to_owned).collect();
    features.insert("memory".to_owned());
    if config.get("metrics").and_then(|metrics| metrics.get("listen")).is_some() {
        features.insert("prometheus".to_owned());
    }
    let snapshots = config.get("snapshots").and_then(|snapshots| snapshots.get("dir"));
    if let Some(place) = snapshots.and_then(toml::Value::as_str) {
        features.insert("snapshots".to_owned());
        if place.contains("://") {
            features.insert("snapshots-cloud".to_owned());
        }
    }
    features
}
