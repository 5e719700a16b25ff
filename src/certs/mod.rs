//! Certificates of domains: which there are and whether they are good ([`chain`]), which domains need one and when
//! ([`plan`], [`tries`]), and where they come from ([`authority`]: [`acme`]).

use serde::{Deserialize, Serialize};

use crate::names::Domain;
use crate::router::tls::{Certificate, PrivateKey};

pub mod acme;
pub mod authority;
pub mod chain;
pub mod fake;
pub mod files;
pub mod http;
pub mod ocsp;
pub mod plan;
pub mod tries;

/// `certs/domains/<domain>.json`: the certificate of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it comes from.
    pub kind: Kind,
    /// PEM text: the domain's own certificate first, then those that lead to the root.
    pub chain: String,
    /// PEM text.
    pub key: PrivateKey,
}

impl Record {
    /// As routers show it.
    pub fn shown(&self, domain: &Domain) -> Certificate {
        Certificate { domain: domain.clone(), chain: self.chain.clone(), key: self.key.clone(), staple: None }
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person has given it, and replaces it.
    Custom,
    /// HQ has it from an authority, and renews it.
    Automatic,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Custom => "custom",
            Self::Automatic => "automatic",
        })
    }
}

/// The wildcard whose certificate is good for this domain, too: `*.b.c` for `a.b.c`.
pub fn wildcard_over(domain: &Domain) -> Option<Domain> {
    let (label, above) = domain.as_str().split_once('.')?;
    if label == "*" { None } else { format!("*.{above}").parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let check = |domain: &str, expected: Option<&str>| {
            let over = wildcard_over(&domain.parse().unwrap());
            assert_eq!(over.as_ref().map(Domain::as_str), expected, "{domain}");
        };
        check("a.b.c", Some("*.b.c"));
        check("x.a.b.c", Some("*.a.b.c"));
        check("*.b.c", None);
        check("localhost", None);
    }
}
