//! Which domains need a certificate from the authority, and when.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::chain::Facts;
use super::tries::{Tries, renewal};
use super::{Kind, wildcard_over};
use crate::names::Domain;

/// Most orders under way.
const SIDE_BY_SIDE: usize = 8;

/// Most orders in [`WINDOW`]. Let's Encrypt takes 300 in three hours of one account.
const ORDERS: usize = 250;

/// Seconds in which [`ORDERS`] may be begun.
const WINDOW: i64 = 3 * 3600;

/// Ends of names that no authority for everybody certifies: they mean something else on each machine.
const PRIVATE: [&str; 9] =
    ["localhost", "local", "internal", "invalid", "test", "example", "onion", "home.arpa", "lan"];

/// Whether an authority for everybody could certify a domain at all.
pub fn is_public(domain: &Domain) -> bool {
    let text = domain.as_str();
    let ends = |end: &&str| text.strip_suffix(*end).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    text.contains('.') && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !PRIVATE.iter().any(ends)
}

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Where it comes from.
    pub kind: Kind,
    /// What it says; `None` when it is damaged.
    pub facts: Option<Facts>,
}

/// What is known when it is decided what to do.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The present.
    pub now: Timestamp,
    /// Every domain that should have a certificate from the authority.
    pub wanted: &'a BTreeSet<Domain>,
    /// The certificates there are.
    pub known: &'a BTreeMap<Domain, Known>,
    /// What became of earlier tries.
    pub tries: &'a BTreeMap<Domain, Tries>,
    /// Those that are ordered at the moment.
    pub under_way: &'a BTreeSet<Domain>,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Domains to order a certificate for now.
    pub order: Vec<Domain>,
    /// When there is something to do next, if ever.
    pub next: Option<Timestamp>,
}

/// Decides. What is under way ends by itself and leads to another decision, so it is no reason to come again.
pub fn work(situation: &Situation<'_>) -> Work {
    let Situation { now, wanted, under_way, .. } = *situation;
    let mut due: Vec<(Timestamp, &Domain)> = wanted
        .iter()
        .filter(|domain| !under_way.contains(*domain))
        .filter_map(|domain| Some((when(situation, domain)?, domain)))
        .collect();
    due.sort();
    let (now_due, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|(when, _)| *when <= now);
    let (begun, window_ends) = begun(situation);
    let room = SIDE_BY_SIDE.saturating_sub(under_way.len()).min(ORDERS.saturating_sub(begun));
    let order: Vec<Domain> = now_due.iter().take(room).map(|(_, domain)| (*domain).clone()).collect();
    let waits = now_due.len() > order.len() && begun + order.len() >= ORDERS;
    let next = later.first().map(|(when, _)| *when);
    Work { order, next: next.into_iter().chain(window_ends.filter(|_| waits)).min() }
}

/// When a domain is to be ordered; `None` when there is no need.
pub fn when(situation: &Situation<'_>, domain: &Domain) -> Option<Timestamp> {
    let Situation { now, known, tries, .. } = *situation;
    // An authority that asks by HTTP certifies no wildcards.
    if domain.is_wildcard() {
        return None;
    }
    let again = tries.get(domain).map(|tries| tries.next);
    match known.get(domain) {
        Some(Known { kind: Kind::Custom, .. }) => None,
        Some(Known { kind: Kind::Automatic, facts: Some(facts) }) => {
            let renewal = renewal(domain, facts);
            Some(again.map_or(renewal, |again| again.max(renewal)))
        }
        Some(Known { kind: Kind::Automatic, facts: None }) => Some(again.unwrap_or(now)),
        None if is_covered(domain, known, now) => None,
        None => Some(again.unwrap_or(now)),
    }
}

/// Whether a wildcard's certificate is good for it as long as it holds.
fn is_covered(domain: &Domain, known: &BTreeMap<Domain, Known>, now: Timestamp) -> bool {
    let over = wildcard_over(domain).and_then(|over| known.get(&over));
    over.and_then(|known| known.facts.as_ref()).is_some_and(|facts| facts.until > now)
}

/// How many orders were begun in the last [`WINDOW`], and when the first of them counts no more.
fn begun(situation: &Situation<'_>) -> (usize, Option<Timestamp>) {
    let window = SignedDuration::from_secs(WINDOW);
    let start = situation.now.checked_sub(window).unwrap_or(Timestamp::MIN);
    let automatic = situation.known.values().filter(|known| known.kind == Kind::Automatic);
    let had = automatic.filter_map(|known| known.facts.as_ref()).map(|facts| facts.from);
    let tried = situation.tries.values().map(|tries| tries.last);
    let begun: Vec<Timestamp> = had.chain(tried).filter(|time| *time > start).collect();
    let first = begun.iter().min().and_then(|first| first.checked_add(window).ok());
    (begun.len() + situation.under_way.len(), first)
}

