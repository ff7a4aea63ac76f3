//! When two answers to one exact search are the same answer.

use std::collections::BTreeMap;

use mainstay::Hit;

/// Scores of two backends may differ by this much: sums of floats in another order.
const SCORES: f32 = 1e-5;

/// Where the hits of a search for `limit` points differ from those that are expected; `None` if the scores are the same,
/// and the ids wherever no other score is as near. To tell whether the last hit is tied with one that was
/// left out, `expected` is one hit longer than `limit` if there are so many.
pub fn difference(expected: &[Hit], found: &[Hit], limit: usize) -> Option<String> {
    let near = |x: f32, y: f32| (x - y).abs() <= SCORES;
    if found.len() != expected.len().min(limit) {
        return Some(format!("{} hits instead of {}", found.len(), expected.len().min(limit)));
    }
    let scores: BTreeMap<_, _> = expected.iter().map(|hit| (hit.point.id, hit.score)).collect();
    expected.iter().zip(found).enumerate().find_map(|(at, (want, have))| {
        if !near(want.score, have.score) {
            return Some(format!("hit {at} has the score {} instead of {}", have.score, want.score));
        }
        let tied = expected.iter().enumerate().any(|(other, hit)| other != at && near(hit.score, want.score));
        let id = have.point.id;
        let same =
            id == want.point.id || (tied && scores.get(&id).is_none_or(|score| near(*score, have.score)));
        (!same).then(|| format!("hit {at} is point {id} instead of {}", want.point.id))
    })
}

#[cfg(test)]
mod tests {
    use mainstay::{Hit, Point};

    use super::*;

    fn hits(list: &[(u64, f32)]) -> Vec<Hit> {
        list.iter()
            .map(|(id, score)| Hit {
                point: Point::new(*id, vec![]),
                version: mainstay::Lsn(1),
                score: *score,
            })
            .collect()
    }

    #[test]
    fn only_tied_hits_may_change_places() {
        let expected = hits(&[(1, 0.9), (2, 0.5), (3, 0.5), (4, 0.4)]);
        let same = |found: &[(u64, f32)]| difference(&expected, &hits(found), 3).is_none();
        assert!(same(&[(1, 0.9), (2, 0.5), (3, 0.5)]));
        assert!(same(&[(1, 0.9), (3, 0.500_001), (2, 0.5)]));
        assert!(!same(&[(2, 0.9), (1, 0.5), (3, 0.5)]), "another point");
        assert!(!same(&[(1, 0.9), (2, 0.5), (4, 0.5)]), "a point that is known to be further away");
        assert!(!same(&[(1, 0.9), (2, 0.5), (3, 0.4)]), "another score");
        assert!(!same(&[(1, 0.9), (2, 0.5)]), "too few");
    }
}
