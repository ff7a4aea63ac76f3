//! Loads that fail half-way, and stores that were left so.

use super::*;

/// A primary with a hundred points and a log that was cut at entry 59; no tier runs.
async fn cut_log() -> (Arc<MemoryLog>, Double) {
    let Pair { tier, log, primary, .. } = pair().await;
    for id in 0..100 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    tier.wait_caught_up(MINUTE).await.unwrap();
    log.truncate_before(Lsn(60), tier.shared().catalog.at(Lsn(59))).await.unwrap();
    stop(tier).await;
    (log, primary)
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_load_failed_half_way_answers_nobody() {
    let (log, primary) = cut_log().await;
    let standby = store(9);
    // The store is emptied and gets its collection; the points never come.
    standby.fail_next_of(Operation::Restore, 2, Fault::Delay(Duration::from_millis(1)));
    standby.fail_next_of(Operation::Restore, u64::MAX, Fault::Before(ErrorKind::Unavailable));
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    primary.set_down(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = tier.search(&docs(), SearchQuery::new(vec![1.0, 1.0])).await;
    assert!(answer.is_err(), "a half-loaded store is no answer: {answer:?}");
    standby.heal();
    primary.set_down(false);
    assert_equal_members(&tier, &["primary", "secondary"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_fell_behind_the_log_does_not_claim_what_it_held_before() {
    let (log, primary) = cut_log().await;
    let standby = store(9);
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    tier.wait_caught_up(MINUTE).await.unwrap();
    let cut = log.position_at(Lsn(59)).await.unwrap();
    let older = mainstay_core::Position { lsn: Lsn(5), hash: mainstay_core::EntryHash::ZERO, ..cut };
    primary.set_down(true);
    // The store comes back as it was long ago, and nobody is there to load it from.
    let inside = standby.store();
    let cx = Context::within(MINUTE);
    inside.restore(&cx, RestoreStep::Begin).await.unwrap();
    let step = RestoreStep::Collection { spec: &spec(), incarnation: Lsn(1) };
    inside.restore(&cx, step).await.unwrap();
    inside.restore(&cx, RestoreStep::Finish { position: older }).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(tier.status().members[1].cursor, Lsn(5));
    let answer = tier.count(&docs(), None).await.unwrap();
    assert_eq!((answer.value, answer.cursor), (0, Lsn(5)), "old, and says so");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_left_half_loaded_is_loaded_anew_although_the_log_is_whole() {
    let Pair { tier, log, primary, .. } = pair().await;
    for id in 0..10 {
        tier.upsert(&docs(), vec![point(id, 0.1)]).await.unwrap();
    }
    tier.wait_caught_up(MINUTE).await.unwrap();
    stop(tier).await;
    let standby = store(9);
    standby.restore(&Context::within(MINUTE), RestoreStep::Begin).await.unwrap();
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    assert_equal_members(&tier, &["primary", "secondary"]).await;
}

#[tokio::test(start_paused = true)]
async fn failures_before_and_after_a_load_are_not_added_up_to_a_quarantine() {
    let Pair { tier, primary, .. } = pair().await;
    tier.upsert(&docs(), vec![point(1, 0.1)]).await.unwrap();
    tier.wait_caught_up(MINUTE).await.unwrap();
    for round in 0..5 {
        primary.fail_next_of(Operation::Position, 3, Fault::Before(ErrorKind::Internal));
        primary.store().restore(&Context::within(MINUTE), RestoreStep::Begin).await.unwrap();
        tokio::time::sleep(MINUTE).await;
        tier.wait_caught_up(MINUTE).await.unwrap();
        assert_eq!(tier.status().members[0].state, MemberState::Live, "round {round}");
        assert_eq!(ids_of(&tier, "primary").await.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_from_another_member_holds_the_entries_that_follow_it_and_no_others() {
    let (log, primary) = cut_log().await;
    let standby = store(9);
    primary.fail_next_of(Operation::Scroll, 1, Fault::Delay(Duration::from_secs(1)));
    let tier = tier_of(TierOptions::default(), &log, &[&primary, &standby]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tier.status().members[1].state, MemberState::Bootstrapping);
    let base = tier.log_end();
    tier.upsert(&docs(), vec![point(200, 0.1)]).await.unwrap();
    let cut = async |to: Lsn| {
        let catalog = &tier.shared().catalog;
        let reached = log.truncate_before(to.next(), catalog.at(to)).await.unwrap();
        catalog.cut(reached);
        reached
    };
    assert_eq!(cut(base).await, base);
    assert_eq!(cut(base.next()).await, base, "it is about to be replayed");
    assert_equal_members(&tier, &["primary", "secondary"]).await;
    assert_eq!(cut(base.next()).await, base.next());
}
