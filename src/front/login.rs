//! Names and passwords of visitors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A visitor's name for basic authentication: 1 to 64 printable characters without a colon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Login(String);

/// A hashed password, as `htpasswd -B` or `openssl passwd -6` make it; the password itself is nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(String);

/// A name that no visitor has, or a password that is not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLogin {
    /// A name.
    #[error("the name of a visitor has 1 to 64 printable characters and no colon")]
    Name,
    /// A hash.
    // Not what came: it may be a password.
    #[error("a password stands here as its hash, such as `openssl passwd -6` or `htpasswd -nB NAME` make it")]
    Hash,
}

/// How hashes begin that the router knows, each with what checking it may cost at most.
const KINDS: [&str; 5] = ["$2a$", "$2b$", "$2y$", "$5$", "$6$"];

impl FromStr for Login {
    type Err = BadLogin;
    fn from_str(text: &str) -> Result<Self, BadLogin> {
        let plain = (1..=64).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ':');
        if plain { Ok(Self(text.to_owned())) } else { Err(BadLogin::Name) }
    }
}

impl FromStr for Hash {
    type Err = BadLogin;
    fn from_str(text: &str) -> Result<Self, BadLogin> {
        let kind = KINDS.iter().find(|kind| text.starts_with(**kind)).ok_or(BadLogin::Hash)?;
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./$=".contains(&byte));
        // What takes long to check is checked by the router for everybody who asks.
        let cheap = match kind.strip_prefix("$2") {
            Some(_) => {
                text.get(4..6).and_then(|cost| cost.parse().ok()).is_some_and(|cost: u32| (4..=10).contains(&cost))
            }
            None => !text.contains("rounds="),
        };
        if plain && cheap && (40..=128).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(BadLogin::Hash) }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl TryFrom<String> for Login {
    type Error = BadLogin;
    fn try_from(text: String) -> Result<Self, BadLogin> {
        text.parse()
    }
}

impl From<Login> for String {
    fn from(login: Login) -> Self {
        login.0
    }
}

impl TryFrom<String> for Hash {
    type Error = BadLogin;
    fn try_from(text: String) -> Result<Self, BadLogin> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_the_router_can_check_cheaply_are_taken_and_none_is_printed() {
        let hash = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";
        let parsed: Hash = hash.parse().unwrap();
        assert!(!format!("{parsed:?}").contains("salt"));
        assert!(format!("$2y$05${}", "a".repeat(53)).parse::<Hash>().is_ok());
        let dear = format!("$2y$14${}", "a".repeat(53));
        let rounds = hash.replace("$6$", "$6$rounds=999999999$");
        for wrong in ["secret", "", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "$apr1$a$b", &dear, &rounds, "$6$a\n"] {
            let told = wrong.parse::<Hash>().unwrap_err().to_string();
            assert!(wrong.is_empty() || !told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn a_name_has_no_colon() {
        assert!("Anna Müller".parse::<Login>().is_ok());
        for wrong in ["", "a:b", "a\n", &"a".repeat(65)] {
            assert_eq!(wrong.parse::<Login>(), Err(BadLogin::Name), "{wrong}");
        }
    }
}
