//! What a container finds: its stack's services, and what it links to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::exchange::host_name;
use super::world::{Instance, World};
use super::{Proc, Reach};
use crate::instruction::{Instruction, Settings};
use crate::names::{NodeName, ReleaseNumber, ServerName, StackNode};
use crate::units::port::Port;

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

/// Nodes that the embassies cannot lead to although they stand: containers of a time before there were any, which these
/// instructions leave as they are.
pub fn hidden(world: &World, instructions: &[Instruction]) -> BTreeSet<NodeName> {
    let mut newer: BTreeMap<&NodeName, Option<ReleaseNumber>> = BTreeMap::new();
    for instruction in instructions {
        match instruction {
            Instruction::Deploy { node, release, .. } => drop(newer.insert(node, Some(*release))),
            Instruction::Ensure { .. }
            | Instruction::Scale { .. }
            | Instruction::Route { .. }
            | Instruction::Kill { .. } => {}
        }
    }
    let stays = |instance: &&Instance| match newer.get(&instance.node) {
        Some(release) => instance.release == *release,
        None => instance.release.is_some(),
    };
    let unpublished = world.instances.iter().filter(|instance| instance.exposed.is_empty());
    unpublished.filter(stays).map(|instance| instance.node.clone()).collect()
}

/// Whether a node of the stack is found through the embassies.
pub fn is_found(world: &World, hidden: &BTreeSet<NodeName>, node: &NodeName) -> bool {
    let own = || StackNode { stack: world.stack.clone(), node: node.clone() };
    world.exchange.as_ref().is_some_and(|exchange| !hidden.contains(node) && exchange.reach(&own()).is_some())
}

/// Services are reached through the embassy of the server; without one on the stack's own network, or at their published
/// ports. Other nodes that are linked to are reached through the embassy, or by their names alone.
pub fn neighbours<'a>(
    world: &World,
    hidden: &BTreeSet<NodeName>,
    services: impl Iterator<Item = &'a Proc>,
    from: &ServerName,
    settings: &Settings,
) -> Neighbours {
    let exchange = world.exchange.as_ref();
    let own = |node: &NodeName| StackNode { stack: world.stack.clone(), node: node.clone() };
    let found_there = |node: &NodeName, ports: &[Port]| {
        let exchange = exchange.filter(|_| is_found(world, hidden, node))?;
        exchange.reach(&own(node))?.of(ports)
    };
    let mut found = Neighbours::default();
    for proc in services {
        let embassy = proc.address.and_then(|_| found_there(&proc.node, &proc.settings.ports));
        let reach = embassy.or_else(|| reach(proc, from));
        found.services.extend(reach.map(|reach| (proc.node.clone(), reach)));
    }
    let linked = settings.links.iter();
    found.services.extend(linked.filter_map(|(node, ports)| Some((node.clone(), found_there(node, ports)?))));
    let Some(exchange) = exchange else { return found };
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
        _ => Reach {
            host: address.to_string(),
            ports: proc.settings.ports.iter().map(|port| (*port, port.number)).collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::exchange::{Exchange, Exposure};
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, booted, name, settings, world};
    use crate::stack::Kind;

    fn deploy(node: &str, release: u64, links: &[&str]) -> Instruction {
        let links = links.iter().map(|node| (name(node), vec![Port::tcp(80)])).collect();
        let settings = Settings { links, ..settings() };
        Instruction::Deploy {
            node: name(node),
            release: ReleaseNumber(release),
            count: 1,
            settings: Box::new(settings),
        }
    }

    fn ensure() -> Instruction {
        let settings = Settings { kind: Kind::Service, ..settings() };
        Instruction::Ensure { node: name("kv"), settings: Box::new(settings) }
    }

    fn exchange() -> Exchange {
        let number = |(node, number): (&str, u16)| {
            let node = StackNode { stack: name("blog"), node: name(node) };
            (Exposure { node, port: Port::tcp(80) }, number)
        };
        let numbers = [("api", 10_000), ("kv", 10_001)].map(number).into();
        Exchange { address: "169.254.87.91".parse().unwrap(), numbers }
    }

    /// Where web finds the others, by a plan of these instructions.
    fn found(world: &World, instructions: &[Instruction]) -> BTreeMap<NodeName, Reach> {
        let plan = plan(instructions, world).unwrap();
        let web = booted(&plan).into_iter().find(|made| made.node.as_str() == "web").expect("web is made");
        web.services.clone()
    }

    #[test]
    fn what_stands_from_before_there_were_embassies_is_found_as_it_was_until_it_is_made_anew() {
        let all = |release| [ensure(), deploy("api", release, &[]), deploy("web", release, &["api"])];
        let before = after(world(&["hq"]), &plan(&all(1), &world(&["hq"])).unwrap());
        let host = |found: &BTreeMap<NodeName, Reach>, node: &str| {
            found.get(&name::<NodeName>(node)).map(|reach| reach.host.clone())
        };
        let mut now = World { exchange: Some(exchange()), release: ReleaseNumber(2), ..before.clone() };
        // A push makes all anew but the service, which runs on as it is.
        let pushed = found(&now, &all(2));
        assert_eq!(host(&pushed, "api").as_deref(), Some("169.254.87.91"));
        assert_eq!(host(&pushed, "kv"), Some(before.procs[&name::<NodeName>("kv")].address.unwrap().to_string()));
        // Alone, web finds nobody at the embassy.
        now.forget(&[name("web")].into());
        let restarted = found(&now, &[Instruction::Scale { node: name("web"), count: 1 }]);
        assert_eq!(host(&restarted, "api"), None, "by its name");
        // The service too, once it has been made anew.
        now.instances.retain(|instance| instance.node.as_str() != "kv");
        now.procs.remove(&name::<NodeName>("kv"));
        assert_eq!(host(&found(&now, &all(2)), "kv").as_deref(), Some("169.254.87.91"));
    }
}
