use super::*;
use crate::breaker::{BreakerOptions, BreakerState};
use crate::plain_store::{PlainStore, create, cx, name, run, upsert};
use crate::point::{Point, SparseVector};

fn guard(options: GuardOptions) -> (Arc<PlainStore>, Arc<Guarded<PlainStore>>) {
    let store = Arc::new(PlainStore::default());
    let guarded = Arc::new(Guarded::new(Arc::clone(&store), "primary", options).unwrap());
    (store, guarded)
}

async fn filled(options: GuardOptions) -> (Arc<PlainStore>, Arc<Guarded<PlainStore>>) {
    let (store, guarded) = guard(options);
    let points = (1..=3_u64).map(|id| Point::new(id, vec![1.0, 0.0])).collect();
    store.apply(&cx(), &run(0, vec![create(), upsert(points)])).await.unwrap();
    (store, guarded)
}

async fn search(guarded: &Guarded<PlainStore>) -> Result<usize> {
    guarded.search(&cx(), &name(), &SearchQuery::new(vec![1.0, 0.0])).await.map(|hits| hits.len())
}

async fn open(store: &PlainStore, guarded: &Guarded<PlainStore>) {
    store.fails(ErrorKind::Unavailable);
    for _ in 0..guarded.options().breaker.failure_threshold {
        assert_eq!(search(guarded).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn every_operation_goes_through() {
    let (_, guarded) = guard(GuardOptions::default());
    let end =
        guarded.apply(&cx(), &run(0, vec![create(), upsert(vec![Point::new(7, vec![1.0, 0.0])])])).await;
    assert_eq!(guarded.position(&cx()).await.unwrap(), Some(end.unwrap()));
    assert_eq!(guarded.flush(&cx()).await.unwrap(), None);
    assert_eq!(search(&guarded).await.unwrap(), 1);
    assert_eq!(guarded.get(&cx(), &name(), &[PointId::Num(7)], &Fields::ALL).await.unwrap().len(), 1);
    assert_eq!(guarded.scroll(&cx(), &name(), &ScrollQuery::default()).await.unwrap().records.len(), 1);
    assert_eq!(guarded.count(&cx(), &name(), None).await.unwrap(), 1);
    assert_eq!(guarded.collections(&cx()).await.unwrap().len(), 1);
    guarded.ping(&cx()).await.unwrap();
    guarded.restore(&cx(), RestoreStep::Begin).await.unwrap();
    guarded.close(&cx()).await.unwrap();
    assert_eq!(guarded.memory_bytes(), Some(1));
    for counted in guarded.metrics().operations {
        assert_eq!((counted.calls, counted.answered, counted.errors), (1, 1, 0), "{}", counted.operation);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_names_operation_member_and_collection() {
    let (_, guarded) = guard(GuardOptions::default());
    let error = search(&guarded).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!((error.operation(), error.member()), (Some("search"), Some("primary")));
    assert_eq!(error.collection(), Some(&name()));
}

#[tokio::test(start_paused = true)]
async fn failures_open_the_breaker_and_calls_no_longer_reach_the_store() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    open(&store, &guarded).await;
    let calls = store.calls();
    let error = search(&guarded).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
    assert!(error.message().contains("60s"), "{error}");
    let error = guarded.apply(&cx(), &run(2, vec![])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::BreakerOpen, Effect::None));
    assert_eq!(guarded.flush(&cx()).await.unwrap_err().kind(), ErrorKind::BreakerOpen);
    assert_eq!(store.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn the_callers_mistakes_do_not_open_the_breaker() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    for kind in ErrorKind::ALL.into_iter().filter(|kind| !kind.counts_on_breaker()) {
        store.fails(kind);
        for _ in 0..10 {
            assert_eq!(search(&guarded).await.unwrap_err().kind(), kind);
        }
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn restore_close_position_and_ping_pass_an_open_breaker() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    open(&store, &guarded).await;
    store.fails(None);
    guarded.position(&cx()).await.unwrap();
    guarded.ping(&cx()).await.unwrap();
    guarded.restore(&cx(), RestoreStep::Begin).await.unwrap();
    guarded.close(&cx()).await.unwrap();
    assert_eq!(guarded.breaker().state(), BreakerState::Open, "none of them was due as a probe");
}

#[tokio::test(start_paused = true)]
async fn probes_close_an_open_breaker_without_traffic() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    open(&store, &guarded).await;
    let calls = store.calls();
    assert_eq!(guarded.probe(&cx()).await.unwrap_err().kind(), ErrorKind::BreakerOpen);
    assert_eq!(store.calls(), calls, "no probe before its time");

    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(guarded.probe(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(guarded.breaker().state(), BreakerState::Open);

    store.fails(None);
    tokio::time::advance(Duration::from_secs(60)).await;
    guarded.probe(&cx()).await.unwrap();
    assert_eq!(guarded.breaker().state(), BreakerState::HalfOpen);
    guarded.position(&cx()).await.unwrap();
    assert_eq!(guarded.breaker().state(), BreakerState::Closed, "a position is a probe too");
}

#[tokio::test(start_paused = true)]
async fn failing_pings_open_the_breaker_and_good_ones_do_not_hide_failing_searches() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    for _ in 0..4 {
        store.fails(ErrorKind::Internal);
        search(&guarded).await.unwrap_err();
        store.fails(None);
        guarded.ping(&cx()).await.unwrap();
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
    store.fails(ErrorKind::Unavailable);
    guarded.ping(&cx()).await.unwrap_err();
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_the_earlier_of_both_deadlines() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    store.takes(Duration::from_secs(3600));
    for (given, taken) in [(60, 5), (2, 2)] {
        let start = Instant::now();
        let cx = Context::within(Duration::from_secs(given));
        let error = guarded.count(&cx, &name(), None).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::None));
        assert_eq!(start.elapsed().as_secs(), taken);
    }
    let start = Instant::now();
    let error = guarded.apply(&cx(), &run(2, vec![upsert(vec![])])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    assert_eq!(error.lsn(), Some(crate::Lsn(3)));
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_store_opens_the_breaker_but_a_caller_in_a_hurry_does_not() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    store.takes(Duration::from_secs(3600));
    for given in [Duration::ZERO, Duration::from_millis(5)] {
        for _ in 0..10 {
            let error = guarded.count(&Context::within(given), &name(), None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
        }
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
    for _ in 0..5 {
        search(&guarded).await.unwrap_err();
    }
    assert_eq!(guarded.breaker().state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn reads_beyond_the_bulkhead_wait_and_beyond_the_queue_are_refused() {
    let options = GuardOptions { max_concurrent: 2, max_queued: 1, ..GuardOptions::default() };
    let (store, guarded) = filled(options).await;
    store.takes(Duration::from_secs(1));
    let (start, write_cx) = (Instant::now(), cx());
    let (a, b, c, d, write) = tokio::join!(
        search(&guarded),
        search(&guarded),
        search(&guarded),
        search(&guarded),
        guarded.flush(&write_cx),
    );
    assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (3, 3, 3));
    assert_eq!(d.unwrap_err().kind(), ErrorKind::Overloaded);
    write.unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!((guarded.metrics().running, guarded.metrics().queued), (0, 0));
    assert_eq!(guarded.breaker().state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_never_gets_its_turn_is_overload() {
    let options = GuardOptions { max_concurrent: 1, ..GuardOptions::default() };
    let (store, guarded) = filled(options).await;
    store.takes(Duration::from_secs(4));
    let (hasty, name) = (Context::within(Duration::from_secs(1)), name());
    let (first, second) = tokio::join!(search(&guarded), guarded.count(&hasty, &name, None));
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_read_gives_back_its_slot_and_its_probe() {
    let options = GuardOptions { max_concurrent: 1, max_queued: 1, ..GuardOptions::default() };
    let (store, guarded) = filled(options).await;
    open(&store, &guarded).await;
    store.fails(None);
    store.takes(Duration::from_secs(4));
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_secs(1), search(&guarded)).await;
        assert!(dropped.is_err());
    }
    assert_eq!(guarded.metrics().running, 0);
    assert_eq!(search(&guarded).await.unwrap(), 3);
    let counted = guarded.metrics().of(Operation::Search);
    assert_eq!((counted.calls, counted.answered, counted.errors), (9, 6, 5));
    assert_eq!(counted.latency_total, Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_queue_does_not_run_into_a_store_found_dead() {
    let options = GuardOptions {
        max_concurrent: 1,
        breaker: BreakerOptions { failure_threshold: 1, ..BreakerOptions::default() },
        ..GuardOptions::default()
    };
    let (store, guarded) = filled(options).await;
    store.takes(Duration::from_secs(1));
    store.fails(ErrorKind::Unavailable);
    let calls = store.calls();
    let (first, second) = tokio::join!(search(&guarded), search(&guarded));
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::BreakerOpen);
    assert_eq!(store.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn an_undeclared_kind_of_search_is_unsupported() {
    let (store, guarded) = filled(GuardOptions::default()).await;
    let calls = store.calls();
    let sparse = SparseVector { indices: vec![1], values: vec![1.0] };
    let query = SearchQuery { vector: Vector::Sparse(sparse), ..SearchQuery::new(vec![]) };
    let error = guarded.search(&cx(), &name(), &query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(store.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_forces_it_open_is_named() {
    let (_, guarded) = filled(GuardOptions::default()).await;
    guarded.breaker().force_open(Instant::now());
    let error = search(&guarded).await.unwrap_err();
    assert!(error.message().contains("operator"), "{error}");
    guarded.breaker().reset(Instant::now());
    search(&guarded).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guard_takes_any_store_behind_the_trait() {
    let (store, _) = filled(GuardOptions::default()).await;
    let any: Arc<dyn VectorStore> = store;
    let inner: Arc<dyn VectorStore> = Arc::new(Guarded::new(any, "a", GuardOptions::default()).unwrap());
    let outer = Guarded::new(inner, "b", GuardOptions::default()).unwrap();
    assert_eq!(outer.count(&cx(), &name(), None).await.unwrap(), 3);
    assert!(format!("{outer:?}").contains("\"b\""));
}

#[test]
fn options_out_of_range_are_refused() {
    let good = GuardOptions::default();
    good.check().unwrap();
    for bad in [
        GuardOptions { timeout: Duration::ZERO, ..good },
        GuardOptions { write_timeout: MAX_TIMEOUT + Duration::from_secs(1), ..good },
        GuardOptions { max_concurrent: 0, ..good },
        GuardOptions { max_concurrent: MAX_CALLS + 1, ..good },
        GuardOptions { max_queued: MAX_CALLS + 1, ..good },
        GuardOptions { breaker: BreakerOptions { max_probes: 0, ..good.breaker }, ..good },
    ] {
        assert_eq!(bad.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
