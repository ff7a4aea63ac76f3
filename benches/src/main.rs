//! Benchmarks: both sides of every ratio in one run, medians of several rounds.

mod breaker;
#[cfg(feature = "qdrant")]
mod fastest;
mod log;
mod memory;
#[cfg(feature = "qdrant")]
mod qdrant;
mod report;
#[cfg(feature = "qdrant")]
mod server;
mod snapshot;
mod tier;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use mainstay::Result;

use crate::report::Format;
use mainstay_tests::dataset::Dataset;

/// Benchmarks of Mainstay, both sides in one run.
#[derive(Parser)]
#[command(name = "mainstay-bench")]
struct Cli {
    /// What to measure.
    what: What,
    /// A directory with points.parquet and queries.parquet; generated vectors if it is left out.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// How many points are generated for `snapshot`, if there is no dataset.
    #[arg(long, default_value_t = 100_000)]
    points: usize,
    /// How figures are printed; JSON is one object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The circuit breaker beside those of other crates, and a guarded call beside a bare one.
    Breaker,
    /// Appends to the log beside bare appends to a file.
    Log,
    /// A search through the tier beside the same store called directly.
    Tier,
    /// The memory store beside bare usearch.
    Memory,
    /// Snapshots beside the same bytes packed and synced, beside JSON text, and while searches run.
    Snapshot,
    /// A tier over Qdrant beside the bare client.
    #[cfg(feature = "qdrant")]
    Qdrant,
    /// A tier that reads from the fastest of Qdrant and memory, beside the bare client.
    #[cfg(feature = "qdrant")]
    Fastest,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let dataset = || cli.dataset.as_deref().map_or_else(|| Ok(Dataset::generated()), Dataset::read);
    let figures = match cli.what {
        What::Breaker => breaker::run().await?,
        What::Log => log::run().await?,
        What::Tier => tier::run(&dataset()?).await?,
        What::Memory => memory::run(&dataset()?).await?,
        What::Snapshot => {
            let generated = || Ok(Dataset::clusters(cli.points, 300));
            snapshot::run(&cli.dataset.as_deref().map_or_else(generated, Dataset::read)?).await?
        }
        #[cfg(feature = "qdrant")]
        What::Qdrant => qdrant::run(&dataset()?).await?,
        #[cfg(feature = "qdrant")]
        What::Fastest => fastest::run(&dataset()?).await?,
    };
    report::print(&figures, cli.format);
    Ok(())
}
