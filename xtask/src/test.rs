//! Every test of the workspace.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{cargo, simulate};

/// Everything that the workspace has without the C kernels, which change speed alone.
pub const FEATURES: &str = "mainstay-core/conformance,mainstay-qdrant/server,mainstay-qdrant/edge,mainstay/full,\
     mainstay-cli/full,mainstay-tests/lance-cloud,mainstay-tests/snapshots-cloud,mainstay-tests/qdrant";

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
        // It switches deliberate bugs into the facade; it is tested by itself.
        "--exclude",
        simulate::PACKAGE,
        "--no-fail-fast",
        "--features",
    ]);
    command.arg(FEATURES).args(args);
    Ok(command)
}

/// Runs every test.
pub fn run(args: &[String]) -> Result<ExitCode> {
    cargo::pass_on(&mut command(args)?)
}
