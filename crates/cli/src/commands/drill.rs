//! `drill`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay::{CollectionName, CollectionSpec, Config, Distance, Error, Result, Tier};
use mainstay_cli::drill::{Load, LoadOptions, LoseMember, verify};

use super::promises::Outcome;
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
    let collection = CollectionName::new(&format!("_drill_{}", std::process::id()))?;
    tier.wait_caught_up(PATIENCE).await?;
    tier.create_collection(CollectionSpec::dense(collection.clone(), DIMENSION, Distance::Cosine)).await?;
    let outcome = rounds(tier, &collection, DIMENSION, &fault, None, output).await;
    // The drill's collection goes, whatever the drill found.
    let dropped = tier.drop_collection(&collection).await;
    let outcome = outcome?;
    dropped?;
    Ok(outcome.print(output))
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
        rounds.push(round);
        tokio::time::sleep(WARM_UP).await;
    }
    let report = load.stop().await;
    tier.wait_caught_up(PATIENCE).await?;
    let verdict = verify(tier, collection, &report.expected).await?;
    let failover = rounds.iter().map(|round| round.added_latency(&report, started)).max().unwrap_or_default();
    let catch_up = rounds.iter().map(|round| round.catch_up).max().unwrap_or_default();
    Ok(Outcome { files, report, verdict, failover, catch_up })
}
