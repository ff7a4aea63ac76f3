//! What can be typed.

#[cfg(feature = "snapshots")]
pub mod snapshot;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mainstay_cli::drill::{Fault, LoadOptions};

/// Vector search that stays up: operate a tier from a shell.
#[derive(Parser)]
#[command(name = "mainstay", version, about, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// The config of the tier.
    #[arg(long, short, global = true, default_value = "mainstay.toml", env = "MAINSTAY_CONFIG")]
    pub config: PathBuf,
    /// How answers are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// No progress on the terminal.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The arguments of this process.
    ///
    /// # Errors
    /// As clap's, also for arguments that do not fit together.
    pub fn of_process() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        #[cfg(feature = "snapshots")]
        if let Command::Snapshot(snapshot::SnapshotCommand::Restore(args)) = &cli.command
            && let Some(problem) = args.problem()
        {
            let kind = clap::error::ErrorKind::MissingRequiredArgument;
            return Err(<Self as clap::CommandFactory>::command().error(kind, problem));
        }
        Ok(cli)
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong input, config or name · 3 a drill broke a promise · \
4 nobody can answer (down, timed out, log in use) · 5 data damaged or no room left";

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON value, for programs; errors too, on standard error.
    Json,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Write a commented mainstay.toml.
    Init {
        /// Overwrite a file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Look at the config.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show health, members, breakers, log and service level; exit code 4 if no member can answer, 5 if the log takes
    /// no writes.
    Status {
        /// Show it again and again, this often, until it is interrupted: live on a terminal, else a line each time.
        #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = interval)]
        watch: Option<Duration>,
    },
    /// Print what happens to the tier, one line an event, until it is interrupted: to the one that a process holds, or
    /// to one that is opened for it.
    Events,
    /// Let a member serve first, whatever the order of the tier, until `failback`. Like the next three, it is told to
    /// the process that holds the tier.
    Failover {
        /// The member.
        member: String,
    },
    /// Let a member that has come back serve first now, and the tier go by its order again.
    Failback {
        /// The member.
        member: String,
    },
    /// Take a member out of service until it is released.
    Quarantine {
        /// The member.
        member: String,
        /// Why, for status and events.
        #[arg(long, default_value = "no reason given")]
        reason: String,
    },
    /// Let a quarantined member come back.
    Release {
        /// The member.
        member: String,
        /// Load it anew from another member instead of going on from where it is.
        #[arg(long)]
        reload: bool,
    },
    /// List, create or drop collections.
    #[command(subcommand)]
    Collections(CollectionsCommand),
    /// Write the points of a JSONL or Parquet file; goes on where an earlier run stopped.
    Import(ImportArgs),
    /// Index the text and source files of a directory; a second run touches only what changed.
    Index(IndexArgs),
    /// Find the nearest points to a text or a vector.
    Search(SearchArgs),
    /// Show points by id.
    Get {
        /// The collection.
        collection: String,
        /// Numbers or UUIDs.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Show vectors too.
        #[arg(long)]
        with_vectors: bool,
    },
    /// Count points.
    Count {
        /// The collection.
        collection: String,
        /// Only points that this filter accepts: JSON in Qdrant's form, or @FILE.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Delete points by id or by filter.
    Delete {
        /// The collection.
        collection: String,
        /// Numbers or UUIDs.
        #[arg(long = "id", required_unless_present = "filter", conflicts_with = "filter")]
        ids: Vec<String>,
        /// Every point that this filter accepts: JSON in Qdrant's form, or @FILE.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Write the points of a collection to a JSONL or Parquet file.
    Export {
        /// The collection.
        collection: String,
        /// The file; .jsonl or .parquet.
        file: PathBuf,
        /// Only points that this filter accepts: JSON in Qdrant's form, or @FILE.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Take over Qdrant collections that Mainstay did not create, with their points; without names, list them. Nobody
    /// else may write to them from then on.
    Adopt {
        /// The collections.
        collections: Vec<String>,
        /// The member whose server holds them; the first Qdrant server of the tier if it is left out.
        #[arg(long)]
        member: Option<String>,
    },
    /// Copy everything that a store holds into another one, and compare them. A store is a member of the config by
    /// its name, http://HOST:PORT (a Qdrant server), qdrant:DIRECTORY, lance:DIRECTORY or s3://BUCKET/PREFIX (gs://,
    /// az://); no tier may use it meanwhile.
    Copy {
        /// The store to read.
        from: String,
        /// The store to write; it must be empty.
        into: String,
        /// Let go what the target holds.
        #[arg(long)]
        replace: bool,
    },
    /// Say which points two stores hold differently, by ids and versions; exit code 3 if there are any.
    Diff {
        /// The first store, written as for `copy`.
        a: String,
        /// The second store.
        b: String,
        /// Compare everything that the points hold.
        #[arg(long)]
        deep: bool,
    },
    /// Say how much memory points would take in a memory member, and whether it would be filled with them; exit code 5
    /// if it would not.
    Estimate(EstimateArgs),
    /// Compare the members of the tier with each other, to find what somebody wrote to one store behind the tier's back;
    /// exit code 3 if there is any.
    Drift(DriftArgs),
    /// Make, look at and restore snapshots.
    #[cfg(feature = "snapshots")]
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Rehearse a fault.
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Index source files into LanceDB + memory, lose the primary twice under load, check every promise.
    Demo(DemoArgs),
}

/// Commands on the config.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print the effective config, or every problem at once.
    Check,
}

/// Commands on collections.
#[derive(Subcommand)]
pub enum CollectionsCommand {
    /// List collections with their points.
    List,
    /// Create a collection.
    Create {
        /// Its name.
        name: String,
        /// Numbers in a vector.
        #[arg(long)]
        dimension: usize,
        /// cosine, dot, euclidean or manhattan.
        #[arg(long, default_value = "cosine")]
        distance: String,
        /// A payload index, such as lang=keyword; keyword, integer, float, bool or datetime.
        #[arg(long = "index", value_name = "PATH=KIND")]
        indexes: Vec<String>,
    },
    /// Drop a collection with all its points.
    Drop {
        /// Its name.
        name: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// Arguments of `import`.
#[derive(Args)]
pub struct ImportArgs {
    /// The collection; created from the first points if it is not there.
    pub collection: String,
    /// The file; .jsonl or .parquet.
    pub file: PathBuf,
    /// The distance of a new collection.
    #[arg(long, default_value = "cosine")]
    pub distance: String,
    /// Start over instead of going on where an earlier run stopped.
    #[arg(long)]
    pub restart: bool,
    /// Points in one write.
    #[arg(long, default_value_t = 1_000)]
    pub batch: usize,
}

/// Arguments of `index`.
#[derive(Args)]
pub struct IndexArgs {
    /// The directory.
    pub directory: PathBuf,
    /// The collection; created if it is not there.
    #[arg(long)]
    pub collection: String,
    /// Most characters in one chunk.
    #[arg(long, default_value_t = mainstay_cli::index::DEFAULT_CHUNK_CHARS)]
    pub chunk_chars: usize,
    /// The name of the directory in the collection; its own name if it is left out.
    #[arg(long)]
    pub source: Option<String>,
}

/// Arguments of `estimate`.
#[derive(Args)]
pub struct EstimateArgs {
    /// A directory as `index` reads it, a file as `import` reads it, or a member of the config.
    #[arg(required = true)]
    pub targets: Vec<String>,
    /// Numbers in a vector of an indexed directory.
    #[arg(long, default_value_t = mainstay::core::embed::DEFAULT_DIMENSION)]
    pub dimension: usize,
    /// Most characters in one chunk of an indexed directory.
    #[arg(long, default_value_t = mainstay_cli::index::DEFAULT_CHUNK_CHARS)]
    pub chunk_chars: usize,
    /// The distance of the points of a file.
    #[arg(long, default_value = "cosine")]
    pub distance: String,
    /// The numbers of the search graph, f32, f16 or i8, instead of what the config says.
    #[arg(long)]
    pub quantization: Option<String>,
    /// Most memory, such as 4GiB, instead of what the config says.
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
}

/// Arguments of `search`.
#[derive(Args)]
pub struct SearchArgs {
    /// The collection.
    pub collection: String,
    /// Search by a text, with the built-in lexical embedding.
    #[arg(long, required_unless_present = "vector_file", conflicts_with = "vector_file")]
    pub text: Option<String>,
    /// Search by a vector: a file with a JSON list of numbers.
    #[arg(long)]
    pub vector_file: Option<PathBuf>,
    /// Only points that this filter accepts: JSON in Qdrant's form, or @FILE.
    #[arg(long)]
    pub filter: Option<String>,
    /// How many hits.
    #[arg(long, short = 'n', default_value_t = 10)]
    pub limit: usize,
    /// How many of the nearest to pass over.
    #[arg(long, default_value_t = 0)]
    pub offset: usize,
    /// Only hits at least this near.
    #[arg(long, allow_negative_numbers = true)]
    pub threshold: Option<f32>,
    /// Compare with every point.
    #[arg(long)]
    pub exact: bool,
    /// Show vectors too.
    #[arg(long)]
    pub with_vectors: bool,
}

/// Arguments of `drift`.
#[derive(Args)]
pub struct DriftArgs {
    /// Make the members equal again: log-wins (what the log wrote is written again) or primary-wins (what the first
    /// member holds is written to the log, deletions too).
    #[arg(long, value_name = "POLICY")]
    pub repair: Option<String>,
    /// Compare everything that all points hold; otherwise the share of them that drift.deep says.
    #[arg(long)]
    pub deep: bool,
    /// Most points read in a second; drift.points_per_second if it is left out.
    #[arg(long)]
    pub points_per_second: Option<u32>,
    /// Seconds that members have to catch up before they are compared; those that do not are left out.
    #[arg(long, default_value_t = 60)]
    pub wait: u64,
}

/// Rehearsed faults.
#[derive(Subcommand)]
pub enum DrillCommand {
    /// Take a member's directory away under load, give it back, then once more an empty one; the drill works on
    /// a collection of its own, but the member it loses is real.
    LoseMember {
        /// The member; the first one with a directory if it is left out.
        #[arg(long)]
        member: Option<String>,
        /// Seconds that it is gone, each time.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Start a Qdrant member's server, then kill it, wipe it, freeze it, drop its packets and cut its connections
    /// under load. The server must not run yet; its storage is wiped.
    LoseServer(LoseServerArgs),
}

/// Arguments of `drill lose-server`.
#[derive(Args)]
pub struct LoseServerArgs {
    /// The member.
    #[arg(long)]
    pub member: String,
    /// The directory where the server stores its data; it is emptied when the server is wiped.
    #[arg(long)]
    pub storage: PathBuf,
    /// Seconds that each outage lasts.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Only this fault; may be given several times.
    #[arg(long = "fault", value_enum)]
    pub faults: Vec<Fault>,
    /// Outages, one fault after the other; each fault once if it is left out.
    #[arg(long, conflicts_with = "minutes")]
    pub rounds: Option<usize>,
    /// Go on for so long with faults at random.
    #[arg(long)]
    pub minutes: Option<u32>,
    /// Seconds from one random fault to the next, unless the members take longer to catch up.
    #[arg(long, default_value_t = 20, requires = "minutes")]
    pub every: u64,
    /// The order of random faults follows from it.
    #[arg(long, default_value_t = 1, requires = "minutes")]
    pub seed: u64,
    /// Tasks that search.
    #[arg(long, default_value_t = LoadOptions::default().searchers)]
    pub searchers: usize,
    /// Tasks that write.
    #[arg(long, default_value_t = LoadOptions::default().writers)]
    pub writers: usize,
    /// The command that starts the server, after `--`.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// A directory with source files; may be given several times.
    #[arg(long = "sources", required = true)]
    pub sources: Vec<PathBuf>,
    /// Where the tier is built; a temporary directory, removed at the end, if it is left out.
    #[arg(long)]
    pub work_dir: Option<PathBuf>,
    /// Files to index at least; fewer break the demo.
    #[arg(long, default_value_t = 1_000)]
    pub min_files: usize,
    /// Seconds that the primary is gone, each time.
    #[arg(long, default_value_t = 8)]
    pub seconds: u64,
    /// Serve the metrics of the tier at this address meanwhile, such as 127.0.0.1:9464 (cargo feature `prometheus`).
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
}

/// Shortest and longest time between two looks at a status.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|_| "write for example 500ms or 5s".to_owned())?;
    if INTERVALS.contains(&interval) { Ok(interval) } else { Err("is outside 100ms to 1h".to_owned()) }
}
