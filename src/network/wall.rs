//! What keeps the containers of stacks from the servers, their own and the others, and so from each other: what one stack
//! publishes on a server is not for another one's containers, wherever they are. Docker itself parts the networks, but
//! not the servers' addresses; and as other servers see it a container's packets come from its server, which they trust,
//! so that only its own server can keep it from them.
//!
//! Containers are known by the addresses of their stack's network, which are IPv4 alone.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use crate::units::net::Net;
use serde::{Deserialize, Serialize};

/// The wall of one HQ on one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// Which HQ, in hexadecimal.
    pub hq: String,
    /// Where its stacks' networks lie, such as `10.208.0.0/12`.
    pub subnets: String,
    /// TCP ports of the server that everybody reaches: the router's and HQ's own.
    pub open: BTreeSet<u16>,
    /// The addresses of the other servers: nothing of theirs is reached, but for what follows.
    #[serde(default)]
    pub peers: BTreeSet<IpAddr>,
    /// What everybody reaches there, by TCP.
    #[serde(default)]
    pub public: BTreeSet<SocketAddr>,
    /// What single networks reach there; `None` leaves it at what it is.
    #[serde(default)]
    pub ways: Option<BTreeSet<Way>>,
    /// Whether images are built here.
    #[serde(default)]
    pub builds: Builds,
}

/// Whether a server builds images, in which whoever pushes runs commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Builds {
    /// It does: what runs meanwhile reaches no other server either.
    Here,
    /// It does not.
    #[default]
    Elsewhere,
}

/// Docker's own bridge, where the engine puts what a build runs: BuildKit knows no other network.
const BUILDS: &str = "docker0";

/// A way for the containers of one network to one TCP port of another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Way {
    /// Whose.
    pub from: Net,
    /// Where to.
    pub to: SocketAddr,
}

impl Wall {
    /// The table the rules are in.
    pub fn table(&self) -> String {
        format!("quarry_hq_{}", self.hq)
    }

    /// A transaction that takes the wall down; not there is success.
    pub fn removal(&self) -> String {
        let table = self.table();
        format!("table inet {table}\ndelete table inet {table}\n")
    }

    /// A transaction that puts the wall up, or changes the one that stands. Sets stay and change what they have: a packet
    /// that is under way in the rules finds either all that was or all that is in them. Where something else stands in the
    /// way under one of the names it is refused, and the wall is to be removed first.
    pub fn text(&self) -> String {
        let mut text = Text { table: self.table(), text: String::new() };
        text.line(&format!("add table inet {}", text.table));
        text.name("peers", "type ipv4_addr;");
        text.fill("peers", self.peers.iter().filter(|peer| peer.is_ipv4()));
        let four = |to: &SocketAddr| match to {
            SocketAddr::V4(to) => Some(*to),
            SocketAddr::V6(_) => None,
        };
        text.name("public", "type ipv4_addr . inet_service;");
        text.fill("public", self.public.iter().filter_map(four).map(place));
        text.name("ways", "type ipv4_addr . ipv4_addr . inet_service; flags interval;");
        if let Some(ways) = &self.ways {
            let ways = ways.iter().filter(|way| way.from.is_ipv4());
            text.fill("ways", ways.filter_map(|way| Some(format!("{} . {}", way.from, place(four(&way.to)?)))));
        }
        let ports = match self.open.iter().map(u16::to_string).collect::<Vec<_>>() {
            none if none.is_empty() => None,
            ports => Some(format!("tcp dport {{ {} }} accept", ports.join(", "))),
        };
        let others =
            |but: &str| [format!("{but}ip saddr != {} accept", self.subnets), "meta nfproto != ipv4 accept".to_owned()];
        let builds = match self.builds {
            Builds::Here => format!("iifname != \"{BUILDS}\" "),
            Builds::Elsewhere => String::new(),
        };
        let known = ["ct state established,related accept", "meta l4proto icmp accept"].map(str::to_owned);
        let names = ["meta l4proto { tcp, udp } th dport 53 accept".to_owned()];
        let refuse = ["counter reject".to_owned()];
        text.chain("input", others("").iter().chain(&known).chain(&names).chain(&ports).chain(&refuse));
        let beyond = [
            "ip daddr != @peers accept",
            "ip daddr . tcp dport @public accept",
            "ip saddr . ip daddr . tcp dport @ways accept",
        ]
        .map(str::to_owned);
        text.chain("forward", others(&builds).iter().chain(&known).chain(&beyond).chain(&refuse));
        text.text
    }
}

/// An address and a port as elements have them.
fn place(at: SocketAddrV4) -> String {
    format!("{} . {}", at.ip(), at.port())
}

