//! The demo: the `mainstay demo` command over the sources of the project's own dependencies.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo;

/// Builds the command with LanceDB and runs its demo.
pub fn run(args: &[String]) -> Result<ExitCode> {
    eprintln!("building mainstay with LanceDB (the first time takes about ten minutes on two cores)");
    let asks = |option: &str| args.iter().any(|arg| arg.split('=').next() == Some(option));
    let features = if asks("--metrics") { "lance,prometheus" } else { "lance" };
    let mainstay = cargo::build("mainstay-cli", "mainstay", &["--features", features], "debug")?;
    let mut command = Command::new(mainstay);
    command.current_dir(cargo::root()).arg("demo");
    for directory in sources()? {
        command.arg("--sources").arg(directory);
    }
    cargo::pass_on(command.args(args))
}

/// The folders of the project's dependencies, as cargo unpacked them.
fn sources() -> Result<BTreeSet<PathBuf>> {
    let metadata = cargo::metadata()?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let manifests = packages.iter().filter(|package| !package["source"].is_null());
    let manifests = manifests.filter_map(|package| package["manifest_path"].as_str());
    Ok(manifests.filter_map(|path| PathBuf::from(path).parent().map(PathBuf::from)).collect())
}
