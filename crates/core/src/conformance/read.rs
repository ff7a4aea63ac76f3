//! Checks of reads.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use rand::Rng;

use super::generate::{payload_path, vector_name};
use super::script::{Script, cx, name};
use super::{Generator, ModelStore, StoreFactory, cases};
use crate::error::ErrorKind;
use crate::filter::Filter;
use crate::id::PointId;
use crate::point::{Point, SparseVector, Vector};
use crate::query::{Fields, Hit, ScrollQuery, SearchQuery, Selector};
use crate::spec::{CollectionSpec, Distance, VectorSpec};
use crate::store::VectorStore;

/// A page starts after its cursor, has at most its limit, and the last one says that it is the last. One of versions has
/// the same points.
pub async fn a_scroll_pages_by_id<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 1, Distance::Dot));
    let mut ids: Vec<PointId> = [9_u64, 3, u64::MAX, 0, 256, 255].map(PointId::Num).to_vec();
    ids.extend([5_u128, 0, u128::MAX].map(|n| PointId::Uuid(uuid::Uuid::from_u128(n))));
    let even = |id: PointId| serde_json::json!({ "even": id.to_string().len().is_multiple_of(2) });
    script.upsert(&docs, ids.iter().map(|id| Point::new(*id, vec![1.0]).with_payload(even(*id))).collect());
    script.upsert(&docs, vec![Point::new(ids[1], vec![2.0]), Point::new(ids[7], vec![3.0])]);
    script.apply_to(&store).await;
    ids.sort();
    for limit in [1, 2, 4, 9, 100] {
        let mut query = ScrollQuery { limit, ..ScrollQuery::default() };
        let mut found = Vec::new();
        loop {
            let page = store.scroll(&cx(), &name("docs"), &query).await.unwrap();
            assert!(page.records.len() <= limit);
            assert_eq!(page.incarnation, docs.incarnation);
            let versions = store.versions(&cx(), &name("docs"), query.after, limit).await.unwrap();
            assert_eq!(versions, page.clone().into());
            found.extend(page.records.iter().map(|record| record.point.id));
            match page.next {
                Some(next) => {
                    assert_eq!(Some(&next), found.last());
                    query.after = Some(next);
                }
                None => break,
            }
        }
        assert_eq!(found, ids, "limit {limit}");
    }
}

/// Points come in the order of the asked ids, missing ones are passed over, fields are selected.
pub async fn a_get_answers_in_order_with_the_selected_fields<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let spec = CollectionSpec::dense(name("docs"), 2, Distance::Dot)
        .with_vector(vector_name("second"), VectorSpec::Dense { dimension: 1, distance: Distance::Dot });
    let docs = script.create(&spec);
    let point = |id: u64| {
        Point::new(id, vec![id as f32, 1.0])
            .with_vector(vector_name("second"), Vector::Dense(vec![id as f32]))
            .with_payload(serde_json::json!({ "a": { "b": id, "c": 1 }, "d": 2 }))
            .with_text(format!("text {id}"))
    };
    script.upsert(&docs, (0..5).map(point).collect());
    script.apply_to(&store).await;
    let ids: Vec<PointId> = [4_u64, 99, 0, 2].map(PointId::Num).to_vec();
    let cases = [
        Fields::ALL,
        Fields::NONE,
        Fields::default(),
        Fields {
            payload: Selector::Only(vec![payload_path("a.b")]),
            vectors: Selector::Only(vec![vector_name("second")]),
            text: false,
        },
    ];
    for fields in cases {
        let found = store.get(&cx(), &name("docs"), &ids, &fields).await.unwrap();
        let expected: Vec<_> = [4, 0, 2].map(|id| fields.select(&point(id))).to_vec();
        assert_eq!(found.into_iter().map(|record| record.point).collect::<Vec<_>>(), expected, "{fields:?}");
    }
}

/// An unknown collection is `NotFound`, an undeclared vector `Invalid`.
pub async fn unknown_names_are_told_apart<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.apply_to(&store).await;
    let (docs, no) = (name("docs"), name("no"));
    let query = SearchQuery::new(vec![1.0, 1.0]);
    let kinds = [
        store.search(&cx(), &no, &query).await.unwrap_err().kind(),
        store.get(&cx(), &no, &[1.into()], &Fields::ALL).await.unwrap_err().kind(),
        store.scroll(&cx(), &no, &ScrollQuery::default()).await.unwrap_err().kind(),
        store.versions(&cx(), &no, None, 1).await.unwrap_err().kind(),
        store.count(&cx(), &no, None).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::NotFound; 5]);
    let undeclared = SearchQuery { using: vector_name("no"), ..query };
    assert_eq!(store.search(&cx(), &docs, &undeclared).await.unwrap_err().kind(), ErrorKind::Invalid);
}

