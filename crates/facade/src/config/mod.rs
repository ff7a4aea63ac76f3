//! The config of a tier: one TOML file, defaults below it and the environment above it.
//!
//! Every key can be set by a variable: `MAINSTAY_`, then the levels of the key in capitals with
//! two underscores between them, such as `MAINSTAY_TIER__ACK=journal` or
//! `MAINSTAY_MEMBERS__PRIMARY__URI=/data/lance`; a list is given as words divided by commas.
//! Reading never stops at the first problem: [`ConfigErrors`] holds all of them, each with its
//! key and its place. A config holds no secret, and its URIs are refused if they carry one.

mod check;
mod drift;
mod layers;
mod metrics;
mod parse;
mod problem;
mod qdrant;
mod read;
mod reads;
mod shadow;
mod snapshots;
mod storage;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::metrics::MetricsConfig;
pub use drift::{DriftConfig, DriftPolicy};
pub use problem::{ConfigErrors, Origin, Problem};
pub use qdrant::{
    Compression, KeySource, Placement, QdrantConfig, QdrantPlace, ReadConsistency, VectorQuantization,
    WriteOrdering,
};
pub use reads::{HedgeAfter, ReadPolicy};
pub use shadow::ShadowConfig;
pub use snapshots::{SaveMode, SnapshotsConfig};
pub use storage::StorageConfig;

/// What `log.path` says for a log that is kept in memory alone.
pub const IN_MEMORY: &str = ":memory:";
/// Most members of a tier.
pub const MAX_MEMBERS: usize = 16;
/// The backends that this version knows, whether or not they are compiled in.
pub const BACKENDS: [&str; 3] = ["memory", "lance", "qdrant"];

/// How a tier is made up. A config made by [`load`](Self::load) or [`from_toml`](Self::from_toml)
/// is checked; one built in code is checked by [`check`](Self::check).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The tier as a whole.
    pub tier: TierConfig,
    /// The members by name, exactly those that `tier.members` lists.
    pub members: BTreeMap<String, MemberConfig>,
    /// The write log.
    pub log: LogConfig,
    /// The circuit breaker before each member.
    pub breaker: BreakerConfig,
    /// Trying a read again after every member failed.
    pub retry: RetryConfig,
    /// When the tier looks at its members.
    pub failover: FailoverConfig,
    /// Where metrics are served.
    pub metrics: MetricsConfig,
    /// Comparing the members with each other.
    pub drift: DriftConfig,
    /// Searches that a standby answers too.
    pub shadow: ShadowConfig,
    /// Snapshots, and the log between them.
    pub snapshots: SnapshotsConfig,
}

/// The tier as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct TierConfig {
    /// The names of the members; the order is the preference, the first one is the primary.
    pub members: Vec<String>,
    /// What a write waits for.
    pub ack: Ack,
    /// How long a call may take when the caller sets no deadline. 5 s: time for a slow member to
    /// time out and the next one to answer, short of what a person waits for.
    pub deadline: Duration,
    /// Which member a read asks first.
    pub read: ReadPolicy,
    /// When a read that is not answered yet asks the next member too.
    pub hedge_after: HedgeAfter,
    /// Most bytes of points in one write. 8 MiB: one log entry stays cheap to hold and to replay.
    pub max_batch_bytes: u64,
    /// Most points in one write. 10,000: what the stores apply in well under a second.
    pub max_batch_points: usize,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            ack: Ack::Active,
            deadline: Duration::from_secs(5),
            read: ReadPolicy::default(),
            hedge_after: HedgeAfter::default(),
            max_batch_bytes: 8 << 20,
            max_batch_points: 10_000,
        }
    }
}

/// What a write waits for after it is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The active member has it, so that a search right after the write finds it.
    #[default]
    Active,
    /// Nothing more: it is durable in the log, and members follow.
    Journal,
    /// Every member has it.
    All,
}

