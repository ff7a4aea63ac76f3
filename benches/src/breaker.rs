//! The circuit breaker beside those of other crates, and a guarded call beside a bare one.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use failsafe::{CircuitBreaker, backoff, failure_policy};
use mainstay_core::{
    Breaker, BreakerOptions, Capabilities, CollectionInfo, CollectionName, Context, Distance, Durability,
    Error, ErrorKind, Fields, Filter, GuardOptions, Guarded, Hit, Pipelining, PointId, Position, Record,
    RestoreStep, Result, Run, ScrollPage, ScrollQuery, SearchCapabilities, SearchQuery, VectorStore,
};
use recloser::Recloser;
use tokio::runtime::Handle;
use tokio::time::Instant as TokioInstant;
use tower::{Layer, Service, ServiceExt};
use tower_resilience::circuitbreaker::CircuitBreakerLayer;

use crate::report::{Figure, median};

/// Rounds; all sides run in each, one after the other.
const ROUNDS: usize = 41;
/// Blocks of a round; all threads begin a block together, so that a thread that was off its processor for a while
/// does not leave the others to work alone.
const BLOCKS: usize = 50;
/// Calls of one thread in a block.
const CALLS: u32 = 1_000;
/// The same of tower-resilience, whose threads wake each other from sleep for nearly every call.
const TOWER_CALLS: u32 = 50;
/// Failures in a row that open a breaker, and how long it stays open; no call here fails.
const FAILURES: u32 = 5;
const RESET: Duration = Duration::from_secs(60);

/// Names of the figures: ours, then the others'.
const ONE_THREAD: [&str; 4] = [
    "breaker.closed.1thread",
    "breaker.closed.1thread.failsafe",
    "breaker.closed.1thread.recloser",
    "breaker.closed.1thread.tower_resilience",
];
const TWO_THREADS: [&str; 4] = [
    "breaker.closed.2threads",
    "breaker.closed.2threads.failsafe",
    "breaker.closed.2threads.recloser",
    "breaker.closed.2threads.tower_resilience",
];

/// Measures and answers the figures.
pub async fn run() -> Result<Vec<Figure>> {
    let mut figures = closed(1, ONE_THREAD)?;
    figures.extend(closed(2, TWO_THREADS)?);
    figures.extend(guarded().await?);
    Ok(figures)
}

/// What a call costs that a closed breaker lets through and that succeeds, with as many threads on one breaker.
fn closed(threads: usize, names: [&'static str; 4]) -> Result<Vec<Figure>> {
    let options =
        BreakerOptions { failure_threshold: FAILURES, reset_timeout: RESET, ..BreakerOptions::default() };
    let breaker = Breaker::new(options)?;
    // Of each of the others the configuration that asks least of it: no clock, no window longer than needed.
    let policy = failure_policy::consecutive_failures(FAILURES, backoff::constant(RESET));
    let failsafe = failsafe::Config::new().failure_policy(policy).build();
    let recloser = Recloser::custom().closed_len(FAILURES as usize).open_wait(RESET).build();
    let layer = CircuitBreakerLayer::builder()
        .consecutive_failures(FAILURES as usize)
        .wait_duration_in_open(RESET)
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let service = layer.layer(tower::service_fn(|()| std::future::ready(answer::<Infallible>())));
    let runtime = Handle::current();

    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(together(threads, CALLS, || {
            for _ in 0..CALLS {
                let _ = black_box(call(&breaker, answer));
            }
        }));
        times[1].push(together(threads, CALLS, || {
            for _ in 0..CALLS {
                let _ = black_box(failsafe.call(answer::<()>));
            }
        }));
        times[2].push(together(threads, CALLS, || {
            for _ in 0..CALLS {
                let _ = black_box(recloser.call(answer::<()>));
            }
        }));
        times[3].push(together(threads, TOWER_CALLS, || {
            let mut service = service.clone();
            runtime.block_on(async {
                for _ in 0..TOWER_CALLS {
                    if let Ok(ready) = service.ready().await {
                        let _ = black_box(ready.call(()).await);
                    }
                }
            });
        }));
    }

    let [ours, others @ ..] = times;
    let [first, rest @ ..] = &others;
    let fastest = rest.iter().fold(first, |best, side| if median(side) < median(best) { side } else { best });
    let [name, names @ ..] = names;
    let mut figures = vec![Figure::of_rounds(name, "ns per call", &ours, fastest)];
    figures.extend(
        names.iter().zip(&others).map(|(name, side)| Figure::alone(name, median(side), "ns per call")),
    );
    Ok(figures)
}

