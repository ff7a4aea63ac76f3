//! Memory members with too little room: refused with the numbers, or partial and asked last.

use std::sync::Arc;

use mainstay_core::faulty::Faulty;
use mainstay_core::{ErrorKind, Fields, Filter, Lsn, Point, PointId, ScrollQuery, SearchQuery, VectorStore};
use mainstay_memory::{MemoryOptions, MemoryStore, WhenFull};

use crate::answer::ServiceLevel;
use crate::config::ReadPolicy;
use crate::log::{Log, MemoryLog};
use crate::tier::tests::{Double, MINUTE, docs, spec, store, tier_of};
use crate::tier::{MemberState, MemberStatus, Tier, TierOptions};

/// So little that a few thousand points do not fit.
const LITTLE: u64 = 2 << 20;
const POINTS: u64 = 6_000;

fn small(when_full: WhenFull) -> Double {
    let options = MemoryOptions { max_memory: Some(LITTLE), when_full, ..MemoryOptions::default() };
    Arc::new(Faulty::new(Arc::new(MemoryStore::new(options).unwrap()), 3))
}

async fn write(tier: &Tier, ids: std::ops::Range<u64>) {
    for from in ids.clone().step_by(500) {
        let points = (from..(from + 500).min(ids.end)).map(|id| Point::new(id, vec![id as f32, 1.0]));
        tier.upsert(&docs(), points.collect()).await.unwrap();
    }
}

fn standby(tier: &Tier) -> MemberStatus {
    tier.status().members.swap_remove(1)
}

/// Waits until the standby is in one of these states for good.
async fn settled(tier: &Tier) -> MemberStatus {
    for _ in 0..600 {
        let status = standby(tier);
        if matches!(status.state, MemberState::Live | MemberState::Quarantined) {
            return status;
        }
        tokio::time::sleep(MINUTE / 60).await;
    }
    panic!("{:?}", standby(tier));
}

/// A log with more points than the standby holds, and a store that holds them all.
async fn full_log() -> (Arc<MemoryLog>, Double) {
    let (log, primary) = (Arc::new(MemoryLog::default()), store(1));
    let tier = tier_of(TierOptions::default(), &log, &[&primary]).await;
    tier.create_collection(spec()).await.unwrap();
    write(&tier, 0..POINTS).await;
    drop(tier);
    tokio::time::sleep(MINUTE).await;
    (log, primary)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_replay_would_overfill_is_refused_before_it_and_the_tier_serves() {
    let (log, primary) = full_log().await;
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &small(WhenFull::Refuse)]).await;
    let status = settled(&tier).await;
    assert_eq!((status.state, status.cursor), (MemberState::Quarantined, Lsn::ZERO));
    let reason = status.last_error.unwrap();
    for word in ["6000 points", "max_memory allows 2.0 MiB", "when_full"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
    assert_eq!((answer.served_by.as_str(), answer.level), ("primary", ServiceLevel::Normal));
    write(&tier, POINTS..POINTS + 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_load_would_overfill_is_refused_before_it() {
    let (log, primary) = full_log().await;
    let tier = tier_of(TierOptions::default(), &log, &[&primary]).await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    log.truncate_before(Lsn(10), tier.shared().catalog.at(Lsn(9))).await.unwrap();
    tier.shared().catalog.cut(Lsn(9));
    drop(tier);
    tokio::time::sleep(MINUTE).await;
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &small(WhenFull::Refuse)]).await;
    let status = settled(&tier).await;
    assert_eq!(status.state, MemberState::Quarantined);
    assert!(status.last_error.unwrap().contains("6000 points"));
}

#[tokio::test(start_paused = true)]
async fn points_that_a_replay_writes_twice_or_deletes_count_once_or_not_at_all() {
    let (log, primary) = (Arc::new(MemoryLog::default()), store(1));
    let tier = tier_of(TierOptions::default(), &log, &[&primary]).await;
    tier.create_collection(spec()).await.unwrap();
    write(&tier, 0..1_000).await;
    write(&tier, 500..1_500).await;
    let ids: Vec<PointId> = (0..200).map(PointId::Num).collect();
    tier.delete(&docs(), &ids).await.unwrap();
    let expected = super::expected::of_log(&*log).await.unwrap();
    assert_eq!(expected.iter().map(|expected| expected.points).collect::<Vec<_>>(), [1_300]);
    tier.drop_collection(&docs()).await.unwrap();
    assert!(super::expected::of_log(&*log).await.unwrap().is_empty());
}

async fn partial_pair(read: ReadPolicy) -> (Tier, Double) {
    let (log, primary) = full_log().await;
    let options = TierOptions { read, ..TierOptions::default() };
    let tier = tier_of(options, &log, &[&primary, &small(WhenFull::Partial)]).await;
    let status = settled(&tier).await;
    assert_eq!((status.state, status.partial), (MemberState::Live, true));
    assert!(status.notice.unwrap().contains("only a part"));
    (tier, primary)
}

#[tokio::test(start_paused = true)]
async fn a_partial_member_answers_only_when_nobody_else_can_and_says_so() {
    for read in [ReadPolicy::Preferred, ReadPolicy::Fastest] {
        let (tier, primary) = partial_pair(read).await;
        for _ in 0..50 {
            let answer = tier.count(&docs(), None).await.unwrap();
            assert_eq!((answer.value, answer.partial), (POINTS, false));
            let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await.unwrap();
            assert_eq!((answer.served_by.as_str(), answer.partial), ("primary", false));
        }
        primary.set_down(true);
        let answer = tier.count(&docs(), None).await.unwrap();
        assert!(answer.partial && answer.value < POINTS, "{answer:?}");
        assert_eq!((answer.served_by.as_str(), answer.level), ("secondary", ServiceLevel::MemoryOnly));
        // What was written last is there, and a write is acked by who has it.
        write(&tier, POINTS..POINTS + 1).await;
        let newest = [PointId::Num(POINTS), PointId::Num(POINTS - 1)];
        assert_eq!(tier.get(&docs(), &newest, &Fields::NONE).await.unwrap().value.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partial_member_is_not_believed_about_what_is_not_there() {
    let (tier, primary) = partial_pair(ReadPolicy::Preferred).await;
    assert_eq!(tier.digest("secondary").await.unwrap_err().kind(), ErrorKind::Unsupported);
    primary.set_down(true);
    let query = ScrollQuery { limit: 10, ..ScrollQuery::default() };
    let whole = tier.reader().whole().scroll(&docs(), &query).await;
    whole.unwrap_err();
    let end = tier.log_end();
    let some = Filter::all([mainstay_core::Condition::HasId((0..POINTS).map(PointId::Num).collect())]);
    let refused = tier.delete_by_filter(&docs(), &some).await.unwrap_err();
    assert_ne!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(tier.log_end(), end, "nothing was deleted of what the partial member happened to have");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_everything_is_not_loaded_from_a_partial_one() {
    let (tier, primary) = partial_pair(ReadPolicy::Preferred).await;
    let log = Arc::clone(&tier.shared().log);
    log.truncate_before(Lsn(10), tier.shared().catalog.at(Lsn(9))).await.unwrap();
    tier.shared().catalog.cut(Lsn(9));
    let cx = mainstay_core::Context::within(MINUTE);
    primary.restore(&cx, mainstay_core::RestoreStep::Begin).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let status = tier.status().members.swap_remove(0);
    assert!(matches!(status.state, MemberState::Down | MemberState::Bootstrapping), "{status:?}");
    assert!(status.last_error.unwrap().contains("no other member"));
}