impl Ack {
    pub(crate) const WORDS: [(&'static str, Self); 3] =
        [("active", Self::Active), ("journal", Self::Journal), ("all", Self::All)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Journal => "journal",
            Self::All => "all",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberConfig {
    /// The store.
    pub backend: BackendConfig,
    /// How long one read may take before the next member is asked. 2 s; in a tier whose deadline
    /// is below 4 s, half the deadline, so that time is left for the next member.
    pub timeout: Duration,
    /// How long one run of log entries may take to apply. 30 s: a store that builds an index or
    /// compacts is slow, not gone.
    pub write_timeout: Duration,
    /// Most calls in flight at once. 64: beyond it a store only queues, and the queue is better
    /// kept where a deadline watches it.
    pub max_concurrent: usize,
}

impl MemberConfig {
    /// How long one read may take if the config does not say.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

    /// A member with this store and the defaults for the rest.
    pub fn new(backend: BackendConfig) -> Self {
        Self {
            backend,
            timeout: Self::DEFAULT_TIMEOUT,
            write_timeout: Duration::from_secs(30),
            max_concurrent: 64,
        }
    }
}

/// The store of a member.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendConfig {
    /// In this process's memory.
    Memory(MemoryConfig),
    /// LanceDB on disk or object storage.
    Lance(LanceConfig),
    /// Qdrant: a server or cluster, or a directory in this process.
    Qdrant(Box<QdrantConfig>),
}

impl BackendConfig {
    /// The word in the config.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Lance(_) => "lance",
            Self::Qdrant(_) => "qdrant",
        }
    }

    /// The cargo feature that it needs.
    pub fn feature(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Lance(lance) if storage::is_object_store(&lance.uri) => "lance-cloud",
            Self::Lance(_) => "lance",
            Self::Qdrant(qdrant) => qdrant.feature(),
        }
    }

    /// The directory of this machine that holds the store, if there is one.
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Memory(_) => None,
            Self::Lance(lance) => check::local_path(&lance.uri),
            Self::Qdrant(qdrant) => match &qdrant.place {
                QdrantPlace::Server(_) => None,
                QdrantPlace::Directory(path) => Some(path.clone()),
            },
        }
    }
}

/// A store in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryConfig {
    /// Most bytes of memory, a rebuild of the search graph included. 2 GiB: about a million points of 384
    /// dimensions in f32 without payloads, or half as many that change.
    pub max_memory: u64,
    /// What happens when `max_memory` is reached.
    pub when_full: WhenFull,
    /// Whether it may be filled with more than 500,000 points. No: so many take minutes and gigabytes.
    pub allow_red_zone: bool,
    /// The numbers that the search graph is made of.
    pub quantization: Quantization,
    /// Share of deleted points at which the search graph is rebuilt in the background, between 0
    /// and 1. 0.10: searches pay for the deleted points, a rebuild pays for all the others.
    pub tombstone_ratio: f64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            max_memory: 2 << 30,
            when_full: WhenFull::Refuse,
            allow_red_zone: false,
            quantization: Quantization::F32,
            tombstone_ratio: 0.10,
        }
    }
}

/// What happens when a store in memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It takes no more writes, and is not filled with more than it holds.
    #[default]
    Refuse,
    /// It keeps the points used last and says that it is partial; it is asked when nobody else can answer.
    Partial,
}

impl WhenFull {
    pub(crate) const WORDS: [(&'static str, Self); 2] =
        [("refuse", Self::Refuse), ("partial", Self::Partial)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Partial => "partial",
        }
    }
}

/// The numbers that a search graph is made of; candidates are re-scored exactly in each case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantization {
    /// 4 bytes a dimension, nothing lost.
    #[default]
    F32,
    /// 2 bytes a dimension, beside the exact vectors.
    F16,
    /// 1 byte a dimension, beside the exact vectors, and the fastest.
    I8,
}

