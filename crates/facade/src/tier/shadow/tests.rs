//! Standbys that answer well and badly, under tokio's paused clock.

use mainstay_core::{CollectionSpec, Distance, Durability, Point};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::*;
use crate::log::MemoryLog;
use crate::tier::exposed::{Exposed, Search};
use crate::tier::{Tier, TierOptions};

const SECOND: Duration = Duration::from_secs(1);

fn docs() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

fn point(id: u64) -> Point {
    // No two points have one score.
    Point::new(id, vec![1.0 + id as f32 / 64.0, 1.0])
}

fn query() -> SearchQuery {
    SearchQuery::new(vec![1.0, 0.5])
}

async fn pair(share: f64) -> (Tier, Arc<Exposed>, Arc<Exposed>) {
    let stores = [Exposed::new(Durability::Volatile), Exposed::new(Durability::Volatile)];
    let members = vec![stores[0].member("primary"), stores[1].member("standby")];
    let shadow = ShadowConfig { share, ..ShadowConfig::default() };
    let options = TierOptions { shadow, ..TierOptions::default() };
    let tier = Tier::assemble(options, Arc::new(MemoryLog::default()), members).await.unwrap();
    tier.create_collection(CollectionSpec::dense(docs(), 2, Distance::Dot)).await.unwrap();
    tier.upsert(&docs(), (0..100).map(point).collect()).await.unwrap();
    tier.wait_caught_up(60 * SECOND).await.unwrap();
    let [primary, standby] = stores;
    (tier, primary, standby)
}

/// Searches one after the other, each of which a standby may answer before the next.
async fn search(tier: &Tier, times: usize) -> Vec<Vec<(PointId, f32)>> {
    let mut answers = Vec::new();
    for _ in 0..times {
        let answer = tier.search(&docs(), query()).await.unwrap();
        assert_eq!(answer.served_by.as_str(), "primary");
        answers.push(answer.value.iter().map(|hit| (hit.point.id, hit.score)).collect());
        sleep(Duration::from_millis(1)).await;
    }
    answers
}

