//! Snapshots: made beside the same bytes packed with zstd, made again after a few changes, restored beside read and checked,
//! beside JSON text, and made while searches run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::core::{
    CollectionRef, CollectionSpec, Context, Entry, EntryHash, Fields, LogId, LogIdentity, Lsn, Op, PointId,
    Position, RestoreStep, Run, VectorStore,
};
use mainstay::snapshot::buckets::bucket_of;
use mainstay::snapshot::load::{load, records};
use mainstay::snapshot::manifest::Source;
use mainstay::snapshot::place::PlaceOptions;
use mainstay::snapshot::take::{TakeOptions, Written, take};
use mainstay::snapshot::{Manifest, Repository};
use mainstay::{CollectionName, Distance, Error, ErrorKind, Point, Result, SearchQuery, SnapshotsConfig};
use mainstay_memory::{MemoryOptions, MemoryStore};
use mainstay_tests::dataset::Dataset;
use serde_json::{Value, json};

use crate::breaker::Idle;
use crate::report::{Figure, median_us};

/// Rounds; both sides run in each.
const ROUNDS: usize = 3;
/// Points in one entry.
const BATCH: usize = 500;
/// Points that are written and read as JSON text.
const JSON_POINTS: usize = 15_000;
/// One point in so many changes before the second snapshot.
const CHANGED: usize = 1_000;
/// Buckets that the changed points are in.
const CHANGED_BUCKETS: usize = 2;
/// A graph of more points is built once, in a hurry: it takes as many bytes as a good one.
const MOST_BUILT: usize = 50_000;
/// How wide neighbours are looked for in a hurry.
const HURRIED: usize = 16;
/// Rounds of searches beside a snapshot: the slowest of a hundred scatters more than anything else here.
const SEARCH_ROUNDS: usize = 9;
/// Searches of one quiet round.
const SEARCHES: usize = 3_000;
/// Bytes that are packed at once beside.
const CHUNK: usize = 1 << 20;

/// Measures and answers the figures.
pub async fn run(data: &Dataset) -> Result<Vec<Figure>> {
    let points: Vec<_> =
        data.points.iter().enumerate().map(|(id, v)| Arc::new(point(id as u64, v))).collect();
    let mut loaded = Loaded::new(data.dimension(), &points).await?;
    let mut figures = made(&mut loaded, &points).await?;
    figures.extend(restored(&loaded).await?);
    figures.extend(beside_json(data.dimension(), &points[..points.len().min(JSON_POINTS)]).await?);
    figures.push(beside_searches(&loaded, data).await?);
    Ok(figures)
}

