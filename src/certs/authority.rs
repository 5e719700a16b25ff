//! The authority seam: who certifies that a domain leads here.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::names::Domain;
use crate::router::tls::{Challenge, PrivateKey, Token};

/// A certificate, fresh from its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM text.
    pub chain: String,
    /// PEM text.
    pub key: PrivateKey,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// In the authority's words, or why it cannot be asked.
    pub what: String,
    /// It is not to be asked again before, if it said so.
    pub until: Option<Timestamp>,
}

/// Where an authority looks whether a domain leads here.
#[async_trait]
pub trait Answers: Send + Sync {
    /// From when this returns on the challenge is answered, wherever the domain leads to of ours.
    ///
    /// # Errors
    /// Why it is not.
    async fn answer(&self, challenge: Challenge) -> Result<(), String>;

    /// It need not be answered any more.
    async fn forget(&self, token: Token);
}

/// An authority.
#[async_trait]
pub trait Authority: Send + Sync {
    /// Its account of this HQ as text to be kept secret: the known one when it is given, else a new one.
    ///
    /// # Errors
    /// It does not answer, or does not want us.
    async fn account(&self, known: Option<&str>) -> Result<String, Refusal>;

    /// A new certificate of one domain, for this account.
    ///
    /// # Errors
    /// The authority does not answer, or refuses.
    async fn issue(&self, account: &str, domain: &Domain, answers: &dyn Answers) -> Result<Issued, Refusal>;
}
