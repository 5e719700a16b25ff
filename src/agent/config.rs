//! What HQ wants of a server, whole, and in which order such wishes count.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::etc::Balancers;
use crate::network::Policy;
use crate::network::config::ConfigPath;
use crate::network::hosts::Entries;
use crate::network::wall::Wall;
use crate::units::hex::hex;

/// The place of a wish among all others of its kind: those of a later HQ after those of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Turn {
    /// Which HQ; that of the lease where the tree is in etcd.
    pub epoch: u64,
    /// It goes up with each change.
    pub generation: u64,
}

/// Everything a server is told but for the router's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When.
    pub turn: Turn,
    /// The label, such as `quarry.hq=0123abcd`, by which the agent knows the containers it tells about.
    pub label: String,
    /// Who reaches the server; `None` refuses nothing.
    pub locknet: Option<Policy>,
    /// What keeps its containers from its own ports; `None` nothing.
    #[serde(default)]
    pub wall: Option<Wall>,
    /// The servers' names in its hosts file.
    #[serde(default)]
    pub hosts: Entries,
    /// Its config files.
    #[serde(default)]
    pub files: BTreeMap<ConfigPath, Contents>,
    /// Where its router listens; `None` when it has none.
    #[serde(default)]
    pub router: Option<Vec<SocketAddr>>,
    /// Where it listens for HTTPS.
    #[serde(default)]
    pub https: Vec<SocketAddr>,
    /// Balancers in front of it.
    #[serde(default)]
    pub balancers: Balancers,
    /// Where its embassy listens; `None` when it has none.
    #[serde(default)]
    pub embassy: Option<IpAddr>,
}

impl Config {
    /// Of a server that is nothing in particular.
    pub fn nothing(turn: Turn) -> Self {
        let (label, locknet, wall, hosts, files, router, https, balancers, embassy) = Default::default();
        Self { turn, label, locknet, wall, hosts, files, router, https, balancers, embassy }
    }
}

/// The bytes of a config file; in JSON the text where it is one, else hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Contents(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written {
    Text(String),
    Hex(String),
}

impl From<Contents> for Written {
    fn from(contents: Contents) -> Self {
        match String::from_utf8(contents.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Hex(hex(error.as_bytes())),
        }
    }
}

impl TryFrom<Written> for Contents {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let digits = match written {
            Written::Text(text) => return Ok(Self(text.into_bytes())),
            Written::Hex(digits) => digits,
        };
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| "these are no bytes".to_owned())
    }
}

/// One part of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Who reaches the server.
    Locknet,
    /// What parts its containers.
    Wall,
    /// Its hosts file.
    Hosts,
    /// Its config files.
    Files,
    /// Its router.
    Router,
    /// Its embassy.
    Embassy,
}

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Which one.
    pub turn: Turn,
    /// Locknet's rules are on trial under this id until it is confirmed.
    pub trial: Option<String>,
    /// What could not be applied, with the reason; the agent goes on trying.
    pub failed: BTreeMap<Part, String>,
}

/// Whether a wish counts beside the latest one that was heard: not when it is older.
///
/// # Errors
/// The turn that is newer.
pub fn in_order(held: Option<Turn>, new: Turn) -> Result<(), Turn> {
    match held {
        Some(held) if new < held => Err(held),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(epoch: u64, generation: u64) -> Turn {
        Turn { epoch, generation }
    }

    #[test]
    fn a_later_hq_counts_before_every_wish_of_an_earlier_one() {
        let check = |held, new, expected: bool| assert_eq!(in_order(held, new).is_ok(), expected, "{held:?} {new:?}");
        check(None, turn(0, 0), true);
        check(Some(turn(1, 5)), turn(1, 5), true);
        check(Some(turn(1, 5)), turn(1, 6), true);
        check(Some(turn(1, 5)), turn(1, 4), false);
        check(Some(turn(1, 5)), turn(2, 1), true);
        check(Some(turn(2, 1)), turn(1, 5), false);
    }

    #[test]
    fn contents_come_through_json_byte_for_byte() {
        for bytes in [&b""[..], b"a line\n", b"\xff\x00\x10", "ä".as_bytes()] {
            let json = serde_json::to_string(&Contents(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<Contents>(&json).unwrap().0, bytes, "{json}");
        }
        for wrong in [r#"{"hex":"1"}"#, r#"{"hex":"zz"}"#, r#"{"hex":"+1"}"#, r#"{"hex":"ää"}"#, "7"] {
            assert!(serde_json::from_str::<Contents>(wrong).is_err(), "{wrong}");
        }
    }
}
