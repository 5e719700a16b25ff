//! A member of the etcd that HQ makes on its servers: where it listens, what its settings say, how it was found.

use std::net::{IpAddr, SocketAddr};

use crate::names::ServerName;

/// Everything of a member on its server, below here.
pub const FOLDER: &str = "/var/lib/quarry-etcd";

/// Where a member answers those who read and write.
const CLIENT_PORT: u16 = 2379;
/// Where members speak to each other.
const PEER_PORT: u16 = 2380;

/// A server that is a member, or is to be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which; the member has the same name.
    pub server: ServerName,
    /// Its private address.
    pub ip: IpAddr,
}

/// Whether a member's voice counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// It does.
    Voter,
    /// Not yet: it is catching up with the others.
    Learner,
}

/// How a member answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does, and knows who leads.
    Healthy {
        /// It leads itself.
        leads: bool,
        /// Its version.
        version: String,
        /// What its data take on the disk, in bytes.
        bytes: u64,
    },
    /// It does not.
    Away {
        /// What was heard instead.
        why: String,
    },
}

/// A member as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Its number.
    pub id: u64,
    /// Its name, once it has started.
    pub name: Option<String>,
    /// Where the others reach it.
    pub peer: String,
    /// Whether its voice counts.
    pub voice: Voice,
    /// How it answers.
    pub health: Health,
}

/// How a member comes into being.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Birth<'a> {
    /// As the first one. The text is of this cluster alone.
    Founds(&'a str),
    /// Beside those there are.
    Joins(&'a [Place]),
}

impl Place {
    /// Where it answers those who read and write.
    pub fn client(&self) -> String {
        url(self.ip, CLIENT_PORT)
    }

    /// Where the other members reach it.
    pub fn peer(&self) -> String {
        url(self.ip, PEER_PORT)
    }

    /// The settings it starts with. How it is born counts only while it has no data.
    pub fn settings(&self, birth: &Birth<'_>) -> String {
        let (state, token, others) = match birth {
            Birth::Founds(token) => ("new", *token, &[][..]),
            Birth::Joins(others) => ("existing", "quarry", *others),
        };
        let others = others.iter().filter(|place| *place != self);
        let all = others.chain([self]).map(|place| format!("{}={}", place.server, place.peer()));
        let all = all.collect::<Vec<_>>().join(",");
        let (client, peer, name) = (self.client(), self.peer(), &self.server);
        let tls = format!(
            "  cert-file: {FOLDER}/cert.pem\n  key-file: {FOLDER}/key.pem\n  trusted-ca-file: {FOLDER}/ca.pem\n  \
             client-cert-auth: true\n"
        );
        // Without compaction the history of every key would grow until etcd takes no more writes.
        format!(
            "name: {name}\ndata-dir: {FOLDER}/data\nlogger: zap\nlog-level: warn\n\
             listen-client-urls: {client}\nadvertise-client-urls: {client}\n\
             listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n\
             initial-cluster: {all}\ninitial-cluster-state: {state}\ninitial-cluster-token: {token}\n\
             auto-compaction-mode: periodic\nauto-compaction-retention: 1h\n\
             client-transport-security:\n{tls}peer-transport-security:\n{tls}"
        )
    }
}

impl Seat {
    /// Whether it is on this server.
    pub fn is_at(&self, place: &Place) -> bool {
        self.peer == place.peer()
    }

    /// Whether it answers.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, Health::Healthy { .. })
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        matches!(self.health, Health::Healthy { leads: true, .. })
    }

    /// What to call it: its name, else its address.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.peer)
    }
}

/// The host of an address such as `https://10.0.0.7:2379`, when it is an IP address.
pub fn host(url: &str) -> Option<IpAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').parse::<SocketAddr>().ok().map(|address| address.ip())
}

fn url(ip: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(server: &str, ip: &str) -> Place {
        Place { server: server.parse().unwrap(), ip: ip.parse().unwrap() }
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (ip, expected) in [("10.0.0.7", "https://10.0.0.7:2379"), ("fd00::7", "https://[fd00::7]:2379")] {
            let place = place("s1", ip);
            assert_eq!(place.client(), expected);
            assert_eq!(host(&place.client()), Some(place.ip));
        }
        assert_eq!(host("http://etcd.example.com:2379"), None);
    }

    #[test]
    fn a_member_founds_alone_and_joins_beside_all_the_others() {
        let one = place("s1", "10.0.0.1");
        let founded = one.settings(&Birth::Founds("quarry-1"));
        assert!(founded.contains("\ninitial-cluster: s1=https://10.0.0.1:2380\ninitial-cluster-state: new\n"));
        assert!(founded.contains("\ninitial-cluster-token: quarry-1\n"));
        let joined = place("s2", "10.0.0.2").settings(&Birth::Joins(&[one]));
        let all = "\ninitial-cluster: s1=https://10.0.0.1:2380,s2=https://10.0.0.2:2380\n";
        assert!(joined.contains(all) && joined.contains("\ninitial-cluster-state: existing\n"), "{joined}");
        assert_eq!(joined.matches("client-cert-auth: true").count(), 2, "clients and peers show certificates");
        assert!(!joined.contains("http://"));
    }
}
