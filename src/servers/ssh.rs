//! SSH to a server: one [`Link`] is one connection, a [`Line`] keeps a server's connections alive.
//!
//! Everything has a deadline, and a cable that is cut is noticed within about 3 s, so nobody waits for a server that
//! is gone. What happens on one server's line never touches another's.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use serde::{Deserialize, Serialize};

pub use self::command::{Done, ScriptError, last_words};
pub use self::key_pair::{KeyPair, KeyPairError};
pub use self::line::{Line, State};
pub use self::link::Link;
pub use self::shell::quote;
pub use self::tunnel::Tunnel;

mod backoff;
mod command;
mod guest;
mod key_pair;
mod line;
mod link;
mod shell;
mod tunnel;

/// TCP, key exchange and login together.
const CONNECT: Duration = Duration::from_secs(10);

/// Opening a channel on a connection that lives.
const OPEN: Duration = Duration::from_secs(5);

/// Where a server's sshd listens, and as whom to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The person on the server.
    pub user: String,
    /// An IP address or name.
    pub host: String,
    /// 22 on most.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (22, _) => write!(f, "{}@{}", self.user, self.host),
            (port, true) => write!(f, "{}@[{}]:{port}", self.user, self.host),
            (port, false) => write!(f, "{}@{}:{port}", self.user, self.host),
        }
    }
}

/// How to show who one is.
#[derive(Clone)]
pub enum Login {
    /// With a key.
    Key(KeyPair),
    /// With a password, the first time.
    Password(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Login {
    fn name(&self) -> &'static str {
        match self {
            Login::Key(_) => "HQ's key",
            Login::Password(_) => "that password",
        }
    }
}

/// The public key by which a server is known. As text it is OpenSSH's form, `ssh-ed25519 AAAA…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(PublicKey);

impl HostKey {
    /// `SHA256:…`, as `ssh-keygen -l` shows it on the server.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// What to ask the server for, so that it shows this key and none of its others.
    fn algorithms(&self) -> Cow<'static, [Algorithm]> {
        match self.0.algorithm() {
            Algorithm::Rsa { .. } => Cow::Borrowed(RSA),
            other => Cow::Owned(vec![other]),
        }
    }
}

const SHA512: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
const SHA256: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha256) };
const RSA: &[Algorithm] = &[SHA512, SHA256];

/// What a server may show at first contact, the best first.
const ANY_KEY: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    SHA512,
    SHA256,
];

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_openssh().map_err(|_| fmt::Error)?)
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a public key such as `ssh-ed25519 AAAA…`")]
pub struct BadHostKey {
    /// What came.
    pub given: String,
}

impl FromStr for HostKey {
    type Err = BadHostKey;

    fn from_str(text: &str) -> Result<Self, BadHostKey> {
        let mut key = PublicKey::from_openssh(text).map_err(|_| BadHostKey { given: text.to_owned() })?;
        key.set_comment("");
        Ok(Self(key))
    }
}

impl TryFrom<String> for HostKey {
    type Error = BadHostKey;

    fn try_from(text: String) -> Result<Self, BadHostKey> {
        text.parse()
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> String {
        key.to_string()
    }
}

/// What went wrong between HQ and a server.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No TCP connection.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Which server.
        address: Address,
        /// The system's words.
        source: io::Error,
    },
    /// Something took too long.
    #[error("{address} did not {doing} within {} seconds", limit.as_secs())]
    Late {
        /// Which server.
        address: Address,
        /// What it was asked to do.
        doing: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Another key than the pinned one.
    #[error(
        "{address} shows the host key {shown} and not {pinned}, by which it is known; \
         somebody may be listening in, or the server was installed anew: compare it there, then \
         `servers add {address} --fingerprint {shown}`"
    )]
    HostKey {
        /// Which server.
        address: Address,
        /// The fingerprint it is known by.
        pinned: String,
        /// The fingerprint it shows.
        shown: String,
    },
    /// The login was refused.
    #[error("{address} does not let HQ in with {login}")]
    Refused {
        /// Which server, and as whom.
        address: Address,
        /// With what.
        login: &'static str,
    },
    /// The connection has ended.
    #[error("the connection to {address} is lost: {why}")]
    Lost {
        /// Which server.
        address: Address,
        /// How it ended.
        why: String,
    },
    /// There is no connection now; it is being tried again.
    #[error("{address} is down: {why}")]
    Down {
        /// Which server.
        address: Address,
        /// Why the last connection ended, or the last attempt failed.
        why: String,
    },
    /// The server refused what was asked on a connection that goes on.
    #[error("{address} refused to {doing}")]
    Denied {
        /// Which server.
        address: Address,
        /// What it was asked to do.
        doing: String,
    },
    /// SSH itself failed.
    #[error("cannot {doing} on {address}")]
    Protocol {
        /// Which server.
        address: Address,
        /// What was tried.
        doing: String,
        /// The library's words.
        source: Box<russh::Error>,
    },
    /// A word that no program can be given.
    #[error("a command's words cannot hold a zero byte")]
    Word,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_host_key_is_the_same_with_any_comment() {
        let key: HostKey = format!("{KEY} root@s1").parse().unwrap();
        assert_eq!(key, KEY.parse().unwrap());
        assert_eq!(key.to_string(), KEY);
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{KEY}\""));
        assert!("ssh-ed25519 nonsense".parse::<HostKey>().is_err());
    }

    #[test]
    fn an_address_is_shown_as_people_write_it() {
        let check = |host: &str, port, expected: &str| {
            let address = Address { user: "quarry".to_owned(), host: host.to_owned(), port };
            assert_eq!(address.to_string(), expected);
        };
        check("10.77.0.11", 22, "quarry@10.77.0.11");
        check("s1.example", 2222, "quarry@s1.example:2222");
        check("fd00::1", 2222, "quarry@[fd00::1]:2222");
    }

    #[test]
    fn a_login_never_shows_its_password() {
        assert!(!format!("{:?}", Login::Password("secret".to_owned())).contains("secret"));
    }
}