fn assert_same_hits(found: &[Hit], expected: &[Hit], what: &str) {
    let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.point.id).collect::<Vec<_>>();
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    let scores_agree = found.iter().zip(expected).all(|(a, b)| near(a.score, b.score));
    assert!(
        ids(found) == ids(expected) && scores_agree,
        "{what}\n found {:?}\n expected {:?}",
        found.iter().map(|h| (h.point.id, h.score)).collect::<Vec<_>>(),
        expected.iter().map(|h| (h.point.id, h.score)).collect::<Vec<_>>()
    );
    for (a, b) in found.iter().zip(expected) {
        assert_eq!((a.version, &a.point), (b.version, &b.point), "{what}");
    }
}

/// Exact searches give the ids, order and scores of the model, with limits, thresholds and fields.
pub async fn exact_searches_equal_the_model_under_every_distance<F: StoreFactory>(factory: &F) {
    for (seed, distance) in Distance::ALL.into_iter().enumerate() {
        let mut generator = Generator::new(seed as u64);
        let (store, model) = (factory.create().await, ModelStore::default());
        let mut script = Script::new(1);
        let spec = CollectionSpec::dense(name("docs"), 8, distance);
        let docs = script.create(&spec);
        let random =
            |g: &mut Generator| (0..8).map(|_| g.rng().random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
        let points = (0..120_u64).map(|id| {
            let point = Point::new(id, random(&mut generator)).with_payload(serde_json::json!({ "n": id }));
            spec.admit(point).unwrap()
        });
        script.upsert(&docs, points.collect());
        script.apply_to(&store).await;
        script.apply_to(&model).await;
        for case in 0..8_usize {
            let mut query = SearchQuery::new(random(&mut generator)).with_limit(1 + case * 7).exact();
            query.offset = case * 3;
            query.fields = if case % 2 == 0 { Fields::ALL } else { Fields::NONE };
            if case > 5 {
                let all =
                    model.search(&cx(), &name("docs"), &query.clone().admit(&spec).unwrap()).await.unwrap();
                query.score_threshold = all.get(all.len() / 2).map(|hit| hit.score * 1.000_01);
            }
            let query = query.admit(&spec).unwrap();
            let found = store.search(&cx(), &name("docs"), &query).await.unwrap();
            let expected = model.search(&cx(), &name("docs"), &query).await.unwrap();
            assert_same_hits(&found, &expected, &format!("{distance} case {case}"));
        }
    }
}

/// Hits with one score are ordered by id, also where a page ends between them.
pub async fn equal_scores_are_ordered_by_id_and_paged_without_overlap<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 1, Distance::Dot));
    script.upsert(&docs, (0..40).rev().map(|id| Point::new(id, vec![(id % 2) as f32 + 1.0])).collect());
    script.apply_to(&store).await;
    let mut found = Vec::new();
    for offset in (0..40).step_by(7) {
        let query = SearchQuery { offset, ..SearchQuery::new(vec![1.0]).with_limit(7).exact() };
        let hits = store.search(&cx(), &name("docs"), &query).await.unwrap();
        found.extend(hits.into_iter().map(|hit| hit.point.id));
    }
    let expected: Vec<PointId> =
        (0..40).filter(|n| n % 2 == 1).chain((0..40).filter(|n| n % 2 == 0)).map(PointId::Num).collect();
    assert_eq!(found, expected);
    let beyond = SearchQuery { offset: 1_000, ..SearchQuery::new(vec![1.0]) };
    assert!(store.search(&cx(), &name("docs"), &beyond).await.unwrap().is_empty());
}

/// A search that is not exact finds at least nine in ten of the nearest points of 2,000.
pub async fn a_search_of_many_points_finds_what_is_near<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut generator = Generator::new(8);
    let mut script = Script::new(1);
    let spec = CollectionSpec::dense(name("docs"), 16, Distance::Cosine);
    let docs = script.create(&spec);
    let random = |g: &mut Generator| (0..16).map(|_| g.rng().random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
    let points: Vec<_> =
        (0..2_000_u64).map(|id| spec.admit(Point::new(id, random(&mut generator))).unwrap()).collect();
    script.upsert(&docs, points);
    script.apply_to(&store).await;
    let (mut hits, mut wanted) = (0, 0);
    for _ in 0..20 {
        let query = SearchQuery::new(random(&mut generator)).admit(&spec).unwrap();
        let exact = store.search(&cx(), &name("docs"), &query.clone().exact()).await.unwrap();
        let found = store.search(&cx(), &name("docs"), &query).await.unwrap();
        let found: Vec<_> = found.iter().map(|hit| hit.point.id).collect();
        wanted += exact.len();
        hits += exact.iter().filter(|hit| found.contains(&hit.point.id)).count();
    }
    assert!(hits * 10 >= wanted * 9, "{hits} of {wanted}");
}

