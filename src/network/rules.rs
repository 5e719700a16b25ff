//! A policy as text for nftables: a table of its own, with two base chains that lead to its rules.
//!
//! A change never deletes what packets may be under way in: a packet that has begun with the old rules looks into the old
//! sets a moment later, and would find them empty and itself refused. So new rules come as a further table, which is filled before it
//! counts; what both let through passes for some milliseconds; then the old table's base chains are emptied, and then it is
//! deleted. Base
//! chains end in a rule that refuses, never in a policy that does: a chain hangs in the packets' way a moment before its
//! rules count.
//!
//! While rules are on trial those before stand beside them, suspended. Both ask a set whose only elements the kernel
//! itself forgets when the time is over: the old rules count again then, whatever has become of the process that began the
//! trial, of its whole cgroup, or of the disk.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{Containers, Link, Policy};
use crate::units::net::Net;
use crate::units::port::{Port, Transport};

/// The set that the kernel empties when a trial is over.
pub const TRIAL: &str = "trial";

/// The rules of a trial outlast the suspension of those before by this: in between both count, and never none.
const OVERLAP: Duration = Duration::from_secs(1);

/// One of quarry's tables: a later one has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table(pub u32);

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quarry_{}", self.0)
    }
}

impl Table {
    /// The table of this name, if it is one of quarry's.
    pub fn named(name: &str) -> Option<Self> {
        let table = name.strip_prefix("quarry_")?.parse().ok().map(Self)?;
        (table.to_string() == name).then_some(table)
    }
}

/// How the rules of a table count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Until something else is applied.
    Standing,
    /// For so long, at least a second.
    Trial(Duration),
    /// Not for so long, then again.
    Suspended(Duration),
    /// Not any more.
    Never,
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

/// A transaction that adds a table with this policy. It does not count before [`force`] says so: packets must not look
/// into sets that are still being filled.
pub fn table(table: Table, policy: &Policy, machine: &Machine) -> String {
    let mut text = Text(format!("table inet {table} {{\n"));
    rules(&mut text, policy, machine);
    for hook in HOOKS {
        let base = [format!("type filter hook {hook} priority -10; policy accept;")];
        text.chain(hook, &base);
    }
    text.line("}");
    text.0
}

const HOOKS: [&str; 2] = ["input", "forward"];

/// A transaction after which the rules of the table count like this. It touches no set they ask.
pub fn force(table: Table, force: Force) -> String {
    let mut text = Text(String::new());
    let guard = match force {
        Force::Standing | Force::Never => None,
        Force::Trial(time) => Some((time + OVERLAP, "!= @trial")),
        Force::Suspended(time) => Some((time, "@trial")),
    };
    if let Some((time, _)) = guard {
        let seconds = time.as_secs().max(1);
        text.line(&format!("add set inet {table} {TRIAL} {{ type nf_proto; flags timeout; }}"));
        text.line(&format!("flush set inet {table} {TRIAL}"));
        let elements = ["ipv4", "ipv6"].map(|family| format!("{family} timeout {seconds}s")).join(", ");
        text.line(&format!("add element inet {table} {TRIAL} {{ {elements} }}"));
    }
    for hook in HOOKS {
        text.line(&format!("flush chain inet {table} {hook}"));
        let mut rule = |rule: &str| text.line(&format!("add rule inet {table} {hook} {rule}"));
        if force == Force::Never {
            continue;
        }
        if let Some((_, guard)) = guard {
            rule(&format!("meta nfproto {guard} accept"));
        }
        // That known connections may pass was decided when they began.
        rule("ct state established,related accept");
        rule(&format!("goto rules_{hook}"));
    }
    text.0
}

/// A transaction that deletes a table, there or not.
pub fn removal(table: Table) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
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

