//! Who holds which leased keys and until when; plain bookkeeping, the present is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{DbError, Key, Lease};

/// All leases of one tree.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<String, Held>);

#[derive(Debug)]
struct Held {
    ttl: Duration,
    until: Instant,
    keys: BTreeSet<Key>,
}

/// What is kept of a lease on disk, so that its keys go even when its holder died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    ttl_ms: u64,
    keys: Vec<String>,
}

impl Leases {
    /// Begins a lease.
    pub fn begin(&mut self, lease: &Lease, ttl: Duration, now: Instant) {
        let ttl = ttl.min(A_YEAR);
        self.0.insert(lease.0.clone(), Held { ttl, until: now + ttl, keys: BTreeSet::new() });
    }

    /// When a lease ends unless it is renewed; `None` when it has ended.
    pub fn until(&self, lease: &Lease) -> Option<Instant> {
        self.0.get(&lease.0).map(|held| held.until)
    }

    /// Counts a lease's time anew.
    pub fn renew(&mut self, lease: &Lease, now: Instant) -> Result<(), DbError> {
        let held = self.live(lease, now)?;
        held.until = now + held.ttl;
        Ok(())
    }

    /// Fails when a lease has ended.
    pub fn check(&mut self, lease: &Lease, now: Instant) -> Result<(), DbError> {
        self.live(lease, now).map(drop)
    }

    fn live(&mut self, lease: &Lease, now: Instant) -> Result<&mut Held, DbError> {
        let held = self.0.get_mut(&lease.0).filter(|held| now < held.until);
        held.ok_or_else(|| DbError::LeaseEnded(lease.clone()))
    }

    /// Puts `key` under `lease`, or under none; whether anything changed. A key is under one lease at most.
    pub fn bind(&mut self, key: &Key, lease: Option<&Lease>) -> bool {
        let mut changed = false;
        for (name, held) in &mut self.0 {
            changed |= match lease {
                Some(lease) if lease.0 == *name => held.keys.insert(key.clone()),
                Some(_) | None => held.keys.remove(key),
            };
        }
        changed
    }

    /// Takes every key under `prefix` out of its lease; whether there was any.
    pub fn free(&mut self, prefix: &str) -> bool {
        let mut changed = false;
        for held in self.0.values_mut() {
            let before = held.keys.len();
            held.keys.retain(|key| !key.is_under(prefix));
            changed |= held.keys.len() != before;
        }
        changed
    }

    /// Ends a lease and hands out the keys that go with it.
    pub fn end(&mut self, lease: &Lease) -> BTreeSet<Key> {
        self.0.remove(&lease.0).map(|held| held.keys).unwrap_or_default()
    }

    /// What is kept on disk: leases that hold keys.
    pub fn kept(&self) -> BTreeMap<&str, Kept> {
        let holding = self.0.iter().filter(|(_, held)| !held.keys.is_empty());
        let kept = |held: &Held| Kept {
            ttl_ms: u64::try_from(held.ttl.as_millis()).unwrap_or(u64::MAX),
            keys: held.keys.iter().map(Key::to_string).collect(),
        };
        holding.map(|(name, held)| (name.as_str(), kept(held))).collect()
    }

    /// The leases of a process that is gone: each has its whole time again, in which its holder may come back.
    pub fn from_kept(kept: BTreeMap<String, Kept>, now: Instant) -> Self {
        let held = |kept: Kept| {
            let ttl = Duration::from_millis(kept.ttl_ms).min(A_YEAR);
            Held { ttl, until: now + ttl, keys: kept.keys.iter().filter_map(|key| key.parse().ok()).collect() }
        };
        Self(kept.into_iter().map(|(name, kept)| (name, held(kept))).collect())
    }

    /// Every key that goes with a lease.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.0.values().flat_map(|held| &held.keys).cloned().collect()
    }

    /// Every lease.
    pub fn all(&self) -> Vec<Lease> {
        self.0.keys().cloned().map(Lease).collect()
    }
}

/// Longer times than any lease has would overflow the clock's arithmetic.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str) -> Lease {
        Lease(name.into())
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_is_under_its_last_lease_only() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.begin(&lease("a"), Duration::from_secs(1), now);
        leases.begin(&lease("b"), Duration::from_secs(1), now);
        assert!(leases.bind(&key("ps/x"), Some(&lease("a"))));
        assert!(!leases.bind(&key("ps/x"), Some(&lease("a"))));
        assert!(leases.bind(&key("ps/x"), Some(&lease("b"))));
        assert!(leases.end(&lease("a")).is_empty());
        assert!(leases.bind(&key("ps/x"), None));
        assert!(leases.end(&lease("b")).is_empty());
    }

    #[test]
    fn a_lease_ends_at_its_time_unless_renewed() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.begin(&lease("a"), Duration::from_secs(2), now);
        leases.renew(&lease("a"), now + Duration::from_secs(1)).unwrap();
        assert!(leases.check(&lease("a"), now + Duration::from_millis(2999)).is_ok());
        assert!(matches!(leases.check(&lease("a"), now + Duration::from_secs(3)), Err(DbError::LeaseEnded(_))));
    }

    #[test]
    fn what_is_kept_comes_back_with_its_whole_time() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.begin(&lease("a"), Duration::from_secs(2), now);
        leases.begin(&lease("empty"), Duration::from_secs(2), now);
        leases.bind(&key("ps/x"), Some(&lease("a")));
        let text = serde_json::to_string(&leases.kept()).unwrap();
        let later = now + Duration::from_secs(100);
        let mut back = Leases::from_kept(serde_json::from_str(&text).unwrap(), later);
        assert_eq!(back.all(), [lease("a")]);
        assert_eq!(back.until(&lease("a")), Some(later + Duration::from_secs(2)));
        assert_eq!(back.end(&lease("a")), BTreeSet::from([key("ps/x")]));
    }
}
