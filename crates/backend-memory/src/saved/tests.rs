use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Context, Distance, Entry, EntryHash, Expected, Fields,
    LogIdentity, Lsn, Op, PointId, Position, Record, RestoreStep, Run, ScrollQuery, SearchQuery, VectorName,
    VectorSpec, VectorStore,
};
use mainstay_core::{ErrorKind, LogId, Point};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Load;
use crate::collection::Collection;
use crate::{MemoryOptions, MemoryStore, Quantization};

const DIMENSION: usize = 16;
const POINTS: u64 = 3_000;

fn cx() -> Context {
    Context::within(Duration::from_secs(60))
}

fn name() -> CollectionName {
    CollectionName::new("docs").unwrap()
}

fn docs() -> CollectionRef {
    CollectionRef { name: name(), incarnation: Lsn(1) }
}

fn spec() -> CollectionSpec {
    let mut spec = CollectionSpec::dense(name(), DIMENSION, Distance::Cosine);
    let other = VectorSpec::Dense { dimension: 4, distance: Distance::Euclidean };
    spec.vectors.insert(VectorName::new("other").unwrap(), other);
    spec
}

fn vector(random: &mut SmallRng, dimension: usize) -> Vec<f32> {
    let values: Vec<f32> = (0..dimension).map(|_| random.random_range(-1.0..1.0)).collect();
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter().map(|v| v / length).collect()
}

/// Every third point has the other vector too.
fn point(random: &mut SmallRng, id: u64) -> Arc<Point> {
    let mut point = Point::new(id, vector(random, DIMENSION)).with_text("a text".repeat(8));
    if id.is_multiple_of(3) {
        let other = mainstay_core::Vector::Dense(vector(random, 4));
        point.vectors.insert(VectorName::new("other").unwrap(), other);
    }
    Arc::new(point)
}

/// A store and where it is.
struct Filled {
    store: MemoryStore,
    position: Position,
    random: SmallRng,
}

impl Filled {
    async fn new(quantization: Quantization) -> Self {
        let options = MemoryOptions { quantization, tombstone_ratio: 0.9, ..MemoryOptions::default() };
        let position = Position::start(LogIdentity { id: LogId(Default::default()), epoch: 1 });
        let store = MemoryStore::new(options).unwrap();
        let mut filled = Self { store, position, random: SmallRng::seed_from_u64(7) };
        filled.apply(Op::CreateCollection(spec())).await;
        filled.upsert(0..POINTS).await;
        filled
    }

    async fn apply(&mut self, op: Op) {
        let lsn = self.position.lsn.next();
        let entry = Entry { lsn, hash: EntryHash([lsn.0 as u8; 32]), op, size_bytes: 0 };
        let run = Run::new(self.position, vec![Arc::new(entry)]).unwrap();
        self.position = self.store.apply(&cx(), &run).await.unwrap();
    }

    async fn upsert(&mut self, ids: impl Iterator<Item = u64>) {
        let points = ids.map(|id| point(&mut self.random, id)).collect();
        self.apply(Op::Upsert { collection: docs(), points }).await;
    }

    async fn delete(&mut self, ids: impl Iterator<Item = u64>) {
        self.apply(Op::Delete { collection: docs(), ids: ids.map(PointId::Num).collect() }).await;
    }

    fn saved(&self) -> Vec<Vec<u8>> {
        let saved = self.store.graphs().unwrap().save(&docs()).unwrap();
        saved.parts.map(|part| part.unwrap()).collect()
    }

    async fn records(&self) -> Vec<Record> {
        let query = ScrollQuery { limit: 100_000, fields: Fields::ALL, ..ScrollQuery::default() };
        self.store.scroll(&cx(), &name(), &query).await.unwrap().records
    }

    async fn hits(&self, queries: u64) -> Vec<Vec<(PointId, Lsn, f32)>> {
        let mut random = SmallRng::seed_from_u64(99);
        let mut all = Vec::new();
        for _ in 0..queries {
            let query = SearchQuery::new(vector(&mut random, DIMENSION));
            let hits = self.store.search(&cx(), &name(), &query).await.unwrap();
            all.push(hits.iter().map(|hit| (hit.point.id, hit.version, hit.score)).collect());
        }
        all
    }
}

/// Loads points into an empty store after its graphs, and answers what `load` said of them.
async fn load(into: &MemoryStore, parts: Vec<Vec<u8>>, records: &[Record]) -> mainstay_core::Result<()> {
    load_watched(into, parts, records, |_| {}).await
}