/// Sparse vectors are searched as the model does if that is declared, else declined as `Unsupported`.
pub async fn sparse_vectors_are_searched_or_declined<F: StoreFactory>(factory: &F) {
    let (store, model) = (factory.create().await, ModelStore::default());
    let mut script = Script::new(1);
    let spec = CollectionSpec::dense(name("docs"), 1, Distance::Dot)
        .with_vector(vector_name("s"), VectorSpec::Sparse);
    let docs = script.create(&spec);
    let sparse = |indices: &[u32]| {
        let values = indices.iter().map(|i| *i as f32 * 0.5 + 0.25).collect();
        Vector::Sparse(SparseVector { indices: indices.to_vec(), values })
    };
    let points = [vec![0, 3], vec![3], vec![1, 2], vec![], vec![2, 3, 9]];
    let points = points
        .iter()
        .zip(0_u64..)
        .map(|(indices, id)| Point::new(id, vec![1.0]).with_vector(vector_name("s"), sparse(indices)));
    script.upsert(&docs, points.collect());
    script.apply_to(&store).await;
    script.apply_to(&model).await;
    let query = SearchQuery { vector: sparse(&[2, 3]), using: vector_name("s"), ..SearchQuery::new(vec![]) };
    let found = store.search(&cx(), &name("docs"), &query).await;
    if store.capabilities().search.sparse {
        let expected = model.search(&cx(), &name("docs"), &query).await.unwrap();
        assert_same_hits(&found.unwrap(), &expected, "sparse");
    } else {
        println!("SKIPPED: sparse search is not declared");
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

/// Count, scroll and exact search accept exactly what [`Filter::accepts`] does, for random filters over random
/// payloads.
pub async fn random_filters_accept_exactly_what_their_evaluation_does<F: StoreFactory>(factory: &F) {
    let mut generator = Generator::new(99);
    let store = factory.create().await;
    let mut script = Script::new(1);
    let spec = generator.spec("docs");
    let docs = script.create(&spec);
    let mut points: Vec<Point> =
        (0..150_u64).map(|id| Point { id: id.into(), ..generator.point(&spec) }).collect();
    points.extend(
        (0..6).map(|n| Point { id: PointId::Uuid(uuid::Uuid::from_u128(n << 60)), ..generator.point(&spec) }),
    );
    script.upsert(&docs, points.clone());
    script.apply_to(&store).await;
    let dimension = match spec.vector(&Default::default()).unwrap() {
        VectorSpec::Dense { dimension, .. } => dimension,
        VectorSpec::Sparse => panic!("the default vector of a generated spec is dense"),
    };
    let vector = match generator.point(&spec).vectors.into_values().next() {
        Some(Vector::Dense(vector)) if vector.len() == dimension => vector,
        _ => vec![0.5; dimension],
    };
    for case in 0..cases(60) {
        let filter: Filter = generator.filter(2);
        let accepted = points.iter().filter(|point| filter.accepts(point.id, &point.payload));
        let mut expected: Vec<PointId> = accepted.clone().map(|point| point.id).collect();
        expected.sort();
        let what = format!("case {case}: {filter:?}");
        assert_eq!(
            store.count(&cx(), &name("docs"), Some(&filter)).await.unwrap(),
            expected.len() as u64,
            "{what}"
        );
        let query = ScrollQuery { limit: 1_000, filter: Some(filter.clone()), ..ScrollQuery::default() };
        let page = store.scroll(&cx(), &name("docs"), &query).await.unwrap();
        assert_eq!(page.records.iter().map(|record| record.point.id).collect::<Vec<_>>(), expected, "{what}");
        let query = SearchQuery::new(vector.clone())
            .with_limit(1_000)
            .with_filter(filter.clone())
            .exact()
            .admit(&spec)
            .unwrap();
        let hits = store.search(&cx(), &name("docs"), &query).await.unwrap();
        let mut found: Vec<PointId> = hits.iter().map(|hit| hit.point.id).collect();
        found.sort();
        let with_vector = accepted.filter(|point| point.vectors.contains_key(&query.using));
        let mut expected: Vec<PointId> = with_vector.map(|point| point.id).collect();
        expected.sort();
        assert_eq!(found, expected, "{what}");
    }
}
