//! Scale, restart, rollback, variables, launch of a tarball. The caller holds the stack's turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::env::Env;
use crate::hq::act::Job;
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::instruction::tarball::Manifest;
use crate::instruction::{Instruction, Settings};
use crate::launch::act::Say;
use crate::launch::record::{Cause, Release};
use crate::names::{NodeName, ReleaseNumber, StackName, UserName};

impl Hq {
    /// The instructions that give nodes these numbers of containers.
    pub fn scale_job(stack: &StackName, counts: &BTreeMap<NodeName, u32>) -> Job {
        let scale = |(node, count): (&NodeName, &u32)| Instruction::Scale { node: node.clone(), count: *count };
        Job::of(stack, "scale", counts.iter().map(scale).collect())
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
        let named: Vec<String> = nodes.iter().map(|node| format!("{stack}/{node}")).collect();
        say(&phase(&format!("Restarting {}", if named.is_empty() { stack.to_string() } else { named.join(" ") })));
        let job = Job { renew: found, ..Job::of(stack, "restart", instructions) };
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
            // It was read before, by somebody who may.
            self.checkout(stack, commit, &self.stack_folder(stack).join("src"), None, say).await?;
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
            if self.engines().local().image(settings.image.as_str()).await?.is_none() {
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
        crate::instruction::compile::succeed(&mut instructions, &current.instructions);
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
        self.check_domains_of(stack, &release.instructions).await?;
        self.try_snippets(&release.instructions).await?;
        if let Some(commit) = &release.commit {
            self.pin(stack, release.number, commit).await?;
        }
        let job =
            Job { release: Some(release.clone()), env, ..Job::of(stack, "release", release.instructions.clone()) };
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
            // It was read before, by somebody who may.
            self.checkout(stack, commit, &self.stack_folder(stack).join("src"), None, say).await?;
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
        self.check_domains_of(stack, &instructions).await?;
        self.try_snippets(&instructions).await?;
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
        Ok(Job { release: Some(release), ..Job::of(stack, "launch", instructions) })
    }
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
