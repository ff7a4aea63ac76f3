//! The memory store beside bare usearch with the same parameters, vectors and queries.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::core::{
    CollectionRef, CollectionSpec, Context, Entry, EntryHash, Fields, LogId, LogIdentity, Lsn, Op, PointId,
    Position, Run, VectorStore, score,
};
use mainstay::{CollectionName, Distance, Error, ErrorKind, Point, Result, SearchQuery};
use mainstay_memory::{MemoryOptions, MemoryStore, Quantization};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::report::{Figure, median_us};
use mainstay_tests::dataset::Dataset;

/// Rounds; all sides run in each.
const ROUNDS: usize = 7;
/// Queries that one side runs before the next one takes its turn.
const BLOCK: usize = 100;
/// Hits of a search.
const K: usize = 10;
/// Points in one entry.
const BATCH: usize = 500;
/// Rounds of churn, and the share of points that each replaces.
const CHURN_ROUNDS: usize = 4;
const CHURN_SHARE: f64 = 0.10;

/// Measures and answers the figures.
pub async fn run(data: &Dataset) -> Result<Vec<Figure>> {
    let exact: Vec<Vec<u64>> = data.queries.iter().map(|query| nearest(data, query)).collect();
    let raw = raw_index(data)?;
    let mut plain = Loaded::new(data, Quantization::F32).await?;
    let rescored = Loaded::new(data, Quantization::I8).await?;
    let (mut raw_times, mut plain_times, mut i8_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        // Block by block, so that whatever else the machine does meets all sides alike, and yet each finds
        // the caches as it left them, not as two other copies of the data did.
        for queries in data.queries.chunks(BLOCK) {
            for query in queries {
                let start = Instant::now();
                std::hint::black_box(raw.search(query, K).map_err(usearch_error)?);
                a.push(start.elapsed());
            }
            for query in queries {
                b.push(plain.time(query).await?);
            }
            for query in queries {
                c.push(rescored.time(query).await?);
            }
        }
        raw_times.push(median_us(&a));
        plain_times.push(median_us(&b));
        i8_times.push(median_us(&c));
    }
    let mut figures = vec![
        Figure::of_rounds("memory.search.p50", "us", &plain_times, &raw_times),
        Figure::of_rounds("memory.i8_rescored.p50", "us", &i8_times, &raw_times),
        Figure::alone("memory.search.recall", plain.recall(data, &exact).await?, "recall@10"),
        Figure::alone("memory.i8_rescored.recall", rescored.recall(data, &exact).await?, "recall@10"),
        Figure::alone("memory.overhead", plain.overhead(data), "bytes per point beyond its vector"),
        Figure::alone("memory.accounted", plain.accounted(), "of what the process grew by"),
        Figure::alone("memory.self_reach", plain.self_reach(data).await?, "share of points found"),
    ];
    let changed = plain.churn(data).await?;
    figures.push(Figure::alone(
        "memory.self_reach.after_churn",
        plain.self_reach(&changed).await?,
        "share of points found",
    ));
    Ok(figures)
}

fn usearch_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}

fn nearest(data: &Dataset, query: &[f32]) -> Vec<u64> {
    let mut scored: Vec<(f32, u64)> = data
        .points
        .iter()
        .enumerate()
        .map(|(i, p)| (score::dense(Distance::Cosine, query, p), i as u64))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(K).map(|(_, id)| id).collect()
}

/// usearch with the parameters of the store, filled in the same order by one thread.
fn raw_index(data: &Dataset) -> Result<Index> {
    let options = MemoryOptions::default();
    let index = Index::new(&IndexOptions {
        dimensions: data.dimension(),
        metric: MetricKind::IP,
        quantization: ScalarKind::F32,
        connectivity: options.connectivity,
        expansion_add: options.expansion_add,
        expansion_search: options.expansion_search,
        multi: false,
    });
    let index = index.map_err(usearch_error)?;
    index.reserve(data.points.len()).map_err(usearch_error)?;
    for (key, point) in data.points.iter().enumerate() {
        index.add(key as u64, point).map_err(usearch_error)?;
    }
    Ok(index)
}

/// A memory store that holds the dataset.
struct Loaded {
    store: MemoryStore,
    name: CollectionName,
    position: Position,
    /// Bytes that the process grew by while the store was filled.
    grown: u64,
}

