//! A policy as the text of one nftables transaction.
//!
//! The base chains end in a rule that refuses, never in a policy that does: a chain hangs in the packets' way a moment
//! before its rules count, and must not refuse everything until then. For the same reason a whole table can be replaced
//! by another in one transaction without a packet too many lost or let through.
//!
//! A policy on trial stands beside the one before it. Which of the two counts is asked of a set whose only elements the
//! kernel itself forgets when the time is over: the old policy counts again then, whatever has become of the process
//! that began the trial, of its whole cgroup, or of the disk.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::str::FromStr;
use std::time::Duration;

use super::address::Net;
use super::policy::{Containers, Link, Policy, Port, Protocol};

/// Takes the table away, there or not.
pub const REMOVAL: &str = "table inet quarry\ndelete table inet quarry\n";

/// The set that the kernel empties when a trial is over.
pub const TRIAL: &str = "trial";

/// What is to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules<'a> {
    /// This, until something else is applied.
    Standing(&'a Policy),
    /// The new one for so long, then the old one; `None` lets everything through.
    Trial {
        /// What is tried.
        new: &'a Policy,
        /// What comes back.
        old: Option<&'a Policy>,
        /// How long, at least a second.
        time: Duration,
    },
}

/// What the text needs to know of the machine it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Bridges that lead outside. All others lead to containers or to virtual machines of this one.
    pub uplinks: BTreeSet<InterfaceName>,
}

/// The name of a network interface that needs no escaping: letters, digits, `.`, `_`, `-` and `@`, at most 15.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(String);

/// An interface whose name cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the interface `{0}` has signs in its name that rules cannot name; rename it: ip link set NAME name NEW")]
pub struct BadInterface(pub String);

impl FromStr for InterfaceName {
    type Err = BadInterface;
    fn from_str(text: &str) -> Result<Self, BadInterface> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        if (1..16).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadInterface(text.escape_debug().collect()))
        }
    }
}

impl Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// The transaction: after it the table holds these rules and nothing else.
pub fn text(rules: &Rules<'_>, machine: &Machine) -> String {
    let mut text = Text(format!("{REMOVAL}table inet quarry {{\n"));
    match rules {
        Rules::Standing(policy) => {
            generation(&mut text, "rules", policy, machine);
            base(&mut text, "input", &["goto rules_input"]);
            base(&mut text, "forward", &["goto rules_forward"]);
        }
        Rules::Trial { new, old, time } => {
            let seconds = time.as_secs().max(1);
            text.set(TRIAL, "nf_proto; flags timeout", ["ipv4", "ipv6"].map(|p| format!("{p} timeout {seconds}s")));
            generation(&mut text, "trial", new, machine);
            let tried = "meta nfproto @trial goto trial_";
            match old {
                Some(old) => {
                    generation(&mut text, "rules", old, machine);
                    base(&mut text, "input", &[&format!("{tried}input"), "goto rules_input"]);
                    base(&mut text, "forward", &[&format!("{tried}forward"), "goto rules_forward"]);
                }
                None => {
                    base(&mut text, "input", &[&format!("{tried}input")]);
                    base(&mut text, "forward", &[&format!("{tried}forward")]);
                }
            }
        }
    }
    text.0.push_str("}\n");
    text.0
}

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Elements of an empty list are no text nft reads: they are left out.
    fn set<T: Display>(&mut self, name: &str, kind: &str, elements: impl IntoIterator<Item = T>) {
        let mut elements = elements.into_iter();
        write!(self.0, "  set {name} {{ type {kind};").expect("text grows");
        if let Some(first) = elements.next() {
            write!(self.0, " elements = {{ {first}").expect("text grows");
            for element in elements {
                write!(self.0, ", {element}").expect("text grows");
            }
            self.0.push_str(" };");
        }
        self.line(" }");
    }

    fn chain(&mut self, name: &str, rules: &[String]) {
        self.line(&format!("  chain {name} {{"));
        for rule in rules {
            self.line(&format!("    {rule}"));
        }
        self.line("  }");
    }
}

