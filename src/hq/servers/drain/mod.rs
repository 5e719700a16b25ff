//! Emptying a server: what can move is made elsewhere, then the old goes; see [`act`].

use std::collections::BTreeMap;

use crate::launch::world::World;
use crate::names::{NodeName, ServerName};

pub mod act;

/// The nodes of a stack that leave a server, each with how many containers it has in all.
pub fn leaving(world: &World, server: &ServerName) -> BTreeMap<NodeName, u32> {
    let there = world.instances.iter().filter(|instance| instance.server == *server);
    let procs = there.filter_map(|instance| world.procs.get(&instance.node));
    procs.filter(|proc| proc.home.is_none()).map(|proc| (proc.node.clone(), proc.count)).collect()
}
