//! `simulate`: runs seeds, replays one, or hunts the deliberate bugs. `cargo xtask simulate` builds and runs it.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mainstay::sabotage::Bug;
use mainstay_simulation::{hunt, run};

const HELP: &str = "\
simulate [--seeds N] [--from S] [--minutes M] [--threads T]   run seeds (10,000 from 1); the first failures end it
simulate --seed S [--bug NAME]                                replay one seed and print its history
simulate --bugs                                               hunt every deliberate bug and print a table";

/// Failures after which a run ends.
const MOST_FAILURES: usize = 5;

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: Option<u64>,
    seed: Option<u64>,
    minutes: Option<f64>,
    threads: Option<usize>,
    bug: Option<Bug>,
    bugs: bool,
}

fn main() -> ExitCode {
    match parse().and_then(|args| args.map_or(Ok(ExitCode::SUCCESS), go)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Option<Args>> {
    let (mut args, mut given) = (Args::default(), std::env::args().skip(1));
    while let Some(name) = given.next() {
        let mut value = || given.next().with_context(|| format!("{name} wants a value"));
        match name.as_str() {
            "--seeds" => args.seeds = Some(value()?.replace('_', "").parse()?),
            "--from" => args.from = Some(value()?.parse()?),
            "--seed" => args.seed = Some(value()?.parse()?),
            "--minutes" => args.minutes = Some(value()?.parse()?),
            "--threads" => args.threads = Some(value()?.parse()?),
            "--bugs" => args.bugs = true,
            "--bug" => {
                let wanted = value()?;
                let found = Bug::ALL.iter().find(|bug| format!("{bug:?}") == wanted);
                args.bug = Some(*found.with_context(|| format!("there is no bug `{wanted}`"))?);
            }
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => bail!("unknown argument `{other}`\n\n{HELP}"),
        }
    }
    Ok(Some(args))
}

fn go(args: Args) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores);
    if let Some(seed) = args.seed {
        return Ok(replay(seed, args.bug));
    }
    if args.bugs {
        return Ok(bugs(threads));
    }
    let (from, start) = (args.from.unwrap_or(1), Instant::now());
    let until = args.minutes.map(|minutes| start + Duration::from_secs_f64(minutes * 60.0));
    let most = if until.is_some() { u64::MAX - from } else { 10_000 };
    let tally = hunt::run_many(from, args.seeds.unwrap_or(most), until, threads, MOST_FAILURES);
    let took = start.elapsed();
    println!(
        "{} seeds from {from} in {took:.1?} ({:.0} a second): {} entries, {:.1} days of virtual time, {} failed",
        tally.seeds,
        tally.seeds as f64 / took.as_secs_f64(),
        tally.entries,
        tally.virtual_s as f64 / 86_400.0,
        tally.failed.len()
    );
    for (seed, outcome) in &tally.failed {
        if let Some(broken) = &outcome.broken {
            println!("seed {seed}: {} is broken at {:.3?}: {}", broken.promise, broken.at, broken.what);
        }
    }
    if let Some((seed, _)) = tally.failed.first() {
        println!("replay with: cargo xtask simulate --seed {seed}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(seed: u64, bug: Option<Bug>) -> ExitCode {
    mainstay::sabotage::set(bug);
    let outcome = run::run(seed, true);
    let mut out = std::io::stdout().lock();
    for line in &outcome.history {
        // Whoever reads may have seen enough.
        let _ = writeln!(out, "{line}");
    }
    drop(out);
    match outcome.broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("seed {seed}: {} is broken at {:.3?}: {}", broken.promise, broken.at, broken.what);
            ExitCode::FAILURE
        }
    }
}

fn bugs(threads: usize) -> ExitCode {
    let caught = hunt::hunt_all(threads);
    println!("| deliberate bug | seeds | promise | what was seen |\n|---|---|---|---|");
    for found in &caught {
        let seeds = found.seeds.map_or("NOT SEEN".to_owned(), |seeds| seeds.to_string());
        let what: String = found.what.chars().take(110).collect();
        println!("| {:?} | {seeds} | {} | {} |", found.bug, found.promise, what.replace('|', "/"));
    }
    let missed = caught.iter().filter(|found| found.seeds.is_none()).count();
    println!("{} of {} seen within {} seeds", caught.len() - missed, caught.len(), hunt::MOST_SEEDS);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
