//! Who may knock: how many strangers at once, how often one address may fail before it has to queue, and how many
//! connections one user may have.

use std::cmp::Reverse;
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
    /// Visitors of unknown name at once; one more, and one goes: of the address that has most of them, who has waited
    /// longest.
    pub strangers: usize,
    /// Time between two visitors of an address that has failed too often. It is not shut out: behind it may be people who
    /// are known, and keys cannot be guessed, only tried.
    pub pace: Duration,
    /// The longest such a visitor waits.
    pub line: Duration,
    /// Connections of one user on which nothing runs; one more, and the one that has been so longest goes.
    pub idle: usize,
    /// Connections of one user.
    pub guests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (forgive, pace, line) = (Duration::from_secs(3), Duration::from_millis(200), Duration::from_secs(10));
        Self { failures: 20, forgive, strangers: 200, pace, line, idle: 32, guests: 256 }
    }
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visit(u64);

/// What is done with somebody who knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Come in.
    Enter {
        /// Who.
        visit: Visit,
        /// After so long.
        after: Duration,
        /// Who has to go for it.
        gone: Option<Visit>,
    },
    /// Failed too often, and too many of that address wait already.
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
    /// Per address that has to queue, when its next visitor may come in.
    turns: BTreeMap<IpAddr, Instant>,
}

/// The longest time until all failures of an address are forgiven.
const LONGEST: Duration = Duration::from_secs(300);

