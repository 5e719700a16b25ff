//! Whether a server is heard: what its agent says, and whether SSH still leads to it. What HQ concludes from that is its
//! [presence](crate::hq::fleet::presence).

use std::time::Duration;

use tokio::time::Instant;

/// An agent speaks each second; after so long without a word it is looked at closely.
const SILENCE: Duration = Duration::from_secs(3);

/// How a server is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Voice {
    /// Its agent speaks.
    Up,
    /// Its agent is silent. What runs there may well run.
    Suspect,
    /// Its agent has been silent for as long as its lease lasts, and SSH does not lead to it either.
    Gone,
}

/// Whether SSH leads to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ssh {
    /// HQ is logged in.
    Works,
    /// It is not.
    Fails,
}

/// When a server was heard of.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    last: Instant,
    lease: Duration,
    ever: bool,
}

impl Pulse {
    /// From now on. A server that is never heard of has as long as one that falls silent now.
    pub fn begin(now: Instant, lease: Duration) -> Self {
        Self { last: now, lease, ever: false }
    }

    /// Its agent has spoken.
    pub fn heard(&mut self, now: Instant) {
        self.last = now;
        self.ever = true;
    }

    /// How the server stands.
    pub fn at(&self, now: Instant, ssh: Ssh) -> Voice {
        let silent = now.saturating_duration_since(self.last);
        match ssh {
            Ssh::Fails if silent >= self.lease => Voice::Gone,
            Ssh::Works | Ssh::Fails if self.ever && silent < SILENCE.min(self.lease) => Voice::Up,
            Ssh::Works | Ssh::Fails => Voice::Suspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_gone_only_when_its_lease_has_ended_and_ssh_fails() {
        let begin = Instant::now();
        let mut pulse = Pulse::begin(begin, Duration::from_secs(5));
        let check = |pulse: &Pulse, seconds: f64, ssh, expected| {
            assert_eq!(pulse.at(begin + Duration::from_secs_f64(seconds), ssh), expected, "{seconds} {ssh:?}");
        };
        check(&pulse, 0.0, Ssh::Works, Voice::Suspect);
        check(&pulse, 4.9, Ssh::Fails, Voice::Suspect);
        check(&pulse, 5.0, Ssh::Fails, Voice::Gone);
        pulse.heard(begin + Duration::from_secs(10));
        check(&pulse, 12.9, Ssh::Fails, Voice::Up);
        check(&pulse, 13.0, Ssh::Works, Voice::Suspect);
        check(&pulse, 99.0, Ssh::Works, Voice::Suspect);
        check(&pulse, 14.9, Ssh::Fails, Voice::Suspect);
        check(&pulse, 15.0, Ssh::Fails, Voice::Gone);
        pulse.heard(begin + Duration::from_secs(20));
        check(&pulse, 20.0, Ssh::Works, Voice::Up);
    }
}
