//! Where the containers of a launch go, and what they find there: ports, addresses, services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use super::address;
use super::neighbours::{Neighbours, hidden, is_found, neighbours};
use super::plan::PlanError;
use super::world::{Instance, World};
use super::{Proc, Role};
use crate::grid::{Block, Bond, Grid, Parent, Rules, Seating, Slice, Standing, Stay, Want, place};
use crate::instruction::{Instruction, Settings};
use crate::names::{ContainerName, NodeName, ServerName};

/// Hands out servers, ports and addresses while one launch is planned.
pub struct Places<'a> {
    world: &'a World,
    ports: BTreeMap<ServerName, BTreeSet<u16>>,
    addresses: BTreeMap<ServerName, BTreeSet<Ipv4Addr>>,
    services: BTreeMap<NodeName, Proc>,
    /// How many containers of the stack have an address of the engine's choice.
    held: BTreeMap<ServerName, u32>,
    /// The servers that answer: what stays there, what goes, and what this plan adds.
    seating: Seating,
    /// Nodes that find each other by name and so have to be on one server.
    groups: Vec<BTreeSet<NodeName>>,
    /// Where what has no room goes, when it is only to be known what that is.
    overflow: Option<ServerName>,
    /// Nodes that the embassies do not lead to.
    hidden: BTreeSet<NodeName>,
}

impl<'a> Places<'a> {
    /// The world as it is, before these instructions.
    pub fn new(world: &'a World, instructions: &[Instruction]) -> Self {
        let hidden = hidden(world, instructions);
        let mut places = Self {
            world,
            ports: world.servers.iter().map(|(name, footing)| (name.clone(), footing.ports_taken.clone())).collect(),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            held: BTreeMap::new(),
            seating: Seating::new(grid(world), rules(world)),
            groups: groups(world, instructions, &hidden),
            overflow: None,
            hidden,
        };
        let chosen = |instance: &&Instance| instance.role != Role::Service;
        for instance in world.instances.iter().chain(&world.leaving).filter(chosen) {
            *places.held.entry(instance.server.clone()).or_default() += 1;
        }
        for proc in world.procs.values().filter(|proc| proc.address.is_some()) {
            places.know(proc.clone());
        }
        places
    }

    /// From now on what has no room goes to this server of the world, which nothing is placed on otherwise.
    pub fn overflow_to(&mut self, server: ServerName) {
        self.overflow = Some(server);
    }

