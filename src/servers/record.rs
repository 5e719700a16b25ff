//! What quarry remembers of a server: `servers/<id>/settings.json`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cloud::Token;
use super::facts::Facts;
use super::ssh::{Address, HostKey};
use crate::grid::{Architecture, Standing};
use crate::names::printable::excerpt;
use crate::units::Megabytes;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How HQ comes there; none for the server HQ itself is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// What it calls itself.
    pub hostname: String,
    /// What it is good for, such as `ssd`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Memory for containers: what a person set, else all it has.
    pub size: Megabytes,
    /// All its memory.
    pub memory: Megabytes,
    /// How many processors it has.
    pub processors: u32,
    /// What they understand.
    pub architecture: Architecture,
    /// Whether a person wants anything new there: up or draining.
    #[serde(default)]
    pub standing: Standing,
    /// The order by which HQ rented it. Only such a server is ever given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Token>,
}

/// How HQ comes to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Where its sshd listens, and as whom to come.
    pub address: Address,
    /// The key by which it is known.
    pub host_key: HostKey,
    /// Its own address on that way; the containers' ports are published there.
    pub ip: IpAddr,
    /// The address from which it sees HQ come.
    pub hq: IpAddr,
}

impl Record {
    /// A server as it was found: what a person decided earlier stays.
    pub fn found(facts: &Facts, way: Option<Way>, earlier: Option<&Record>) -> Self {
        let chosen = earlier.filter(|record| record.size != record.memory);
        Self {
            way,
            hostname: facts.hostname.clone(),
            tags: earlier.map(|record| record.tags.clone()).unwrap_or_default(),
            size: chosen.map_or(facts.memory, |record| record.size),
            memory: facts.memory,
            processors: facts.processors,
            architecture: facts.architecture.clone(),
            standing: earlier.map(|record| record.standing).unwrap_or_default(),
            order: earlier.and_then(|record| record.order.clone()),
        }
    }
}

/// A text that names no SSH server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not USER@ADDRESS or USER@ADDRESS:PORT, such as `root@10.0.0.7`")]
pub struct BadAddress {
    /// What came, shortened and with control characters escaped.
    pub given: String,
}

impl FromStr for Address {
    type Err = BadAddress;

    /// `root@10.0.0.7`, `quarry@s1.example:2222`, `root@fd00::7`, `root@[fd00::7]:2222`.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress { given: excerpt(text, 80) };
        let (user, place) = text.split_once('@').ok_or_else(bad)?;
        let (host, port) = match (place.strip_prefix('['), place.matches(':').count()) {
            (Some(rest), _) => {
                let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
                (host, rest.strip_prefix(':').or((rest.is_empty()).then_some("22")).ok_or_else(bad)?)
            }
            (None, 1) => place.split_once(':').ok_or_else(bad)?,
            (None, _) => (place, "22"),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        let word = |text: &str, more: &[u8]| {
            let inside = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || more.contains(&b);
            !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.bytes().all(inside)
        };
        if !word(user, b"") || !word(host, b":") {
            return Err(bad());
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_shown() {
        for text in ["root@10.0.0.7", "quarry@s1.example:2222", "root@[fd00::7]:2222", "root@fd00::7"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("root@[fd00::7]".parse::<Address>().unwrap().host, "fd00::7");
        for wrong in ["", "10.0.0.7", "@10.0.0.7", "root@", "root@h:0", "root@h:99999", "-o@h", "root@-h", "a@b c"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_person_decided_stays_when_a_server_is_found_again() {
        let facts = |memory| Facts {
            hostname: "s1".into(),
            memory: Megabytes(memory),
            processors: 2,
            architecture: "x86_64".into(),
            is_root: true,
            ip: [10, 0, 0, 7].into(),
            hq: [10, 0, 0, 1].into(),
        };
        let mut first = Record::found(&facts(1000), None, None);
        first.tags.insert("ssd".into());
        first.standing = Standing::Draining;
        let again = Record::found(&facts(2000), None, Some(&first));
        let expected = (first.tags.clone(), Standing::Draining, Megabytes(2000));
        assert_eq!((again.tags, again.standing, again.size), expected, "more memory is used");
        first.size = Megabytes(500);
        assert_eq!(
            Record::found(&facts(2000), None, Some(&first)).size,
            Megabytes(500),
            "but not what a person kept back"
        );
    }
}
