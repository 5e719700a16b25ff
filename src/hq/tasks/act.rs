//! Runs tasks when their times come, and notes what becomes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::sleep;

pub use super::failure::TaskError;
use super::files::{self, LONGEST};
use super::{Diary, Due, Timing, agenda};
use crate::db::{DbError, Guard, layout};
use crate::docker::{Engine, EngineError, LogRequest, Output, State};
use crate::hq::oneoff::OneOff;
use crate::hq::runs::{KEPT, Outcome, Run};
use crate::hq::{Hq, HqError};
use crate::launch::Proc;
use crate::names::{ContainerName, NodeName, StackName, UserName};
use crate::stack::{Kind, ZoneName};
use crate::units::Millis;

/// The longest rest: clocks are set, machines sleep, and procs are edited by hand.
const REST: Duration = Duration::from_secs(20);
/// Before what did not work is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a run that is ended may finish.
const GRACE: Millis = Millis::seconds(10);

/// The time zone of a task.
///
/// # Errors
/// [`TaskError::Zone`].
pub fn zone(node: &NodeName, name: Option<&ZoneName>) -> Result<TimeZone, TaskError> {
    match name {
        None => Ok(TimeZone::UTC),
        Some(name) => {
            TimeZone::get(name.as_str()).map_err(|_| TaskError::Zone { node: node.clone(), zone: name.clone() })
        }
    }
}

impl Hq {
    /// Runs tasks at their times, until the process ends.
    pub async fn keep_tasks(self: Arc<Self>) {
        // Before anything is begun: whatever is under way now was begun before.
        while let Err(error) = self.take_up_runs().await {
            tracing::warn!(error = ?error, "runs of tasks that were under way are not followed yet");
            sleep(AGAIN).await;
        }
        loop {
            let rest = match self.see_to_tasks().await {
                Ok(Some(next)) => next.duration_since(self.clock.now()).try_into().unwrap_or(Duration::ZERO),
                Ok(None) => REST,
                Err(error) => {
                    tracing::warn!(error = ?error, "tasks cannot be seen to");
                    AGAIN
                }
            };
            tokio::select! {
                () = self.tasks_changed.notified() => {}
                () = sleep(rest.clamp(Duration::from_millis(10), REST)) => {}
            }
        }
    }

