//! What each server should be, from what HQ knows of all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::agent::config::Contents;
use crate::agent::{Config, Turn};
use crate::etc::Balancers;
use crate::names::ServerName;
use crate::network::config::ConfigPath;
use crate::network::hosts::Entries;
use crate::network::policy::SSH;
use crate::network::wall::{Builds, Wall, Way};
use crate::network::{Containers, Net, Policy};
use crate::units::port::Port;

/// The tag of servers that route.
pub const ROUTER: &str = "router";

/// `config/network.json`: whether servers refuse strangers. Until somebody says so, those that were added do, and HQ's
/// own does not: quarry has not set that one up, and does not know what else it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// They do.
    On,
    /// Everybody reaches everything.
    Off,
}

/// All that is known when the servers' configurations are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The value of the label on this HQ's containers.
    pub hq: String,
    /// Where the networks of its stacks lie.
    pub subnets: String,
    /// Whether servers refuse strangers, if somebody has said so.
    pub lock: Option<Lock>,
    /// Every server.
    pub servers: BTreeMap<ServerName, Place>,
    /// HQ's own server among them.
    pub here: ServerName,
    /// Where they listen.
    pub ports: Ports,
    /// Who stands in front of the routers.
    pub balancers: Balancers,
    /// The config files of every server.
    pub files: BTreeMap<ConfigPath, Contents>,
    /// TCP ports of HQ's own server that builds reach.
    pub lent: BTreeSet<u16>,
    /// What the containers of each server reach on others. A server whose networks are not known yet is not in it.
    pub ways: BTreeMap<ServerName, BTreeSet<Way>>,
    /// Where every server's embassy listens.
    pub embassy: Option<IpAddr>,
}

/// The TCP ports at which everybody is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// HQ, for SSH.
    pub ssh: u16,
    /// Routers.
    pub http: u16,
    /// Routers for HTTPS, if they listen for that.
    pub https: Option<u16>,
}

impl Ports {
    fn of_router(self) -> impl Iterator<Item = u16> {
        [self.http].into_iter().chain(self.https)
    }
}

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its addresses, the one for other servers first. HQ's own may be seen under several.
    pub addresses: Vec<IpAddr>,
    /// The ports at which its own sshd lets people and HQ in, as far as that is known.
    pub sshd: BTreeSet<u16>,
    /// What it is good for.
    pub tags: BTreeSet<String>,
}

impl Wanted {
    /// Whether a server routes. HQ's own does, by itself.
    pub fn routes(&self, server: &ServerName) -> bool {
        *server != self.here && self.servers.get(server).is_some_and(|place| place.tags.contains(ROUTER))
    }

    /// Where the router of HQ's own server is reached from others.
    pub fn router_of_hq(&self) -> Option<SocketAddr> {
        let address = self.servers.get(&self.here)?.addresses.first()?;
        Some(SocketAddr::from((*address, self.ports.http)))
    }

    /// What a server should be.
    pub fn config(&self, server: &ServerName, turn: Turn) -> Config {
        let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let routes = self.routes(server);
        let router = routes.then(|| everywhere.map(|address| (address, self.ports.http).into()).to_vec());
        let https =
            self.ports.https.filter(|_| routes).map(|port| everywhere.map(|address| (address, port).into()).to_vec());
        Config {
            turn,
            label: format!("quarry.hq={}", self.hq),
            locknet: match self.lock {
                Some(Lock::On) => Some(self.policy(server)),
                None if *server != self.here => Some(self.policy(server)),
                None | Some(Lock::Off) => None,
            },
            wall: Some(self.wall(server)),
            hosts: self.hosts(),
            files: self.files.clone(),
            router,
            https: https.unwrap_or_default(),
            balancers: self.balancers.clone(),
            embassy: self.embassy,
        }
    }

    /// What keeps a server's containers apart from everything that is not theirs.
    pub fn wall(&self, server: &ServerName) -> Wall {
        let others = || self.servers.iter().filter(|(name, _)| *name != server);
        let public = |(name, place): (&ServerName, &Place)| {
            let ports = self.public(name);
            let at = |address: &IpAddr| ports.iter().map(|port| SocketAddr::new(*address, *port)).collect::<Vec<_>>();
            place.addresses.iter().flat_map(at).collect::<Vec<_>>()
        };
        Wall {
            hq: self.hq.clone(),
            subnets: self.subnets.clone(),
            open: self.public(server),
            peers: others().flat_map(|(_, place)| place.addresses.iter().copied()).collect(),
            public: others().flat_map(public).collect(),
            embassy: self.embassy,
            ways: self.ways.get(server).cloned(),
            builds: if *server == self.here { Builds::Here } else { Builds::Elsewhere },
            lent: if *server == self.here { self.lent.clone() } else { BTreeSet::new() },
        }
    }

    /// The TCP ports at which a server answers everybody, beside its own sshd.
    fn public(&self, server: &ServerName) -> BTreeSet<u16> {
        if *server == self.here {
            self.ports.of_router().chain([self.ports.ssh]).collect()
        } else if self.routes(server) {
            self.ports.of_router().collect()
        } else {
            BTreeSet::new()
        }
    }

