//! What is taken on each server, and what launches under way have been promised; [`act`] gathers the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::grid::{Block, Slice};
use crate::hq::fleet::{Seen, Survey};
use crate::hq::health::Place;
use crate::launch::world::{Instance, ports};
use crate::launch::{Ground, Plan, Proc, Role, Step};
use crate::names::{ContainerName, Domain, NodeName, ServerName, StackName};
use crate::router::{StackRoutes, Target};

pub mod act;

/// Whether a container counts. What a lost server ran is taken for gone where others can run it; what keeps data there
/// or may exist only once is waited for.
pub fn counts(instance: &Instance, gone: &BTreeSet<ServerName>, procs: &BTreeMap<NodeName, Proc>) -> bool {
    !gone.contains(&instance.server) || procs.get(&instance.node).is_some_and(Proc::waits)
}

/// Of containers with one name only the first counts as of its release: the others are replaced. They come about when a
/// name is given while the server that has it already cannot be asked.
pub fn replace_namesakes(instances: &mut [Instance]) {
    let mut known = BTreeSet::new();
    for instance in instances {
        if !known.insert(instance.name.clone()) {
            instance.release = None;
        }
    }
}

/// What fails its health check is replaced.
pub fn replace_sick(instances: &mut [Instance], sick: &BTreeSet<Place>) {
    for instance in instances {
        if sick.contains(&(instance.server.clone(), instance.name.clone())) {
            instance.release = None;
        }
    }
}

/// Whether nobody knows if a container on its way out is still there: its server was silent when it was made, and is yet.
pub fn is_unseen((server, container): &(&ServerName, &ContainerName), survey: &Survey) -> bool {
    let seen = |seen: &Seen| seen.server == **server && seen.container.name == **container;
    survey.silent.contains_key(*server) && !survey.containers.iter().any(seen)
}

/// A container of which only the name is known.
pub fn unseen((server, name): (&ServerName, &ContainerName)) -> Option<Instance> {
    let mut parts = name.as_str().split('.').skip(1);
    Some(Instance {
        node: parts.next()?.parse().ok()?,
        name: name.clone(),
        server: server.clone(),
        release: None,
        index: 0,
        role: Role::Node,
        runs: true,
        published: None,
        exposed: Vec::new(),
    })
}

/// What was promised to launches under way, and no container or record shows yet.
#[derive(Debug, Default)]
pub struct Reserved {
    ports: BTreeSet<(ServerName, u16)>,
    subnets: BTreeSet<(ServerName, String)>,
    blocks: BTreeMap<(ServerName, ContainerName), Block>,
    domains: BTreeMap<Domain, StackName>,
}

impl Reserved {
    /// Who is about to have a domain.
    pub fn owner(&self, domain: &Domain) -> Option<&StackName> {
        self.domains.get(domain)
    }

    /// Whether a launch under way will have something on a server.
    pub fn reaches(&self, server: &ServerName) -> bool {
        self.blocks.keys().any(|(on, _)| on == server)
    }

    fn ports_of(&self, server: &ServerName) -> BTreeSet<u16> {
        self.ports.iter().filter(|(of, _)| of == server).map(|(_, port)| *port).collect()
    }

    /// Puts in what is not there yet.
    pub fn fill(&self, server: &ServerName, slice: &mut Slice) {
        for ((_, name), block) in self.blocks.iter().filter(|((of, _), _)| of == server) {
            slice.blocks.entry(name.clone()).or_insert_with(|| block.clone());
        }
    }

    fn subnets_of(&self, server: &ServerName) -> BTreeSet<String> {
        self.subnets.iter().filter(|(of, _)| of == server).map(|(_, subnet)| subnet.clone()).collect()
    }
}

/// What a plan has been promised until its containers and its table show it.
#[derive(Debug, Default)]
pub struct Claim {
    ports: BTreeSet<(ServerName, u16)>,
    subnets: BTreeSet<(ServerName, String)>,
    blocks: BTreeMap<(ServerName, ContainerName), Block>,
    domains: BTreeMap<Domain, StackName>,
}