    /// The tasks of a stack.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn tasks(&self, stack: &StackName) -> Result<BTreeMap<NodeName, (Proc, Diary)>, DbError> {
        let mut tasks = BTreeMap::new();
        for proc in self.procs(stack).await?.into_iter().filter(|proc| proc.settings.kind == Kind::Task) {
            let diary = self.diary(stack, &proc.node).await?;
            tasks.insert(proc.node.clone(), (proc, diary));
        }
        Ok(tasks)
    }

    /// One task.
    ///
    /// # Errors
    /// [`TaskError::NoTask`], or when the tree cannot be read.
    pub async fn task(&self, stack: &StackName, node: &NodeName) -> Result<(Proc, Diary), HqError> {
        let mut tasks = self.tasks(stack).await?;
        if let Some(found) = tasks.remove(node) {
            return Ok(found);
        }
        let known: Vec<&str> = tasks.keys().map(NodeName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(TaskError::NoTask { stack: stack.clone(), node: node.clone(), known }.into())
    }

    async fn diary(&self, stack: &StackName, node: &NodeName) -> Result<Diary, DbError> {
        match layout::read_json(&*self.db, &layout::diary(stack, node)).await {
            // It is a history and nothing more.
            Err(DbError::Damaged { .. }) => Ok(Diary::default()),
            diary => Ok(diary?.unwrap_or_default()),
        }
    }

    async fn change_diary<T>(
        &self,
        stack: &StackName,
        node: &NodeName,
        change: impl FnOnce(&mut Diary) -> T + Send,
    ) -> Result<T, DbError> {
        let _alone = self.diaries.lock().await;
        let before = self.diary(stack, node).await?;
        let mut diary = before.clone();
        let answer = change(&mut diary);
        if diary != before {
            layout::put_json(&*self.db, &layout::diary(stack, node), &diary, Guard::Any).await?;
        }
        Ok(answer)
    }

    /// Nothing runs at a task's times any more, or does again; tells whether that is new.
    ///
    /// # Errors
    /// As [`Hq::task`].
    pub async fn suspend_task(&self, stack: &StackName, node: &NodeName, suspended: bool) -> Result<bool, HqError> {
        self.task(stack, node).await?;
        let now = self.clock.now();
        let was = self
            .change_diary(stack, node, |diary| {
                // Times that came meanwhile are gone.
                diary.seen = Some(diary.seen.unwrap_or(now).max(now));
                std::mem::replace(&mut diary.suspended, suspended)
            })
            .await?;
        self.tasks_changed.notify_one();
        Ok(was != suspended)
    }

    /// One look at all tasks; when the next time comes.
    async fn see_to_tasks(self: &Arc<Self>) -> Result<Option<Timestamp>, HqError> {
        let mut first = None;
        for stack in self.known_stacks().await? {
            for (node, (proc, diary)) in self.tasks(&stack).await? {
                match self.see_to_task(&stack, &node, &proc, diary).await {
                    Ok(next) => first = first.into_iter().chain(next).min(),
                    Err(error) => tracing::warn!(%stack, %node, error = ?error, "a task is not seen to"),
                }
            }
        }
        Ok(first)
    }

    async fn see_to_task(
        self: &Arc<Self>,
        stack: &StackName,
        node: &NodeName,
        proc: &Proc,
        diary: Diary,
    ) -> Result<Option<Timestamp>, HqError> {
        let Some(schedule) = &proc.settings.schedule else { return Ok(None) };
        let zone = zone(node, proc.settings.timezone.as_ref())?;
        let timing = Timing { schedule: schedule.clone(), timezone: proc.settings.timezone.clone() };
        let agenda = agenda((&timing, proc.settings.task_overlap), &zone, &diary, self.clock.now());
        if agenda.due.is_some() || diary.seen.is_none() || diary.timing.as_ref() != Some(&timing) {
            // First, so that a HQ that dies over it does not run it twice.
            let seen = |diary: &mut Diary| (diary.seen, diary.timing) = (Some(agenda.seen), Some(timing));
            self.change_diary(stack, node, seen).await?;
        }
        match agenda.due {
            Some(Due::Run) => {
                self.run_task(stack, node, None).await?;
            }
            Some(Due::Replace(runs)) => {
                for number in runs {
                    self.end_run(stack, node, number).await?;
                }
                self.run_task(stack, node, None).await?;
            }
            Some(Due::Skip) => tracing::info!(%stack, %node, "a task still runs at its next time, which is left out"),
            None => {}
        }
        Ok(agenda.next)
    }

    /// Runs a task now; gives the number of the run.
    ///
    /// # Errors
    /// When it cannot be run; that is noted, too.
    pub async fn run_task(
        self: &Arc<Self>,
        stack: &StackName,
        node: &NodeName,
        by: Option<UserName>,
    ) -> Result<u64, HqError> {
        let (proc, _) = self.task(stack, node).await?;
        let wanted = OneOff { stack: stack.clone(), node: Some(node.clone()), words: None, tty: false };
        let planned = self.one_off(&wanted).await;
        let (server, container) = match &planned {
            Ok(plan) => (plan.server.clone(), plan.name.clone()),
            Err(_) => {
                let container = self.launcher.identity.container(stack, node, proc.release, 0);
                (proc.home.unwrap_or_else(|| self.engines().here().clone()), container)
            }
        };
        let run = Run {
            began: self.clock.now(),
            ended: None,
            by,
            attached: false,
            server,
            container,
            outcome: Outcome::Running,
        };
        let number = self.change_diary(stack, node, |diary| diary.runs.begin(run)).await?;
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                self.note_end(stack, node, number, Outcome::Failed(error.to_string())).await?;
                return Err(error);
            }
        };
        let begin = async {
            let request = self.launcher.request(&plan).await?;
            let engine = self.engines().of(&plan.server)?;
            engine.create(request).await?;
            Ok::<_, HqError>(engine.start(&plan.name).await?)
        };
        if let Err(error) = begin.await {
            self.note_end(stack, node, number, Outcome::Failed(error.to_string())).await?;
            return Err(error);
        }
        let (hq, stack, node) = (self.clone(), stack.clone(), node.clone());
        tokio::spawn(async move { hq.follow_run(&stack, &node, number).await });
        Ok(number)
    }

    /// Follows what an HQ before this one has begun: all of it, or nothing yet.
    async fn take_up_runs(self: &Arc<Self>) -> Result<(), HqError> {
        let mut found = Vec::new();
        for stack in self.known_stacks().await? {
            for entry in layout::all(&*self.db, &layout::diaries_prefix(&stack)).await? {
                let Some(node) = entry.key.last().strip_suffix(".json").and_then(|name| name.parse::<NodeName>().ok())
                else {
                    continue;
                };
                let diary = self.diary(&stack, &node).await?;
                found.extend(diary.runs.running().map(|number| (stack.clone(), node.clone(), number)));
            }
        }
        for (stack, node, number) in found {
            let hq = self.clone();
            tokio::spawn(async move { hq.follow_run(&stack, &node, number).await });
        }
        Ok(())
    }

    /// Waits until a run has ended, keeps what it printed, and takes its container away.
    async fn follow_run(self: Arc<Self>, stack: &StackName, node: &NodeName, number: u64) {
        loop {
            match self.finish_run(stack, node, number).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%stack, %node, number, error = ?error, "a run is not followed for now"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn finish_run(&self, stack: &StackName, node: &NodeName, number: u64) -> Result<(), HqError> {
        let diary = self.diary(stack, node).await?;
        let Some(run) = diary.runs.get(&number).filter(|run| run.outcome == Outcome::Running) else { return Ok(()) };
        let engine = match self.engines().of(&run.server) {
            Ok(engine) => engine,
            Err(_) => {
                let gone = Outcome::Failed(format!("its server {} is gone", run.server));
                return Ok(self.note_end(stack, node, number, gone).await.map(drop)?);
            }
        };
        let code = match self.wait_for(&*engine, &run.container).await {
            Ok(code) => code,
            Err(EngineError::NotFound { .. }) => {
                let gone = Outcome::Failed("its container is gone".to_owned());
                return Ok(self.note_end(stack, node, number, gone).await.map(drop)?);
            }
            Err(error) => return Err(error.into()),
        };
        // Replaced meanwhile: by now its container's name may be that of another run's.
        if !self.diary(stack, node).await?.runs.running().any(|running| running == number) {
            return Ok(());
        }
        let output = printed(&*engine, &run.container).await?;
        let folder = self.task_logs(stack, node);
        let oldest = number.saturating_sub(KEPT);
        let kept = tokio::task::spawn_blocking(move || {
            files::keep(&folder, number, &output).and_then(|()| files::drop_before(&folder, oldest))
        });
        if let Err(error) = kept.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            tracing::warn!(%stack, %node, number, %error, "what a task printed is not kept");
        }
        match self.note_end(stack, node, number, Outcome::Exited(code)).await? {
            true => Ok(engine.remove(&run.container).await?),
            false => Ok(()),
        }
    }

    /// Waits until a container has ended. One that an HQ made and died over has not begun, and begins now.
    async fn wait_for(&self, engine: &dyn Engine, container: &ContainerName) -> Result<i64, EngineError> {
        let found = engine.container(container).await?;
        if found.is_some_and(|found| found.state == State::Created) {
            engine.start(container).await?;
        }
        engine.wait(container).await
    }

    /// Ends a run, for another to take its place.
    async fn end_run(&self, stack: &StackName, node: &NodeName, number: u64) -> Result<(), HqError> {
        let diary = self.diary(stack, node).await?;
        let Some(run) = diary.runs.get(&number) else { return Ok(()) };
        if !self.note_end(stack, node, number, Outcome::Replaced).await? {
            return Ok(());
        }
        let engine = self.engines().of(&run.server)?;
        engine.stop(&run.container, GRACE).await?;
        Ok(engine.remove(&run.container).await?)
    }

    /// Notes what came of a run; tells whether that was not known yet.
    async fn note_end(
        &self,
        stack: &StackName,
        node: &NodeName,
        number: u64,
        outcome: Outcome,
    ) -> Result<bool, DbError> {
        tracing::info!(%stack, %node, number, ?outcome, "a run of a task has ended");
        let now = self.clock.now();
        let is_new = self.change_diary(stack, node, |diary| diary.runs.end(number, outcome, now)).await?;
        self.run_ended.notify_waiters();
        Ok(is_new)
    }

    /// Waits until a run of any task ends.
    pub fn run_ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.run_ended.notified()
    }

    /// What a run printed.
    ///
    /// # Errors
    /// [`TaskError::NoRun`], or what docker or the disk says.
    pub async fn task_output(&self, stack: &StackName, node: &NodeName, number: u64) -> Result<Vec<u8>, HqError> {
        let (_, diary) = self.task(stack, node).await?;
        if let Some(run) = diary.runs.get(&number).filter(|run| run.outcome == Outcome::Running) {
            return Ok(printed(&*self.engines().of(&run.server)?, &run.container).await?);
        }
        let folder = self.task_logs(stack, node);
        let read = tokio::task::spawn_blocking(move || files::read(&folder, number)).await;
        let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let no_run = || TaskError::NoRun { stack: stack.clone(), node: node.clone(), number };
        Ok(read.map_err(|source| TaskError::Output { number, source })?.ok_or_else(no_run)?)
    }

    fn task_logs(&self, stack: &StackName, node: &NodeName) -> PathBuf {
        self.stack_folder(stack).join("logs").join(node.as_str())
    }
}

/// The end of what a container has printed, in order.
async fn printed(engine: &dyn Engine, container: &ContainerName) -> Result<Vec<u8>, EngineError> {
    let mut log = engine.logs(container, LogRequest { tail: None, follow: false, timestamps: false }).await?;
    let mut kept = Vec::new();
    while let Some(chunk) = log.next().await {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = chunk?;
        kept.extend_from_slice(&bytes);
        if kept.len() > 2 * LONGEST {
            kept.drain(..kept.len() - LONGEST);
        }
    }
    kept.drain(..kept.len().saturating_sub(LONGEST));
    Ok(kept)
}
