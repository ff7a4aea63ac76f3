//! `init` and `config check`.

use std::path::Path;
use std::process::ExitCode;

use mainstay::{COMPILED_IN_BACKENDS, Config, Error, ErrorKind, Result};
use serde_json::json;

use crate::output::Output;

/// Writes the commented template.
pub fn init(path: &Path, force: bool, output: Output) -> Result<ExitCode> {
    if path.exists() && !force {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} is there already; --force overwrites it", path.display()),
        ));
    }
    std::fs::write(path, Config::template()).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot write {}: {error}", path.display()))
            .with_source(error)
    })?;
    output.print(&json!({ "written": path.display().to_string() }), || {
        format!("wrote {}; `mainstay config check` shows what it means", path.display())
    });
    Ok(ExitCode::SUCCESS)
}

/// Prints the effective config, or every problem at once.
pub fn check(path: &Path, output: Output) -> Result<ExitCode> {
    let checked =
        Config::load(path).and_then(|config| config.check_features(COMPILED_IN_BACKENDS).map(|()| config));
    match checked {
        Ok(config) => {
            let toml = config.to_toml();
            output.print(&json!({ "ok": true, "problems": [], "effective": toml }), || toml.clone());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            let problems: Vec<_> = errors
                .problems()
                .iter()
                .map(
                    |problem| json!({ "key": problem.key, "problem": problem.problem, "hint": problem.hint }),
                )
                .collect();
            output.print(&json!({ "ok": false, "problems": problems }), || errors.to_string());
            Ok(ExitCode::from(2))
        }
    }
}