impl Quantization {
    pub(crate) const WORDS: [(&'static str, Self); 3] =
        [("f32", Self::F32), ("f16", Self::F16), ("i8", Self::I8)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }
}

/// A LanceDB database.
#[derive(Clone, Debug, PartialEq)]
pub struct LanceConfig {
    /// A directory on this machine, or a prefix of an object store: `s3://bucket/prefix`, `gs://…`, `az://…`
    /// (cargo feature `lance-cloud`).
    pub uri: String,
    /// How the object store is reached.
    pub storage: StorageConfig,
    /// Rows from which a table gets a vector index. 50,000: below it a full scan answers within
    /// some ten milliseconds and is exact.
    pub index_threshold_rows: usize,
    /// How long old versions of a table stay for readers that are still on them. 1 min: longer than any
    /// search.
    pub keep_versions: Duration,
}

impl LanceConfig {
    /// A database at this place with the defaults for the rest.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            storage: StorageConfig::default(),
            index_threshold_rows: 50_000,
            keep_versions: Duration::from_secs(60),
        }
    }
}

/// The write log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// The log's directory, or [`IN_MEMORY`]: such a log ends with the process, and only members
    /// that end with it too can follow it.
    pub path: PathBuf,
    /// When an entry is made durable.
    pub sync: Sync,
    /// How often under [`Sync::Periodic`]. 1 s: the most that a loss of power can take.
    pub sync_interval: Duration,
    /// Most bytes of entries kept. 1 GiB; a member that falls further behind is brought up from
    /// another member.
    pub max_bytes: u64,
}

impl LogConfig {
    /// Whether the log is kept in memory alone.
    pub fn is_in_memory(&self) -> bool {
        self.path.as_os_str() == IN_MEMORY
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/log"),
            sync: Sync::Immediate,
            sync_interval: Duration::from_secs(1),
            max_bytes: 1 << 30,
        }
    }
}

/// When an entry of the log is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before the write is acknowledged.
    #[default]
    Immediate,
    /// Every `sync_interval`; a loss of power can take what was acknowledged since.
    Periodic,
    /// When the application asks for it.
    Manual,
}

impl Sync {
    pub(crate) const WORDS: [(&'static str, Self); 3] =
        [("immediate", Self::Immediate), ("periodic", Self::Periodic), ("manual", Self::Manual)];

    /// The word in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::Periodic => "periodic",
            Self::Manual => "manual",
        }
    }
}

/// The circuit breaker before each member.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Failures in a row that open it. 5: more than one unlucky moment.
    pub failure_threshold: u32,
    /// Successes in a row that close it again. 2: one could be luck.
    pub success_threshold: u32,
    /// How long it stays open before a call may try again. 60 s: time for a restart.
    pub reset_timeout: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failure_threshold: 5, success_threshold: 2, reset_timeout: Duration::from_secs(60) }
    }
}

/// Trying a read again after every member failed.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// Most retries of one read. 3: with the delays, what a restarted connection takes.
    pub max_retries: u32,
    /// Longest wait before the first retry; it doubles for each further one. 50 ms.
    pub first_delay: Duration,
    /// The doubling ends here. 1 s.
    pub longest_delay: Duration,
    /// Retries as a share of all reads, 0 to 1. 0.1: retries never make an overload much worse.
    pub budget: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_retries: 3,
            first_delay: Duration::from_millis(50),
            longest_delay: Duration::from_secs(1),
            budget: 0.1,
        }
    }
}

/// When the tier looks at its members, and when it trusts one again.
#[derive(Clone, Debug, PartialEq)]
pub struct FailoverConfig {
    /// How often each member is asked whether it is there. 5 s: without it, a quiet tier would
    /// learn of a loss from its next search.
    pub check_interval: Duration,
    /// Whether a member that was away serves first again by itself.
    pub auto_restore: bool,
    /// How long it must have been live for that; it doubles for a member that fails again soon after. 60 s: a
    /// restart that was not the last one shows by then.
    pub restore_delay: Duration,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        let restore_delay = Duration::from_secs(60);
        Self { check_interval: Duration::from_secs(5), auto_restore: true, restore_delay }
    }
}

