//! Stores that somebody else writes to, under tokio's paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{
    CollectionName, CollectionSpec, Distance, Durability, ErrorKind, Lsn, Payload, Point, PointId, Record,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use super::motion::Motion;
use super::repair::{Repair, repair};
use super::{DriftKind, DriftReport};
use crate::config::{DriftConfig, DriftPolicy};
use crate::log::Log;
use crate::tier::exposed::{Contents, Exposed};
use crate::tier::slow_log::SlowLog;
use crate::tier::{Event, Tier, TierOptions};

const MINUTE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["primary", "secondary", "standby"];

struct Three {
    tier: Tier,
    log: Arc<SlowLog>,
    stores: [Arc<Exposed>; 3],
}

fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

fn spec() -> CollectionSpec {
    CollectionSpec::dense(docs(), 2, Distance::Dot)
}

fn point(id: u64, x: f32) -> Point {
    Point::new(id, vec![x, 1.0]).with_payload(serde_json::json!({ "x": x }))
}

/// Two durable members and one in memory, with a collection.
async fn three(options: TierOptions) -> Three {
    let durabilities = [Durability::OnFlush, Durability::OnFlush, Durability::Volatile];
    let stores = durabilities.map(Exposed::new);
    let log = Arc::new(SlowLog::default());
    let members = stores.iter().zip(NAMES).map(|(store, name)| store.member(name)).collect();
    let tier = Tier::assemble(options, Arc::clone(&log) as Arc<dyn Log>, members).await.unwrap();
    tier.create_collection(spec()).await.unwrap();
    Three { tier, log, stores }
}

async fn with_points(points: u64) -> Three {
    let three = three(TierOptions::default()).await;
    for first in (0..points).step_by(100) {
        let batch = (first..points.min(first + 100)).map(|id| point(id, 0.5)).collect();
        three.tier.upsert(&docs(), batch).await.unwrap();
    }
    three.at_rest().await;
    three
}

impl Three {
    /// Everything is applied and durable.
    async fn at_rest(&self) {
        self.tier.wait_caught_up(10 * MINUTE).await.unwrap();
        self.tier.wait_durable(10 * MINUTE).await.unwrap();
    }

    /// The log loses everything that it may.
    async fn cut(&self) {
        let end = self.tier.log_end();
        let shared = self.tier.shared();
        self.log.truncate_before(end.next(), shared.catalog.at(end)).await.unwrap();
        shared.catalog.cut(end);
    }

    async fn states(&self) -> [BTreeMap<PointId, Record>; 3] {
        let mut states = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        for (state, store) in states.iter_mut().zip(&self.stores) {
            *state = store.contents().await.remove(&docs()).map(|(_, records)| records).unwrap_or_default();
        }
        states
    }

    async fn assert_equal(&self, hint: &str) -> BTreeMap<PointId, Record> {
        self.at_rest().await;
        let [first, second, third] = self.states().await;
        assert_eq!(first, second, "{hint}");
        assert_eq!(first, third, "{hint}");
        first
    }

    async fn compare(&self, policy: DriftPolicy) -> Arc<DriftReport> {
        self.tier.compare_members(&deep(policy)).await.unwrap()
    }
}

fn deep(policy: DriftPolicy) -> DriftConfig {
    DriftConfig { policy, deep: 1.0, points_per_second: 1_000_000, ..DriftConfig::default() }
}

/// Changes the points of the collection.
async fn tamper(store: &Exposed, change: impl FnOnce(&mut BTreeMap<PointId, Record>)) {
    store
        .tamper(|contents: &mut Contents| {
            if let Some((_, records)) = contents.get_mut(&docs()) {
                change(records);
            }
        })
        .await;
}

fn record(version: u64, id: u64, x: f32) -> Record {
    Record { version: Lsn(version), point: point(id, x) }
}

/// One change of each kind.
fn every_kind(records: &mut BTreeMap<PointId, Record>) {
    records.remove(&3.into());
    records.insert(900.into(), record(0, 900, 7.0));
    records.insert(4.into(), record(0, 4, 7.0));
    records.get_mut(&5.into()).unwrap().point = point(5, 7.0);
    records.get_mut(&6.into()).unwrap().point.payload = Payload::new();
}

