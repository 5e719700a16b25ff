//! What is to be done next, so that the servers that were named are the members, and each of them answers.

use std::collections::BTreeSet;

use super::ClusterError;
use crate::names::ServerName;
use crate::servers::member::{Place, Seat, Voice};

/// One step. Each is safe to be cut off and to be taken again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member that does not answer is started again.
    Mend(Seat, Place),
    /// A server becomes one more member.
    Add(Place),
    /// A member that has caught up with the others gets its voice.
    Promote(Seat, Place),
    /// A member is one no more.
    Remove(Seat),
}

/// The servers that were named, when an etcd can be made of them.
///
/// # Errors
/// Of how many none can, and one that is named twice.
pub fn check(servers: &[ServerName]) -> Result<(), ClusterError> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = servers.iter().find(|server| !seen.insert(*server)) {
        return Err(ClusterError::Twice(twice.clone()));
    }
    match servers.len() {
        1 | 3 | 5 => Ok(()),
        count => Err(ClusterError::Count(count)),
    }
}

/// The next step towards these members; `None` when it is done. Whoever is lost goes before others come, because it
/// counts among those of whom most must answer; whoever is well goes after they have come, and who leads goes last.
pub fn next(wanted: &[Place], seats: &[Seat]) -> Option<Step> {
    let at = |seat: &Seat| wanted.iter().find(|place| seat.is_at(place)).cloned();
    // There is one learner at a time. One that never came up may have lost its way: it begins again.
    if let Some(learner) = seats.iter().find(|seat| seat.voice == Voice::Learner) {
        return match at(learner).filter(|_| learner.name.is_some()) {
            Some(place) => Some(Step::Promote(learner.clone(), place)),
            None => Some(Step::Remove(learner.clone())),
        };
    }
    if let Some(lost) = seats.iter().find(|seat| !seat.is_healthy() && at(seat).is_none()) {
        return Some(Step::Remove(lost.clone()));
    }
    if let Some((seat, place)) =
        seats.iter().filter(|seat| !seat.is_healthy()).find_map(|seat| at(seat).map(|place| (seat, place)))
    {
        return Some(Step::Mend(seat.clone(), place));
    }
    if let Some(place) = wanted.iter().find(|place| !seats.iter().any(|seat| seat.is_at(place))) {
        return Some(Step::Add(place.clone()));
    }
    let mut leave: Vec<&Seat> = seats.iter().filter(|seat| at(seat).is_none()).collect();
    leave.sort_by_key(|seat| seat.leads());
    leave.first().map(|seat| Step::Remove((*seat).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::member::Health;

    fn places(numbers: &[u8]) -> Vec<Place> {
        let place =
            |number: &u8| Place { server: format!("s{number}").parse().unwrap(), ip: [10, 0, 0, *number].into() };
        numbers.iter().map(place).collect()
    }

    /// `1!` leads, `1` follows, `1x` is away, `1?` learns, `1-` learns and was never heard of.
    fn seats(text: &str) -> Vec<Seat> {
        let seat = |word: &str| {
            let number: u8 = word.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            let mark = word.trim_start_matches(|c: char| c.is_ascii_digit());
            let place = places(&[number]).remove(0);
            Seat {
                id: number.into(),
                name: (mark != "-").then(|| place.server.to_string()),
                peer: place.peer(),
                voice: if ["?", "-"].contains(&mark) { Voice::Learner } else { Voice::Voter },
                health: match mark {
                    "x" | "-" => Health::Away { why: "it is off".into() },
                    _ => Health::Healthy { leads: mark == "!", version: "3.4.23".into(), bytes: 1 },
                },
            }
        };
        text.split_whitespace().map(seat).collect()
    }

    fn check_next(wanted: &[u8], found: &str, expected: &str) {
        let step = match next(&places(wanted), &seats(found)) {
            None => "done".to_owned(),
            Some(Step::Mend(_, place)) => format!("mend {}", place.server),
            Some(Step::Add(place)) => format!("add {}", place.server),
            Some(Step::Promote(_, place)) => format!("promote {}", place.server),
            Some(Step::Remove(seat)) => format!("remove {}", seat.id),
        };
        assert_eq!(step, expected, "{wanted:?} of {found}");
    }

    #[test]
    fn a_cluster_grows_and_shrinks_by_one_member_at_a_time() {
        check_next(&[1], "1!", "done");
        check_next(&[1, 2, 3], "1!", "add s2");
        check_next(&[1, 2, 3], "1! 2?", "promote s2");
        check_next(&[1, 2, 3], "1! 2", "add s3");
        check_next(&[1, 2, 3], "1! 2 3", "done");
        check_next(&[2], "1! 2 3", "remove 3");
        check_next(&[2], "1! 2", "remove 1");
    }

    #[test]
    fn the_lost_go_first_and_the_well_go_last() {
        check_next(&[1, 3, 4], "1! 2x 3", "remove 2");
        check_next(&[1, 3, 4], "1! 3", "add s4");
        check_next(&[1, 3, 4], "1! 2 3", "add s4");
        check_next(&[1, 3, 4], "1! 2 3 4", "remove 2");
        check_next(&[4], "1!", "add s4");
    }

    #[test]
    fn what_was_left_half_done_is_mended_before_anything_else() {
        check_next(&[1, 2, 3], "1! 2x 3", "mend s2");
        check_next(&[1, 2, 3], "1! 2-", "remove 2");
        check_next(&[1, 3, 4], "1! 2?", "remove 2");
        check_next(&[1, 2, 3], "1! 2x 3?", "promote s3");
    }

    #[test]
    fn only_odd_numbers_of_different_servers_make_an_etcd() {
        let named = |text: &str| text.split_whitespace().map(|name| name.parse().unwrap()).collect::<Vec<ServerName>>();
        for good in ["a", "a b c", "a b c d e"] {
            assert!(check(&named(good)).is_ok(), "{good}");
        }
        for (bad, expected) in [("a b", "and not 2"), ("a b c d", "and not 4"), ("a b a", "`a` is named twice")] {
            let error = check(&named(bad)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
