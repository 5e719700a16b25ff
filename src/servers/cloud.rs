//! The cloud seam: machines that come when they are asked for, and go when they are given back.
//!
//! A cloud is slow and forgets to answer: creating takes minutes, a call may fail although it was carried out, and HQ
//! may be killed between a call and its note of it. So every order carries a token, by which its machine is found again
//! and an order that is repeated stays one order; and what became of an order is learned by asking again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::ssh::Address;
use crate::names::ServerName;
use crate::names::printable::excerpt;
use crate::units::Megabytes;

pub mod answer;
pub mod fake;
pub mod process;

/// A provider of machines.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Asks for a machine that lets [`Order::key`] in. Answers when the order is taken, which may be long before the
    /// machine is there. The same token again is the same machine, in whatever state it is by then.
    ///
    /// # Errors
    /// Then it is not known whether the order was taken; [`Cloud::list`] tells.
    async fn create(&self, order: &Order) -> Result<Machine, CloudError>;

    /// Every machine that was made for this owner and is not gone, by id. One that was made a moment ago may be missing.
    ///
    /// # Errors
    /// When the cloud does not answer; never a part of the list.
    async fn list(&self, owner: &str) -> Result<Vec<Machine>, CloudError>;

    /// A machine begins to go, for good and with all its data. One that is gone already is no error.
    ///
    /// # Errors
    /// Then it may be going all the same.
    async fn destroy(&self, machine: &Machine) -> Result<(), CloudError>;
}

/// A machine that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Whose machine it is: the HQ's id. Several HQs may share an account.
    pub owner: String,
    /// By which it is found again.
    pub token: Token,
    /// What its server is going to be called; good as a name for the machine, too.
    pub name: ServerName,
    /// Its memory, at least.
    pub size: Megabytes,
    /// What it has to be good for, such as `gpu`.
    pub tags: BTreeSet<String>,
    /// The SSH key to let in as root, as a line of `authorized_keys`.
    pub key: String,
}

/// A machine as its cloud shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The cloud's name for it.
    pub id: MachineId,
    /// The token of the order that made it.
    pub token: Token,
    /// How far it is.
    pub state: MachineState,
    /// Where its sshd listens, once that is known.
    pub address: Option<Address>,
    /// The fingerprint of its host key, where the cloud knows it; without, the key shown first counts.
    pub host_key: Option<String>,
    /// Its memory, where that is not simply what was asked for.
    pub size: Option<Megabytes>,
}

/// How far a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// It is being made.
    Creating,
    /// It is there; its sshd may still be starting.
    Running,
    /// It goes, or was stopped and is of no more use.
    Stopping,
}

/// What an order is known by for ever: no other one of any HQ has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

/// The cloud's name for a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// A text that is no token or id of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}: 1 to {LONGEST} letters, digits and `-_.:/@`, beginning with a letter, digit or `/`")]
pub struct BadId {
    /// What it was meant to be.
    what: &'static str,
    /// What came, shortened and with control characters escaped.
    given: String,
}

/// The longest token or id: Azure's resource ids are the longest ones there are.
const LONGEST: usize = 512;

fn checked(text: &str, what: &'static str) -> Result<String, BadId> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/');
    if begins && text.len() <= LONGEST && text.bytes().all(inside) {
        return Ok(text.to_owned());
    }
    Err(BadId { what, given: excerpt(text, 80) })
}

impl Token {
    /// The token of an order of one HQ: `<owner>-<name>-<number>`. Letters, digits and dashes only, and at most 90, so
    /// that it is a tag, a label or a client token everywhere.
    pub fn new(owner: &str, name: &ServerName, number: u64) -> Self {
        let plain = owner.chars().filter(char::is_ascii_alphanumeric).take(16);
        Self(format!("{}-{name}-{number}", plain.collect::<String>()))
    }
}

macro_rules! id {
    ($type:ident, $what:literal) => {
        impl FromStr for $type {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                checked(text, $what).map(Self)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(Token, "token");
id!(MachineId, "id of a machine");

/// Why a cloud did not do what it was asked to. Each may be tried again: quotas are raised, bills are paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// It cannot be asked.
    #[error("cannot {doing}: {why}")]
    Away {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        why: String,
    },
    /// It has no answer in time.
    #[error("cannot {doing}: the cloud has not answered for {after}")]
    Late {
        /// What was tried.
        doing: &'static str,
        /// How long it was waited for.
        after: crate::units::Millis,
    },
    /// It says no.
    #[error("cannot {doing}: the cloud says: {why}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// Its own words.
        why: String,
    },
    /// Its answer makes no sense.
    #[error("cannot {doing}: the cloud's answer is not understood: {why}")]
    Nonsense {
        /// What was tried.
        doing: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_plain_whatever_hq_is_called() {
        let token = Token::new("0123:ab cd$(x)", &"auto1".parse().unwrap(), 1_763_747_123);
        assert_eq!(token.to_string(), "0123abcdx-auto1-1763747123");
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn an_id_has_nothing_in_it_that_any_program_takes_for_an_option_or_a_command() {
        for good in ["i-0abc", "12345", "/subscriptions/a/vm-1", "us-east1:vm_1"] {
            assert!(good.parse::<MachineId>().is_ok(), "{good}");
        }
        for bad in ["", "-rf", "a b", "a\nb", "$(id)", "a;b", "é"] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad:?}");
        }
        let error = "a b".parse::<Token>().unwrap_err();
        assert!(error.to_string().starts_with("`a b` is no token: 1 to 512 letters"), "{error}");
    }
}
