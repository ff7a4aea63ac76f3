//! One module per command.

mod adopt;
mod collections;
mod config;
mod demo;
mod drift;
mod drill;
mod estimate;
mod events;
mod export;
mod import;
mod index;
mod order;
mod points;
mod promises;
mod search;
#[cfg(feature = "snapshots")]
mod snapshot;
mod status;
mod stores;
mod subject;

use std::process::ExitCode;

use mainstay::control::Order;
use mainstay::core::json::{filter_from_json, point_to_json, vectors_to_json};
use mainstay::{CollectionName, Config, Error, Filter, Payload, Record, Result, Tier};
use serde_json::{Value, json};

use crate::args::{Cli, Command};
use crate::output::Output;
use subject::Subject;

/// Does what was asked for.
pub async fn run(cli: Cli, output: Output) -> Result<ExitCode> {
    match cli.command {
        Command::Init { force } => config::init(&cli.config, force, output),
        Command::Config(crate::args::ConfigCommand::Check) => config::check(&cli.config, output),
        Command::Demo(args) => demo::run(args, output).await,
        Command::Estimate(args) => estimate::run(&args, &cli.config, output).await,
        Command::Diff { a, b, deep } => stores::diff(&cli.config, &a, &b, deep, output).await,
        Command::Copy { from, into, replace } => {
            stores::copy(&cli.config, &from, &into, replace, output).await
        }
        Command::Drill(crate::args::DrillCommand::LoseServer(args)) => {
            drill::lose_server(&Config::load(&cli.config)?, args, output).await
        }
        Command::Status { watch } => {
            let mut subject = Subject::open(&cli.config).await?;
            let shown = status::run(&mut subject, watch, output).await;
            let closed = subject.close().await;
            let code = shown?;
            closed.map(|()| code)
        }
        Command::Events => {
            let subject = Subject::open(&cli.config).await?;
            let shown = events::run(&subject, output).await;
            let closed = subject.close().await;
            shown.and(closed).map(|()| ExitCode::SUCCESS)
        }
        Command::Failover { member } => order::run(&cli.config, Order::Failover { member }, output).await,
        Command::Failback { member } => order::run(&cli.config, Order::Failback { member }, output).await,
        Command::Quarantine { member, reason } => {
            order::run(&cli.config, Order::Quarantine { member, reason }, output).await
        }
        Command::Release { member, reload } => {
            order::run(&cli.config, Order::Release { member, reload }, output).await
        }
        #[cfg(feature = "snapshots")]
        Command::Snapshot(command) => snapshot::run(command, &cli.config, output).await,
        command => {
            let config = Config::load(&cli.config)?;
            let tier = Tier::open(config.clone()).await?;
            let done = with_tier(command, &config, &tier, output).await;
            let closed = tier.close().await;
            let code = done?;
            closed.map(|()| code)
        }
    }
}

async fn with_tier(command: Command, config: &Config, tier: &Tier, output: Output) -> Result<ExitCode> {
    match command {
        Command::Collections(command) => collections::run(command, tier, output).await?,
        Command::Import(args) => import::run(args, config, tier, output).await?,
        Command::Index(args) => index::run(&args, config, tier, output).await?,
        Command::Search(args) => search::run(args, tier, output).await?,
        Command::Get { collection, ids, with_vectors } => {
            points::get(tier, &collection, &ids, with_vectors, output).await?
        }
        Command::Count { collection, filter } => {
            points::count(tier, &collection, filter.as_deref(), output).await?
        }
        Command::Delete { collection, ids, filter } => {
            points::delete(tier, &collection, &ids, filter.as_deref(), output).await?;
        }
        Command::Export { collection, file, filter } => {
            export::run(tier, &collection, &file, filter.as_deref(), output).await?;
        }
        Command::Adopt { collections, member } => {
            adopt::run(&collections, member.as_deref(), config, tier, output).await?;
        }
        Command::Drift(args) => return drift::run(&args, config, tier, output).await,
        Command::Drill(crate::args::DrillCommand::LoseMember { member, seconds }) => {
            return drill::lose_member(config, tier, member, seconds, output).await;
        }
        Command::Init { .. }
        | Command::Status { .. }
        | Command::Events
        | Command::Failover { .. }
        | Command::Failback { .. }
        | Command::Quarantine { .. }
        | Command::Release { .. }
        | Command::Config(_)
        | Command::Demo(_)
        | Command::Estimate(_)
        | Command::Drill(_)
        | Command::Diff { .. }
        | Command::Copy { .. } => {}
        #[cfg(feature = "snapshots")]
        Command::Snapshot(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A collection that is there.
fn existing(tier: &Tier, name: &str) -> Result<CollectionName> {
    let name = CollectionName::new(name)?;
    tier.collection(&name).map(|_| name)
}

/// A filter from the command line: JSON, or @FILE.
fn filter(text: Option<&str>) -> Result<Option<Filter>> {
    let Some(text) = text else { return Ok(None) };
    let read;
    let text = match text.strip_prefix('@') {
        None => text,
        Some(path) => {
            read = std::fs::read_to_string(path)
                .map_err(|error| Error::invalid(format!("cannot read the filter's file {path}: {error}")))?;
            &read
        }
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the filter is not JSON: {error}")))?;
    filter_from_json(&value).map(Some)
}

/// A record as JSON: the point with its version.
fn record_json(record: &Record, with_vectors: bool) -> Value {
    let mut value = point_to_json(&record.point);
    if let Value::Object(map) = &mut value {
        map.remove("vector");
        if with_vectors {
            map.insert("vector".into(), vectors_to_json(&record.point.vectors));
        }
        map.insert("version".into(), record.version.0.into());
    }
    value
}

/// A payload on one line.
fn payload_text(payload: &Payload) -> String {
    if payload.is_empty() { String::new() } else { json!(payload).to_string() }
}
