//! `jobs [run|list|show|logs|kill|history]`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::{Context, Target};
use super::failure::{Exit, Failure, interrupted};
use super::interruption;
use super::logs::Logs;
use super::ps::age;
use super::run::{Streams, attached};
use super::tasks::{Past, past};
use crate::docker::{Log, State};
use crate::hq::HqError;
use crate::hq::door::Stdin;
use crate::hq::fleet::Survey;
use crate::hq::jobs::{Hold, common_stack};
use crate::hq::progress::detail;
use crate::hq::rights::Right;
use crate::hq::runs::Outcome;
use crate::launch::label;
use crate::names::{NodeName, StackName};
use crate::stack::job::{Flag, Job, parse};

/// Run jobs, list them, and end them
#[derive(Debug, clap::Args)]
pub struct Jobs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run a job: attached, or by itself with --daemonize
    Run(Box<Wanted>),
    /// List jobs
    List {
        /// Whose; all stacks' without
        stack: Option<String>,
    },
    /// Show what a job is
    Show {
        /// [STACK/]JOB
        job: String,
    },
    /// Show what a job prints
    Logs {
        /// [STACK/]JOB
        job: String,
        /// Go on with what comes
        #[arg(short, long)]
        follow: bool,
        /// Last lines to begin with
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
        lines: u32,
    },
    /// End a job
    Kill {
        /// [STACK/]JOB
        job: String,
    },
    /// List a job's last runs
    History {
        /// [STACK/]JOB
        job: String,
    },
}

/// A job as its flags have it. Those that are given cover what the file says.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// A description as JSON or YAML; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// What it is called
    #[arg(long)]
    name: Option<String>,
    /// The image it runs
    #[arg(long)]
    image: Option<String>,
    /// A variable; may be given again
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A path inside that is kept; may be given again
    #[arg(long = "volume", short, value_name = "PATH")]
    volumes: Vec<String>,
    /// A port it answers on; may be given again
    #[arg(long = "port", short, value_name = "PORT")]
    ports: Vec<String>,
    /// Memory limit, such as 256mb
    #[arg(long)]
    size: Option<String>,
    /// Processor share
    #[arg(long)]
    cpus: Option<String>,
    /// A tag its server must have, or `!tag` for one it must not; may be given again
    #[arg(long, visible_alias = "viking-filter", value_name = "TAG")]
    filter: Vec<String>,
    /// The server it goes to
    #[arg(long, visible_alias = "viking-host", value_name = "SERVER")]
    server: Option<String>,
    /// It runs by itself, and is started again when it ends
    #[arg(long, short, visible_alias = "deamonize")]
    daemonize: bool,
    /// It stays on the server where it first came up
    #[arg(long)]
    fixed: bool,
    /// It survives pushes of its stack
    #[arg(long = "static")]
    is_static: bool,
    /// Its command
    #[arg(last = true, value_name = "CMD")]
    words: Vec<String>,
}

/// Longest description, in bytes.
const LONGEST: usize = 1 << 20;

impl Wanted {
    fn flags(&self) -> Vec<Flag> {
        let one = [
            ("name", &self.name),
            ("image", &self.image),
            ("size", &self.size),
            ("cpus", &self.cpus),
            ("server", &self.server),
        ];
        let list = [
            ("env", &self.env),
            ("volumes", &self.volumes),
            ("ports", &self.ports),
            ("filter", &self.filter),
            ("command", &self.words),
        ];
        let is = [("daemonize", self.daemonize), ("fixed", self.fixed), ("static", self.is_static)];
        let one = one.into_iter().filter_map(|(key, value)| Some(Flag::one(key, value.clone()?)));
        let list = list.into_iter().filter(|(_, values)| !values.is_empty());
        let is = is.into_iter().filter(|(_, given)| *given).map(|(key, _)| Flag::one(key, "true"));
        one.chain(list.map(|(key, values)| Flag::list(key, values.clone()))).chain(is).collect()
    }
}

/// A job as listings show it.
#[derive(Debug, Serialize)]
struct Row {
    stack: StackName,
    job: NodeName,
    image: Option<String>,
    daemonized: bool,
    #[serde(rename = "static")]
    is_static: bool,
    server: Option<String>,
    state: String,
    seconds: Option<i64>,
}

