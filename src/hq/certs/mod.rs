//! The certificates HQ keeps: in the tree ([`store`]), shown by every router, and ordered and renewed by itself where an
//! authority is set; see [`act`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;

use crate::buildpacks::Unreadable;
use crate::certs::authority::Authority;
use crate::certs::chain::{self, BadChain};
use crate::certs::plan::{Known, Situation, is_public, when};
use crate::certs::tries::Tries;
use crate::certs::{Kind, Record, wildcard_over};
use crate::etc::acme::Acme;
use crate::names::{Domain, InnerPath, StackName};
use crate::router::StackRoutes;
use crate::router::edge::EdgeError;

pub mod act;
pub mod given;
pub mod staples;
pub mod store;

/// What HQ has in mind of certificates.
#[derive(Default)]
pub struct Certs {
    /// The router's port for HTTPS as it stands in URLs: empty, or `:8443`; nothing where it does not listen for that.
    port: OnceLock<String>,
    /// Where they come from.
    authority: OnceLock<Arc<dyn Authority>>,
    /// Something has changed that they go by.
    changed: Notify,
    /// Domains that are ordered at the moment.
    under_way: Mutex<BTreeSet<Domain>>,
    /// Digests of what the routers show, once they have been told.
    shown: tokio::sync::Mutex<Option<BTreeMap<Domain, String>>>,
    /// What their authorities say of them.
    asked: Mutex<BTreeMap<Domain, staples::Asked>>,
    /// One account is made at a time.
    account: tokio::sync::Mutex<()>,
}

impl Certs {
    /// From now on URLs of domains with a certificate name this port.
    pub fn answered_at(&self, port: u16) {
        let text = if port == 443 { String::new() } else { format!(":{port}") };
        // It stays the same while HQ runs.
        let _ = self.port.set(text);
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<Domain>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<Domain, staples::Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One order of a domain at a time: `None` while there is one.
    fn begin(self: &Arc<Self>, domain: &Domain) -> Option<UnderWay> {
        self.under_way().insert(domain.clone()).then(|| UnderWay { certs: self.clone(), domain: domain.clone() })
    }
}

/// An order; it ends when this goes.
struct UnderWay {
    certs: Arc<Certs>,
    domain: Domain,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.certs.under_way().remove(&self.domain);
        self.certs.changed.notify_one();
    }
}

/// Why something about certificates was not done.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The given one is no good.
    #[error("{}", lines(.0))]
    Bad(Vec<BadChain>),
    /// A file of the repository.
    #[error("`{path}` {why}")]
    Unreadable {
        /// Which.
        path: InnerPath,
        /// Why.
        why: Unreadable,
    },
    /// There is none.
    #[error("`{0}` has no certificate of its own; `certs` lists those there are")]
    None(Domain),
    /// No authority is set.
    #[error("no authority is set: write whom it should tell of trouble into {etc}/acme/email, and start HQ again")]
    NoAuthority {
        /// The settings' folder, as people know it.
        etc: &'static str,
    },
    /// Nobody answers there.
    #[error("no stack has the domain `{0}`, so no authority would find it here")]
    NotRouted(Domain),
    /// No authority certifies it.
    #[error(
        "`{0}` is not certified by asking for it: give it a certificate of your own: certs add {0} < chain-and-key.pem"
    )]
    NotCertified(Domain),
    /// It is ordered already.
    #[error("a certificate for `{0}` is being ordered already")]
    UnderWay(Domain),
    /// It was not had.
    #[error("there is no new certificate for `{domain}`: {}; it is tried again at {}", .tries.problem, .tries.next)]
    Failed {
        /// Which domain.
        domain: Domain,
        /// What became of it.
        tries: Tries,
    },
    /// A router does not show it.
    #[error("it is kept, and shown as soon as the router takes it")]
    Shown(#[source] EdgeError),
}

