//! When a certificate is renewed, and when one that was not had is tried for again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::authority::Refusal;
use super::chain::Facts;
use crate::names::Domain;

/// Seconds after each refusal of an authority until it is asked again; the last counts from then on. Let's Encrypt takes
/// five failed validations of a domain an hour.
const AFTER_REFUSALS: [i64; 8] = [60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600];

/// The same for a domain that leads elsewhere. Looking is cheap, and a domain's owner waits for it.
const AFTER_LOOKS: [i64; 10] = [5, 10, 15, 30, 60, 60, 60, 300, 900, 3600];

/// `certs/tries/<domain>.json`: what became of the tries to get a certificate since there was success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// What went wrong last.
    pub problem: String,
    /// Who said so.
    pub by: By,
    /// How often in a row.
    pub count: u32,
    /// When it was tried last.
    pub last: Timestamp,
    /// When it is tried again.
    pub next: Timestamp,
}

/// Who found out why there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// HQ itself: the domain does not lead here.
    Look,
    /// The authority.
    Authority,
}

impl Tries {
    /// After one more try that failed.
    pub fn after(before: Option<&Self>, domain: &Domain, by: By, refusal: Refusal, now: Timestamp) -> Self {
        let count = before.filter(|before| before.by == by).map_or(1, |before| before.count.saturating_add(1));
        let waits: &[i64] = match by {
            By::Look => &AFTER_LOOKS,
            By::Authority => &AFTER_REFUSALS,
        };
        let step = usize::try_from(count - 1).unwrap_or(usize::MAX).min(waits.len() - 1);
        let wait = waits[step];
        // Nobody comes early, or those who were refused together would come together.
        let wait = wait + wait / 5 * chance(domain, now) / CHANCES;
        let own = later(now, wait);
        Self { problem: refusal.what, by, count, last: now, next: refusal.until.map_or(own, |until| own.max(until)) }
    }
}

/// When an automatic certificate is renewed: when two thirds of its life are over, give or take a twentieth of it, so that
/// those that came together do not all go together.
pub fn renewal(domain: &Domain, facts: &Facts) -> Timestamp {
    let life = facts.until.as_second() - facts.from.as_second();
    let spread = life / 10 * chance(domain, facts.from) / CHANCES - life / 20;
    later(facts.from, life / 3 * 2 + spread)
}

const CHANCES: i64 = 1 << 16;

/// A number below [`CHANCES`] that differs from domain to domain and from time to time.
fn chance(domain: &Domain, time: Timestamp) -> i64 {
    let digest = Sha256::new().chain_update(domain.as_str()).chain_update(time.as_second().to_le_bytes()).finalize();
    i64::from(digest[0]) << 8 | i64::from(digest[1])
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn refusal(until: Option<i64>) -> Refusal {
        Refusal { what: "no".to_owned(), until: until.map(at) }
    }

    #[test]
    fn an_authority_is_asked_ever_more_seldom_and_five_times_an_hour_at_most() {
        let domain = "a.test".parse().unwrap();
        let (mut tries, mut now, mut times) = (None, at(1_000_000), Vec::new());
        for _ in 0..20 {
            times.push(now.as_second());
            let next = Tries::after(tries.as_ref(), &domain, By::Authority, refusal(None), now);
            now = next.next;
            tries = Some(next);
        }
        let waits: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[..7].windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert!(waits.last().is_some_and(|last| (24 * 3600..30 * 3600).contains(last)), "{waits:?}");
        assert!(times.windows(6).all(|six| six[5] - six[0] > 3600), "{times:?}");
    }

    #[test]
    fn what_the_authority_asks_for_is_kept_and_a_domain_that_has_come_is_tried_at_its_first_pace() {
        let domain = "a.test".parse().unwrap();
        let asked = Tries::after(None, &domain, By::Authority, refusal(Some(9999)), at(0));
        assert_eq!(asked.next, at(9999));
        let early = Tries::after(None, &domain, By::Authority, refusal(Some(1)), at(0));
        assert!(early.next >= at(60), "{early:?}");
        let elsewhere = Tries { count: 50, by: By::Look, ..asked };
        assert_eq!(Tries::after(Some(&elsewhere), &domain, By::Authority, refusal(None), at(0)).count, 1);
    }

    proptest! {
        #[test]
        fn certificates_are_renewed_well_before_their_end_and_never_at_once(
            name in "[a-z]{1,12}", from in 0_i64..4_000_000_000, life in 60_i64..400 * 86400,
        ) {
            let domain: Domain = format!("{name}.test").parse().unwrap();
            let facts = Facts {
                names: Vec::new(), issuer: String::new(), from: at(from), until: at(from + life), responder: None,
            };
            let when = renewal(&domain, &facts).as_second() - from;
            prop_assert!(when >= life * 6 / 10 && when <= life * 73 / 100, "{when} of {life}");
        }
    }
}
