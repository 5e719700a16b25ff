//! The routing table of one stack while it is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Proc;
use super::world::{Instance, World};
use crate::front::Rules;
use crate::names::{ContainerName, Domain, NodeName};
use crate::router::{NodeRoutes, Peer, StackRoutes, Target};

/// A table in the making; it begins as what the router serves.
pub struct Table(StackRoutes);

impl Table {
    /// What the router serves now, under the release that is planned.
    pub fn of(world: &World) -> Self {
        let mut nodes = world.routes.as_ref().map(|routes| routes.nodes.clone()).unwrap_or_default();
        // What people have ordered is laid over it at the end.
        for node in nodes.values_mut() {
            let added = std::mem::take(&mut node.added);
            node.domains.retain(|domain| !added.contains(domain));
            (node.redirects, node.pass) = (BTreeMap::new(), None);
        }
        Self(StackRoutes::new(world.stack.clone(), world.release, nodes))
    }

    fn node(&mut self, node: &NodeName) -> &mut NodeRoutes {
        let empty = || NodeRoutes::new(Vec::new(), Target::Peers(Vec::new()));
        self.0.nodes.entry(node.clone()).or_insert_with(empty)
    }

    /// Sets a node's peers to these containers.
    pub fn peers(&mut self, proc: &Proc, kept: &[Instance]) {
        let node = &proc.node;
        let peers: Vec<Peer> = kept
            .iter()
            .filter_map(|instance| Some(Peer { container: instance.name.clone(), address: instance.published? }))
            .collect();
        if !peers.is_empty() || self.0.nodes.contains_key(node) {
            let routes = self.node(node);
            (routes.target, routes.protocol) = (Target::Peers(peers), proc.settings.protocol);
        }
    }

    /// Adds one container to a node's peers.
    pub fn join(&mut self, proc: &Proc, peer: Peer) {
        let routes = self.node(&proc.node);
        routes.protocol = proc.settings.protocol;
        match &mut routes.target {
            Target::Peers(peers) => peers.push(peer),
            site @ Target::Site(_) => *site = Target::Peers(vec![peer]),
        }
    }

    /// Takes one container out of a node's peers.
    pub fn leave(&mut self, node: &NodeName, container: &ContainerName) {
        if let Some(NodeRoutes { target: Target::Peers(peers), .. }) = self.0.nodes.get_mut(node) {
            peers.retain(|peer| peer.container != *container);
        }
    }

    /// Domains come and go.
    pub fn domains(&mut self, node: &NodeName, add: &[Domain], remove: &[Domain]) {
        let routes = self.node(node);
        let mut domains: BTreeSet<Domain> = routes.domains.drain(..).filter(|one| !remove.contains(one)).collect();
        domains.extend(add.iter().cloned());
        routes.domains = domains.into_iter().collect();
    }

    /// What happens to the node's requests on the way, if it is routed.
    pub fn rules(&mut self, node: &NodeName, rules: &Rules) {
        if let Some(routes) = self.0.nodes.get_mut(node) {
            routes.rules = rules.clone();
        }
    }

    /// The node is a folder of files.
    pub fn site(&mut self, node: &NodeName, folder: PathBuf) {
        self.node(node).target = Target::Site(folder);
    }

    /// The node is no folder of files any more.
    pub fn no_site(&mut self, node: &NodeName) {
        if let target @ Target::Site(_) = &mut self.node(node).target {
            *target = Target::Peers(Vec::new());
        }
    }

    /// The node is routed no more.
    pub fn forget(&mut self, node: &NodeName) {
        self.0.nodes.remove(node);
    }

    /// The finished table; `None` when the router serves the same already. Peers stand by name: which of them came last
    /// is no difference.
    pub fn changed(mut self, world: &World) -> Option<StackRoutes> {
        for node in self.0.nodes.values_mut() {
            if let Target::Peers(peers) = &mut node.target {
                peers.sort_by(|one, other| one.container.cmp(&other.container));
            }
        }
        self.obey(world);
        match &world.routes {
            Some(routes) => (*routes != self.0).then_some(self.0),
            None => (!self.0.nodes.is_empty()).then_some(self.0),
        }
    }

    /// Lays over it what people have ordered. What belongs to a node that is no longer routed waits for its return.
    fn obey(&mut self, world: &World) {
        let routes = &mut self.0;
        routes.mode = world.front.mode.clone();
        let own: BTreeSet<Domain> = routes.nodes.values().flat_map(|node| node.domains.iter().cloned()).collect();
        for (domain, node) in world.front.domains.iter().filter(|(domain, _)| !own.contains(*domain)) {
            if let Some(node) = routes.nodes.get_mut(node) {
                node.domains.push(domain.clone());
                node.domains.sort();
                node.added.push(domain.clone());
            }
        }
        for node in routes.nodes.values_mut() {
            let leads = |domain: &&Domain| world.front.redirects.contains_key(*domain);
            let leading = node.domains.iter().filter(leads);
            node.redirects = leading.map(|domain| (domain.clone(), world.front.redirects[domain].clone())).collect();
            if matches!(node.target, Target::Site(_)) {
                node.pass = Some(world.identity.pass(&world.stack));
            }
        }
    }
}