impl Jobs {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self.verb, Some(Verb::Run(_) | Verb::Kill { .. }))
    }

    /// A file of the machine it is typed on that stands in for standard input.
    pub fn file(&self) -> Option<&Path> {
        match &self.verb {
            Some(Verb::Run(wanted)) => wanted.file.as_deref().filter(|file| *file != Path::new("-")),
            _ => None,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such job, or it does not run. Whoever is attached gets its exit code.
    pub async fn run(self, cx: &Context, streams: Streams) -> Result<u8, Failure> {
        match self.verb.unwrap_or(Verb::List { stack: None }) {
            Verb::Run(wanted) => run(cx, *wanted, streams).await,
            other => {
                let Streams { mut events, hung_up, .. } = streams;
                tokio::select! {
                    done = other.carry_out(cx) => done.map(|()| 0),
                    () = interruption(&mut events) => Err(interrupted("")),
                    () = hung_up.cancelled() => Err(super::failure::hung_up()),
                }
            }
        }
    }
}

impl Verb {
    /// Every verb but `run`, which has keys and signals of its own.
    async fn carry_out(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Verb::Run(_) => Ok(()),
            Verb::List { stack } => list(cx, stack).await,
            Verb::Show { job } => show(cx, job).await,
            Verb::Logs { job, follow, lines } => {
                let (stack, name) = target(cx, job, Right::View).await?;
                Logs::of(format!("{stack}/{name}"), follow, lines).run(cx).await
            }
            Verb::Kill { job } => kill(cx, job).await,
            Verb::History { job } => history(cx, job).await,
        }
    }
}

/// A job by its name, alone or behind its stack's.
async fn target(cx: &Context, job: String, needed: Right) -> Result<(StackName, NodeName), Failure> {
    let target = match job.split_once('/') {
        Some(_) => job.parse::<Target>()?,
        None => Target { stack: cx.stack.clone().unwrap_or_else(common_stack), node: Some(job.parse()?) },
    };
    let name = target.node.ok_or_else(|| Failure::new(Exit::Usage, "name a job: [STACK/]JOB"))?;
    cx.enter(&target.stack, needed).await?;
    Ok((target.stack, name))
}

async fn run(cx: &Context, wanted: Wanted, streams: Streams) -> Result<u8, Failure> {
    let Streams { mut stdin, terminal, mut events, hung_up } = streams;
    let mut text = String::new();
    let mut file = "flags".to_owned();
    if let Some(path) = &wanted.file {
        let too_long = || Failure::new(Exit::Mistake, format!("a job is described in {LONGEST} bytes at most"));
        let bytes = stdin.at_most(LONGEST).await.ok_or_else(too_long)?;
        let not_text = |_| Failure::new(Exit::Mistake, "the description of the job is not text");
        text = String::from_utf8(bytes).map_err(not_text)?;
        stdin = Stdin::empty();
        let name = path.file_name().filter(|name| *name != "-");
        file = name.map_or_else(|| "job".to_owned(), |name| name.to_string_lossy().into_owned());
    }
    let job = parse(&file, &text, &wanted.flags()).map_err(HqError::Mistakes)?;
    let stack = job.stack.clone().or_else(|| cx.stack.clone()).unwrap_or_else(common_stack);
    cx.hq.found_job_stack(&stack, &cx.access).await?;
    cx.enter(&stack, Right::Deploy).await?;
    if job.daemonize {
        return tokio::select! {
            done = start(cx, stack, job) => done.map(|()| 0),
            () = interruption(&mut events) => Err(interrupted("interrupted; what had begun finishes by itself")),
        };
    }
    let hold = Hold { tty: terminal.is_some(), stdin: true, output: Log::Handed, entrypoint: None };
    let ready = cx.within(|say| async move {
        let say = |line: &str| say.line(line);
        cx.hq.prepare_job(&stack, job, hold, &cx.caller.user, &say).await
    });
    let ready = ready.await?;
    let engine = cx.hq.engines().of(&ready.server)?;
    let ended = attached(cx, &*engine, &ready.container, Streams { stdin, terminal, events, hung_up }).await;
    let outcome = match &ended {
        Ok(code) => Outcome::Exited((*code).into()),
        Err(failure) => Outcome::Failed(failure.message.clone()),
    };
    // The container goes whatever became of the caller.
    let noted = cx.hq.end_job_run(&ready, outcome).await;
    let code = ended?;
    noted?;
    Ok(code)
}

async fn start(cx: &Context, stack: StackName, job: Job) -> Result<(), Failure> {
    let name = job.name.clone().ok_or_else(|| Failure::new(Exit::Usage, "a job that runs by itself needs a name"))?;
    let (hq, user) = (cx.hq.clone(), cx.caller.user.clone());
    cx.in_turn(&stack.clone(), "job", |say| async move {
        hq.start_job(&stack, &name, job, &user, &|line| say.line(line)).await?;
        say.line(detail(&format!("{stack}/{name} runs")));
        Ok::<_, HqError>(())
    })
    .await
}

