//! The seeded simulation of the tier.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo;

/// The package; its features switch deliberate bugs on, so that nothing else is built beside it.
pub const PACKAGE: &str = "mainstay-simulation";

/// tokio wakes those who watch one value in an order of its own, which can be seeded only with this.
const FLAGS: &str = "--cfg tokio_unstable";

/// cargo with what makes the simulation repeat itself.
pub fn cargo() -> Result<Command> {
    let mut command = cargo::cargo()?;
    command.env("RUSTFLAGS", FLAGS);
    Ok(command)
}

/// The simulation with these arguments, built for release.
pub fn command(args: &[&str]) -> Result<Command> {
    cargo::succeed(cargo()?.args(["build", "--locked", "--release", "--package", PACKAGE]))?;
    let metadata = cargo::metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    let mut command = Command::new(PathBuf::from(target).join("release").join("simulate"));
    command.args(args);
    Ok(command)
}

/// Runs seeds, replays one, or hunts the deliberate bugs.
pub fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cargo::pass_on(&mut command(&args)?)
}
