//! Runs jobs and ends them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Hold, JobError, common_stack, jobs, on_its_server};
use crate::buildpacks::Repository;
use crate::db::{DbError, Guard, layout};
use crate::docker::Log;
use crate::env::Env;
use crate::hq::act::{Job as Operation, Planned};
use crate::hq::deploy::act::{Building, find_images, node_images};
use crate::hq::rights::Access;
use crate::hq::runs::{Outcome, Run, Runs};
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::instruction::compile::{Context, compile};
use crate::launch::act::Say;
use crate::launch::record::{Cause, Release};
use crate::launch::{ContainerPlan, Plan, Proc, Role, Step, label};
use crate::names::{ContainerName, NodeName, ReleaseNumber, ServerName, StackName, UserName};
use crate::stack::Stack;
use crate::stack::job::Job;
use crate::units::Millis;
use crate::units::random::hex;

/// How long what is ended may finish.
const GRACE: Millis = Millis::seconds(10);

/// A job's container, made and not yet started.
#[derive(Debug)]
pub struct Ready {
    /// In whose name.
    pub stack: StackName,
    /// The job.
    pub name: NodeName,
    /// Which of its runs.
    pub number: u64,
    /// Where.
    pub server: ServerName,
    /// Its container.
    pub container: ContainerName,
}

impl Hq {
    /// Makes the stack of jobs that name none, if it is that one and an operator asks.
    ///
    /// # Errors
    /// [`JobError::NoStack`], or when the tree cannot be written.
    pub async fn found_job_stack(&self, stack: &StackName, access: &Access) -> Result<(), HqError> {
        if *stack != common_stack() || self.stack_names().await?.contains(stack) {
            return Ok(());
        }
        if !access.is_operator() {
            return Err(JobError::NoStack.into());
        }
        self.ensure_stack(stack, &access.user).await
    }

    /// The release that a stack's jobs are of. That of jobs as such has one without anything in it.
    async fn release_of_jobs(&self, stack: &StackName, user: &UserName) -> Result<Release, HqError> {
        match self.current(stack).await {
            Err(HqError::NeverDeployed(_)) if *stack == common_stack() => {}
            current => return current,
        }
        let number = ReleaseNumber(1);
        let env_version = self.env_version(stack, &self.env(stack).await?).await?;
        let release = Release {
            number,
            cause: Cause::Jobs,
            commit: None,
            subject: String::new(),
            env_version,
            instructions: Vec::new(),
            user: user.clone(),
            created: self.clock.now(),
        };
        match layout::put_json(&*self.db, &layout::release(stack, number), &release, Guard::Absent).await {
            Err(DbError::Changed { .. }) => self.current(stack).await,
            other => Ok(other.map(|()| release)?),
        }
    }

    /// The instruction that a job comes to: a deployment of one container.
    async fn job_instruction(
        &self,
        stack: &StackName,
        name: &NodeName,
        job: Job,
        release: &Release,
        say: Say<'_>,
    ) -> Result<Instruction, HqError> {
        let described = Stack { nodes: BTreeMap::from([(name.clone(), on_its_server(job).node)]) };
        let building = Building {
            stack,
            described: &described,
            env: &Env::new(),
            repository: &Repository::default(),
            folder: &self.root,
            tag: String::new(),
            mtime: 0,
        };
        let reach = self.reach(&self.settings.build.registries).await?;
        let built = find_images(self.engines().local(), &self.settings, &building, Some(reach), say).await?;
        let context = Context {
            stack,
            release: release.number,
            images: &node_images(&built),
            counts: &BTreeMap::new(),
            hostnames: &[],
            size: self.settings.size,
            previous: &[],
        };
        let mut instructions = compile(&described, &context).map_err(HqError::Compile)?;
        Ok(instructions.pop().expect("a stack of one node has one deployment"))
    }

    /// Runs a job that goes on by itself, and gives its name. The caller holds the stack's turn.
    ///
    /// # Errors
    /// Why it does not run; then nothing of it is left.
    pub async fn start_job(
        self: &Arc<Self>,
        stack: &StackName,
        name: &NodeName,
        job: Job,
        user: &UserName,
        say: Say<'_>,
    ) -> Result<(), HqError> {
        let release = self.release_of_jobs(stack, user).await?;
        self.check_job_name(stack, name).await?;
        let instruction = self.job_instruction(stack, name, job, &release, say).await?;
        let plan = self.operate(Operation::of(stack, "jobs run", vec![instruction]), say).await?;
        if let Some(made) = plan.revocable().find_map(Step::makes) {
            self.begin_job(stack, name, (&made.server, &made.name), false, user).await?;
        }
        Ok(())
    }

