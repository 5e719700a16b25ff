//! From instructions and the world to steps that leave nothing to choose. Pure: same inputs, same plan.

use std::collections::{BTreeMap, BTreeSet};

use super::check::awaiting;
use super::difference::difference;
pub use super::no_plan::PlanError;
use super::place::Places;
use super::table::Table;
use super::world::{Instance, World};
use super::{ContainerPlan, Plan, Proc, Role, Step};
use crate::grid::Grid;
use crate::instruction::{Instruction, Settings};
use crate::names::{ContainerName, Domain, ImageId, InnerPath, NodeName, ServerName};
use crate::router::Peer;
use crate::stack::{Command, Kind};
use crate::units::Millis;

mod containers;

/// Plans the instructions, in their order.
///
/// # Errors
/// The first thing that cannot be had; then nothing has been planned.
pub fn plan(instructions: &[Instruction], world: &World) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(world, instructions);
    planner.take(instructions)?;
    Ok(planner.finish())
}

/// The grid after these instructions; what has no room goes to a server of the world that nothing else goes to.
///
/// # Errors
/// What else stands in the way than room.
pub(super) fn grid_after(
    instructions: &[Instruction],
    world: &World,
    overflow: &ServerName,
) -> Result<Grid, PlanError> {
    let mut planner = Planner::new(world, instructions);
    planner.places.overflow_to(overflow.clone());
    planner.take(instructions)?;
    Ok(planner.places.into_grid())
}

