//! What a router shows and answers for HTTPS: a certificate for each domain that has one, and the tokens by which an
//! authority sees that a domain leads here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::Domain;

/// The most characters of a token; authorities use 43.
const LONGEST: usize = 128;

/// The certificate of one domain. `*.a.example` serves what is exactly one label below `a.example` and has none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose.
    pub domain: Domain,
    /// PEM text: the domain's own certificate first, then those that lead to the root.
    pub chain: String,
    /// PEM text.
    pub key: PrivateKey,
    /// What its authority says of it, where that says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staple: Option<Staple>,
}

/// A private key as PEM text; it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(pub String);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// An authority's word that a certificate is not revoked, as handshakes carry it (OCSP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staple {
    /// The DER bytes as base64.
    pub response: String,
    /// Seconds since 1970 from which on nobody believes it any more.
    pub until: i64,
}

/// What an authority asks for at `/.well-known/acme-challenge/<token>` of any domain, and the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Its name.
    pub token: Token,
    /// The whole body of the answer.
    pub answer: String,
}

/// The name of a challenge: letters, digits, `-` and `_`, at most 128.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Token {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        match plain && (1..=LONGEST).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("a challenge's token is at most {LONGEST} letters, digits, `-` and `_`")),
        }
    }
}

impl TryFrom<String> for Token {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

/// A change of what a router shows and answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsChange {
    /// A domain has this certificate.
    Set(Certificate),
    /// A domain has none; gone is success.
    Remove(Domain),
    /// This is the answer to a token from now on. It is forgotten with the next start of the router.
    Answer(Challenge),
    /// Nobody asks for a token any more; gone is success.
    Forget(Token),
    /// All there is: everything else goes.
    All(TlsState),
}

/// Everything a router shows and answers, by domain and token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsState {
    /// Certificates.
    pub certificates: Vec<Certificate>,
    /// Challenges.
    pub challenges: Vec<Challenge>,
}

impl TlsState {
    /// The single changes that make `self` of what a router has now.
    pub fn changes_from(&self, now: &TlsState) -> Vec<TlsChange> {
        let wanted = |domain: &Domain| self.certificates.iter().any(|one| one.domain == *domain);
        let asked = |token: &Token| self.challenges.iter().any(|one| one.token == *token);
        let gone = now.certificates.iter().filter(|one| !wanted(&one.domain));
        let forgotten = now.challenges.iter().filter(|one| !asked(&one.token));
        let set = self.certificates.iter().filter(|one| !now.certificates.contains(one));
        let answered = self.challenges.iter().filter(|one| !now.challenges.contains(one));
        gone.map(|one| TlsChange::Remove(one.domain.clone()))
            .chain(forgotten.map(|one| TlsChange::Forget(one.token.clone())))
            .chain(set.cloned().map(TlsChange::Set))
            .chain(answered.cloned().map(TlsChange::Answer))
            .collect()
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &TlsChange) {
        match change {
            TlsChange::Set(certificate) => {
                self.certificates.retain(|one| one.domain != certificate.domain);
                self.certificates.push(certificate.clone());
                self.certificates.sort_by(|one, other| one.domain.cmp(&other.domain));
            }
            TlsChange::Remove(domain) => self.certificates.retain(|one| one.domain != *domain),
            TlsChange::Answer(challenge) => {
                self.challenges.retain(|one| one.token != challenge.token);
                self.challenges.push(challenge.clone());
                self.challenges.sort_by(|one, other| one.token.cmp(&other.token));
            }
            TlsChange::Forget(token) => self.challenges.retain(|one| one.token != *token),
            TlsChange::All(state) => self.clone_from(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(certificates: &[(&str, &str)], challenges: &[(&str, &str)]) -> TlsState {
        let certificate = |(domain, chain): &(&str, &str)| Certificate {
            domain: domain.parse().unwrap(),
            chain: (*chain).to_owned(),
            key: PrivateKey("secret".to_owned()),
            staple: None,
        };
        let challenge =
            |(token, answer): &(&str, &str)| Challenge { token: token.parse().unwrap(), answer: (*answer).to_owned() };
        TlsState {
            certificates: certificates.iter().map(certificate).collect(),
            challenges: challenges.iter().map(challenge).collect(),
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_then_nothing_does() {
        let wanted = state(&[("*.a.test", "1"), ("b.test", "2")], &[("t1", "x"), ("t2", "y")]);
        let mut now = state(&[("a.test", "1"), ("b.test", "1")], &[("t0", "x"), ("t1", "x")]);
        let changes = wanted.changes_from(&now);
        assert_eq!(changes.len(), 5, "{changes:?}");
        changes.iter().for_each(|change| now.apply(change));
        assert_eq!(now, wanted);
        assert_eq!(wanted.changes_from(&now), []);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", state(&[("a.test", "1")], &[])).contains("secret"));
    }

    #[test]
    fn a_token_is_no_path() {
        for good in ["a", "A-_9", &"a".repeat(128)] {
            assert!(good.parse::<Token>().is_ok(), "{good}");
        }
        for wrong in ["", "a/b", "..", "a b", "ä", &"a".repeat(129)] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }
}
