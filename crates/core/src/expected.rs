//! What a store is about to be given: how many points, and what they are like.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::id::PointId;
use crate::point::Point;
use crate::query::{Fields, ScrollQuery};
use crate::spec::CollectionSpec;
use crate::store::{CollectionInfo, Context, VectorStore};

/// Most points in a sample: enough for an average, few enough to hold whatever their size.
pub const MAX_SAMPLE: usize = 256;
/// Hashes of ids that a count remembers; up to so many it is exact.
const MAX_HASHES: usize = 1 << 16;

/// The points of one collection that a store is about to be given.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The collection.
    pub spec: CollectionSpec,
    /// How many points there are.
    pub points: u64,
    /// Some of the points, whose average stands for all of them.
    pub sample: Vec<Arc<Point>>,
}

/// The points of these collections of a store, with a sample of each: its first points.
///
/// # Errors
/// Whatever the store runs into.
pub async fn of_store<S: VectorStore + ?Sized>(
    store: &S,
    collections: &[CollectionInfo],
    cx: impl Fn() -> Context,
) -> Result<Vec<Expected>> {
    let mut expected = Vec::new();
    for info in collections {
        let query = ScrollQuery { limit: MAX_SAMPLE, fields: Fields::ALL, ..ScrollQuery::default() };
        let page = match store.scroll(&cx(), &info.spec.name, &query).await {
            Ok(page) => page,
            // Dropped meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let sample = page.records.into_iter().map(|record| Arc::new(record.point)).collect();
        expected.push(Expected { spec: info.spec.clone(), points: info.points, sample });
    }
    Ok(expected)
}

/// Counts the different points of a stream and keeps a sample of them, in little memory however many come.
///
/// Up to 65,536 points the count is exact. Beyond that only ids whose hash ends in some zeros are remembered, as many
/// zeros as it takes; the count is then right to about half a percent.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    hashes: HashSet<u64>,
    /// Only hashes that end in so many zeros are remembered.
    zeros: u32,
    sample: Vec<Arc<Point>>,
    seen: u64,
    /// Every how many points one comes into the sample; 0 before the first.
    stride: u64,
}

impl Survey {
    /// Takes note of a point; one that was there before, by its id, is not counted again.
    pub fn add(&mut self, point: &Arc<Point>) {
        let hash = hash(point.id);
        if self.remembers(hash) && self.hashes.insert(hash) && self.hashes.len() > MAX_HASHES {
            self.zeros += 1;
            let zeros = self.zeros;
            self.hashes.retain(|hash| hash.trailing_zeros() >= zeros);
        }
        self.stride = self.stride.max(1);
        if self.seen.is_multiple_of(self.stride) {
            self.sample.push(Arc::clone(point));
            if self.sample.len() > MAX_SAMPLE {
                let mut at = 0_u32;
                self.sample.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride *= 2;
            }
        }
        self.seen += 1;
    }

    /// A point is gone.
    pub fn remove(&mut self, id: PointId) {
        self.hashes.remove(&hash(id));
    }

    /// How many different points there are.
    pub fn points(&self) -> u64 {
        (self.hashes.len() as u64) << self.zeros
    }

    /// What was seen, as a store wants it.
    pub fn expected(self, spec: CollectionSpec) -> Expected {
        Expected { spec, points: self.points(), sample: self.sample }
    }

    fn remembers(&self, hash: u64) -> bool {
        hash.trailing_zeros() >= self.zeros
    }
}

fn hash(id: PointId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(id: u64) -> Arc<Point> {
        Arc::new(Point::new(id, vec![1.0]))
    }

    fn survey(ids: impl Iterator<Item = u64>) -> Survey {
        let mut survey = Survey::default();
        ids.for_each(|id| survey.add(&point(id)));
        survey
    }

    #[test]
    fn few_points_are_counted_exactly_and_each_once() {
        let mut few = survey((0..5_000).chain(2_000..6_000));
        assert_eq!(few.points(), 6_000);
        (0..1_000).chain(0..1_000).for_each(|id| few.remove(id.into()));
        assert_eq!(few.points(), 5_000);
    }

    #[test]
    fn many_points_are_counted_to_two_percent_in_bounded_memory() {
        let mut many = survey((0..300_000).chain(100_000..300_000));
        let near = |points: u64, wanted: f64| (points as f64 / wanted - 1.0).abs() < 0.02;
        assert!(near(many.points(), 300_000.0), "{}", many.points());
        assert!(many.hashes.len() <= MAX_HASHES);
        (0..100_000).for_each(|id| many.remove(id.into()));
        assert!(near(many.points(), 200_000.0), "{}", many.points());
    }

    #[test]
    fn a_sample_is_spread_over_all_that_came() {
        let sample = survey(0..10_000).sample;
        assert!((MAX_SAMPLE / 2..=MAX_SAMPLE).contains(&sample.len()), "{}", sample.len());
        let late = sample.iter().filter(|point| point.id >= PointId::Num(5_000)).count();
        assert!(late * 3 > sample.len(), "{late} of {}", sample.len());
    }
}
