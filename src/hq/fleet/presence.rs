//! Whether a server counts: what is concluded from its signs of life.

use std::time::Duration;

use crate::hq::agents::Voice;

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
    /// For how long HQ's connection has been broken; `None` while it stands.
    pub silent: Option<Duration>,
    /// What is known by its agent, when it has one.
    pub told: Option<Voice>,
}

impl Signs {
    /// Whether nothing has been heard of it for as long as a lease lasts.
    fn are_over(self, lease: Duration) -> bool {
        match (self.told, self.silent) {
            (_, None) | (Some(Voice::Up | Voice::Suspect), _) => false,
            (Some(Voice::Gone), Some(_)) => true,
            (None, Some(silent)) => silent >= lease,
        }
    }
}

impl Presence {
    /// The next one. A server is lost when neither its agent nor its connection has been heard for a lease; one that was
    /// lost counts again only when [`Presence::welcomed`].
    pub fn after(self, signs: Signs, lease: Duration) -> Self {
        match self {
            Self::Up | Self::Suspect if signs.silent.is_none() => Self::Up,
            Self::Up | Self::Suspect if signs.are_over(lease) => Self::Gone,
            Self::Up | Self::Suspect => Self::Suspect,
            Self::Gone | Self::Returning if signs.silent.is_none() => Self::Returning,
            Self::Gone | Self::Returning => Self::Gone,
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

    const LEASE: Duration = Duration::from_secs(5);

    fn after(presence: Presence, silent: Option<u64>, told: Option<Voice>) -> Presence {
        presence.after(Signs { silent: silent.map(Duration::from_secs), told }, LEASE)
    }

    #[test]
    fn a_server_is_lost_only_when_its_connection_and_its_agent_are_silent_for_long() {
        for before in [Presence::Up, Presence::Suspect] {
            assert_eq!(after(before, None, None), Presence::Up);
            assert_eq!(after(before, Some(4), None), Presence::Suspect);
            assert_eq!(after(before, Some(5), None), Presence::Gone);
            assert_eq!(after(before, Some(60), Some(Voice::Suspect)), Presence::Suspect);
            assert_eq!(after(before, Some(2), Some(Voice::Gone)), Presence::Gone);
            assert_eq!(after(before, None, Some(Voice::Gone)), Presence::Up, "SSH still leads there");
        }
    }

    #[test]
    fn one_that_comes_back_counts_when_it_has_been_cleared() {
        let back = after(Presence::Gone, None, Some(Voice::Suspect));
        assert_eq!(back, Presence::Returning);
        assert_eq!(after(back, None, Some(Voice::Up)), Presence::Returning);
        assert_eq!(after(back, Some(0), Some(Voice::Up)), Presence::Gone, "what moved away must not count twice");
        assert_eq!(back.welcomed(), Presence::Up);
        assert_eq!(Presence::Gone.welcomed(), Presence::Gone);
    }
}
