//! `cargo xtask`: development and maintenance commands.

mod bench;
mod cargo;
mod ci;
mod demo;
mod failures;
mod maintain;
mod protoc;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

const HELP: &str = "\
cargo xtask COMMAND

Try it
  demo [--format json] [ARGS]   index real source files into LanceDB + memory, take the primary away under
                                load, twice, and check every promise (exit code 3 if one was broken)

Develop
  test [ARGS]                   every test, LanceDB included; ARGS go to cargo test
  ci                            what must be green before a change lands
  bench breaker|log|tier|memory|snapshot|qdrant|fastest
                                benchmarks, both sides in one run; --dataset DIR, --format json
  simulate [--seeds N] [--from S] [--minutes M]
                                the tier over simulated stores, disk and clock, with faults at random
  simulate --seed S             replays a seed and prints its history
  simulate --bugs               proves that each deliberate bug is seen
  tidy                          the tree's own rules
  protoc                        prints the variables with which plain cargo builds the feature `lance`

Maintain (the commands of `mainstay`, built with the features that the given TOML needs)
  init, config, status, events, failover, failback, quarantine, release, collections, import, index, search, get, count,
  delete, export, adopt, copy, diff, estimate, drift, drill, snapshot
                                such as: cargo xtask status --config mainstay.toml";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        println!("{HELP}");
        return Ok(ExitCode::from(2));
    };
    match command.as_str() {
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "ci" => ci::run(),
        "bench" => bench::run(rest),
        "simulate" => simulate::run(rest),
        "tidy" => tidy::run(),
        "protoc" => protoc::print(),
        command if maintain::COMMANDS.contains(&command) => maintain::run(args),
        other => {
            eprintln!("error: there is no command `{other}`\n\n{HELP}");
            Ok(ExitCode::from(2))
        }
    }
}