/// The same, telling after each step how many bytes the store holds.
async fn load_watched(
    into: &MemoryStore,
    parts: Vec<Vec<u8>>,
    records: &[Record],
    mut held: impl FnMut(u64),
) -> mainstay_core::Result<()> {
    into.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let step = RestoreStep::Collection { spec: &spec(), incarnation: Lsn(1) };
    into.restore(&cx(), step).await.unwrap();
    let loaded = into.graphs().unwrap().load(&cx(), &docs(), records.len() as u64, parts).await;
    for records in records.chunks(700) {
        let records = records.to_vec();
        held(into.memory_bytes().unwrap());
        into.restore(&cx(), RestoreStep::Points { collection: &docs(), records }).await.unwrap();
    }
    held(into.memory_bytes().unwrap());
    let position = Position::start(LogIdentity { id: LogId(Default::default()), epoch: 1 });
    into.restore(&cx(), RestoreStep::Finish { position }).await.unwrap();
    held(into.memory_bytes().unwrap());
    loaded
}

fn empty(quantization: Quantization) -> MemoryStore {
    MemoryStore::new(MemoryOptions { quantization, ..MemoryOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_store_with_loaded_graphs_answers_as_the_one_that_they_were_saved_of() {
    for quantization in [Quantization::F32, Quantization::F16, Quantization::I8] {
        let filled = Filled::new(quantization).await;
        let copy = Filled { store: empty(quantization), ..Filled::new(quantization).await };
        load(&copy.store, filled.saved(), &filled.records().await).await.unwrap();
        assert_eq!(copy.records().await, filled.records().await);
        // The same graph takes the same way to the same points.
        assert_eq!(copy.hits(100).await, filled.hits(100).await, "{quantization:?}");
    }
}

#[tokio::test]
async fn points_that_come_twice_count_once_and_after_the_end_are_refused() {
    let filled = Filled::new(Quantization::F16).await;
    let (parts, records) = (filled.saved(), filled.records().await);
    let options = MemoryOptions { quantization: Quantization::F16, ..MemoryOptions::default() };
    let collection = Arc::new(Collection::new(spec(), Lsn(1), Arc::new(options), None).unwrap());
    let load = Load::new(Arc::clone(&collection), &parts, POINTS).unwrap();
    load.put(records.clone()).unwrap();
    load.put(records[..100].to_vec()).unwrap();
    assert_eq!(collection.len(), 0);
    load.finish().unwrap();
    assert_eq!(collection.len(), POINTS);
    assert_eq!(collection.get(&[PointId::Num(7)], &Fields::ALL), records[7..8]);
    assert_eq!(load.put(records).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(load.finish().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn points_that_went_or_changed_since_are_as_they_are_and_not_as_the_graphs_had_them() {
    let mut filled = Filled::new(Quantization::F32).await;
    filled.delete((0..200).map(|n| n * 7)).await;
    let parts = filled.saved();
    filled.delete((0..200).map(|n| n * 11)).await;
    filled.upsert((0..300).map(|n| n * 9)).await;
    filled.upsert(POINTS..POINTS + 100).await;
    let records = filled.records().await;
    let copy = Filled { store: empty(Quantization::F32), ..Filled::new(Quantization::F32).await };
    load(&copy.store, parts, &records).await.unwrap();
    assert_eq!(copy.records().await, records);
    let exact = |hits: Vec<Vec<(PointId, Lsn, f32)>>| -> Vec<Vec<PointId>> {
        hits.into_iter().map(|hits| hits.into_iter().map(|hit| hit.0).collect()).collect()
    };
    let (found, before) = (exact(copy.hits(100).await), exact(filled.hits(100).await));
    let same = found.iter().zip(&before).map(|(a, b)| a.iter().filter(|id| b.contains(id)).count());
    assert!(same.sum::<usize>() >= 970, "of 1,000 hits");
}

#[tokio::test]
async fn writes_go_on_while_graphs_are_saved_and_after_they_were_loaded() {
    let mut filled = Filled::new(Quantization::F32).await;
    let saved = filled.store.graphs().unwrap().save(&docs()).unwrap();
    filled.upsert(POINTS..POINTS + 500).await;
    let parts = saved.parts.map(|part| part.unwrap()).collect();
    let records = filled.records().await;
    let copy = empty(Quantization::F32);
    load(&copy, parts, &records).await.unwrap();
    assert_eq!(copy.count(&cx(), &name(), None).await.unwrap(), POINTS + 500);
    for id in [POINTS, POINTS + 499, 3, 2_999] {
        let known = filled.store.get(&cx(), &name(), &[PointId::Num(id)], &Fields::ALL).await.unwrap();
        let mainstay_core::Vector::Dense(values) = &known[0].point.vectors[&VectorName::default()] else {
            panic!("dense");
        };
        let hits = copy.search(&cx(), &name(), &SearchQuery::new(values.clone())).await.unwrap();
        assert_eq!(hits[0].point.id, PointId::Num(id));
    }
}

#[tokio::test]
async fn damaged_graphs_are_refused_or_harmless_and_the_points_are_all_there() {
    let filled = Filled::new(Quantization::F32).await;
    let (parts, records) = (filled.saved(), filled.records().await);
    let mut random = SmallRng::seed_from_u64(3);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..150 {
        let mut parts = parts.clone();
        let part = &mut parts[0];
        match random.random_range(0..4) {
            0 => part.truncate(random.random_range(0..part.len())),
            1 => part.extend([0; 7]),
            _ => {
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..part.len());
                    part[at] ^= 1 << random.random_range(0..8);
                }
            }
        }
        let copy = empty(Quantization::F32);
        match load(&copy, parts, &records[..1_500]).await {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                refused += 1;
            }
        }
        assert_eq!(copy.count(&cx(), &name(), None).await.unwrap(), 1_500);
        let query = SearchQuery::new(vector(&mut random, DIMENSION));
        assert_eq!(copy.search(&cx(), &name(), &query).await.unwrap().len(), 10);
    }
    assert!(refused > 30 && taken > 10, "{refused} refused, {taken} taken");
}

#[tokio::test]
async fn graphs_of_many_more_slots_than_points_are_refused_before_they_take_memory() {
    let filled = Filled::new(Quantization::F32).await;
    let (parts, records) = (filled.saved(), filled.records().await);
    let error = load(&empty(Quantization::F32), parts, &records[..100]).await.unwrap_err();
    assert!(error.to_string().contains("more slots than points"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_loaded_counts_its_graphs_from_the_first_step_on_and_its_points_as_they_come() {
    for quantization in [Quantization::F32, Quantization::F16] {
        let filled = Filled::new(quantization).await;
        let (parts, records) = (filled.saved(), filled.records().await);
        let mut held = Vec::new();
        let store = empty(quantization);
        load_watched(&store, parts, &records, |bytes| held.push(bytes)).await.unwrap();
        let end = filled.store.memory_bytes().unwrap() as f64;
        let at = |step: usize| held[step] as f64 / end;
        let last = held.len() - 1;
        assert!(held[..last].is_sorted_by(|a, b| a < b), "{quantization:?} {held:?}");
        assert!(at(0) > 0.4, "{quantization:?} {held:?} of {end}");
        assert!((0.8..1.2).contains(&at(last - 1)), "{quantization:?} {held:?} of {end}");
        assert!((0.9..1.2).contains(&at(last)), "{quantization:?} {held:?} of {end}");
    }
}

#[tokio::test]
async fn graphs_that_do_not_fit_beside_the_points_are_left_alone_and_the_points_fit() {
    let filled = Filled::new(Quantization::F32).await;
    let (parts, records) = (filled.saved(), filled.records().await);
    let expected = [Expected {
        spec: spec(),
        points: POINTS,
        sample: records.iter().take(100).map(|record| Arc::new(record.point.clone())).collect(),
    }];
    let end = filled.store.memory_bytes().unwrap();
    for (max_memory, fits) in [(end / 10 * 13, false), (end * 4, true)] {
        let options = MemoryOptions { max_memory: Some(max_memory), ..MemoryOptions::default() };
        let store = MemoryStore::new(MemoryOptions { quantization: Quantization::F32, ..options }).unwrap();
        store.expect(&cx(), &expected).await.unwrap();
        let mut most = 0;
        let loaded = load_watched(&store, parts.clone(), &records, |bytes| most = most.max(bytes)).await;
        assert_eq!(loaded.is_ok(), fits, "{loaded:?}");
        assert!(loaded.err().is_none_or(|error| error.kind() == ErrorKind::StorageFull));
        assert!(most <= max_memory, "{most} of {max_memory}");
        assert_eq!(store.count(&cx(), &name(), None).await.unwrap(), POINTS);
    }
}

#[test]
fn parameters_tell_graphs_apart_that_are_made_of_other_things() {
    let of = |options: MemoryOptions| super::parameters(&spec(), &options);
    let usual = of(MemoryOptions::default()).unwrap();
    assert_eq!(of(MemoryOptions::default()), Some(usual.clone()));
    for other in [
        MemoryOptions { quantization: Quantization::I8, ..MemoryOptions::default() },
        MemoryOptions { connectivity: 8, ..MemoryOptions::default() },
        MemoryOptions { expansion_add: 64, ..MemoryOptions::default() },
    ] {
        assert_ne!(of(other), Some(usual.clone()));
    }
    let partial = MemoryOptions { when_full: crate::WhenFull::Partial, ..MemoryOptions::default() };
    assert_eq!(of(partial), None);
}
