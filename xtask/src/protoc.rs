//! protoc, which LanceDB's build scripts call, from a crate.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

/// The variables that point build scripts to protoc: the ones that are set already, or the crate's.
pub fn variables() -> Result<Vec<(&'static str, PathBuf)>> {
    if std::env::var_os("PROTOC").is_some() {
        return Ok(Vec::new());
    }
    let protoc = protoc_bin_vendored::protoc_bin_path()
        .context("there is no protoc for this platform; install it and set PROTOC")?;
    let include = protoc_bin_vendored::include_path().context("protoc's own definitions are missing")?;
    Ok(vec![("PROTOC", protoc), ("PROTOC_INCLUDE", include)])
}

/// Prints the variables for a shell: `eval "$(cargo xtask protoc)"`.
pub fn print() -> Result<ExitCode> {
    for (name, value) in variables()? {
        println!("export {name}='{}'", value.display());
    }
    Ok(ExitCode::SUCCESS)
}
