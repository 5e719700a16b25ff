//! From instructions and the world to steps that leave nothing to choose. Pure: same inputs, same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::address::{self, Exhausted};
use super::check::Check;
use super::difference::difference;
use super::table::Table;
use super::world::{Instance, World};
use super::{ContainerPlan, Plan, Proc, Role, Step};
use crate::docker::Restart;
use crate::instruction::{Instruction, Settings};
use crate::names::{Domain, NodeName, ReleaseNumber};
use crate::router::Peer;
use crate::stack::{Kind, Overlap};
use crate::units::Millis;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing left to hand out.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// SCALE of a node that was never deployed.
    #[error("the stack has no node `{0}` that runs; `ps` lists those it has")]
    NoNode(NodeName),
    /// More than one container of something that may exist only once.
    #[error("`{0}` is a service or keeps volumes with `stop-first`: it has one container at most")]
    OnlyOne(NodeName),
}

/// Plans the instructions, in their order.
///
/// # Errors
/// The first thing that cannot be had; then nothing has been planned.
pub fn plan(instructions: &[Instruction], world: &World) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(world);
    for instruction in instructions {
        planner.note_kind(instruction);
        match instruction {
            Instruction::Ensure { node, settings } => planner.ensure(node, settings)?,
            Instruction::Deploy { node, release, count, settings } => {
                let proc = planner.proc(node, *count, *release, world.env_version, settings);
                planner.deploy(proc)?;
            }
            Instruction::Scale { node, count } => planner.scale(node, *count)?,
            Instruction::Route { node, add, remove, document_root } => {
                planner.route(node, add, remove, document_root.as_deref());
            }
            Instruction::Kill { container, grace } => planner.kill(container, *grace),
        }
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    world: &'a World,
    plan: Plan,
    /// Release commands and boots of start-first nodes, in stage order.
    releases: Vec<Step>,
    boots: Vec<Step>,
    checks: Vec<Step>,
    ports_taken: BTreeSet<u16>,
    services: BTreeMap<NodeName, (String, Vec<u16>)>,
    addresses: BTreeSet<Ipv4Addr>,
    table: Table,
    /// Nodes told to rest: beside a release they are gone for good, by themselves they keep their place.
    rested: BTreeSet<NodeName>,
    releases_something: bool,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World) -> Self {
        let services = world.procs.values().filter_map(|proc| Some((proc, proc.address?)));
        Self {
            world,
            plan: Plan::default(),
            releases: Vec::new(),
            boots: Vec::new(),
            checks: Vec::new(),
            ports_taken: world.ports_taken.clone(),
            services: services
                .clone()
                .map(|(proc, address)| (proc.node.clone(), (address.to_string(), proc.settings.ports.clone())))
                .collect(),
            addresses: services.map(|(_, address)| address).collect(),
            table: Table::of(world),
            rested: BTreeSet::new(),
            releases_something: false,
        }
    }

    fn note_kind(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Ensure { .. } | Instruction::Deploy { .. } => self.releases_something = true,
            Instruction::Route { add, .. } => self.releases_something |= !add.is_empty(),
            Instruction::Scale { node, count } if *count == 0 => drop(self.rested.insert(node.clone())),
            Instruction::Scale { .. } | Instruction::Kill { .. } => {}
        }
    }

    fn proc(&self, node: &NodeName, count: u32, release: ReleaseNumber, env_version: u64, settings: &Settings) -> Proc {
        Proc { node: node.clone(), count, release, env_version, settings: settings.clone(), address: None }
    }

    /// ENSURE never replaces a service that runs: it says what differs.
    fn ensure(&mut self, node: &NodeName, settings: &Settings) -> Result<(), PlanError> {
        let existing = self.world.of(node).find(|instance| instance.role == Role::Service);
        let known = self.world.procs.get(node).filter(|proc| proc.address.is_some());
        if let (Some(instance), Some(known), true) =
            (existing, known, existing.is_some_and(|instance| instance.release.is_some()))
        {
            if known.settings != *settings {
                self.plan.notes.push(difference(self.world, node, &known.settings, settings));
            }
            if !instance.runs {
                self.boots.push(Step::Start { container: instance.name.clone() });
                self.checks.push(awaiting(&instance.name, known, None));
            }
            let kept = Proc { count: 1, ..known.clone() };
            self.plan.procs.insert(node.clone(), kept);
            return Ok(());
        }
        let address = match known.and_then(|proc| proc.address) {
            Some(address) => address,
            None => {
                let address = address::fixed(&self.world.subnet, &self.addresses)?;
                self.addresses.insert(address);
                address
            }
        };
        self.services.insert(node.clone(), (address.to_string(), settings.ports.clone()));
        let proc = self.proc(node, 1, self.world.release, self.world.env_version, settings);
        let proc = Proc { address: Some(address), ..proc };
        let olds: Vec<Instance> = self.world.of(node).cloned().collect();
        self.replace(&olds, proc, 1)
    }

    /// Boots what is missing of `proc.count` containers of this release; older ones go.
    fn deploy(&mut self, proc: Proc) -> Result<(), PlanError> {
        if proc.count > 1 && alone(&proc.settings) {
            return Err(PlanError::OnlyOne(proc.node));
        }
        let (current, olds): (Vec<Instance>, Vec<Instance>) =
            self.world.of(&proc.node).cloned().partition(|instance| instance.release == Some(proc.release));
        let kept = current.len().min(proc.count as usize);
        let missing = proc.count - kept as u32;
        let surplus = current[kept..].to_vec();
        self.keep(&proc, &current[..kept]);
        let going = [olds, surplus].concat();
        if proc.settings.release.is_some() && missing > 0 && current.is_empty() {
            self.release_command(&proc);
        }
        self.replace(&going, proc, missing)
    }

    /// Containers that stay: those asleep are started, and all are routed.
    fn keep(&mut self, proc: &Proc, kept: &[Instance]) {
        for instance in kept.iter().filter(|instance| !instance.runs) {
            self.boots.push(Step::Start { container: instance.name.clone() });
            self.checks.push(awaiting(&instance.name, proc, instance.published));
        }
        self.table.peers(&proc.node, kept);
    }

    fn scale(&mut self, node: &NodeName, count: u32) -> Result<(), PlanError> {
        let Some(known) = self.world.procs.get(node).cloned() else {
            // A node that never ran may still be told to rest.
            return if count == 0 { Ok(()) } else { Err(PlanError::NoNode(node.clone())) };
        };
        if count > 1 && (known.address.is_some() || alone(&known.settings)) {
            return Err(PlanError::OnlyOne(node.clone()));
        }
        let current: Vec<Instance> = self.world.of(node).cloned().collect();
        let kept = current.len().min(count as usize);
        let missing = count - kept as u32;
        let proc = Proc { count, ..known };
        self.keep(&proc, &current[..kept]);
        self.replace(&current[kept..], proc, missing)
    }

    /// Boots `missing` containers and sends `going` away, overlapping as the node allows.
    fn replace(&mut self, going: &[Instance], proc: Proc, missing: u32) -> Result<(), PlanError> {
        let stop_first = alone(&proc.settings) || proc.address.is_some();
        let grace = proc.settings.grace;
        let unhooks = |name: &crate::names::ContainerName| {
            proc.settings
                .unhook
                .iter()
                .map(|command| Step::Hook { container: name.clone(), command: command.clone(), must: false })
                .collect::<Vec<_>>()
        };
        if stop_first {
            for old in going.iter().filter(|old| old.runs && missing > 0) {
                self.plan.switch.extend(unhooks(&old.name));
                self.plan.switch.push(Step::Stop { container: old.name.clone(), grace });
            }
        }
        self.boot(&proc, missing, stop_first && !going.is_empty())?;
        for old in going {
            if !stop_first || missing == 0 {
                if let Some(published) = old.published {
                    self.plan.retire.push(Step::Drain { container: old.name.clone(), published, grace });
                }
                self.plan.retire.extend(unhooks(&old.name));
            }
            self.plan.retire.push(Step::Remove { container: old.name.clone(), grace });
        }
        self.plan.procs.insert(proc.node.clone(), proc);
        Ok(())
    }

    /// Boots `missing` containers of `proc`; `late`: in the switch, after the old ones have stopped.
    fn boot(&mut self, proc: &Proc, missing: u32, late: bool) -> Result<(), PlanError> {
        let mut index = 0;
        for _ in 0..missing {
            let container = self.container(proc, &mut index)?;
            let name = container.name.clone();
            let published = container.published;
            if let Some(address) = published {
                self.table.join(&proc.node, Peer { container: name.clone(), address });
            }
            let mut checks = vec![awaiting(&name, proc, published)];
            checks.extend(proc.settings.hook.iter().map(|command| Step::Hook {
                container: name.clone(),
                command: command.clone(),
                must: true,
            }));
            let boot = Step::Boot { container: Box::new(container) };
            if late {
                self.plan.switch.push(boot);
                self.plan.switch.extend(checks);
            } else {
                self.boots.push(boot);
                self.checks.extend(checks);
            }
        }
        Ok(())
    }

    /// The next container of a node: the lowest index whose name is free.
    fn container(&mut self, proc: &Proc, index: &mut u32) -> Result<ContainerPlan, PlanError> {
        let name = loop {
            *index += 1;
            let name = self.world.identity.container(&self.world.stack, &proc.node, proc.release, *index);
            if !self.world.names.contains(&name) {
                break name;
            }
        };
        let published = match (proc.settings.kind, proc.settings.ports.first()) {
            (Kind::Web, Some(_)) => Some(address::port(&self.world.ground, &mut self.ports_taken)?),
            (Kind::Web | Kind::Worker | Kind::Service | Kind::Image | Kind::Static, _) => None,
        };
        Ok(ContainerPlan {
            name,
            stack: self.world.stack.clone(),
            node: proc.node.clone(),
            release: proc.release,
            index: *index,
            role: if proc.address.is_some() { Role::Service } else { Role::Node },
            settings: proc.settings.clone(),
            env_version: proc.env_version,
            services: self.services.clone(),
            published,
            network: self.world.identity.network(&self.world.stack),
            address: proc.address,
        })
    }

    /// The release command: once, before any container of the node, in a container of its own.
    fn release_command(&mut self, proc: &Proc) {
        let node: NodeName = format!("{:.32}-release", proc.node.as_str())
            .parse()
            .unwrap_or_else(|_| "release".parse().expect("a name written in the program is well formed"));
        let settings = Settings {
            command: proc.settings.release.clone(),
            args: Vec::new(),
            ports: Vec::new(),
            health: None,
            release: None,
            hook: Vec::new(),
            unhook: Vec::new(),
            ..proc.settings.clone()
        };
        let container = ContainerPlan {
            name: self.world.identity.container(&self.world.stack, &node, proc.release, 0),
            stack: self.world.stack.clone(),
            node: proc.node.clone(),
            release: proc.release,
            index: 0,
            role: Role::Once,
            settings,
            env_version: proc.env_version,
            services: self.services.clone(),
            published: None,
            network: self.world.identity.network(&self.world.stack),
            address: None,
        };
        self.releases.push(Step::Once { container: Box::new(container) });
    }

    fn route(&mut self, node: &NodeName, add: &[Domain], remove: &[Domain], document_root: Option<&str>) {
        if add.is_empty() && document_root.is_none() && !self.plan.procs.contains_key(node) {
            self.table.forget(node);
            return;
        }
        self.table.domains(node, add, remove);
        match document_root {
            Some(document_root) => {
                let folder = self.world.sites.join(node.as_str());
                self.table.site(node, folder.clone());
                let document_root = document_root.to_owned();
                self.releases.push(Step::Site { node: node.clone(), document_root, folder });
            }
            None => self.table.no_site(node),
        }
    }

    fn kill(&mut self, container: &crate::names::ContainerName, grace: Millis) {
        if let Some(instance) = self.world.instances.iter().find(|instance| instance.name == *container)
            && let Some(published) = instance.published
        {
            self.table.leave(&instance.node, container);
            self.plan.retire.push(Step::Drain { container: container.clone(), published, grace });
        }
        self.plan.retire.push(Step::Remove { container: container.clone(), grace });
    }

    fn finish(mut self) -> Plan {
        let mut plan = self.plan;
        plan.ended = if self.releases_something { self.rested.into_iter().collect() } else { Vec::new() };
        let boots = !self.boots.is_empty() || !self.releases.is_empty() || !plan.switch.is_empty();
        if boots && !self.world.network_exists {
            let name = self.world.identity.network(&self.world.stack);
            plan.stage.push(Step::Network { name, subnet: self.world.subnet.clone() });
        }
        // Services come before release commands, which may need them; both come before the nodes.
        let (services, nodes): (Vec<Step>, Vec<Step>) =
            self.boots.into_iter().partition(|step| is_service(step, &plan.procs));
        let (service_checks, checks): (Vec<Step>, Vec<Step>) =
            self.checks.into_iter().partition(|step| matches!(step, Step::Await { role: Role::Service, .. }));
        plan.stage.extend(services);
        plan.stage.extend(service_checks);
        plan.stage.extend(self.releases);
        plan.stage.extend(nodes);
        plan.stage.extend(checks);
        for node in &plan.ended {
            plan.procs.remove(node);
            self.table.forget(node);
        }
        plan.route.extend(self.table.changed(self.world).map(|table| Step::Route { table }));
        plan
    }
}