fn status(tier: &Tier) -> ShadowStatus {
    tier.status().members[1].shadow.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_good_standby_finds_every_hit_with_the_same_score() {
    let (tier, ..) = pair(1.0).await;
    search(&tier, 30).await;
    let figures = status(&tier);
    assert_eq!((figures.samples, figures.compared, figures.passed_over, figures.failed), (30, 30, 0, 0));
    assert_eq!((figures.overlap, figures.lowest_overlap), (1.0, 1.0));
    assert_eq!((figures.mean_score_drift, figures.max_score_drift), (0.0, 0.0));
    assert_eq!(tier.status().members[0].shadow, None, "who serves is not compared with itself");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_loses_hits_shows_and_is_told_of_once() {
    let (tier, _, standby) = pair(1.0).await;
    let mut events = tier.events();
    standby.search_so(Search::Without(3));
    search(&tier, 60).await;
    let figures = status(&tier);
    assert!((figures.overlap - 0.7).abs() < 1e-9, "{figures:?}");
    standby.search_so(Search::Well);
    search(&tier, 300).await;
    assert_eq!(status(&tier).overlap, 1.0, "the figures are of the last 256");
    standby.search_so(Search::Without(9));
    search(&tier, 60).await;
    tier.close().await.unwrap();
    drop(tier);
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::Shadow { member, overlap_percent } = event {
            told.push((member.to_string(), overlap_percent));
        }
    }
    assert_eq!(told.len(), 2, "once for each time: {told:?}");
    assert_eq!(told[0], ("standby".to_owned(), 70));
}

#[tokio::test(start_paused = true)]
async fn a_standby_with_other_scores_shows() {
    let (tier, _, standby) = pair(1.0).await;
    search(&tier, 10).await;
    standby.search_so(Search::Shifted(0.25));
    search(&tier, 10).await;
    let figures = status(&tier);
    assert_eq!(figures.overlap, 1.0);
    assert!((figures.max_score_drift - 0.25).abs() < 1e-6, "{figures:?}");
    assert!((figures.mean_score_drift - 0.125).abs() < 1e-6, "{figures:?}");
}

#[tokio::test(start_paused = true)]
async fn callers_get_the_same_answers_as_fast_with_and_without() {
    let mut answers = Vec::new();
    for share in [0.0, 1.0] {
        let (tier, _, standby) = pair(share).await;
        standby.search_so(Search::After(8 * SECOND));
        let start = Instant::now();
        answers.push(search(&tier, 50).await);
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        assert_eq!(tier.shared().members[1].store().metrics().running, if share > 0.0 { 2 } else { 0 });
        sleep(10 * SECOND).await;
        let figures = tier.status().members[1].shadow;
        // The others were not made, because there was no room.
        assert_eq!(figures.map(|figures| figures.failed), (share > 0.0).then_some(2));
        let start = Instant::now();
        tier.search(&docs(), query()).await.unwrap();
        tier.close().await.unwrap();
        assert!(start.elapsed() < SECOND, "a close waits for no shadow: {:?}", start.elapsed());
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_searches_has_a_shadow() {
    let (tier, ..) = pair(0.1).await;
    search(&tier, 1_000).await;
    let compared = status(&tier).compared;
    assert!((70..130).contains(&compared), "{compared}");
}

#[tokio::test(start_paused = true)]
async fn writes_in_between_are_no_loss_and_a_loss_shows_all_the_same() {
    for without in [0, 4] {
        let (tier, _, standby) = pair(1.0).await;
        standby.search_so(if without > 0 { Search::Without(without) } else { Search::Well });
        standby.apply_takes(Duration::from_millis(2));
        let until = Instant::now() + 10 * SECOND;
        let writer = tokio::spawn({
            let tier = tier.clone();
            async move {
                let mut rng = StdRng::seed_from_u64(7);
                while Instant::now() < until {
                    // Among them the nearest.
                    let id = rng.random_range(80..110);
                    match rng.random_bool(0.5) {
                        true => drop(tier.upsert(&docs(), vec![point(id)]).await.unwrap()),
                        false => drop(tier.delete(&docs(), &[id.into()]).await.unwrap()),
                    }
                    sleep(Duration::from_millis(rng.random_range(0..4))).await;
                }
            }
        });
        while Instant::now() < until {
            tier.search(&docs(), query()).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        writer.await.unwrap();
        let figures = status(&tier);
        assert!(figures.compared > 200, "{figures:?}");
        if without == 0 {
            assert_eq!((figures.lowest_overlap, figures.max_score_drift), (1.0, 0.0), "{figures:?}");
        } else {
            assert!((0.4..0.75).contains(&figures.overlap), "{figures:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_behind_or_away_is_not_asked() {
    let (tier, _, standby) = pair(1.0).await;
    standby.apply_takes(5 * SECOND);
    tier.upsert(&docs(), vec![point(200)]).await.unwrap();
    search(&tier, 20).await;
    assert_eq!(tier.status().members[1].shadow, None);
}

#[test]
fn only_what_both_lists_say_something_of_is_compared() {
    let seen = |ids: &[u64]| -> Vec<Seen> {
        ids.iter().map(|id| Seen { id: (*id).into(), score: -(*id as f32) }).collect()
    };
    let overlap = |a: &[u64], b: &[u64], limit, touched: &[u64]| {
        let touched = touched.iter().map(|id| PointId::Num(*id)).collect();
        sample(&seen(a), &seen(b), limit, &touched).overlap
    };
    assert_eq!(overlap(&[], &[], 3, &[]), 1.0);
    assert_eq!(overlap(&[1, 2, 3], &[1, 2, 3], 3, &[]), 1.0);
    assert_eq!(overlap(&[1, 2, 3], &[2, 3, 4], 3, &[]), 2.0 / 3.0);
    assert_eq!(overlap(&[1, 2, 3], &[2, 3, 4], 3, &[1]), 1.0, "1 was deleted in between, and 4 moved up");
    assert_eq!(overlap(&[1, 2], &[2], 3, &[]), 0.5, "lists that are not full have all there is");
    assert_eq!(overlap(&[], &[1], 3, &[]), 0.0);
    assert_eq!(overlap(&[1, 2, 3], &[1], 3, &[]), 1.0 / 3.0);
}
