//! Scores and their order, the same for every store that computes its own.

use std::cmp::Ordering;

use crate::id::PointId;
use crate::point::Vector;
use crate::spec::{Distance, VectorSpec};

/// Independent sums that a compiler keeps in vector registers.
const LANES: usize = 16;

fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| term(*x, *y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// The score of two dense vectors of one length; cosine takes them as normalised.
pub fn dense(distance: Distance, a: &[f32], b: &[f32]) -> f32 {
    match distance {
        Distance::Cosine | Distance::Dot => sum_pairs(a, b, |x, y| x * y),
        Distance::Euclidean => sum_pairs(a, b, |x, y| (x - y) * (x - y)).sqrt(),
        Distance::Manhattan => sum_pairs(a, b, |x, y| (x - y).abs()),
    }
}

/// The score of two vectors of one kind; `None` if a hit is impossible: the kinds differ, or two
/// sparse vectors share no dimension.
pub fn score(spec: VectorSpec, a: &Vector, b: &Vector) -> Option<f32> {
    match (spec, a, b) {
        (VectorSpec::Dense { distance, .. }, Vector::Dense(a), Vector::Dense(b)) if a.len() == b.len() => {
            Some(dense(distance, a, b))
        }
        (VectorSpec::Sparse, Vector::Sparse(a), Vector::Sparse(b)) => a.overlaps(b).then(|| a.dot(b)),
        _ => None,
    }
}

/// Whether a higher score is nearer.
pub const fn higher_is_nearer(spec: VectorSpec) -> bool {
    match spec {
        VectorSpec::Dense { distance, .. } => distance.higher_is_nearer(),
        VectorSpec::Sparse => true,
    }
}

/// The order of hits: nearest first, equals by id.
pub fn order(spec: VectorSpec, a: (f32, PointId), b: (f32, PointId)) -> Ordering {
    let by_score = if higher_is_nearer(spec) { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) };
    by_score.then(a.1.cmp(&b.1))
}

/// Whether a score is at least as near as a threshold.
pub fn passes(spec: VectorSpec, score: f32, threshold: Option<f32>) -> bool {
    threshold.is_none_or(|bound| if higher_is_nearer(spec) { score >= bound } else { score <= bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_the_formulas_say() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..37).map(|i| (i % 5) as f32).collect();
        let pairs = || a.iter().zip(&b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
        let near = |got: f32, wanted: f64| {
            assert!((f64::from(got) - wanted).abs() <= wanted.abs() * 1e-6, "{got} {wanted}")
        };
        near(dense(Distance::Dot, &a, &b), pairs().map(|(x, y)| x * y).sum());
        near(dense(Distance::Euclidean, &a, &b), pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt());
        near(dense(Distance::Manhattan, &a, &b), pairs().map(|(x, y)| (x - y).abs()).sum());
    }

    #[test]
    fn nearest_comes_first_and_equals_by_id() {
        let spec = |distance| VectorSpec::Dense { dimension: 1, distance };
        let (one, two) = (PointId::Num(1), PointId::Num(2));
        assert_eq!(order(spec(Distance::Dot), (2.0, two), (1.0, one)), Ordering::Less);
        assert_eq!(order(spec(Distance::Manhattan), (2.0, two), (1.0, one)), Ordering::Greater);
        assert_eq!(order(spec(Distance::Dot), (1.0, two), (1.0, one)), Ordering::Greater);
    }
}
