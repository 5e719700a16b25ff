//! What instructions need that the servers do not have.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{PlanError, grid_after};
use super::world::World;
use crate::grid::{Block, Grid, Slice, Standing, Stay};
use crate::instruction::Instruction;
use crate::names::{ContainerName, ServerName};
use crate::units::Megabytes;

/// What a launch needs. Where nothing is without room, it is nothing at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Containers without room.
    pub without: BTreeMap<ContainerName, Block>,
    /// Those of the same launch that would have some.
    pub with: BTreeMap<ContainerName, Block>,
    /// Containers that go with this launch: their memory stands in nobody's way.
    pub going: BTreeSet<ContainerName>,
}

/// What these instructions need.
///
/// # Errors
/// What else stands in the way than room.
pub fn shortage(instructions: &[Instruction], world: &World) -> Result<Shortage, PlanError> {
    // A server that nothing new comes to by itself, under a name that no person gives.
    let beyond: ServerName = "no--room".parse().expect("a name written in the program is well formed");
    let Some(mut footing) = world.servers.values().next().cloned() else { return Ok(Shortage::default()) };
    footing.slice = Slice { standing: Standing::Draining, ..Slice::new(Megabytes(0)) };
    let mut wider = World { waits: false, ..world.clone() };
    wider.servers.insert(beyond.clone(), footing);
    let mut after = grid_after(instructions, &wider, &beyond)?;
    let without = after.slices.remove(&beyond).map(|slice| slice.blocks).unwrap_or_default();
    if without.is_empty() {
        return Ok(Shortage::default());
    }
    let stands =
        |container: &ContainerName| world.servers.values().any(|footing| footing.slice.blocks.contains_key(container));
    let with = staying(&after).filter(|(container, _)| !stands(container));
    let with = with.map(|(container, block)| (container.clone(), block.clone())).collect();
    let stay: BTreeSet<&ContainerName> = staying(&after).map(|(container, _)| container).collect();
    let before = world.servers.values().flat_map(|footing| footing.slice.blocks.keys());
    let going = before.filter(|container| !stay.contains(container)).cloned().collect();
    Ok(Shortage { without, with, going })
}

fn staying(grid: &Grid) -> impl Iterator<Item = (&ContainerName, &Block)> {
    let blocks = grid.slices.values().flat_map(|slice| &slice.blocks);
    blocks.filter(|(_, block)| block.stay != Stay::Leaving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Filter, Overbook};
    use crate::instruction::Settings;
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, name, settings, world};
    use crate::names::ReleaseNumber;
    use crate::stack::Kind;

    fn deploy(node: &str, release: u64, count: u32, settings: Settings) -> Instruction {
        Instruction::Deploy { node: name(node), release: ReleaseNumber(release), count, settings: Box::new(settings) }
    }

    fn sized(size: u64) -> Settings {
        Settings { size: Megabytes(size), ..settings() }
    }

    fn words<'a>(containers: impl IntoIterator<Item = &'a ContainerName>) -> Vec<&'a str> {
        containers.into_iter().map(ContainerName::as_str).collect()
    }

    #[test]
    fn nothing_is_short_where_everything_has_room() {
        let fits = shortage(&[deploy("web", 1, 2, sized(900))], &world(&["hq", "s1"])).unwrap();
        assert_eq!(fits, Shortage::default());
        // One server by itself promises more than it has; one that can have others does not.
        let mut alone = world(&["hq"]);
        let two = [deploy("web", 1, 2, sized(900))];
        alone.overbook = Overbook::Alone;
        assert!(plan(&two, &alone).is_ok());
        alone.overbook = Overbook::Refused;
        assert!(plan(&two, &alone).is_err());
        assert_eq!(words(shortage(&two, &alone).unwrap().without.keys()), ["blog.web.1.2"]);
    }

    #[test]
    fn everything_without_room_is_known_at_once() {
        let gpu = Settings { filter: Filter::new(["gpu"]).unwrap(), ..sized(100) };
        let store = Settings { volumes: vec![name("/data")], ..sized(800) };
        let ensure = Instruction::Ensure {
            node: name("kv"),
            settings: Box::new(Settings { kind: Kind::Service, ..sized(2000) }),
        };
        let all = [ensure, deploy("a", 1, 3, sized(600)), deploy("g", 1, 1, gpu), deploy("s", 1, 1, store)];
        let short = shortage(&all, &world(&["hq", "s1"])).unwrap();
        assert_eq!(words(short.without.keys()), ["blog.a.1.3", "blog.g.1.1", "blog.kv.1.1", "blog.s.1.1"]);
        assert_eq!(words(short.with.keys()), ["blog.a.1.1", "blog.a.1.2"]);
        let wanted: Vec<&str> = short.without[&name::<ContainerName>("blog.g.1.1")].tags.required().collect();
        assert_eq!(wanted, ["gpu"]);
    }

    #[test]
    fn what_a_launch_replaces_stands_in_nobody_s_way() {
        let first = plan(&[deploy("web", 1, 2, sized(600))], &world(&["hq", "s1"])).unwrap();
        let world = World { release: ReleaseNumber(2), ..after(world(&["hq", "s1"]), &first) };
        let short = shortage(&[deploy("web", 2, 3, sized(600))], &world).unwrap();
        assert_eq!(words(short.without.keys()), ["blog.web.2.3"]);
        assert_eq!(words(&short.going), ["blog.web.1.1", "blog.web.1.2"]);
    }
}
