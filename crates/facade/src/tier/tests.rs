//! The tier over stores that fail on demand, under tokio's paused clock.

mod deadlines;
mod deletes;
mod loads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::faulty::{Fault, Faulty};
use mainstay_core::{
    CollectionName, CollectionSpec, Condition, Context, Distance, Effect, Error, ErrorKind, Fields, Filter,
    GuardOptions, Guarded, Lsn, Operation, Point, PointId, RestoreStep, ScrollQuery, SearchQuery,
    VectorStore,
};
use mainstay_memory::{MemoryOptions, MemoryStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::answer::ServiceLevel;
use crate::config::{Ack, HedgeAfter, ReadPolicy, RetryConfig};
use crate::log::{Log, MemoryLog};
use crate::tier::{Event, MemberState, MemberStore, Tier, TierOptions};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) type Double = Arc<Faulty<MemoryStore>>;

pub(super) fn store(seed: u64) -> Double {
    Arc::new(Faulty::new(Arc::new(MemoryStore::new(MemoryOptions::default()).unwrap()), seed))
}

fn member(name: &str, store: &Double) -> MemberStore {
    let store: Arc<dyn VectorStore> = Arc::clone(store) as _;
    let guarded = Guarded::new(store, name, GuardOptions::default()).unwrap();
    MemberStore { name: name.to_owned(), backend: "model", store: Arc::new(guarded) }
}

pub(super) async fn tier_of(options: TierOptions, log: &Arc<MemoryLog>, stores: &[&Double]) -> Tier {
    let names = ["primary", "secondary", "standby"];
    let members = stores.iter().zip(names).map(|(store, name)| member(name, store)).collect();
    Tier::assemble(options, Arc::clone(log) as Arc<dyn Log>, members).await.unwrap()
}

/// The next member is asked too after 100 ms.
pub(super) fn hedging() -> TierOptions {
    TierOptions { hedge_after: HedgeAfter::After(Duration::from_millis(100)), ..TierOptions::default() }
}

pub(super) struct Pair {
    pub(super) tier: Tier,
    pub(super) log: Arc<MemoryLog>,
    pub(super) primary: Double,
    pub(super) standby: Double,
}

pub(super) async fn pair() -> Pair {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    Pair { tier, log, primary, standby }
}

pub(super) fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

pub(super) fn spec() -> CollectionSpec {
    CollectionSpec::dense(docs(), 2, Distance::Dot)
}

pub(super) fn point(id: u64, x: f32) -> Point {
    Point::new(id, vec![x, 1.0]).with_payload(serde_json::json!({ "x": x }))
}

/// Ends a tier as a crash would, and leaves its stores as they are.
async fn stop(tier: Tier) {
    drop(tier);
    tokio::time::sleep(MINUTE).await;
}

pub(super) async fn ids_of(tier: &Tier, member: &str) -> Vec<PointId> {
    let query = ScrollQuery { limit: 1_000, ..ScrollQuery::default() };
    let page = tier.reader().from_member(member).unwrap().scroll(&docs(), &query).await.unwrap();
    page.value.records.iter().map(|record| record.point.id).collect()
}

