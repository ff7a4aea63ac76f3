//! Deletes by a filter that end half-way.

use mainstay_core::conformance::ModelStore;

use super::*;
use crate::tier::counts::WriteOperation;
use crate::tier::slow_log::SlowLog;

const SECOND: Duration = Duration::from_secs(1);
/// Two pages of a delete by a filter.
const POINTS: u64 = 12_000;

/// A tier with two pages of points, whose log takes a second for an append.
struct Slow {
    tier: Tier,
    log: Arc<SlowLog>,
    store: Arc<Faulty<ModelStore>>,
}

impl Slow {
    async fn new() -> Self {
        let (log, store) = (Arc::default(), Arc::new(Faulty::new(Arc::new(ModelStore::default()), 1)));
        let guarded =
            Guarded::new(Arc::clone(&store) as Arc<dyn VectorStore>, "only", GuardOptions::default());
        let only =
            MemberStore { name: "only".to_owned(), backend: "model", store: Arc::new(guarded.unwrap()) };
        let options = TierOptions { ack: Ack::Journal, ..TierOptions::default() };
        let tier =
            Tier::assemble(options, Arc::<SlowLog>::clone(&log) as Arc<dyn Log>, vec![only]).await.unwrap();
        tier.create_collection(spec()).await.unwrap();
        for first in (0..POINTS).step_by(6_000) {
            tier.upsert(&docs(), (first..first + 6_000).map(|id| point(id, 1.0)).collect()).await.unwrap();
        }
        tier.wait_caught_up(MINUTE).await.unwrap();
        log.appends_take(SECOND);
        Self { tier, log, store }
    }

    fn counted(&self, wanted: &str) -> u64 {
        let mut counts = self.tier.shared().counts.writes();
        let of = |(operation, outcome, _): &(_, &str, _)| {
            *operation == WriteOperation::DeleteByFilter && *outcome == wanted
        };
        counts.find(of).unwrap().2
    }
}

fn every_point() -> Filter {
    Filter { must_not: vec![Condition::equals("x".parse().unwrap(), "no number")], ..Filter::default() }
}

/// Fails between the first and the second page, and while the second is on its way into the log.
#[tokio::test(start_paused = true)]
async fn a_delete_by_filter_that_ends_half_way_says_that_points_are_gone_and_up_to_which_entry() {
    for (fails_after, closes_log) in [(SECOND / 2, false), (SECOND * 3 / 2, true)] {
        let slow = Slow::new().await;
        let before = slow.tier.log_end();
        let all = every_point();
        let name = docs();
        let fail = async {
            tokio::time::sleep(fails_after).await;
            match closes_log {
                true => slow.log.close().await.unwrap(),
                false => slow.store.set_down(true),
            }
        };
        let (failed, ()) = tokio::join!(slow.tier.delete_by_filter(&name, &all), fail);
        let failed = failed.unwrap_err();
        assert_eq!(slow.tier.log_end(), before.next(), "the first page is in the log");
        assert_eq!((failed.effect(), failed.lsn()), (Effect::Unknown, Some(before.next())), "{failed}");
        assert!(failed.to_string().contains("10000"), "{failed}");
        assert_eq!((slow.counted("unknown"), slow.counted("refused")), (1, 0));
        slow.store.set_down(false);
        let left = slow.tier.reader().at_least(before.next()).deadline(MINUTE).count(&name, None).await;
        assert_eq!(left.unwrap().value, POINTS - 10_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_filter_that_fails_before_its_first_entry_had_no_effect() {
    let slow = Slow::new().await;
    let before = slow.tier.log_end();
    slow.store.set_down(true);
    let all = every_point();
    let failed = slow.tier.delete_by_filter(&docs(), &all).await.unwrap_err();
    assert_eq!((failed.effect(), failed.lsn(), slow.tier.log_end()), (Effect::None, None, before));
    assert_eq!((slow.counted("unknown"), slow.counted("refused")), (0, 1));
}