/// A chain that the kernel calls. Packets of known connections pass first: that they may was decided when they began.
fn base(text: &mut Text, hook: &str, rules: &[&str]) {
    let head = format!("type filter hook {hook} priority -10; policy accept;");
    let known = "ct state established,related accept".to_owned();
    let rules = rules.iter().map(|rule| (*rule).to_owned());
    text.chain(hook, &[head, known].into_iter().chain(rules).collect::<Vec<_>>());
}

/// The sets and chains of one policy. Names begin with `name`.
fn generation(text: &mut Text, name: &str, policy: &Policy, machine: &Machine) {
    let (four, six): (Vec<&Net>, Vec<&Net>) = policy.peers.iter().partition(|net| net.is_ipv4());
    text.set(&format!("{name}_peers4"), "ipv4_addr; flags interval; auto-merge", four);
    text.set(&format!("{name}_peers6"), "ipv6_addr; flags interval; auto-merge", six);
    ports(text, &format!("{name}_open"), &policy.open);
    let from_container = format!("meta iifkind \"bridge\"{}", but(machine, "iifname"));
    let (input, forward) = match &policy.containers {
        Containers::Free => ("accept".to_owned(), "accept".to_owned()),
        Containers::Kept { links, cluster } => {
            kept(text, name, links, cluster, machine);
            (format!("goto {name}_containers"), format!("goto {name}_outward"))
        }
    };
    let mut rules = vec!["iif lo accept".to_owned(), format!("{from_container} {input}")];
    rules.extend(peers(name, "saddr", "accept"));
    rules.extend(STAYING_ALIVE.map(str::to_owned));
    rules.extend(open(name, ["tcp dport", "udp dport"]));
    rules.push(REFUSE.to_owned());
    text.chain(&format!("{name}_input"), &rules);
    let mut rules = vec![format!("{from_container} {forward}")];
    rules.extend(elsewhere(machine));
    rules.extend(peers(name, "saddr", "accept"));
    // Docker has put the container's port in the place of the published one by now; the connection remembers. One
    // that was not translated goes straight to a container, past what was published.
    let original = |protocol| format!("ct status dnat meta l4proto {protocol} ct original proto-dst");
    rules.extend(open(name, [&original("tcp"), &original("udp")]));
    rules.push(REFUSE.to_owned());
    text.chain(&format!("{name}_forward"), &rules);
}

const REFUSE: &str = "counter drop";

/// Without neighbour discovery, path MTU and address leases a machine drops off its network.
const STAYING_ALIVE: [&str; 3] = [
    "meta l4proto { icmp, ipv6-icmp } accept",
    "meta nfproto ipv4 udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
];

/// What kept containers may: a chain for the server's own ports, one for everything beyond.
fn kept(text: &mut Text, name: &str, links: &BTreeSet<Link>, cluster: &BTreeSet<Port>, machine: &Machine) {
    ports(text, &format!("{name}_cluster"), cluster);
    link_sets(text, name, links);
    let mut rules = vec![
        format!("ip saddr . tcp dport @{name}_near4 accept"),
        format!("ip6 saddr . tcp dport @{name}_near6 accept"),
        "meta l4proto { icmp, ipv6-icmp } accept".to_owned(),
        // The server may be the one who resolves names for them.
        "meta l4proto { tcp, udp } th dport 53 accept".to_owned(),
    ];
    rules.extend(open(name, ["tcp dport", "udp dport"]));
    rules.push(REFUSE.to_owned());
    text.chain(&format!("{name}_containers"), &rules);
    let mut rules = vec![
        format!("ip saddr . ip daddr . tcp dport @{name}_far4 accept"),
        format!("ip6 saddr . ip6 daddr . tcp dport @{name}_far6 accept"),
        "meta l4proto { icmp, ipv6-icmp } accept".to_owned(),
        format!("tcp dport @{name}_cluster_tcp accept"),
        format!("udp dport @{name}_cluster_udp accept"),
        REFUSE.to_owned(),
    ];
    text.chain(&format!("{name}_to_peers"), &rules);
    // From bridge to bridge docker itself decides, and a network of peers may be wide enough to have them inside.
    rules = vec![format!("meta oifkind \"bridge\"{} accept", but(machine, "oifname"))];
    rules.extend(peers(name, "daddr", &format!("goto {name}_to_peers")));
    rules.push("accept".to_owned());
    text.chain(&format!("{name}_outward"), &rules);
}

