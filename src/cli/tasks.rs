//! `tasks [list|run|suspend|resume|history|logs]`

use jiff::Timestamp;
use serde::Serialize;

use super::context::{Context, Target};
use super::failure::{Exit, Failure};
use super::ps::age;
use crate::hq::rights::Right;
use crate::hq::runs::{Outcome, Run};
use crate::hq::tasks::act::zone;
use crate::names::{NodeName, StackName};

/// List tasks, run them now, suspend them, and show what became of them
#[derive(Debug, clap::Args)]
pub struct Tasks {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List tasks with their next times
    List {
        /// Whose; all stacks' without
        stack: Option<String>,
    },
    /// Run a task now: tasks run STACK/TASK
    Run {
        /// STACK/TASK
        target: String,
        /// Come back at once; `tasks history` tells what became of it
        #[arg(long)]
        detach: bool,
    },
    /// Leave out a task's times from now on
    Suspend {
        /// STACK/TASK
        target: String,
    },
    /// Run a task at its times again
    Resume {
        /// STACK/TASK
        target: String,
    },
    /// List a task's last runs
    History {
        /// STACK/TASK
        target: String,
    },
    /// Show what a run printed; the last one without a number
    Logs {
        /// STACK/TASK
        target: String,
        /// Which run
        run: Option<u64>,
    },
}

/// A task as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    stack: StackName,
    task: NodeName,
    schedule: Option<String>,
    timezone: Option<String>,
    suspended: bool,
    next: Option<Timestamp>,
    running: usize,
    last: Option<Past>,
}

/// A run as listings show it.
#[derive(Debug, Serialize)]
pub(super) struct Past {
    /// Its number.
    pub run: u64,
    /// What became of it.
    #[serde(flatten)]
    pub details: Run,
}

impl Tasks {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Run { .. } | Verb::Suspend { .. } | Verb::Resume { .. }))
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such task, or it cannot be run; with the task's own exit code when that is not 0.
    pub async fn run(self, cx: &Context) -> Result<u8, Failure> {
        match self.verb {
            None => list(cx, None).await.map(|()| 0),
            Some(Verb::List { stack }) => list(cx, stack).await.map(|()| 0),
            Some(Verb::Run { target, detach }) => run(cx, target, detach).await,
            Some(Verb::Suspend { target }) => suspend(cx, target, true).await.map(|()| 0),
            Some(Verb::Resume { target }) => suspend(cx, target, false).await.map(|()| 0),
            Some(Verb::History { target }) => history(cx, target).await.map(|()| 0),
            Some(Verb::Logs { target, run }) => logs(cx, target, run).await.map(|()| 0),
        }
    }
}

async fn task(cx: &Context, target: String, needed: Right) -> Result<(StackName, NodeName), Failure> {
    let words = [target];
    match cx.target(&words, needed).await? {
        (Target { stack, node: Some(node) }, []) => Ok((stack, node)),
        // Inside a repository the stack goes without saying.
        (Target { stack, node: None }, [node]) => Ok((stack, node.parse()?)),
        (Target { stack, .. }, _) => {
            Err(Failure::new(Exit::Usage, format!("name a task: {stack}/TASK; `tasks list {stack}` lists them")))
        }
    }
}

async fn list(cx: &Context, stack: Option<String>) -> Result<(), Failure> {
    let words: Vec<String> = stack.into_iter().collect();
    let stacks = match words.is_empty() && cx.stack.is_none() {
        true => cx.stacks().await?,
        false => [cx.only_stack(&words, Right::View).await?].into(),
    };
    let now = cx.hq.clock.now();
    let mut rows = Vec::new();
    for stack in stacks {
        for (task, (proc, diary)) in cx.hq.tasks(&stack).await? {
            let settings = &proc.settings;
            let place = zone(&task, settings.timezone.as_ref()).ok().filter(|_| !diary.suspended);
            let next = settings
                .schedule
                .as_ref()
                .zip(place)
                .and_then(|(schedule, zone)| schedule.next(&now.to_zoned(zone)).map(|time| time.timestamp()));
            let last = diary.runs.last_key_value();
            rows.push(Row {
                stack: stack.clone(),
                task,
                schedule: settings.schedule.as_ref().map(ToString::to_string),
                timezone: settings.timezone.as_ref().map(|zone| zone.as_str().to_owned()),
                suspended: diary.suspended,
                next,
                running: diary.runs.running().count(),
                last: last.map(|(run, details)| Past { run: *run, details: details.clone() }),
            });
        }
    }
    if cx.out.json {
        return cx.out.value(&rows).await;
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, now)).collect();
    cx.out.table(&["STACK", "TASK", "SCHEDULE", "NEXT", "LAST"], &cells).await
}

