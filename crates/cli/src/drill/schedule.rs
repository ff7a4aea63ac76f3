//! Which fault comes next.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::lose_server::Fault;

/// These faults in turn, without an end.
pub fn in_turn(faults: Vec<Fault>) -> impl Iterator<Item = Fault> + Send {
    faults.into_iter().cycle()
}

/// These faults in an order that follows from a seed, without an end.
pub fn at_random(faults: Vec<Fault>, seed: u64) -> impl Iterator<Item = Fault> + Send {
    let mut random = SmallRng::seed_from_u64(seed);
    std::iter::from_fn(move || faults.choose(&mut random).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_turn_or_as_the_seed_says() {
        let turns: Vec<_> = in_turn(vec![Fault::Kill, Fault::Freeze]).take(3).collect();
        assert_eq!(turns, [Fault::Kill, Fault::Freeze, Fault::Kill]);
        assert_eq!(in_turn(Vec::new()).next(), None);
        let random = |seed| at_random(Fault::ALL.to_vec(), seed).take(50).collect::<Vec<_>>();
        assert_eq!(random(1).len(), 50);
        assert_eq!(random(1), random(1));
        assert_ne!(random(1), random(2));
        assert_eq!(at_random(Vec::new(), 1).next(), None);
    }
}
