//! Whether containers that have come up are still healthy. Each is asked what its node's `health:` says, on and on; one that
//! has failed too often in a row is sick until it answers again: it gets nobody new, and is made anew. [`act`] asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::names::{ContainerName, ServerName};
use crate::stack::Health;

pub mod act;

/// Between two looks at which containers there are; nothing is asked more often.
pub const ROUND: Duration = Duration::from_secs(5);

/// A container on its server.
pub type Place = (ServerName, ContainerName);

/// What has been found of every container that is asked.
#[derive(Debug, Default)]
pub struct Checkups(BTreeMap<Place, Record>);

#[derive(Debug)]
struct Record {
    /// Since when it has been asked.
    since: Instant,
    due: Instant,
    /// Whether it has ever been well: what is still coming up is given its time.
    settled: bool,
    failures: u32,
    is_sick: bool,
}

impl Checkups {
    /// These are there now. What is new is asked at once, what is gone is forgotten.
    pub fn admit(&mut self, present: impl Iterator<Item = Place>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        let new = || Record { since: now, due: now, settled: false, failures: 0, is_sick: false };
        self.0 = present.map(|place| (place.clone(), before.remove(&place).unwrap_or_else(new))).collect();
    }

    /// Whether it is time to ask one; then it is not until its check's interval is over.
    pub fn is_due(&mut self, place: &Place, health: &Health, now: Instant) -> bool {
        let Some(record) = self.0.get_mut(place).filter(|record| record.due <= now) else { return false };
        // Rounds come a little early or late.
        record.due = now + health.interval.duration().max(ROUND) - ROUND / 2;
        true
    }

    /// What one has answered. Whether it counts as sick now and did not, or the other way round.
    pub fn note(&mut self, place: &Place, health: &Health, is_well: bool, now: Instant) -> bool {
        let Some(record) = self.0.get_mut(place) else { return false };
        let was_sick = record.is_sick;
        if is_well {
            (record.settled, record.failures, record.is_sick) = (true, 0, false);
        } else if record.settled || now >= record.since + health.start.duration() {
            record.failures += 1;
            record.is_sick = record.failures >= health.retries.max(1);
        }
        was_sick != record.is_sick
    }

    /// Those that are sick.
    pub fn sick(&self) -> BTreeSet<Place> {
        self.0.iter().filter(|(_, record)| record.is_sick).map(|(place, _)| place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::sample::name;
    use crate::stack::Probe;
    use crate::units::Millis;

    fn place(container: &str) -> Place {
        (name("s1"), name(container))
    }

    fn health() -> Health {
        Health { retries: 2, start: Millis::seconds(60), ..Health::of(Probe::Listening) }
    }

    #[test]
    fn one_is_sick_after_so_many_failures_in_a_row_until_it_answers_again() {
        let (now, one) = (Instant::now(), place("blog.web.1.1"));
        let mut checkups = Checkups::default();
        checkups.admit([one.clone()].into_iter(), now);
        let mut note = |is_well| {
            let changed = checkups.note(&one, &health(), is_well, now);
            (changed, checkups.sick().contains(&one))
        };
        assert_eq!(note(true), (false, false));
        assert_eq!(note(false), (false, false));
        assert_eq!(note(true), (false, false));
        assert_eq!(note(false), (false, false), "the failures are in a row");
        assert_eq!(note(false), (true, true));
        assert_eq!(note(false), (false, true));
        assert_eq!(note(true), (true, false));
    }

    #[test]
    fn what_comes_up_has_its_time_and_what_is_gone_is_forgotten() {
        let (now, one) = (Instant::now(), place("blog.web.1.1"));
        let mut checkups = Checkups::default();
        checkups.admit([one.clone()].into_iter(), now);
        let fail = |checkups: &mut Checkups, seconds: u64| {
            let at = now + Duration::from_secs(seconds);
            checkups.note(&one, &health(), false, at)
        };
        assert!([1, 30, 59].iter().all(|seconds| !fail(&mut checkups, *seconds)));
        assert!(!fail(&mut checkups, 61) && fail(&mut checkups, 66));
        checkups.admit([place("blog.web.1.2")].into_iter(), now);
        assert_eq!(checkups.sick(), BTreeSet::new());
        checkups.admit([one.clone()].into_iter(), now);
        assert!(!fail(&mut checkups, 1), "it begins anew");
    }

    #[test]
    fn nothing_is_asked_more_often_than_its_check_says_and_nothing_each_moment() {
        let (now, one) = (Instant::now(), place("blog.web.1.1"));
        for (interval, expected) in [(Millis(500), [0, 5, 10, 15]), (Millis::seconds(10), [0, 10, 20, 30])] {
            let health = Health { interval, ..health() };
            let mut checkups = Checkups::default();
            checkups.admit([one.clone()].into_iter(), now);
            let at = |seconds: &u64| now + Duration::from_secs(*seconds);
            let asked: Vec<u64> = (0..=30).step_by(5).filter(|s| checkups.is_due(&one, &health, at(s))).collect();
            assert_eq!(asked[..4], expected);
        }
    }
}