    /// The servers that answer, as they are after this plan.
    pub fn into_grid(self) -> Grid {
        self.seating.into_grid()
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
        if self.world.servers.len() > 1 || self.world.exchange.is_some() {
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

    /// A node that is fixed, or keeps volumes, gets its home for good.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn settle(&mut self, proc: Proc) -> Result<Proc, PlanError> {
        match &proc.home {
            None if proc.settings.stays() || (proc.settings.is_alone() && proc.count > 0) => {
                Ok(Proc { home: Some(self.best(&proc)?), ..proc })
            }
            _ => Ok(proc),
        }
    }

    /// These containers are on their way out. `early`: they stop before what replaces them starts.
    pub fn leave(&mut self, going: &[Instance], early: bool) {
        for instance in going {
            match early {
                true => drop(self.seating.take(&instance.server, &instance.name)),
                false => self.seating.leave(&instance.server, &instance.name),
            }
        }
    }

    /// Whether a container is to go elsewhere because its server is being emptied.
    pub fn is_driven_out(&self, instance: &Instance, proc: &Proc) -> bool {
        let draining = |slice: &Slice| slice.standing == Standing::Draining;
        !proc.is_fixed() && self.seating.grid().slices.get(&instance.server).is_some_and(draining)
    }

    /// Containers of a node, those first that are kept when there are too many: on servers that are up, and of these
    /// one on each server before a second on any.
    pub fn by_worth(&self, instances: Vec<Instance>) -> Vec<Instance> {
        let mut twins: BTreeMap<ServerName, usize> = BTreeMap::new();
        let mut ranked: Vec<_> = instances
            .into_iter()
            .map(|instance| {
                let number = twins.entry(instance.server.clone()).or_default();
                *number += 1;
                let is_up = self
                    .seating
                    .grid()
                    .slices
                    .get(&instance.server)
                    .is_some_and(|slice| slice.standing == Standing::Up);
                ((!is_up, *number), instance)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, instance)| instance).collect()
    }

    /// The node without its home, when it is to leave that.
    pub fn released(&self, proc: Proc) -> Proc {
        let leaves = |home: &ServerName| {
            self.seating.grid().slices.get(home).is_some_and(|slice| slice.standing == Standing::Draining)
        };
        let home = proc.home.clone().filter(|home| proc.is_fixed() || !leaves(home));
        Proc { home, ..proc }
    }

    /// For how many more containers of a node there is room, and why not for the rest.
    pub fn fitting(&mut self, proc: &Proc, count: u32) -> (u32, Option<PlanError>) {
        if self.overflow.is_some() {
            return (count, None);
        }
        match self.at_home(proc) {
            Ok(Some(home)) => {
                let left = self.left(proc, &home).min(count);
                (left, (left < count).then(|| self.full(proc, home)))
            }
            Err(away) => (0, Some(away)),
            Ok(None) => {
                let (seats, refused): (Vec<_>, Vec<_>) =
                    self.offered(proc, count as usize).into_iter().partition(Result::is_ok);
                (seats.len() as u32, refused.into_iter().find_map(Result::err))
            }
        }
    }

    /// The servers of a node's next containers, which then count as standing there.
    ///
    /// # Errors
    /// When its home does not answer or no server has room for one of them.
    pub fn choose(&mut self, proc: &Proc, containers: &[ContainerName]) -> Result<Vec<ServerName>, PlanError> {
        let servers = match self.at_home(proc)? {
            Some(home) if (self.left(proc, &home) as usize) < containers.len() => return Err(self.full(proc, home)),
            Some(home) => vec![home; containers.len()],
            None => self.seats_or_overflow(proc, containers.len())?,
        };
        let block = self.block(proc);
        for (server, container) in servers.iter().zip(containers) {
            self.seating.put(server, container.clone(), block.clone());
            if proc.address.is_none() {
                *self.held.entry(server.clone()).or_default() += 1;
            }
        }
        Ok(servers)
    }

    /// The server of a node's release command.
    ///
    /// # Errors
    /// As [`Places::choose`].
    pub fn of_release_command(&mut self, proc: &Proc) -> Result<ServerName, PlanError> {
        self.best(proc)
    }

    /// Where one more container of a node would go.
    fn best(&mut self, proc: &Proc) -> Result<ServerName, PlanError> {
        match self.at_home(proc)? {
            Some(home) => Ok(home),
            None => self.seats_or_overflow(proc, 1)?.pop().ok_or_else(|| PlanError::NoServer(proc.node.clone())),
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

    fn seats(&mut self, proc: &Proc, count: usize) -> Result<Vec<ServerName>, PlanError> {
        self.offered(proc, count).into_iter().collect()
    }

    fn seats_or_overflow(&mut self, proc: &Proc, count: usize) -> Result<Vec<ServerName>, PlanError> {
        let Some(overflow) = self.overflow.clone() else { return self.seats(proc, count) };
        let seats = self.offered(proc, count).into_iter();
        Ok(seats.map(|seat| seat.unwrap_or_else(|_| overflow.clone())).collect())
    }

    /// Where so many more containers of a node go. The grid counts memory; where a stack's network on a server has not
    /// as many addresses, they go one by one, and to servers with addresses left.
    fn offered(&mut self, proc: &Proc, count: usize) -> Vec<Result<ServerName, PlanError>> {
        let block = self.block(proc);
        let all = self.seating.offer(&block, count);
        let asked = |server: &ServerName| all.iter().flatten().filter(|seat| *seat == server).count();
        if all.iter().flatten().all(|server| asked(server) <= self.left(proc, server) as usize) {
            return all.into_iter().map(|seat| seat.map_err(PlanError::from)).collect();
        }
        let (mut grid, mut taken) = (self.seating.grid().clone(), BTreeMap::<ServerName, u32>::new());
        let one =
            |grid: &Grid| place(grid, &[Want::new(block.clone(), 1)], rules(self.world)).pop().unwrap_or_default();
        let mut full = None;
        let mut next = |number: usize| loop {
            let server = match one(&grid).pop() {
                Some(Ok(server)) => server,
                Some(Err(why)) => return Err(full.clone().unwrap_or_else(|| PlanError::from(why))),
                None => return Err(PlanError::NoServer(proc.node.clone())),
            };
            let slice = grid.slices.get_mut(&server).expect("only servers of the grid are chosen");
            let here = taken.entry(server.clone()).or_default();
            if *here < self.left(proc, &server) {
                *here += 1;
                // The name only has to be none that is there.
                let name = format!("{}.{}.0.{number}", self.world.stack, proc.node);
                slice.blocks.extend(name.parse::<ContainerName>().ok().map(|name| (name, block.clone())));
                return Ok(server);
            }
            slice.standing = Standing::Draining;
            full = Some(self.full(proc, server));
        };
        (0..count).map(&mut next).collect()
    }

    /// How many more containers of a node a server has addresses for. A service brings its own.
    fn left(&self, proc: &Proc, server: &ServerName) -> u32 {
        match (proc.address, self.world.servers.get(server)) {
            (None, Some(footing)) => {
                address::holds(&footing.subnet).saturating_sub(self.held.get(server).copied().unwrap_or_default())
            }
            (Some(_), _) | (None, None) => u32::MAX,
        }
    }

    fn full(&self, proc: &Proc, server: ServerName) -> PlanError {
        let subnet = self.world.servers.get(&server).map(|footing| footing.subnet.clone()).unwrap_or_default();
        let holds = address::holds(&subnet);
        address::Exhausted::Containers { node: proc.node.clone(), server, subnet, holds }.into()
    }

    fn block(&self, proc: &Proc) -> Block {
        let stack = self.world.stack.clone();
        let parent = self
            .companion(&proc.node)
            .map(|node| Box::new(Parent { stack: stack.clone(), node, bond: Bond::Required }));
        let stay = if proc.is_fixed() { Stay::Fixed } else { Stay::Movable };
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
        let up = self.seating.grid().slices.values().filter(|slice| slice.standing == Standing::Up);
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

    /// What a container with these settings finds on a server.
    pub fn neighbours(&self, from: &ServerName, settings: &Settings) -> Neighbours {
        neighbours(self.world, &self.hidden, self.services.values(), from, settings)
    }
}

/// The servers that answer, with what stands there.
fn grid(world: &World) -> Grid {
    let slices = world.servers.iter().map(|(name, footing)| (name.clone(), footing.slice.clone())).collect();
    Grid { slices, ..Grid::default() }
}

fn rules(world: &World) -> Rules {
    Rules { overbook: world.overbook, ..Rules::default() }
}

/// Whether other servers reach all ports of a service.
fn is_open(proc: &Proc) -> bool {
    proc.settings.ports.iter().all(|port| proc.published.iter().any(|(own, _)| own == port))
}

/// Nodes joined by links to nodes that are reached on the stack's own network only: those that are no services, and
/// services from a time when there was one server. Only those with a companion.
fn groups(world: &World, instructions: &[Instruction], hidden: &BTreeSet<NodeName>) -> Vec<BTreeSet<NodeName>> {
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
        let alone = |other: &&NodeName| !services.contains(other) && !is_found(world, hidden, other);
        let linked = settings.links.keys().filter(alone);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Filter;
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, booted, image, name, settings, world};
    use crate::launch::{Plan, Role, Step};
    use crate::names::ReleaseNumber;
    use crate::stack::{Kind, Overlap};
    use crate::units::Megabytes;
    use crate::units::port::Port;

    fn deploy(node: &str, count: u32, settings: Settings) -> Instruction {
        Instruction::Deploy { node: name(node), release: ReleaseNumber(1), count, settings: Box::new(settings) }
    }

    fn scale(node: &str, count: u32) -> Instruction {
        Instruction::Scale { node: name(node), count }
    }

    /// `node@server` of every container that is made, in order.
    fn seats(plan: &Plan) -> Vec<String> {
        let mut seats: Vec<String> = booted(plan).iter().map(|made| format!("{}@{}", made.node, made.server)).collect();
        seats.sort();
        seats
    }

    fn standing(world: &mut World, server: &str, standing: Standing) {
        world.servers.get_mut(&name::<ServerName>(server)).unwrap().slice.standing = standing;
    }

    #[test]
    fn twins_stand_on_different_servers_and_images_come_to_all_but_hq_s_own() {
        let plan = plan(&[deploy("web", 3, settings())], &world(&["hq", "s1", "s2"])).unwrap();
        assert_eq!(seats(&plan), ["web@hq", "web@s1", "web@s2"]);
        let fetched = |step: &Step| matches!(step, Step::Fetch { .. }).then(|| step.server().unwrap().to_string());
        assert_eq!(plan.stage.iter().filter_map(fetched).collect::<Vec<_>>(), ["s1", "s2"]);
        for made in booted(&plan) {
            let (_, at) = made.published[0];
            let expected = match made.server.as_str() {
                "hq" => "10.0.0.1:20000",
                "s1" => "10.0.0.2:20000",
                _ => "10.0.0.3:20000",
            };
            assert_eq!(at.to_string(), expected, "the router reaches it on its own server");
        }
    }

    #[test]
    fn a_stack_has_no_more_containers_on_a_server_than_its_network_there_has_addresses() {
        let roomy = |servers: &[&str]| {
            let mut world = world(servers);
            world.servers.values_mut().for_each(|footing| footing.slice.size = crate::units::Megabytes(100_000));
            world
        };
        let first = plan(&[deploy("web", 20, settings())], &roomy(&["hq"])).unwrap();
        // A launch that replaces all of them needs as many again.
        let again = Instruction::Deploy {
            node: name("web"),
            release: crate::names::ReleaseNumber(2),
            count: 20,
            settings: Box::new(settings()),
        };
        let refused = plan(std::slice::from_ref(&again), &after(roomy(&["hq"]), &first)).unwrap_err().to_string();
        let expected = "`web` finds no place on hq: the stack's network 10.208.0.0/26 there holds 31 containers";
        assert!(refused.starts_with(expected), "{refused}");
        let mut two = after(roomy(&["hq", "s1"]), &first);
        let spread = seats(&plan(std::slice::from_ref(&again), &two).unwrap());
        let at_hq = spread.iter().filter(|seat| *seat == "web@hq").count();
        assert!(at_hq <= 11 && spread.len() == 20, "{spread:?}");
        for footing in two.servers.values_mut() {
            footing.subnet = footing.subnet.replace("/26", "/23");
        }
        assert_eq!(plan(&[again], &two).unwrap().revocable().filter_map(Step::makes).count(), 20);
    }

    #[test]
    fn a_filter_keeps_a_node_to_the_servers_with_its_tags_and_refuses_where_there_is_none() {
        let mut world = world(&["hq", "s1"]);
        world.servers.get_mut(&name::<ServerName>("s1")).unwrap().slice.tags.insert("ssd".into());
        let wants = |word| Settings { filter: Filter::new([word]).unwrap(), ..settings() };
        assert_eq!(seats(&plan(&[deploy("web", 2, wants("ssd"))], &world).unwrap()), ["web@s1", "web@s1"]);
        assert_eq!(seats(&plan(&[deploy("web", 1, wants("!ssd"))], &world).unwrap()), ["web@hq"]);
        let refused = plan(&[deploy("web", 1, wants("gpu"))], &world).unwrap_err().to_string();
        assert!(refused.contains("`gpu`") && refused.contains("servers tag"), "{refused}");
    }

    #[test]
    fn what_has_no_room_anywhere_is_refused_as_a_whole() {
        let large = Settings { size: Megabytes(600), ..settings() };
        let refused = plan(&[deploy("web", 3, large.clone())], &world(&["hq", "s1"])).unwrap_err();
        assert!(matches!(refused, PlanError::NoRoom(_)), "{refused}");
        assert_eq!(seats(&plan(&[deploy("web", 2, large)], &world(&["hq", "s1"])).unwrap()), ["web@hq", "web@s1"]);
    }

    #[test]
    fn an_image_built_for_another_processor_is_not_placed() {
        let mut world = world(&["hq", "s1"]);
        for (server, architecture) in [("hq", "amd64"), ("s1", "arm64")] {
            let slice = &mut world.servers.get_mut(&name::<ServerName>(server)).unwrap().slice;
            slice.architecture = Some(architecture.into());
        }
        world.built.insert(image(), "arm64".into());
        assert_eq!(seats(&plan(&[deploy("web", 2, settings())], &world).unwrap()), ["web@s1", "web@s1"]);
        world.built.insert(image(), "s390x".into());
        let refused = plan(&[deploy("web", 1, settings())], &world).unwrap_err().to_string();
        assert!(refused.contains("s390x"), "{refused}");
    }

    #[test]
    fn a_node_with_a_volume_stays_where_its_data_is_and_waits_for_that_server() {
        let kept = Settings { volumes: vec![name("/data")], overlap: Overlap::StopFirst, ..settings() };
        let first = plan(&[deploy("web", 1, kept.clone())], &world(&["hq", "s1"])).unwrap();
        let home = first.procs[&name::<NodeName>("web")].home.clone().unwrap();
        let mut world = after(world(&["hq", "s1"]), &first);
        standing(&mut world, home.as_str(), Standing::Draining);
        let again = Instruction::Deploy {
            node: name("web"),
            release: ReleaseNumber(2),
            count: 1,
            settings: Box::new(kept.clone()),
        };
        assert_eq!(seats(&plan(std::slice::from_ref(&again), &world).unwrap()), [format!("web@{home}")]);
        world.servers.remove(&home);
        let away = plan(&[again], &world).unwrap_err();
        assert_eq!(away, PlanError::Away { node: name("web"), server: home });
    }

    #[test]
    fn a_fixed_node_has_all_its_containers_where_the_first_one_came_up() {
        let fixed = Settings { fixed: true, ..settings() };
        let first = plan(&[deploy("web", 1, fixed)], &world(&["hq", "s1", "s2"])).unwrap();
        let home = first.procs[&name::<NodeName>("web")].home.clone().unwrap();
        let world = after(world(&["hq", "s1", "s2"]), &first);
        assert_eq!(seats(&plan(&[scale("web", 3)], &world).unwrap()), [format!("web@{home}"), format!("web@{home}")]);
        let freed = plan(&[deploy("web", 1, settings())], &world).unwrap();
        assert_eq!(freed.procs[&name::<NodeName>("web")].home, None, "until it is fixed no more");
    }

    #[test]
    fn a_service_is_reached_on_its_network_at_home_and_at_a_published_port_from_elsewhere() {
        let ensure = Instruction::Ensure {
            node: name("kv"),
            settings: Box::new(Settings {
                kind: Kind::Service,
                ports: vec![Port::tcp(6379), Port::tcp(6380)],
                ..settings()
            }),
        };
        let plan = plan(&[ensure.clone(), deploy("web", 2, settings())], &world(&["hq", "s1"])).unwrap();
        let kv = &plan.procs[&name::<NodeName>("kv")];
        let home = kv.home.clone().unwrap();
        for made in booted(&plan).into_iter().filter(|made| made.role == Role::Node) {
            let reach = &made.services[&name::<NodeName>("kv")];
            if made.server == home {
                assert_eq!(
                    (reach.host.as_str(), &reach.ports[..]),
                    ("10.208.0.2", &[(Port::tcp(6379), 6379), (Port::tcp(6380), 6380)][..])
                );
            } else {
                let at = kv.published[0].1.ip().to_string();
                assert_eq!((&reach.host, reach.ports.len()), (&at, 2));
                assert!(
                    reach.ports.iter().all(|(own, there)| own.number != *there && (20_000..20_100).contains(there))
                );
            }
        }
        // Alone it publishes nothing: nobody else is there to ask.
        let alone = super::super::plan::plan(&[ensure], &world(&["hq"])).unwrap();
        assert_eq!(alone.procs[&name::<NodeName>("kv")].published, []);
    }

    #[test]
    fn nodes_that_find_each_other_by_name_stand_on_one_server() {
        let web = Settings { links: BTreeMap::from([(name("api"), vec![Port::tcp(80)])]), ..settings() };
        let plan = plan(&[deploy("api", 2, settings()), deploy("web", 2, web)], &world(&["hq", "s1", "s2"])).unwrap();
        let mut servers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for made in booted(&plan) {
            servers.entry(made.node.to_string()).or_default().insert(made.server.to_string());
        }
        assert!(servers["web"].is_subset(&servers["api"]), "{servers:?}");
    }

    #[test]
    fn a_drained_server_is_left_by_what_can_move_and_never_by_what_finds_no_room() {
        let first = plan(&[deploy("web", 2, settings())], &world(&["s1", "s2"])).unwrap();
        let mut world = after(world(&["s1", "s2"]), &first);
        standing(&mut world, "s1", Standing::Draining);
        let moved = plan(&[scale("web", 2)], &world).unwrap();
        assert_eq!(seats(&moved), ["web@s2"]);
        let gone = moved.retire.iter().filter(|step| matches!(step, Step::Remove { .. }));
        assert_eq!(gone.filter_map(Step::server).map(ServerName::as_str).collect::<Vec<_>>(), ["s1"]);

        standing(&mut world, "s2", Standing::Draining);
        let stays = plan(&[scale("web", 2)], &world).unwrap();
        assert_eq!((seats(&stays).len(), stays.retire.len()), (0, 0));
        assert!(stays.notes[0].starts_with("web stays where it is: no server is up"), "{:?}", stays.notes);
        // Fewer can be had all the same.
        let fewer = plan(&[scale("web", 1)], &world).unwrap();
        assert_eq!(fewer.retire.iter().filter(|step| matches!(step, Step::Remove { .. })).count(), 1);
    }

    #[test]
    fn as_many_leave_a_drained_server_as_have_room_elsewhere() {
        let big = || Settings { size: Megabytes(300), ..settings() };
        let first = plan(&[deploy("web", 3, big())], &world(&["s1"])).unwrap();
        let mut world = after(world(&["s1", "s2"]), &first);
        standing(&mut world, "s1", Standing::Draining);
        world.servers.get_mut(&name::<ServerName>("s2")).unwrap().slice.size = Megabytes(700);
        let moved = plan(&[scale("web", 3)], &world).unwrap();
        assert_eq!(seats(&moved), ["web@s2", "web@s2"]);
        assert_eq!(moved.retire.iter().filter(|step| matches!(step, Step::Remove { .. })).count(), 2);
        let told = &moved.notes[0];
        assert!(told.starts_with("1 of 3 web containers stay where they are: no server has 300mb"), "{told}");
    }

    #[test]
    fn a_service_whose_server_was_given_up_gets_a_new_address_on_another_one() {
        let kv = Settings { kind: Kind::Service, ..settings() };
        let first = plan(&[Instruction::Ensure { node: name("kv"), settings: Box::new(kv) }], &world(&["s1"])).unwrap();
        let mut world = world(&["s2", "s3"]);
        for proc in first.procs.values() {
            world.procs.insert(proc.node.clone(), Proc { home: None, published: Vec::new(), ..proc.clone() });
        }
        let healed = plan(&[scale("kv", 1)], &world).unwrap();
        let proc = &healed.procs[&name::<NodeName>("kv")];
        let subnet = &world.servers[proc.home.as_ref().unwrap()].subnet;
        let (network, address) = (subnet.trim_end_matches("0/26"), proc.address.unwrap().to_string());
        assert!(address.starts_with(network), "{address} in {subnet}");
        assert_eq!((booted(&healed)[0].role, proc.published.len()), (Role::Service, 1));
    }
}
