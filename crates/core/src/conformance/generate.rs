//! Random points, filters and histories, from a seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::script::{Script, name};
use crate::entry::{CollectionRef, Op, PayloadPatch};
use crate::filter::{Condition, FieldTest, Filter, Match, Range, Scalar};
use crate::id::PointId;
use crate::name::VectorName;
use crate::path::PayloadPath;
use crate::point::{Payload, Point, SparseVector, Vector};
use crate::spec::{CollectionSpec, Distance, PayloadIndex, VectorSpec};

const KEYS: [&str; 7] = ["k", "i", "f", "b", "t", "o.k", "free"];
const WORDS: [&str; 4] = ["red", "green", "blue", "o'brien \"q\" %_\\"];
const TIMES: [&str; 4] = ["2024-01-01", "2024-06-01T12:00:00Z", "2024-06-01T14:00:00+02:00", "not a time"];

/// A seeded source of everything random.
pub struct Generator(StdRng);

impl Generator {
    /// The same seed gives the same things.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// The source of randomness itself.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.0
    }

    /// A collection with dense and sparse vectors and a payload index of each kind.
    pub fn spec(&mut self, text: &str) -> CollectionSpec {
        let distance = *Distance::ALL.choose(&mut self.0).unwrap_or(&Distance::Dot);
        let dimension = self.0.random_range(1..6);
        let mut spec = CollectionSpec::dense(name(text), dimension, distance)
            .with_vector(
                vector_name("second"),
                VectorSpec::Dense { dimension: 3, distance: Distance::Euclidean },
            )
            .with_vector(vector_name("sparse"), VectorSpec::Sparse);
        let kinds = [
            ("k", PayloadIndex::Keyword),
            ("i", PayloadIndex::Integer),
            ("f", PayloadIndex::Float),
            ("b", PayloadIndex::Bool),
            ("t", PayloadIndex::Datetime),
            ("o.k", PayloadIndex::Keyword),
        ];
        for (path, kind) in kinds {
            spec = spec.with_payload_index(payload_path(path), kind);
        }
        spec
    }

    /// An id out of a few, so that points meet again.
    pub fn id(&mut self) -> PointId {
        match self.0.random_range(0..10) {
            0 => PointId::Num(u64::MAX - self.0.random_range(0..3)),
            1..=3 => PointId::Uuid(Uuid::from_u128(u128::from(self.0.random_range(0..6_u64)) << 60)),
            _ => PointId::Num(self.0.random_range(0..20)),
        }
    }

    /// A dense vector of numbers that are neither tiny nor huge.
    pub fn dense(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.0.random_range(-4_i32..=4) as f32 * 0.5 + 0.25).collect()
    }

    fn sparse(&mut self) -> SparseVector {
        let indices: Vec<u32> = (0..12).filter(|_| self.0.random_bool(0.3)).collect();
        let values = indices.iter().map(|_| self.0.random_range(-2.0..2.0)).collect();
        SparseVector { indices, values }
    }

    /// A point that the collection admits; it may lack vectors.
    #[expect(clippy::expect_used, reason = "what is generated fits the spec")]
    pub fn point(&mut self, spec: &CollectionSpec) -> Point {
        let mut point = Point { vectors: Default::default(), ..Point::new(self.id(), Vec::new()) };
        for (name, vector) in &spec.vectors {
            if self.0.random_bool(0.85) {
                let vector = match vector {
                    VectorSpec::Dense { dimension, .. } => Vector::Dense(self.dense(*dimension)),
                    VectorSpec::Sparse => Vector::Sparse(self.sparse()),
                };
                point.vectors.insert(name.clone(), vector);
            }
        }
        point.payload = self.payload();
        point.text = self.0.random_bool(0.5).then(|| WORDS[self.0.random_range(0..4)].to_owned());
        spec.admit(point).expect("a good point")
    }

    fn value(&mut self) -> Value {
        match self.0.random_range(0..12) {
            0 => Value::Null,
            1 => json!(self.0.random_bool(0.5)),
            2 | 3 => json!(self.0.random_range(-3..4)),
            4 => json!(f64::from(self.0.random_range(-6..7)) * 0.5),
            5 => json!(u64::MAX),
            6 => json!(TIMES.choose(&mut self.0)),
            7 => Value::Array((0..self.0.random_range(0..3)).map(|_| self.value()).collect()),
            8 => json!({ "k": self.0.random_range(0..3) }),
            _ => json!(WORDS.choose(&mut self.0)),
        }
    }

    /// A payload with values of right and wrong types at the indexed paths and elsewhere.
    pub fn payload(&mut self) -> Payload {
        let mut payload = Payload::new();
        for key in ["k", "i", "f", "b", "t", "o", "free"] {
            if self.0.random_bool(0.6) {
                let value = if key == "o" {
                    json!({ "k": self.value(), "l": [{ "m": self.value() }] })
                } else {
                    self.value()
                };
                payload.insert(key.to_owned(), value);
            }
        }
        payload
    }

    fn scalar(&mut self, strings: bool) -> Scalar {
        if strings {
            Scalar::Str(WORDS[self.0.random_range(0..4)].to_owned())
        } else {
            Scalar::Int(self.0.random_range(-3..4))
        }
    }

    fn condition(&mut self, depth: usize) -> Condition {
        let path = match self.0.random_range(0..10) {
            0 => payload_path("o.l[].m"),
            1 => payload_path("free[0]"),
            _ => payload_path(KEYS[self.0.random_range(0..KEYS.len())]),
        };
        let strings = self.0.random_bool(0.5);
        let test =
            match self.0.random_range(0..10) {
                0 => return Condition::IsEmpty(path),
                1 => return Condition::IsNull(path),
                2 => return Condition::HasId((0..self.0.random_range(0..5)).map(|_| self.id()).collect()),
                3 if depth > 0 => return Condition::Filter(Box::new(self.filter(depth - 1))),
                4 => FieldTest::Match(Match::Any(
                    (0..self.0.random_range(0..3)).map(|_| self.scalar(strings)).collect(),
                )),
                5 => FieldTest::Match(Match::Except(
                    (0..self.0.random_range(0..3)).map(|_| self.scalar(strings)).collect(),
                )),
                6 => FieldTest::Range(self.range(|g| f64::from(g.0.random_range(-6..7)) * 0.5)),
                7 => FieldTest::Datetime(self.range(|g| {
                    crate::filter::parse_datetime(TIMES[g.0.random_range(0..3)]).unwrap_or_default()
                })),
                8 => FieldTest::Match(Match::Value(Scalar::Bool(strings))),
                _ => FieldTest::Match(Match::Value(self.scalar(strings))),
            };
        Condition::Field { path, test }
    }

    fn range<T>(&mut self, mut bound: impl FnMut(&mut Self) -> T) -> Range<T> {
        let mut maybe = |g: &mut Self| if g.0.random_bool(0.4) { Some(bound(g)) } else { None };
        Range { gt: maybe(self), gte: maybe(self), lt: maybe(self), lte: maybe(self) }
    }

    /// A filter of every kind of condition.
    pub fn filter(&mut self, depth: usize) -> Filter {
        let mut clause =
            |most: usize| (0..self.0.random_range(0..=most)).map(|_| self.condition(depth)).collect();
        Filter { must: clause(2), should: clause(2), must_not: clause(1) }
    }

    /// A random history over collections that come and go.
    pub fn history(&mut self, steps: usize) -> Script {
        let mut script = Script::new(1);
        let mut alive: Vec<(CollectionSpec, CollectionRef)> = Vec::new();
        for step in 0..steps {
            if alive.is_empty() || (alive.len() < 3 && step % 7 == 3) {
                let free =
                    ["a", "b", "c"].into_iter().find(|n| alive.iter().all(|(s, _)| s.name.as_str() != *n));
                let spec = self.spec(free.unwrap_or("a"));
                let collection = script.create(&spec);
                alive.push((spec, collection));
                continue;
            }
            let at = self.0.random_range(0..alive.len());
            let (spec, collection) = alive[at].clone();
            let ids: Vec<PointId> = (0..self.0.random_range(1..4)).map(|_| self.id()).collect();
            let ids = crate::query::unique_ids(&ids);
            match self.0.random_range(0..20) {
                0 => {
                    alive.remove(at);
                    script.push(Op::DropCollection(collection));
                }
                1..=3 => {
                    script.push(Op::Delete { collection, ids });
                }
                4..=7 => {
                    let patch = match self.0.random_range(0..3) {
                        0 => PayloadPatch::Set(self.payload()),
                        1 => PayloadPatch::Overwrite(self.payload()),
                        _ => PayloadPatch::Delete(vec![
                            payload_path("k"),
                            payload_path("o.k"),
                            payload_path("o.l[].m"),
                        ]),
                    };
                    script.push(Op::PatchPayload { collection, ids, patch });
                }
                _ => {
                    let mut points: Vec<Point> =
                        (0..self.0.random_range(1..6)).map(|_| self.point(&spec)).collect();
                    points.sort_by_key(|point| point.id);
                    points.dedup_by_key(|point| point.id);
                    script.upsert(&collection, points);
                }
            }
        }
        script
    }
}

#[expect(clippy::expect_used, reason = "the suite's own names are good")]
pub(super) fn vector_name(text: &str) -> VectorName {
    VectorName::new(text).expect("a good name")
}

#[expect(clippy::expect_used, reason = "the suite's own paths are good")]
pub(super) fn payload_path(text: &str) -> PayloadPath {
    text.parse().expect("a good path")
}
