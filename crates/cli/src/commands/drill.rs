//! `drill`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay::{CollectionName, CollectionSpec, Config, Distance, Error, Result, Tier};
use mainstay_cli::drill::{
    Fault, Footprint, Load, LoadOptions, LoseMember, LoseServer, Round, at_random, in_turn, verify_late,
};

use super::promises::{OutageFigures, Outcome};
use crate::args::LoseServerArgs;
use crate::output::Output;

/// How long the load runs before the first fault, and after the last.
pub const WARM_UP: Duration = Duration::from_secs(3);
/// How long members may take to be at one before and after a drill.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Numbers in a vector of the drill's own collection.
const DIMENSION: usize = 128;

/// Loses a member twice under load: once it comes back as it was, once empty.
pub async fn lose_member(
    config: &Config,
    tier: &Tier,
    member: Option<String>,
    seconds: u64,
    output: Output,
) -> Result<ExitCode> {
    let member = match member {
        Some(member) => member,
        None => first_with_directory(config)?,
    };
    let fault = LoseMember::of(config, &member)?.lasting(Duration::from_secs(seconds), PATIENCE);
    let drill =
        async |collection: CollectionName| rounds(tier, &collection, DIMENSION, &fault, None, output).await;
    Ok(on_its_own_collection(tier, drill).await?.print(output))
}

/// A drill on a collection that is there for it alone, and goes whatever the drill finds.
async fn on_its_own_collection(
    tier: &Tier,
    drill: impl AsyncFnOnce(CollectionName) -> Result<Outcome>,
) -> Result<Outcome> {
    let collection = CollectionName::new(&format!("_drill_{}", std::process::id()))?;
    tier.wait_caught_up(PATIENCE).await?;
    tier.create_collection(CollectionSpec::dense(collection.clone(), DIMENSION, Distance::Cosine)).await?;
    let outcome = drill(collection.clone()).await;
    let dropped = tier.drop_collection(&collection).await;
    let outcome = outcome?;
    dropped?;
    Ok(outcome)
}

fn first_with_directory(config: &Config) -> Result<String> {
    let has_directory =
        |name: &&String| config.members.get(*name).is_some_and(|member| member.backend.directory().is_some());
    config.tier.members.iter().find(has_directory).cloned().ok_or_else(|| {
        Error::invalid("no member of this tier has a directory that could be taken away; the drill needs one")
    })
}

/// Two rounds of the fault under load, and the verdict.
pub async fn rounds(
    tier: &Tier,
    collection: &CollectionName,
    dimension: usize,
    fault: &LoseMember,
    files: Option<(usize, usize)>,
    output: Output,
) -> Result<Outcome> {
    let started = Instant::now();
    let load = Load::start(tier, collection, dimension, LoadOptions::default());
    tokio::time::sleep(WARM_UP).await;
    let mut rounds = Vec::new();
    for (empty, what) in [(false, "as it was"), (true, "empty")] {
        let (searches, writes) = load.counts();
        output.note(&format!(
            "{searches} searches, {writes} writes so far · taking the member's directory away for {:.0} s; it comes back {what}",
            fault.outage().as_secs_f64()
        ));
        let round = fault.round(tier, empty).await?;
        output.note(&format!("  caught up {:.1} s after it came back", round.catch_up.as_secs_f64()));
        rounds.push((if empty { "gone, back empty" } else { "gone, back as it was" }, round));
        tokio::time::sleep(WARM_UP).await;
    }
    finish(tier, collection, load, started, rounds, files).await
}

/// Ends the load and says what it came to.
async fn finish(
    tier: &Tier,
    collection: &CollectionName,
    load: Load,
    started: Instant,
    rounds: Vec<(&'static str, Round)>,
    files: Option<(usize, usize)>,
) -> Result<Outcome> {
    let report = load.stop().await;
    tier.wait_caught_up(PATIENCE).await?;
    let verdict = verify_late(tier, collection, &report.expected, PATIENCE).await?;
    let figures = rounds.iter().map(|(name, round)| OutageFigures {
        name,
        first_answer: round.first_answer(&report, started),
        failover: round.added_latency(&report, started),
        catch_up: round.catch_up,
    });
    let rounds: Vec<_> = figures.collect();
    let failover = rounds.iter().map(|round| round.failover).max().unwrap_or_default();
    let catch_up = rounds.iter().map(|round| round.catch_up).max().unwrap_or_default();
    Ok(Outcome { files, report, verdict, rounds, failover, catch_up, footprints: Vec::new(), closed: None })
}

/// Does to the server of a member what may happen to one, under load.
pub async fn lose_server(config: &Config, args: LoseServerArgs, output: Output) -> Result<ExitCode> {
    let (drill, config) =
        LoseServer::start(config, &args.member, args.command.clone(), &args.storage).await?;
    let mut drill = drill.lasting(Duration::from_secs(args.seconds), PATIENCE);
    let tier = Tier::open(config).await?;
    let rounds =
        async |collection: CollectionName| server_rounds(&tier, &collection, &mut drill, &args, output).await;
    let outcome = on_its_own_collection(&tier, rounds).await;
    let closed = tier.close().await;
    let mut outcome = outcome?;
    outcome.closed = Some(closed.map_err(|error| error.to_string()));
    Ok(outcome.print(output))
}

/// The rounds of a schedule under load, and the verdict.
async fn server_rounds(
    tier: &Tier,
    collection: &CollectionName,
    drill: &mut LoseServer,
    args: &LoseServerArgs,
    output: Output,
) -> Result<Outcome> {
    let load = LoadOptions { searchers: args.searchers, writers: args.writers, ..LoadOptions::default() };
    let load = Load::start_filled(tier, collection, DIMENSION, load).await?;
    let started = Instant::now();
    tokio::time::sleep(WARM_UP).await;
    let (mut rounds, mut footprints) = (Vec::new(), Vec::new());
    let faults = if args.faults.is_empty() { Fault::ALL.to_vec() } else { args.faults.clone() };
    let schedule: Box<dyn Iterator<Item = Fault> + Send> = match args.minutes {
        Some(minutes) => {
            let end = started + Duration::from_secs(u64::from(minutes) * 60);
            Box::new(at_random(faults, args.seed).take_while(move |_| Instant::now() < end))
        }
        None => {
            let rounds = args.rounds.unwrap_or(faults.len());
            Box::new(in_turn(faults).take(rounds))
        }
    };
    for fault in schedule {
        let began = Instant::now();
        output.note(fault.as_str());
        let round = drill.round(tier, fault).await?;
        output.note(&format!("  caught up {:.1} s after it came back", round.catch_up.as_secs_f64()));
        rounds.push((fault.as_str(), round));
        if args.minutes.is_some() {
            let pause = Duration::from_secs(args.every).saturating_sub(began.elapsed());
            footprints.extend(Footprint::least_within(pause).await);
        } else {
            tokio::time::sleep(WARM_UP).await;
        }
    }
    let outcome = finish(tier, collection, load, started, rounds, None).await?;
    Ok(Outcome { footprints, ..outcome })
}
