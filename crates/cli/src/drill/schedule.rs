//! Which fault comes next.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::lose_server::Fault;

/// The faults of a drill, one after the other.
pub struct Schedule {
    faults: Vec<Fault>,
    order: Order,
}

enum Order {
    InTurn { next: usize, end: usize },
    AtRandom { until: Instant, random: SmallRng },
}

impl Schedule {
    /// So many faults, these in turn.
    pub fn in_turn(rounds: usize, faults: Vec<Fault>) -> Self {
        Self { faults, order: Order::InTurn { next: 0, end: rounds } }
    }

    /// These faults in an order that follows from a seed, none of which begins later than this from now.
    pub fn at_random(faults: Vec<Fault>, seed: u64, lasting: Duration) -> Self {
        let (until, random) = (Instant::now() + lasting, SmallRng::seed_from_u64(seed));
        Self { faults, order: Order::AtRandom { until, random } }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        match &mut self.order {
            Order::InTurn { next, end } if *next < *end => {
                let at = *next % self.faults.len().max(1);
                *next += 1;
                self.faults.get(at).copied()
            }
            Order::AtRandom { until, random } if Instant::now() < *until => {
                self.faults.choose(random).copied()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_turn_or_as_the_seed_says() {
        let two = vec![Fault::Kill, Fault::Freeze];
        let turns: Vec<_> = Schedule::in_turn(3, two.clone()).collect();
        assert_eq!(turns, [Fault::Kill, Fault::Freeze, Fault::Kill]);
        assert_eq!(Schedule::in_turn(3, Vec::new()).next(), None);
        let random = |seed| {
            let schedule = Schedule::at_random(Fault::ALL.to_vec(), seed, Duration::from_secs(3600));
            schedule.take(50).collect::<Vec<_>>()
        };
        assert_eq!(random(1), random(1));
        assert_ne!(random(1), random(2));
        assert_eq!(Schedule::at_random(two, 1, Duration::ZERO).next(), None);
    }
}
