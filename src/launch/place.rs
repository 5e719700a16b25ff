//! Where the containers of a launch go, and what they find there: ports, addresses, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use super::address;
use super::plan::PlanError;
use super::world::{Instance, World};
use super::{Proc, Reach};
use crate::grid::{Block, Bond, Grid, NoRoom, Parent, Rules, Slice, Standing, Stay, Want, place};
use crate::instruction::{Instruction, Settings};
use crate::names::{ContainerName, NodeName, ServerName};

/// Hands out servers, ports and addresses while one launch is planned.
pub struct Places<'a> {
    world: &'a World,
    ports: BTreeMap<ServerName, BTreeSet<u16>>,
    addresses: BTreeMap<ServerName, BTreeSet<Ipv4Addr>>,
    services: BTreeMap<NodeName, Proc>,
    /// The servers that answer: what stays there, what goes, and what this plan adds.
    grid: Grid,
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
            grid: Grid {
                slices: world.servers.iter().map(|(name, footing)| (name.clone(), footing.slice.clone())).collect(),
                ..Grid::default()
            },
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
        // One whose server was given up begins anew: its address there means nothing here.
        let known = known.filter(|known| known.home.as_ref() == Some(&home));
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

    /// These containers are on their way out. `early`: they stop before what replaces them starts.
    pub fn leave(&mut self, going: &[Instance], early: bool) {
        for instance in going {
            let Some(slice) = self.grid.slices.get_mut(&instance.server) else { continue };
            if early {
                slice.blocks.remove(&instance.name);
            } else if let Some(block) = slice.blocks.get_mut(&instance.name) {
                block.stay = Stay::Leaving;
            }
        }
    }

    /// Whether a container is to go elsewhere because its server is being emptied.
    pub fn is_driven_out(&self, instance: &Instance, proc: &Proc) -> bool {
        let draining = |slice: &Slice| slice.standing == Standing::Draining;
        proc.home.is_none() && self.grid.slices.get(&instance.server).is_some_and(draining)
    }

    /// Whether there is room for so many more containers of a node.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn room(&self, proc: &Proc, count: u32) -> Result<(), PlanError> {
        self.seats(proc, count as usize).map(drop)
    }

    /// The servers of a node's next containers, which then count as standing there.
    ///
    /// # Errors
    /// When its home does not answer or no server has room for one of them.
    pub fn choose(&mut self, proc: &Proc, containers: &[ContainerName]) -> Result<Vec<ServerName>, PlanError> {
        let servers = match self.at_home(proc)? {
            Some(home) => vec![home; containers.len()],
            None => self.seats(proc, containers.len())?,
        };
        let block = self.block(proc);
        for (server, container) in servers.iter().zip(containers) {
            if let Some(slice) = self.grid.slices.get_mut(server) {
                slice.blocks.insert(container.clone(), block.clone());
            }
        }
        Ok(servers)
    }

    /// The server of a node's release command.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn of_release_command(&self, proc: &Proc) -> Result<ServerName, PlanError> {
        self.best(proc)
    }

    /// Where one more container of a node would go.
    fn best(&self, proc: &Proc) -> Result<ServerName, PlanError> {
        match self.at_home(proc)? {
            Some(home) => Ok(home),
            None => self.seats(proc, 1)?.pop().ok_or_else(|| PlanError::NoServer(proc.node.clone())),
        }
    }

    /// The server a node cannot leave. What is there already is not asked for room: docker's limits are no
    /// reservations, and its data is nowhere else.
    fn at_home(&self, proc: &Proc) -> Result<Option<ServerName>, PlanError> {
        match &proc.home {
            Some(home) if !self.world.servers.contains_key(home) => {
                Err(PlanError::Away { node: proc.node.clone(), server: home.clone() })
            }
            home => Ok(home.clone()),
        }
    }

    fn seats(&self, proc: &Proc, count: usize) -> Result<Vec<ServerName>, PlanError> {
        let mut places = place(&self.grid, &[Want::new(self.block(proc), count)], Rules::default());
        let places = places.pop().unwrap_or_default();
        Ok(places.into_iter().collect::<Result<Vec<_>, NoRoom>>()?)
    }

    fn block(&self, proc: &Proc) -> Block {
        let stack = self.world.stack.clone();
        let parent = self
            .companion(&proc.node)
            .map(|node| Box::new(Parent { stack: stack.clone(), node, bond: Bond::Required }));
        let stay = if proc.home.is_some() { Stay::Fixed } else { Stay::Movable };
        Block {
            parent,
            stay,
            tags: proc.settings.filter.clone(),
            architecture: self.world.built.get(&proc.settings.image).cloned(),
            ..Block::new(proc.settings.size, stack, proc.node.clone())
        }
    }

    /// Another node of the same group that stands already where something new may come.
    fn companion(&self, node: &NodeName) -> Option<NodeName> {
        let group = self.groups.iter().find(|group| group.contains(node))?;
        let up = self.grid.slices.values().filter(|slice| slice.standing == Standing::Up);
        let mut standing = up.flat_map(|slice| slice.blocks.values()).filter(|block| {
            block.stack == self.world.stack && block.stay != Stay::Leaving && group.contains(&block.node)
        });
        standing.find(|block| block.node != *node).map(|block| block.node.clone())
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

/// Whether other servers reach all ports of a service.
fn is_open(proc: &Proc) -> bool {
    proc.settings.ports.iter().all(|port| proc.published.iter().any(|(own, _)| own == port))
}

/// Nodes joined by links to nodes that are reached on the stack's own network only: those that are no services, and
/// services from a time when there was one server. Only those with a companion.
fn groups(world: &World, instructions: &[Instruction]) -> Vec<BTreeSet<NodeName>> {
    let mut settings: BTreeMap<&NodeName, &Settings> =
        world.procs.values().map(|proc| (&proc.node, &proc.settings)).collect();
    let mut services: BTreeSet<&NodeName> =
        world.procs.values().filter(|proc| proc.address.is_some() && is_open(proc)).map(|proc| &proc.node).collect();
    for instruction in instructions {
        match instruction {
            // One that is there already stays as it is.
            Instruction::Ensure { node, .. } if world.procs.contains_key(node) => {}
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
