//! Searches and writes from several tasks, with a memory of what was acked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay::{
    CollectionName, Effect, HashEmbedder, Lsn, Point, PointId, Result, SearchQuery, ServiceLevel, Tier,
};
use tokio::task::JoinSet;

use super::latencies::Latencies;
use super::verify::Expected;

/// Ids of the load's own points start here, apart from the UUIDs and small numbers of real points.
const FIRST_ID: u64 = 1 << 48;
/// Ids that one writer uses in turn, so that points are written again and deleted.
const IDS_PER_WRITER: u64 = 2_000;
/// Points of one write while the collection is filled.
const FILL: usize = 500;
/// A failed search is remembered with its text up to this many.
const KEPT_FAILURES: usize = 5;

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Tasks that search.
    pub searchers: usize,
    /// Tasks that write.
    pub writers: usize,
    /// The pause of a task after each call; it bounds the load on a small machine.
    pub pause: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { searchers: 4, writers: 2, pause: Duration::from_millis(3) }
    }
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Searches that were answered.
    pub searches: u64,
    /// Searches that failed.
    pub failed_searches: u64,
    /// The texts of the first failures.
    pub failures: Vec<String>,
    /// Writes that were acked.
    pub writes_acked: u64,
    /// Writes whose outcome the caller was not told.
    pub writes_unknown: u64,
    /// Writes that were refused without an effect.
    pub writes_refused: u64,
    /// What each of the load's points must be now.
    pub expected: Expected,
    /// When searches began, and how long they took.
    pub latencies: Latencies,
    /// Answers by member.
    pub served_by: BTreeMap<String, u64>,
    /// The last acked LSN.
    pub last_lsn: Option<Lsn>,
}

/// Tasks that search and write until they are stopped. Dropping it aborts them.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    tier: Tier,
    collection: CollectionName,
    dimension: usize,
    options: LoadOptions,
    stop: AtomicBool,
    report: Mutex<LoadReport>,
    searches: AtomicU64,
    writes: AtomicU64,
}

impl Load {
    /// Starts the tasks on a collection whose default vector has this dimension.
    pub fn start(tier: &Tier, collection: &CollectionName, dimension: usize, options: LoadOptions) -> Self {
        Self::start_on(tier, collection, dimension, options, Expected::default())
    }

    /// Writes a point for every id that the tasks will use, and starts them then: from here on they only replace and
    /// delete, so what a process takes says nothing about the number of its points.
    ///
    /// # Errors
    /// Those of the writes.
    pub async fn start_filled(
        tier: &Tier,
        collection: &CollectionName,
        dimension: usize,
        options: LoadOptions,
    ) -> Result<Self> {
        let embedder = HashEmbedder::new(dimension)?;
        let mut expected = Expected::default();
        let ids: Vec<_> = (FIRST_ID..FIRST_ID + options.writers as u64 * IDS_PER_WRITER).collect();
        for ids in ids.chunks(FILL) {
            let texts = ids.iter().map(|id| format!("drill fill {id} {}", WORDS[*id as usize % WORDS.len()]));
            let texts: Vec<_> = ids.iter().map(|id| PointId::Num(*id)).zip(texts).collect();
            let points =
                texts.iter().map(|(id, text)| Point::new(*id, embedder.vector(text)).with_text(text));
            tier.upsert(collection, points.collect()).await?;
            texts.into_iter().for_each(|(id, text)| expected.acked(id, Some(text)));
        }
        Ok(Self::start_on(tier, collection, dimension, options, expected))
    }

    fn start_on(
        tier: &Tier,
        collection: &CollectionName,
        dimension: usize,
        options: LoadOptions,
        expected: Expected,
    ) -> Self {
        let shared = Arc::new(Shared {
            tier: tier.clone(),
            collection: collection.clone(),
            dimension,
            options,
            stop: AtomicBool::new(false),
            report: Mutex::new(LoadReport { expected, ..LoadReport::default() }),
            searches: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for seed in 0..options.searchers {
            tasks.spawn(Arc::clone(&shared).search(seed as u64));
        }
        for writer in 0..options.writers {
            tasks.spawn(Arc::clone(&shared).write(writer as u64));
        }
        Self { shared, tasks }
    }

    /// Searches and writes so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.searches.load(Ordering::Relaxed), self.shared.writes.load(Ordering::Relaxed))
    }

    /// Ends the tasks after what they are at, and answers what they saw.
    pub async fn stop(mut self) -> LoadReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.shared.with_report(std::mem::take)
    }
}

const WORDS: [&str; 12] = [
    "read", "write", "buffer", "error", "index", "vector", "async", "lock", "parse", "token", "stream",
    "hash",
];

impl Shared {
    fn with_report<T>(&self, change: impl FnOnce(&mut LoadReport) -> T) -> T {
        // A task that panicked left whole counts behind.
        change(&mut self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn search(self: Arc<Self>, seed: u64) {
        let embedder = HashEmbedder::new(self.dimension).unwrap_or_default();
        let mut step = seed;
        while !self.stop.load(Ordering::Relaxed) {
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = |shift: u32| WORDS[(step >> shift) as usize % WORDS.len()];
            let text = format!("{} {} {}", word(20), word(32), word(44));
            let query = SearchQuery::new(embedder.vector(&text));
            let start = Instant::now();
            let answer = self.tier.search(&self.collection, query).await;
            let took = start.elapsed();
            self.searches.fetch_add(1, Ordering::Relaxed);
            self.with_report(|report| {
                report.latencies.push(start, took);
                match answer {
                    Ok(answer) => {
                        report.searches += 1;
                        if answer.level != ServiceLevel::Normal {
                            report.latencies.answered_by_standby(start + took);
                        }
                        *report.served_by.entry(answer.served_by.to_string()).or_default() += 1;
                    }
                    Err(error) => {
                        report.failed_searches += 1;
                        if report.failures.len() < KEPT_FAILURES {
                            report.failures.push(error.to_string());
                        }
                    }
                }
            });
            tokio::time::sleep(self.options.pause).await;
        }
    }

    /// Writes points of its own ids, in turn: upserts, and a delete of an older one now and then. One
    /// point has one writer, so the last acked write of a point is what it must be.
    async fn write(self: Arc<Self>, writer: u64) {
        let embedder = HashEmbedder::new(self.dimension).unwrap_or_default();
        let first = FIRST_ID + writer * IDS_PER_WRITER;
        let mut recent: VecDeque<PointId> = VecDeque::new();
        for step in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let delete = step % 7 == 6 && recent.len() > 3;
            let (id, content, result) = if delete {
                let Some(id) = recent.pop_front() else { continue };
                (id, None, self.tier.delete(&self.collection, &[id]).await)
            } else {
                let id = PointId::Num(first + step % IDS_PER_WRITER);
                let text = format!("drill {writer} step {step} {}", WORDS[step as usize % WORDS.len()]);
                let point = Point::new(id, embedder.vector(&text)).with_text(&text);
                recent.push_back(id);
                (id, Some(text), self.tier.upsert(&self.collection, vec![point]).await)
            };
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.with_report(|report| match result {
                Ok(written) => {
                    report.writes_acked += 1;
                    report.last_lsn = report.last_lsn.max(Some(written.lsn));
                    report.expected.acked(id, content);
                }
                Err(error) if error.effect() == Effect::Unknown => {
                    report.writes_unknown += 1;
                    report.expected.unknown(id, content);
                }
                Err(_) => report.writes_refused += 1,
            });
            tokio::time::sleep(self.options.pause * 4).await;
        }
    }
}
