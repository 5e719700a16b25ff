//! What keeps the containers of stacks from their own server, and so from each other: ports that one stack publishes
//! there are not for another one's containers. Docker itself parts the networks, but not the server's own addresses.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The wall of one HQ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// Which HQ, in hexadecimal.
    pub hq: String,
    /// Where its stacks' networks lie, such as `10.208.0.0/12`.
    pub subnets: String,
    /// TCP ports of the server that everybody reaches: the router's and HQ's own.
    pub open: BTreeSet<u16>,
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

    /// A transaction that puts the wall up, in the place of an earlier one.
    pub fn text(&self) -> String {
        let Self { subnets, open, .. } = self;
        let mut text = format!("{}table inet {} {{\n", self.removal(), self.table());
        text.push_str("  chain input {\n    type filter hook input priority -10; policy accept;\n");
        let mut rule = |rule: &str| writeln!(text, "    {rule}").expect("a string takes everything");
        rule(&format!("ip saddr != {subnets} accept"));
        rule("meta nfproto != ipv4 accept");
        rule("ct state established,related accept");
        rule("meta l4proto icmp accept");
        rule("meta l4proto { tcp, udp } th dport 53 accept");
        if !open.is_empty() {
            let ports: Vec<String> = open.iter().map(u16::to_string).collect();
            rule(&format!("tcp dport {{ {} }} accept", ports.join(", ")));
        }
        rule("counter reject");
        text.push_str("  }\n}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_reach_the_router_and_names_and_nothing_else_of_their_server() {
        let wall = Wall { hq: "0123abcd".into(), subnets: "10.208.0.0/12".into(), open: [2222, 80].into() };
        let expected = "table inet quarry_hq_0123abcd
delete table inet quarry_hq_0123abcd
table inet quarry_hq_0123abcd {
  chain input {
    type filter hook input priority -10; policy accept;
    ip saddr != 10.208.0.0/12 accept
    meta nfproto != ipv4 accept
    ct state established,related accept
    meta l4proto icmp accept
    meta l4proto { tcp, udp } th dport 53 accept
    tcp dport { 80, 2222 } accept
    counter reject
  }
}
";
        assert_eq!(wall.text(), expected);
    }
}
