//! `adopt`: Qdrant collections that Mainstay did not create.

use mainstay::{Config, Result, Tier};

use crate::output::Output;

#[cfg(not(feature = "qdrant"))]
pub async fn run(_: &[String], _: Option<&str>, _: &Config, _: &Tier, _: Output) -> Result<()> {
    let text = "this build knows no Qdrant server: add the cargo feature `qdrant`";
    Err(mainstay::Error::new(mainstay::ErrorKind::Unsupported, text))
}

#[cfg(feature = "qdrant")]
pub use server::run;

#[cfg(feature = "qdrant")]
mod server {
    use std::time::Duration;

    use mainstay::config::{BackendConfig, QdrantConfig, QdrantPlace};
    use mainstay::core::Context;
    use mainstay::qdrant::{ForeignCollection, QdrantStore};
    use mainstay::{CollectionName, Error, MemberState, VectorSpec, open_qdrant};
    use serde_json::{Value, json};

    use super::{Config, Output, Result, Tier};
    use crate::output::table;

    /// One request of a preparation; creating an index on many points takes the longest.
    const CALL: Duration = Duration::from_secs(600);
    /// The state of the members is looked at this often while they are loaded.
    const LOOK: Duration = Duration::from_secs(5);

    /// Lists what can be adopted, or adopts it.
    pub async fn run(
        names: &[String],
        member: Option<&str>,
        config: &Config,
        tier: &Tier,
        output: Output,
    ) -> Result<()> {
        let (member, qdrant) = server_of(config, member)?;
        let names: Vec<CollectionName> =
            names.iter().map(|name| CollectionName::new(name)).collect::<Result<_>>()?;
        let store = open_qdrant(qdrant).await.map_err(|error| error.with_member(member))?;
        let done = match names.is_empty() {
            true => list(&store, output).await,
            false => adopt(&names, &store, tier, output).await,
        };
        // The tier has a store of its own; this one has nothing to make durable.
        drop(store);
        done.map_err(|error| error.with_member(member))
    }

    /// The member whose collections are meant.
    fn server_of<'a>(config: &'a Config, member: Option<&'a str>) -> Result<(&'a str, &'a QdrantConfig)> {
        let server = |name: &'a str| match &config.members.get(name)?.backend {
            BackendConfig::Qdrant(qdrant) if matches!(qdrant.place, QdrantPlace::Server(_)) => {
                Some((name, &**qdrant))
            }
            _ => None,
        };
        match member {
            Some(name) => server(name).ok_or_else(|| {
                Error::invalid(format!("`{name}` is no member of the config with a Qdrant server"))
            }),
            None => config
                .tier
                .members
                .iter()
                .find_map(|name| server(name))
                .ok_or_else(|| Error::invalid("no member of the config is a Qdrant server")),
        }
    }

    async fn list(store: &QdrantStore, output: Output) -> Result<()> {
        let foreign = store.foreign_collections(&Context::within(CALL)).await?;
        let value: Vec<Value> = foreign
            .iter()
            .map(|found| {
                json!({
                    "name": found.name,
                    "points": found.points,
                    "adoptable": found.spec.is_ok(),
                    "why_not": found.spec.as_ref().err(),
                })
            })
            .collect();
        output.print(&json!(value), || {
            if foreign.is_empty() {
                return "every collection of the server is part of the tier".to_owned();
            }
            let row = |found: &ForeignCollection| {
                [
                    found.name.clone(),
                    found.points.to_string(),
                    found.spec.as_ref().map_or_else(Clone::clone, vectors),
                ]
            };
            table(["collection", "points", "vectors, or why it cannot be adopted"], foreign.iter().map(row))
        });
        Ok(())
    }

    fn vectors(spec: &mainstay::CollectionSpec) -> String {
        let vectors = spec.vectors.iter().map(|(name, vector)| {
            let name = if name.is_default() { String::new() } else { format!("{}: ", name.as_str()) };
            match vector {
                VectorSpec::Dense { dimension, distance } => {
                    format!("{name}{dimension} {}", distance.as_str())
                }
                VectorSpec::Sparse => format!("{name}sparse"),
            }
        });
        vectors.collect::<Vec<_>>().join(", ")
    }

    async fn adopt(names: &[CollectionName], store: &QdrantStore, tier: &Tier, output: Output) -> Result<()> {
        let foreign = store.foreign_collections(&Context::within(CALL)).await?;
        let mut adopted = Vec::new();
        for name in names {
            let found = foreign.iter().find(|found| found.name == name.as_str());
            let bar = output.bar(found.map_or(0, |found| found.points), "preparing");
            let progress = |read: u64| bar.set_position(read);
            let call = || Context::within(CALL);
            let prepared = store.prepare_adoption(name, call, &progress).await;
            bar.finish_and_clear();
            let (spec, id) = prepared?;
            let lsn = tier.adopt_collection(spec, id).await?.lsn;
            let points = tier.reader().at_least(lsn).whole().count(name, None).await?.value;
            adopted.push(json!({ "name": name.as_str(), "points": points, "lsn": lsn.0 }));
        }
        output.note("loading the other members");
        let loaded = load(tier).await;
        let value = json!({ "adopted": adopted, "equal": loaded.is_ok() });
        output.print(&value, || {
            let lines =
                adopted.iter().map(|found| format!("adopted {}: {} points", found["name"], found["points"]));
            lines.collect::<Vec<_>>().join("\n")
        });
        loaded
    }

    /// Waits until every member holds what was adopted, as long as they are on their way.
    async fn load(tier: &Tier) -> Result<()> {
        loop {
            let late = match tier.wait_caught_up(LOOK).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let on_its_way = |state| matches!(state, MemberState::Bootstrapping | MemberState::CatchingUp);
            if !tier.status().members.iter().any(|member| on_its_way(member.state)) {
                return Err(late);
            }
        }
    }
}
