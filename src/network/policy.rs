//! What a server lets in, and what its containers may reach.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use crate::units::net::Net;
use crate::units::port::Port;

/// The whole of it. Everything that is not named here is refused, but for what a machine needs to stay on its network:
/// replies, ICMP, DHCP, its own loopback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// They reach every port, published ports of containers included.
    pub peers: BTreeSet<Net>,
    /// Everybody reaches these, on the server and as published ports of containers: as they were before docker
    /// translated them.
    #[serde(serialize_with = "texts")]
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
        #[serde(serialize_with = "texts")]
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

/// Ports as people write them.
fn texts<S: Serializer>(ports: &BTreeSet<Port>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ports.iter().map(Port::to_string))
}

/// Where the servers' own sshd listens.
pub const SSH: Port = Port::tcp(22);

#[cfg(test)]
mod tests {
    use super::*;

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
