//! Who may knock: how many strangers at once, and how often one address may fail.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The limits for those who are not let in yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failed visits one address may make in a row.
    pub failures: u32,
    /// Time after which one failed visit is forgotten.
    pub forgive: Duration,
    /// Visitors of unknown name at once; one more, and the one who has waited longest goes.
    pub strangers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { failures: 20, forgive: Duration::from_secs(3), strangers: 200 }
    }
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit(u64);

/// What is done with somebody who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Come in; the other visit, if any, has to go for it.
    Enter(Visit, Option<Visit>),
    /// Failed too often.
    Refuse,
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They were known, or never tried.
    Fair,
    /// They offered keys, none of them known, or kept the door open without a word.
    Failed,
}

/// Addresses remembered at once; beyond it the one that failed longest ago is forgotten.
const MEMORY: usize = 10_000;

/// Counts those who knock. A token bucket per address: [`Limits::failures`] deep, one token back per
/// [`Limits::forgive`].
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    next: u64,
    strangers: BTreeMap<Visit, IpAddr>,
    /// Per address, the time at which all its failures will be forgiven.
    forgiven: BTreeMap<IpAddr, Instant>,
}

impl Guard {
    /// A guard who has seen nobody.
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: 0, strangers: BTreeMap::new(), forgiven: BTreeMap::new() }
    }

    /// Somebody knocks.
    pub fn arrive(&mut self, address: IpAddr, now: Instant) -> Verdict {
        let address = neighbourhood(address);
        let debt = self.forgiven.get(&address).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        if debt > self.limits.forgive * self.limits.failures.saturating_sub(1) {
            return Verdict::Refuse;
        }
        let visit = Visit(self.next);
        self.next += 1;
        self.strangers.insert(visit, address);
        // Numbers are given in order of arrival: the smallest has waited longest.
        let crowd = self.strangers.len() > self.limits.strangers;
        Verdict::Enter(visit, self.strangers.keys().next().copied().filter(|_| crowd))
    }

    /// The visitor is known now.
    pub fn welcome(&mut self, visit: Visit) {
        self.strangers.remove(&visit);
    }

    /// The visitor has gone.
    pub fn leave(&mut self, visit: Visit, ending: Ending, now: Instant) {
        let Some(address) = self.strangers.remove(&visit) else { return };
        match ending {
            Ending::Fair => {}
            Ending::Failed => {
                let at = self.forgiven.entry(address).or_insert(now);
                *at = (*at).max(now) + self.limits.forgive;
                self.forget(now);
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        if self.forgiven.len() > MEMORY {
            self.forgiven.retain(|_, at| *at > now);
        }
        if self.forgiven.len() > MEMORY
            && let Some(first) = self.forgiven.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
        {
            self.forgiven.remove(&first);
        }
    }
}

/// An IPv6 host owns at least a /64: it counts as one address.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 3, forgive: Duration::from_secs(10), strangers: 2 };

    fn fail(guard: &mut Guard, address: &str, now: Instant) -> bool {
        match guard.arrive(address.parse().unwrap(), now) {
            Verdict::Enter(visit, _) => {
                guard.leave(visit, Ending::Failed, now);
                true
            }
            Verdict::Refuse => false,
        }
    }

    #[test]
    fn an_address_that_keeps_failing_is_refused_until_time_has_passed() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        assert_eq!([(); 4].map(|()| fail(&mut guard, "10.0.0.1", now)), [true, true, true, false]);
        assert!(fail(&mut guard, "10.0.0.2", now), "another address is not concerned");
        assert!(!fail(&mut guard, "10.0.0.1", now + Duration::from_secs(9)));
        assert!(fail(&mut guard, "10.0.0.1", now + Duration::from_secs(10)));
        assert!(!fail(&mut guard, "10.0.0.1", now + Duration::from_secs(10)));
        let later = now + Duration::from_secs(60);
        assert_eq!([(); 4].map(|()| fail(&mut guard, "10.0.0.1", later)), [true, true, true, false]);
    }

    #[test]
    fn known_visitors_and_those_who_never_tried_are_not_counted() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        for _ in 0..100 {
            for known in [true, false] {
                let Verdict::Enter(visit, None) = guard.arrive("::1".parse().unwrap(), now) else {
                    panic!("refused");
                };
                if known {
                    guard.welcome(visit);
                }
                guard.leave(visit, if known { Ending::Failed } else { Ending::Fair }, now);
            }
        }
    }

    #[test]
    fn the_stranger_who_has_waited_longest_makes_room() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        let mut arrive = || guard.arrive("10.0.0.1".parse().unwrap(), now);
        assert_eq!(arrive(), Verdict::Enter(Visit(0), None));
        assert_eq!(arrive(), Verdict::Enter(Visit(1), None));
        assert_eq!(arrive(), Verdict::Enter(Visit(2), Some(Visit(0))));
        guard.leave(Visit(0), Ending::Fair, now);
        guard.welcome(Visit(1));
        assert_eq!(guard.arrive("10.0.0.1".parse().unwrap(), now), Verdict::Enter(Visit(3), None));
    }

    #[test]
    fn an_ipv6_neighbourhood_counts_as_one_address() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        assert!(fail(&mut guard, "2001:db8::1", now) && fail(&mut guard, "2001:db8::2", now));
        assert!(fail(&mut guard, "2001:db8::3", now) && !fail(&mut guard, "2001:db8::4", now));
        assert!(fail(&mut guard, "2001:db8:0:1::4", now));
    }
}
