//! HQ's router and those of other servers as one; see [`act`].

use std::net::SocketAddr;

use crate::agent::Routing;
use crate::names::ContainerName;
use crate::router::{NodeRoutes, Peer, StackRoutes, Target};

pub mod act;

/// The table as another server's router is to have it. Files are HQ's alone: for a site it asks HQ's router.
pub fn seen_from_afar(routes: &StackRoutes, hq: SocketAddr) -> StackRoutes {
    let nodes = routes.nodes.iter().map(|(node, of)| {
        let target = match &of.target {
            Target::Peers(peers) => Target::Peers(peers.clone()),
            Target::Site(_) => {
                let name: Option<ContainerName> = format!("{}.{node}.site", routes.stack).parse().ok();
                Target::Peers(name.map(|container| Peer { container, address: hq }).into_iter().collect())
            }
        };
        (node.clone(), NodeRoutes { target, ..of.clone() })
    });
    StackRoutes { nodes: nodes.collect(), ..routes.clone() }
}

/// The same for a change.
pub fn routing_from_afar(routing: &Routing, hq: SocketAddr) -> Routing {
    match routing {
        Routing::Set(routes) => Routing::Set(seen_from_afar(routes, hq)),
        Routing::Remove(stack) => Routing::Remove(stack.clone()),
        Routing::Tls(change) => Routing::Tls(change.clone()),
        Routing::All(tables) => Routing::All(tables.iter().map(|table| seen_from_afar(table, hq)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::names::ReleaseNumber;

    #[test]
    fn a_site_is_asked_of_hq_and_containers_are_asked_themselves() {
        let (hq, own): (SocketAddr, SocketAddr) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:20000".parse().unwrap());
        let peer = |name: &str, address| Target::Peers(vec![Peer { container: name.parse().unwrap(), address }]);
        let routes = |targets: [Target; 2]| {
            let nodes = ["docs", "web"].into_iter().zip(targets);
            let nodes = nodes.map(|(node, target)| (node.parse().unwrap(), NodeRoutes::new(Vec::new(), target)));
            StackRoutes::new("blog".parse().unwrap(), ReleaseNumber(1), nodes)
        };
        let given = routes([Target::Site(PathBuf::from("/site")), peer("blog.web.1.0", own)]);
        assert_eq!(seen_from_afar(&given, hq), routes([peer("blog.docs.site", hq), peer("blog.web.1.0", own)]));
    }
}
