//! What people order of a stack's routing: domains beside those of quarry.yml, domains that lead elsewhere, and whether
//! requests are passed on at all. It outlives releases; [`act`] carries it out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::front::Front;
use crate::instruction::Instruction;
use crate::names::{Domain, NodeName, StackName};
use crate::router::StackRoutes;

pub mod act;

/// An order that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrontError {
    /// Nothing of the stack is routed.
    #[error("`{0}` has no node that answers HTTP; a domain needs one of type `web` or `static`")]
    NothingRouted(StackName),
    /// Not this one.
    #[error("the node `{node}` of `{stack}` is not routed; routed are: {known}")]
    NotRouted {
        /// Whose.
        stack: StackName,
        /// Which.
        node: NodeName,
        /// The others.
        known: String,
    },
    /// The stack has the domain.
    #[error("`{domain}` leads to the node `{node}` already")]
    Already {
        /// Which.
        domain: Domain,
        /// To which node.
        node: NodeName,
    },
    /// It comes from the repository.
    #[error("`{0}` comes from the repository, or is the stack's own; take it out of quarry.yml and push")]
    OfTheRelease(Domain),
    /// The stack does not have it.
    #[error("the stack `{stack}` has no domain `{domain}`; `domains list {stack}` shows those it has")]
    None {
        /// Whose.
        stack: StackName,
        /// Which.
        domain: Domain,
    },
    /// A redirect that never ends, or never begins.
    #[error("`{from}` cannot lead to `{to}`: {why}")]
    Circle {
        /// From where.
        from: Domain,
        /// Where to.
        to: Domain,
        /// A phrase.
        why: &'static str,
    },
    /// Nothing leads away from it.
    #[error("`{0}` leads nowhere else")]
    NoRedirect(Domain),
}

/// Where a domain of a stack comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The repository, or the stack's own name.
    Release,
    /// A command.
    Command,
}

/// A domain as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub domain: Domain,
    /// The node that answers.
    pub node: NodeName,
    /// From where it is.
    pub origin: Origin,
    /// The domain that visitors are led to instead.
    pub redirect: Option<Domain>,
    /// Whether it answers now; not while its node is not routed.
    pub live: bool,
}

/// The domains of a stack, by name.
pub fn rows(front: &Front, routes: Option<&StackRoutes>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (node, of) in routes.iter().flat_map(|routes| &routes.nodes) {
        rows.extend(of.domains.iter().map(|domain| Row {
            domain: domain.clone(),
            node: node.clone(),
            origin: if of.added.contains(domain) { Origin::Command } else { Origin::Release },
            redirect: of.redirects.get(domain).or_else(|| of.rules.redirect.get(domain)).cloned(),
            live: true,
        }));
    }
    let known: BTreeSet<Domain> = rows.iter().map(|row| row.domain.clone()).collect();
    rows.extend(front.domains.iter().filter(|(domain, _)| !known.contains(*domain)).map(|(domain, node)| Row {
        domain: domain.clone(),
        node: node.clone(),
        origin: Origin::Command,
        redirect: front.redirects.get(domain).cloned(),
        live: false,
    }));
    rows.sort_by(|one, other| one.domain.cmp(&other.domain));
    rows
}

/// The node that gets a domain when none is named: `web`, else the first that is routed. Before the first push it is
/// taken at its word.
///
/// # Errors
/// Nothing is routed, or not the named one.
pub fn node(stack: &StackName, named: Option<&NodeName>, routes: Option<&StackRoutes>) -> Result<NodeName, FrontError> {
    let web: NodeName = "web".parse().expect("`web` is a node name");
    let Some(routes) = routes else { return Ok(named.cloned().unwrap_or(web)) };
    let known: Vec<&NodeName> = routes.nodes.keys().collect();
    match named {
        Some(named) if known.contains(&named) => Ok(named.clone()),
        Some(named) => Err(FrontError::NotRouted {
            stack: stack.clone(),
            node: named.clone(),
            known: known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }),
        None => known
            .iter()
            .find(|node| ***node == web)
            .or_else(|| known.first())
            .map(|node| (*node).clone())
            .ok_or_else(|| FrontError::NothingRouted(stack.clone())),
    }
}

/// The orders with these domains at a node.
///
/// # Errors
/// The stack has one of them.
pub fn with_domains(
    front: &Front,
    routes: Option<&StackRoutes>,
    node: &NodeName,
    domains: &[Domain],
) -> Result<Front, FrontError> {
    let mut front = front.clone();
    for domain in domains {
        if let Some(row) = rows(&front, routes).into_iter().find(|row| row.domain == *domain) {
            return Err(FrontError::Already { domain: row.domain, node: row.node });
        }
        front.domains.insert(domain.clone(), node.clone());
    }
    Ok(front)
}

/// The orders without these domains, and without what leads away from them.
///
/// # Errors
/// One of them is not there, or not for a command to take away.
pub fn without_domains(
    stack: &StackName,
    front: &Front,
    routes: Option<&StackRoutes>,
    domains: &[Domain],
) -> Result<Front, FrontError> {
    let known = rows(front, routes);
    let mut front = front.clone();
    for domain in domains {
        match known.iter().find(|row| row.domain == *domain) {
            _ if front.domains.remove(domain).is_some() => drop(front.redirects.remove(domain)),
            Some(row) => return Err(FrontError::OfTheRelease(row.domain.clone())),
            None => return Err(FrontError::None { stack: stack.clone(), domain: domain.clone() }),
        }
    }
    Ok(front)
}