async fn kill(cx: &Context, job: String) -> Result<(), Failure> {
    let (stack, name) = target(cx, job, Right::Deploy).await?;
    let hq = cx.hq.clone();
    cx.in_turn(&stack.clone(), "jobs kill", |say| async move {
        hq.kill_job(&stack, &name, &|line| say.line(line)).await?;
        say.line(detail(&format!("{stack}/{name} has ended")));
        Ok::<_, HqError>(())
    })
    .await
}

async fn list(cx: &Context, stack: Option<String>) -> Result<(), Failure> {
    let words: Vec<String> = stack.into_iter().collect();
    let stacks = match words.is_empty() && cx.stack.is_none() {
        true => cx.stacks().await?,
        false => [cx.only_stack(&words, Right::View).await?].into(),
    };
    let survey = cx.hq.survey().await?;
    let mut found = Vec::new();
    for stack in stacks {
        found.extend(rows(cx, &stack, &survey).await?);
    }
    if cx.out.json {
        return cx.out.value(&found).await;
    }
    let dash = || "-".to_owned();
    let cells: Vec<Vec<String>> = found
        .into_iter()
        .map(|row| {
            let how = match (row.daemonized, row.is_static) {
                (true, true) => "static",
                (true, false) => "daemonized",
                (false, _) => "attached",
            };
            let age = row.seconds.map_or_else(dash, age);
            vec![
                row.stack.to_string(),
                row.job.to_string(),
                how.to_owned(),
                row.state,
                age,
                row.server.unwrap_or_else(dash),
            ]
        })
        .collect();
    cx.out.table(&["STACK", "JOB", "RUNS", "STATE", "AGE", "SERVER"], &cells).await
}

/// The jobs of a stack that run or should.
async fn rows(cx: &Context, stack: &StackName, survey: &Survey) -> Result<Vec<Row>, Failure> {
    let procs = cx.hq.job_procs(stack).await?;
    let runs = cx.hq.all_job_runs(stack).await?;
    let now = cx.hq.clock.now().as_second();
    let seen = |job: &NodeName| {
        survey.containers.iter().find(|seen| {
            let is = |name: &str, value: &str| seen.container.labels.get(name).is_some_and(|label| label == value);
            is(label::HQ, &cx.hq.launcher.identity.id)
                && is(label::STACK, stack.as_str())
                && is(label::NODE, job.as_str())
        })
    };
    let attached = runs.iter().filter(|(_, runs)| runs.running().next().is_some()).map(|(job, _)| job);
    let all = procs.keys().chain(attached.filter(|job| !procs.contains_key(*job)));
    let row = |job: &NodeName| {
        let (proc, seen) = (procs.get(job), seen(job));
        let state = match seen.map(|seen| seen.container.state) {
            Some(State::Running) => "running".to_owned(),
            Some(State::Exited(code)) => format!("exited ({code})"),
            Some(_) => "starting".to_owned(),
            None => "missing".to_owned(),
        };
        Row {
            stack: stack.clone(),
            job: job.clone(),
            image: proc.map(|proc| proc.settings.image.to_string()),
            daemonized: proc.is_some(),
            is_static: proc.is_some_and(|proc| proc.settings.is_static),
            server: seen.map(|seen| seen.server.to_string()),
            state,
            seconds: seen.map(|seen| now - seen.container.created),
        }
    };
    Ok(all.map(row).collect())
}

async fn show(cx: &Context, job: String) -> Result<(), Failure> {
    let (stack, name) = target(cx, job, Right::View).await?;
    let procs = cx.hq.job_procs(&stack).await?;
    let runs = cx.hq.job_runs(&stack, &name).await?;
    let Some(proc) = procs.get(&name) else {
        return match runs.last_key_value() {
            // What reads JSON asked for a job, and not for its runs.
            Some(_) if cx.out.json => Err(Failure::missing(format!(
                "`{stack}/{name}` has ended; `jobs history {stack}/{name}` lists its runs"
            ))),
            Some(_) => history(cx, format!("{stack}/{name}")).await,
            None => Err(Failure::missing(format!("`{stack}` has no job `{name}`; `jobs list` lists them"))),
        };
    };
    cx.out.value(proc).await
}

async fn history(cx: &Context, job: String) -> Result<(), Failure> {
    let (stack, name) = target(cx, job, Right::View).await?;
    let runs = cx.hq.job_runs(&stack, &name).await?;
    let runs: Vec<Past> = runs.0.into_iter().map(|(run, details)| Past { run, details }).collect();
    if cx.out.json {
        return cx.out.value(&runs).await;
    }
    let rows: Vec<Vec<String>> = runs.iter().rev().map(past).collect();
    cx.out.table(&["RUN", "BEGAN", "TOOK", "BY", "SERVER", "RESULT"], &rows).await
}
