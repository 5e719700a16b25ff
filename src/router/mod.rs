//! What the router serves: the table of one stack, and the seam through which it reaches nginx.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::front::{Mode, Rules};
use crate::names::{ContainerName, Domain, NodeName, ReleaseNumber, StackName};
use crate::units::Protocol;

mod domains;
pub mod edge;
pub mod fake;
mod files;
mod http;
pub mod nginx;
pub mod process;
mod text;
pub mod tls;

pub use self::domains::{BadDomain, BadDomains, check_domains, check_table, default_domains};

/// Everything the router knows of one stack. It changes whole: a request sees one of two tables, never a mixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRoutes {
    /// Whose.
    pub stack: StackName,
    /// The release it shows.
    pub release: ReleaseNumber,
    /// Whether requests are passed on.
    #[serde(default, skip_serializing_if = "Mode::is_open")]
    pub mode: Mode,
    /// Its routed nodes.
    pub nodes: BTreeMap<NodeName, NodeRoutes>,
}

impl StackRoutes {
    /// A stack that is open.
    pub fn new(
        stack: StackName,
        release: ReleaseNumber,
        nodes: impl IntoIterator<Item = (NodeName, NodeRoutes)>,
    ) -> Self {
        Self { stack, release, mode: Mode::Open, nodes: nodes.into_iter().collect() }
    }
}

/// One routed node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoutes {
    /// Domains answered from it, wildcards included, ascending.
    pub domains: Vec<Domain>,
    /// Who answers.
    pub target: Target,
    /// What its containers speak.
    #[serde(default, skip_serializing_if = "Protocol::is_usual")]
    pub protocol: Protocol,
    /// What happens to requests on the way.
    #[serde(default, skip_serializing_if = "Rules::is_usual")]
    pub rules: Rules,
    /// Those of `domains` that people have added to what the release says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Domain>,
    /// Those of `domains` that by people's orders lead to another one; they count before those of `rules`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redirects: BTreeMap<Domain, Domain>,
    /// Of a site: the word by which HQ's router knows that another server's asks, whose visitor was checked there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}

impl NodeRoutes {
    /// A node that passes everything on.
    pub fn new(domains: Vec<Domain>, target: Target) -> Self {
        Self {
            domains,
            target,
            protocol: Protocol::default(),
            rules: Rules::default(),
            added: Vec::new(),
            redirects: BTreeMap::new(),
            pass: None,
        }
    }
}

/// Who answers for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Containers, in turn. Empty: the 503 page.
    Peers(Vec<Peer>),
    /// Files below this absolute folder.
    Site(PathBuf),
}

/// A container that answers HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which.
    pub container: ContainerName,
    /// Where.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_from_its_json() {
        let json = r#"{"stack":"blog","release":7,"nodes":{"docs":{"domains":["docs.test"],"target":{"site":"/srv/docs"}},"web":{"domains":["blog.test"],"target":{"peers":[{"container":"blog.web.7.1","address":"172.17.0.1:20000"}]}}}}"#;
        let routes: StackRoutes = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&routes).unwrap(), json);
    }
}