/// The orders in which visitors of `from`, a domain of the stack, are led to `to`.
///
/// # Errors
/// They would be led in a circle, or the stack does not have it.
pub fn with_redirect(
    stack: &StackName,
    front: &Front,
    routes: Option<&StackRoutes>,
    from: &Domain,
    to: &Domain,
) -> Result<Front, FrontError> {
    let circle = |why| Err(FrontError::Circle { from: from.clone(), to: to.clone(), why });
    if from.is_wildcard() || to.is_wildcard() {
        return circle("a wildcard is no single place");
    }
    if from == to {
        return circle("it is the same");
    }
    let known = rows(front, routes);
    if known.iter().any(|row| row.domain == *to && row.redirect.is_some()) {
        return circle("that one leads elsewhere itself");
    }
    if known.iter().any(|row| row.redirect.as_ref() == Some(from)) {
        return circle("another one leads there");
    }
    if !known.iter().any(|row| row.domain == *from) {
        return Err(FrontError::None { stack: stack.clone(), domain: from.clone() });
    }
    let mut front = front.clone();
    front.redirects.insert(from.clone(), to.clone());
    Ok(front)
}

/// The orders in which `from` answers itself again.
///
/// # Errors
/// It does already.
pub fn without_redirect(front: &Front, from: &Domain) -> Result<Front, FrontError> {
    let mut front = front.clone();
    match front.redirects.remove(from) {
        Some(_) => Ok(front),
        None => Err(FrontError::NoRedirect(from.clone())),
    }
}

/// The ordered domains of the nodes that these instructions route.
pub fn ordered<'a>(front: &'a Front, instructions: &'a [Instruction]) -> impl Iterator<Item = &'a Domain> {
    let routed = |node: &NodeName| {
        instructions
            .iter()
            .any(|one| matches!(one, Instruction::Route { node: routed, add, .. } if routed == node && !add.is_empty()))
    };
    front.domains.iter().filter(move |(_, node)| routed(node)).map(|(domain, _)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ReleaseNumber;
    use crate::router::{NodeRoutes, Target};

    fn routes(nodes: &[(&str, &[&str])]) -> StackRoutes {
        let nodes = nodes.iter().map(|(node, domains)| {
            let domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
            (node.parse().unwrap(), NodeRoutes::new(domains, Target::Peers(Vec::new())))
        });
        StackRoutes::new(blog(), ReleaseNumber(1), nodes)
    }

    fn blog() -> StackName {
        "blog".parse().unwrap()
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn a_domain_goes_to_web_unless_another_node_is_named() {
        let two = routes(&[("admin", &[]), ("web", &[])]);
        assert_eq!(node(&blog(), None, Some(&two)).unwrap().as_str(), "web");
        assert_eq!(node(&blog(), Some(&"admin".parse().unwrap()), Some(&two)).unwrap().as_str(), "admin");
        assert_eq!(node(&blog(), None, Some(&routes(&[("docs", &[])]))).unwrap().as_str(), "docs");
        assert_eq!(node(&blog(), None, None).unwrap().as_str(), "web");
        let told = node(&blog(), Some(&"worker".parse().unwrap()), Some(&two)).unwrap_err().to_string();
        assert!(told.contains("routed are: admin, web"), "{told}");
        assert_eq!(node(&blog(), None, Some(&routes(&[]))), Err(FrontError::NothingRouted(blog())));
    }

    #[test]
    fn a_command_takes_away_only_what_a_command_gave() {
        let routes = routes(&[("web", &["own.test"])]);
        let web = "web".parse().unwrap();
        let front = with_domains(&Front::default(), Some(&routes), &web, &[domain("new.test")]).unwrap();
        let twice = with_domains(&front, Some(&routes), &web, &[domain("own.test")]);
        assert_eq!(twice, Err(FrontError::Already { domain: domain("own.test"), node: web.clone() }));
        assert!(with_domains(&front, Some(&routes), &web, &[domain("new.test")]).is_err());
        let without = |one: &str| without_domains(&blog(), &front, Some(&routes), &[domain(one)]);
        assert_eq!(without("new.test"), Ok(Front::default()));
        assert_eq!(without("own.test"), Err(FrontError::OfTheRelease(domain("own.test"))));
        assert_eq!(without("x.test"), Err(FrontError::None { stack: blog(), domain: domain("x.test") }));
    }

    #[test]
    fn nobody_is_led_in_a_circle() {
        let routes = routes(&[("web", &["a.test", "b.test", "c.test"])]);
        let lead = |front: &Front, from: &str, to: &str| {
            with_redirect(&blog(), front, Some(&routes), &domain(from), &domain(to))
        };
        let front = lead(&Front::default(), "a.test", "b.test").unwrap();
        // What the router would serve with it.
        let mut after = routes.clone();
        let web = after.nodes.get_mut(&"web".parse::<NodeName>().unwrap()).unwrap();
        web.redirects = front.redirects.clone();
        let lead = |from: &str, to: &str| with_redirect(&blog(), &front, Some(&after), &domain(from), &domain(to));
        for (from, to) in [("b.test", "c.test"), ("c.test", "a.test"), ("c.test", "c.test")] {
            assert!(matches!(lead(from, to), Err(FrontError::Circle { .. })), "{from} {to}");
        }
        assert!(matches!(lead("x.test", "c.test"), Err(FrontError::None { .. })));
        assert!(lead("c.test", "elsewhere.example").is_ok());
        assert_eq!(without_redirect(&front, &domain("a.test")), Ok(Front::default()));
        assert_eq!(without_redirect(&front, &domain("b.test")), Err(FrontError::NoRedirect(domain("b.test"))));
    }
}
