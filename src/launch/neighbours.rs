//! What a container finds: its stack's services, and what it links to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::exchange::host_name;
use super::world::World;
use super::{Proc, Reach};
use crate::instruction::Settings;
use crate::names::{NodeName, ServerName, StackNode};

/// What a container finds: where what it may talk to is reached.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// In its own stack.
    pub services: BTreeMap<NodeName, Reach>,
    /// In others.
    pub outside: BTreeMap<StackNode, Reach>,
    /// Names, with what they mean.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// Services are reached through the embassy of the server; without one on the stack's own network, or at their published
/// ports. Other nodes that are linked to are reached through the embassy, or by their names alone.
pub fn neighbours<'a>(
    world: &World,
    services: impl Iterator<Item = &'a Proc>,
    from: &ServerName,
    settings: &Settings,
) -> Neighbours {
    let exchange = world.exchange.as_ref();
    let own = |node: &NodeName| StackNode { stack: world.stack.clone(), node: node.clone() };
    let mut found = Neighbours::default();
    for proc in services {
        let known = exchange.filter(|_| proc.address.is_some()).and_then(|exchange| exchange.reach(&own(&proc.node)));
        let embassy = known.and_then(|known| known.of(&proc.settings.ports));
        let reach = embassy.or_else(|| reach(proc, from));
        found.services.extend(reach.map(|reach| (proc.node.clone(), reach)));
    }
    let Some(exchange) = exchange else { return found };
    let linked = settings.links.iter();
    let linked = linked.filter_map(|(node, ports)| Some((node.clone(), exchange.reach(&own(node))?.of(ports)?)));
    found.services.extend(linked);
    let outside = settings.outside.iter().filter_map(|node| Some((node.clone(), exchange.reach(node)?)));
    found.outside.extend(outside);
    let named = exchange.nodes(&world.stack).into_iter().chain(found.outside.keys());
    found.hosts = named.map(|node| (host_name(node), exchange.address)).collect();
    found
}

/// Where a service is reached from a server; `None` when it is no service.
pub fn reach(proc: &Proc, from: &ServerName) -> Option<Reach> {
    let address = proc.address?;
    let near = proc.home.as_ref().is_none_or(|home| home == from);
    Some(match proc.published.first() {
        Some((_, first)) if !near => {
            let ports = proc.published.iter().map(|(port, at)| (*port, at.port())).collect();
            Reach { host: first.ip().to_string(), ports }
        }
        _ => {
            Reach { host: address.to_string(), ports: proc.settings.ports.iter().map(|port| (*port, *port)).collect() }
        }
    })
}
