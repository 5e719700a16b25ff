//! Which HQ acts on a home that several machines can open.
//!
//! The one whose name stands in `hq/epoch`, under a lease it renews. Its writes look at that key in the same
//! transaction ([`super::Db::fence`]), so that one that lost it, or was started by mistake, changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::DbError;

pub mod act;
pub mod process;

/// How long an HQ that died still counts as the one that acts.
pub const TTL: Duration = Duration::from_secs(15);

/// An HQ that wants to act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// Its machine's name.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// One start of one machine and one folder there: only one process at a time can hold it.
    pub place: String,
}

/// `hq/epoch`: the HQ that acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Larger than that of every one before.
    pub number: u64,
    /// Who it is.
    #[serde(flatten)]
    pub who: Claimant,
    /// Its lease.
    pub lease: String,
}

/// `hq/last-epoch`: the latest epoch there was, its holder alive or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// It only goes up.
    pub number: u64,
    /// Whose it was.
    #[serde(flatten)]
    pub who: Claimant,
}

/// Why an HQ may not act.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// Another one does.
    #[error(
        "another HQ (host {}, pid {}, since {}) acts on this state; stop it, or wait {} s after it died",
        .0.host, .0.pid, .0.since.round(jiff::Unit::Second).unwrap_or(.0.since), TTL.as_secs()
    )]
    Held(Claimant),
    /// Another one did, while this one was not heard of.
    #[error("another HQ has acted on this state while this one was cut off from it; start this one again")]
    Overtaken,
    /// The home failed.
    #[error(transparent)]
    Home(#[from] DbError),
}

/// What a claimant finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throne {
    /// Nobody.
    Free,
    /// One that held what the claimant now holds alone, so that it must be dead.
    Predecessor,
    /// Somebody.
    Taken,
}

/// What stands in the way of `claimant`, who holds its place alone.
pub fn throne(found: Option<&Holder>, claimant: &Claimant) -> Throne {
    match found {
        None => Throne::Free,
        Some(holder) if holder.who.place == claimant.place => Throne::Predecessor,
        Some(_) => Throne::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(place: &str) -> Claimant {
        Claimant { host: "a".into(), pid: 12, since: Timestamp::UNIX_EPOCH, place: place.into() }
    }

    #[test]
    fn only_what_held_the_same_place_is_certainly_dead() {
        let holder = Holder { number: 1, who: claimant("boot-1 8:1"), lease: "1".into() };
        assert_eq!(throne(None, &claimant("boot-1 8:1")), Throne::Free);
        assert_eq!(throne(Some(&holder), &claimant("boot-1 8:1")), Throne::Predecessor);
        for other in ["boot-2 8:1", "boot-1 8:2"] {
            assert_eq!(throne(Some(&holder), &claimant(other)), Throne::Taken, "{other}");
        }
    }

    #[test]
    fn the_error_names_the_one_that_acts() {
        assert_eq!(
            EpochError::Held(claimant("x")).to_string(),
            "another HQ (host a, pid 12, since 1970-01-01T00:00:00Z) acts on this state; stop it, or wait 15 s after it died"
        );
    }
}
