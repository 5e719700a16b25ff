//! Which domains a stack may have, and whether what it wants of them can be served.

use std::collections::{BTreeMap, BTreeSet};

use super::StackRoutes;
use crate::names::{Domain, NodeName, StackName};

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

/// A domain a stack cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDomain {
    /// Another stack has it.
    // Not whose: the person may not know that there is such a stack.
    #[error("the domain `{domain}` belongs to another stack; choose another, or take it away there first")]
    Taken {
        /// Which domain.
        domain: Domain,
        /// Who has it.
        owner: StackName,
    },
    /// It is kept for the stack of that name, which may come with its first push any day.
    #[error(
        "the domain `{domain}` is kept for the stack `{owner}`: below `{hostname}` each stack answers at its own name"
    )]
    Kept {
        /// Which domain.
        domain: Domain,
        /// For whom.
        owner: String,
        /// The server's host name it lies below.
        hostname: Domain,
    },
    /// It is a host name of the server, or covers all stacks below one.
    #[error("the domain `{domain}` belongs to the server: all stacks answer below `{hostname}`")]
    Hostname {
        /// Which domain.
        domain: Domain,
        /// The server's host name.
        hostname: Domain,
    },
    /// `*.com` is nobody's.
    #[error("the domain `{0}` covers a whole top-level domain; name what stands before the last dot")]
    TopLevel(Domain),
    /// Two nodes of the stack want it.
    #[error("the domain `{domain}` would lead to `{one}` and to `{other}`; take it away from one of them")]
    Twice {
        /// Which domain.
        domain: Domain,
        /// The one.
        one: NodeName,
        /// The other.
        other: NodeName,
    },
    /// Redirects that never end.
    #[error(
        "visitors of `{domain}` would be led in a circle, over `{over}`; take away the redirect in quarry.yml, or that of \
         `domains redirect --off`"
    )]
    Circle {
        /// Where it begins, and ends.
        domain: Domain,
        /// The next one.
        over: Domain,
    },
}

/// Every domain a stack wanted and cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDomains(pub Vec<BadDomain>);

impl std::fmt::Display for BadDomains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for BadDomains {}

/// Checks the domains a stack wants. Nobody else may have them by the same text; `<x>.<hostname>` and what is below it
/// are for the stack `x` alone. Elsewhere a wildcard and a name under it may belong to two stacks, whoever came first:
/// the more special one answers.
///
/// # Errors
/// Every domain it cannot have.
pub fn check_domains<'a>(
    stack: &StackName,
    wanted: impl IntoIterator<Item = &'a Domain>,
    hostnames: &[Domain],
    others: &[StackRoutes],
) -> Result<(), BadDomains> {
    let wanted: BTreeSet<&Domain> = wanted.into_iter().collect();
    let mut bad: BTreeMap<Domain, BadDomain> = BTreeMap::new();
    for domain in &wanted {
        bad.extend(reserved(stack, domain, hostnames).map(|why| ((*domain).clone(), why)));
    }
    // Who has it says more than for whom it is kept.
    bad.extend(taken(stack, wanted, others));
    if bad.is_empty() { Ok(()) } else { Err(BadDomains(bad.into_values().collect())) }
}

/// The domains that other stacks have by the same text.
pub(super) fn taken<'a>(
    stack: &StackName,
    wanted: impl IntoIterator<Item = &'a Domain>,
    others: &[StackRoutes],
) -> BTreeMap<Domain, BadDomain> {
    let owned: BTreeMap<&Domain, &StackName> = others
        .iter()
        .filter(|routes| routes.stack != *stack)
        .flat_map(|routes| routes.nodes.values().flat_map(|node| &node.domains).map(|domain| (domain, &routes.stack)))
        .collect();
    let taken = |domain: &Domain| {
        let owner = (*owned.get(domain)?).clone();
        Some((domain.clone(), BadDomain::Taken { domain: domain.clone(), owner }))
    };
    wanted.into_iter().filter_map(taken).collect()
}

/// Why a domain is kept from this stack although nobody has it.
fn reserved(stack: &StackName, domain: &Domain, hostnames: &[Domain]) -> Option<BadDomain> {
    let hostnames = || hostnames.iter().filter(|hostname| !hostname.is_wildcard());
    // The label right before a host name is a stack's.
    let label = |hostname: &Domain| {
        let before = domain.as_str().strip_suffix(hostname.as_str())?.strip_suffix('.')?;
        Some(before.rsplit('.').next().unwrap_or(before).to_owned())
    };
    if hostnames().any(|hostname| label(hostname).as_deref() == Some(stack.as_str())) {
        return None;
    }
    for hostname in hostnames() {
        let (domain, hostname) = (domain.clone(), hostname.clone());
        match label(&hostname) {
            Some(owner) if owner == "*" => return Some(BadDomain::Hostname { domain, hostname }),
            Some(owner) => return Some(BadDomain::Kept { domain, owner, hostname }),
            None if domain == hostname => return Some(BadDomain::Hostname { domain, hostname }),
            None => {}
        }
    }
    let covers_all = domain.as_str().strip_prefix("*.").is_some_and(|rest| !rest.contains('.'));
    covers_all.then(|| BadDomain::TopLevel(domain.clone()))
}

