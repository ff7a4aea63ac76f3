//! `index`.

use std::collections::BTreeSet;
use std::path::Path;

use mainstay::core::embed::DEFAULT_DIMENSION;
use mainstay::{
    CollectionName, Config, Embedder, Error, Fields, HashEmbedder, PayloadPath, Point, Result, ScrollQuery,
    Selector, Tier, VectorName, VectorSpec,
};
use mainstay_cli::index::{Change, Corpus, PAYLOAD_KEYS, Plan, Recipe, StoredFiles, plan, read_source, walk};
use mainstay_cli::survey::index_spec;
use serde_json::json;

use crate::args::IndexArgs;
use crate::output::Output;

/// Points in one write.
const BATCH: usize = 512;

/// What an indexing did.
#[derive(Debug, Default)]
pub struct Indexed {
    /// Files with text that are in the index now.
    pub files: usize,
    /// Files that were new or changed.
    pub changed: usize,
    /// Files that were there before and are gone.
    pub vanished: usize,
    /// Files that hold no text, or too much of it.
    pub skipped: usize,
    /// Points written.
    pub points: u64,
    /// Points deleted.
    pub deleted: u64,
}

/// Indexes a directory.
pub async fn run(args: &IndexArgs, config: &Config, tier: &Tier, output: Output) -> Result<()> {
    let collection = CollectionName::new(&args.collection)?;
    let source = match &args.source {
        Some(source) => source.clone(),
        None => source_name(&args.directory)?,
    };
    let every = config.snapshots.asked_after();
    let place = Place { directory: &args.directory, source: &source, chunk_chars: args.chunk_chars };
    let indexed = directory(tier, &collection, place, every, output).await?;
    let value = json!({
        "files": indexed.files,
        "changed": indexed.changed,
        "vanished": indexed.vanished,
        "skipped": indexed.skipped,
        "points": indexed.points,
        "deleted": indexed.deleted,
    });
    output.print(&value, || {
        format!(
            "{} files: {} changed ({} points), {} gone ({} points deleted), {} skipped",
            indexed.files,
            indexed.changed,
            indexed.points,
            indexed.vanished,
            indexed.deleted,
            indexed.skipped
        )
    });
    Ok(())
}

fn source_name(directory: &Path) -> Result<String> {
    let full = directory.canonicalize().map_err(|error| {
        Error::invalid(format!("cannot read the directory {}: {error}", directory.display()))
    })?;
    Ok(full.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()))
}

/// Makes the collection that indexing needs, if it is not there.
pub async fn prepare(tier: &Tier, collection: &CollectionName) -> Result<HashEmbedder> {
    match tier.collection(collection) {
        Ok(spec) => match spec.vector(&VectorName::default())? {
            VectorSpec::Dense { dimension, .. } => HashEmbedder::new(dimension),
            VectorSpec::Sparse => {
                Err(Error::invalid(format!("the default vector of `{collection}` is sparse")))
            }
        },
        Err(_) => {
            tier.create_collection(index_spec(collection, DEFAULT_DIMENSION)?).await?;
            HashEmbedder::new(DEFAULT_DIMENSION)
        }
    }
}

/// What is indexed, and how.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The directory.
    pub directory: &'a Path,
    /// Its name in the collection.
    pub source: &'a str,
    /// Most characters in one chunk.
    pub chunk_chars: usize,
}

/// Indexes a directory into a collection, with a snapshot after every so many changed files; 0 for none.
pub async fn directory(
    tier: &Tier,
    collection: &CollectionName,
    place: Place<'_>,
    snapshot_every: u32,
    output: Output,
) -> Result<Indexed> {
    let Place { directory, source, chunk_chars } = place;
    let embedder = prepare(tier, collection).await?;
    let recipe = Recipe::new(chunk_chars, embedder.name());
    let walked = walk(directory, &recipe)?;
    let (files, skipped) = (walked.files.len(), walked.skipped.len());
    let Plan { changes, vanished, .. } = plan(stored(tier, collection, source).await?, walked.files);
    let mut indexed = Indexed { files, skipped, vanished: vanished.len(), ..Indexed::default() };
    let corpus = Corpus { collection: collection.clone(), source: source.to_owned() };
    let bar = output.bar(changes.len() as u64, "indexing files");
    let mut writer = Writer { tier, collection, waiting: Vec::new(), surplus: Vec::new() };
    for change in changes {
        let points = points_of(&corpus, &recipe, &embedder, &change);
        bar.inc(1);
        // A file that cannot be read any more is like one that is gone.
        let Some(points) = points else {
            indexed.skipped += 1;
            indexed.files -= 1;
            writer.surplus.extend(&change.stored);
            continue;
        };
        indexed.changed += 1;
        indexed.points += points.len() as u64;
        let new: BTreeSet<_> = points.iter().map(|point| point.id).collect();
        writer.surplus.extend(change.surplus(&new));
        writer.waiting.extend(points);
        if writer.waiting.len() >= BATCH {
            writer.write().await?;
        }
        if snapshot_every > 0 && indexed.changed.is_multiple_of(snapshot_every as usize) {
            writer.write().await?;
            // The index is whole without it, and status tells.
            if let Err(error) = tier.snapshot().await {
                output.note(&format!("no snapshot was made: {error}"));
            }
        }
    }
    writer.surplus.extend(vanished.into_iter().flat_map(|(_, ids)| ids));
    indexed.deleted = writer.surplus.len() as u64;
    writer.finish().await?;
    bar.finish_and_clear();
    Ok(indexed)
}

fn points_of(
    corpus: &Corpus,
    recipe: &Recipe,
    embedder: &HashEmbedder,
    change: &Change,
) -> Option<Vec<Point>> {
    let text = read_source(&change.file.location).ok()?;
    let chunks = recipe.chunks(&text);
    let point = |chunk: &mainstay_cli::index::Chunk<'_>| {
        let vector = embedder.vector(chunk.text);
        corpus.chunk_point(&change.file.path, &change.file.hash, chunks.len(), chunk, vector)
    };
    Some(chunks.iter().map(point).collect())
}

/// New chunks are written before old ones are deleted, so that a search finds one or the other meanwhile.
struct Writer<'a> {
    tier: &'a Tier,
    collection: &'a CollectionName,
    waiting: Vec<Point>,
    surplus: Vec<mainstay::PointId>,
}

impl Writer<'_> {
    async fn write(&mut self) -> Result<()> {
        let mut points = std::mem::take(&mut self.waiting);
        while !points.is_empty() {
            let rest = points.split_off(points.len().min(BATCH));
            self.tier.upsert(self.collection, points).await?;
            points = rest;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        self.write().await?;
        for ids in self.surplus.chunks(mainstay::MAX_IDS) {
            self.tier.delete(self.collection, ids).await?;
        }
        Ok(())
    }
}

/// What the collection holds of a source.
async fn stored(tier: &Tier, collection: &CollectionName, source: &str) -> Result<StoredFiles> {
    let mut stored = StoredFiles::new(source);
    let fields =
        Fields { payload: Selector::Only(PAYLOAD_KEYS.map(PayloadPath::key).to_vec()), ..Fields::NONE };
    let filter = mainstay::Filter::all([mainstay::Condition::equals(PayloadPath::key("source"), source)]);
    let mut query = ScrollQuery { after: None, limit: 2_000, filter: Some(filter), fields };
    // A member that is behind, or partial, does not know what has to go.
    let reader = tier.reader().at_least(tier.log_end()).whole();
    loop {
        let page = reader.scroll(collection, &query).await?.value;
        page.records.iter().for_each(|record| stored.add(record.point.id, &record.point.payload));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(stored),
        }
    }
}