struct Planner<'a> {
    world: &'a World,
    plan: Plan,
    /// What an earlier launch retires, and may not see its successor run.
    evictions: Vec<Step>,
    /// Release commands and boots of start-first nodes, in stage order.
    releases: Vec<Step>,
    boots: Vec<Step>,
    checks: Vec<Step>,
    places: Places<'a>,
    table: Table,
    /// Nodes told to rest: beside a release they are gone for good, by themselves they keep their place.
    rested: BTreeSet<NodeName>,
    releases_something: bool,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World, instructions: &[Instruction]) -> Self {
        Self {
            world,
            plan: Plan::default(),
            evictions: Vec::new(),
            releases: Vec::new(),
            boots: Vec::new(),
            checks: Vec::new(),
            places: Places::new(world, instructions),
            table: Table::of(world),
            rested: BTreeSet::new(),
            releases_something: false,
        }
    }

    fn take(&mut self, instructions: &[Instruction]) -> Result<(), PlanError> {
        let world = self.world;
        for instruction in instructions {
            self.note_kind(instruction);
            match instruction {
                Instruction::Ensure { node, settings } => self.ensure(node, settings)?,
                Instruction::Deploy { node, release, count, settings } => {
                    let proc = world.proc(node, *count, *release, world.env_version, settings);
                    self.deploy(proc)?;
                }
                Instruction::Scale { node, count } => self.scale(node, *count)?,
                Instruction::Route { node, add, remove, document_root, rules } => {
                    self.route(node, add, remove, document_root.as_ref());
                    self.table.rules(node, rules);
                }
                Instruction::Kill { container, grace } => self.kill(container, *grace),
            }
        }
        Ok(())
    }

    fn note_kind(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Ensure { .. } | Instruction::Deploy { .. } => self.releases_something = true,
            Instruction::Route { add, .. } => self.releases_something |= !add.is_empty(),
            Instruction::Scale { node, count } if *count == 0 => drop(self.rested.insert(node.clone())),
            Instruction::Scale { .. } | Instruction::Kill { .. } => {}
        }
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
                self.boots.push(Step::Start { server: instance.server.clone(), container: instance.name.clone() });
                self.checks.push(awaiting(&instance.server, &instance.name, known, None, &instance.exposed));
            }
            let kept = Proc { count: 1, ..known.clone() };
            self.plan.procs.insert(node.clone(), kept);
            return Ok(());
        }
        let proc = self.world.proc(node, 1, self.world.release, self.world.env_version, settings);
        let proc = self.places.service(proc, known)?;
        let olds: Vec<Instance> = self.world.of(node).cloned().collect();
        self.replace(&olds, proc, 1)
    }

    /// Boots what is missing of `proc.count` containers of this release; older ones go.
    fn deploy(&mut self, proc: Proc) -> Result<(), PlanError> {
        if proc.count > 1 && proc.settings.is_alone() {
            return Err(PlanError::OnlyOne(proc.node));
        }
        let proc = self.places.released(proc);
        let (current, olds): (Vec<Instance>, Vec<Instance>) =
            self.world.of(&proc.node).cloned().partition(|instance| {
                instance.release == Some(proc.release) && !self.places.is_driven_out(instance, &proc)
            });
        let current = self.places.by_worth(current);
        let kept = current.len().min(proc.count as usize);
        let missing = proc.count - kept as u32;
        let surplus = current[kept..].to_vec();
        let proc = self.keep(proc, &current[..kept]);
        let going = [olds, surplus].concat();
        if proc.settings.release.is_some() && missing > 0 && current.is_empty() {
            self.release_command(&proc)?;
        }
        self.replace(&going, proc, missing)
    }

    /// Containers that stay: those asleep are started, and all are routed. One that may exist only once is at home there.
    fn keep(&mut self, proc: Proc, kept: &[Instance]) -> Proc {
        for instance in kept.iter().filter(|instance| !instance.runs) {
            self.boots.push(Step::Start { server: instance.server.clone(), container: instance.name.clone() });
            self.checks.push(awaiting(&instance.server, &instance.name, &proc, instance.published, &instance.exposed));
        }
        self.table.peers(&proc, kept);
        let here = kept.first().filter(|_| proc.settings.is_alone()).map(|instance| instance.server.clone());
        Proc { home: proc.home.clone().or(here), ..proc }
    }

    fn scale(&mut self, node: &NodeName, count: u32) -> Result<(), PlanError> {
        let Some(known) = self.world.procs.get(node).cloned() else {
            // A node that never ran may still be told to rest.
            return if count == 0 { Ok(()) } else { Err(PlanError::NoNode(node.clone())) };
        };
        if count > 0 && known.settings.kind == Kind::Task {
            return Err(PlanError::Task(node.clone()));
        }
        if count > 1 && (known.address.is_some() || known.settings.is_alone()) {
            return Err(PlanError::OnlyOne(node.clone()));
        }
        let proc = self.places.released(Proc { count, ..known });
        let proc = match (proc.address, &proc.home) {
            (Some(_), None) if count > 0 => match self.places.service(proc, None) {
                Err(PlanError::NoRoom(why)) if self.world.waits => {
                    self.plan.notes.push(format!("{node} waits: {why}"));
                    return Ok(());
                }
                found => found?,
            },
            _ => proc,
        };
        // What a refused launch may have left is of another release.
        let (own, strange): (Vec<Instance>, Vec<Instance>) =
            self.world.of(node).cloned().partition(|instance| instance.release == Some(proc.release));
        let (staying, driven): (Vec<Instance>, Vec<Instance>) =
            own.into_iter().partition(|instance| !self.places.is_driven_out(instance, &proc));
        let staying = self.places.by_worth(staying);
        let missing = count.saturating_sub(staying.len() as u32);
        let left = self.left_behind(&proc, &driven, missing);
        let (behind, driven) = driven.split_at(left);
        let own = [&staying[..], behind].concat();
        let kept = own.len().min(count as usize);
        let missing = self.fitting(&proc, count - kept as u32);
        let proc = self.keep(proc, &own[..kept]);
        self.replace(&[&own[kept..], driven, &strange].concat(), proc, missing)
    }

    /// How many of the containers that should leave their server stay, because their successors have no room.
    fn left_behind(&mut self, proc: &Proc, driven: &[Instance], missing: u32) -> usize {
        if driven.is_empty() || missing == 0 {
            return 0;
        }
        let (fits, why) = self.places.fitting(proc, missing);
        let left = driven.len().min((missing - fits) as usize);
        if let (1.., Some(why)) = (left, why) {
            let (node, all) = (&proc.node, driven.len());
            let what = match left == all {
                true => format!("{node} stays where it is"),
                false => format!("{left} of {all} {node} containers stay where they are"),
            };
            self.plan.notes.push(format!("{what}: {why}"));
        }
        left
    }

    /// How many of the missing containers can be made now.
    fn fitting(&mut self, proc: &Proc, missing: u32) -> u32 {
        if !self.world.waits || missing == 0 {
            return missing;
        }
        let (fitting, why) = self.places.fitting(proc, missing);
        self.plan.notes.extend(why.map(|why| format!("{} of {} wait: {why}", missing - fitting, proc.node)));
        fitting
    }

    /// Boots `missing` containers and sends `going` away, overlapping as the node allows.
    fn replace(&mut self, going: &[Instance], proc: Proc, missing: u32) -> Result<(), PlanError> {
        let stop_first = proc.settings.is_alone() || proc.address.is_some();
        self.places.leave(going, stop_first);
        let proc = if missing > 0 { self.places.settle(proc)? } else { proc };
        let grace = proc.settings.grace;
        let unhooks = |old: &Instance| {
            let (server, container) = (&old.server, &old.name);
            let hook = |command: &Command| Step::Hook {
                server: server.clone(),
                container: container.clone(),
                command: command.clone(),
                must: false,
            };
            proc.settings.unhook.iter().map(hook).collect::<Vec<_>>()
        };
        if stop_first {
            for old in going.iter().filter(|old| old.runs && missing > 0) {
                self.plan.switch.extend(unhooks(old));
                self.plan.switch.push(Step::Stop { server: old.server.clone(), container: old.name.clone(), grace });
            }
        }
        if stop_first && missing > 0 {
            self.evictions.extend(self.world.evictions(&proc));
        }
        self.boot(&proc, missing, stop_first && !going.is_empty())?;
        for old in going {
            if !stop_first || missing == 0 {
                self.plan.retire.extend(drain(old, grace));
                self.plan.retire.extend(unhooks(old));
            }
            self.plan.retire.push(Step::Remove { server: old.server.clone(), container: old.name.clone(), grace });
        }
        self.plan.procs.insert(proc.node.clone(), proc);
        Ok(())
    }

    /// Boots `missing` containers of `proc`; `late`: in the switch, after the old ones have stopped.
    fn boot(&mut self, proc: &Proc, missing: u32, late: bool) -> Result<(), PlanError> {
        let names: Vec<(u32, ContainerName)> = self.free_names(proc).take(missing as usize).collect();
        let containers: Vec<ContainerName> = names.iter().map(|(_, name)| name.clone()).collect();
        let servers = self.places.choose(proc, &containers)?;
        for ((index, name), server) in names.into_iter().zip(servers) {
            let container = self.container(proc, index, name, server)?;
            let (server, name) = (&container.server, &container.name);
            let routed = container.routed();
            if let Some(address) = routed {
                self.table.join(proc, Peer { container: name.clone(), address });
            }
            let mut checks = vec![awaiting(server, name, proc, routed, &container.published)];
            checks.extend(proc.settings.hook.iter().map(|command| Step::Hook {
                server: server.clone(),
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

    fn route(&mut self, node: &NodeName, add: &[Domain], remove: &[Domain], document_root: Option<&InnerPath>) {
        if add.is_empty() && document_root.is_none() && !self.plan.procs.contains_key(node) {
            self.table.forget(node);
            return;
        }
        self.table.domains(node, add, remove);
        match document_root {
            Some(document_root) => {
                let folder = self.world.sites.join(node.as_str());
                self.table.site(node, folder.clone());
                let document_root = document_root.clone();
                self.releases.push(Step::Site { node: node.clone(), document_root, folder });
            }
            None => self.table.no_site(node),
        }
    }

    fn kill(&mut self, container: &ContainerName, grace: Millis) {
        // One that is not there any more has nothing to go.
        let Some(instance) = self.world.instances.iter().find(|instance| instance.name == *container) else { return };
        self.table.leave(&instance.node, container);
        self.plan.retire.extend(drain(instance, grace));
        let server = instance.server.clone();
        self.plan.retire.push(Step::Remove { server, container: container.clone(), grace });
    }

    fn finish(mut self) -> Plan {
        let mut plan = self.plan;
        plan.ended = if self.releases_something { self.rested.into_iter().collect() } else { Vec::new() };
        let made = self.boots.iter().chain(&self.releases).chain(&plan.switch);
        let made: Vec<&ContainerPlan> = made.filter_map(Step::makes).collect();
        // HQ's own server has every image: they are built there.
        let far = made.iter().filter(|made| made.server != self.world.here);
        let images: BTreeSet<_> = far.map(|made| (&made.server, &made.settings.image)).collect();
        let fetch =
            |(server, image): (&ServerName, &ImageId)| Step::Fetch { server: server.clone(), image: image.clone() };
        plan.stage.extend(images.into_iter().map(fetch));
        let servers: BTreeSet<&ServerName> = made.iter().map(|made| &made.server).collect();
        for server in servers {
            let footing = self.world.servers.get(server).filter(|footing| !footing.network_exists);
            plan.stage.extend(footing.map(|footing| Step::Network {
                server: server.clone(),
                name: self.world.identity.network(&self.world.stack),
                subnet: footing.subnet.clone(),
            }));
        }
        plan.stage.extend(self.evictions);
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

/// Nobody new is led to it from the switch on; who is connected has the grace.
fn drain(instance: &Instance, grace: Millis) -> Option<Step> {
    let mut reached = instance.reached();
    let published = reached.next()?;
    Some(Step::Drain { container: instance.name.clone(), published, others: reached.collect(), grace })
}

fn is_service(step: &Step, procs: &BTreeMap<NodeName, Proc>) -> bool {
    match step {
        Step::Boot { container } => container.role == Role::Service,
        Step::Start { container, .. } => procs
            .values()
            .any(|proc| proc.address.is_some() && container.as_str().contains(&format!(".{}.", proc.node))),
        Step::Fetch { .. }
        | Step::Network { .. }
        | Step::Site { .. }
        | Step::Once { .. }
        | Step::Await { .. }
        | Step::Hook { .. }
        | Step::Stop { .. }
        | Step::Route { .. }
        | Step::Unroute { .. }
        | Step::Drain { .. }
        | Step::Remove { .. }
        | Step::RemoveNetwork { .. }
        | Step::Sweep { .. } => false,
    }
}