impl Loaded {
    async fn new(data: &Dataset, quantization: Quantization) -> Result<Self> {
        let name = CollectionName::new("bench")?;
        // The batches are there before and after the measurement: they are the writer's, not the store's.
        let batches: Vec<Vec<Arc<Point>>> = data
            .points
            .chunks(BATCH)
            .enumerate()
            .map(|(batch, vectors)| {
                let ids = (batch * BATCH) as u64..;
                ids.zip(vectors).map(|(id, vector)| Arc::new(Point::new(id, vector.clone()))).collect()
            })
            .collect();
        let before = resident_bytes();
        let store = MemoryStore::new(MemoryOptions { quantization, ..MemoryOptions::default() })?;
        let position = Position::start(LogIdentity { id: LogId(Default::default()), epoch: 1 });
        let mut loaded = Self { store, name: name.clone(), position, grown: 0 };
        let spec = CollectionSpec::dense(name, data.dimension(), Distance::Cosine);
        loaded.apply(Op::CreateCollection(spec)).await?;
        for points in &batches {
            loaded.apply(Op::Upsert { collection: loaded.collection(), points: points.clone() }).await?;
        }
        loaded.grown = resident_bytes().saturating_sub(before);
        Ok(loaded)
    }

    fn collection(&self) -> CollectionRef {
        CollectionRef { name: self.name.clone(), incarnation: Lsn(1) }
    }

    async fn apply(&mut self, op: Op) -> Result<()> {
        let lsn = self.position.lsn.next();
        let entry = Entry { lsn, hash: EntryHash([(lsn.0 % 251) as u8; 32]), op, size_bytes: 0 };
        let run = Run::new(self.position, vec![Arc::new(entry)])?;
        self.position = self.store.apply(&Context::within(Duration::from_secs(600)), &run).await?;
        Ok(())
    }

    fn query(&self, vector: &[f32], limit: usize) -> SearchQuery {
        SearchQuery { fields: Fields::NONE, ..SearchQuery::new(vector.to_vec()).with_limit(limit) }
    }

    async fn time(&self, vector: &[f32]) -> Result<Duration> {
        let query = self.query(vector, K);
        let cx = Context::within(Duration::from_secs(5));
        let start = Instant::now();
        std::hint::black_box(self.store.search(&cx, &self.name, &query).await?);
        Ok(start.elapsed())
    }

    async fn hits(&self, vector: &[f32], limit: usize) -> Result<Vec<u64>> {
        let cx = Context::within(Duration::from_secs(5));
        let hits = self.store.search(&cx, &self.name, &self.query(vector, limit)).await?;
        Ok(hits
            .iter()
            .filter_map(|hit| if let PointId::Num(id) = hit.point.id { Some(id) } else { None })
            .collect())
    }

    async fn recall(&self, data: &Dataset, exact: &[Vec<u64>]) -> Result<f64> {
        let mut found = 0;
        for (query, exact) in data.queries.iter().zip(exact) {
            let hits: HashSet<u64> = self.hits(query, K).await?.into_iter().collect();
            found += exact.iter().filter(|id| hits.contains(id)).count();
        }
        Ok(found as f64 / (exact.len() * K) as f64)
    }

    /// The share of points that a search by their own vector finds first or among its equals.
    async fn self_reach(&self, data: &Dataset) -> Result<f64> {
        let mut found = 0;
        for (id, vector) in data.points.iter().enumerate() {
            found += usize::from(self.hits(vector, K).await?.contains(&(id as u64)));
        }
        Ok(found as f64 / data.points.len() as f64)
    }

    /// Replaces a tenth of the points by others, four times, and waits for the rebuilds.
    async fn churn(&mut self, data: &Dataset) -> Result<Dataset> {
        let mut rng = StdRng::seed_from_u64(3);
        let mut points = data.points.clone();
        for _ in 0..CHURN_ROUNDS {
            let count = (points.len() as f64 * CHURN_SHARE) as usize;
            let ids: Vec<u64> = (0..count).map(|_| rng.random_range(0..points.len() as u64)).collect();
            for ids in ids.chunks(BATCH) {
                let ids: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
                let mut changed = Vec::new();
                for id in ids {
                    let near = &data.points[rng.random_range(0..data.points.len())];
                    let vector = near.iter().map(|v| v + rng.random_range(-0.03..0.03_f32)).collect();
                    let vector = mainstay_tests::dataset::normalized(vector);
                    points[id as usize] = vector.clone();
                    changed.push(Arc::new(Point::new(id, vector)));
                }
                self.apply(Op::Upsert { collection: self.collection(), points: changed }).await?;
            }
        }
        Ok(Dataset { points, queries: Vec::new() })
    }

    /// What the store accounts for, as a share of what the process grew by.
    fn accounted(&self) -> f64 {
        self.store.memory_bytes().unwrap_or_default() as f64 / self.grown.max(1) as f64
    }

    fn overhead(&self, data: &Dataset) -> f64 {
        self.grown as f64 / data.points.len() as f64 - (data.dimension() * 4) as f64
    }
}

/// Resident memory of this process, from the kernel.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4_096
}
