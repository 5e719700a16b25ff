//! Adding servers, changing and removing them. [`join`] adds one, [`drain`] empties one, [`act`] does the rest.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::names::{BadName, ContainerName, NodeName, ServerName, StackName};
use crate::servers::cloud::Token;
use crate::servers::facts::{Facts, NoFact};
use crate::servers::ssh::{Address, KeyPairError, LinkError};
use crate::units::Megabytes;

pub mod act;
pub mod drain;
pub mod join;
pub mod leave;

/// A server to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub address: Address,
    /// What to call it; its own name without.
    pub name: Option<ServerName>,
    /// What it is good for; empty leaves what is known.
    pub tags: BTreeSet<String>,
    /// Memory for containers; all it has without.
    pub size: Option<Megabytes>,
    /// The fingerprint its host key must have. It also lets a server in again that was installed anew.
    pub fingerprint: Option<String>,
    /// The order by which HQ rented it.
    pub order: Option<Token>,
}

impl Wanted {
    /// Whether this host key is the one that the person expects, if any; `SHA256:` may be left out.
    pub fn accepts(&self, shown: &str) -> bool {
        let bare = |text: &str| text.strip_prefix("SHA256:").unwrap_or(text).trim_end_matches('=').to_owned();
        self.fingerprint.as_ref().is_none_or(|wanted| bare(wanted) == bare(shown))
    }
}

/// Why a server was not added or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No such server.
    #[error("there is no server `{0}`; `servers list` shows those there are")]
    NoServer(ServerName),
    /// The way to it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// HQ's own key for servers.
    #[error(transparent)]
    Key(#[from] KeyPairError),
    /// It does not tell what it is.
    #[error(transparent)]
    Facts(#[from] NoFact),
    /// HQ's key is not known there.
    #[error(
        "{address} does not know HQ's key; give its password or a private key it knows on standard input, or put this \
         line into ~/.ssh/authorized_keys there and add it again:\n{key}"
    )]
    Closed {
        /// Where.
        address: Address,
        /// The fingerprint it showed.
        shown: String,
        /// The line for `authorized_keys`.
        key: String,
    },
    /// What the person gave does not open it.
    #[error("{address} does not let `{0}` in with the {given} that was given; may `{0}` log in there with one?", address.user)]
    Shut {
        /// Where.
        address: Address,
        /// `password` or `private key`.
        given: &'static str,
    },
    /// Another host key than the person expects.
    #[error("{address} shows the host key {shown} and not {wanted}; somebody may be listening in")]
    Fingerprint {
        /// Where.
        address: Address,
        /// What it shows.
        shown: String,
        /// What the person expects.
        wanted: String,
    },
    /// The name is another server's.
    #[error("another server is called `{name}` ({at}); give this one a name: servers add … --name NAME")]
    Taken {
        /// The name.
        name: ServerName,
        /// Where that server is.
        at: String,
    },
    /// It is there under another name.
    #[error("this server was added as `{name}` already; `servers remove {name}` it first, or leave out --name")]
    Known {
        /// As what.
        name: ServerName,
    },
    /// It is to give containers more than it has.
    #[error("`{server}` has {memory} of memory; --size takes at most that")]
    Size {
        /// Which.
        server: ServerName,
        /// All it has.
        memory: Megabytes,
    },
    /// Docker is missing, and HQ may not install it.
    #[error("docker does not answer on {address}, and HQ is not root there; install it first (apt install docker.io)")]
    NoDocker {
        /// Where.
        address: Address,
    },
    /// Another HQ has it.
    #[error(
        "another HQ ({hq}) has {address}: it runs {} there; take the server out of that HQ, or remove them if it is gone",
        many(.containers)
    )]
    Foreign {
        /// Where.
        address: Address,
        /// The other's id.
        hq: String,
        /// What it runs there.
        containers: Vec<ContainerName>,
    },
    /// A command on the server failed.
    #[error("cannot {doing} on {address}: {why}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// Where.
        address: Address,
        /// Its last words.
        why: String,
    },
    /// Something runs there.
    #[error(
        "`{server}` runs {}; `servers drain {server}` moves what can move, --force gives up what stays", many(.containers)
    )]
    Busy {
        /// Where.
        server: ServerName,
        /// What.
        containers: Vec<ContainerName>,
    },
    /// A launch has chosen it.
    #[error("a launch that is under way puts containers on `{0}`; try again when it has ended")]
    Claimed(ServerName),
    /// It is on its way out.
    #[error("`{0}` is being removed")]
    Leaving(ServerName),
    /// Nothing runs there, but data lies there that is nowhere else.
    #[error(
        "nothing runs on `{server}`, but it alone has the data of {}, for the day when that runs again; --force gives \
         it up", whose(.nodes)
    )]
    Keeps {
        /// Where.
        server: ServerName,
        /// Whose.
        nodes: Vec<(StackName, NodeName)>,
    },
    /// Nobody knows what runs there.
    #[error("`{0}` does not answer, so what runs there cannot be seen; --force removes it all the same")]
    Silent(ServerName),
    /// Its own address is another server's.
    #[error(
        "{address} calls itself {ip}, as `{server}` does: nobody could tell their containers apart; give one of them \
         another address, or reach both by private addresses"
    )]
    Twin {
        /// Where.
        address: Address,
        /// What both have.
        ip: IpAddr,
        /// The other.
        server: ServerName,
    },
    /// HQ itself.
    #[error("{address} is the machine HQ is on, which is the server `hq` already")]
    Itself {
        /// Where.
        address: Address,
    },
    /// HQ's own server.
    #[error("HQ's own server cannot be removed; `servers drain hq` keeps containers off it")]
    Own,
}