    /// Makes the container of a job that somebody is attached to, beside whatever else happens to the stack.
    ///
    /// # Errors
    /// Why there is none; then nothing of it is left.
    pub async fn prepare_job(
        self: &Arc<Self>,
        stack: &StackName,
        job: Job,
        hold: Hold,
        user: &UserName,
        say: Say<'_>,
    ) -> Result<Ready, HqError> {
        self.check_awake()?;
        let release = self.release_of_jobs(stack, user).await?;
        let drawn = || format!("job-{}", hex::<3>()).parse().expect("a word with digits is a node name");
        let name = job.name.clone().unwrap_or_else(drawn);
        self.check_job_name(stack, &name).await?;
        let instruction = self.job_instruction(stack, &name, job, &release, say).await?;
        let operation = Operation::of(stack, "jobs run", vec![instruction]);
        let Planned { plan, claim } = self.find_room(&operation, say).await?;
        let made = self.make_job(stack, &plan, hold, say).await;
        claim.remove(&mut *self.planning.lock().await);
        let ContainerPlan { server, name: container, .. } = made?;
        let number = self.begin_job(stack, &name, (&server, &container), true, user).await?;
        Ok(Ready { stack: stack.clone(), name, number, server, container })
    }

    async fn make_job(
        &self,
        stack: &StackName,
        plan: &Plan,
        hold: Hold,
        say: Say<'_>,
    ) -> Result<ContainerPlan, HqError> {
        for step in plan.stage.iter().filter(|step| matches!(step, Step::Fetch { .. } | Step::Network { .. })) {
            self.launcher.perform(stack, step, say).await?;
        }
        self.note_networks(stack, plan);
        self.note_data(stack, plan.procs.values()).await?;
        let boot = plan.revocable().find_map(Step::makes).expect("a deployment of one makes one");
        let container = ContainerPlan { role: Role::Once, ..boot.clone() };
        let mut request = self.launcher.request(&container).await?;
        (request.tty, request.stdin, request.entrypoint) = (hold.tty, hold.stdin, hold.entrypoint);
        request.log = hold.output;
        let (label, what) = match hold.output {
            Log::Kept => (label::STAYS, "ended"),
            Log::None => (label::UNKEPT, "output"),
            Log::Handed => (label::UNKEPT, label::STREAMS),
        };
        request.labels.insert(label.to_owned(), what.to_owned());
        self.engines().of(&container.server)?.create(request).await?;
        Ok(container)
    }

    /// Refuses a name that something of the stack has.
    async fn check_job_name(&self, stack: &StackName, name: &NodeName) -> Result<(), HqError> {
        let is_proc = self.procs(stack).await?.iter().any(|proc| proc.node == *name);
        if is_proc || self.job_runs(stack, name).await?.running().next().is_some() {
            return Err(JobError::Taken { stack: stack.clone(), name: name.clone() }.into());
        }
        Ok(())
    }

