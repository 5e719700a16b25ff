//! What each server should be, from what HQ knows of all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::agent::config::Contents;
use crate::agent::{Config, Turn};
use crate::names::ServerName;
use crate::network::config::ConfigPath;
use crate::network::hosts::Entries;
use crate::network::policy::SSH;
use crate::network::wall::Wall;
use crate::network::{Containers, Net, Policy, Port};

/// The tag of servers that route.
pub const ROUTER: &str = "router";

/// `config/network.json`: whether servers refuse strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// They do.
    #[default]
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
    /// Whether servers refuse strangers.
    pub lock: Lock,
    /// Every server.
    pub servers: BTreeMap<ServerName, Place>,
    /// HQ's own server among them.
    pub here: ServerName,
    /// Where HQ listens for SSH.
    pub ssh: u16,
    /// Where routers listen.
    pub http: u16,
    /// The config files of every server.
    pub files: BTreeMap<ConfigPath, Contents>,
}

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its addresses, the one for other servers first. HQ's own may be seen under several.
    pub addresses: Vec<IpAddr>,
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
        Some(SocketAddr::from((*address, self.http)))
    }

    /// What a server should be.
    pub fn config(&self, server: &ServerName, turn: Turn) -> Config {
        let router = self.routes(server).then(|| vec![SocketAddr::from(([0, 0, 0, 0], self.http))]);
        Config {
            turn,
            label: format!("quarry.hq={}", self.hq),
            locknet: match self.lock {
                Lock::On => Some(self.policy(server)),
                Lock::Off => None,
            },
            wall: (*server != self.here).then(|| self.wall(server)),
            hosts: self.hosts(),
            files: self.files.clone(),
            router,
        }
    }

    /// What one stack publishes on a server is not for the containers of others there. On HQ's own, HQ sees to it.
    fn wall(&self, server: &ServerName) -> Wall {
        let open = if self.routes(server) { BTreeSet::from([self.http, 443]) } else { BTreeSet::new() };
        Wall { hq: self.hq.clone(), subnets: self.subnets.clone(), open }
    }

    /// Servers reach each other, everybody the ways in. What parts containers is the wall.
    fn policy(&self, server: &ServerName) -> Policy {
        let mut open = BTreeSet::from([SSH]);
        if *server == self.here {
            open.extend([Port::tcp(self.ssh), Port::tcp(self.http), Port::tcp(443)]);
        } else if self.routes(server) {
            open.extend([Port::tcp(self.http), Port::tcp(443)]);
        }
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
            lock: Lock::On,
            servers: servers.map(|(name, place)| (name.parse().unwrap(), place)).into(),
            here: "hq".parse().unwrap(),
            ssh: 2222,
            http: 80,
            files: BTreeMap::new(),
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
            assert_eq!(config.router.is_some(), routes, "{server}");
        };
        check("hq", &["22", "80", "443", "2222"], false);
        check("s1", &["22"], false);
        check("s2", &["22", "80", "443"], true);
        let wall = |server| config(&wanted(), server).wall.map(|wall| wall.open);
        assert_eq!((wall("hq"), wall("s1"), wall("s2")), (None, Some([].into()), Some([80, 443].into())));
    }

    #[test]
    fn an_open_network_refuses_nothing_and_everybody_is_named() {
        let config = config(&Wanted { lock: Lock::Off, ..wanted() }, "s1");
        assert_eq!((config.locknet, config.hosts.len()), (None, 3));
        assert_eq!(config.label, "quarry.hq=0123abcd");
    }
}