pub(super) async fn assert_equal_members(tier: &Tier, names: &[&str]) {
    tier.wait_caught_up(10 * MINUTE).await.unwrap();
    let first = tier.digest(names[0]).await.unwrap();
    for name in &names[1..] {
        assert_eq!(tier.digest(name).await.unwrap(), first, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_readable_at_its_lsn_from_every_member() {
    let Pair { tier, .. } = pair().await;
    let written = tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    for name in ["primary", "secondary"] {
        let reader = tier.reader().at_least(written.lsn).from_member(name).unwrap();
        let answer = reader.get(&docs(), &[1.into()], &Fields::ALL).await.unwrap();
        assert_eq!(answer.value[0].point, point(1, 0.5));
        assert_eq!(answer.value[0].version, written.lsn);
        assert!(answer.cursor >= written.lsn);
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_moves_on_within_the_call_when_the_primary_fails() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
    assert_eq!((answer.served_by.as_str(), answer.level), ("primary", ServiceLevel::Normal));
    primary.set_down(true);
    for _ in 0..20 {
        let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
        assert_eq!(answer.served_by.as_str(), "secondary");
        assert_eq!(answer.value.len(), 1);
        assert_ne!(answer.level, ServiceLevel::Normal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_primary_costs_time_and_no_error() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.hang(true);
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
    assert_eq!(answer.served_by.as_str(), "secondary");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_primary_costs_a_search_the_hedge_and_no_more() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let name = docs();
    let search = || tier.search(&name, SearchQuery::new(vec![1.0, 1.0]));
    for _ in 0..100 {
        assert_eq!(search().await.unwrap().served_by.as_str(), "primary");
    }
    primary.hang(true);
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(search().await.unwrap().served_by.as_str(), "secondary");
    }
    assert!(start.elapsed() <= 3 * Duration::from_millis(6), "{:?}", start.elapsed());
    let running = tier.shared().members[0].store().metrics().running;
    assert_eq!(running, 0, "the slower call was given up");
}

#[tokio::test(start_paused = true)]
async fn members_that_hang_leave_time_for_one_that_comes_back_meanwhile() {
    let (log, stores) = (Arc::new(MemoryLog::default()), [store(1), store(2), store(3)]);
    let tier = tier_of(TierOptions::default(), &log, &stores.each_ref()).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let [primary, secondary, standby] = &stores;
    standby.set_down(true);
    let written = tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    primary.hang(true);
    secondary.hang(true);
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        standby.set_down(false);
    };
    let (reader, name) = (tier.reader().at_least(written.lsn), docs());
    let (answer, ()) = tokio::join!(reader.count(&name, None), back);
    assert_eq!(answer.unwrap().served_by.as_str(), "standby");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_failed_everywhere_for_a_moment_is_tried_again() {
    let Pair { tier, primary, standby, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    for store in [&primary, &standby] {
        store.fail_next_of(Operation::Search, 2, Fault::Before(ErrorKind::Unavailable));
    }
    let query = || SearchQuery::new(vec![1.0, 1.0]);
    assert_eq!(tier.search(&docs(), query()).await.unwrap().value.len(), 1);
    for store in [&primary, &standby] {
        store.fail_next_of(Operation::Search, 50, Fault::Before(ErrorKind::Unavailable));
    }
    let start = tokio::time::Instant::now();
    assert_eq!(tier.search(&docs(), query()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(primary.injected(), 2 + 4, "once, and three retries");
}

#[tokio::test(start_paused = true)]
async fn a_slow_primary_that_answers_before_the_standby_fails_is_heard() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let tier = tier_of(hedging(), &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.fail_next_of(Operation::Search, 1, Fault::Delay(Duration::from_millis(300)));
    standby.fail_next_of(Operation::Search, 1, Fault::Before(ErrorKind::Unavailable));
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
    assert_eq!(answer.served_by.as_str(), "primary");
}

#[tokio::test(start_paused = true)]
async fn a_slow_primary_is_not_raced_by_a_standby_behind_an_acked_write() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let tier = tier_of(hedging(), &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    standby.fail_next_of(Operation::Apply, u64::MAX, Fault::Delay(Duration::from_millis(700)));
    primary.fail_next_of(Operation::Get, u64::MAX, Fault::Delay(Duration::from_secs(1)));
    for id in 0..4 {
        tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        let start = tokio::time::Instant::now();
        let answer = tier.get(&docs(), &[id.into()], &Fields::NONE).await.unwrap();
        assert_eq!((answer.value.len(), answer.served_by.as_str()), (1, "secondary"));
        let took = start.elapsed();
        assert!((600..=1_000).contains(&took.as_millis()), "as soon as the standby has it: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_late_does_not_take_the_slow_standby_with_it() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let tier = tier_of(TierOptions { retry, ..hedging() }, &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    // The one is given up after half of 5 s, while the other is still at it.
    primary.fail_next_of(Operation::Search, 1, Fault::Hang);
    standby.fail_next_of(Operation::Search, 1, Fault::Delay(Duration::from_secs(3)));
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
    assert_eq!(answer.served_by.as_str(), "secondary");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_late_brings_no_older_answer_while_a_fresh_member_is_asked() {
    let (log, primary, second, third) = (Arc::new(MemoryLog::default()), store(1), store(2), store(3));
    let tier = tier_of(hedging(), &log, &[&primary, &second, &third]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    third.fail_next_of(Operation::Apply, u64::MAX, Fault::Delay(Duration::from_secs(20)));
    let written = tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The one is given up after a third of 5 s, while the other, asked after 100 ms, is still at it.
    primary.fail_next_of(Operation::Get, 1, Fault::Hang);
    second.fail_next_of(Operation::Get, 1, Fault::Delay(Duration::from_secs(2)));
    let answer = tier.get(&docs(), &[1.into()], &Fields::NONE).await.unwrap();
    assert_eq!((answer.value.len(), answer.served_by.as_str()), (1, "secondary"));
    assert!(answer.cursor >= written.lsn);
}

#[tokio::test(start_paused = true)]
async fn the_fastest_member_serves_and_is_never_behind_an_acked_write() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let options = TierOptions { read: ReadPolicy::Fastest, ..TierOptions::default() };
    let tier = tier_of(options, &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.fail_next_of(Operation::Get, u64::MAX, Fault::Delay(Duration::from_millis(3)));
    let mut served = BTreeMap::<String, u32>::new();
    for id in 0..400 {
        if id == 200 {
            // The standby, fast as it is, falls behind from here on.
            standby.fail_next_of(Operation::Apply, u64::MAX, Fault::Delay(Duration::from_millis(50)));
        }
        tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        let answer = tier.get(&docs(), &[id.into()], &Fields::NONE).await.unwrap();
        assert_eq!(answer.value.len(), 1, "{id} was acked, {} does not have it", answer.served_by);
        if id == 199 {
            assert!(served["secondary"] > 100, "{served:?}");
            assert_eq!(answer.level, ServiceLevel::Normal);
        }
        *served.entry(answer.served_by.to_string()).or_default() += 1;
    }
    assert!(served["primary"] > 150, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_while_the_primary_is_down_and_it_catches_up_exactly() {
    let Pair { tier, primary, .. } = pair().await;
    primary.set_down(true);
    for id in 0..50 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    tier.delete(&docs(), &[3.into(), 4.into()]).await.unwrap();
    assert_eq!(tier.status().active.unwrap().as_str(), "secondary");
    primary.set_down(false);
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(ids_of(&tier, "primary").await.len(), 48);
    assert_eq!(tier.status().active.unwrap().as_str(), "secondary", "the primary has only just come back");
    let wait = tier.status().members[0].restored_in.unwrap();
    assert!(wait > 50 * Duration::from_secs(1), "{wait:?}");
    tokio::time::sleep(wait).await;
    assert_eq!(tier.status().active.unwrap().as_str(), "primary");
    tier.upsert(&docs(), vec![point(99, 0.1)]).await.unwrap();
    assert_eq!(tier.count(&docs(), None).await.unwrap().served_by.as_str(), "primary");
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_failover_alert_and_failback() {
    let Pair { tier, primary, .. } = pair().await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    let mut events = tier.events();
    primary.set_down(true);
    tier.upsert(&docs(), vec![point(1, 0.1)]).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    primary.set_down(false);
    tokio::time::sleep(3 * MINUTE).await;
    tier.close().await.unwrap();
    drop(tier);
    let mut heard = Vec::new();
    while let Some(event) = events.next().await {
        heard.push(match event {
            Event::State { member, from, to, .. } => format!("{member} {from} {to}"),
            Event::Alert { failed_checks, .. } => format!("alert {failed_checks}"),
            other => other.to_string(),
        });
    }
    let expected = [
        "primary live down",
        "failover: primary -> secondary",
        "alert 3",
        "primary down catching_up",
        "primary catching_up live",
        "failback: secondary -> primary",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_after_the_write_took_effect_changes_nothing() {
    let Pair { tier, primary, .. } = pair().await;
    primary.fail_next_of(Operation::Apply, 3, Fault::After(ErrorKind::Timeout));
    for id in 0..10 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(ids_of(&tier, "primary").await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_entry_quarantines_its_member_and_stops_nobody_else() {
    let Pair { tier, primary, .. } = pair().await;
    primary.fail_next_of(Operation::Apply, 1, Fault::Before(ErrorKind::Rejected));
    tier.upsert(&docs(), vec![point(1, 0.1)]).await.unwrap();
    tier.upsert(&docs(), vec![point(2, 0.1)]).await.unwrap();
    let status = tier.status();
    assert_eq!(status.members[0].state, MemberState::Quarantined);
    assert!(status.members[0].last_error.as_ref().unwrap().contains("rejected"));
    assert_eq!(ids_of(&tier, "secondary").await.len(), 2);
    assert_eq!(
        tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap().served_by.as_str(),
        "secondary"
    );
}

#[tokio::test(start_paused = true)]
async fn the_log_is_not_cut_on_the_word_of_a_member_whose_data_is_damaged() {
    let Pair { tier, .. } = pair().await;
    let member = &tier.shared().members[0];
    for (kind, held) in [(ErrorKind::Rejected, Lsn(5)), (ErrorKind::Corrupt, Lsn::ZERO)] {
        member.set_durable(Lsn(5));
        member.quarantine(&Error::new(kind, "a test"));
        assert_eq!(member.durable(), held, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wiped_member_is_loaded_from_another_when_the_log_was_cut() {
    let Pair { tier, log, primary, standby } = pair().await;
    for id in 0..100 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    tier.wait_caught_up(MINUTE).await.unwrap();
    tier.shared().log.truncate_before(Lsn(60), tier.shared().catalog.at(Lsn(59))).await.unwrap();
    tier.shared().catalog.cut(Lsn(59));
    stop(tier).await;
    drop(primary);

    let empty = store(3);
    let tier = tier_of(TierOptions::default(), &log, &[&empty, &standby]).await;
    let writer = async {
        for id in 100..130 {
            tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
            tier.delete(&docs(), &[(id - 100).into()]).await.unwrap();
        }
    };
    writer.await;
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(ids_of(&tier, "primary").await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_another_log_is_refused_and_says_so() {
    let Pair { tier, primary, standby, .. } = pair().await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    stop(tier).await;
    let other = Arc::new(MemoryLog::default());
    let fresh = store(9);
    let tier = tier_of(TierOptions::default(), &other, &[&primary, &standby, &fresh]).await;
    tier.create_collection(spec()).await.unwrap();
    let status = tier.status();
    assert_eq!(status.members[0].state, MemberState::Quarantined);
    assert!(status.members[0].last_error.as_ref().unwrap().contains("belongs to log"));
    assert_eq!(
        tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap().served_by.as_str(),
        "standby"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_continues_where_the_stores_are() {
    let Pair { tier, log, primary, standby } = pair().await;
    standby.set_down(true);
    for id in 0..20 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    stop(tier).await;
    standby.set_down(false);
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    assert_eq!(tier.collections(), [spec()]);
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(ids_of(&tier, "secondary").await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_no_member_takes_is_unknown_with_its_lsn_and_still_happens() {
    let Pair { tier, primary, standby, .. } = pair().await;
    primary.set_down(true);
    standby.set_down(true);
    let error = tier.upsert(&docs(), vec![point(7, 0.1)]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    let lsn = error.lsn().unwrap();
    primary.set_down(false);
    let answer =
        tier.reader().at_least(lsn).deadline(MINUTE).get(&docs(), &[7.into()], &Fields::ALL).await.unwrap();
    assert_eq!(answer.value.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ack_all_waits_for_every_member_and_ack_journal_for_none() {
    for (ack, expected) in [(Ack::All, Err(ErrorKind::Timeout)), (Ack::Journal, Ok(()))] {
        let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
        let tier = tier_of(TierOptions { ack, ..TierOptions::default() }, &log, &[&primary, &standby]).await;
        tier.create_collection(spec()).await.unwrap();
        standby.set_down(true);
        let result = tier.upsert(&docs(), vec![point(1, 0.1)]).await;
        assert_eq!(result.map(|_| ()).map_err(|error| error.kind()), expected, "{ack:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lacks_a_collection_still_to_come_does_not_deny_it() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let options = TierOptions { ack: Ack::Journal, retry, ..TierOptions::default() };
    let tier = tier_of(options, &log, &[&primary, &standby]).await;
    tier.create_collection(CollectionSpec::dense(docs(), 2, Distance::Dot)).await.unwrap();
    // Nobody has an entry yet: the read waits for the first one who does.
    assert_eq!(tier.count(&docs(), None).await.unwrap().cursor, Lsn(1));
    tier.wait_caught_up(MINUTE).await.unwrap();
    for store in [&primary, &standby] {
        store.fail_next_of(Operation::Apply, 2, Fault::Before(ErrorKind::Unavailable));
    }
    let late = CollectionName::new("late").unwrap();
    tier.create_collection(CollectionSpec::dense(late.clone(), 2, Distance::Dot)).await.unwrap();
    let error = tier.count(&late, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("has not come to the creation of `late` yet"), "{error}");
    let never = CollectionName::new("never").unwrap();
    assert_eq!(tier.count(&never, None).await.unwrap_err().kind(), ErrorKind::NotFound);
    tier.wait_caught_up(MINUTE).await.unwrap();
    assert_eq!(tier.count(&late, None).await.unwrap().value, 0);
}

#[tokio::test(start_paused = true)]
async fn a_primary_slower_than_the_writers_comes_back_and_no_read_is_behind_an_acked_write() {
    let Pair { tier, primary, .. } = pair().await;
    primary.set_down(true);
    tier.upsert(&docs(), vec![point(0, 0.0)]).await.unwrap();
    let write = |writer: u64| {
        let tier = tier.clone();
        async move {
            let (mut standby, mut back) = (0, 0);
            for n in 1_u64.. {
                let id = n * 10 + writer;
                tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
                // In between, the primary may become live again.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let answer = tier.get(&docs(), &[id.into()], &Fields::NONE).await.unwrap();
                assert_eq!(answer.value.len(), 1, "{id} was acked, {} does not have it", answer.served_by);
                match answer.served_by.as_str() {
                    "primary" => back += 1,
                    _ => standby += 1,
                }
                if back >= 20 {
                    break;
                }
            }
            standby
        }
    };
    let writing: Vec<_> = (0..8).map(|writer| tokio::spawn(write(writer))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    primary.heal();
    // Ten times slower than a writer.
    primary.fail_next_of(Operation::Apply, u64::MAX, Fault::Delay(Duration::from_millis(10)));
    for writer in writing {
        let standby = tokio::time::timeout(5 * MINUTE, writer).await.expect("the primary came back").unwrap();
        assert!(standby > 500, "{standby}");
    }
    assert_equal_members(&tier, &["primary", "secondary"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_beyond_the_log_is_the_callers_mistake() {
    let Pair { tier, .. } = pair().await;
    let reader = tier.reader().at_least(Lsn(99));
    assert_eq!(reader.count(&docs(), None).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_filter_removes_what_the_filter_accepts_everywhere() {
    let Pair { tier, .. } = pair().await;
    tier.upsert(
        &docs(),
        (0..10)
            .map(|id| Point::new(id, vec![1.0, 1.0]).with_payload(serde_json::json!({ "even": id % 2 == 0 })))
            .collect(),
    )
    .await
    .unwrap();
    let even = Filter::all([Condition::equals("even".parse().unwrap(), true)]);
    assert_eq!(tier.delete_by_filter(&docs(), &even).await.unwrap().points, 5);
    assert_eq!(tier.delete_by_filter(&docs(), &even).await.unwrap().points, 0);
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(ids_of(&tier, "primary").await, [1, 3, 5, 7, 9].map(PointId::Num));
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_a_filter_without_a_condition_removes_nothing_and_says_what_to_do() {
    let Pair { tier, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    let nested = |filter| Condition::Filter(Box::new(filter));
    let one = || Condition::equals("x".parse().unwrap(), 1);
    for filter in [
        Filter::default(),
        Filter::all([nested(Filter::default()), nested(Filter::all([nested(Filter::default())]))]),
        Filter { should: vec![one(), nested(Filter::default())], ..Filter::default() },
    ] {
        let (end, refused) = (tier.log_end(), tier.delete_by_filter(&docs(), &filter).await.unwrap_err());
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Invalid, Effect::None), "{filter:?}");
        assert!(refused.to_string().contains("drop the collection"), "{refused}");
        assert_eq!(tier.log_end(), end);
    }
    for filter in [
        Filter::all([nested(Filter::default()), one()]),
        Filter { should: vec![one()], ..Filter::default() },
        Filter { must_not: vec![nested(Filter::default())], ..Filter::default() },
    ] {
        assert_eq!(tier.delete_by_filter(&docs(), &filter).await.unwrap().points, 0, "{filter:?}");
    }
    assert_eq!(tier.count(&docs(), Some(&Filter::default())).await.unwrap().value, 1, "reads may mean all");
}

#[tokio::test(start_paused = true)]
async fn a_collection_created_twice_at_once_is_created_once() {
    let Pair { tier, .. } = pair().await;
    let other = || CollectionSpec::dense(CollectionName::new("other").unwrap(), 3, Distance::Cosine);
    let (a, b) = tokio::join!(tier.create_collection(other()), tier.create_collection(other()));
    let kinds: Vec<_> = [a, b].into_iter().filter_map(Result::err).map(|error| error.kind()).collect();
    assert_eq!(kinds, [ErrorKind::AlreadyExists]);
    assert_eq!(tier.collections().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_closed_tier_takes_nothing_more_and_says_so() {
    let Pair { tier, .. } = pair().await;
    tier.close().await.unwrap();
    let refused = tier.upsert(&docs(), vec![point(1, 0.1)]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unavailable, Effect::None));
    assert_eq!(tier.count(&docs(), None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_tier_ends_its_tasks() {
    let Pair { tier, log, primary, standby } = pair().await;
    drop(tier);
    // Every task holds the log and its store; when they are gone, so is the task.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        (Arc::strong_count(&log), Arc::strong_count(&primary), Arc::strong_count(&standby)),
        (1, 1, 1)
    );
}

/// Random faults of every kind while one client writes and reads; what was acked must be there in the
/// end, on every member, and nothing else but writes whose outcome was unknown.
async fn random_faults(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (log, stores) = (Arc::new(MemoryLog::default()), [store(seed), store(seed + 1), store(seed + 2)]);
    let tier = tier_of(TierOptions::default(), &log, &[&stores[0], &stores[1], &stores[2]]).await;
    tier.create_collection(spec()).await.unwrap();
    let mut model: BTreeMap<u64, Vec<Option<f32>>> = BTreeMap::new();
    for step in 0..rng.random_range(20..80) {
        let faulty = &stores[rng.random_range(0..2)];
        match rng.random_range(0..10) {
            0 => faulty.set_down(rng.random_bool(0.5)),
            1 => faulty.hang(rng.random_bool(0.3)),
            2 => faulty.fail_next(rng.random_range(1..8), Fault::Before(ErrorKind::Unavailable)),
            3 => faulty.fail_next(rng.random_range(1..8), Fault::After(ErrorKind::Timeout)),
            _ => {}
        }
        let id = rng.random_range(0..12);
        let value = (!rng.random_bool(0.3)).then_some(step as f32);
        let result = match value {
            Some(x) => tier.upsert(&docs(), vec![point(id, x)]).await,
            None => tier.delete(&docs(), &[id.into()]).await,
        };
        let possible = model.entry(id).or_insert_with(|| vec![None]);
        match result {
            Ok(_) => *possible = vec![value],
            Err(error) if error.effect() == Effect::Unknown => *possible = vec![value],
            Err(error) => panic!("seed {seed}: a write was refused: {error}"),
        }
        // The third member is never faulty, so no search may fail.
        tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0]))
            .await
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    stores.iter().for_each(|store| {
        store.heal();
        store.set_down(false);
        store.hang(false);
    });
    tier.wait_caught_up(30 * MINUTE).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    for name in ["primary", "secondary", "standby"] {
        let reader = tier.reader().from_member(name).unwrap();
        for (id, possible) in &model {
            let found = reader.get(&docs(), &[(*id).into()], &Fields::ALL).await.unwrap().value;
            let x = found.first().map(|record| record.point.payload["x"].as_f64().unwrap() as f32);
            assert!(
                possible.contains(&x),
                "seed {seed}: {name} holds {x:?} for point {id}, possible {possible:?}"
            );
        }
    }
    assert_equal_members(&tier, &["primary", "secondary", "standby"]).await;
    tier.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_acked_write_is_lost_and_no_search_fails_under_random_faults() {
    let seeds = std::env::var("MAINSTAY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        random_faults(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_swapped_for_an_older_one_replays_the_difference() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), (0..5).map(|id| point(id, 0.1)).collect()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let cx = Context::within(MINUTE);
    primary.store().restore(&cx, RestoreStep::Begin).await.unwrap();
    let start = tier.shared().log.checkpoint().position;
    primary.store().restore(&cx, RestoreStep::Finish { position: start }).await.unwrap();
    primary.fail_next(1, Fault::Before(ErrorKind::Unavailable));
    tier.upsert(&docs(), vec![point(9, 0.1)]).await.unwrap();
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(primary.store().position(&cx).await.unwrap().unwrap().lsn, tier.log_end());
    assert_eq!(ids_of(&tier, "primary").await.len(), 6);
}
