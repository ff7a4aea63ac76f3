//! What must be green before a change lands.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{cargo, simulate, test, tidy};

/// The backends; each set of them is a supported combination of features.
const BACKENDS: [&str; 4] = ["memory", "lance", "qdrant", "qdrant-edge"];

/// Combinations that are also checked as they are resolved alone, without what the rest of the workspace
/// switches on in their dependencies.
const ALONE: [&str; 8] = [
    "",
    "memory",
    "qdrant",
    "memory,qdrant",
    "prometheus",
    "memory,prometheus",
    "snapshots",
    "memory,snapshots-cloud",
];

/// Seeds that are run, about as many as fit into 3 minutes. A number, not a time: what is green on one machine is on
/// another.
const SIMULATION_SEEDS: &str = "15000";

/// Runs every step in order and stops at the first that fails.
pub fn run() -> Result<ExitCode> {
    let start = Instant::now();
    step("formatting", "cargo fmt --check", || {
        cargo::succeed(cargo::cargo()?.args(["fmt", "--all", "--check"]))
    })?;
    step("tidy", "cargo xtask tidy", tidy::check)?;
    step("what features leave out", "cargo tree", absences)?;
    for features in ALONE {
        step(&format!("features [{features}] alone"), "cargo clippy", || alone(features))?;
    }
    step("clippy", "cargo clippy", || {
        let mut command = cargo::cargo()?;
        command.args(["clippy", "--locked", "--workspace", "--exclude", "mainstay-bench"]);
        command.args(["--exclude", simulate::PACKAGE, "--all-targets"]);
        cargo::succeed(command.args(["--features", test::FEATURES, "--", "-D", "warnings"]))
    })?;
    for features in combinations() {
        step(&format!("features [{features}]"), "cargo clippy", || combination(&features))?;
    }
    step("documentation", "RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps", || {
        let mut command = cargo::cargo()?;
        command.args(["doc", "--locked", "--no-deps", "--workspace", "--exclude", "mainstay-bench"]);
        command.args(["--exclude", simulate::PACKAGE]);
        cargo::succeed(command.args(["--features", test::FEATURES]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("tests", "cargo xtask test", || cargo::succeed(&mut test::command(&[])?))?;
    step("the simulation is clean", "cargo clippy -p mainstay-simulation --all-targets", || {
        let mut command = cargo::cargo()?;
        command.args(["clippy", "--locked", "--package", simulate::PACKAGE, "--all-targets"]);
        cargo::succeed(command.args(["--", "-D", "warnings"]))
    })?;
    step("the simulation repeats itself", "cargo test --release -p mainstay-simulation", || {
        let mut command = simulate::cargo()?;
        cargo::succeed(command.args(["test", "--locked", "--release", "--package", simulate::PACKAGE]))
    })?;
    step("simulation", "cargo xtask simulate --seeds 15000", || {
        cargo::succeed(&mut simulate::command(&["--seeds", SIMULATION_SEEDS])?)
    })?;
    step("the simulation sees", "cargo xtask simulate --bugs", || {
        cargo::succeed(&mut simulate::command(&["--bugs"])?)
    })?;
    step("benchmarks compile", "cargo clippy -p mainstay-bench", || {
        let mut command = cargo::cargo()?;
        cargo::succeed(command.args([
            "clippy",
            "--locked",
            "--package",
            "mainstay-bench",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    eprintln!("\nci: all green in {:.0?}", start.elapsed());
    Ok(ExitCode::SUCCESS)
}

fn step(name: &str, again: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("\n==> {name}");
    let start = Instant::now();
    work().with_context(|| format!("{name} failed; run it again with: {again}"))?;
    eprintln!("==> {name}: ok in {:.1?}", start.elapsed());
    Ok(())
}

/// Every set of backends, LanceDB in object stores, and snapshots.
fn combinations() -> Vec<String> {
    let sets = 0..1_usize << BACKENDS.len();
    let backends = sets.map(|set| {
        let chosen = BACKENDS.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
        chosen.map(|(_, backend)| *backend).collect::<Vec<_>>().join(",")
    });
    // Only LanceDB's own code asks for it, so alone and with everything will do.
    backends.chain(["lance-cloud", "memory,snapshots", "qdrant,snapshots-cloud"].map(str::to_owned)).collect()
}

/// One combination of features of the command, and so of the facade under it, resolved alone.
fn alone(features: &str) -> Result<()> {
    let mut command = cargo::cargo()?;
    command.args(["clippy", "--locked", "--package", "mainstay", "--package", "mainstay-cli"]);
    cargo::succeed(command.args(["--no-default-features", "--features", features, "--", "-D", "warnings"]))
}

/// One combination of features of the command and the facade, beside the packages that make cargo resolve the
/// dependencies as it does for the whole workspace: else each combination would build LanceDB anew.
fn combination(features: &str) -> Result<()> {
    let mut command = cargo::cargo()?;
    command.args(["clippy", "--locked", "--no-default-features"]);
    for package in [
        "mainstay",
        "mainstay-cli",
        "mainstay-core",
        "mainstay-lance",
        "mainstay-memory",
        "mainstay-qdrant",
        "mainstay-snapshot",
        "mainstay-test-bucket",
        "xtask",
    ] {
        command.args(["--package", package]);
    }
    let backends = features.split(',').filter(|feature| !feature.is_empty());
    let chosen =
        backends.flat_map(|backend| [format!("mainstay/{backend}"), format!("mainstay-cli/{backend}")]);
    let anchors = [
        "mainstay-core/conformance",
        "mainstay-lance/cloud",
        "mainstay-qdrant/server",
        "mainstay-qdrant/edge",
        "mainstay-snapshot/cloud",
    ];
    let all: Vec<String> = chosen.chain(anchors.map(str::to_owned)).collect();
    cargo::succeed(command.args(["--features", &all.join(","), "--", "-D", "warnings"]))
}

/// What a set of features leaves out must not be in its tree.
fn absences() -> Result<()> {
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("mainstay-core", &["--features", "conformance"], &["loom", "proptest"]),
        (
            "mainstay",
            &[],
            &["lancedb", "lance", "datafusion", "parquet", "tonic", "qdrant-edge", "hyper", "metrics-util"],
        ),
        (
            "mainstay",
            &["--no-default-features", "--features", "prometheus"],
            &["hyper-rustls", "rustls", "tonic", "tower", "prost", "h2"],
        ),
        (
            "mainstay",
            &["--no-default-features"],
            &["usearch", "lancedb", "datafusion", "tonic", "qdrant-edge"],
        ),
        (
            "mainstay",
            &["--no-default-features", "--features", "qdrant"],
            &["arrow-array", "lance", "lancedb", "datafusion", "usearch", "qdrant-edge"],
        ),
        (
            "mainstay",
            &["--no-default-features", "--features", "lance"],
            &["tonic", "qdrant-edge", "usearch", "quick-xml", "rustls-platform-verifier"],
        ),
        (
            "mainstay",
            &["--no-default-features", "--features", "lance-cloud"],
            &["aws-config", "aws-lc-sys", "opendal", "usearch"],
        ),
        (
            "mainstay",
            &["--no-default-features", "--features", "qdrant-edge"],
            &["arrow-array", "lancedb", "datafusion", "usearch", "qdrant-client"],
        ),
        ("xtask", &[], &["tokio", "clap", "usearch", "lancedb"]),
    ];
    for (package, args, absent) in cases {
        let mut command: Command = cargo::cargo()?;
        command.args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ]);
        let tree = cargo::output(command.args(args))?;
        let found: Vec<_> = absent
            .iter()
            .filter(|name| tree.lines().any(|line| line.split(' ').next() == Some(**name)))
            .collect();
        if !found.is_empty() {
            bail!("`{package}` with {args:?} depends on {found:?}");
        }
    }
    Ok(())
}
