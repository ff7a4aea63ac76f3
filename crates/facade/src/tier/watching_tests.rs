//! What can be seen of a tier: health, metrics and spans, under tokio's paused clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::faulty::Fault;
use mainstay_core::{
    Condition, Durability, ErrorKind, Fields, Filter, Lsn, Operation, PointId, ScrollQuery, SearchQuery,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;

use super::exposed::{Exposed, Search};
use super::tests::{MINUTE, Pair, docs, hedging, pair, point, spec, store, tier_of};
use crate::config::{DriftConfig, DriftPolicy, ShadowConfig};
use crate::log::MemoryLog;
use crate::tier::metrics::METRICS;
use crate::tier::{ComponentKind, HealthStatus, Tier, TierOptions};

/// What the recorder was told: `name{label=value,…}` and the value; of a histogram the number of its times.
fn published(tier: &Tier, recorder: &DebuggingRecorder, snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    metrics::with_local_recorder(recorder, || tier.publish_metrics());
    let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(times) => times.len() as f64,
        };
        (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
    });
    series.collect()
}

fn watch(tier: &Tier) -> BTreeMap<String, f64> {
    let recorder = DebuggingRecorder::new();
    published(tier, &recorder, &recorder.snapshotter())
}

async fn search(tier: &Tier) -> String {
    tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap().served_by.to_string()
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_published_and_no_other_one() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let shadow = ShadowConfig { share: 1.0, ..ShadowConfig::default() };
    let tier = tier_of(TierOptions { shadow, ..TierOptions::default() }, &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    for id in 0..40 {
        tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        search(&tier).await;
    }
    primary.fail_next_of(Operation::Search, 1, Fault::Before(ErrorKind::Unavailable));
    search(&tier).await;
    // One member alone is not retried elsewhere.
    primary.fail_next_of(Operation::Count, 1, Fault::Before(ErrorKind::Unavailable));
    tier.reader().from_member("primary").unwrap().count(&docs(), None).await.unwrap_err();
    tier.wait_caught_up(MINUTE).await.unwrap();
    search(&tier).await;
    tier.compare_members(&DriftConfig::default()).await.unwrap();
    let published = watch(&tier);
    let mut names: Vec<_> = published.keys().filter_map(|key| key.split('{').next()).collect();
    names.sort_unstable();
    names.dedup();
    let mut known: Vec<_> = METRICS.iter().map(|(name, ..)| *name).collect();
    known.sort_unstable();
    // The stores of these tests do not outlive their process.
    known.retain(|name| *name != "mainstay_member_durable_lsn");
    // A tier without a place for snapshots says nothing of them; `tests/snapshots.rs` has one.
    known.retain(|name| !name.starts_with("mainstay_snapshot") && !name.starts_with("mainstay_archive"));
    assert_eq!(names, known);
    assert_eq!(published["mainstay_read_errors_total{operation=count,kind=unavailable}"], 1.0);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_who_served_what_failed_and_what_moved_on() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    for _ in 0..3 {
        assert_eq!(search(&tier).await, "primary");
    }
    primary.fail_next_of(Operation::Search, 2, Fault::Before(ErrorKind::Unavailable));
    for _ in 0..2 {
        assert_eq!(search(&tier).await, "secondary");
    }
    tier.count(&docs(), None).await.unwrap();
    let seen = watch(&tier);
    for (series, value) in [
        ("mainstay_reads_total{operation=search,served_by=primary}", 3.0),
        ("mainstay_reads_total{operation=search,served_by=secondary}", 2.0),
        ("mainstay_reads_total{operation=count,served_by=primary}", 1.0),
        ("mainstay_read_seconds{operation=search}", 5.0),
        ("mainstay_member_moves_total{member=primary}", 2.0),
        ("mainstay_member_moves_total{member=secondary}", 0.0),
        ("mainstay_member_call_errors_total{member=primary,operation=search}", 2.0),
        ("mainstay_breaker_failures_total{member=primary}", 2.0),
        ("mainstay_writes_total{operation=upsert,outcome=acked}", 1.0),
        ("mainstay_writes_total{operation=create_collection,outcome=acked}", 1.0),
        ("mainstay_log_entries_appended_total{}", 2.0),
        ("mainstay_log_last_lsn{}", 2.0),
        ("mainstay_member_cursor_lsn{member=secondary}", 2.0),
        ("mainstay_member_lag_entries{member=secondary}", 0.0),
        ("mainstay_member_state{member=primary,state=live}", 1.0),
        ("mainstay_member_state{member=primary,state=down}", 0.0),
        ("mainstay_member_active{member=primary}", 1.0),
        ("mainstay_member_active{member=secondary}", 0.0),
        ("mainstay_service_level{}", 0.0),
        ("mainstay_collections{}", 1.0),
    ] {
        assert_eq!(seen.get(series), Some(&value), "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_count_failover_failback_retries_alerts_and_quarantine() {
    let Pair { tier, primary, standby, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.set_down(true);
    tokio::time::sleep(MINUTE).await;
    let seen = watch(&tier);
    assert_eq!(seen["mainstay_failovers_total{}"], 1.0);
    assert_eq!(seen["mainstay_failbacks_total{}"], 0.0);
    assert_eq!(seen["mainstay_member_alerts_total{member=primary}"], 1.0);
    assert_eq!(seen["mainstay_service_level{}"], 3.0);
    assert_eq!(seen["mainstay_health{}"], 1.0);
    assert_eq!(seen["mainstay_component_health{kind=member,name=primary}"], 2.0);
    primary.set_down(false);
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(watch(&tier)["mainstay_failbacks_total{}"], 1.0);

    for store in [&primary, &standby] {
        store.fail_next_of(Operation::Search, 1, Fault::Before(ErrorKind::Unavailable));
    }
    search(&tier).await;
    assert_eq!(watch(&tier)["mainstay_read_retries_total{}"], 1.0);

    primary.fail_next_of(Operation::Apply, 1, Fault::Before(ErrorKind::Rejected));
    tier.upsert(&docs(), vec![point(2, 0.5)]).await.unwrap();
    // Who serves is told by a task of its own.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = watch(&tier);
    assert_eq!(seen["mainstay_member_quarantines_total{member=primary}"], 1.0);
    assert_eq!(seen["mainstay_member_state{member=primary,state=quarantined}"], 1.0);
    assert_eq!(seen["mainstay_failovers_total{}"], 2.0);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_a_hedge_and_a_write_whose_end_is_unknown() {
    let (log, primary, standby) = (Arc::new(MemoryLog::default()), store(1), store(2));
    let tier = tier_of(hedging(), &log, &[&primary, &standby]).await;
    tier.create_collection(spec()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.hang(true);
    assert_eq!(search(&tier).await, "secondary");
    assert_eq!(watch(&tier)["mainstay_member_hedges_total{member=primary}"], 1.0);
    standby.set_down(true);
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap_err();
    tier.upsert(&docs(), Vec::new()).await.unwrap_err();
    let seen = watch(&tier);
    assert_eq!(seen["mainstay_writes_total{operation=upsert,outcome=unknown}"], 1.0);
    assert_eq!(seen["mainstay_writes_total{operation=upsert,outcome=refused}"], 1.0);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_shadow_reads_and_say_how_well_they_went() {
    let stores = [Exposed::new(Durability::Volatile), Exposed::new(Durability::Volatile)];
    let shadow = ShadowConfig { share: 1.0, ..ShadowConfig::default() };
    let members = vec![stores[0].member("primary"), stores[1].member("secondary")];
    let options = TierOptions { shadow, ..TierOptions::default() };
    let tier = Tier::assemble(options, Arc::new(MemoryLog::default()), members).await.unwrap();
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&docs(), (0..20).map(|id| point(id, id as f32)).collect()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let compared = "mainstay_member_shadow_reads_total{member=secondary,outcome=compared}";
    assert_eq!(watch(&tier).get(compared), None, "nothing was asked of it yet");
    for searches in [Search::Without(3), Search::Shifted(0.5)] {
        stores[1].search_so(searches);
        search(&tier).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = watch(&tier);
    for (series, value) in [
        (compared, 2.0),
        ("mainstay_member_shadow_reads_total{member=secondary,outcome=passed_over}", 0.0),
        ("mainstay_member_shadow_reads_total{member=secondary,outcome=failed}", 0.0),
        ("mainstay_member_shadow_overlap{member=secondary}", 0.85),
        ("mainstay_member_shadow_score_drift{member=secondary}", 0.25),
        ("mainstay_member_shadow_score_drift_max{member=secondary}", 0.5),
    ] {
        assert!((seen[series] - value).abs() < 1e-6, "{series}: {}", seen[series]);
    }
    assert_eq!(seen.get("mainstay_member_shadow_overlap{member=primary}"), None);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_comparisons_find_and_repair() {
    let stores = [Exposed::new(Durability::Volatile), Exposed::new(Durability::Volatile)];
    let members = vec![stores[0].member("primary"), stores[1].member("secondary")];
    let tier = Tier::assemble(TierOptions::default(), Arc::new(MemoryLog::default()), members).await.unwrap();
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&docs(), (0..20).map(|id| point(id, id as f32)).collect()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let rounds = "mainstay_drift_rounds_total{outcome=compared}";
    let age = "mainstay_drift_last_round_age_seconds{}";
    assert_eq!((watch(&tier)[rounds], watch(&tier).get(age)), (0.0, None));
    stores[1]
        .tamper(|contents| {
            let (_, points) = contents.get_mut(&docs()).unwrap();
            (0..3).for_each(|id| drop(points.remove(&PointId::Num(id))));
        })
        .await;
    // Left as it is, then repaired, then found in order.
    for (round, policy) in
        [DriftPolicy::Report, DriftPolicy::LogWins, DriftPolicy::LogWins].into_iter().enumerate()
    {
        let config = DriftConfig { policy, ..DriftConfig::default() };
        tier.compare_members(&config).await.unwrap();
        tier.wait_caught_up(MINUTE).await.unwrap();
        let seen = watch(&tier);
        let (found, repaired) = [(3.0, 0.0), (6.0, 3.0), (6.0, 3.0)][round];
        assert_eq!(seen["mainstay_member_drift_points_total{member=secondary,kind=missing}"], found);
        assert_eq!(seen["mainstay_member_drift_repaired_total{member=secondary}"], repaired);
        assert_eq!(seen[rounds], (round + 1) as f64);
    }
    tokio::time::sleep(MINUTE).await;
    let seen = watch(&tier);
    assert!((59.0..62.0).contains(&seen[age]), "{}", seen[age]);
    assert_eq!(seen["mainstay_member_drift_points_total{member=secondary,kind=extra}"], 0.0);
    assert_eq!(seen["mainstay_member_drift_points_total{member=primary,kind=missing}"], 0.0);
    assert_eq!(seen["mainstay_drift_rounds_total{outcome=failed}"], 0.0);
    tier.quarantine("secondary", "a test").unwrap();
    tier.compare_members(&DriftConfig::default()).await.unwrap_err();
    assert_eq!(watch(&tier)["mainstay_drift_rounds_total{outcome=failed}"], 1.0);
}

#[tokio::test(start_paused = true)]
async fn breaker_metrics_tell_state_transitions_times_and_availability() {
    let Pair { tier, primary, .. } = pair().await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let started = watch(&tier);
    assert_eq!(started["mainstay_breaker_availability{member=primary}"], 1.0);
    assert_eq!(started["mainstay_breaker_state{member=primary,state=closed}"], 1.0);
    // While it is down its store answers no position either, so nothing closes the breaker.
    primary.set_down(true);
    for _ in 0..10 {
        search(&tier).await;
    }
    tokio::time::sleep(MINUTE / 2).await;
    let seen = watch(&tier);
    assert_eq!(seen["mainstay_breaker_state{member=primary,state=open}"], 1.0);
    assert_eq!(seen["mainstay_breaker_state{member=primary,state=closed}"], 0.0);
    assert_eq!(seen["mainstay_breaker_transitions_total{member=primary,to=open}"], 1.0);
    let open = seen["mainstay_breaker_state_seconds{member=primary,state=open}"];
    let closed = seen["mainstay_breaker_state_seconds{member=primary,state=closed}"];
    assert!(open > 20.0 && closed >= 60.0, "open {open}, closed {closed}");
    let available = seen["mainstay_breaker_availability{member=primary}"];
    assert!((available - closed / (closed + open)).abs() < 0.01, "{available}");
    assert!(seen["mainstay_breaker_success_rate{member=primary}"] < 1.0);
    let sum = ["successes", "failures", "ignored", "rejected"]
        .map(|kind| seen[&format!("mainstay_breaker_{kind}_total{{member=primary}}")]);
    assert_eq!(sum.iter().sum::<f64>(), seen["mainstay_breaker_calls_total{member=primary}"]);
}

#[tokio::test(start_paused = true)]
async fn a_histogram_is_told_each_time_once_whoever_asks() {
    let Pair { tier, .. } = pair().await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    search(&tier).await;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let series = "mainstay_read_seconds{operation=search}";
    assert_eq!(published(&tier, &recorder, &snapshotter)[series], 1.0);
    // A snapshot takes the times that it shows.
    assert_eq!(published(&tier, &recorder, &snapshotter).get(series).copied().unwrap_or(0.0), 0.0);
    search(&tier).await;
    search(&tier).await;
    assert_eq!(published(&tier, &recorder, &snapshotter)[series], 2.0);
}

#[tokio::test(start_paused = true)]
async fn health_names_the_member_that_is_away_and_follows_it_back() {
    let Pair { tier, primary, .. } = pair().await;
    for id in 0..40 {
        tier.upsert(&docs(), vec![point(id, 0.5)]).await.unwrap();
        search(&tier).await;
    }
    tier.wait_caught_up(MINUTE).await.unwrap();
    let health = tier.health();
    assert_eq!(health.status, HealthStatus::Healthy, "{health:?}");
    let names: Vec<_> = health.components.iter().map(|c| (c.kind, c.name.as_str())).collect();
    let members = [(ComponentKind::Member, "primary"), (ComponentKind::Member, "secondary")];
    assert_eq!(names, [members[0], members[1], (ComponentKind::Log, "log")]);
    let [primary_latency, log_latency] = [0, 2].map(|at| health.components[at].latency.unwrap());
    assert_eq!((primary_latency.operation, log_latency.operation), ("search", "append"));
    assert!(primary_latency.p50 <= primary_latency.p99 && primary_latency.p50.is_some());

    primary.set_down(true);
    search(&tier).await;
    tokio::time::sleep(MINUTE).await;
    let health = tier.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.message.contains("primary is unhealthy"), "{}", health.message);
    assert!(health.components[0].message.starts_with("down for "), "{health:?}");
    assert_eq!(health, tier.status().health);

    primary.set_down(false);
    tier.wait_caught_up(MINUTE).await.unwrap();
    let back = tier.health();
    assert_eq!(back.components[0].status, HealthStatus::Degraded);
    assert!(back.components[0].message.contains("serves first in"), "{back:?}");
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(tier.health().status, HealthStatus::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_nobody_answers_for_is_unhealthy() {
    let Pair { tier, primary, standby, .. } = pair().await;
    for store in [&primary, &standby] {
        store.fail_next_of(Operation::Apply, 1, Fault::Before(ErrorKind::Rejected));
    }
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap_err();
    let health = tier.health();
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(health.message.starts_with("no member can answer"), "{}", health.message);
    assert!(health.components[0].message.contains("quarantined"), "{health:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tier_whose_members_are_all_down_does_not_call_its_level_normal() {
    let Pair { tier, primary, standby, .. } = pair().await;
    for store in [&primary, &standby] {
        store.set_down(true);
    }
    tokio::time::sleep(MINUTE).await;
    let status = tier.status();
    assert_eq!((status.level, status.active), (crate::ServiceLevel::Unavailable, None));
    assert_eq!(status.health.status, HealthStatus::Unhealthy);
    primary.set_down(false);
    tier.wait_caught_up(MINUTE).await.unwrap_err();
    assert_eq!(tier.status().level, crate::ServiceLevel::Normal);
}

#[tokio::test(start_paused = true)]
async fn a_full_log_is_unhealthy_and_says_so_until_it_takes_entries_again() {
    let (log, only) = (Arc::new(MemoryLog::new(64 << 10)), store(1));
    let options = TierOptions { log_max_bytes: 64 << 10, ..TierOptions::default() };
    let tier = tier_of(options, &log, &[&only]).await;
    tier.create_collection(spec()).await.unwrap();
    let long = "x".repeat(8 << 10);
    let error = loop {
        if let Err(error) = tier.upsert(&docs(), vec![point(1, 0.5).with_text(&long)]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let health = tier.health();
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(health.message.contains("writes are refused"), "{}", health.message);
    search(&tier).await;
    let shared = tier.shared();
    shared.log.truncate_before(Lsn(5), shared.catalog.at(Lsn(4))).await.unwrap();
    tier.upsert(&docs(), vec![point(1, 0.5)]).await.unwrap();
    assert_eq!(tier.health().components[1].status, HealthStatus::Healthy);
}

/// Collects spans: the name, and each field with its last value. No id is given twice.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

impl tracing::Subscriber for Collected {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name().starts_with("mainstay.")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut seen = Seen { name: attributes.metadata().name(), ..Seen::default() };
        attributes.record(&mut seen);
        assert_eq!(*attributes.metadata().level(), tracing::Level::DEBUG, "{}", seen.name);
        let mut all = self.0.lock();
        all.push(seen);
        span::Id::from_u64(all.len() as u64)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        let index = usize::try_from(id.into_u64()).unwrap() - 1;
        values.record(&mut self.0.lock()[index]);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Collected {
    /// The fields of the first span of this name that has all of these.
    fn find(&self, name: &str, fields: &[(&str, &str)]) -> Option<Seen> {
        let has = |seen: &&Seen| fields.iter().all(|(k, v)| seen.fields.get(k).is_some_and(|x| x == v));
        self.0.lock().iter().filter(|seen| seen.name == name).find(has).cloned()
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_the_work_of_appliers_have_spans_with_stable_names() {
    let collected = Collected::default();
    let _guard = tracing::subscriber::set_default(collected.clone());
    let Pair { tier, primary, .. } = pair().await;
    let docs = docs();
    let lsn = tier.upsert(&docs, (0..9).map(|id| point(id, 0.5)).collect()).await.unwrap().lsn.to_string();
    tier.wait_caught_up(MINUTE).await.unwrap();
    primary.fail_next_of(Operation::Search, 1, Fault::Before(ErrorKind::Unavailable));
    assert_eq!(search(&tier).await, "secondary");
    tier.get(&docs, &[1.into()], &Fields::ALL).await.unwrap();
    tier.scroll(&docs, &ScrollQuery { limit: 1, ..ScrollQuery::default() }).await.unwrap();
    tier.count(&docs, None).await.unwrap();
    let id: [PointId; 1] = [1.into()];
    let payload = || point(1, 0.7).payload;
    tier.set_payload(&docs, &id, payload()).await.unwrap();
    tier.overwrite_payload(&docs, &id, payload()).await.unwrap();
    tier.delete_payload(&docs, &id, vec!["x".parse().unwrap()]).await.unwrap();
    tier.delete(&docs, &id).await.unwrap();
    tier.delete_by_filter(&docs, &Filter::all([Condition::equals("x".parse().unwrap(), true)]))
        .await
        .unwrap();
    tier.drop_collection(&docs).await.unwrap();
    tokio::time::sleep(MINUTE).await;

    let expect = |name: &str, fields: &[(&str, &str)]| {
        assert!(collected.find(name, fields).is_some(), "{name} {fields:?} in {:?}", collected.0.lock());
    };
    let upsert = [("operation", "upsert"), ("collection", "docs"), ("lsn", lsn.as_str())];
    expect("mainstay.upsert", &upsert);
    expect("mainstay.search", &[("operation", "search"), ("member", "secondary"), ("lsn", lsn.as_str())]);
    for name in ["primary", "secondary"] {
        expect("mainstay.ask", &[("operation", "search"), ("member", name)]);
        expect("mainstay.settle", &[("operation", "settle"), ("member", name), ("lsn", "0")]);
        expect("mainstay.apply", &[("operation", "apply"), ("member", name), ("lsn", lsn.as_str())]);
        expect("mainstay.check", &[("operation", "check"), ("member", name)]);
    }
    expect("mainstay.append", &[("operation", "append"), ("lsn", lsn.as_str())]);
    for operation in ["get", "scroll", "count", "create_collection", "set_payload", "overwrite_payload"]
        .into_iter()
        .chain(["delete_payload", "delete", "delete_by_filter", "drop_collection"])
    {
        expect(&format!("mainstay.{operation}"), &[("operation", operation), ("collection", "docs")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_has_a_span_that_names_its_source() {
    let Pair { tier, log, primary, standby } = pair().await;
    tier.upsert(&docs(), (0..9).map(|id| point(id, 0.5)).collect()).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    let shared = tier.shared();
    shared.log.truncate_before(Lsn(3), shared.catalog.at(Lsn(2))).await.unwrap();
    drop(tier);
    tokio::time::sleep(MINUTE).await;
    drop(primary);

    let collected = Collected::default();
    let _guard = tracing::subscriber::set_default(collected.clone());
    let empty = store(3);
    let tier = tier_of(TierOptions::default(), &log, &[&empty, &standby]).await;
    tier.wait_caught_up(Duration::from_secs(600)).await.unwrap();
    let seen = collected.find("mainstay.bootstrap", &[("member", "primary"), ("source", "secondary")]);
    let seen = seen.unwrap_or_else(|| panic!("{:?}", collected.0.lock()));
    assert_eq!(seen.fields.get("lsn").map(String::as_str), Some("2"));
}

#[test]
fn the_document_lists_every_span_and_no_other_one() {
    let document = include_str!("../../../../docs/operate.md");
    let named = |text: &str| {
        let mut names: Vec<_> = text
            .split(['`', '"'])
            .filter(|word| word.starts_with("mainstay.") && !word.contains(' ') && *word != "mainstay.toml")
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    assert_eq!(named(document), named(include_str!("spans.rs")));
}