struct Text {
    table: String,
    text: String,
}

impl Text {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }

    fn name(&mut self, set: &str, kind: &str) {
        self.line(&format!("add set inet {} {set} {{ {kind} }}", self.table));
    }

    fn fill<T: Display>(&mut self, set: &str, elements: impl Iterator<Item = T>) {
        let set = format!("inet {} {set}", self.table);
        self.line(&format!("flush set {set}"));
        let elements: Vec<String> = elements.map(|element| element.to_string()).collect();
        if !elements.is_empty() {
            self.line(&format!("add element {set} {{ {} }}", elements.join(", ")));
        }
    }

    fn chain<'a>(&mut self, hook: &str, rules: impl Iterator<Item = &'a String>) {
        let chain = format!("inet {} {hook}", self.table);
        self.line(&format!("add chain {chain} {{ type filter hook {hook} priority -10; policy accept; }}"));
        self.line(&format!("flush chain {chain}"));
        for rule in rules {
            self.line(&format!("add rule {chain} {rule}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall() -> Wall {
        Wall { hq: "0123abcd".into(), subnets: "10.208.0.0/12".into(), open: [2222, 80].into(), ..Wall::default() }
    }

    #[test]
    fn containers_reach_the_router_and_names_and_nothing_else_of_their_server() {
        let expected = "add chain inet quarry_hq_0123abcd input { type filter hook input priority -10; policy accept; }
flush chain inet quarry_hq_0123abcd input
add rule inet quarry_hq_0123abcd input ip saddr != 10.208.0.0/12 accept
add rule inet quarry_hq_0123abcd input meta nfproto != ipv4 accept
add rule inet quarry_hq_0123abcd input ct state established,related accept
add rule inet quarry_hq_0123abcd input meta l4proto icmp accept
add rule inet quarry_hq_0123abcd input meta l4proto { tcp, udp } th dport 53 accept
add rule inet quarry_hq_0123abcd input tcp dport { 80, 2222 } accept
add rule inet quarry_hq_0123abcd input counter reject
";
        assert!(wall().text().contains(expected), "{}", wall().text());
        assert!(!Wall { open: BTreeSet::new(), ..wall() }.text().contains("dport {  }"));
    }

    #[test]
    fn what_a_build_runs_is_kept_from_other_servers_where_builds_run() {
        let first = |builds| {
            let text = Wall { builds, ..wall() }.text();
            let rules = text.lines().filter_map(|line| line.strip_prefix("add rule inet quarry_hq_0123abcd forward "));
            rules.map(str::to_owned).next().unwrap()
        };
        assert_eq!(first(Builds::Elsewhere), "ip saddr != 10.208.0.0/12 accept");
        assert_eq!(first(Builds::Here), "iifname != \"docker0\" ip saddr != 10.208.0.0/12 accept");
    }

    #[test]
    fn of_other_servers_they_reach_what_is_public_and_their_own_ways() {
        let wall = Wall {
            peers: ["10.0.0.2", "fd00::2", "10.0.0.3"].map(|peer| peer.parse().unwrap()).into(),
            public: ["10.0.0.2:80", "[fd00::2]:80"].map(|at| at.parse().unwrap()).into(),
            ways: Some([Way { from: "10.208.0.64/26".parse().unwrap(), to: "10.0.0.3:20001".parse().unwrap() }].into()),
            ..wall()
        };
        let text = wall.text();
        for expected in [
            "add element inet quarry_hq_0123abcd peers { 10.0.0.2, 10.0.0.3 }\n",
            "add element inet quarry_hq_0123abcd public { 10.0.0.2 . 80 }\n",
            "add element inet quarry_hq_0123abcd ways { 10.208.0.64/26 . 10.0.0.3 . 20001 }\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let forward: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("add rule inet quarry_hq_0123abcd forward ")).collect();
        assert_eq!(
            forward[4..],
            [
                "ip daddr != @peers accept",
                "ip daddr . tcp dport @public accept",
                "ip saddr . ip daddr . tcp dport @ways accept",
                "counter reject"
            ]
        );
        let unknown = Wall { ways: None, ..wall }.text();
        assert!(
            unknown.contains("add set inet quarry_hq_0123abcd ways") && !unknown.contains("0123abcd ways\n"),
            "{unknown}"
        );
    }

    #[test]
    fn a_wall_of_an_earlier_time_reads_as_one_without_other_servers() {
        let json = r#"{"hq":"0123abcd","subnets":"10.208.0.0/12","open":[80,2222]}"#;
        assert_eq!(serde_json::from_str::<Wall>(json).unwrap(), wall());
    }
}