fn lines(mistakes: &[BadChain]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Domains with their stacks.
pub fn owners(tables: &[StackRoutes]) -> BTreeMap<Domain, StackName> {
    let of = |table: &StackRoutes| {
        let domains = table.nodes.values().flat_map(|node| node.domains.clone());
        domains.map(|domain| (domain, table.stack.clone())).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of).collect()
}

/// The address of a domain that people open: by HTTPS where it has a certificate.
pub fn url(domain: &Domain, certified: &BTreeSet<Domain>, http: &str, https: Option<&str>) -> String {
    let over = wildcard_over(domain);
    let has = certified.contains(domain) || over.is_some_and(|over| certified.contains(&over));
    match https.filter(|_| has) {
        Some(https) => format!("https://{domain}{https}"),
        None => format!("http://{domain}{http}"),
    }
}

/// The domains for which the authority is asked.
pub fn wanted<'a>(domains: impl IntoIterator<Item = &'a Domain>, acme: &Acme) -> BTreeSet<Domain> {
    let asked = |domain: &&Domain| !domain.is_wildcard() && (!acme.is_public() || is_public(domain));
    domains.into_iter().filter(asked).cloned().collect()
}

/// What is known of the certificates there are.
pub fn known(records: &BTreeMap<Domain, Record>) -> BTreeMap<Domain, Known> {
    let of = |record: &Record| Known { kind: record.kind, facts: chain::read(&record.chain).ok() };
    records.iter().map(|(domain, record)| (domain.clone(), of(record))).collect()
}

/// A domain as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub domain: Domain,
    /// Whose; nobody's where it is not routed.
    pub stack: Option<StackName>,
    /// Where its certificate comes from; `None` where there is none.
    pub kind: Option<Kind>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// Until when it holds.
    pub expires: Option<Timestamp>,
    /// When the authority is asked next.
    pub next: Option<Timestamp>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// Every domain that has a certificate or should have one.
pub fn rows(
    owners: &BTreeMap<Domain, StackName>,
    wanted: &BTreeSet<Domain>,
    records: &BTreeMap<Domain, Record>,
    tries: &BTreeMap<Domain, Tries>,
    now: Timestamp,
) -> Vec<Row> {
    let (known, under_way) = (known(records), BTreeSet::new());
    let situation = Situation { now, wanted, known: &known, tries, under_way: &under_way };
    let domains: BTreeSet<&Domain> = wanted.iter().chain(records.keys()).collect();
    let row = |domain: &Domain| {
        let have = known.get(domain);
        let facts = have.and_then(|known| known.facts.as_ref());
        let next = wanted.contains(domain).then(|| when(&situation, domain)).flatten();
        let expired = facts.filter(|facts| facts.until <= now).map(|_| "it has expired".to_owned());
        let damaged = have.filter(|known| known.facts.is_none()).map(|_| "it is damaged".to_owned());
        let tried = next.and(tries.get(domain)).map(|tries| tries.problem.clone());
        Row {
            domain: domain.clone(),
            stack: owners.get(domain).cloned(),
            kind: have.map(|known| known.kind),
            issuer: facts.map(|facts| facts.issuer.clone()),
            expires: facts.map(|facts| facts.until),
            next,
            problem: tried.or(expired).or(damaged),
        }
    };
    // One that a wildcard's certificate serves needs none of its own.
    let has_news = |row: &Row| row.kind.is_some() || row.next.is_some();
    domains.into_iter().map(row).filter(has_news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_opened_by_https_where_it_has_a_certificate() {
        let certified = ["a.test", "*.b.test"].map(|domain| domain.parse().unwrap()).into();
        let check = |domain: &str, https, expected: &str| {
            assert_eq!(url(&domain.parse().unwrap(), &certified, ":8080", https), expected, "{domain}");
        };
        check("a.test", Some(""), "https://a.test");
        check("x.b.test", Some(":8443"), "https://x.b.test:8443");
        check("b.test", Some(""), "http://b.test:8080");
        check("a.test", None, "http://a.test:8080");
    }
}
