//! `import`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mainstay::{CollectionName, Config, Distance, Error, ErrorKind, Result, Tier};
use mainstay_cli::import::{BatchLimits, Import, ResumePoint};
use mainstay_cli::survey::spec_for;
use serde_json::json;

use crate::args::ImportArgs;
use crate::output::Output;

/// Writes the points of a file.
pub async fn run(args: ImportArgs, config: &Config, tier: &Tier, output: Output) -> Result<()> {
    let collection = CollectionName::new(&args.collection)?;
    let place = ResumeFile::new(config, &collection, &args.file)?;
    let mut owner = Owner::of(tier, &collection);
    let resume = match &owner {
        Some(owner) if !args.restart => place.read(owner)?,
        _ => None,
    };
    let limits = BatchLimits {
        max_points: args.batch.clamp(1, config.tier.max_batch_points),
        max_bytes: usize::try_from(config.tier.max_batch_bytes).unwrap_or(usize::MAX),
    };
    let mut import = Import::open(&args.file, None, resume.as_ref(), limits)?;
    let bar = output.bar(import.progress().total, "importing");
    let (start, mut points, mut lsn) = (Instant::now(), 0_u64, None);
    if let Ok(spec) = tier.collection(&collection) {
        import.check_by(spec);
    }
    while let Some(batch) = import.next() {
        let batch = batch?;
        if owner.is_none() {
            let spec = spec_for(&collection, &batch.points, Distance::parse(&args.distance)?)?;
            tier.create_collection(spec.clone()).await?;
            import.check_by(spec);
            owner = Owner::of(tier, &collection);
        }
        let count = batch.points.len() as u64;
        lsn = Some(tier.upsert(&collection, batch.points).await?.lsn);
        points += count;
        if let Some(owner) = &owner {
            place.write(owner, &batch.resume)?;
        }
        bar.set_position(import.progress().done);
    }
    bar.finish_and_clear();
    place.remove()?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = points as f64 / seconds.max(1e-9);
    let value = json!({
        "points": points,
        "resumed": resume.is_some(),
        "seconds": seconds,
        "points_per_second": rate,
        "lsn": lsn.map(|lsn| lsn.0),
    });
    output.print(&value, || {
        let resumed = if resume.is_some() { ", going on where an earlier run stopped" } else { "" };
        format!("imported {points} points in {seconds:.1} s ({rate:.0}/s){resumed}")
    });
    Ok(())
}

/// Whom a resume point is for: a collection of this name that was dropped, or was in another log, had points that
/// this one lacks.
struct Owner(String);

impl Owner {
    /// The collection as it is now; `None` if it is not there.
    fn of(tier: &Tier, collection: &CollectionName) -> Option<Self> {
        let incarnation = tier.incarnation(collection).ok()?;
        let log = tier.status().log.identity;
        Some(Self(format!("{} {} {incarnation} ", log.id, log.epoch)))
    }
}

/// Remembers, beside the log, how far an import came: written after each batch is acked, removed at the end. There is
/// none beside a log in memory, which remembers nothing itself.
struct ResumeFile(Option<PathBuf>);

impl ResumeFile {
    fn new(config: &Config, collection: &CollectionName, file: &Path) -> Result<Self> {
        let file = file
            .canonicalize()
            .map_err(|error| Error::invalid(format!("cannot read {}: {error}", file.display())))?;
        if config.log.is_in_memory() {
            return Ok(Self(None));
        }
        let key = blake3::hash(format!("{collection}\n{}", file.display()).as_bytes()).to_hex();
        let directory = config.log.path.parent().unwrap_or(Path::new(".")).join("imports");
        Ok(Self(Some(directory.join(&key.as_str()[..32]))))
    }

    /// Where an earlier run stopped, if it wrote to the same collection.
    fn read(&self, owner: &Owner) -> Result<Option<ResumePoint>> {
        let Some(path) = &self.0 else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(text) => text.strip_prefix(&owner.0).map(|point| point.trim().parse()).transpose(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(path, error)),
        }
    }

    fn write(&self, owner: &Owner, point: &ResumePoint) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let partial = path.with_extension("partial");
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
            .and_then(|()| std::fs::write(&partial, format!("{}{point}", owner.0)))
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|error| fail(path, error))
    }

    fn remove(&self) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(path, error)),
            _ => Ok(()),
        }
    }
}

fn fail(path: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the import's place in {} cannot be kept: {error}", path.display()),
    )
    .with_source(error)
}
