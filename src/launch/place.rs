//! Where the containers of a launch go, and what they find there: ports, addresses, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use super::address;
use super::plan::PlanError;
use super::world::{Instance, World};
use super::{Proc, Reach};
use crate::instruction::{Instruction, Settings};
use crate::names::{NodeName, ServerName};

/// Hands out servers, ports and addresses while one launch is planned.
pub struct Places<'a> {
    world: &'a World,
    ports: BTreeMap<ServerName, BTreeSet<u16>>,
    addresses: BTreeMap<ServerName, BTreeSet<Ipv4Addr>>,
    services: BTreeMap<NodeName, Proc>,
    /// Containers of each node by server: those that stay and those of this plan.
    stand: BTreeMap<(NodeName, ServerName), u32>,
    /// Nodes that find each other by name and so have to be on one server.
    groups: Vec<BTreeSet<NodeName>>,
}

impl<'a> Places<'a> {
    /// The world as it is, before these instructions.
    pub fn new(world: &'a World, instructions: &[Instruction]) -> Self {
        let mut places = Self {
            world,
            ports: world.servers.iter().map(|(name, footing)| (name.clone(), footing.ports_taken.clone())).collect(),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            stand: BTreeMap::new(),
            groups: groups(world, instructions),
        };
        for proc in world.procs.values().filter(|proc| proc.address.is_some()) {
            places.know(proc.clone());
        }
        places
    }

    fn know(&mut self, proc: Proc) {
        if let (Some(address), Some(home)) = (proc.address, &proc.home) {
            self.addresses.entry(home.clone()).or_default().insert(address);
        }
        self.services.insert(proc.node.clone(), proc);
    }

    /// A service with its server, its fixed address there and, where there are other servers, its published ports.
    ///
    /// # Errors
    /// When nothing is left to hand out, or its server does not answer.
    pub fn service(&mut self, proc: Proc, known: Option<&Proc>) -> Result<Proc, PlanError> {
        let home = self.best(&proc)?;
        let footing = self.world.servers.get(&home).ok_or_else(|| PlanError::NoServer(proc.node.clone()))?;
        let taken = self.addresses.entry(home.clone()).or_default();
        let address = match known.and_then(|proc| proc.address) {
            Some(address) => address,
            None => address::fixed(&footing.subnet, taken)?,
        };
        let mut published = known.map(|proc| proc.published.clone()).unwrap_or_default();
        if self.world.servers.len() > 1 {
            for port in &proc.settings.ports {
                if !published.iter().any(|(own, _)| own == port) {
                    published.push((*port, self.port(&home)?));
                }
            }
        }
        let proc = Proc { address: Some(address), home: Some(home), published, ..proc };
        self.know(proc.clone());
        Ok(proc)
    }

    /// A node that keeps volumes gets its home for good.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn settle(&mut self, proc: Proc) -> Result<Proc, PlanError> {
        match (&proc.home, proc.settings.volumes.is_empty()) {
            (None, false) => Ok(Proc { home: Some(self.best(&proc)?), ..proc }),
            _ => Ok(proc),
        }
    }

    /// These containers stay where they are.
    pub fn keep(&mut self, kept: &[Instance]) {
        for instance in kept {
            *self.stand.entry((instance.node.clone(), instance.server.clone())).or_default() += 1;
        }
    }

    /// The server of the next container of a node, which then counts as standing there.
    ///
    /// # Errors
    /// When its home does not answer or there is no server for it.
    pub fn choose(&mut self, proc: &Proc) -> Result<ServerName, PlanError> {
        let server = self.best(proc)?;
        *self.stand.entry((proc.node.clone(), server.clone())).or_default() += 1;
        Ok(server)
    }

    /// The server of a node's release command.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn of_release_command(&self, proc: &Proc) -> Result<ServerName, PlanError> {
        self.best(proc)
    }

    /// Twins apart, then where most memory is free, then by name.
    fn best(&self, proc: &Proc) -> Result<ServerName, PlanError> {
        let node = &proc.node;
        if let Some(home) = &proc.home {
            let answers = self.world.servers.contains_key(home);
            return if answers {
                Ok(home.clone())
            } else {
                Err(PlanError::Away { node: node.clone(), server: home.clone() })
            };
        }
        if let Some(companion) = self.companion(node) {
            return Ok(companion);
        }
        let rank = |server: &ServerName| {
            let twins = self.stand.get(&(node.clone(), server.clone())).copied().unwrap_or_default();
            let free = self.world.servers.get(server).map(|footing| footing.slice.free());
            (twins, std::cmp::Reverse(free))
        };
        let best = self.world.servers.keys().min_by_key(|server| rank(server));
        best.cloned().ok_or_else(|| PlanError::NoServer(node.clone()))
    }

    /// Where a node of the same group stands already.
    fn companion(&self, node: &NodeName) -> Option<ServerName> {
        let group = self.groups.iter().find(|group| group.contains(node))?;
        let planned = self.stand.keys().find(|(other, _)| group.contains(other)).map(|(_, server)| server);
        let standing = || self.world.instances.iter().find(|one| group.contains(&one.node)).map(|one| &one.server);
        planned.or_else(standing).filter(|server| self.world.servers.contains_key(server)).cloned()
    }

    /// A free port of a server, which then is taken.
    ///
    /// # Errors
    /// When none is left.
    pub fn port(&mut self, server: &ServerName) -> Result<SocketAddr, PlanError> {
        let footing = self.world.servers.get(server).expect("only servers of this world are chosen");
        Ok(address::port(&footing.ground, self.ports.entry(server.clone()).or_default())?)
    }

    /// Where the stack's services are reached from a server: on the stack's own network, or at their published ports.
    pub fn services(&self, from: &ServerName) -> BTreeMap<NodeName, Reach> {
        self.services.iter().filter_map(|(node, proc)| Some((node.clone(), reach(proc, from)?))).collect()
    }
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

/// Nodes joined by links to nodes that are no services; only those with a companion.
fn groups(world: &World, instructions: &[Instruction]) -> Vec<BTreeSet<NodeName>> {
    let mut settings: BTreeMap<&NodeName, &Settings> =
        world.procs.values().map(|proc| (&proc.node, &proc.settings)).collect();
    let mut services: BTreeSet<&NodeName> =
        world.procs.values().filter(|proc| proc.address.is_some()).map(|proc| &proc.node).collect();
    for instruction in instructions {
        match instruction {
            Instruction::Ensure { node, .. } => drop(services.insert(node)),
            Instruction::Deploy { node, settings: wanted, .. } => drop(settings.insert(node, wanted)),
            Instruction::Scale { .. } | Instruction::Route { .. } | Instruction::Kill { .. } => {}
        }
    }
    let mut groups: Vec<BTreeSet<NodeName>> = Vec::new();
    for (node, settings) in settings {
        let linked = settings.links.keys().filter(|other| !services.contains(other));
        let mut joined: BTreeSet<NodeName> = linked.cloned().collect();
        if joined.is_empty() {
            continue;
        }
        joined.insert(node.clone());
        groups.retain(|group| {
            let apart = group.is_disjoint(&joined);
            if !apart {
                joined.extend(group.iter().cloned());
            }
            apart
        });
        groups.push(joined);
    }
    groups
}