fn cells(row: &Row, now: Timestamp) -> Vec<String> {
    let schedule = [row.schedule.as_deref(), row.timezone.as_deref()];
    let next = match (row.suspended, row.next) {
        (true, _) => "suspended".to_owned(),
        (false, None) => "never".to_owned(),
        (false, Some(next)) => format!("in {}", age(next.as_second() - now.as_second())),
    };
    let last = row.last.as_ref().map_or_else(
        || "-".to_owned(),
        |last| {
            format!("{}, {} ago", said(&last.details.outcome), age(now.as_second() - last.details.began.as_second()))
        },
    );
    vec![
        row.stack.to_string(),
        row.task.to_string(),
        schedule.into_iter().flatten().collect::<Vec<_>>().join(" "),
        next,
        last,
    ]
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Running => "running".to_owned(),
        Outcome::Exited(0) => "done".to_owned(),
        Outcome::Exited(code) => format!("exit code {code}"),
        Outcome::Replaced => "replaced".to_owned(),
        Outcome::Ended => "ended".to_owned(),
        Outcome::Failed(why) => format!("not run: {why}"),
    }
}

async fn run(cx: &Context, target: String, detach: bool) -> Result<u8, Failure> {
    let (stack, node) = task(cx, target, Right::Deploy).await?;
    let number = cx.hq.run_task(&stack, &node, Some(cx.caller.user.clone())).await?;
    cx.out.note(&format!("run {number} of {stack}/{node} has begun")).await?;
    if detach {
        return Ok(0);
    }
    loop {
        let ended = cx.hq.run_ended();
        let mut ended = std::pin::pin!(ended);
        // Before the look: an end in between is heard.
        ended.as_mut().enable();
        let (_, diary) = cx.hq.task(&stack, &node).await?;
        match diary.runs.get(&number).map(|run| &run.outcome) {
            Some(Outcome::Running) => ended.await,
            Some(Outcome::Exited(code)) => {
                cx.out.printed(&cx.hq.task_output(&stack, &node, number).await?).await?;
                return u8::try_from(*code)
                    .map_err(|_| Failure::new(Exit::Bug, format!("the exit code {code} is none")));
            }
            Some(outcome) => return Err(Failure::new(Exit::Refused, said(outcome))),
            None => return Err(Failure::new(Exit::Refused, "nothing is known of the run any more")),
        }
    }
}

async fn suspend(cx: &Context, target: String, suspended: bool) -> Result<(), Failure> {
    let (stack, node) = task(cx, target, Right::Deploy).await?;
    let is_new = cx.hq.suspend_task(&stack, &node, suspended).await?;
    let what = if suspended { "is suspended" } else { "runs at its times" };
    let already = if is_new { "" } else { " already" };
    cx.out.note(&format!("{stack}/{node} {what}{already}")).await
}

async fn history(cx: &Context, target: String) -> Result<(), Failure> {
    let (stack, node) = task(cx, target, Right::View).await?;
    let (_, diary) = cx.hq.task(&stack, &node).await?;
    let runs: Vec<Past> = diary.runs.0.into_iter().map(|(run, details)| Past { run, details }).collect();
    if cx.out.json {
        return cx.out.value(&runs).await;
    }
    let rows: Vec<Vec<String>> = runs.iter().rev().map(past).collect();
    cx.out.table(&["RUN", "BEGAN", "TOOK", "BY", "SERVER", "RESULT"], &rows).await
}

/// The cells of a run in a table.
pub(super) fn past(past: &Past) -> Vec<String> {
    let Run { began, ended, by, server, outcome, .. } = &past.details;
    vec![
        past.run.to_string(),
        began.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        ended.map_or_else(|| "-".to_owned(), |ended| age(ended.as_second() - began.as_second())),
        by.as_ref().map_or_else(|| "schedule".to_owned(), ToString::to_string),
        server.to_string(),
        said(outcome),
    ]
}

async fn logs(cx: &Context, target: String, run: Option<u64>) -> Result<(), Failure> {
    let (stack, node) = task(cx, target, Right::View).await?;
    let (_, diary) = cx.hq.task(&stack, &node).await?;
    let Some(number) = run.or_else(|| diary.runs.keys().next_back().copied()) else {
        return Err(Failure::new(Exit::Mistake, format!("{stack}/{node} has not run yet")));
    };
    cx.out.printed(&cx.hq.task_output(&stack, &node, number).await?).await
}
