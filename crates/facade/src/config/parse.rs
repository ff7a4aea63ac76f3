//! From text and variables to a checked config.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::layers::Layers;
use super::metrics;
use super::problem::{ConfigErrors, Origin, Problem, did_you_mean};
use super::read::{Reader, SECTIONS, Section};
use super::{
    Ack, BACKENDS, BackendConfig, Config, LanceConfig, MemberConfig, MemoryConfig, Quantization, Sync,
    WhenFull,
};
use super::{drift, qdrant, reads, shadow, snapshots, storage};

/// The keys of each backend, to say where a misplaced key belongs.
const BACKEND_KEYS: [(&str, &[&str]); 3] = [
    ("memory", &["max_memory", "when_full", "allow_red_zone", "quantization", "tombstone_ratio"]),
    ("lance", &["uri", storage::SECTION, "index_threshold_rows", "keep_versions"]),
    ("qdrant", qdrant::KEYS),
];

/// Reads and checks; every problem at once.
pub(super) fn parse(
    text: &str,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::new(text, file, env)?;
    let mut problems = std::mem::take(&mut layers.problems);
    let reader = Reader::new(&layers);
    let config = read(&reader);
    let (found, origins) = reader.finish();
    let bad_keys: BTreeSet<String> = found.iter().map(|problem| problem.key.clone()).collect();
    problems.extend(found);
    problems.extend(super::check::check(&config, &bad_keys).into_iter().map(|problem| {
        let origin = origin_of(&problem.key, &origins, &layers);
        problem.at(origin)
    }));
    let place = |problem: &Problem| {
        let first = problem.key.split('.').next().unwrap_or_default();
        SECTIONS.iter().position(|(name, _)| *name == first)
    };
    problems.sort_by_key(place);
    ConfigErrors::of(problems).map(|()| config)
}

fn origin_of(key: &str, origins: &BTreeMap<String, Origin>, layers: &Layers) -> Origin {
    origins.get(key).cloned().unwrap_or_else(|| layers.file_origin(key))
}

fn read(reader: &Reader<'_>) -> Config {
    let mut config = Config::default();
    let mut root = reader.root();

    let mut tier = root.section("tier");
    tier.list("members", &mut config.tier.members);
    tier.word("ack", &Ack::WORDS, &mut config.tier.ack);
    tier.duration("deadline", &mut config.tier.deadline);
    reads::read(&mut tier, &mut config.tier.read, &mut config.tier.hedge_after);
    tier.size("max_batch_bytes", &mut config.tier.max_batch_bytes);
    tier.count("max_batch_points", &mut config.tier.max_batch_points);
    tier.finish(belongs_to_section);

    for (name, mut section) in root.section("members").sections() {
        if let Some(member) = read_member(&mut section, config.tier.deadline) {
            config.members.insert(name, member);
        }
        section.finish(|key| belongs_to_backend(key).or_else(|| belongs_to_section(key)));
    }

    let mut log = root.section("log");
    if let Some(path) = log.text("path") {
        config.log.path = path.into();
    }
    log.word("sync", &Sync::WORDS, &mut config.log.sync);
    log.duration("sync_interval", &mut config.log.sync_interval);
    log.size("max_bytes", &mut config.log.max_bytes);
    log.finish(belongs_to_section);

    let mut breaker = root.section("breaker");
    breaker.count("failure_threshold", &mut config.breaker.failure_threshold);
    breaker.count("success_threshold", &mut config.breaker.success_threshold);
    breaker.duration("reset_timeout", &mut config.breaker.reset_timeout);
    breaker.finish(belongs_to_section);

    let mut retry = root.section("retry");
    retry.count("max_retries", &mut config.retry.max_retries);
    retry.duration("first_delay", &mut config.retry.first_delay);
    retry.duration("longest_delay", &mut config.retry.longest_delay);
    retry.number("budget", &mut config.retry.budget);
    retry.finish(belongs_to_section);

    let mut failover = root.section("failover");
    failover.duration("check_interval", &mut config.failover.check_interval);
    failover.flag("auto_restore", &mut config.failover.auto_restore);
    failover.duration("restore_delay", &mut config.failover.restore_delay);
    failover.finish(belongs_to_section);

    let mut section = root.section("metrics");
    metrics::read(&mut section, &mut config.metrics);
    section.finish(belongs_to_section);

    let mut section = root.section("drift");
    drift::read(&mut section, &mut config.drift);
    section.finish(belongs_to_section);

    let mut section = root.section("shadow");
    shadow::read(&mut section, &mut config.shadow);
    section.finish(belongs_to_section);

    let mut section = root.section("snapshots");
    snapshots::read(&mut section, &mut config.snapshots);
    section.finish(belongs_to_section);

    root.finish(belongs_to_section);
    config
}