/// The sets and chains of a policy.
fn rules(text: &mut Text, policy: &Policy, machine: &Machine) {
    let (four, six): (Vec<&Net>, Vec<&Net>) = policy.peers.iter().partition(|net| net.is_ipv4());
    text.set("peers4", "ipv4_addr; flags interval; auto-merge", four);
    text.set("peers6", "ipv6_addr; flags interval; auto-merge", six);
    ports(text, "open", &policy.open);
    let from_container = format!("meta iifkind \"bridge\"{}", but(machine, "iifname"));
    let (input, forward) = match &policy.containers {
        Containers::Free => ("accept".to_owned(), "accept".to_owned()),
        Containers::Kept { links, cluster } => {
            kept(text, links, cluster, machine);
            ("goto containers".to_owned(), "goto outward".to_owned())
        }
    };
    let mut rules = vec!["iif lo accept".to_owned(), format!("{from_container} {input}")];
    rules.extend(peers("saddr", "accept"));
    rules.extend(STAYING_ALIVE.map(str::to_owned));
    rules.extend(open(["tcp dport", "udp dport"]));
    rules.push(REFUSE.to_owned());
    text.chain("rules_input", &rules);
    let mut rules = vec![format!("{from_container} {forward}")];
    rules.extend(elsewhere(machine));
    rules.extend(peers("saddr", "accept"));
    // Docker has put the container's port in the place of the published one by now; the connection remembers. One
    // that was not translated goes straight to a container, past what was published.
    let original = |protocol| format!("ct status dnat meta l4proto {protocol} ct original proto-dst");
    rules.extend(open([&original("tcp"), &original("udp")]));
    rules.push(REFUSE.to_owned());
    text.chain("rules_forward", &rules);
}

const REFUSE: &str = "counter drop";

/// Without neighbour discovery, path MTU and address leases a machine drops off its network.
const STAYING_ALIVE: [&str; 3] = [
    "meta l4proto { icmp, ipv6-icmp } accept",
    "meta nfproto ipv4 udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
];

/// What kept containers may: a chain for the server's own ports, one for everything beyond.
fn kept(text: &mut Text, links: &BTreeSet<Link>, cluster: &BTreeSet<Port>, machine: &Machine) {
    ports(text, "cluster", cluster);
    link_sets(text, links);
    let mut rules = vec![
        "ip saddr . tcp dport @near4 accept".to_owned(),
        "ip6 saddr . tcp dport @near6 accept".to_owned(),
        "meta l4proto { icmp, ipv6-icmp } accept".to_owned(),
        // The server may be the one who resolves names for them.
        "meta l4proto { tcp, udp } th dport 53 accept".to_owned(),
    ];
    rules.extend(open(["tcp dport", "udp dport"]));
    rules.push(REFUSE.to_owned());
    text.chain("containers", &rules);
    let mut rules = vec![
        "ip saddr . ip daddr . tcp dport @far4 accept".to_owned(),
        "ip6 saddr . ip6 daddr . tcp dport @far6 accept".to_owned(),
        "meta l4proto { icmp, ipv6-icmp } accept".to_owned(),
        "tcp dport @cluster_tcp accept".to_owned(),
        "udp dport @cluster_udp accept".to_owned(),
        REFUSE.to_owned(),
    ];
    text.chain("to_peers", &rules);
    // From bridge to bridge docker itself decides, and a network of peers may be wide enough to have them inside.
    rules = vec![format!("meta oifkind \"bridge\"{} accept", but(machine, "oifname"))];
    rules.extend(peers("daddr", "goto to_peers"));
    rules.push("accept".to_owned());
    text.chain("outward", &rules);
}

fn link_sets(text: &mut Text, links: &BTreeSet<Link>) {
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
    text.set("near4", "ipv4_addr . inet_service; flags interval", near(true));
    text.set("near6", "ipv6_addr . inet_service; flags interval", near(false));
    text.set("far4", "ipv4_addr . ipv4_addr . inet_service; flags interval", far(true));
    text.set("far6", "ipv6_addr . ipv6_addr . inet_service; flags interval", far(false));
}

fn ports(text: &mut Text, name: &str, ports: &BTreeSet<Port>) {
    for (transport, suffix) in [(Transport::Tcp, "tcp"), (Transport::Udp, "udp")] {
        let of = ports.iter().filter(|port| port.transport == transport).map(|port| port.number);
        text.set(&format!("{name}_{suffix}"), "inet_service", of);
    }
}

fn peers(side: &str, verdict: &str) -> [String; 2] {
    [format!("ip {side} @peers4 {verdict}"), format!("ip6 {side} @peers6 {verdict}")]
}

