//! What a config must hold to: names, ranges and places that fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::problem::{ConfigErrors, Problem, did_you_mean};
use super::qdrant::url_problem;
use super::write::{duration_text, size_text};
use super::{BackendConfig, Config, IN_MEMORY, LanceConfig, MAX_MEMBERS, QdrantConfig, QdrantPlace};

/// Below a millisecond nothing on the network answers; beyond an hour nobody waits.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
/// One small point fits; an entry stays within what one run may hold in memory.
const BATCH_BYTES: RangeInclusive<u64> = 4 << 10..=256 << 20;
/// From what an empty store takes to what no machine has.
const BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Longest name of a member, in bytes.
const MAX_NAME_BYTES: usize = 64;

impl Config {
    /// Checks a config that was built in code as a file would be.
    ///
    /// # Errors
    /// Every problem.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        ConfigErrors::of(check(self, &BTreeSet::new()))
    }
}

/// Every problem but those of keys that are known to be bad: those hold a default instead.
pub(super) fn check(config: &Config, bad_keys: &BTreeSet<String>) -> Vec<Problem> {
    let mut checks = Checks { config, bad_keys, problems: Vec::new() };
    checks.tier();
    checks.member_names();
    checks.members();
    checks.log();
    checks.places();
    checks.breaker_and_failover();
    checks.problems
}

