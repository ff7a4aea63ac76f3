//! Running cargo and what it built.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::protoc;

/// The root of the workspace.
pub fn root() -> PathBuf {
    // This package lies in a folder of the root.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// cargo in the workspace, with what its build scripts need.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, value) in protoc::variables()? {
        command.env(name, value);
    }
    Ok(command)
}

/// Runs a command and fails if it fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and passes its exit code on.
pub fn pass_on(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The standard output of a command.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{} failed: {}", shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once("cargo".into()).chain(args).collect::<Vec<_>>().join(" ")
}

/// What cargo knows of the workspace and its dependencies.
pub fn metadata() -> Result<serde_json::Value> {
    let text = output(cargo()?.args(["metadata", "--format-version", "1", "--locked"]))?;
    Ok(serde_json::from_str(&text)?)
}

/// Builds one binary and answers its path. What cargo says goes to standard error.
pub fn build(package: &str, binary: &str, args: &[&str], profile: &str) -> Result<PathBuf> {
    let mut command = cargo()?;
    command.args(["build", "--locked", "--package", package, "--bin", binary]).args(args);
    succeed(&mut command)?;
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(PathBuf::from(target).join(profile).join(binary))
}
