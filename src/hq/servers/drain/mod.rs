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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::{Instruction, Settings};
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, name, settings, world};
    use crate::names::ReleaseNumber;

    #[test]
    fn only_what_has_no_home_leaves() {
        let deploy = |node: &str, count, volumes: &[&str]| Instruction::Deploy {
            node: name(node),
            release: ReleaseNumber(1),
            count,
            settings: Box::new(Settings { volumes: volumes.iter().map(|path| name(path)).collect(), ..settings() }),
        };
        let instructions = [deploy("web", 2, &[]), deploy("kept", 1, &["/data"])];
        let launched = plan(&instructions, &world(&["s1", "s2"])).unwrap();
        let mut world = after(world(&["s1", "s2"]), &launched);
        let home = world.procs[&name::<NodeName>("kept")].home.clone().unwrap();
        // With its count in all, not with that on the server.
        assert_eq!(leaving(&world, &home), BTreeMap::from([(name("web"), 2)]));
        world.instances.retain(|instance| instance.server != home);
        assert_eq!(leaving(&world, &home), BTreeMap::new());
    }
}