    /// Servers reach each other, everybody the ways in. What parts containers is the wall.
    fn policy(&self, server: &ServerName) -> Policy {
        let sshd = self.servers.get(server).into_iter().flat_map(|place| &place.sshd).copied().map(Port::tcp);
        let open = self.public(server).into_iter().map(Port::tcp).chain(sshd).chain([SSH]).collect();
        let peers = self.servers.values().flat_map(|place| &place.addresses).map(|address| Net::from(*address));
        Policy { peers: peers.collect(), open, containers: Containers::Free }
    }

    fn hosts(&self) -> Entries {
        let mut entries = Entries::new();
        for (name, place) in &self.servers {
            if let Some(address) = place.addresses.first() {
                entries.entry(*address).or_default().insert(name.clone());
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        let place = |address: &str, tags: &[&str]| Place {
            addresses: vec![address.parse().unwrap()],
            sshd: BTreeSet::from([if tags.is_empty() { 22 } else { 2200 }]),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let servers = [
            ("hq", place("10.0.0.1", &["router"])),
            ("s1", place("10.0.0.2", &[])),
            ("s2", place("10.0.0.3", &["router", "ssd"])),
        ];
        Wanted {
            hq: "0123abcd".into(),
            subnets: "10.208.0.0/12".into(),
            lock: Some(Lock::On),
            servers: servers.map(|(name, place)| (name.parse().unwrap(), place)).into(),
            here: "hq".parse().unwrap(),
            ports: Ports { ssh: 2222, http: 80, https: Some(443) },
            balancers: Balancers::default(),
            files: BTreeMap::new(),
            lent: BTreeSet::from([3128]),
            ways: BTreeMap::new(),
            embassy: None,
        }
    }

    fn config(wanted: &Wanted, server: &str) -> Config {
        wanted.config(&server.parse().unwrap(), Turn { epoch: 1, generation: 1 })
    }

    #[test]
    fn servers_let_each_other_in_and_everybody_where_they_serve_everybody() {
        let check = |server: &str, expected: &[&str], routes: bool| {
            let config = config(&wanted(), server);
            let policy = config.locknet.unwrap();
            let peers: Vec<String> = policy.peers.iter().map(Net::to_string).collect();
            assert_eq!(peers, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
            let open: Vec<String> = policy.open.iter().map(Port::to_string).collect();
            assert_eq!(open, expected, "{server}");
            assert_eq!(config.router.is_some_and(|router| router.len() == 2), routes, "{server}");
        };
        check("hq", &["22", "80", "443", "2200", "2222"], false);
        check("s1", &["22"], false);
        check("s2", &["22", "80", "443", "2200"], true);
        let wall = |server| config(&wanted(), server).wall.map(|wall| wall.open);
        assert_eq!(wall("hq"), Some([80, 443, 2222].into()));
        assert_eq!((wall("s1"), wall("s2")), (Some([].into()), Some([80, 443].into())));
        let lent = |server| config(&wanted(), server).wall.map(|wall| wall.lent);
        assert_eq!((lent("hq"), lent("s1")), (Some([3128].into()), Some([].into())));
    }

    #[test]
    fn containers_reach_of_other_servers_what_is_public_there_and_their_own_ways() {
        let way = Way { from: "10.208.0.0/24".parse().unwrap(), to: "10.0.0.3:20001".parse().unwrap() };
        let wanted = Wanted { ways: BTreeMap::from([("s1".parse().unwrap(), [way].into())]), ..wanted() };
        let wall = |server: &str| config(&wanted, server).wall.unwrap();
        let texts = |public: BTreeSet<SocketAddr>| public.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        let of_s1 = wall("s1");
        assert_eq!(of_s1.peers, ["10.0.0.1", "10.0.0.3"].map(|peer| peer.parse().unwrap()).into());
        assert_eq!(
            texts(of_s1.public),
            ["10.0.0.1:80", "10.0.0.1:443", "10.0.0.1:2222", "10.0.0.3:80", "10.0.0.3:443"]
        );
        assert_eq!(of_s1.ways, Some([way].into()));
        assert_eq!(wall("s2").ways, None, "what its networks are is not known");
        assert_eq!(texts(wall("hq").public), ["10.0.0.3:80", "10.0.0.3:443"]);
    }

    #[test]
    fn an_open_network_refuses_nothing_and_everybody_is_named() {
        let config = config(&Wanted { lock: Some(Lock::Off), ..wanted() }, "s1");
        assert_eq!((config.locknet, config.hosts.len()), (None, 3));
        assert_eq!(config.label, "quarry.hq=0123abcd");
    }

    #[test]
    fn hqs_own_server_refuses_strangers_only_when_somebody_has_said_so() {
        let locked = |lock, server| config(&Wanted { lock, ..wanted() }, server).locknet.is_some();
        assert_eq!((locked(None, "hq"), locked(None, "s1")), (false, true));
        assert_eq!((locked(Some(Lock::On), "hq"), locked(Some(Lock::Off), "s1")), (true, false));
    }
}
