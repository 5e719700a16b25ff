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

/// The domains a web or static node has without asking, one for each of the server's host names: `<stack>.<hostname>`
/// for the stack's main node (`None`), `<node>.<stack>.<hostname>` for the others, with dashes for underscores, which
/// no domain has. Ascending; a host name that would make a domain too long has none.
pub fn default_domains(stack: &StackName, node: Option<&NodeName>, hostnames: &[Domain]) -> Vec<Domain> {
    let before = match node {
        None => stack.to_string(),
        Some(node) => format!("{}.{stack}", node.as_str().replace('_', "-")),
    };
    let names = hostnames.iter().filter(|hostname| !hostname.is_wildcard());
    let mut domains: Vec<Domain> = names.filter_map(|hostname| format!("{before}.{hostname}").parse().ok()).collect();
    domains.sort();
    domains.dedup();
    domains
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

/// The first domain of `wanted` that another stack of `others` owns, equal by text. A wildcard and a name under it may
/// belong to two stacks, whoever came first, and the more special one answers: else one stack with `*.<hostname>` would
/// keep all others from their default domains.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(texts: &[&str]) -> Vec<Domain> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn owned(stack: &str, texts: &[&str]) -> StackRoutes {
        let node = NodeRoutes { domains: domains(texts), target: Target::Peers(Vec::new()) };
        let nodes = BTreeMap::from([("web".parse().unwrap(), node)]);
        StackRoutes { stack: stack.parse().unwrap(), release: ReleaseNumber(1), nodes }
    }

    fn check_taken(wanted: &str, others: &[StackRoutes], owner: Option<&str>) {
        let checked = check_domains(&"blog".parse().unwrap(), &domains(&[wanted]), others);
        assert_eq!(checked.err().map(|taken| taken.owner.to_string()).as_deref(), owner, "{wanted}");
    }

    #[test]
    fn a_domain_of_another_stack_is_refused_and_ones_own_is_not() {
        let others = [owned("shop", &["shop.test", "*.shop.test"]), owned("blog", &["blog.test"])];
        check_taken("shop.test", &others, Some("shop"));
        check_taken("*.shop.test", &others, Some("shop"));
        check_taken("blog.test", &others, None);
        check_taken("new.test", &others, None);
    }

    #[test]
    fn a_wildcard_and_a_name_under_it_may_belong_to_two_stacks() {
        let others = [owned("all", &["*.test"]), owned("shop", &["shop.test"])];
        check_taken("blog.test", &others, None);
        check_taken("*.shop.test", &others, None);
    }

    #[test]
    fn default_domains_name_the_node_unless_it_is_the_main_one() {
        let stack = "blog".parse().unwrap();
        let admin: NodeName = "big_admin".parse().unwrap();
        let hostnames = domains(&["one.test", "*.wild.test", "a.test"]);
        assert_eq!(default_domains(&stack, None, &hostnames), domains(&["blog.a.test", "blog.one.test"]));
        let named = domains(&["big-admin.blog.a.test", "big-admin.blog.one.test"]);
        assert_eq!(default_domains(&stack, Some(&admin), &hostnames), named);
        let long = domains(&[&format!("{0}.{0}.{0}.{0}", "a".repeat(62))]);
        assert_eq!(default_domains(&stack, None, &long), domains(&[]));
    }

    #[test]
    fn a_table_reads_back_from_its_json() {
        let json = r#"{"stack":"blog","release":7,"nodes":{"docs":{"domains":["docs.test"],"target":{"site":"/srv/docs"}},"web":{"domains":["blog.test"],"target":{"peers":[{"container":"blog.web.7.1","address":"172.17.0.1:20000"}]}}}}"#;
        let routes: StackRoutes = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&routes).unwrap(), json);
    }
}
