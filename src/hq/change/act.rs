//! Scale, restart, rollback, variables, launch of a tarball, destroy. The caller holds the stack's turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::db::{Guard, layout};
use crate::env::Env;
use crate::hq::act::Job;
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::instruction::tarball::Manifest;
use crate::instruction::{Instruction, Settings};
use crate::launch::act::Say;
use crate::launch::journal::{Operation, Phase};
use crate::launch::record::{Cause, Release};
use crate::launch::{ContainerPlan, Plan, Proc, Role, Step};
use crate::names::{ContainerName, NodeName, ReleaseNumber, StackName, UserName};
use crate::router::check_domains;
use crate::stack::Command;
use crate::units::Millis;

impl Hq {
    /// The instructions that give nodes these numbers of containers.
    pub fn scale_job(stack: &StackName, counts: &BTreeMap<NodeName, u32>) -> Job {
        let scale = |(node, count): (&NodeName, &u32)| Instruction::Scale { node: node.clone(), count: *count };
        Job {
            stack: stack.clone(),
            verb: "scale",
            instructions: counts.iter().map(scale).collect(),
            release: None,
            branch: None,
            env: None,
            renew: BTreeSet::new(),
        }
    }

    /// Replaces the containers of these nodes (of all but services when none is named) by new ones.
    ///
    /// # Errors
    /// Why it was refused; then the old ones run on.
    pub async fn restart(
        self: &Arc<Self>,
        stack: &StackName,
        nodes: &BTreeSet<NodeName>,
        say: Say<'_>,
    ) -> Result<(), HqError> {
        let current = self.current(stack).await?;
        let counts = self.counts(stack).await?;
        let wanted = |node: &NodeName, service: bool| if nodes.is_empty() { !service } else { nodes.contains(node) };
        let mut instructions = Vec::new();
        for instruction in &current.instructions {
            match instruction {
                Instruction::Ensure { node, .. } if wanted(node, true) => instructions.push(instruction.clone()),
                Instruction::Deploy { node, release, count, settings } if wanted(node, false) => {
                    let count = counts.get(node).copied().unwrap_or(*count);
                    let settings = without_release_command(settings);
                    instructions.push(Instruction::Deploy { node: node.clone(), release: *release, count, settings });
                }
                _ => {}
            }
        }
        let found: BTreeSet<NodeName> = instructions.iter().filter_map(Instruction::launches).cloned().collect();
        if let Some(missing) = nodes.difference(&found).next() {
            return Err(self.no_node(stack, missing, &current));
        }
        let job = Job {
            stack: stack.clone(),
            verb: "restart",
            instructions,
            release: None,
            branch: None,
            env: None,
            renew: found,
        };
        self.operate(job, say).await.map(drop)
    }

    /// The error that names the nodes there are.
    pub fn no_node(&self, stack: &StackName, node: &NodeName, current: &Release) -> HqError {
        let known: Vec<String> =
            current.instructions.iter().filter_map(Instruction::launches).map(ToString::to_string).collect();
        HqError::NoNode { stack: stack.clone(), node: node.clone(), known: known.join(", ") }
    }

    async fn counts(&self, stack: &StackName) -> Result<BTreeMap<NodeName, u32>, HqError> {
        Ok(self.procs(stack).await?.into_iter().map(|proc| (proc.node, proc.count)).collect())
    }

    /// Brings a kept release's code and variables back as a new release; the one before the current when no number is
    /// given.
    ///
    /// # Errors
    /// Why it was refused; then nothing has changed.
    pub async fn rollback(
        self: &Arc<Self>,
        stack: &StackName,
        number: Option<ReleaseNumber>,
        user: &UserName,
        say: Say<'_>,
    ) -> Result<Release, HqError> {
        let releases = self.releases(stack).await?;
        let current = releases.last().ok_or_else(|| HqError::NeverDeployed(stack.clone()))?;
        let number = number.unwrap_or(ReleaseNumber(current.number.0.saturating_sub(1)));
        let target = releases
            .iter()
            .find(|release| release.number == number)
            .ok_or_else(|| HqError::NoRelease { stack: stack.clone(), number })?;
        say(&phase(&format!("Rolling {stack} back to release {number} ({})", target.subject)));
        self.check_images(target).await?;
        if let Some(commit) = target.commit.as_ref().filter(|_| has_sites(&target.instructions)) {
            self.checkout(stack, commit, &self.stack_folder(stack).join("src")).await?;
        }
        let release = self.again(current, target, Cause::Rollback(number), user).await?;
        let env = Some(release.env_version);
        self.relaunch(stack, release, env, say).await
    }

    /// Every image of a kept release must still be there: better refused before anything begins.
    async fn check_images(&self, release: &Release) -> Result<(), HqError> {
        for instruction in &release.instructions {
            let (Instruction::Ensure { node, settings } | Instruction::Deploy { node, settings, .. }) = instruction
            else {
                continue;
            };
            if self.engine().image(settings.image.as_str()).await?.is_none() {
                return Err(HqError::ImageGone { node: node.clone(), number: release.number });
            }
        }
        Ok(())
    }

