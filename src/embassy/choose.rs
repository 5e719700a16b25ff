//! Which endpoint gets a connection.

use super::table::Health;
use crate::units::Balance;

/// What is known of an endpoint at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it counts.
    pub health: Health,
    /// What became of the latest attempts.
    pub standing: Standing,
    /// Open connections, those that are being made included.
    pub open: usize,
}

/// What became of the latest attempts to connect to an endpoint; better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is held against it.
    Ready,
    /// It did not accept somebody else's connection a moment ago: it comes after those that do.
    Resting,
    /// It did not accept this connection.
    Tried,
}

/// The place of the endpoint for a connection: a healthy one, or any while none is healthy; `None` when each of these
/// has been tried. `turn` goes up by one with every choice of a port, whichever thread makes it.
pub fn choose(balance: Balance, turn: usize, candidates: &[Candidate]) -> Option<usize> {
    let is_healthy = |candidate: &Candidate| candidate.health == Health::Healthy;
    let only_healthy = candidates.iter().any(is_healthy);
    let counts = |candidate: &Candidate| !only_healthy || is_healthy(candidate);
    let counted = || candidates.iter().enumerate().filter(|(_, candidate)| counts(candidate));
    let best = counted().map(|(_, candidate)| candidate.standing).min().filter(|best| *best != Standing::Tried)?;
    let good = || counted().filter(move |(_, candidate)| candidate.standing == best);
    // Equals take turns among themselves: so who comes after one that is passed over does not get its share as well.
    let in_turn = |number: usize, those: &mut dyn Iterator<Item = usize>| those.nth(turn % number);
    match balance {
        Balance::RoundRobin => in_turn(good().count(), &mut good().map(|(place, _)| place)),
        Balance::LeastConnections => {
            let least = good().map(|(_, candidate)| candidate.open).min()?;
            let least = || good().filter(move |(_, candidate)| candidate.open == least);
            in_turn(least().count(), &mut least().map(|(place, _)| place))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GOOD: Candidate = Candidate { health: Health::Healthy, standing: Standing::Ready, open: 0 };
    const SICK: Candidate = Candidate { health: Health::Unhealthy, ..GOOD };
    const RESTING: Candidate = Candidate { standing: Standing::Resting, ..GOOD };
    const TRIED: Candidate = Candidate { standing: Standing::Tried, ..GOOD };

    fn check(balance: Balance, candidates: &[Candidate], expected: &[Option<usize>]) {
        let found: Vec<Option<usize>> = (0..expected.len()).map(|turn| choose(balance, turn, candidates)).collect();
        assert_eq!(found, expected, "{candidates:?}");
    }

    #[test]
    fn equals_take_turns_and_who_does_not_count_is_passed_over() {
        use Balance::RoundRobin;
        check(RoundRobin, &[], &[None]);
        check(RoundRobin, &[GOOD, GOOD, GOOD], &[Some(0), Some(1), Some(2), Some(0)]);
        check(RoundRobin, &[GOOD, SICK, GOOD], &[Some(0), Some(2), Some(0)]);
        check(RoundRobin, &[GOOD, RESTING, TRIED], &[Some(0), Some(0)]);
        check(RoundRobin, &[TRIED, RESTING], &[Some(1), Some(1)]);
        check(RoundRobin, &[TRIED, SICK], &[None]);
        check(RoundRobin, &[SICK, SICK], &[Some(0), Some(1)]);
        check(RoundRobin, &[SICK, Candidate { standing: Standing::Tried, ..SICK }], &[Some(0), Some(0)]);
    }

    #[test]
    fn the_one_with_the_fewest_connections_is_next_and_ties_take_turns() {
        use Balance::LeastConnections;
        let with = |open| Candidate { open, ..GOOD };
        check(LeastConnections, &[with(2), with(1), with(1)], &[Some(1), Some(2), Some(1)]);
        check(LeastConnections, &[with(2), Candidate { open: 0, ..RESTING }], &[Some(0)]);
        check(LeastConnections, &[with(2), SICK], &[Some(0)]);
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy)];
        let standing = prop_oneof![Just(Standing::Ready), Just(Standing::Resting), Just(Standing::Tried)];
        (health, standing, 0_usize..4).prop_map(|(health, standing, open)| Candidate { health, standing, open })
    }

    proptest! {
        #[test]
        fn nobody_is_chosen_whom_a_better_one_stands_beside(
            candidates in vec(candidate(), 0..9),
            turn in any::<usize>(),
            least in any::<bool>(),
        ) {
            let balance = if least { Balance::LeastConnections } else { Balance::RoundRobin };
            let any_healthy = candidates.iter().any(|one| one.health == Health::Healthy);
            let pool: Vec<&Candidate> =
                candidates.iter().filter(|one| !any_healthy || one.health == Health::Healthy).collect();
            match choose(balance, turn, &candidates).map(|place| &candidates[place]) {
                None => prop_assert!(pool.iter().all(|one| one.standing == Standing::Tried)),
                Some(chosen) => {
                    prop_assert!(pool.contains(&chosen) && chosen.standing != Standing::Tried);
                    let equals = || pool.iter().filter(|one| one.standing == chosen.standing);
                    prop_assert!(pool.iter().all(|one| one.standing >= chosen.standing));
                    prop_assert!(!least || equals().all(|one| one.open >= chosen.open));
                }
            }
        }

        #[test]
        fn equals_get_equally_many(count in 1_usize..9, rounds in 1_usize..9, others in vec(Just(SICK), 0..3)) {
            let candidates: Vec<Candidate> = vec![GOOD; count].into_iter().chain(others).collect();
            let mut got = vec![0; count];
            for turn in 0..count * rounds {
                got[choose(Balance::RoundRobin, turn, &candidates).unwrap()] += 1;
            }
            prop_assert_eq!(got, vec![rounds; count]);
        }
    }
}
