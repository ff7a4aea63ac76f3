//! Benchmarks.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// Builds the benchmarks for speed and runs one of them.
pub fn run(args: &[String]) -> Result<ExitCode> {
    let bench = cargo::build("mainstay-bench", "mainstay-bench", &["--release"], "release")?;
    cargo::pass_on(Command::new(bench).args(args))
}