    /// A new release with the content of `target`, its number after `current`'s.
    async fn again(
        &self,
        current: &Release,
        target: &Release,
        cause: Cause,
        user: &UserName,
    ) -> Result<Release, HqError> {
        let number = current.number.next();
        let mut instructions: Vec<Instruction> =
            target.instructions.iter().map(|instruction| renumbered(instruction, number)).collect();
        instructions.extend(crate::instruction::compile::endings(&instructions, &current.instructions));
        Ok(Release {
            number,
            cause,
            commit: target.commit.clone(),
            subject: target.subject.clone(),
            env_version: target.env_version,
            instructions,
            user: user.clone(),
            created: self.clock.now(),
        })
    }

    async fn relaunch(
        self: &Arc<Self>,
        stack: &StackName,
        mut release: Release,
        env: Option<u64>,
        say: Say<'_>,
    ) -> Result<Release, HqError> {
        let counts = self.counts(stack).await?;
        for instruction in &mut release.instructions {
            if let Instruction::Deploy { node, count, settings, .. } = instruction {
                *count = counts.get(node).copied().unwrap_or(*count);
                *settings = without_release_command(settings);
            }
        }
        check_domains(stack, release.instructions.iter().flat_map(Instruction::domains), &self.tables().await?)?;
        if let Some(commit) = &release.commit {
            self.pin(stack, release.number, commit).await?;
        }
        let job = Job {
            stack: stack.clone(),
            verb: "release",
            instructions: release.instructions.clone(),
            release: Some(release.clone()),
            branch: None,
            env,
            renew: BTreeSet::new(),
        };
        if let Err(error) = self.operate(job, say).await {
            self.unpin_number(stack, release.number).await;
            return Err(error);
        }
        say(&detail(&format!("release {} of {stack} is live", release.number)));
        Ok(release)
    }

    /// Launches the running code again with other variables.
    ///
    /// # Errors
    /// Why it was refused; then neither containers nor variables have changed.
    pub async fn release_env(
        self: &Arc<Self>,
        stack: &StackName,
        env: &Env,
        names: Vec<String>,
        user: &UserName,
        say: Say<'_>,
    ) -> Result<Release, HqError> {
        let current = self.current(stack).await?;
        let env_version = self.env_version(stack, env).await?;
        let mut release = self.again(&current, &current, Cause::Env(names), user).await?;
        release.env_version = env_version;
        if let Some(commit) = release.commit.as_ref().filter(|_| has_sites(&release.instructions)) {
            self.checkout(stack, commit, &self.stack_folder(stack).join("src")).await?;
        }
        say(&phase(&format!("Launching release {} with the new variables", release.number)));
        self.relaunch(stack, release, Some(env_version), say).await
    }

