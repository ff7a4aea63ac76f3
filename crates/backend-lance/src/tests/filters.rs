//! Filters and searches return what plain evaluation returns.

use mainstay_core::filter::{FieldTest, Match, Range, Scalar};
use mainstay_core::{
    Condition, Filter, PayloadIndex, PayloadPath, ScrollQuery, SearchQuery, VectorSpec, VectorStore, score,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;

const PATHS: [&str; 8] = ["k", "i", "f", "b", "d", "free", "o.i", "list[]"];

fn value(rng: &mut SmallRng, depth: usize) -> Value {
    match rng.random_range(0..14) {
        0 => Value::Null,
        1 => json!(rng.random_bool(0.5)),
        2..=4 => json!(rng.random_range(-3..4_i64)),
        5 => json!(f64::from(rng.random_range(-6..7_i32)) / 2.0),
        6 => json!(-0.0),
        7 => json!([u64::MAX, 9_007_199_254_740_993_u64].choose(rng).unwrap()),
        8 | 9 => json!(["a", "b", "it's", "\"\\"].choose(rng).unwrap()),
        10 | 11 => {
            json!(["2024-01-01", "2024-01-01T00:00:00Z", "2024-06-01T10:00:00+02:00"].choose(rng).unwrap())
        }
        _ if depth == 0 => json!([]),
        _ => (0..rng.random_range(0..3)).map(|_| value(rng, depth - 1)).collect(),
    }
}

fn scalar(rng: &mut SmallRng) -> Scalar {
    match rng.random_range(0..3) {
        0 => Scalar::Bool(rng.random_bool(0.5)),
        1 => Scalar::Int(rng.random_range(-3..4)),
        _ => Scalar::Str((*["a", "b", "it's", "\"\\", "2024-01-01"].choose(rng).unwrap()).to_owned()),
    }
}

fn scalars(rng: &mut SmallRng) -> Vec<Scalar> {
    let integers = rng.random_bool(0.5);
    let fits =
        |scalar: &Scalar| matches!((integers, scalar), (true, Scalar::Int(_)) | (false, Scalar::Str(_)));
    (0..rng.random_range(0..5)).map(|_| scalar(rng)).filter(fits).collect()
}

fn range<T>(rng: &mut SmallRng, bound: impl Fn(&mut SmallRng) -> T) -> Range<T> {
    let mut part = || rng.random_bool(0.4).then(|| bound(rng));
    Range { gt: part(), gte: part(), lt: part(), lte: part() }
}

fn condition(rng: &mut SmallRng, depth: usize) -> Condition {
    let path: PayloadPath = PATHS.choose(rng).unwrap().parse().unwrap();
    let number = |rng: &mut SmallRng| match rng.random_range(0..8) {
        0 => f64::INFINITY,
        1 => -0.0,
        2 => 9_007_199_254_740_992.0,
        _ => f64::from(rng.random_range(-7..8_i32)) / 2.0,
    };
    let day = 24 * 3600 * 1_000_000;
    let test = match rng.random_range(0..9) {
        0 | 1 => FieldTest::Match(Match::Value(scalar(rng))),
        2 => FieldTest::Match(Match::Any(scalars(rng))),
        3 => FieldTest::Match(Match::Except(scalars(rng))),
        4 => FieldTest::Range(range(rng, number)),
        5 => FieldTest::Datetime(range(rng, |rng| rng.random_range(19_700..19_900_i64) * day)),
        6 if depth > 0 => return Condition::Filter(Box::new(filter(rng, depth - 1))),
        6 => return Condition::HasId((0..3).map(|_| PointId::Num(rng.random_range(0..60))).collect()),
        7 => return Condition::IsEmpty(path),
        _ => return Condition::IsNull(path),
    };
    Condition::Field { path, test }
}

fn filter(rng: &mut SmallRng, depth: usize) -> Filter {
    let mut some = |most: usize| (0..rng.random_range(0..=most)).map(|_| condition(rng, depth)).collect();
    Filter { must: some(1), should: some(2), must_not: some(1) }
}

/// Points in a store and beside it.
async fn filled(path: &Path, seed: u64, distance: Distance) -> (LanceStore, CollectionRef, Vec<Point>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut spec = CollectionSpec::dense(name("c"), 3, distance);
    for (path, index) in [
        ("k", PayloadIndex::Keyword),
        ("i", PayloadIndex::Integer),
        ("f", PayloadIndex::Float),
        ("b", PayloadIndex::Bool),
        ("d", PayloadIndex::Datetime),
        ("o.i", PayloadIndex::Integer),
        ("list[]", PayloadIndex::Keyword),
    ] {
        spec = spec.with_payload_index(path.parse().unwrap(), index);
    }
    let mut log = TestLog::new();
    let c = log.create(spec);
    let points: Vec<Point> = (0..60)
        .map(|id| {
            let mut payload = json!({});
            for key in ["k", "i", "f", "b", "d", "free", "list"] {
                if rng.random_bool(0.8) {
                    payload[key] = value(&mut rng, 2);
                }
            }
            if rng.random_bool(0.5) {
                payload["o"] = json!({ "i": value(&mut rng, 1) });
            }
            // Few different vectors, so that scores tie.
            let vector = (0..3).map(|_| f32::from(rng.random_range(-1..2_i8))).collect();
            Point::new(id, vector).with_payload(payload)
        })
        .collect();
    let store = open(path).await;
    for points in points.chunks(20) {
        log.upsert(&c, points.to_vec());
        log.feed(&store).await;
    }
    (store, c, points)
}

#[tokio::test]
async fn any_filter_accepts_what_plain_evaluation_accepts() {
    let seed = 0x5eed;
    let directory = tempfile::tempdir().unwrap();
    let (store, c, points) = filled(directory.path(), seed, Distance::Dot).await;
    let mut rng = SmallRng::seed_from_u64(seed + 1);
    let mut selective = 0;
    for round in 0..150 {
        let filter = filter(&mut rng, 2);
        let expected: Vec<_> = points
            .iter()
            .filter(|point| filter.accepts(point.id, &point.payload))
            .map(|point| point.id)
            .collect();
        selective += usize::from(!expected.is_empty() && expected.len() < points.len());
        let count = store.count(&cx(), &c.name, Some(&filter)).await.unwrap();
        assert_eq!(count, expected.len() as u64, "round {round}, seed {seed}: {filter:?}");
        let query =
            ScrollQuery { limit: 40, filter: Some(filter.clone()), fields: Fields::NONE, after: None };
        let page = store.scroll(&cx(), &c.name, &query).await.unwrap();
        let found: Vec<_> = page.records.iter().map(|record| record.point.id).collect();
        assert_eq!(found, expected[..expected.len().min(40)], "round {round}, seed {seed}: {filter:?}");
        assert_eq!(page.next, (expected.len() > 40).then(|| expected[39]));
    }
    assert!(selective > 60, "{selective}");
}

#[tokio::test]
async fn an_exact_search_returns_the_nearest_in_order_with_ties_by_id() {
    for (seed, distance) in Distance::ALL.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let (store, c, points) = filled(directory.path(), seed as u64, distance).await;
        let mut rng = SmallRng::seed_from_u64(99);
        let spec = VectorSpec::Dense { dimension: 3, distance };
        for _ in 0..12 {
            let vector: Vec<f32> = vec![1.0, f32::from(rng.random_range(-1..2_i8)), 0.5];
            let mut query = SearchQuery::new(vector.clone()).with_limit(rng.random_range(1..20)).exact();
            query.offset = rng.random_range(0..10);
            query.filter = rng.random_bool(0.5).then(|| filter(&mut rng, 1));
            query.score_threshold = rng.random_bool(0.3).then_some(1.0);
            let mut expected: Vec<(f32, PointId)> = points
                .iter()
                .filter(|point| query.filter.as_ref().is_none_or(|f| f.accepts(point.id, &point.payload)))
                .filter_map(|point| {
                    let stored = point.vectors.values().next()?;
                    Some((score::score(spec, &query.vector, stored)?, point.id))
                })
                .filter(|(score, _)| score::passes(spec, *score, query.score_threshold))
                .collect();
            expected.sort_by(|a, b| score::order(spec, *a, *b));
            let expected: Vec<_> = expected.into_iter().skip(query.offset).take(query.limit).collect();
            let hits = store.search(&cx(), &c.name, &query).await.unwrap();
            let found: Vec<_> = hits.iter().map(|hit| (hit.score, hit.point.id)).collect();
            assert_eq!(found, expected, "{distance} {query:?}");
            for hit in &hits {
                let point = points.iter().find(|point| point.id == hit.point.id).unwrap();
                assert_eq!(hit.point.payload, point.payload);
                assert!(hit.point.vectors.is_empty());
            }
        }
    }
}
