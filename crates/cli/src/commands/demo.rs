//! `demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay::config::{BackendConfig, LanceConfig, MemberConfig, MemoryConfig};
use mainstay::{CollectionName, Config, Embedder, Error, ErrorKind, HashEmbedder, Point, Result, Tier};
use mainstay_cli::drill::LoseMember;
use mainstay_cli::index::{Corpus, Recipe, SourceFile, read_source, walk};

use super::{drill, index};
use crate::args::DemoArgs;
use crate::output::Output;

/// Files indexed at most; more would only make the demo longer.
const MOST_FILES: usize = 1_200;
/// Chunks of one file that are indexed at most.
const CHUNKS_PER_FILE: usize = 3;
/// Most characters in one chunk.
const CHUNK_CHARS: usize = 1_500;

/// Builds a tier, indexes real source files, loses the primary twice under load, and checks every promise.
pub async fn run(args: DemoArgs, output: Output) -> Result<ExitCode> {
    let work = WorkDir::new(args.work_dir)?;
    let mut config = config(work.path());
    config.metrics.listen = args.metrics;
    let tier = Tier::open(config.clone()).await?;
    let done = scenes(&tier, &config, &args.sources, args.min_files, args.seconds, output).await;
    let closed = tier.close().await;
    let code = done?;
    closed.map(|()| code)
}

/// LanceDB on disk as primary, memory as standby.
fn config(work: &Path) -> Config {
    let mut config = Config::default();
    config.tier.members = vec!["primary".into(), "standby".into()];
    config.tier.deadline = Duration::from_secs(30);
    config.log.path = work.join("log");
    let lance = LanceConfig::new(work.join("lance").to_string_lossy());
    config.members = [
        ("primary".to_owned(), MemberConfig::new(BackendConfig::Lance(lance))),
        ("standby".to_owned(), MemberConfig::new(BackendConfig::Memory(MemoryConfig::default()))),
    ]
    .into();
    config
}

async fn scenes(
    tier: &Tier,
    config: &Config,
    sources: &[PathBuf],
    min_files: usize,
    seconds: u64,
    output: Output,
) -> Result<ExitCode> {
    let collection = CollectionName::new("sources")?;
    let embedder = index::prepare(tier, &collection).await?;
    let start = Instant::now();
    let (files, points) = index_sources(tier, &collection, &embedder, sources, output).await?;
    tier.wait_caught_up(drill::PATIENCE).await?;
    output.note(&format!(
        "indexed {points} chunks of {files} source files in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let fault = LoseMember::of(config, "primary")?.lasting(Duration::from_secs(seconds), drill::PATIENCE);
    let outcome =
        drill::rounds(tier, &collection, embedder.dimension(), &fault, Some((files, min_files)), output)
            .await?;
    Ok(outcome.print(output))
}

async fn index_sources(
    tier: &Tier,
    collection: &CollectionName,
    embedder: &HashEmbedder,
    sources: &[PathBuf],
    output: Output,
) -> Result<(usize, usize)> {
    let recipe = Recipe::new(CHUNK_CHARS, embedder.name());
    let bar = output.bar(MOST_FILES as u64, "indexing files");
    let (mut files, mut total) = (0, 0);
    let mut waiting: Vec<Point> = Vec::new();
    'all: for directory in sources {
        let corpus = Corpus {
            collection: collection.clone(),
            source: directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        for file in walk(directory, &recipe)?.files.into_iter().filter(|file| file.path.ends_with(".rs")) {
            let Some(points) = first_chunks(&corpus, &recipe, embedder, &file) else { continue };
            files += 1;
            total += points.len();
            waiting.extend(points);
            bar.inc(1);
            if waiting.len() >= 512 {
                tier.upsert(collection, std::mem::take(&mut waiting)).await?;
            }
            if files >= MOST_FILES {
                break 'all;
            }
        }
    }
    if !waiting.is_empty() {
        tier.upsert(collection, waiting).await?;
    }
    bar.finish_and_clear();
    Ok((files, total))
}

fn first_chunks(
    corpus: &Corpus,
    recipe: &Recipe,
    embedder: &HashEmbedder,
    file: &SourceFile,
) -> Option<Vec<Point>> {
    let text = read_source(&file.location).ok()?;
    let chunks = recipe.chunks(&text);
    let count = chunks.len().min(CHUNKS_PER_FILE);
    let points = chunks[..count]
        .iter()
        .map(|chunk| corpus.chunk_point(&file.path, &file.hash, count, chunk, embedder.vector(chunk.text)));
    (count > 0).then(|| points.collect())
}

/// The demo's directory; removed at the end unless the caller named it.
struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    fn new(named: Option<PathBuf>) -> Result<Self> {
        let temporary = named.is_none();
        let path = named
            .unwrap_or_else(|| std::env::temp_dir().join(format!("mainstay-demo-{}", std::process::id())));
        std::fs::create_dir_all(&path).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("cannot make {}: {error}", path.display()))
                .with_source(error)
        })?;
        Ok(Self { path, temporary })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary {
            // A leftover in the temporary directory is nobody's loss.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