fn link_sets(text: &mut Text, name: &str, links: &BTreeSet<Link>) {
    let near = |four| {
        let links = links.iter().filter(move |link| link.to.is_none() && link.from.is_ipv4() == four);
        links.map(|link| format!("{} . {}", link.from, link.port))
    };
    // A link from one family of addresses to the other carries nothing.
    let far = |four| {
        let fits = move |link: &&Link| link.from.is_ipv4() == four && link.to.is_some_and(|to| to.is_ipv4() == four);
        let text = |link: &Link| link.to.map(|to| format!("{} . {to} . {}", link.from, link.port));
        links.iter().filter(fits).filter_map(text)
    };
    text.set(&format!("{name}_near4"), "ipv4_addr . inet_service; flags interval", near(true));
    text.set(&format!("{name}_near6"), "ipv6_addr . inet_service; flags interval", near(false));
    text.set(&format!("{name}_far4"), "ipv4_addr . ipv4_addr . inet_service; flags interval", far(true));
    text.set(&format!("{name}_far6"), "ipv6_addr . ipv6_addr . inet_service; flags interval", far(false));
}

fn ports(text: &mut Text, name: &str, ports: &BTreeSet<Port>) {
    for (protocol, suffix) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
        let of = ports.iter().filter(|port| port.protocol == protocol).map(|port| port.number);
        text.set(&format!("{name}_{suffix}"), "inet_service", of);
    }
}

fn peers(name: &str, side: &str, verdict: &str) -> [String; 2] {
    [format!("ip {side} @{name}_peers4 {verdict}"), format!("ip6 {side} @{name}_peers6 {verdict}")]
}

fn open(name: &str, matches: [&str; 2]) -> [String; 2] {
    let [tcp, udp] = matches;
    [format!("{tcp} @{name}_open_tcp accept"), format!("{udp} @{name}_open_udp accept")]
}

/// What passes through to another network, and not to a container, is no concern of ours: the server may be a gateway.
fn elsewhere(machine: &Machine) -> Vec<String> {
    let mut rules = vec!["meta oifkind != \"bridge\" accept".to_owned()];
    if !machine.uplinks.is_empty() {
        rules.push(format!("oifname {} accept", names(machine)));
    }
    rules
}

fn but(machine: &Machine, side: &str) -> String {
    if machine.uplinks.is_empty() { String::new() } else { format!(" {side} != {}", names(machine)) }
}

