//! What authorities say of certificates, for routers to bring along; see [`act`].

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::certs::chain::Facts;
use crate::certs::plan::Known;
use crate::certs::{Kind, Record};
use crate::names::Domain;
use crate::router::tls::Staple;

pub mod act;

/// What was asked about one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The certificate it was asked about.
    pub chain: String,
    /// What the authority said, if it did.
    pub staple: Option<Staple>,
    /// When it is asked again.
    pub again: Timestamp,
}

/// The certificates to ask about now, with where to ask, and when there are more. Only those that came from the authority
/// count: HQ follows no address that a person's certificate names.
pub fn due(
    records: &BTreeMap<Domain, Record>,
    known: &BTreeMap<Domain, Known>,
    asked: &BTreeMap<Domain, Asked>,
    now: Timestamp,
) -> (Vec<(Domain, String)>, Option<Timestamp>) {
    let responder = |domain: &Domain, record: &Record| {
        let facts: &Facts = known.get(domain)?.facts.as_ref()?;
        let url = facts.responder.as_ref().filter(|url| url.starts_with("http://"))?;
        let again = asked.get(domain).filter(|asked| asked.chain == record.chain).map_or(now, |asked| asked.again);
        Some((again, domain.clone(), url.clone()))
    };
    let automatic = records.iter().filter(|(_, record)| record.kind == Kind::Automatic);
    let all: Vec<_> = automatic.filter_map(|(domain, record)| responder(domain, record)).collect();
    let next = all.iter().map(|(again, ..)| *again).filter(|again| *again > now).min();
    (all.into_iter().filter(|(again, ..)| *again <= now).map(|(_, domain, url)| (domain, url)).collect(), next)
}
