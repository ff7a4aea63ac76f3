//! Benchmarks.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// Builds the benchmarks for speed and runs one of them.
pub fn run(args: &[String]) -> Result<ExitCode> {
    // Their server's engine takes minutes to build, which the other benchmarks do without.
    let qdrant = args.first().is_some_and(|what| ["qdrant", "fastest"].contains(&what.as_str()));
    let features: &[&str] = if qdrant { &["--release", "--features", "qdrant"] } else { &["--release"] };
    let bench = cargo::build("mainstay-bench", "mainstay-bench", features, "release")?;
    cargo::pass_on(Command::new(bench).args(args))
}