fn names(machine: &Machine) -> String {
    let names: Vec<String> = machine.uplinks.iter().map(InterfaceName::to_string).collect();
    format!("{{ {} }}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::btree_set;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::network::policy::SSH;

    fn policy(peers: &[&str], open: &[&str]) -> Policy {
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let open = open.iter().map(|port| port.parse().unwrap()).collect();
        Policy { peers, open, containers: Containers::Free }
    }

    #[test]
    fn a_whole_table_takes_the_place_of_the_one_before() {
        let policy = policy(&["192.0.2.1", "192.0.2.128/25", "2001:db8::1"], &["22", "443/udp"]);
        let expected = r#"table inet quarry
delete table inet quarry
table inet quarry {
  set rules_peers4 { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.1, 192.0.2.128/25 }; }
  set rules_peers6 { type ipv6_addr; flags interval; auto-merge; elements = { 2001:db8::1 }; }
  set rules_open_tcp { type inet_service; elements = { 22 }; }
  set rules_open_udp { type inet_service; elements = { 443 }; }
  chain rules_input {
    iif lo accept
    meta iifkind "bridge" iifname != { "br0" } accept
    ip saddr @rules_peers4 accept
    ip6 saddr @rules_peers6 accept
    meta l4proto { icmp, ipv6-icmp } accept
    meta nfproto ipv4 udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
    tcp dport @rules_open_tcp accept
    udp dport @rules_open_udp accept
    counter drop
  }
  chain rules_forward {
    meta iifkind "bridge" iifname != { "br0" } accept
    meta oifkind != "bridge" accept
    oifname { "br0" } accept
    ip saddr @rules_peers4 accept
    ip6 saddr @rules_peers6 accept
    ct status dnat meta l4proto tcp ct original proto-dst @rules_open_tcp accept
    ct status dnat meta l4proto udp ct original proto-dst @rules_open_udp accept
    counter drop
  }
  chain input {
    type filter hook input priority -10; policy accept;
    ct state established,related accept
    goto rules_input
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    goto rules_forward
  }
}
"#;
        let machine = Machine { uplinks: BTreeSet::from(["br0".parse().unwrap()]) };
        assert_eq!(text(&Rules::Standing(&policy), &machine), expected);
    }

    #[test]
    fn a_trial_asks_the_kernels_clock_before_the_new_rules_and_has_the_old_behind() {
        let (new, old) = (policy(&["192.0.2.1"], &["22"]), policy(&[], &["80"]));
        let trial = |old| text(&Rules::Trial { new: &new, old, time: Duration::from_secs(15) }, &Machine::default());
        let both = trial(Some(&old));
        assert!(both.contains("elements = { ipv4 timeout 15s, ipv6 timeout 15s };"), "{both}");
        let order = "    meta nfproto @trial goto trial_input\n    goto rules_input\n";
        assert!(both.contains(order), "{both}");
        assert!(trial(None).contains("    meta nfproto @trial goto trial_forward\n  }\n"));
        assert!(!trial(None).contains("rules_"));
    }

    #[test]
    fn a_peer_more_changes_an_element_and_no_line() {
        let lines = |peers: &[&str]| {
            let text = text(&Rules::Standing(&policy(peers, &["22"])), &Machine::default());
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, two) = (lines(&["192.0.2.1"]), lines(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(one.len(), two.len());
        assert_eq!(one.iter().zip(&two).filter(|(one, two)| one != two).count(), 1);
    }

    #[test]
    fn an_interface_with_a_quote_in_its_name_is_refused() {
        for name in ["eth0", "br-0a1b2c3d4e5f", "vmbr0.12", "e@if2"] {
            assert!(name.parse::<InterfaceName>().is_ok(), "{name}");
        }
        for name in ["", "a\"b", "a b", "a\nb", "0123456789abcdef", "a{b", "a*", "ä"] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name}");
        }
    }

    fn nets() -> impl Strategy<Value = BTreeSet<Net>> {
        btree_set((any::<IpAddr>(), 1_u8..=128).prop_map(|(address, bits)| Net::new(address, bits)), 0..20)
    }

    fn ports() -> impl Strategy<Value = BTreeSet<Port>> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        btree_set((1_u16.., protocol).prop_map(|(number, protocol)| Port { number, protocol }), 0..5)
    }

    fn containers() -> impl Strategy<Value = Containers> {
        let link = (any::<IpAddr>(), 8_u8..=128, option::of(any::<IpAddr>()), any::<u16>())
            .prop_map(|(address, bits, to, port)| Link { from: Net::new(address, bits), to, port });
        let kept = (btree_set(link, 0..10), ports()).prop_map(|(links, cluster)| Containers::Kept { links, cluster });
        prop_oneof![Just(Containers::Free), kept]
    }

    prop_compose! {
        fn policies()(peers in nets(), open in ports(), containers in containers()) -> Policy {
            Policy { peers, open, containers }
        }
    }

    proptest! {
        /// Nothing but digits, letters and the signs of addresses comes into the lines, and none is added by a value.
        #[test]
        fn values_from_outside_stay_values(policy in policies(), names in btree_set("\\PC{1,15}", 0..4)) {
            let uplinks: BTreeSet<InterfaceName> = names.iter().filter_map(|name| name.parse().ok()).collect();
            let empty = Policy { peers: BTreeSet::new(), open: BTreeSet::from([SSH]), ..policy.clone() };
            let machine = Machine { uplinks };
            let text = text(&Rules::Standing(&policy), &machine);
            let plain = super::text(&Rules::Standing(&empty), &machine);
            prop_assert_eq!(text.lines().count(), plain.lines().count());
            let plain = |c: char| c.is_ascii_alphanumeric() || " \n{}@\"_-.,:;/=!".contains(c);
            prop_assert!(text.chars().all(plain), "{}", text);
            prop_assert_eq!(text.matches('{').count(), text.matches('}').count());
            prop_assert_eq!(text.matches('"').count() % 2, 0);
        }
    }
}
