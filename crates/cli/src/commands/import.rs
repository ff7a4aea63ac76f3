//! `import`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use mainstay::{
    CollectionName, CollectionSpec, Config, Distance, Error, ErrorKind, Point, Result, Tier, Vector,
    VectorSpec,
};
use mainstay_cli::import::{BatchLimits, Import, ResumePoint};
use serde_json::json;

use crate::args::ImportArgs;
use crate::output::Output;

/// Writes the points of a file.
pub async fn run(args: ImportArgs, config: &Config, tier: &Tier, output: Output) -> Result<()> {
    let collection = CollectionName::new(&args.collection)?;
    let place = ResumeFile::new(config, &collection, &args.file)?;
    let resume = if args.restart { None } else { place.read(tier, &collection)? };
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
        if tier.collection(&collection).is_err() {
            let spec = spec_for(&collection, &batch.points, &args.distance)?;
            tier.create_collection(spec.clone()).await?;
            import.check_by(spec);
        }
        let count = batch.points.len() as u64;
        lsn = Some(tier.upsert(&collection, batch.points).await?.lsn);
        points += count;
        place.write(&batch.resume)?;
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

/// The collection that points like these need.
fn spec_for(name: &CollectionName, points: &[Point], distance: &str) -> Result<CollectionSpec> {
    let distance = Distance::parse(distance)?;
    let vectors = points.iter().flat_map(|point| &point.vectors).map(|(name, vector)| {
        let spec = match vector {
            Vector::Dense(values) => VectorSpec::Dense { dimension: values.len(), distance },
            Vector::Sparse(_) => VectorSpec::Sparse,
        };
        (name.clone(), spec)
    });
    let spec = CollectionSpec {
        name: name.clone(),
        vectors: vectors.collect(),
        payload_indexes: Default::default(),
    };
    spec.check()?;
    Ok(spec)
}

/// Remembers, beside the log, how far an import came: written after each batch is acked, removed at the end.
struct ResumeFile(PathBuf);

impl ResumeFile {
    fn new(config: &Config, collection: &CollectionName, file: &Path) -> Result<Self> {
        let file = file
            .canonicalize()
            .map_err(|error| Error::invalid(format!("cannot read {}: {error}", file.display())))?;
        let key = blake3::hash(format!("{collection}\n{}", file.display()).as_bytes()).to_hex();
        let directory = config.log.path.parent().unwrap_or(Path::new(".")).join("imports");
        Ok(Self(directory.join(&key.as_str()[..32])))
    }

    /// Where an earlier run stopped; nothing if the collection is gone since.
    fn read(&self, tier: &Tier, collection: &CollectionName) -> Result<Option<ResumePoint>> {
        if tier.collection(collection).is_err() {
            return Ok(None);
        }
        match std::fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn write(&self, point: &ResumePoint) -> Result<()> {
        let directory = self.0.parent().unwrap_or(Path::new("."));
        let partial = self.0.with_extension("partial");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&partial, point.to_string()))
            .and_then(|()| std::fs::rename(&partial, &self.0))
            .map_err(|error| self.fail(error))
    }

    fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.fail(error)),
            _ => Ok(()),
        }
    }

    fn fail(&self, error: std::io::Error) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("the import's place in {} cannot be kept: {error}", self.0.display()),
        )
        .with_source(error)
    }
}