struct Checks<'a> {
    config: &'a Config,
    bad_keys: &'a BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    fn report(&mut self, problem: Problem) {
        if !self.bad_keys.contains(&problem.key) {
            self.problems.push(problem);
        }
    }

    fn range<T: PartialOrd>(
        &mut self,
        key: &str,
        value: T,
        range: RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) {
        if !range.contains(&value) {
            self.report(Problem::new(
                key,
                format!("{} is outside {} to {}", show(&value), show(range.start()), show(range.end())),
            ));
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.range(key, value, DURATIONS, |duration| duration_text(*duration));
    }

    fn size(&mut self, key: &str, value: u64, range: RangeInclusive<u64>) {
        self.range(key, value, range, |size| size_text(*size));
    }

    fn count<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        self.range(key, value, range, T::to_string);
    }

    fn tier(&mut self) {
        let tier = &self.config.tier;
        self.duration("tier.deadline", tier.deadline);
        super::reads::check(tier.hedge_after).into_iter().for_each(|problem| self.report(problem));
        self.size("tier.max_batch_bytes", tier.max_batch_bytes, BATCH_BYTES);
        self.count("tier.max_batch_points", tier.max_batch_points, 1..=1_000_000);
    }

    fn member_names(&mut self) {
        const LIST: &str = "tier.members";
        let listed = &self.config.tier.members;
        // A member whose section could not be read is there all the same.
        let broken = self.bad_keys.iter().filter_map(|key| key.strip_prefix("members.")?.split('.').next());
        let defined: BTreeSet<&str> = self.config.members.keys().map(String::as_str).chain(broken).collect();
        if listed.is_empty() {
            let names: Vec<_> = defined.iter().map(|name| format!("{name:?}")).collect();
            let names = if names.is_empty() { "\"primary\"".to_owned() } else { names.join(", ") };
            self.report(
                Problem::new(LIST, "the tier has no members")
                    .hint(format!("list them in the order of preference: members = [{names}]")),
            );
        }
        if listed.len() > MAX_MEMBERS {
            self.report(Problem::new(
                LIST,
                format!("{} members; at most {MAX_MEMBERS} are allowed", listed.len()),
            ));
        }
        let mut seen = BTreeSet::new();
        for name in listed {
            if !seen.insert(name.as_str()) {
                self.report(Problem::new(LIST, format!("lists `{name}` twice")));
            } else if let Some(problem) = name_problem(name) {
                self.report(Problem::new(LIST, problem));
            } else if !defined.contains(name.as_str()) {
                let hint = did_you_mean(name, defined.iter().copied());
                self.report(
                    Problem::new(LIST, format!("lists `{name}`, which is not defined"))
                        .hint(hint.unwrap_or_else(|| format!("add a section [members.{name}]"))),
                );
            }
        }
        if self.bad_keys.contains(LIST) {
            return;
        }
        for name in defined {
            let key = format!("members.{name}");
            if let Some(problem) = name_problem(name) {
                self.report(Problem::new(key, problem));
            } else if !listed.is_empty() && !seen.contains(name) {
                let hint = did_you_mean(name, seen.iter().copied());
                self.report(
                    Problem::new(key, format!("`{name}` is defined, but tier.members does not list it"))
                        .hint(hint.unwrap_or_else(|| "add it to the list or remove the section".to_owned())),
                );
            }
        }
    }

    fn members(&mut self) {
        let deadline = self.config.tier.deadline;
        for (name, member) in &self.config.members {
            let key = |key: &str| format!("members.{name}.{key}");
            self.duration(&key("timeout"), member.timeout);
            if member.timeout > deadline && !self.bad_keys.contains("tier.deadline") {
                self.report(
                    Problem::new(
                        key("timeout"),
                        format!(
                            "{} is longer than tier.deadline ({}), which leaves no time for the next member",
                            duration_text(member.timeout),
                            duration_text(deadline)
                        ),
                    )
                    .hint("shorten it or raise the deadline"),
                );
            }
            self.duration(&key("write_timeout"), member.write_timeout);
            self.count(&key("max_concurrent"), member.max_concurrent, 1..=65_536);
            match &member.backend {
                BackendConfig::Memory(memory) => {
                    self.size(&key("max_memory"), memory.max_memory, BYTES);
                    let ratio = memory.tombstone_ratio;
                    if !(ratio > 0.0 && ratio < 1.0) {
                        self.report(Problem::new(
                            key("tombstone_ratio"),
                            format!("{ratio} is not between 0 and 1 (both excluded)"),
                        ));
                    }
                }
                BackendConfig::Lance(lance) => self.lance(&key, lance),
                BackendConfig::Qdrant(qdrant) => self.qdrant(&key, qdrant),
            }
        }
    }

    fn lance(&mut self, key: &impl Fn(&str) -> String, lance: &LanceConfig) {
        if lance.uri.trim().is_empty() {
            self.report(Problem::new(key("uri"), "is empty").hint("write a directory or a URI"));
        }
        let found = super::storage::check(key, "uri", &lance.uri, &lance.storage);
        found.into_iter().for_each(|problem| self.report(problem));
        self.count(&key("index_threshold_rows"), lance.index_threshold_rows, 256..=1_000_000_000);
        self.duration(&key("keep_versions"), lance.keep_versions);
    }

    fn qdrant(&mut self, key: &impl Fn(&str) -> String, qdrant: &QdrantConfig) {
        match &qdrant.place {
            QdrantPlace::Directory(path) => {
                if path.as_os_str().is_empty() {
                    self.report(Problem::new(key("path"), "is empty").hint("write a directory"));
                }
            }
            QdrantPlace::Server(urls) => {
                let name = if urls.len() == 1 { "url" } else { "urls" };
                for problem in urls.iter().filter_map(|url| url_problem(url)) {
                    self.report(Problem { key: key(name), ..problem });
                }
            }
        }
        self.duration(&key("connect_timeout"), qdrant.connect_timeout);
        self.count(&key("pool_size"), qdrant.pool_size, 1..=64);
        self.count(&key("shard_number"), qdrant.shard_number, 0..=1_024);
        self.count(&key("replication_factor"), qdrant.replication_factor, 0..=64);
        self.count(&key("write_consistency_factor"), qdrant.write_consistency_factor, 0..=64);
    }

    fn log(&mut self) {
        let log = &self.config.log;
        if log.path.as_os_str().is_empty() {
            self.report(
                Problem::new("log.path", "is empty").hint(format!("write a directory, or \"{IN_MEMORY}\"")),
            );
        }
        self.duration("log.sync_interval", log.sync_interval);
        self.size("log.max_bytes", log.max_bytes, BYTES);
        let two_batches = self.config.tier.max_batch_bytes.saturating_mul(2);
        if log.max_bytes < two_batches && !self.bad_keys.contains("tier.max_batch_bytes") {
            self.report(Problem::new(
                "log.max_bytes",
                format!(
                    "{} holds less than two batches of tier.max_batch_bytes ({})",
                    size_text(log.max_bytes),
                    size_text(self.config.tier.max_batch_bytes)
                ),
            ));
        }
    }

    /// No two stores at one place, and a log that lasts as long as what follows it.
    fn places(&mut self) {
        let log = &self.config.log;
        let log_place = (!log.is_in_memory()).then(|| comparable(&log.path));
        let mut taken: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for (name, member) in &self.config.members {
            // Every database at `memory://` is another one, and ends with the process.
            let Some((key, uri)) = lasting_place(&member.backend) else { continue };
            if uri.trim().is_empty() || uri.starts_with("memory://") {
                continue;
            }
            let key = format!("members.{name}.{key}");
            if log.is_in_memory() {
                self.report(
                    Problem::new(
                        "log.path",
                        format!("a log in memory is a new one at each start, and member `{name}` keeps its data longer"),
                    )
                    .hint("give the log a directory"),
                );
            }
            let place = local_path(&uri);
            if let (Some(place), Some(log_place)) = (&place, &log_place) {
                let place = comparable(place);
                if place == *log_place {
                    self.report(Problem::new(
                        "log.path",
                        format!("is also the directory of member `{name}`"),
                    ));
                } else if place.starts_with(log_place) || log_place.starts_with(&place) {
                    self.report(
                        Problem::new(
                            "log.path",
                            format!("lies inside the directory of member `{name}`, or around it"),
                        )
                        .hint("give each a directory of its own, so that losing one leaves the other"),
                    );
                }
            }
            let identity = place.map_or_else(|| PathBuf::from(uri.trim_end_matches('/')), |p| comparable(&p));
            if let Some(other) = taken.insert(identity, name) {
                self.report(Problem::new(
                    key,
                    format!("members `{other}` and `{name}` are at the same place"),
                ));
            }
        }
    }

    fn breaker_and_failover(&mut self) {
        let breaker = &self.config.breaker;
        self.count("breaker.failure_threshold", breaker.failure_threshold, 1..=1_000);
        self.count("breaker.success_threshold", breaker.success_threshold, 1..=1_000);
        self.duration("breaker.reset_timeout", breaker.reset_timeout);
        let retry = &self.config.retry;
        self.count("retry.max_retries", retry.max_retries, 0..=100);
        self.duration("retry.first_delay", retry.first_delay);
        self.duration("retry.longest_delay", retry.longest_delay);
        self.range("retry.budget", retry.budget, 0.0..=1.0, f64::to_string);
        self.duration("failover.check_interval", self.config.failover.check_interval);
        self.duration("failover.restore_delay", self.config.failover.restore_delay);
        let drift = super::drift::check(&self.config.drift);
        let shadow = super::shadow::check(&self.config.shadow);
        let snapshots = super::snapshots::check(&self.config.snapshots);
        drift.into_iter().chain(shadow).chain(snapshots).for_each(|problem| self.report(problem));
    }
}

