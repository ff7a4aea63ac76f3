use tokio::time::{Instant, timeout};

use super::*;
use crate::id::Lsn;
use crate::plain_store::{PlainStore, at, create, cx, name, run, upsert};
use crate::point::Point;

fn faulty(seed: u64) -> (Arc<PlainStore>, Faulty<PlainStore>) {
    let store = Arc::new(PlainStore::default());
    (Arc::clone(&store), Faulty::new(store, seed))
}

async fn outcomes(faulty: &Faulty<PlainStore>) -> Vec<bool> {
    let mut outcomes = Vec::new();
    for _ in 0..400 {
        outcomes.push(faulty.ping(&cx()).await.is_ok());
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_give_equal_faults_near_the_ratio() {
    let build = |seed| faulty(seed).1.with_ratio(0.25, Fault::Before(ErrorKind::Unavailable));
    let (first, again, other) = (build(7), build(7), build(8));
    let struck = outcomes(&first).await;
    assert_eq!(struck, outcomes(&again).await);
    assert_ne!(struck, outcomes(&other).await);
    assert!((60..140).contains(&first.injected()), "{}", first.injected());
}

#[tokio::test(start_paused = true)]
async fn without_a_plan_nothing_fails() {
    let (_, faulty) = faulty(1);
    assert!(outcomes(&faulty).await.into_iter().all(|ok| ok));
    assert_eq!(faulty.injected(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_before_leaves_no_effect_and_one_after_leaves_it_unknown() {
    let (store, faulty) = faulty(1);
    let write = run(0, vec![create()]);
    faulty.fail_next(1, Fault::Before(ErrorKind::Unavailable));
    faulty.fail_next(1, Fault::After(ErrorKind::Timeout));
    let error = faulty.apply(&cx(), &write).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    let error = faulty.apply(&cx(), &write).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    assert_eq!(store.position(&cx()).await.unwrap(), Some(at(1)));
    faulty.apply(&cx(), &write).await.unwrap();
    assert_eq!(faulty.injected(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_scripted_fault_waits_for_its_operation() {
    let (_, faulty) = faulty(1);
    faulty.fail_next_of(Operation::Flush, 2, Fault::Before(ErrorKind::StorageFull));
    faulty.ping(&cx()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(faulty.flush(&cx()).await.unwrap_err().kind(), ErrorKind::StorageFull);
    }
    faulty.flush(&cx()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_one_operation_leaves_the_others_alone() {
    let (_, faulty) = faulty(1);
    let faulty = faulty.with_ratio_of(Operation::Flush, 1.0, Fault::Before(ErrorKind::Internal));
    faulty.ping(&cx()).await.unwrap();
    faulty.flush(&cx()).await.unwrap_err();
    faulty.heal();
    faulty.flush(&cx()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_not_reached_except_to_close_it() {
    let (store, faulty) = faulty(1);
    faulty.set_down(true);
    assert_eq!(faulty.ping(&cx()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(faulty.count(&cx(), &name(), None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.calls(), 0);
    faulty.close(&cx()).await.unwrap();
    faulty.set_down(false);
    faulty.ping(&cx()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hanging_calls_go_on_when_it_ends() {
    let (store, faulty) = faulty(1);
    let faulty = Arc::new(faulty);
    faulty.hang(true);
    assert!(timeout(Duration::from_secs(3600), faulty.ping(&cx())).await.is_err());
    let waiting = tokio::spawn({
        let faulty = Arc::clone(&faulty);
        async move { faulty.ping(&cx()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(store.calls(), 0);
    faulty.hang(false);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hang_may_come_before_or_after_the_effect() {
    let (store, faulty) = faulty(1);
    let write = run(0, vec![create()]);
    for (fault, position) in [(Fault::Hang, None), (Fault::HangAfter, Some(at(1)))] {
        faulty.fail_next(1, fault);
        assert!(timeout(Duration::from_secs(60), faulty.apply(&cx(), &write)).await.is_err());
        assert_eq!(store.position(&cx()).await.unwrap(), position);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_only_takes_time() {
    let (_, faulty) = faulty(1);
    faulty.fail_next(1, Fault::Delay(Duration::from_secs(3)));
    let start = Instant::now();
    faulty.ping(&cx()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_recording_keeps_order_lsns_and_outcomes() {
    let (store, faulty) = faulty(1);
    let recording = Recording::new(Arc::new(faulty));
    recording
        .apply(&cx(), &run(0, vec![create(), upsert(vec![Point::new(1, vec![0.0, 1.0])])]))
        .await
        .unwrap();
    store.takes(Duration::from_secs(60));
    assert!(timeout(Duration::from_secs(1), recording.count(&cx(), &name(), None)).await.is_err());
    recording.store().set_down(true);
    recording.restore(&cx(), RestoreStep::Finish { position: at(9) }).await.unwrap_err();

    let recorded = |operation, lsns, outcome| Recorded { operation, collection: None, lsns, outcome };
    let calls = [
        recorded(Operation::Apply, Some((Lsn(1), Lsn(2))), Some(Ok(()))),
        Recorded { collection: Some(name()), ..recorded(Operation::Count, None, None) },
        recorded(Operation::Restore, Some((Lsn(9), Lsn(9))), Some(Err(ErrorKind::Unavailable))),
    ];
    assert_eq!(recording.calls(), calls);
    assert_eq!(recording.calls_of(Operation::Apply), calls[..1]);
    assert_eq!(recording.take(), calls);
    assert_eq!((recording.calls().len(), recording.total()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_recording_forgets_the_oldest_calls_first() {
    let recording = Recording::with_capacity(Arc::new(PlainStore::default()), 2);
    for _ in 0..2 {
        recording.ping(&cx()).await.unwrap();
    }
    recording.flush(&cx()).await.unwrap();
    let operations: Vec<_> = recording.calls().iter().map(|call| call.operation).collect();
    assert_eq!(operations, [Operation::Ping, Operation::Flush]);
    assert!(recording.calls().iter().all(|call| call.outcome == Some(Ok(()))));
    assert_eq!(recording.total(), 3);
}
