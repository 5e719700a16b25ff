//! What keeps the containers of stacks from the servers, their own and the others, and so from each other: what one stack
//! publishes on a server is not for another one's containers, wherever they are. Docker itself parts the networks, but
//! not the servers' addresses; and as other servers see it a container's packets come from its server, which they trust,
//! so that only its own server can keep it from them.
//!
//! Containers are known by the addresses of their stack's network, which are IPv4 alone. What runs while an image is built
//! is no container of a stack, and no other stack's business either: it is known by docker's own bridge, where BuildKit
//! runs everything and knows no other network. What else a server's owner runs there is kept in with it.
//!
//! The addresses at which clouds tell a machine its own secrets are for nobody behind the wall.

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
    /// The address at which stacks' containers find what they are linked to, on their own server.
    #[serde(default)]
    pub embassy: Option<IpAddr>,
    /// What single networks reach there; `None` leaves it at what it is.
    #[serde(default)]
    pub ways: Option<BTreeSet<Way>>,
    /// Whether images are built here.
    #[serde(default)]
    pub builds: Builds,
    /// TCP ports of the server that builds reach besides: a proxy's, an index's of packages.
    #[serde(default)]
    pub lent: BTreeSet<u16>,
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

/// Docker's own bridge, where the engine puts what a build runs.
const BUILDS: &str = "docker0";

/// Where machines of clouds are told who they are, and with which keys: whatever is valid on one link only (Amazon,
/// Google, DigitalOcean, Hetzner and most others), and the places of Alibaba, Azure and Oracle.
const CLOUD: &str = "169.254.0.0/16, 100.100.100.200, 168.63.129.16, 192.0.0.192";

/// The same in IPv6: Amazon's and Google's.
const CLOUD6: &str = "fd00:ec2::/32, fd20:ce::254, fe80::/10";

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
        text.name("cloud", "type ipv4_addr; flags interval;");
        text.fill("cloud", [CLOUD].iter());
        text.chain("input", &self.input());
        if self.builds == Builds::Here {
            text.name("peers6", "type ipv6_addr;");
            text.fill("peers6", self.peers.iter().filter(|peer| peer.is_ipv6()));
            text.name("cloud6", "type ipv6_addr; flags interval;");
            text.fill("cloud6", [CLOUD6].iter());
        }
        text.chain("forward", &self.forward());
        text.text
    }
}

impl Wall {
    /// What lets everything pass that does not come from behind the wall, and what belongs to a connection that may be.
    fn others(&self) -> Vec<String> {
        let but = match self.builds {
            Builds::Here => format!("iifname != \"{BUILDS}\" "),
            Builds::Elsewhere => String::new(),
        };
        let subnets = &self.subnets;
        vec![
            format!("{but}ip saddr != {subnets} accept"),
            format!("{but}meta nfproto != ipv4 accept"),
            "ct state established,related accept".to_owned(),
            "meta l4proto { icmp, ipv6-icmp } accept".to_owned(),
        ]
    }

    /// What is for the server itself.
    fn input(&self) -> Vec<String> {
        let mut rules = self.others();
        rules.push(NAMES.to_owned());
        rules.extend(ports(&self.open).map(|ports| format!("tcp dport {ports} accept")));
        // Whom it lets in is its own business: a stack reaches what is its own and what it links to.
        if let Some(IpAddr::V4(embassy)) = self.embassy {
            rules.push(format!("ip saddr {} ip daddr {embassy} accept", self.subnets));
        }
        if self.builds == Builds::Here {
            rules.extend(ports(&self.lent).map(|ports| format!("iifname \"{BUILDS}\" tcp dport {ports} accept")));
        }
        rules.push(REFUSE.to_owned());
        rules
    }

    /// What is for somebody beyond the server, or for another container.
    fn forward(&self) -> Vec<String> {
        let mut rules = self.others();
        // Clouds have their name servers at such addresses.
        rules.push(NAMES.to_owned());
        rules.push(format!("ip daddr @cloud {REFUSE}"));
        if self.builds == Builds::Here {
            rules.push(format!("iifname \"{BUILDS}\" ip daddr {} {REFUSE}", self.subnets));
            rules.push(format!("ip6 daddr @cloud6 {REFUSE}"));
            rules.push(format!("ip6 daddr @peers6 {REFUSE}"));
            rules.push("meta nfproto ipv6 accept".to_owned());
        }
        rules.push("ip daddr != @peers accept".to_owned());
        rules.push("ip daddr . tcp dport @public accept".to_owned());
        rules.push("ip saddr . ip daddr . tcp dport @ways accept".to_owned());
        rules.push(REFUSE.to_owned());
        rules
    }
}

const NAMES: &str = "meta l4proto { tcp, udp } th dport 53 accept";
const REFUSE: &str = "counter reject";

/// A set of ports in braces; none, which nft does not read, is nothing.
fn ports(ports: &BTreeSet<u16>) -> Option<String> {
    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
    (!listed.is_empty()).then(|| format!("{{ {} }}", listed.join(", ")))
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

    fn chain(&mut self, hook: &str, rules: &[String]) {
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
add rule inet quarry_hq_0123abcd input meta l4proto { icmp, ipv6-icmp } accept
add rule inet quarry_hq_0123abcd input meta l4proto { tcp, udp } th dport 53 accept
add rule inet quarry_hq_0123abcd input tcp dport { 80, 2222 } accept
add rule inet quarry_hq_0123abcd input counter reject
";
        assert!(wall().text().contains(expected), "{}", wall().text());
        assert!(!Wall { open: BTreeSet::new(), ..wall() }.text().contains("dport {  }"));
    }

    /// The rules of a chain.
    fn rules(wall: &Wall, hook: &str) -> Vec<String> {
        let start = format!("add rule inet quarry_hq_0123abcd {hook} ");
        wall.text().lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    #[test]
    fn what_a_build_runs_is_behind_the_wall_where_builds_run() {
        let first = |builds, hook| rules(&Wall { builds, ..wall() }, hook).remove(0);
        for hook in ["input", "forward"] {
            assert_eq!(first(Builds::Elsewhere, hook), "ip saddr != 10.208.0.0/12 accept");
            assert_eq!(first(Builds::Here, hook), "iifname != \"docker0\" ip saddr != 10.208.0.0/12 accept");
        }
        let here = Wall { builds: Builds::Here, lent: [3128].into(), ..wall() };
        let lent = "iifname \"docker0\" tcp dport { 3128 } accept".to_owned();
        assert!(rules(&here, "input").contains(&lent));
        assert!(!rules(&Wall { builds: Builds::Elsewhere, ..here.clone() }, "input").contains(&lent));
        let forward = rules(&here, "forward");
        assert!(
            forward.contains(&"iifname \"docker0\" ip daddr 10.208.0.0/12 counter reject".to_owned()),
            "{forward:?}"
        );
    }

    #[test]
    fn nobody_behind_the_wall_learns_the_secrets_of_the_machine_from_its_cloud() {
        for builds in [Builds::Here, Builds::Elsewhere] {
            let wall = Wall { builds, ..wall() };
            let text = wall.text();
            assert!(text.contains("cloud { 169.254.0.0/16, "), "{text}");
            let forward = rules(&wall, "forward");
            let at = |rule: &str| forward.iter().position(|own| own == rule).unwrap();
            assert!(at("ip daddr @cloud counter reject") < at("ip daddr != @peers accept"), "{forward:?}");
        }
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
        let forward = rules(&wall, "forward");
        assert_eq!(
            forward[6..],
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