fn is_service(step: &Step, procs: &BTreeMap<NodeName, Proc>) -> bool {
    match step {
        Step::Boot { container } => container.role == Role::Service,
        Step::Start { container } => procs
            .values()
            .any(|proc| proc.address.is_some() && container.as_str().contains(&format!(".{}.", proc.node))),
        Step::Network { .. }
        | Step::Site { .. }
        | Step::Once { .. }
        | Step::Await { .. }
        | Step::Hook { .. }
        | Step::Stop { .. }
        | Step::Route { .. }
        | Step::Unroute { .. }
        | Step::Drain { .. }
        | Step::Remove { .. }
        | Step::RemoveNetwork { .. } => false,
    }
}

/// Whether a node may exist only once.
fn alone(settings: &Settings) -> bool {
    settings.overlap == Overlap::StopFirst
}

fn awaiting(name: &crate::names::ContainerName, proc: &Proc, published: Option<std::net::SocketAddr>) -> Step {
    let check = match (&proc.settings.health, published) {
        (Some(health), _) => Check::Health(health.clone()),
        (None, Some(_)) => Check::Listens,
        (None, None) => Check::Settles,
    };
    Step::Await {
        container: name.clone(),
        node: proc.node.clone(),
        check,
        port: proc.settings.ports.first().copied(),
        published,
        role: if proc.address.is_some() { Role::Service } else { Role::Node },
        restart: match (proc.address, proc.settings.overlap) {
            (Some(_), _) | (None, Overlap::StartFirst) => Restart::UnlessStopped,
            (None, Overlap::StopFirst) => Restart::No,
        },
    }
}
