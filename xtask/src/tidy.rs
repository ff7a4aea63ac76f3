//! The tree's own rules, which no other tool checks.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{cargo, failures};

/// Longest source file; a longer one holds more than one story.
const MAX_LINES: usize = 700;

/// The roots of workspaces, which have no other's lints to inherit.
const OWN_WORKSPACES: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

/// Checks every file that git knows of.
pub fn check() -> Result<()> {
    let listed = cargo::output(Command::new("git").current_dir(cargo::root()).args(["ls-files"]))?;
    let mut problems = failures::problems()?;
    for path in listed.lines() {
        // A file that is gone from the tree but not yet from git's list is no problem.
        let Ok(bytes) = std::fs::read(cargo::root().join(path)) else { continue };
        // What readers are fed to see whether they break is of any kind.
        if path.starts_with("fuzz/corpus/") {
            continue;
        }
        let Ok(text) = String::from_utf8(bytes) else {
            problems.push(format!("{path}: not text; what is built or downloaded stays out of the tree"));
            continue;
        };
        let lines = text.lines().count();
        if path.ends_with(".rs") && lines > MAX_LINES {
            problems.push(format!("{path}: {lines} lines; at most {MAX_LINES}"));
        }
        if path.ends_with("Cargo.toml")
            && !OWN_WORKSPACES.contains(&path)
            && !text.contains("[lints]\nworkspace = true")
        {
            problems.push(format!("{path}: the workspace's lints are not inherited"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("the tree is not tidy:\n  {}", problems.join("\n  "));
}

/// Checks and says so.
pub fn run() -> Result<ExitCode> {
    check()?;
    println!("tidy");
    Ok(ExitCode::SUCCESS)
}