fn open(matches: [&str; 2]) -> [String; 2] {
    let [tcp, udp] = matches;
    [format!("{tcp} @open_tcp accept"), format!("{udp} @open_udp accept")]
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
    fn a_policy_is_a_table_of_sets_and_rules() {
        let policy = policy(&["192.0.2.1", "192.0.2.128/25", "2001:db8::1"], &["22", "443/udp"]);
        let expected = r#"table inet quarry_7 {
  set peers4 { type ipv4_addr; flags interval; auto-merge; elements = { 192.0.2.1, 192.0.2.128/25 }; }
  set peers6 { type ipv6_addr; flags interval; auto-merge; elements = { 2001:db8::1 }; }
  set open_tcp { type inet_service; elements = { 22 }; }
  set open_udp { type inet_service; elements = { 443 }; }
  chain rules_input {
    iif lo accept
    meta iifkind "bridge" iifname != { "br0" } accept
    ip saddr @peers4 accept
    ip6 saddr @peers6 accept
    meta l4proto { icmp, ipv6-icmp } accept
    meta nfproto ipv4 udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
    tcp dport @open_tcp accept
    udp dport @open_udp accept
    counter drop
  }
  chain rules_forward {
    meta iifkind "bridge" iifname != { "br0" } accept
    meta oifkind != "bridge" accept
    oifname { "br0" } accept
    ip saddr @peers4 accept
    ip6 saddr @peers6 accept
    ct status dnat meta l4proto tcp ct original proto-dst @open_tcp accept
    ct status dnat meta l4proto udp ct original proto-dst @open_udp accept
    counter drop
  }
  chain input {
    type filter hook input priority -10; policy accept;
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
  }
}
"#;
        let machine = Machine { uplinks: BTreeSet::from(["br0".parse().unwrap()]) };
        assert_eq!(table(Table(7), &policy, &machine), expected);
    }

    #[test]
    fn rules_in_force_hang_on_both_base_chains_behind_known_connections() {
        let expected = "flush chain inet quarry_7 input
add rule inet quarry_7 input ct state established,related accept
add rule inet quarry_7 input goto rules_input
flush chain inet quarry_7 forward
add rule inet quarry_7 forward ct state established,related accept
add rule inet quarry_7 forward goto rules_forward
";
        assert_eq!(force(Table(7), Force::Standing), expected);
    }

    #[test]
    fn a_trial_and_what_it_suspends_ask_the_kernels_clock() {
        let check = |kind, elements: &str, guard: &str| {
            let text = force(Table(1), kind);
            assert!(text.contains(&format!("{{ {elements} }}\n")), "{text}");
            assert!(text.contains(&format!("add rule inet quarry_1 input {guard} accept\nadd rule")), "{text}");
        };
        let time = Duration::from_secs(15);
        check(Force::Trial(time), "ipv4 timeout 16s, ipv6 timeout 16s", "meta nfproto != @trial");
        check(Force::Suspended(time), "ipv4 timeout 15s, ipv6 timeout 15s", "meta nfproto @trial");
        assert!(!force(Table(1), Force::Standing).contains("trial"));
        assert!(!force(Table(1), Force::Never).contains("add"));
    }

    #[test]
    fn only_quarrys_own_tables_are_taken_for_them() {
        assert_eq!(Table::named("quarry_12"), Some(Table(12)));
        for name in ["quarry_", "quarry_012", "quarry_+1", "quarry", "filter", "quarry_x"] {
            assert_eq!(Table::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_peer_more_changes_an_element_and_no_line() {
        let lines = |peers: &[&str]| {
            let text = table(Table(1), &policy(peers, &["22"]), &Machine::default());
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
        let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
        btree_set((1_u16.., transport).prop_map(|(number, transport)| Port { number, transport }), 0..5)
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
            let text = table(Table(1), &policy, &machine);
            let plain = table(Table(1), &empty, &machine);
            prop_assert_eq!(text.lines().count(), plain.lines().count());
            let plain = |c: char| c.is_ascii_alphanumeric() || " \n{}@\"_-.,:;/=!".contains(c);
            prop_assert!(text.chars().all(plain), "{}", text);
            prop_assert_eq!(text.matches('{').count(), text.matches('}').count());
            prop_assert_eq!(text.matches('"').count() % 2, 0);
        }
    }
}
