//! Desired against actual: which instructions bring a stack at rest back to what should run; [`act`] emits them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::instruction::Instruction;
use crate::launch::Proc;
use crate::launch::world::{Instance, World};
use crate::names::{NodeName, ServerName};
use crate::router::Target;
use crate::units::Millis;

pub mod act;
pub mod falls;

/// What must happen so that a stack at rest runs what it should; empty when it does. The world's own planner chooses
/// the containers.
pub fn drift(world: &World) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    let mut instances: BTreeMap<&NodeName, Vec<&Instance>> = BTreeMap::new();
    for instance in &world.instances {
        instances.entry(&instance.node).or_default().push(instance);
    }
    // What cannot move waits for its server.
    let waits = |proc: &Proc| proc.home.as_ref().is_some_and(|home| !world.servers.contains_key(home));
    for (node, proc) in world.procs.iter().filter(|(_, proc)| !waits(proc)) {
        let found = instances.get(node).map(Vec::as_slice).unwrap_or_default();
        let wrong_number = found.len() != proc.count as usize;
        let strange = found.iter().any(|instance| instance.release != Some(proc.release));
        let asleep = found.iter().any(|instance| !instance.runs);
        if wrong_number || strange || asleep || misrouted(world, node, found) {
            instructions.push(Instruction::Scale { node: node.clone(), count: proc.count });
        }
    }
    for orphan in world.instances.iter().filter(|instance| !world.procs.contains_key(&instance.node)) {
        instructions.push(Instruction::Kill { container: orphan.name.clone(), grace: Millis::seconds(10) });
    }
    instructions
}

/// Whether the router names a container of the node that is not there, or leaves one out.
fn misrouted(world: &World, node: &NodeName, found: &[&Instance]) -> bool {
    let Some(routes) = world.routes.as_ref().and_then(|table| table.nodes.get(node)) else { return false };
    let Target::Peers(peers) = &routes.target else { return false };
    let routed: BTreeMap<_, _> = peers.iter().map(|peer| (&peer.container, peer.address)).collect();
    let actual: BTreeMap<_, _> =
        found.iter().filter_map(|instance| Some((&instance.name, instance.published?))).collect();
    routed != actual
}

/// Whether a server runs something that should run elsewhere, or nowhere.
pub fn overstays(world: &World, server: &ServerName) -> bool {
    world.instances.iter().filter(|instance| instance.server == *server).any(|instance| {
        let wanted = world.procs.get(&instance.node).map_or(0, |proc| proc.count as usize);
        world.of(&instance.node).count() > wanted
    })
}

/// How long to wait before the next try after this many failures in a row.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Settings;
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, name, settings, world};
    use crate::names::{ReleaseNumber, ServerName};

    #[test]
    fn what_cannot_move_waits_for_its_server_and_everything_else_is_healed() {
        let deploy = |node: &str, volumes: Vec<&str>| Instruction::Deploy {
            node: name(node),
            release: ReleaseNumber(1),
            count: 1,
            settings: Box::new(Settings { volumes: volumes.into_iter().map(name).collect(), ..settings() }),
        };
        let servers = ["hq", "s1"];
        let launched = plan(&[deploy("kept", vec!["/data"]), deploy("web", vec![])], &world(&servers)).unwrap();
        let mut world = after(world(&servers), &launched);
        world.routes = None;
        assert_eq!(drift(&world), [], "at rest there is nothing to do");
        let home: ServerName = world.procs[&name::<NodeName>("kept")].home.clone().unwrap();
        world.servers.remove(&home);
        world.instances.clear();
        assert_eq!(drift(&world), [Instruction::Scale { node: name("web"), count: 1 }]);
    }
}