/// A piece of a document, as an indexer would write it.
fn point(id: u64, vector: &[f32]) -> Point {
    let text =
        (0..32).map(|word| format!("w{:x}", (id * 31 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44));
    Point::new(id, vector.to_vec()).with_text(text.collect::<Vec<_>>().join(" ")).with_payload(json!({
        "path": format!("docs/{}/{:x}.md", id % 97, id / 20),
        "piece": id % 20,
        "language": if id.is_multiple_of(3) { "de" } else { "en" },
        "modified": 1_700_000_000 + id * 13,
    }))
}

/// What a point is made of: id, numbers, payload and text.
fn raw(points: &[Arc<Point>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for point in points {
        bytes.extend(point.id.to_key());
        for vector in point.vectors.values() {
            if let mainstay::Vector::Dense(values) = vector {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        serde_json::to_writer(&mut bytes, &point.payload).map_err(failed)?;
        bytes.extend(point.text.iter().flat_map(|text| text.bytes()));
    }
    Ok(bytes)
}

/// A memory store that holds points.
#[derive(Clone)]
struct Loaded {
    store: Arc<MemoryStore>,
    position: Position,
}

impl Loaded {
    async fn new(dimension: usize, points: &[Arc<Point>]) -> Result<Self> {
        let position = Position::start(LogIdentity { id: LogId(Default::default()), epoch: 1 });
        let mut loaded = Self { store: Arc::new(empty(points.len())?), position };
        loaded
            .apply(Op::CreateCollection(CollectionSpec::dense(name()?, dimension, Distance::Cosine)))
            .await?;
        loaded.upsert(points).await?;
        Ok(loaded)
    }

    async fn upsert(&mut self, points: &[Arc<Point>]) -> Result<()> {
        for batch in points.chunks(BATCH) {
            let collection = CollectionRef { name: name()?, incarnation: Lsn(1) };
            self.apply(Op::Upsert { collection, points: batch.to_vec() }).await?;
        }
        Ok(())
    }

    async fn apply(&mut self, op: Op) -> Result<()> {
        let lsn = self.position.lsn.next();
        let entry = Entry { lsn, hash: EntryHash([(lsn.0 % 251) as u8; 32]), op, size_bytes: 0 };
        let run = Run::new(self.position, vec![Arc::new(entry)])?;
        self.position = self.store.apply(&patient(), &run).await?;
        Ok(())
    }

    /// Makes a snapshot.
    async fn snapshot(
        &self,
        repository: &Repository,
        parent: Option<&Manifest>,
        options: TakeOptions,
    ) -> Result<(Manifest, Written)> {
        let source = Source { member: "bench".to_owned(), backend: "memory".to_owned() };
        let draft =
            take(repository, &*self.store, source, self.position, parent, options, &|_, _| {}).await?;
        let written = draft.written();
        Ok((draft.commit(repository, self.position).await?, written))
    }
}

/// A store for so many points.
fn empty(points: usize) -> Result<MemoryStore> {
    let mut options = MemoryOptions { allow_red_zone: true, ..MemoryOptions::default() };
    if points > MOST_BUILT {
        options.expansion_add = HURRIED;
    }
    MemoryStore::new(options)
}

fn name() -> Result<CollectionName> {
    CollectionName::new("bench")
}

fn patient() -> Context {
    Context::within(Duration::from_secs(600))
}

async fn repository(at: &Path) -> Result<Repository> {
    Repository::open_for_writing(&at.to_string_lossy(), &PlaceOptions::default()).await
}

/// `snapshot.create` and `snapshot.second`.
async fn made(loaded: &mut Loaded, points: &[Arc<Point>]) -> Result<Vec<Figure>> {
    let bytes = raw(points)?;
    let speed = |took: Duration| bytes.len() as f64 / 1e6 / took.as_secs_f64();
    let (mut packed, mut first, mut firsts, mut seconds) = (vec![], vec![], vec![], vec![]);
    let (mut size, mut share) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().map_err(failed)?;
        let start = Instant::now();
        let length = pack(&directory.path().join("raw.zst"), &bytes)?;
        packed.push(speed(start.elapsed()));

        let repository = repository(&directory.path().join("snapshots")).await?;
        let start = Instant::now();
        let (manifest, whole) = loaded.snapshot(&repository, None, TakeOptions::default()).await?;
        let took = start.elapsed();
        first.push(speed(took));
        firsts.push(took.as_secs_f64());
        size = whole.bytes as f64 / length as f64;

        loaded.upsert(&few_buckets(&manifest, points)?).await?;
        let start = Instant::now();
        let (_, part) = loaded.snapshot(&repository, Some(&manifest), TakeOptions::default()).await?;
        seconds.push(start.elapsed().as_secs_f64());
        share = part.bytes as f64 / whole.bytes as f64;
    }
    Ok(vec![
        Figure::of_rounds("snapshot.create", "MB/s", &first, &packed),
        Figure::alone("snapshot.create.size", size, "of what zstd -1 makes of the same bytes"),
        Figure::of_rounds("snapshot.second.time", "s", &seconds, &firsts),
        Figure::alone("snapshot.second.bytes", share, "of the bytes of the first"),
    ])
}

/// Packs bytes into a file as `zstd -1` does, and syncs it. Answers its length.
fn pack(path: &Path, bytes: &[u8]) -> Result<u64> {
    let mut writer = zstd::Encoder::new(File::create(path).map_err(failed)?, 1).map_err(failed)?;
    for chunk in bytes.chunks(CHUNK) {
        writer.write_all(chunk).map_err(failed)?;
    }
    let file = writer.finish().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(file.metadata().map_err(failed)?.len())
}

/// One point in a thousand, of two buckets.
fn few_buckets(manifest: &Manifest, points: &[Arc<Point>]) -> Result<Vec<Arc<Point>>> {
    let bits = manifest.collections.get(&name()?).map_or(0, |collection| collection.bits);
    let mut of_bucket: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for point in points {
        of_bucket.entry(bucket_of(point.id, bits)).or_default().push(Arc::clone(point));
    }
    let chosen = of_bucket.into_values().take(CHANGED_BUCKETS);
    let each = (points.len() / CHANGED).div_ceil(CHANGED_BUCKETS);
    Ok(chosen.flat_map(|bucket| bucket.into_iter().take(each)).collect())
}

/// `snapshot.restore`: into a store, with its graph and building it, and into one that does nothing, beside the files read
/// and checked alone.
async fn restored(loaded: &Loaded) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir().map_err(failed)?;
    let repository = repository(directory.path()).await?;
    let (manifest, _) = loaded.snapshot(&repository, None, TakeOptions::default()).await?;
    let (mut idle, mut read, mut whole, mut built) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let start = Instant::now();
        for collection in manifest.collections.values() {
            for bucket in &collection.buckets {
                std::hint::black_box(records(&repository, collection, bucket).await?);
            }
        }
        read.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        load(&repository, &manifest, &Idle, None, &|_, _| {}).await.map_err(Error::from)?;
        idle.push(start.elapsed().as_secs_f64());
        whole.push(into_memory(&repository, &manifest).await?);
        // Building the graph takes minutes with many points.
        if round == 0 && manifest.points() <= MOST_BUILT as u64 {
            let mut manifest = manifest.clone();
            manifest.collections.values_mut().for_each(|collection| collection.graph = None);
            built.push(into_memory(&repository, &manifest).await?);
        }
    }
    Ok(vec![
        Figure::of_rounds("snapshot.restore", "s", &whole, &read),
        Figure::of_rounds("snapshot.restore.without_graph", "s", &built, &read),
        Figure::of_rounds("snapshot.restore.without_store", "s", &idle, &read),
    ])
}

/// Seconds that a snapshot takes into a new store.
async fn into_memory(repository: &Repository, manifest: &Manifest) -> Result<f64> {
    let points = usize::try_from(manifest.points()).unwrap_or(usize::MAX);
    let (store, start) = (empty(points)?, Instant::now());
    load(repository, manifest, &store, None, &|_, _| {}).await.map_err(Error::from)?;
    store.restore(&patient(), RestoreStep::Finish { position: manifest.from }).await?;
    Ok(start.elapsed().as_secs_f64())
}

/// `snapshot.json`: points written and read, without the graph that JSON has not either, beside JSON text of them.
async fn beside_json(dimension: usize, points: &[Arc<Point>]) -> Result<Vec<Figure>> {
    let loaded = Loaded::new(dimension, points).await?;
    let points_alone = TakeOptions { graphs: false, ..TakeOptions::default() };
    let (mut text_written, mut text_read, mut written, mut read) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir().map_err(failed)?;
        let path = directory.path().join("points.json");
        let start = Instant::now();
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(&text(points)?).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        text_written.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let bytes = std::fs::read(&path).map_err(failed)?;
        std::hint::black_box(serde_json::from_slice::<Value>(&bytes).map_err(failed)?);
        text_read.push(start.elapsed().as_secs_f64());

        let repository = repository(&directory.path().join("snapshots")).await?;
        let start = Instant::now();
        let (manifest, _) = loaded.snapshot(&repository, None, points_alone).await?;
        written.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        load(&repository, &manifest, &Idle, None, &|_, _| {}).await.map_err(Error::from)?;
        read.push(start.elapsed().as_secs_f64());
    }
    Ok(vec![
        Figure::of_rounds("snapshot.json.write", "s", &written, &text_written),
        Figure::of_rounds("snapshot.json.read", "s", &read, &text_read),
    ])
}