impl Claim {
    /// What this plan hands out.
    pub fn of(plan: &Plan) -> Self {
        let mut claim = Self::default();
        for table in plan.tables() {
            let domains = table.nodes.values().flat_map(|node| &node.domains);
            claim.domains.extend(domains.map(|domain| (domain.clone(), table.stack.clone())));
        }
        for step in plan.revocable() {
            if let Step::Network { server, subnet, .. } = step {
                claim.subnets.insert((server.clone(), subnet.clone()));
            }
            if let Some(container) = step.makes() {
                let ports = container.published.iter().map(|(_, at)| (container.server.clone(), at.port()));
                claim.ports.extend(ports);
                let (stack, node) = (container.stack.clone(), container.node.clone());
                let block = Block::new(container.settings.size, stack, node);
                claim.blocks.insert((container.server.clone(), container.name.clone()), block);
            }
        }
        claim
    }

    /// Others may not have it.
    pub fn add(&self, reserved: &mut Reserved) {
        reserved.ports.extend(self.ports.iter().cloned());
        reserved.subnets.extend(self.subnets.iter().cloned());
        reserved.blocks.extend(self.blocks.clone());
        reserved.domains.extend(self.domains.clone());
    }

    /// Its containers show it, or it was not used.
    pub fn remove(&self, reserved: &mut Reserved) {
        reserved.ports.retain(|port| !self.ports.contains(port));
        reserved.subnets.retain(|subnet| !self.subnets.contains(subnet));
        reserved.blocks.retain(|place, _| !self.blocks.contains_key(place));
        reserved.domains.retain(|domain, _| !self.domains.contains_key(domain));
    }
}

/// What a world is made from.
pub struct Found<'a> {
    /// What the engines said.
    pub survey: &'a Survey,
    /// What the router serves.
    pub tables: &'a [StackRoutes],
    /// Where services are reached from other servers, whether they run at the moment or not.
    pub promised: &'a [SocketAddr],
    /// What launches under way have.
    pub reserved: &'a Reserved,
}

impl Found<'_> {
    /// Every port of a server that a container, a route, a service or a launch under way has, of all HQs on its engine.
    pub fn ports_taken(&self, server: &ServerName, ground: &Ground) -> BTreeSet<u16> {
        let mut taken = self.reserved.ports_of(server);
        let there = self.survey.containers.iter().filter(|seen| seen.server == *server);
        taken.extend(there.flat_map(|seen| ports(&seen.container)));
        taken.extend(self.promised.iter().filter(|at| at.ip() == ground.address).map(SocketAddr::port));
        for node in self.tables.iter().flat_map(|table| table.nodes.values()) {
            match &node.target {
                Target::Peers(peers) => {
                    let there = peers.iter().filter(|peer| peer.address.ip() == ground.address);
                    taken.extend(there.map(|peer| peer.address.port()));
                }
                Target::Site(_) => {}
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Instruction;
    use crate::launch::plan::plan;
    use crate::launch::sample::{name, settings, world};
    use crate::names::ReleaseNumber;
    use crate::units::Megabytes;

    #[test]
    fn what_a_launch_was_promised_is_taken_until_its_containers_show_it() {
        let deploy = Instruction::Deploy {
            node: name("web"),
            release: ReleaseNumber(1),
            count: 1,
            settings: Box::new(settings()),
        };
        let plan = plan(&[deploy], &world(&["hq"])).unwrap();
        let (claim, mut reserved, server) = (Claim::of(&plan), Reserved::default(), name("hq"));
        claim.add(&mut reserved);
        let mut slice = Slice::new(Megabytes(1000));
        reserved.fill(&server, &mut slice);
        reserved.fill(&server, &mut slice);
        assert_eq!((slice.used(), slice.blocks.len()), (Megabytes(100), 1), "counted once");
        assert_eq!(reserved.ports_of(&server), BTreeSet::from([20_000]));
        reserved.fill(&name("s1"), &mut slice);
        assert_eq!(slice.blocks.len(), 1, "another server's");
        claim.remove(&mut reserved);
        let mut slice = Slice::new(Megabytes(1000));
        reserved.fill(&server, &mut slice);
        assert_eq!((slice.used(), reserved.ports_of(&server).len()), (Megabytes(0), 0));
    }
}
