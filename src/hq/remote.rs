//! Addresses of git servers, as repositories name them.

use std::net::Ipv6Addr;

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

    proptest! {
        #[test]
        fn what_is_read_as_an_address_is_the_same_text_again(text in "(https?|ssh|git|ext)?(://|:)?[a-z0-9@:./%~\\[\\]-]{0,40}") {
            if let Ok(remote) = Remote::parse(&text) {
                let again = remote.at(&remote.host);
                prop_assert_eq!(Remote::parse(&again), Ok(remote));
                // What stands before a `::` that comes before every other colon is a program to git.
                let program = again.find(':').is_some_and(|at| again[at..].starts_with("::"));
                prop_assert!(!again.starts_with('-') && !program, "{}", again);
            }
        }
    }
}
