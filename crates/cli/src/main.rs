//! The `mainstay` command: operate a tier from a shell.

mod args;
mod commands;
mod output;

use std::process::ExitCode;

use mainstay::{Error, ErrorKind};

use crate::args::{Cli, Format};
use crate::output::Output;

/// What many searches take at once is given back after them; glibc's own allocator and mimalloc keep up to a gigabyte of it.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            let text = error.to_string();
            let message = text.trim_start_matches("error: ").trim_end();
            return Output::new(Format::Json, true).fail(&Error::invalid(message));
        }
        Err(error) => error.exit(),
    };
    let output = Output::new(cli.format, cli.quiet);
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&Error::new(ErrorKind::Internal, "no runtime").with_source(error)),
    };
    runtime.block_on(async {
        tokio::select! {
            done = commands::run(cli, output) => done.unwrap_or_else(|error| output.fail(&error)),
            // The log holds what was acked; a start after this replays what a member lacks.
            _ = tokio::signal::ctrl_c() => {
                output.note("interrupted");
                ExitCode::from(130)
            }
        }
    })
}

/// Whether arguments that could not be read ask for JSON.
fn wants_json() -> bool {
    let args: Vec<_> = std::env::args_os().collect();
    args.iter().any(|arg| arg == "--format=json") || args.windows(2).any(|pair| pair == ["--format", "json"])
}