#[tokio::test(start_paused = true)]
async fn equal_members_have_no_drift() {
    let three = with_points(2_500).await;
    let report = three.compare(DriftPolicy::Report).await;
    assert!(!report.has_drift(), "{report:?}");
    assert_eq!((report.collections, report.ranges, report.unsettled), (1, 3, 0));
    for member in &report.members {
        assert_eq!((member.points, member.deep_points, &member.left_out), (2_500, 2_500, &None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_names_the_member_and_each_kind_and_changes_nothing() {
    let three = with_points(50).await;
    let mut events = three.tier.events();
    tamper(&three.stores[1], every_kind).await;
    let before = three.states().await;
    let report = three.compare(DriftPolicy::Report).await;
    let found = &report.members[1];
    assert_eq!((found.missing, found.extra, found.other_version, found.other_content), (1, 1, 1, 2));
    let kinds: Vec<_> = found.first.iter().map(|point| (point.id, point.kind)).collect();
    let expected = [
        (3, DriftKind::Missing),
        (4, DriftKind::Version),
        (5, DriftKind::Content),
        (6, DriftKind::Content),
        (900, DriftKind::Extra),
    ];
    assert_eq!(kinds, expected.map(|(id, kind)| (PointId::Num(id), kind)));
    assert!(!report.members[0].has_drift() && !report.members[2].has_drift(), "{report:?}");
    assert_eq!(three.states().await, before);
    let told = Event::Drift { member: found.member.clone(), points: 5, collections: 0, repaired: 0 };
    assert_eq!(events.next().await, Some(told));
    assert_eq!(three.tier.drift().as_deref(), Some(&*report));
}

#[tokio::test(start_paused = true)]
async fn log_wins_brings_every_kind_of_drift_back_whether_or_not_the_log_was_cut() {
    for (cut, tampered) in [(false, 0), (false, 1), (true, 0), (true, 1), (true, 2)] {
        let three = with_points(50).await;
        if cut {
            three.cut().await;
        }
        let before = three.states().await[0].clone();
        tamper(&three.stores[tampered], every_kind).await;
        let report = three.compare(DriftPolicy::LogWins).await;
        let found = &report.members[tampered];
        assert_eq!((found.points_that_differ(), found.repaired), (5, 5), "{cut} {tampered} {report:?}");
        let after = three.assert_equal("repaired").await;
        let points = |records: &BTreeMap<PointId, Record>| -> Vec<Point> {
            records.values().map(|record| record.point.clone()).collect()
        };
        assert_eq!(points(&after), points(&before), "{cut} {tampered}");
        assert!(!three.compare(DriftPolicy::Report).await.has_drift());
    }
}

#[tokio::test(start_paused = true)]
async fn primary_wins_makes_the_others_follow_the_first_member() {
    let three = with_points(50).await;
    tamper(&three.stores[0], every_kind).await;
    tamper(&three.stores[2], |records| drop(records.remove(&9.into()))).await;
    let [primary, ..] = three.states().await;
    let report = three.compare(DriftPolicy::PrimaryWins).await;
    assert!(!report.members[0].has_drift(), "{report:?}");
    assert_eq!(report.members[1].points_that_differ(), 5);
    assert_eq!((report.members[2].points_that_differ(), report.members[2].missing), (6, 2));
    let after = three.assert_equal("repaired").await;
    let points = |records: BTreeMap<PointId, Record>| -> Vec<Point> {
        records.into_values().map(|record| record.point).collect()
    };
    assert_eq!(points(after), points(primary));
}

#[tokio::test(start_paused = true)]
async fn a_change_in_place_is_seen_by_a_deep_comparison_alone() {
    let three = with_points(50).await;
    tamper(&three.stores[1], |records| records.get_mut(&5.into()).unwrap().point = point(5, 7.0)).await;
    let shallow = DriftConfig { deep: 0.0, ..deep(DriftPolicy::Report) };
    assert!(!three.tier.compare_members(&shallow).await.unwrap().has_drift());
    assert_eq!(three.compare(DriftPolicy::Report).await.members[1].other_content, 1);
    let tenth = DriftConfig { deep: 0.1, ..deep(DriftPolicy::Report) };
    let mut found = 0;
    for _ in 0..10 {
        found += u64::from(three.tier.compare_members(&tenth).await.unwrap().has_drift());
    }
    assert_eq!(found, 1, "each range is read deeply once in ten rounds");
}

#[tokio::test(start_paused = true)]
async fn more_drift_than_may_be_repaired_is_left_alone() {
    for policy in [DriftPolicy::LogWins, DriftPolicy::PrimaryWins] {
        let three = with_points(300).await;
        tamper(&three.stores[0], |records| records.retain(|id, _| *id >= 100.into())).await;
        let before = three.states().await;
        let config = DriftConfig { max_repairs: 99, ..deep(policy) };
        let report = three.tier.compare_members(&config).await.unwrap();
        assert_eq!(report.too_many, [docs()]);
        assert!(report.has_drift());
        assert_eq!(three.states().await, before);
        let config = DriftConfig { max_repairs: 100, ..deep(DriftPolicy::LogWins) };
        three.tier.compare_members(&config).await.unwrap();
        assert_eq!(three.assert_equal("repaired").await.len(), 300);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_entry_can_repair_is_loaded_from_another_member() {
    // A lost collection, one that nobody created, and a version that the log has not come to.
    let changes: [fn(&mut Contents); 3] = [
        |contents| drop(contents.remove(&docs())),
        |contents| {
            let (mut info, records) = contents[&docs()].clone();
            info.spec.name = CollectionName::new("other").unwrap();
            contents.insert(info.spec.name.clone(), (info, records));
        },
        |contents| drop(contents.get_mut(&docs()).unwrap().1.insert(5.into(), record(1 << 40, 5, 7.0))),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for tampered in 0..3 {
            let three = with_points(50).await;
            three.stores[tampered].tamper(change).await;
            let before = three.stores[tampered].contents().await;
            let report = three.compare(DriftPolicy::Report).await;
            assert!(report.members[tampered].has_drift(), "{number} {tampered} {report:?}");
            assert_eq!(three.stores[tampered].contents().await, before);
            let report = three.compare(DriftPolicy::LogWins).await;
            assert!(report.members[tampered].reloaded, "{number} {tampered} {report:?}");
            assert_eq!(three.assert_equal("reloaded").await.len(), 50);
            let [first, second, ..] = &three.stores;
            assert_eq!(first.contents().await, second.contents().await);
            assert!(!three.compare(DriftPolicy::Report).await.has_drift());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_every_member_lost_is_reported_and_no_member_is_emptied() {
    let three = with_points(50).await;
    three.cut().await;
    for store in &three.stores {
        store.tamper(|contents| drop(contents.remove(&docs()))).await;
    }
    let report = three.compare(DriftPolicy::LogWins).await;
    for member in &report.members {
        let lost: Vec<_> = member.collections.iter().map(|lost| (&lost.name, lost.kind)).collect();
        assert_eq!((lost, member.reloaded), (vec![(&docs(), DriftKind::Missing)], false));
    }
}

#[tokio::test(start_paused = true)]
async fn no_member_is_loaded_anew_while_something_else_is_not_repaired() {
    let three = with_points(300).await;
    three.stores[0].tamper(|contents| drop(contents.remove(&docs()))).await;
    // What the member holds that would be read from, the others do not.
    tamper(&three.stores[1], |records| records.retain(|id, _| *id >= 100.into())).await;
    let config = DriftConfig { max_repairs: 99, ..deep(DriftPolicy::LogWins) };
    let report = three.tier.compare_members(&config).await.unwrap();
    assert!(report.members.iter().all(|member| !member.reloaded), "{report:?}");
    three.compare(DriftPolicy::LogWins).await;
    assert_eq!(three.assert_equal("repaired").await.len(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_round_reads_no_more_points_a_second_than_it_may() {
    let three = with_points(1_000).await;
    let config = DriftConfig { deep: 0.0, points_per_second: 100, ..DriftConfig::default() };
    let start = Instant::now();
    let report = three.tier.compare_members(&config).await.unwrap();
    let took = start.elapsed();
    assert!((30..=31).contains(&took.as_secs()), "three members of 1000 points: {took:?}");
    assert_eq!(report.took.as_secs(), took.as_secs());
}

#[tokio::test(start_paused = true)]
async fn rounds_come_at_the_interval_and_not_without_one() {
    let drift = DriftConfig { interval: Some(10 * MINUTE), ..deep(DriftPolicy::LogWins) };
    for (drift, expected) in [(drift, 1), (deep(DriftPolicy::LogWins), 0)] {
        let three = three(TierOptions { drift, ..TierOptions::default() }).await;
        three.tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
        three.at_rest().await;
        tamper(&three.stores[0], |records| records.clear()).await;
        sleep(9 * MINUTE).await;
        assert_eq!(three.tier.drift(), None);
        sleep(2 * MINUTE).await;
        let repaired = three.tier.status().drift.map_or(0, |report| report.members[0].repaired);
        assert_eq!(repaired, expected);
        three.tier.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_round_runs_at_a_time_and_ends_when_the_tier_closes() {
    let three = with_points(1_000).await;
    let slow = DriftConfig { points_per_second: 1, ..DriftConfig::default() };
    let running = tokio::spawn({
        let tier = three.tier.clone();
        async move { tier.compare_members(&slow).await }
    });
    sleep(MINUTE).await;
    let second = three.tier.compare_members(&DriftConfig::default()).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Overloaded);
    let start = Instant::now();
    three.tier.close().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_read_is_left_out_and_one_alone_is_not_compared() {
    let three = with_points(50).await;
    let open = |index: usize| three.tier.shared().members[index].store().breaker().force_open(Instant::now());
    open(2);
    let report = three.compare(DriftPolicy::Report).await;
    assert!(report.members[2].left_out.is_some() && !report.has_drift(), "{report:?}");
    assert_eq!((report.members[0].points, report.members[2].points), (50, 0));
    open(1);
    let error = three.tier.compare_members(&deep(DriftPolicy::Report)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("`secondary`"), "{error}");
}

/// What is applied is durable soon, so that rounds are short.
fn quick() -> TierOptions {
    TierOptions { flush_interval: Duration::from_millis(100), ..TierOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_repair_comes_after_no_write_that_it_does_not_know() {
    // The caller gives up, and the write lands all the same; or it is acked while the repair waits for its turn.
    for gives_up in [true, false] {
        let three = with_points(50).await;
        three.log.appends_take(Duration::from_millis(50));
        let (shared, name) = (three.tier.shared(), docs());
        let collection = shared.catalog.get(&name).unwrap().reference();
        let fix = |id: u64| Repair {
            collection: collection.clone(),
            upserts: [(id.into(), Arc::new(point(id, 9.0)))].into(),
            deletes: [PointId::Num(id + 1)].into(),
            motion: Motion::after(&name, three.tier.log_end()),
        };
        let (before, unknown) = (fix(7), fix(5));
        assert_eq!(repair(shared, before).await.unwrap().len(), 2, "nobody wrote to them");
        let write = three.tier.upsert(&name, vec![point(5, 1.0)]);
        let repaired = if gives_up {
            assert!(tokio::time::timeout(Duration::from_millis(2), write).await.is_err());
            repair(shared, unknown).await
        } else {
            let (written, repaired) = tokio::join!(write, repair(shared, unknown));
            written.unwrap();
            repaired
        };
        let repaired = repaired.unwrap();
        assert_eq!(repaired.contains(&5.into()), gives_up, "a write that is known is left alone");
        assert!(repaired.contains(&6.into()));
        let last = three.assert_equal("repaired").await;
        assert_eq!((shown(&last, 5), shown(&last, 6)), (Some(1.0), None), "{gives_up}");
        assert_eq!((shown(&last, 7), shown(&last, 8)), (Some(9.0), None));
    }
}

fn seeds(usual: u64) -> u64 {
    std::env::var("MAINSTAY_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// What a writer was told is done, by id, and the entry that wrote it; `None` for a point that it deleted.
type Acked = Arc<Mutex<BTreeMap<u64, (Lsn, Option<f32>)>>>;

/// Writes to some ids until told to stop.
async fn write(tier: Tier, seed: u64, ids: std::ops::Range<u64>, acked: Acked, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut x = 0.0;
    while Instant::now() < until {
        let id = rng.random_range(ids.clone());
        x += 1.0;
        let value = (!rng.random_bool(0.3)).then_some(x);
        let written = match value {
            Some(x) => tier.upsert(&docs(), vec![point(id, x)]).await.unwrap(),
            None => tier.delete(&docs(), &[id.into()]).await.unwrap(),
        };
        acked.lock().insert(id, (written.lsn, value));
        if rng.random_bool(0.2) {
            let x = rng.random::<f32>();
            let payload = point(id, x).payload;
            tier.overwrite_payload(&docs(), &[id.into()], payload).await.unwrap();
            let mut acked = acked.lock();
            if let Some((_, Some(value))) = acked.get_mut(&id) {
                *value = x;
            }
        }
        match rng.random_range(0..4) {
            0 => sleep(Duration::from_millis(rng.random_range(0..40))).await,
            1 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

fn shown(records: &BTreeMap<PointId, Record>, id: u64) -> Option<f32> {
    records.get(&id.into()).map(|record| record.point.payload["x"].as_f64().unwrap() as f32)
}

#[tokio::test(start_paused = true)]
async fn busy_writers_and_slow_members_are_no_drift() {
    for seed in 0..seeds(30) {
        let mut rng = StdRng::seed_from_u64(seed);
        let three = three(quick()).await;
        let until = Instant::now() + Duration::from_secs(3);
        for store in &three.stores[1..] {
            store.apply_takes(Duration::from_millis(rng.random_range(0..60)));
        }
        let acked = Acked::default();
        let writers = (0..4).map(|writer| {
            let ids = writer * 30..(writer + 1) * 30;
            tokio::spawn(write(three.tier.clone(), seed * 10 + writer, ids, Arc::clone(&acked), until))
        });
        let writers: Vec<_> = writers.collect();
        while Instant::now() < until {
            let report = three.compare(DriftPolicy::LogWins).await;
            assert!(!report.has_drift(), "seed {seed}: {report:?}");
            sleep(Duration::from_millis(rng.random_range(1..200))).await;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let last = three.assert_equal(&format!("seed {seed}")).await;
        for (id, (_, value)) in &*acked.lock() {
            assert_eq!(shown(&last, *id), *value, "seed {seed}: point {id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn collections_that_come_and_go_meanwhile_are_no_drift() {
    for seed in 0..seeds(30) {
        let mut rng = StdRng::seed_from_u64(seed);
        let three = three(quick()).await;
        let until = Instant::now() + Duration::from_secs(20);
        three.stores[1].apply_takes(Duration::from_millis(rng.random_range(0..30)));
        let other = CollectionName::new("other").unwrap();
        let changing = tokio::spawn({
            let (tier, mut rng, other) = (three.tier.clone(), StdRng::seed_from_u64(!seed), other.clone());
            async move {
                while Instant::now() < until {
                    let spec = CollectionSpec::dense(other.clone(), 2, Distance::Dot);
                    tier.create_collection(spec).await.unwrap();
                    for id in 0..rng.random_range(0..5) {
                        tier.upsert(&other, vec![point(id, 1.0)]).await.unwrap();
                    }
                    sleep(Duration::from_millis(rng.random_range(0..9_000))).await;
                    tier.drop_collection(&other).await.unwrap();
                    if rng.random_bool(0.5) {
                        sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
                    }
                }
            }
        });
        let config = DriftConfig { points_per_second: 20, ..deep(DriftPolicy::LogWins) };
        while Instant::now() < until {
            let report = three.tier.compare_members(&config).await.unwrap();
            assert!(!report.has_drift(), "seed {seed}: {report:?}");
            assert!(report.members.iter().all(|member| member.left_out.is_none()), "{report:?}");
            sleep(Duration::from_millis(rng.random_range(1..500))).await;
        }
        changing.await.unwrap();
        three.assert_equal(&format!("seed {seed}")).await;
    }
}

/// Somebody writes to one store while writers write to the tier, and rounds repair what they find.
async fn random_drift(seed: u64, policy: DriftPolicy) {
    let mut rng = StdRng::seed_from_u64(seed);
    let three = three(quick()).await;
    three.log.appends_take(Duration::from_millis(rng.random_range(0..6)));
    // Under log-wins any one store; of the ids that the writers write to, and of others.
    let target = match policy {
        DriftPolicy::PrimaryWins => 0,
        _ => rng.random_range(0..3),
    };
    let until = Instant::now() + Duration::from_secs(4);
    for store in &three.stores[1..] {
        store.apply_takes(Duration::from_millis(rng.random_range(0..20)));
    }
    let acked = Acked::default();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let ids = writer * 100..(writer + 1) * 100;
            tokio::spawn(write(three.tier.clone(), seed * 10 + writer, ids, Arc::clone(&acked), until))
        })
        .collect();
    let mut foreign: BTreeMap<u64, Option<f32>> = BTreeMap::new();
    // Where the log ended when somebody last changed the point: a write before that may be gone by their doing.
    let mut changed: BTreeMap<u64, Lsn> = BTreeMap::new();
    while Instant::now() < until {
        for _ in 0..rng.random_range(0..60) {
            let own = rng.random_bool(0.9);
            let id = if own { rng.random_range(0..300) } else { rng.random_range(1_000..1_010) };
            let (x, kind) = (1_000.0 + rng.random::<f32>(), rng.random_range(0..3));
            let mut held = None;
            tamper(&three.stores[target], |records| {
                match kind {
                    0 => drop(records.remove(&id.into())),
                    1 => drop(records.insert(id.into(), record(0, id, x))),
                    _ => {
                        if let Some(record) = records.get_mut(&id.into()) {
                            record.point = point(id, x);
                        }
                    }
                }
                held = shown(records, id);
            })
            .await;
            if own {
                changed.insert(id, three.tier.log_end());
            } else {
                foreign.insert(id, held);
            }
        }
        if rng.random_bool(0.7) {
            three.compare(policy).await;
            // What somebody changes before a repair has reached the store is changed for nothing.
            three.tier.wait_caught_up(MINUTE).await.unwrap();
        }
        sleep(Duration::from_millis(rng.random_range(1..800))).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    three.at_rest().await;
    three.compare(policy).await;
    let last = three.assert_equal(&format!("seed {seed}")).await;
    for (id, (lsn, value)) in &*acked.lock() {
        let found = shown(&last, *id);
        let theirs = policy == DriftPolicy::PrimaryWins && changed.get(id).is_some_and(|end| end >= lsn);
        assert!(theirs || found == *value, "seed {seed}: point {id} is {found:?}, acked was {value:?}");
    }
    for (id, held) in foreign {
        let expected = if policy == DriftPolicy::PrimaryWins { held } else { None };
        assert_eq!(shown(&last, id), expected, "seed {seed}: point {id} of somebody else");
    }
    assert!(!three.compare(DriftPolicy::Report).await.has_drift(), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn log_wins_loses_no_acked_write_and_lets_nothing_foreign_stay() {
    for seed in 0..seeds(30) {
        random_drift(seed, DriftPolicy::LogWins).await;
    }
}

#[tokio::test(start_paused = true)]
async fn primary_wins_loses_no_write_acked_after_the_change_and_keeps_what_others_wrote() {
    for seed in 0..seeds(30) {
        random_drift(seed, DriftPolicy::PrimaryWins).await;
    }
}
