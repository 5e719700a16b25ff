//! `start` and `stop`: the whole stack of a folder on this machine, with the code that serves it elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Exit, Failure};
use super::parts::Places;
use crate::etc::ENV_KEY;
use crate::hq::act::Job;
use crate::hq::deploy::act::{Building, build_images, node_images};
use crate::hq::deploy::source::act::{Source, read_checkout};
use crate::hq::fleet::Seen;
use crate::hq::{Awake, Hq, HqError};
use crate::instruction::compile::{Context, compile};
use crate::launch::label;
use crate::launch::record::{Cause, Release};
use crate::launch::world::published;
use crate::names::{ReleaseNumber, StackName, UserName};

/// Run the stack of a folder on this machine, without HQ and router
#[derive(Debug, clap::Args)]
pub struct Start {
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// Stop what `start` started
#[derive(Debug, clap::Args)]
pub struct Stop {
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// Where a folder's local state lies.
const STATE: &str = ".quarry";

struct Local {
    hq: Arc<Hq>,
    stack: StackName,
    folder: PathBuf,
    user: UserName,
}

async fn open(places: &Places, folder: &Path, stack: Option<StackName>) -> Result<Local, Failure> {
    let wrong = |text: String| Failure::new(Exit::Mistake, text);
    let folder = folder.canonicalize().map_err(|error| wrong(format!("{}: {error}", folder.display())))?;
    let stack = match stack {
        Some(stack) => stack,
        None => {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.parse().map_err(|error| wrong(format!("{error}; name one with --stack")))?
        }
    };
    let here = Places { root: folder.join(STATE), etc: places.etc.clone() };
    // A folder's own state stays in it.
    let home = here.files()?;
    let mut parts = here.parts(here.settings()?, home.db, &here.root.join(ENV_KEY)).await?;
    parts.awake = Awake::Yes;
    // The state is nothing to commit or to send into a build.
    std::fs::write(here.root.join(".gitignore"), "*\n").map_err(|error| wrong(format!("{}: {error}", STATE)))?;
    let user = "local".parse().expect("`local` is a user name");
    Ok(Local { hq: Hq::new(parts), stack, folder, user })
}

impl Start {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder is not a stack, or it does not come up; then what ran before runs on.
    pub async fn run(self, places: &Places, stack: Option<StackName>) -> Result<(), Failure> {
        let local = open(places, &self.folder, stack).await?;
        let say = |line: &str| eprintln!("{line}");
        local.hq.recover().await?;
        local.hq.ensure_stack(&local.stack, &local.user).await?;
        let job = local.job(&say).await?;
        local.hq.operate(job, &say).await?;
        for Seen { container, .. } in local.hq.containers().await? {
            let own = container.labels.get(label::STACK).is_some_and(|stack| stack == local.stack.as_str());
            if let Some(address) = published(&container).filter(|_| own) {
                eprintln!("       {}: http://{address}", container.labels.get(label::NODE).map_or("", String::as_str));
            }
        }
        // The old containers must be gone before this process is.
        let book = local.hq.book(&local.stack).await?;
        local.hq.launcher.retire(&book).await;
        Ok(())
    }
}

impl Local {
    async fn job(&self, say: crate::launch::act::Say<'_>) -> Result<Job, Failure> {
        let (hq, stack) = (&self.hq, &self.stack);
        let env = hq.env(stack).await?;
        let Source { described, repository, folder } =
            read_checkout(&self.folder, hq.settings.packs.as_deref(), &env).await?;
        for line in &described.said {
            say(&crate::hq::progress::phase(line));
        }
        let releases = hq.releases(stack).await?;
        let number = releases.last().map_or(ReleaseNumber(1), |last| last.number.next());
        let building = Building {
            stack,
            described: &described.stack,
            env: &described.build_env,
            repository: &repository,
            folder: &folder,
            tag: format!("{number}{}", hq.launcher.identity.suffix),
            mtime: 0,
        };
        let built = build_images(hq.engines().local(), &hq.settings, &building, None, say).await?;
        let images = node_images(&built);
        let counts = hq.procs(stack).await?.into_iter().map(|proc| (proc.node, proc.count)).collect();
        let context = Context {
            stack,
            release: number,
            images: &images,
            counts: &counts,
            hostnames: &[],
            size: hq.settings.size,
            previous: releases.last().map(|last| last.instructions.as_slice()).unwrap_or_default(),
        };
        let instructions = compile(&described.stack, &context).map_err(HqError::Compile)?;
        let release = Release {
            number,
            cause: Cause::Launch,
            commit: None,
            subject: String::new(),
            env_version: hq.env_version(stack, &env).await?,
            instructions: instructions.clone(),
            user: self.user.clone(),
            created: hq.clock.now(),
        };
        Ok(Job { release: Some(release), ..Job::of(stack, "start", instructions) })
    }
}

impl Stop {
    /// Runs the command. Volumes stay.
    ///
    /// # Errors
    /// When docker does not answer.
    pub async fn run(self, places: &Places, stack: Option<StackName>) -> Result<(), Failure> {
        let local = open(places, &self.folder, stack).await?;
        local.hq.recover().await?;
        let stopped = local.hq.stop_all(&local.stack).await?;
        eprintln!("stopped {stopped} containers of {}", local.stack);
        Ok(())
    }
}