/// Points as one JSON document, as older snapshots were.
fn text(points: &[Arc<Point>]) -> Result<Vec<u8>> {
    let point = |point: &Arc<Point>| {
        let id = if let PointId::Num(id) = point.id { id } else { 0 };
        let vector = point.vectors.values().find_map(|vector| match vector {
            mainstay::Vector::Dense(values) => Some(values.as_slice()),
            mainstay::Vector::Sparse(_) => None,
        });
        json!({ "id": id, "vector": vector, "payload": point.payload, "text": point.text })
    };
    let points: Vec<Value> = points.iter().map(point).collect();
    serde_json::to_vec(&json!({ "version": "2.0", "points": points })).map_err(failed)
}

/// `snapshot.search.p99`: searches while a snapshot is made at the rate that is the default, beside quiet ones.
async fn beside_searches(loaded: &Loaded, data: &Dataset) -> Result<Figure> {
    let (mut quiet, mut busy) = (vec![], vec![]);
    let options = TakeOptions { rate: Some(SnapshotsConfig::default().max_rate), ..TakeOptions::default() };
    for _ in 0..SEARCH_ROUNDS {
        let mut times = Vec::new();
        for query in data.queries.iter().cycle().take(SEARCHES) {
            times.push(search(loaded, query).await?);
        }
        quiet.push(p99_us(times));

        let directory = tempfile::tempdir().map_err(failed)?;
        let repository = repository(directory.path()).await?;
        let copy = loaded.clone();
        let making = tokio::spawn(async move { copy.snapshot(&repository, None, options).await });
        let mut times = Vec::new();
        for query in data.queries.iter().cycle().take_while(|_| !making.is_finished()) {
            times.push(search(loaded, query).await?);
        }
        making.await.map_err(failed)??;
        busy.push(p99_us(times));
    }
    Ok(Figure::of_rounds("snapshot.search.p99", "us", &busy, &quiet))
}

async fn search(loaded: &Loaded, vector: &[f32]) -> Result<Duration> {
    let query = SearchQuery { fields: Fields::NONE, ..SearchQuery::new(vector.to_vec()) };
    let start = Instant::now();
    std::hint::black_box(loaded.store.search(&patient(), &name()?, &query).await?);
    Ok(start.elapsed())
}

fn p99_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * 99 / 100;
    median_us(times.get(at..=at).unwrap_or_default())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}
