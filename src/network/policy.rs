//! What a server lets in, and what its containers may reach.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::names::printable::excerpt;
use crate::units::net::Net;
use serde::{Deserialize, Serialize};

/// The whole of it. Everything that is not named here is refused, but for what a machine needs to stay on its network:
/// replies, ICMP, DHCP, its own loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// They reach every port, published ports of containers included.
    pub peers: BTreeSet<Net>,
    /// Everybody reaches these, on the server and as published ports of containers: as they were before docker
    /// translated them.
    pub open: BTreeSet<Port>,
    /// What containers reach.
    pub containers: Containers,
}

/// What the containers of a server reach beside each other, which is docker's to decide, and the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Containers {
    /// Everything their server reaches.
    Free,
    /// Not the server's own programs and not the peers: from outside, a container's packets look like its server's, so
    /// only their own server can keep them from what peers may reach.
    Kept {
        /// But for these.
        links: BTreeSet<Link>,
        /// Ports that are open on some server of the cluster.
        cluster: BTreeSet<Port>,
    },
}

/// A way for the containers of one network to one TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Whose.
    pub from: Net,
    /// The peer; `None` is their own server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// As the container sees it.
    pub port: u16,
}

/// A port with its protocol: `22` (TCP) or `443/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// From 1.
    pub number: u16,
    /// Which of the two.
    pub protocol: Protocol,
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A text that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no port such as 80 or 443/udp")]
pub struct BadPort {
    /// What came, shortened and with control characters escaped.
    pub given: String,
}

/// Where the servers' own sshd listens.
pub const SSH: Port = Port::tcp(22);

impl Port {
    /// A TCP port.
    pub const fn tcp(number: u16) -> Self {
        Self { number, protocol: Protocol::Tcp }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.number),
            Protocol::Udp => write!(f, "{}/udp", self.number),
        }
    }
}

impl FromStr for Port {
    type Err = BadPort;
    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort { given: excerpt(text, 60) };
        let (number, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|number| is_number && *number != 0).ok_or_else(bad)?;
        Ok(Self { number, protocol })
    }
}

impl TryFrom<String> for Port {
    type Error = BadPort;
    fn try_from(text: String) -> Result<Self, BadPort> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_anything_else_is_refused() {
        let check = |given: &str, expected: Option<&str>| {
            let port: Result<Port, BadPort> = given.parse();
            assert_eq!(port.ok().map(|port| port.to_string()).as_deref(), expected, "{given}");
        };
        check("22", Some("22"));
        check("80/tcp", Some("80"));
        check("443/udp", Some("443/udp"));
        for wrong in ["", "0", "65536", "+80", "-1", "80/", "80/sctp", "80/udp/tcp", "/tcp", "80 ", "http"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_policy_reads_back_from_its_json() {
        let json = r#"{"peers":["192.0.2.1","2001:db8::/64"],"open":["22","443/udp"],"containers":{"kept":{"links":[{"from":"10.208.0.0/26","port":20000},{"from":"10.208.0.0/26","to":"192.0.2.1","port":20001}],"cluster":["80"]}}}"#;
        let policy: Policy = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        let free = r#"{"peers":[],"open":[],"containers":"free"}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Policy>(free).unwrap()).unwrap(), free);
    }

    #[test]
    fn a_policy_with_a_bad_value_is_refused_whole() {
        for json in [
            r#"{"peers":["1.2.3.4; drop"],"open":[],"containers":"free"}"#,
            r#"{"peers":[],"open":["22 accept"],"containers":"free"}"#,
            r#"{"peers":[],"open":[]}"#,
        ] {
            assert!(serde_json::from_str::<Policy>(json).is_err(), "{json}");
        }
    }
}
