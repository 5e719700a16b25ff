//! Which hosts HQ speaks to because a repository names them. HQ stands where others do not: behind it are its servers,
//! their etcd, and what its cloud tells it alone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::names::printable::is_harmless;

/// The address of a git server, in the parts that say where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What is spoken there.
    pub scheme: Scheme,
    /// `user@` as it is before the host, or nothing.
    user: String,
    /// A name or an address, in small letters and without brackets.
    pub host: String,
    /// The port, where the address names one.
    port: Option<u16>,
    /// What comes after them, with the `/` or `:` it begins with.
    path: String,
}

/// What a git server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP, with or without TLS.
    Http {
        /// With it.
        tls: bool,
    },
    /// SSH, `ssh://…` or `user@host:path`.
    Ssh {
        /// The second form, whose path begins at the user's home.
        short: bool,
    },
    /// Git's own protocol.
    Git,
}

/// An address that is of no git server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no address of a git server; write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH")]
pub struct BadRemote;

impl Remote {
    /// Reads an address of `.gitmodules`. Nothing in it is an option of a program, and nothing is left to be understood in
    /// two ways: hosts are names or addresses of plain characters.
    ///
    /// # Errors
    /// Everything else: other transports, paths of this machine, texts with blanks.
    pub fn parse(text: &str) -> Result<Self, BadRemote> {
        let plain = text.chars().all(|c| is_harmless(c) && !c.is_whitespace() && !"\\\"'`".contains(c));
        if !plain || text.starts_with('-') || text.len() > 2000 {
            return Err(BadRemote);
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::long(scheme, rest),
            None => Self::short(text),
        }
    }

    fn long(scheme: &str, rest: &str) -> Result<Self, BadRemote> {
        let scheme = match scheme {
            "https" => Scheme::Http { tls: true },
            "http" => Scheme::Http { tls: false },
            "ssh" => Scheme::Ssh { short: false },
            "git" => Scheme::Git,
            _ => return Err(BadRemote),
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or(BadRemote)?);
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(BadRemote)?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(BadRemote)?),
            None if port.is_empty() => None,
            None => return Err(BadRemote),
        };
        Self::of(scheme, user, host, port, path)
    }

    /// `git@host:path`. `ext::…` and the like name a program.
    fn short(text: &str) -> Result<Self, BadRemote> {
        let (place, path) = text.split_at(text.find(':').ok_or(BadRemote)?);
        let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
        if path.starts_with("::") || path.starts_with(":-") {
            return Err(BadRemote);
        }
        Self::of(Scheme::Ssh { short: true }, user, host, None, path)
    }

    fn of(scheme: Scheme, user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Result<Self, BadRemote> {
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_host = host.parse::<Ipv6Addr>().is_ok() || !host.is_empty() && host.chars().all(named);
        let is_user = |user: &str| user.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:%+~".contains(c));
        let good = is_host && user.is_none_or(is_user) && path.len() > 1;
        // Git's own protocol knows nobody by name.
        let good = good && (scheme != Scheme::Git || user.is_none());
        let options = host.starts_with('-') || user.is_some_and(|user| user.starts_with('-'));
        if !good || options || host.len() > 253 {
            return Err(BadRemote);
        }
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        Ok(Self { scheme, user, host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Http { tls: true } => 443,
            Scheme::Http { tls: false } => 80,
            Scheme::Ssh { .. } => 22,
            Scheme::Git => 9418,
        })
    }

    /// The address as text, at this host instead of its own.
    pub fn at(&self, host: &str) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let Self { user, path, .. } = self;
        match self.scheme {
            Scheme::Http { tls: true } => format!("https://{user}{host}{port}{path}"),
            Scheme::Http { tls: false } => format!("http://{user}{host}{port}{path}"),
            Scheme::Ssh { short: false } => format!("ssh://{user}{host}{port}{path}"),
            Scheme::Ssh { short: true } => format!("{user}{host}{path}"),
            Scheme::Git => format!("git://{host}{port}{path}"),
        }
    }
}

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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_git_servers_are_taken_apart_and_put_together_again() {
        let check = |text: &str, host: &str, port: u16| {
            let remote = Remote::parse(text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!((remote.host.as_str(), remote.port()), (host, port), "{text}");
            assert_eq!(remote.at(&remote.host), text);
        };
        check("https://git.example/team/lib.git", "git.example", 443);
        check("https://me:t0ken@git.example:8443/lib", "git.example", 8443);
        check("http://10.0.0.1/lib", "10.0.0.1", 80);
        check("ssh://git@git.example:2222/~/lib", "git.example", 2222);
        check("git@git.example:team/lib.git", "git.example", 22);
        check("git://[2001:4860::1]:99/lib", "2001:4860::1", 99);
        assert_eq!(Remote::parse("git://h/x").unwrap().at("::1"), "git://[::1]/x");
    }

    #[test]
    fn what_names_a_program_an_option_or_this_machine_is_no_address() {
        for text in [
            "",
            "/etc/passwd",
            "./x",
            "file:///etc",
            "ext::sh -c id",
            "ext::id",
            "fd::17",
            "-oProxyCommand=id",
            "ssh://-oProxyCommand=id/x",
            "ssh://-oProxyCommand=id@host/x",
            "-oProxyCommand=id:x",
            "git@-oProxyCommand=id:x",
            "host:-x",
            "https://a b/x",
            "https://host\n.evil/x",
            "https://good.example\\@10.0.0.1/x",
            "https://good.example#@10.0.0.1/x",
            "https://host:0/x",
            "https://host:99999/x",
            "https://host:22:23/x",
            "https://[::1/x",
            "https://host",
            "https:///x",
            "ftp://host/x",
            "git+ssh://host/x",
            "git://me@host/x",
            "HTTPS://host/x",
        ] {
            assert_eq!(Remote::parse(text), Err(BadRemote), "{text}");
        }
    }

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

    proptest! {
        #[test]
        fn what_is_read_as_an_address_is_the_same_text_again(text in "(https?|ssh|git|ext)?(://|:)?[a-z0-9@:./%~\\[\\]-]{0,40}") {
            if let Ok(remote) = Remote::parse(&text) {
                let again = remote.at(&remote.host);
                prop_assert_eq!(Remote::parse(&again), Ok(remote));
                prop_assert!(!again.starts_with('-') && !again.contains("::") || again.contains('['), "{}", again);
            }
        }
    }
}