/// Where a store is that outlives the process, and the key that says so.
fn lasting_place(backend: &BackendConfig) -> Option<(&'static str, String)> {
    match backend {
        BackendConfig::Memory(_) => None,
        BackendConfig::Lance(lance) => Some(("uri", lance.uri.clone())),
        BackendConfig::Qdrant(qdrant) => match &qdrant.place {
            QdrantPlace::Directory(path) => Some(("path", path.to_string_lossy().into_owned())),
            QdrantPlace::Server(urls) => Some(("url", urls.first().cloned().unwrap_or_default())),
        },
    }
}

fn name_problem(name: &str) -> Option<String> {
    let shown = name.escape_debug();
    if name.is_empty() {
        return Some("the name of a member is empty".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Some(format!(
            "the name of a member is {} bytes long; at most {MAX_NAME_BYTES} are allowed",
            name.len()
        ));
    }
    let bad = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))?;
    Some(format!("the member name \"{shown}\" contains {bad:?}; use ASCII letters, digits, `_` and `-`"))
}

/// Whether this is a URI of some service rather than a path.
pub(super) fn has_scheme(uri: &str) -> bool {
    uri.contains("://")
}

/// The directory that a URI means, if it means one.
pub(super) fn local_path(uri: &str) -> Option<PathBuf> {
    match uri.split_once("://") {
        None => Some(PathBuf::from(uri)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

/// A path without `.` and `..`, absolute if the working directory is known; links are not followed.
fn comparable(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