/// Reads a member; `None` (with a problem recorded) if its backend is unknown.
fn read_member(section: &mut Section<'_>, deadline: Duration) -> Option<MemberConfig> {
    let backend = section.text("backend");
    let backend = match backend.as_deref().map(str::trim) {
        Some("memory") => Some(read_memory(section)),
        Some("lance") => Some(read_lance(section)),
        Some("qdrant") => Some(BackendConfig::Qdrant(Box::new(qdrant::read(section)))),
        Some(other) => {
            section.problem("backend", unknown_backend(other));
            None
        }
        None => {
            let known = BACKENDS.map(|name| format!("\"{name}\"")).join(" or ");
            section
                .problem("backend", Problem::new("", "is not set").hint(format!("write backend = {known}")));
            None
        }
    };
    if backend.is_none() {
        // Which keys belong here is not known, so none of them is called unknown.
        for (_, keys) in BACKEND_KEYS {
            section.pass_over(keys);
        }
    }
    let known = backend.is_some();
    let mut member =
        MemberConfig::new(backend.unwrap_or_else(|| BackendConfig::Memory(MemoryConfig::default())));
    member.timeout = section
        .optional_duration("timeout")
        .unwrap_or_else(|| MemberConfig::DEFAULT_TIMEOUT.min(deadline / 2));
    section.duration("write_timeout", &mut member.write_timeout);
    section.count("max_concurrent", &mut member.max_concurrent);
    known.then_some(member)
}

fn read_memory(section: &mut Section<'_>) -> BackendConfig {
    let mut memory = MemoryConfig::default();
    section.size("max_memory", &mut memory.max_memory);
    section.word("when_full", &WhenFull::WORDS, &mut memory.when_full);
    section.flag("allow_red_zone", &mut memory.allow_red_zone);
    section.word("quantization", &Quantization::WORDS, &mut memory.quantization);
    section.number("tombstone_ratio", &mut memory.tombstone_ratio);
    BackendConfig::Memory(memory)
}

fn read_lance(section: &mut Section<'_>) -> BackendConfig {
    let set = section.has("uri");
    let mut lance = LanceConfig::new(section.text("uri").unwrap_or_default());
    if !set {
        let hint = "write a directory or a URI, such as uri = \"data/lance\"";
        section.problem("uri", Problem::new("", "is not set").hint(hint));
    }
    lance.storage = storage::read(section.section(storage::SECTION));
    section.count("index_threshold_rows", &mut lance.index_threshold_rows);
    section.duration("keep_versions", &mut lance.keep_versions);
    BackendConfig::Lance(lance)
}

fn unknown_backend(name: &str) -> Problem {
    let known = BACKENDS.map(|name| format!("`{name}`")).join(", ");
    let problem = format!("there is no backend \"{}\"; there are {known}", name.escape_debug());
    let hint = if name == "qdrant-edge" {
        Some("write backend = \"qdrant\" with a path".to_owned())
    } else {
        did_you_mean(name, BACKENDS)
    };
    Problem::new("", problem).hint_if(hint)
}

/// The section that a misplaced key belongs to.
fn belongs_to_section(key: &str) -> Option<String> {
    let (section, _) = SECTIONS.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(format!("`{key}` belongs to [{section}]"))
}

fn belongs_to_backend(key: &str) -> Option<String> {
    let (backend, _) = BACKEND_KEYS.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(format!("`{key}` is a key of backend `{backend}`"))
}
