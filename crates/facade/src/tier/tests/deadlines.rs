//! Writes and closes over a log whose disk hangs.

use tokio::time::{Instant, sleep};

use super::*;
use crate::tier::HealthStatus;
use crate::tier::counts::WriteOperation;
use crate::tier::slow_log::SlowLog;

const SECOND: Duration = Duration::from_secs(1);

struct Slow {
    tier: Tier,
    log: Arc<SlowLog>,
    store: Double,
}

impl Slow {
    async fn new() -> Self {
        let (log, store) = (Arc::<SlowLog>::default(), store(1));
        let members = vec![member("only", &store)];
        let tier = Tier::assemble(TierOptions::default(), Arc::clone(&log) as Arc<dyn Log>, members).await;
        let slow = Self { tier: tier.unwrap(), log, store };
        slow.tier.create_collection(spec()).await.unwrap();
        slow
    }

    fn unknown(&self, wanted: WriteOperation) -> u64 {
        let mut counts = self.tier.shared().counts.writes();
        counts.find(|(operation, outcome, _)| *operation == wanted && *outcome == "unknown").unwrap().2
    }
}

fn other() -> CollectionSpec {
    CollectionSpec::dense(CollectionName::new("other").unwrap(), 2, Distance::Dot)
}

/// What a call answered, which must be by the deadline.
async fn by_the_deadline<T>(call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let answer = call.await;
    assert!(began.elapsed() < TierOptions::default().deadline + SECOND / 10, "{:?}", began.elapsed());
    answer
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_turn_does_not_come_by_the_deadline_had_no_effect() {
    let slow = Slow::new().await;
    let (tier, before) = (&slow.tier, slow.tier.log_end());
    let alone = tier.shared().order.write().await;
    let refused = by_the_deadline(tier.upsert(&docs(), vec![point(1, 0.5)])).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Timeout, Effect::None), "{refused}");
    let refused = by_the_deadline(tier.create_collection(other())).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Timeout, Effect::None), "{refused}");
    drop(alone);
    sleep(MINUTE).await;
    assert_eq!(tier.log_end(), before);
    tier.create_collection(other()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_log_does_not_answer_by_the_deadline_is_unknown_and_may_still_happen() {
    let slow = Slow::new().await;
    let tier = &slow.tier;
    let log_health = || {
        let health = tier.health();
        health.components.into_iter().find(|component| component.name == "log").unwrap()
    };
    slow.log.appends_take(20 * SECOND);
    let late = by_the_deadline(tier.upsert(&docs(), vec![point(1, 0.5)])).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::Timeout, Effect::Unknown), "{late}");
    assert_eq!(slow.unknown(WriteOperation::Upsert), 1);
    assert_eq!(log_health().status, HealthStatus::Unhealthy, "{}", log_health().message);
    sleep(MINUTE).await;
    assert_eq!(ids_of(tier, "only").await, [PointId::Num(1)]);
    slow.log.appends_take(Duration::ZERO);
    tier.delete(&docs(), &[1.into()]).await.unwrap();
    assert_eq!(log_health().status, HealthStatus::Healthy, "{}", log_health().message);
}

#[tokio::test(start_paused = true)]
async fn a_collection_whose_creation_or_end_is_logged_late_is_there_or_gone_from_then_on() {
    let slow = Slow::new().await;
    let (tier, name) = (&slow.tier, other().name);
    slow.log.appends_take(20 * SECOND);
    let late = by_the_deadline(tier.create_collection(other())).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::Timeout, Effect::Unknown), "{late}");
    assert_eq!(slow.unknown(WriteOperation::CreateCollection), 1);
    assert_eq!(tier.collections(), [spec()], "nobody knows yet whether it will be there");
    let taken = tier.create_collection(other()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "nobody else may take its name");
    sleep(MINUTE).await;
    assert_eq!(tier.collection(&name).unwrap(), other());
    slow.log.appends_take(Duration::ZERO);
    tier.upsert(&name, vec![point(1, 0.5)]).await.unwrap();
    slow.log.appends_take(20 * SECOND);
    let late = by_the_deadline(tier.drop_collection(&name)).await.unwrap_err();
    assert_eq!((late.kind(), late.effect()), (ErrorKind::Timeout, Effect::Unknown), "{late}");
    assert_eq!(tier.drop_collection(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    sleep(MINUTE).await;
    assert_eq!(tier.collections(), [spec()]);
    slow.log.appends_take(Duration::ZERO);
    tier.create_collection(other()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_has_one_deadline_for_the_log_and_the_members_together() {
    let slow = Slow::new().await;
    slow.log.appends_take(4 * SECOND);
    slow.store.set_down(true);
    let late = by_the_deadline(slow.tier.upsert(&docs(), vec![point(1, 0.5)])).await.unwrap_err();
    assert_eq!(
        (late.kind(), late.effect(), late.lsn()),
        (ErrorKind::Timeout, Effect::Unknown, Some(slow.tier.log_end()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_a_log_that_hangs_no_longer_than_it_may_and_says_so() {
    let slow = Slow::new().await;
    slow.log.close_takes(60 * MINUTE);
    let began = Instant::now();
    let late = slow.tier.close().await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.message().contains("the log"), "{late}");
    assert!(began.elapsed() <= 2 * TierOptions::default().close_timeout, "{:?}", began.elapsed());
    // It can be tried again.
    slow.log.close_takes(Duration::ZERO);
    slow.tier.close().await.unwrap();
}
