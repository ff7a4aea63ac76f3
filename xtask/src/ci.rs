//! What must be green before a change lands.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{cargo, test, tidy};

/// The features of the facade and the command that are checked one combination at a time, because a
/// build of the whole workspace unites them.
const COMBINATIONS: [&str; 4] = ["", "memory", "lance", "memory,lance"];

/// Everything that speaks of the workspace without the C kernels, which change speed alone.
const ALL: &str = "mainstay-core/conformance,mainstay/lance,mainstay-cli/lance,mainstay-tests/lance";

/// Runs every step in order and stops at the first that fails.
pub fn run() -> Result<ExitCode> {
    let start = Instant::now();
    step("formatting", "cargo fmt --check", || {
        cargo::succeed(cargo::cargo()?.args(["fmt", "--all", "--check"]))
    })?;
    step("tidy", "cargo xtask tidy", tidy::check)?;
    step("what features leave out", "cargo tree", absences)?;
    for features in COMBINATIONS.iter().filter(|features| !features.contains("lance")) {
        step(&format!("features [{features}]"), "cargo clippy", || combination(features))?;
    }
    step("clippy", "cargo clippy", || {
        let mut command = cargo::cargo()?;
        command.args(["clippy", "--locked", "--workspace", "--exclude", "mainstay-bench", "--all-targets"]);
        cargo::succeed(command.args(["--features", ALL, "--", "-D", "warnings"]))
    })?;
    for features in COMBINATIONS.iter().filter(|features| features.contains("lance")) {
        step(&format!("features [{features}]"), "cargo clippy", || combination(features))?;
    }
    step("documentation", "RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps", || {
        let mut command = cargo::cargo()?;
        command.args(["doc", "--locked", "--no-deps", "--workspace", "--exclude", "mainstay-bench"]);
        cargo::succeed(command.args(["--features", ALL]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("tests", "cargo xtask test", || cargo::succeed(&mut test::command(&[])?))?;
    step("benchmarks compile", "cargo clippy -p mainstay-bench", || {
        let mut command = cargo::cargo()?;
        cargo::succeed(command.args([
            "clippy",
            "--locked",
            "--package",
            "mainstay-bench",
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

/// One combination of features of the command, and so of the facade under it.
fn combination(features: &str) -> Result<()> {
    let mut command = cargo::cargo()?;
    command.args(["clippy", "--locked", "--package", "mainstay", "--package", "mainstay-cli"]);
    cargo::succeed(command.args(["--no-default-features", "--features", features, "--", "-D", "warnings"]))
}

/// What a set of features leaves out must not be in its tree.
fn absences() -> Result<()> {
    let cases: [(&str, &[&str], &[&str]); 3] = [
        ("mainstay", &[], &["lancedb", "lance", "datafusion", "arrow-array"]),
        ("mainstay", &["--no-default-features"], &["usearch", "lancedb", "datafusion"]),
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