    /// What should run of a stack's jobs, by name.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn job_procs(&self, stack: &StackName) -> Result<BTreeMap<NodeName, Proc>, HqError> {
        let Some(current) = self.releases(stack).await?.pop() else { return Ok(BTreeMap::new()) };
        let procs = self.procs(stack).await?;
        Ok(jobs(&procs, &current).map(|proc| (proc.node.clone(), proc.clone())).collect())
    }

    /// The runs of a stack's jobs, by name.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn all_job_runs(&self, stack: &StackName) -> Result<BTreeMap<NodeName, Runs>, DbError> {
        let mut all = BTreeMap::new();
        for entry in layout::all(&*self.db, &layout::jobs_prefix(stack)).await? {
            let name = entry.key.last().strip_suffix(".json").and_then(|name| name.parse::<NodeName>().ok());
            // It is a history and nothing more.
            let runs = serde_json::from_slice(&entry.value).unwrap_or_default();
            all.extend(name.map(|name| (name, runs)));
        }
        Ok(all)
    }

    /// The runs of one job.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn job_runs(&self, stack: &StackName, name: &NodeName) -> Result<Runs, DbError> {
        match layout::read_json(&*self.db, &layout::job(stack, name)).await {
            Err(DbError::Damaged { .. }) => Ok(Runs::default()),
            runs => Ok(runs?.unwrap_or_default()),
        }
    }

    async fn change_job_runs<T>(
        &self,
        stack: &StackName,
        name: &NodeName,
        change: impl FnOnce(&mut Runs) -> T + Send,
    ) -> Result<T, DbError> {
        let _alone = self.diaries.lock().await;
        let mut runs = self.job_runs(stack, name).await?;
        let answer = change(&mut runs);
        layout::put_json(&*self.db, &layout::job(stack, name), &runs, Guard::Any).await?;
        Ok(answer)
    }

    async fn begin_job(
        &self,
        stack: &StackName,
        name: &NodeName,
        (server, container): (&ServerName, &ContainerName),
        attached: bool,
        user: &UserName,
    ) -> Result<u64, DbError> {
        let run = Run {
            began: self.clock.now(),
            ended: None,
            by: Some(user.clone()),
            attached,
            server: server.clone(),
            container: container.clone(),
            outcome: Outcome::Running,
        };
        self.change_job_runs(stack, name, |runs| runs.begin(run)).await
    }

    /// A run that somebody was attached to is over: it does not run any more, what came of it is noted, and its container
    /// goes. Whoever waits for that finds it noted.
    ///
    /// # Errors
    /// When docker or the tree says no.
    pub async fn end_job_run(&self, ready: &Ready, outcome: Outcome) -> Result<(), HqError> {
        // With its server it is gone.
        let Ok(engine) = self.engines().of(&ready.server) else { return Ok(self.note_job_run(ready, outcome).await?) };
        if !matches!(outcome, Outcome::Exited(_)) {
            // One that cannot be stopped may still be removed.
            let _ = engine.stop(&ready.container, Millis(0)).await;
        }
        let noted = self.note_job_run(ready, outcome).await;
        engine.remove(&ready.container).await?;
        Ok(noted?)
    }

    /// A run that somebody was attached to is over, and its container stays.
    ///
    /// # Errors
    /// When the tree cannot be written.
    pub async fn note_job_run(&self, ready: &Ready, outcome: Outcome) -> Result<(), DbError> {
        let now = self.clock.now();
        self.change_job_runs(&ready.stack, &ready.name, |runs| runs.end(ready.number, outcome, now)).await?;
        Ok(())
    }

    /// Jobs that ran by themselves and should not run any more have ended: a push did that.
    pub(in crate::hq) async fn note_ended_jobs(&self, stack: &StackName) {
        if let Err(error) = self.end_jobs(stack, |run| !run.attached, &Outcome::Ended).await {
            tracing::warn!(%stack, error = ?error, "what became of jobs is not noted");
        }
    }

    /// Runs that somebody was attached to when an HQ before this one ended have ended with it.
    pub(in crate::hq) async fn end_lost_jobs(&self, stack: &StackName) -> Result<(), HqError> {
        self.end_jobs(stack, |run| run.attached, &Outcome::Failed("HQ ended while it ran".to_owned())).await
    }

    /// Notes the end of these runs, of jobs that should not run.
    async fn end_jobs(&self, stack: &StackName, which: fn(&Run) -> bool, outcome: &Outcome) -> Result<(), HqError> {
        let procs = self.job_procs(stack).await?;
        let now = self.clock.now();
        for (name, runs) in self.all_job_runs(stack).await? {
            let over: Vec<u64> = runs.running().filter(|number| which(&runs[number])).collect();
            if procs.contains_key(&name) || over.is_empty() {
                continue;
            }
            let end = |runs: &mut Runs| {
                for number in over {
                    runs.end(number, outcome.clone(), now);
                }
            };
            self.change_job_runs(stack, &name, end).await?;
        }
        Ok(())
    }

    /// Ends a job. The caller holds the stack's turn.
    ///
    /// # Errors
    /// [`JobError::None`], [`JobError::Node`], or why it cannot be ended.
    pub async fn kill_job(self: &Arc<Self>, stack: &StackName, name: &NodeName, say: Say<'_>) -> Result<(), HqError> {
        let procs = self.job_procs(stack).await?;
        let runs = self.all_job_runs(stack).await?;
        let running: Vec<Run> =
            runs.get(name).into_iter().flat_map(|runs| runs.running().map(|number| runs[&number].clone())).collect();
        if procs.contains_key(name) {
            let rest = Instruction::Scale { node: name.clone(), count: 0 };
            let end = Operation { ended: vec![name.clone()], ..Operation::of(stack, "jobs kill", vec![rest]) };
            self.operate(end, say).await?;
        } else if running.is_empty() {
            let (stack, name) = (stack.clone(), name.clone());
            if self.procs(&stack).await?.iter().any(|proc| proc.node == name) {
                return Err(JobError::Node { stack, name }.into());
            }
            let live = runs.iter().filter(|(_, runs)| runs.running().next().is_some()).map(|(name, _)| name.as_str());
            let known: Vec<&str> = procs.keys().map(NodeName::as_str).chain(live).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(JobError::None { stack, name, known }.into());
        } else {
            for run in &running {
                // Whoever is attached sees its end.
                self.engines().of(&run.server)?.stop(&run.container, GRACE).await?;
            }
        }
        let now = self.clock.now();
        let all = |runs: &mut Runs| {
            for number in runs.running().collect::<Vec<_>>() {
                runs.end(number, Outcome::Ended, now);
            }
        };
        Ok(self.change_job_runs(stack, name, all).await?)
    }
}
