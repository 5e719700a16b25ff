//! What the router serves: the table of one stack, and the seam through which it reaches nginx.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::{ContainerName, Domain, NodeName, ReleaseNumber, StackName};

pub mod edge;
pub mod fake;
mod files;
mod http;
pub mod nginx;
mod process;
mod text;

/// Everything the router knows of one stack. It changes whole: a request sees one of two tables, never a mixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRoutes {
    /// Whose.
    pub stack: StackName,
    /// The release it shows.
    pub release: ReleaseNumber,
    /// Its routed nodes.
    pub nodes: BTreeMap<NodeName, NodeRoutes>,
}

/// One routed node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoutes {
    /// Domains answered from it, wildcards included, ascending.
    pub domains: Vec<Domain>,
    /// Who answers.
    pub target: Target,
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

/// Two stacks want one domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the domain `{domain}` belongs to the stack `{owner}`; choose another, or take it away there first")]
pub struct DomainTaken {
    /// Which domain.
    pub domain: Domain,
    /// Who has it.
    pub owner: StackName,
}

/// The first domain of `wanted` that another stack of `others` owns, equal by text: the exact name is more special
/// than a wildcard over it, so both may exist.
///
/// # Errors
/// [`DomainTaken`] with the domain and its owner.
pub fn check_domains<'a>(
    stack: &StackName,
    wanted: impl IntoIterator<Item = &'a Domain>,
    others: &[StackRoutes],
) -> Result<(), DomainTaken> {
    let owned: BTreeMap<&Domain, &StackName> = others
        .iter()
        .filter(|routes| routes.stack != *stack)
        .flat_map(|routes| routes.nodes.values().flat_map(|node| &node.domains).map(|domain| (domain, &routes.stack)))
        .collect();
    for domain in wanted {
        if let Some(owner) = owned.get(domain) {
            return Err(DomainTaken { domain: domain.clone(), owner: (*owner).clone() });
        }
    }
    Ok(())
}

/// Placeholder until the router's branch lands.
pub fn default_domains(stack: &StackName, node: &NodeName, main: bool, hostnames: &[Domain]) -> Vec<Domain> {
    let _ = (stack, node, main, hostnames);
    Vec::new()
}
