//! The seeded simulation of the tier.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo;

/// The package; its features switch deliberate bugs on, so that nothing else is built beside it.
pub const PACKAGE: &str = "mainstay-simulation";

/// The simulation with these arguments, built for release.
pub fn command(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(cargo::build(PACKAGE, "simulate", &["--release"], "release")?);
    command.args(args);
    Ok(command)
}

/// Runs seeds, replays one, or hunts the deliberate bugs.
pub fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cargo::pass_on(&mut command(&args)?)
}
