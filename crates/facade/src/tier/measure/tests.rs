//! Members whose times change, under tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::faulty::Fault;
use mainstay_core::{BreakerState, Fields, GuardOptions, Operation, ScrollQuery, SearchQuery};
use tokio::time::{Instant, sleep};

use crate::config::{HedgeAfter, ReadPolicy, ShadowConfig};
use crate::log::MemoryLog;
use crate::tier::counts::READS;
use crate::tier::member::Member;
use crate::tier::tests::{Double, MINUTE, docs, hedging, point, spec, store, tier_of};
use crate::tier::{Tier, TierOptions};

async fn pair_with(options: TierOptions) -> (Tier, Double, Double) {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    // Shadow reads are calls of a member too.
    let shadow = ShadowConfig { share: 0.0, ..ShadowConfig::default() };
    let tier = tier_of(TierOptions { shadow, ..options }, &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    (tier, primary, standby)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Every read takes so long from now on.
fn takes(store: &Double, time: Duration) {
    store.heal();
    for read in READS {
        store.fail_next_of(read, u64::MAX, Fault::Delay(time));
    }
}

/// Reads so many times; says how often the first member served.
async fn read(tier: &Tier, operation: Operation, times: usize) -> usize {
    let mut by_first = 0;
    for _ in 0..times {
        let served_by = match operation {
            Operation::Search => {
                let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
                assert_eq!(answer.value.len(), 1);
                answer.served_by
            }
            Operation::Get => tier.get(&docs(), &[1.into()], &Fields::ALL).await.unwrap().served_by,
            Operation::Scroll => tier.scroll(&docs(), &ScrollQuery::default()).await.unwrap().served_by,
            _ => tier.count(&docs(), None).await.unwrap().served_by,
        };
        by_first += usize::from(served_by.as_str() == "primary");
    }
    by_first
}

fn member(tier: &Tier, index: usize) -> &Member {
    &tier.shared().members[index]
}

#[tokio::test(start_paused = true)]
async fn a_member_that_became_slower_for_good_is_not_raced_forever() {
    for operation in READS {
        let (tier, primary, standby) = pair_with(TierOptions::default()).await;
        takes(&primary, ms(3));
        takes(&standby, ms(1));
        assert_eq!(read(&tier, operation, 1_000).await, 1_000);
        takes(&primary, ms(20));
        assert_eq!(read(&tier, operation, 1).await, 0, "its calls lose their races at first");
        read(&tier, operation, 300).await;
        let hedges = member(&tier, 0).counts().hedges();
        assert!(hedges <= 150, "{operation}: raced {hedges} times before its times were known");
        assert_eq!(read(&tier, operation, 200).await, 200, "{operation}");
        assert_eq!(member(&tier, 0).counts().hedges(), hedges, "{operation}");
        let measuring = member(&tier, 0).counts().measuring_calls();
        assert!((5..=hedges / 3).contains(&measuring), "{measuring} measuring calls for {hedges} races");
        tier.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_quick_again_is_raced_soon_when_it_hangs() {
    let (tier, primary, _) = pair_with(TierOptions::default()).await;
    takes(&primary, ms(200));
    read(&tier, Operation::Search, 600).await;
    takes(&primary, ms(3));
    read(&tier, Operation::Search, 4_000).await;
    primary.heal();
    primary.fail_next_of(Operation::Search, 1, Fault::Hang);
    let start = Instant::now();
    assert_eq!(read(&tier, Operation::Search, 1).await, 0);
    assert!(start.elapsed() < ms(10), "old times fade: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_most_one_measuring_call_runs_per_member() {
    let (tier, primary, _) = pair_with(TierOptions::default()).await;
    read(&tier, Operation::Search, 100).await;
    primary.fail_next_of(Operation::Search, u64::MAX, Fault::Hang);
    for _ in 0..200 {
        assert_eq!(read(&tier, Operation::Search, 1).await, 0);
        tokio::task::yield_now().await;
        assert!(member(&tier, 0).store().metrics().running <= 1);
    }
    assert_eq!(member(&tier, 0).counts().hedges(), 200);
    // 200 reads of 5 ms each, while one call may take as long as the guard's timeout.
    assert_eq!(member(&tier, 0).counts().measuring_calls(), 1);
    assert_eq!(member(&tier, 0).store().metrics().running, 1);
}

#[tokio::test(start_paused = true)]
async fn a_measuring_call_delays_no_answer_and_ends_with_the_tier() {
    let (tier, primary, _) = pair_with(TierOptions::default()).await;
    read(&tier, Operation::Search, 100).await;
    primary.fail_next_of(Operation::Search, u64::MAX, Fault::Hang);
    let start = Instant::now();
    read(&tier, Operation::Search, 100).await;
    assert!(start.elapsed() <= 100 * ms(6), "{:?}", start.elapsed());
    assert_eq!(member(&tier, 0).store().metrics().running, 1);
    let start = Instant::now();
    tier.close().await.unwrap();
    assert!(start.elapsed() < ms(1_000), "{:?}", start.elapsed());
    assert_eq!(member(&tier, 0).store().metrics().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_searches_hang_opens_its_breaker_although_each_one_is_raced() {
    let (tier, primary, _) = pair_with(TierOptions::default()).await;
    read(&tier, Operation::Search, 100).await;
    // It goes on to answer whoever asks how it is.
    primary.fail_next_of(Operation::Search, u64::MAX, Fault::Hang);
    let until = Instant::now() + 10 * GuardOptions::default().timeout;
    while member(&tier, 0).store().breaker().state() == BreakerState::Closed {
        assert!(Instant::now() < until, "{:?}", member(&tier, 0).store().metrics().breaker);
        assert_eq!(read(&tier, Operation::Search, 1).await, 0);
        sleep(ms(20)).await;
    }
    let (hedges, start) = (member(&tier, 0).counts().hedges(), Instant::now());
    read(&tier, Operation::Search, 100).await;
    assert_eq!((member(&tier, 0).counts().hedges(), start.elapsed()), (hedges, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_became_the_fastest_serves() {
    let options = TierOptions { read: ReadPolicy::Fastest, ..TierOptions::default() };
    let (tier, primary, standby) = pair_with(options).await;
    for operation in READS {
        takes(&primary, ms(3));
        takes(&standby, ms(4));
        assert!(read(&tier, operation, 1_000).await > 900, "{operation}");
        takes(&standby, ms(1));
        // Reads of the other kinds in turn must not take all that is drawn.
        let before = member(&tier, 1).counts().measuring_calls();
        let by_first = read(&tier, operation, 4_000).await;
        assert!(by_first < 3_000, "{operation}: {by_first} of 4000 from the slower one");
        let measuring = member(&tier, 1).counts().measuring_calls() - before;
        assert!(measuring <= 4_000 / 12, "{operation}: {measuring} measuring calls");
        assert_eq!(read(&tier, operation, 100).await, 0, "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_that_no_decision_looks_at() {
    let fixed = HedgeAfter::After(ms(10));
    let (tier, primary, _) = pair_with(TierOptions { hedge_after: fixed, ..hedging() }).await;
    takes(&primary, ms(50));
    assert_eq!(read(&tier, Operation::Search, 200).await, 0);
    assert_eq!(member(&tier, 0).counts().hedges(), 200);
    assert_eq!([0, 1].map(|index| member(&tier, index).counts().measuring_calls()), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn exact_searches_do_not_make_a_member_count_as_slow_for_others() {
    let options = TierOptions { read: ReadPolicy::Fastest, ..TierOptions::default() };
    let (tier, primary, standby) = pair_with(options).await;
    takes(&primary, ms(2));
    takes(&standby, ms(50));
    let exact = SearchQuery::new(vec![1.0, 1.0]).exact();
    let from_standby = tier.reader().from_member("secondary").unwrap();
    for _ in 0..100 {
        from_standby.search(&docs(), exact.clone()).await.unwrap();
    }
    takes(&standby, ms(1));
    // Both are asked until their times are known, and then the standby is the fastest.
    read(&tier, Operation::Search, 100).await;
    assert_eq!(read(&tier, Operation::Search, 100).await, 0);
    for _ in 0..100 {
        tier.search(&docs(), exact.clone()).await.unwrap();
    }
    let served_by = tier.search(&docs(), exact).await.unwrap().served_by;
    assert_eq!(served_by.as_str(), "primary", "it has the shorter times of exact searches");
}