fn many(containers: &[ContainerName]) -> String {
    few(containers.iter().map(|name| format!("`{name}`")).collect())
}

fn whose(nodes: &[(StackName, NodeName)]) -> String {
    few(nodes.iter().map(|(stack, node)| format!("{node} of {stack}")).collect())
}

/// The first of these, and how many more there are.
fn few(words: Vec<String>) -> String {
    const SHOWN: usize = 5;
    let more = words.len().saturating_sub(SHOWN);
    let shown = words[..words.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// A name for a server that was given none: its own one's first label, as far as it makes a name.
///
/// # Errors
/// When nothing of it does.
pub fn name_of(facts: &Facts) -> Result<ServerName, BadName> {
    let label = facts.hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let word: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    word.trim_matches(|c: char| c == '-').parse().or_else(|_| address_name(facts.ip))
}

/// `s10-0-0-7`.
fn address_name(ip: IpAddr) -> Result<ServerName, BadName> {
    format!("s{}", ip.to_string().replace(['.', ':'], "-").trim_end_matches('-')).parse()
}

/// A server as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Its name.
    pub name: ServerName,
    /// How HQ comes there; nothing for HQ's own.
    pub address: Option<String>,
    /// Its own address, on which ports are published.
    pub ip: Option<IpAddr>,
    /// What it calls itself.
    pub hostname: String,
    /// `up`, `draining`, `down`, `lost` or `returning`; of a rented one that is no server `ordered`, `creating`,
    /// `leaving` or `destroying`.
    pub state: &'static str,
    /// Where it comes from: `here` (HQ's own), `added` by a person, or `cloud`.
    pub from: &'static str,
    /// Why it is down, for how long, or why its machine does not come.
    pub why: Option<String>,
    /// Its memory for containers.
    pub size: Megabytes,
    /// What they were promised of it.
    pub used: Megabytes,
    /// What is left.
    pub free: Megabytes,
    /// How many processors it has.
    pub processors: u32,
    /// What they understand.
    pub architecture: String,
    /// What it is good for.
    pub tags: BTreeSet<String>,
    /// What runs there.
    pub containers: Vec<ContainerName>,
    /// The fingerprint of the key by which it is known.
    pub host_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_compared_with_and_without_its_algorithm() {
        let check = |wanted: Option<&str>, expected: bool| {
            let wanted = Wanted {
                address: "root@10.0.0.7".parse().unwrap(),
                name: None,
                tags: BTreeSet::new(),
                size: None,
                fingerprint: wanted.map(str::to_owned),
                order: None,
            };
            assert_eq!(wanted.accepts("SHA256:AbC"), expected, "{wanted:?}");
        };
        check(None, true);
        check(Some("SHA256:AbC"), true);
        check(Some("AbC="), true);
        check(Some("SHA256:abc"), false);
        check(Some(""), false);
    }

    #[test]
    fn a_server_without_a_name_gets_its_own_or_one_of_its_address() {
        let check = |hostname: &str, expected: &str| {
            let facts = Facts {
                hostname: hostname.to_owned(),
                memory: Megabytes(1),
                processors: 1,
                architecture: "x86_64".into(),
                is_root: true,
                ip: [10, 0, 0, 7].into(),
                hq: [10, 0, 0, 1].into(),
            };
            assert_eq!(name_of(&facts).unwrap().as_str(), expected);
        };
        check("db1.example.com", "db1");
        check("Web_2", "web-2");
        check("7of9", "s10-0-0-7");
        check("", "s10-0-0-7");
    }
}