/// Our breaker used as the others are.
fn call<T>(
    breaker: &Breaker,
    work: impl FnOnce() -> std::result::Result<T, ()>,
) -> std::result::Result<T, Option<Duration>> {
    let permit = breaker.try_acquire(TokioInstant::now).map_err(Some)?;
    match work() {
        Ok(value) => {
            permit.success(TokioInstant::now);
            Ok(value)
        }
        Err(()) => {
            permit.failure(TokioInstant::now);
            Err(None)
        }
    }
}

/// What is called: it succeeds, which the compiler does not know.
fn answer<E>() -> std::result::Result<u64, E> {
    black_box(Ok(1))
}

/// The median nanoseconds that a call takes if as many threads make this many calls each at the same time.
fn together(threads: usize, calls: u32, work: impl Fn() + Sync) -> f64 {
    let arrived = AtomicUsize::new(0);
    let run = |thread: usize| {
        pin(thread);
        let block = |block: usize| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < threads * (block + 1) {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        };
        (0..BLOCKS).map(block).collect::<Vec<_>>()
    };
    let times: Vec<f64> = std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    });
    median(&times)
}

/// Gives the calling thread a processor of its own, as far as there are enough: on a busy machine threads that meet
/// could otherwise share one and never meet at all.
#[cfg(target_os = "linux")]
fn pin(thread: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut own = CpuSet::new();
    if let Some(cpu) = all.get(thread % all.len().max(1)) {
        own.set(*cpu);
        // What fails leaves the thread where it was.
        let _ = sched_setaffinity(None, &own);
    }
}

#[cfg(not(target_os = "linux"))]
fn pin(_: usize) {}

/// What a guard adds to a call of a store that does nothing.
async fn guarded() -> Result<Vec<Figure>> {
    let store = Arc::new(Idle);
    let guarded = Guarded::new(Arc::clone(&store), "idle", GuardOptions::default())?;
    let (mut bare_times, mut times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_times.push(searches(&*store).await?);
        times.push(searches(&guarded).await?);
    }
    let added: Vec<f64> = times.iter().zip(&bare_times).map(|(guarded, bare)| guarded - bare).collect();
    Ok(vec![
        Figure::of_rounds("guarded.call", "ns per call", &times, &bare_times),
        Figure::alone("guarded.overhead", median(&added), "ns per call"),
    ])
}

/// The nanoseconds that one search of a store takes.
async fn searches(store: &dyn VectorStore) -> Result<f64> {
    let name = CollectionName::new("bench")?;
    let query = SearchQuery::new(vec![1.0]);
    let cx = Context::within(RESET);
    let mut times = Vec::with_capacity(BLOCKS);
    for _ in 0..BLOCKS {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(store.search(&cx, &name, &query).await?);
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    Ok(median(&times))
}

/// A store that answers at once, so that what is around it can be measured.
pub struct Idle;

#[async_trait]
impl VectorStore for Idle {
    fn capabilities(&self) -> Capabilities {
        let search = SearchCapabilities { dense: &Distance::ALL, sparse: true };
        Capabilities { search, durability: Durability::Volatile, pipelining: Pipelining::NONE }
    }

    async fn position(&self, _: &Context) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn apply(&self, _: &Context, run: &Run) -> Result<Position> {
        Ok(run.end())
    }

    async fn flush(&self, _: &Context) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn restore(&self, _: &Context, _: RestoreStep<'_>) -> Result<()> {
        Ok(())
    }

    async fn search(&self, _: &Context, _: &CollectionName, _: &SearchQuery) -> Result<Vec<Hit>> {
        Ok(Vec::new())
    }

    async fn get(&self, _: &Context, _: &CollectionName, _: &[PointId], _: &Fields) -> Result<Vec<Record>> {
        Ok(Vec::new())
    }

    async fn scroll(&self, _: &Context, name: &CollectionName, _: &ScrollQuery) -> Result<ScrollPage> {
        Err(Error::collection_not_found(name))
    }

    async fn count(&self, _: &Context, _: &CollectionName, _: Option<&Filter>) -> Result<u64> {
        Ok(0)
    }

    async fn collections(&self, _: &Context) -> Result<Vec<CollectionInfo>> {
        Ok(Vec::new())
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