#[cfg(test)]
mod tests {
    use super::super::authority::Refusal;
    use super::super::tries::By;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn domains(names: &[&str]) -> BTreeSet<Domain> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn known(kind: Kind, from: i64, until: i64) -> Known {
        let facts =
            Facts { names: Vec::new(), issuer: String::new(), from: at(from), until: at(until), responder: None };
        Known { kind, facts: Some(facts) }
    }

    const NOW: i64 = 100 * 86400;

    fn decide(wanted: &[&str], known: &[(&str, Known)], tries: &[(&str, i64)], under_way: &[&str]) -> Work {
        let known = known.iter().map(|(name, known)| (name.parse().unwrap(), known.clone())).collect();
        let tried = |(name, next): &(&str, i64)| {
            let domain: Domain = name.parse().unwrap();
            let refusal = Refusal { what: String::new(), until: Some(at(*next)) };
            let tries = Tries::after(None, &domain, By::Look, refusal, at(0));
            (domain, tries)
        };
        work(&Situation {
            now: at(NOW),
            wanted: &domains(wanted),
            known: &known,
            tries: &tries.iter().map(tried).collect(),
            under_way: &domains(under_way),
        })
    }

    fn names(work: &Work) -> Vec<&str> {
        work.order.iter().map(Domain::as_str).collect()
    }

    #[test]
    fn a_domain_without_a_certificate_is_ordered_at_once_and_one_that_has_a_good_one_is_not() {
        let day = 86400;
        let known = [
            ("custom.test", known(Kind::Custom, 0, NOW - 1)),
            ("fresh.test", known(Kind::Automatic, NOW - day, NOW + 89 * day)),
            ("old.test", known(Kind::Automatic, NOW - 80 * day, NOW + 10 * day)),
            ("*.wild.test", known(Kind::Custom, 0, NOW + day)),
            ("*.over.test", known(Kind::Custom, 0, NOW - day)),
        ];
        let wanted = [
            "custom.test",
            "fresh.test",
            "old.test",
            "new.test",
            "*.new.test",
            "a.wild.test",
            "a.b.wild.test",
            "a.over.test",
        ];
        let work = decide(&wanted, &known, &[], &[]);
        assert_eq!(names(&work), ["old.test", "a.b.wild.test", "a.over.test", "new.test"]);
        let renewal = work.next.unwrap().as_second();
        assert!((NOW + 50 * day..NOW + 65 * day).contains(&renewal), "{work:?}");
    }

    #[test]
    fn a_domain_that_was_refused_waits_and_one_that_is_ordered_is_not_ordered_twice() {
        let work = decide(&["a.test", "b.test", "c.test"], &[], &[("a.test", NOW + 7), ("b.test", NOW)], &["c.test"]);
        assert_eq!((names(&work), work.next), (vec!["b.test"], Some(at(NOW + 7))));
    }

    #[test]
    fn many_domains_are_ordered_side_by_side_within_bounds() {
        let wanted: Vec<String> = (0..400).map(|number| format!("d{number:03}.test")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        assert_eq!(decide(&wanted, &[], &[], &[]).order.len(), SIDE_BY_SIDE);
        assert_eq!(decide(&wanted, &[], &[], &wanted[..5]).order.len(), SIDE_BY_SIDE - 5);
        let had: Vec<(&str, Known)> =
            wanted[..ORDERS].iter().map(|name| (*name, known(Kind::Automatic, NOW - 60, NOW + 90 * 86400))).collect();
        let full = decide(&wanted, &had, &[], &[]);
        assert_eq!((names(&full), full.next), (vec![], Some(at(NOW - 60 + WINDOW))));
    }

    #[test]
    fn names_that_mean_something_else_on_each_machine_are_not_asked_of_everybodys_authority() {
        for public in ["a.example.com", "quarry.dev", "local.dev", "mytest.org"] {
            assert!(is_public(&public.parse().unwrap()), "{public}");
        }
        for private in ["localhost", "a.localhost", "a.test", "printer.local", "single", "10.0.0.1", "x.home.arpa"] {
            assert!(!is_public(&private.parse().unwrap()), "{private}");
        }
    }
}
