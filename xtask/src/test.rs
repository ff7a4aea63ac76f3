//! Every test of the workspace.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// The test command; what comes after it goes to cargo.
pub fn command(args: &[String]) -> Result<Command> {
    let mut command = cargo::cargo()?;
    // Not --all-features: `simd` compiles C for minutes and changes speed alone.
    command.args([
        "test",
        "--locked",
        "--workspace",
        "--exclude",
        "mainstay-bench",
        "--no-fail-fast",
        "--features",
    ]);
    command
        .arg("mainstay-core/conformance,mainstay/lance,mainstay-cli/lance,mainstay-tests/lance")
        .args(args);
    Ok(command)
}

/// Runs every test.
pub fn run(args: &[String]) -> Result<ExitCode> {
    cargo::pass_on(&mut command(args)?)
}
