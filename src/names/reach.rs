//! Which hosts HQ speaks to because a repository names them. HQ stands where others do not: behind it are its servers,
//! their etcd, and what its cloud tells it alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What HQ may speak to for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Hosts inside that its owner has named, in small letters.
    pub named: BTreeSet<String>,
    /// The servers' addresses, public ones too: they let HQ in where they let in nobody else.
    pub servers: BTreeSet<IpAddr>,
}

impl Reach {
    /// Whether HQ may connect to `host` at `address`, which is one that it resolves to.
    pub fn allows(&self, host: &str, address: IpAddr) -> bool {
        self.is_named(host) || self.is_named(&address.to_string()) || self.is_outside(address)
    }

    /// Whether its owner has named this host.
    pub fn is_named(&self, host: &str) -> bool {
        self.named.contains(host.trim_end_matches('.').to_ascii_lowercase().as_str())
    }

    fn is_outside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) && !self.servers.iter().any(|server| server.to_canonical() == address)
    }
}

/// Whether an address is one of the public internet. IPv4 within IPv6 is what it leads to.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Blocks of IPv4 that are not public (RFC 6890 and its registry), and Azure's own server for its machines.
const NOT_PUBLIC: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let inside = |(network, bits): &(Ipv4Addr, u32)| (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0;
    !NOT_PUBLIC.iter().any(inside)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |a: u16, b: u16| Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b));
    match address.segments() {
        // NAT64 and 6to4 lead to an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => is_public_v4(within(a, b)),
        // Teredo and the like, documentation.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_known_in_every_spelling() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "192.0.0.192",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in
            ["1.1.1.1", "140.82.112.3", "172.32.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "2002:808:808::1"]
        {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn what_its_owner_names_is_reached_and_its_servers_are_not() {
        let reach = Reach {
            named: ["git.internal", "10.0.0.9"].map(str::to_owned).into(),
            servers: ["1.2.3.4"].map(|server| server.parse().unwrap()).into(),
        };
        let allows = |host: &str, address: &str| reach.allows(host, address.parse().unwrap());
        assert!(allows("Git.Internal.", "10.0.0.1") && allows("other", "10.0.0.9") && allows("h", "1.1.1.1"));
        assert!(!allows("other.internal", "10.0.0.1") && !allows("h", "1.2.3.4") && !allows("h", "::ffff:1.2.3.4"));
    }
}