impl Config {
    /// Reads the file, lays the environment of this process over it and checks the result.
    /// Relative paths are taken from the file's directory.
    ///
    /// # Errors
    /// Every problem of the file and the environment.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_with_env(path, process_env()?)
    }

    /// [`load`](Self::load) with these variables instead of the process's.
    ///
    /// # Errors
    /// Every problem of the file and the variables.
    pub fn load_with_env(
        path: impl AsRef<Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let mut config = parse::parse(&text, Some(path), env)?;
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads a config from text and checks it. The environment has no say, and relative paths
    /// stay as they are.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        Self::from_toml_with_env(text, [])
    }

    /// [`from_toml`](Self::from_toml) with these variables over the text.
    ///
    /// # Errors
    /// Every problem of the text and the variables.
    pub fn from_toml_with_env(
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        parse::parse(text, None, env)
    }

    /// The commented file that `mainstay init` writes: LanceDB on disk, a standby in memory.
    pub const fn template() -> &'static str {
        include_str!("template.toml")
    }

    /// Whether every member's backend is among the compiled-in ones, and the page of metrics and the
    /// snapshots if they are wanted.
    ///
    /// # Errors
    /// One problem for each that is not.
    pub fn check_features(&self, compiled_in: &[&str]) -> Result<(), ConfigErrors> {
        let missing = self.members.iter().filter(|(_, m)| !compiled_in.contains(&m.backend.feature()));
        ConfigErrors::of(
            missing
                .map(|(name, member)| {
                    let (backend, feature) = (member.backend.name(), member.backend.feature());
                    Problem::new(
                        format!("members.{name}.backend"),
                        format!(
                            "member `{name}` wants backend `{backend}`: add the cargo feature `{feature}`"
                        ),
                    )
                })
                .chain(self.metrics.check_feature())
                .chain(self.snapshots.check_feature())
                .collect(),
        )
    }

    /// Takes relative paths from this directory.
    fn resolve_paths(&mut self, base: &Path) {
        if !self.log.is_in_memory() {
            self.log.path = base.join(&self.log.path);
        }
        self.snapshots.resolve_path(base);
        for member in self.members.values_mut() {
            match &mut member.backend {
                BackendConfig::Memory(_) => {}
                BackendConfig::Lance(lance) => {
                    if !check::has_scheme(&lance.uri) {
                        lance.uri = base.join(&lance.uri).to_string_lossy().into_owned();
                    }
                }
                BackendConfig::Qdrant(qdrant) => {
                    if let QdrantPlace::Directory(path) = &mut qdrant.place {
                        *path = base.join(&path);
                    }
                    if let Some(KeySource::File(path)) = &mut qdrant.api_key {
                        *path = base.join(&path);
                    }
                }
            }
        }
    }
}

/// This process's variables that are ours.
fn process_env() -> Result<Vec<(String, String)>, ConfigErrors> {
    let mut ours = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(layers::ENV_PREFIX)) else { continue };
        match value.into_string() {
            Ok(value) => ours.push((name.to_owned(), value)),
            Err(_) => problems
                .push(Problem::new("", "the variable's value is not UTF-8").at(Origin::Env(name.to_owned()))),
        }
    }
    ConfigErrors::of(problems).map(|()| ours)
}

fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    let shown = path.display();
    let fail = |problem: String| Problem::new("", problem);
    if path.is_dir() {
        return Err(ConfigErrors::one(
            fail(format!("{shown} is a directory"))
                .hint(format!("name the file in it, such as {shown}/mainstay.toml")),
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        ConfigErrors::one(match error.kind() {
            std::io::ErrorKind::NotFound => {
                fail(format!("there is no file {shown}")).hint("`mainstay init` writes one")
            }
            _ => fail(format!("cannot read {shown}: {error}")),
        })
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigErrors::one(
            fail(format!("not UTF-8 at byte {at}"))
                .hint("save the file as UTF-8")
                .at(Origin::File { path: Some(path.to_owned()), line: Some(line) }),
        )
    })
}