/// Checks by itself what a table makes of its domains.
///
/// # Errors
/// Each domain that two nodes have, and each from which visitors come back to where they were.
pub fn check_table(table: &StackRoutes) -> Result<(), BadDomains> {
    let mut bad = Vec::new();
    let mut seen: BTreeMap<&Domain, &NodeName> = BTreeMap::new();
    let mut leads: BTreeMap<&Domain, &Domain> = BTreeMap::new();
    for (node, routes) in &table.nodes {
        for domain in &routes.domains {
            if let Some(one) = seen.insert(domain, node) {
                let (one, other) = (one.clone(), node.clone());
                bad.push(BadDomain::Twice { domain: domain.clone(), one, other });
            }
            let to = routes.redirects.get(domain).or_else(|| routes.rules.redirect.get(domain));
            leads.extend(to.map(|to| (domain, to)));
        }
    }
    for (domain, over) in &leads {
        let way = std::iter::successors(Some(*over), |at| leads.get(at).copied());
        // A circle it does not lie on itself is told of by its own domains.
        if way.take(leads.len()).any(|at| at == *domain) {
            bad.push(BadDomain::Circle { domain: (*domain).clone(), over: (*over).clone() });
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(BadDomains(bad)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ReleaseNumber;
    use crate::router::{NodeRoutes, Target};

    fn domains(texts: &[&str]) -> Vec<Domain> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn owned(stack: &str, texts: &[&str]) -> StackRoutes {
        let node = NodeRoutes::new(domains(texts), Target::Peers(Vec::new()));
        StackRoutes::new(stack.parse().unwrap(), ReleaseNumber(1), [("web".parse().unwrap(), node)])
    }

    fn check_taken(wanted: &str, others: &[StackRoutes], owner: Option<&str>) {
        let checked = check_domains(&"blog".parse().unwrap(), &domains(&[wanted]), &[], others);
        let owners = checked.err().map(|bad| match &bad.0[..] {
            [BadDomain::Taken { owner, .. }] => owner.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(owners.as_deref(), owner, "{wanted}");
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
        let others = [owned("all", &["*.one.test"]), owned("shop", &["shop.test"])];
        check_taken("blog.one.test", &others, None);
        check_taken("*.shop.test", &others, None);
    }

    #[test]
    fn below_a_host_name_each_stack_answers_at_its_own_name_only_and_all_mistakes_are_told() {
        let hostnames = domains(&["localhost", "apps.test"]);
        let good =
            ["blog.localhost", "a.blog.apps.test", "*.blog.localhost", "apps.example", "*.blog.test", "notlocalhost"];
        let blog: StackName = "blog".parse().unwrap();
        assert_eq!(check_domains(&blog, &domains(&good), &hostnames, &[]), Ok(()));
        let wrong = ["*.com", "*.localhost", "apps.test", "localhost", "shop.localhost", "web.shop.apps.test"];
        let told = check_domains(&blog, &domains(&wrong), &hostnames, &[]).unwrap_err().to_string();
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(told.len(), wrong.len(), "{told:?}");
        assert!(told[0].contains("`*.com` covers a whole top-level domain"), "{told:?}");
        for (place, domain) in [(1, "*.localhost"), (2, "apps.test"), (3, "localhost")] {
            assert!(told[place].contains(&format!("`{domain}` belongs to the server")), "{told:?}");
        }
        assert!(told[4..].iter().all(|line| line.contains("is kept for the stack `shop`")), "{told:?}");
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
    fn a_domain_leads_to_one_node_and_nobody_in_a_circle() {
        let mut table = owned("blog", &["a.test", "b.test"]);
        let (web, admin): (NodeName, NodeName) = ("web".parse().unwrap(), "admin".parse().unwrap());
        let domain = |text: &str| text.parse::<Domain>().unwrap();
        let lead = |table: &mut StackRoutes, from: &str, to: &str| {
            table.nodes.get_mut(&web).unwrap().redirects.insert(domain(from), domain(to));
        };
        lead(&mut table, "a.test", "b.test");
        assert_eq!(check_table(&table), Ok(()));
        table.nodes.get_mut(&web).unwrap().rules.redirect.insert(domain("b.test"), domain("a.test"));
        let told = check_table(&table).unwrap_err();
        let circle = |from: &str, over: &str| BadDomain::Circle { domain: domain(from), over: domain(over) };
        assert_eq!(told.0, [circle("a.test", "b.test"), circle("b.test", "a.test")]);
        // The order of people counts before the repository's.
        lead(&mut table, "b.test", "elsewhere.test");
        assert_eq!(check_table(&table), Ok(()));
        table.nodes.insert(admin.clone(), NodeRoutes::new(domains(&["b.test"]), Target::Peers(Vec::new())));
        let twice = BadDomain::Twice { domain: domain("b.test"), one: admin, other: web.clone() };
        assert_eq!(check_table(&table).unwrap_err().0, [twice]);
    }
}