    /// The job of an instruction tarball: a new release with its content.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn launch_job(
        &self,
        manifest: &Manifest,
        instructions: &[Instruction],
        user: &UserName,
    ) -> Result<Job, HqError> {
        let stack = &manifest.stack;
        let releases = self.releases(stack).await?;
        let number = releases.last().map_or(ReleaseNumber(1), |last| last.number.next());
        let env = self.env(stack).await?;
        let env_version = self.env_version(stack, &env).await?;
        let instructions: Vec<Instruction> =
            instructions.iter().map(|instruction| renumbered(instruction, number)).collect();
        check_domains(stack, instructions.iter().flat_map(Instruction::domains), &self.tables().await?)?;
        let release = Release {
            number,
            cause: Cause::Launch,
            commit: manifest.commit.clone(),
            subject: String::new(),
            env_version,
            instructions: instructions.clone(),
            user: user.clone(),
            created: self.clock.now(),
        };
        Ok(Job {
            stack: stack.clone(),
            verb: "launch",
            instructions,
            release: Some(release),
            branch: None,
            env: None,
            renew: BTreeSet::new(),
        })
    }

    /// Makes the container of a one-off command, not yet started, and gives its name.
    ///
    /// # Errors
    /// When the stack or node does not exist, or docker fails.
    pub async fn prepare_one_off(&self, wanted: OneOff) -> Result<ContainerName, HqError> {
        let current = self.current(&wanted.stack).await?;
        let procs = self.procs(&wanted.stack).await?;
        let found = match &wanted.node {
            Some(node) => procs.iter().find(|proc| proc.node == *node),
            None => procs
                .iter()
                .find(|proc| proc.node.as_str() == "web")
                .or_else(|| procs.iter().find(|proc| proc.address.is_none()).or_else(|| procs.first())),
        };
        let missing = || wanted.node.clone().unwrap_or_else(|| "web".parse().expect("`web` is a node name"));
        let proc = found.ok_or_else(|| self.no_node(&wanted.stack, &missing(), &current))?;
        let world = self.world(&wanted.stack, current.number, current.env_version).await?;
        let node: NodeName = "run".parse().expect("`run` is a node name");
        let mut free = 1..;
        let name = free
            .find_map(|index| {
                let name = self.launcher.identity.container(&wanted.stack, &node, current.number, index);
                (!world.names.contains(&name)).then_some(name)
            })
            .expect("one of infinitely many names is free");
        let plan = one_off_plan(name.clone(), proc, &procs, &wanted, self.launcher.identity.network(&wanted.stack));
        let mut request = self.launcher.request(&plan).await?;
        request.tty = wanted.tty;
        request.stdin = true;
        self.engine().create(request).await?;
        Ok(name)
    }

    /// Stops every container of a stack and keeps its releases and volumes; gives how many there were.
    ///
    /// # Errors
    /// When docker fails.
    pub async fn stop_all(self: &Arc<Self>, stack: &StackName) -> Result<usize, HqError> {
        let current = self.current(stack).await?;
        let world = self.world(stack, current.number, current.env_version).await?;
        for instance in &world.instances {
            let grace = world.procs.get(&instance.node).map_or(Millis::seconds(10), |proc| proc.settings.grace);
            let step = Step::Remove { container: instance.name.clone(), grace };
            self.launcher.perform(stack, &step, &|_| {}).await?;
        }
        let network = Step::RemoveNetwork { name: self.launcher.identity.network(stack) };
        self.launcher.perform(stack, &network, &|_| {}).await?;
        Ok(world.instances.len())
    }

    /// Takes a stack and everything it has away.
    ///
    /// # Errors
    /// When it cannot be begun; once begun, the next start finishes it.
    pub async fn destroy(self: &Arc<Self>, stack: &StackName, say: Say<'_>) -> Result<(), HqError> {
        self.status(stack).await?;
        let world = self.world(stack, ReleaseNumber(0), 0).await?;
        let kill = |name: &ContainerName| Step::Remove { container: name.clone(), grace: Millis::seconds(10) };
        let mut plan = Plan { route: vec![Step::Unroute { stack: stack.clone() }], ..Plan::default() };
        plan.retire.extend(world.instances.iter().map(|instance| kill(&instance.name)));
        plan.retire.push(Step::RemoveNetwork { name: self.launcher.identity.network(stack) });
        let book = self.book(stack).await?;
        let operation = Operation {
            verb: "destroy".to_owned(),
            release: None,
            pinned: None,
            branch: None,
            plan,
            phase: Phase::Destroying,
            env_version: None,
        };
        book.write(|journal| journal.active = Some(operation)).await?;
        self.finish_destroy(stack, say).await
    }

    /// Does what is left of a destruction that was begun. Every part may be done twice.
    ///
    /// # Errors
    /// What could not be removed; the journal stays.
    pub async fn finish_destroy(self: &Arc<Self>, stack: &StackName, say: Say<'_>) -> Result<(), HqError> {
        let book = self.book(stack).await?;
        let journal = book.read().await;
        let plan = journal.active.map(|active| active.plan).unwrap_or_default();
        let earlier = journal.retiring.iter().filter(|step| matches!(step, Step::Remove { .. }));
        for step in plan.route.iter().chain(earlier).chain(&plan.retire) {
            self.launcher.perform(stack, step, say).await?;
            // One write a step keeps the promise that every step can be the last one HQ lives to see.
            book.write(|_| {}).await?;
        }
        self.db.delete(&layout::routes(stack), Guard::Any).await?;
        self.db.delete_under(&layout::proc_prefix(stack)).await?;
        self.remove_images(stack).await?;
        self.remove_folders(stack).await?;
        self.db.delete_under(&layout::stack(stack)).await?;
        book.write(|journal| {
            journal.active = None;
            journal.retiring.clear();
        })
        .await?;
        self.forget_book(stack);
        Ok(())
    }
}

/// A command to run once in a container of its own.
pub struct OneOff {
    /// In whose name.
    pub stack: StackName,
    /// With which node's image and settings; the web node's (or the first one's) when absent.
    pub node: Option<NodeName>,
    /// The command.
    pub words: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
}

fn has_sites(instructions: &[Instruction]) -> bool {
    instructions.iter().any(|one| matches!(one, Instruction::Route { document_root: Some(_), .. }))
}

/// The same instruction for another release.
fn renumbered(instruction: &Instruction, number: ReleaseNumber) -> Instruction {
    match instruction.clone() {
        Instruction::Deploy { node, count, settings, .. } => {
            Instruction::Deploy { node, release: number, count, settings }
        }
        other => other,
    }
}

/// A release command belongs to new code; it does not run again for code that has served already.
fn without_release_command(settings: &Settings) -> Box<Settings> {
    Box::new(Settings { release: None, ..settings.clone() })
}

fn one_off_plan(name: ContainerName, proc: &Proc, procs: &[Proc], wanted: &OneOff, network: String) -> ContainerPlan {
    let services = procs
        .iter()
        .filter_map(|proc| Some((proc.node.clone(), (proc.address?.to_string(), proc.settings.ports.clone()))));
    ContainerPlan {
        name,
        stack: wanted.stack.clone(),
        node: proc.node.clone(),
        release: proc.release,
        index: 0,
        role: Role::Once,
        settings: Settings {
            command: Some(Command::Words(wanted.words.clone())),
            args: Vec::new(),
            ..proc.settings.clone()
        },
        env_version: proc.env_version,
        services: services.collect(),
        published: None,
        network,
        address: None,
    }
}