impl Guard {
    /// A guard who has seen nobody.
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: 0, strangers: BTreeMap::new(), forgiven: BTreeMap::new(), turns: BTreeMap::new() }
    }

    /// Somebody knocks.
    pub fn arrive(&mut self, address: IpAddr, now: Instant) -> Verdict {
        let address = neighbourhood(address);
        let debt = self.forgiven.get(&address).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let fails = debt > self.limits.forgive * self.limits.failures.saturating_sub(1);
        let Some(after) = (if fails { self.queue(address, now) } else { Some(Duration::ZERO) }) else {
            return Verdict::Refuse;
        };
        let visit = Visit(self.next);
        self.next += 1;
        self.strangers.insert(visit, address);
        let crowd = self.strangers.len() > self.limits.strangers;
        Verdict::Enter { visit, after, gone: self.longest().filter(|_| crowd) }
    }

    /// How long the next visitor of an address waits; `None` when that is too long.
    fn queue(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let turn = self.turns.get(&address).copied().unwrap_or(now).max(now);
        let wait = turn - now;
        if wait > self.limits.line {
            return None;
        }
        if self.turns.len() > MEMORY {
            self.turns.retain(|_, turn| *turn > now);
        }
        self.turns.insert(address, turn + self.limits.pace);
        Some(wait)
    }

    /// Who has waited longest of the address with most visitors. Numbers are given in order of arrival.
    fn longest(&self) -> Option<Visit> {
        let mut crowds: BTreeMap<&IpAddr, usize> = BTreeMap::new();
        self.strangers.values().for_each(|address| *crowds.entry(address).or_default() += 1);
        self.strangers
            .iter()
            .max_by_key(|(visit, address)| (crowds[address], Reverse(**visit)))
            .map(|(visit, _)| *visit)
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
                *at = ((*at).max(now) + self.limits.forgive)
                    .min(now + LONGEST.max(self.limits.forgive * self.limits.failures));
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

/// Which of one user's connections has to go, newest among them included: each with since when nothing runs on it.
pub fn crowded(own: &BTreeMap<Visit, Option<Instant>>, limits: &Limits) -> Option<Visit> {
    let idle = own.iter().filter_map(|(visit, idle)| Some(((*idle)?, *visit)));
    let (count, longest) = (idle.clone().count(), idle.min().map(|(_, visit)| visit));
    if count > limits.idle {
        longest
    } else if own.len() > limits.guests {
        longest.or_else(|| own.keys().next_back().copied())
    } else {
        None
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

    const LIMITS: Limits = Limits {
        failures: 3,
        forgive: Duration::from_secs(10),
        strangers: 2,
        pace: Duration::from_secs(1),
        line: Duration::from_secs(2),
        idle: 2,
        guests: 4,
    };

    fn fail(guard: &mut Guard, address: &str, now: Instant) -> bool {
        match guard.arrive(address.parse().unwrap(), now) {
            Verdict::Enter { visit, after, .. } => {
                guard.leave(visit, Ending::Failed, now);
                after.is_zero()
            }
            Verdict::Refuse => false,
        }
    }

    #[test]
    fn an_address_that_keeps_failing_queues_until_time_has_passed() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        assert_eq!([(); 3].map(|()| fail(&mut guard, "10.0.0.1", now)), [true; 3]);
        let wait = |guard: &mut Guard, now| match guard.arrive("10.0.0.1".parse().unwrap(), now) {
            Verdict::Enter { visit, after, .. } => {
                guard.leave(visit, Ending::Fair, now);
                Some(after.as_secs())
            }
            Verdict::Refuse => None,
        };
        assert_eq!([(); 4].map(|()| wait(&mut guard, now)), [Some(0), Some(1), Some(2), None]);
        assert!(fail(&mut guard, "10.0.0.2", now), "another address is not concerned");
        assert_eq!(wait(&mut guard, now + Duration::from_secs(1)), Some(2), "one has come in meanwhile");
        let later = now + Duration::from_secs(30);
        assert_eq!([(); 3].map(|()| fail(&mut guard, "10.0.0.1", later)), [true; 3]);
        // However often it fails, there is an end to it.
        for _ in 0..1000 {
            let visit = Visit(u64::MAX);
            guard.strangers.insert(visit, "10.0.0.1".parse().unwrap());
            guard.leave(visit, Ending::Failed, later);
        }
        assert_eq!([(); 3].map(|()| wait(&mut guard, later + LONGEST)), [Some(0); 3]);
    }

    #[test]
    fn known_visitors_and_those_who_never_tried_are_not_counted() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        for _ in 0..100 {
            for known in [true, false] {
                let Verdict::Enter { visit, gone: None, .. } = guard.arrive("::1".parse().unwrap(), now) else {
                    panic!("refused");
                };
                if known {
                    guard.welcome(visit);
                }
                guard.leave(visit, if known { Ending::Failed } else { Ending::Fair }, now);
            }
        }
    }

    fn enter(visit: u64, gone: Option<u64>) -> Verdict {
        Verdict::Enter { visit: Visit(visit), after: Duration::ZERO, gone: gone.map(Visit) }
    }

    #[test]
    fn the_stranger_who_has_waited_longest_makes_room() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        let mut arrive = || guard.arrive("10.0.0.1".parse().unwrap(), now);
        assert_eq!([arrive(), arrive(), arrive()], [enter(0, None), enter(1, None), enter(2, Some(0))]);
        guard.leave(Visit(0), Ending::Fair, now);
        guard.welcome(Visit(1));
        assert_eq!(guard.arrive("10.0.0.1".parse().unwrap(), now), enter(3, None));
    }

    #[test]
    fn a_crowd_from_one_address_pushes_out_its_own_and_nobody_else() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        assert_eq!(guard.arrive("192.0.2.1".parse().unwrap(), now), enter(0, None));
        assert_eq!(guard.arrive("10.0.0.1".parse().unwrap(), now), enter(1, None));
        for number in 2..100 {
            assert_eq!(guard.arrive("10.0.0.1".parse().unwrap(), now), enter(number, Some(number - 1)));
            guard.leave(Visit(number - 1), Ending::Fair, now);
        }
    }

    #[test]
    fn of_a_users_connections_the_one_that_has_done_nothing_longest_goes() {
        let now = Instant::now();
        let check = |own: &[Option<u64>], expected: Option<u64>| {
            let since = |seconds: &Option<u64>| seconds.map(|seconds| now + Duration::from_secs(seconds));
            let own = own.iter().enumerate().map(|(place, idle)| (Visit(place as u64), since(idle))).collect();
            assert_eq!(crowded(&own, &LIMITS), expected.map(Visit));
        };
        check(&[Some(5), Some(1)], None);
        check(&[Some(5), None, Some(1), Some(3)], Some(2));
        check(&[None, None, None, None], None);
        check(&[None, None, Some(9), None, None], Some(2));
        check(&[None, None, None, None, None], Some(4));
    }

    #[test]
    fn an_ipv6_neighbourhood_counts_as_one_address() {
        let mut guard = Guard::new(LIMITS);
        let now = Instant::now();
        assert!(fail(&mut guard, "2001:db8::1", now) && fail(&mut guard, "2001:db8::2", now));
        assert!(fail(&mut guard, "2001:db8::3", now) && fail(&mut guard, "2001:db8::4", now));
        assert!(!fail(&mut guard, "2001:db8::5", now));
        assert!(fail(&mut guard, "2001:db8:0:1::4", now));
    }
}
