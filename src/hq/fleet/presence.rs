//! Whether a server counts: what is concluded from its signs of life.

use std::time::Duration;

/// How a server stands with HQ, beside what a person wants of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is heard from.
    #[default]
    Up,
    /// It has not been heard from for a moment: nothing new goes there, and what runs there counts.
    Suspect,
    /// It is lost: what can run elsewhere does.
    Gone,
    /// It is heard from again, and may still run what has moved elsewhere meanwhile.
    Returning,
}

/// Signs of life of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// For how long HQ has not come there; `None` while its connection stands.
    pub silent: Option<Duration>,
    /// Whether the server keeps a lease by itself, on another way than HQ's connection.
    pub leased: bool,
}

impl Presence {
    /// The next one. A server is lost when HQ has not come there for `patience` and no lease speaks for it; one that
    /// was lost counts again only when [`Presence::welcomed`].
    pub fn after(self, signs: Signs, patience: Duration) -> Self {
        match (self, signs.silent) {
            (Self::Up | Self::Suspect, None) => Self::Up,
            (Self::Up | Self::Suspect, Some(silent)) if silent >= patience && !signs.leased => Self::Gone,
            (Self::Up | Self::Suspect, Some(_)) => Self::Suspect,
            (Self::Gone | Self::Returning, None) => Self::Returning,
            (Self::Gone | Self::Returning, Some(_)) => Self::Gone,
        }
    }

    /// What it should no longer run has been stopped.
    pub fn welcomed(self) -> Self {
        match self {
            Self::Returning | Self::Up => Self::Up,
            Self::Suspect | Self::Gone => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn after(presence: Presence, silent: Option<u64>, leased: bool) -> Presence {
        presence.after(Signs { silent: silent.map(Duration::from_secs), leased }, PATIENCE)
    }

    #[test]
    fn a_server_is_lost_only_when_it_is_silent_for_long_and_no_lease_speaks_for_it() {
        for before in [Presence::Up, Presence::Suspect] {
            assert_eq!(after(before, None, false), Presence::Up);
            assert_eq!(after(before, Some(4), false), Presence::Suspect);
            assert_eq!(after(before, Some(60), true), Presence::Suspect);
            assert_eq!(after(before, Some(5), false), Presence::Gone);
        }
    }

    #[test]
    fn one_that_comes_back_counts_when_it_has_been_cleared() {
        let back = after(Presence::Gone, None, true);
        assert_eq!(back, Presence::Returning);
        assert_eq!(after(back, None, true), Presence::Returning);
        assert_eq!(after(back, Some(0), true), Presence::Gone, "what moved away must not count twice");
        assert_eq!(back.welcomed(), Presence::Up);
        assert_eq!(Presence::Gone.welcomed(), Presence::Gone);
    }
}
