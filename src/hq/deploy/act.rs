//! Checks a commit out, builds its images, compiles it and launches it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Request;
use super::after::Aftermath;
use super::source::act::{Source, read_checkout};
use crate::build::BuildSettings;
use crate::build::act::{BuildJob, Built, images};
use crate::build::plan::plan;
use crate::db::{Guard, layout};
use crate::env::Env;
use crate::hq::act::Job;
use crate::hq::jobs::endings;
use crate::hq::progress::{detail, phase, took};
use crate::hq::tasks::act::zone;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::instruction::compile::{Context, NodeImage, compile, routes};
use crate::instruction::tarball::{FORMAT, Manifest, pack};
use crate::launch::Plan;
use crate::launch::act::Say;
use crate::launch::journal::{Operation, Phase};
use crate::launch::record::{Cause, Release};
use crate::names::reach::Reach;
use crate::names::{Domain, NodeName, ReleaseNumber, StackName};
use crate::router::{StackRoutes, Target};
use crate::stack::{Kind, Stack};
use crate::units::{Megabytes, MilliCpus};

/// Free space in megabytes below which no launch begins: journals and routes must still fit when images do not.
const SPARE_MEGABYTES: u64 = 64;

impl Hq {
    /// Makes a commit live and gives its release. The caller holds the stack's turn. Until the launch begins `cancel`
    /// ends it; from then on it goes on by itself.
    ///
    /// # Errors
    /// Why it was refused; then nothing has changed.
    pub async fn deploy(
        self: &Arc<Self>,
        request: Request,
        cancel: CancellationToken,
        say: Say<'_>,
    ) -> Result<Release, HqError> {
        let began = Instant::now();
        self.check_awake()?;
        crate::hq::limits::check_space(&self.root, SPARE_MEGABYTES)?;
        self.settle_earlier(&request.stack).await?;
        let releases = self.releases(&request.stack).await?;
        let number = releases.last().map_or(ReleaseNumber(1), |last| last.number.next());
        let book = self.book(&request.stack).await?;
        book.write(|journal| journal.active = Some(building(number))).await?;
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(HqError::Cancelled),
            prepared = self.prepare(&request, number, releases.last(), say) => prepared,
        };
        let Prepared { release, env, after } = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.take_back(&book, say).await;
                return Err(error);
            }
        };
        say(&phase(&format!("Launching release {number}")));
        let launching = Instant::now();
        let job = Job {
            release: Some(release.clone()),
            branch: request.branch.clone(),
            env,
            after: !after.is_empty(),
            ..Job::of(&request.stack, "deploy", release.instructions.clone())
        };
        let launched = self.operate(job, say).await;
        if launched.is_err() {
            // A plan that could not even be made leaves the journal of the build behind.
            self.take_back(&book, say).await;
        }
        launched?;
        self.note_ended_jobs(&request.stack).await;
        self.keep_given(after.given).await;
        say(&detail(&format!("live after {}", took(launching.elapsed()))));
        self.say_urls(&request.stack, &release, began, say).await;
        self.run_after(&request.stack, &after.commands, say).await;
        self.close_after(&book).await;
        Ok(release)
    }

    /// Everything that leaves no trace where people look: checkout, images, instructions.
    async fn prepare(
        &self,
        request: &Request,
        number: ReleaseNumber,
        previous: Option<&Release>,
        say: Say<'_>,
    ) -> Result<Prepared, HqError> {
        let stack = &request.stack;
        self.pin(stack, number, &request.commit).await?;
        let folder = self.stack_folder(stack).join("src");
        let commit = self.checkout(stack, &request.commit, &folder, Some(&request.access), say).await?;
        let has = self.env(stack).await?;
        let Source { described, repository, folder } =
            read_checkout(&folder, self.settings.packs.as_deref(), &has).await?;
        for line in &described.said {
            say(&phase(line));
        }
        for (node, described) in &described.stack.nodes {
            zone(node, described.timezone.as_ref())?;
        }
        self.check_links(&request.access, stack, &described.stack).await?;
        // Others may get one of them meanwhile: that is looked at again when it is planned.
        let routes = routes(&described.stack, stack, &self.settings.hostnames);
        self.check_domains_of(stack, &routes).await?;
        self.try_snippets(&routes).await?;
        let given = self.given_certificates(&described.stack, &folder).await?;
        let env = self.granted(stack, &described.wishes, has.clone(), say)?;
        let env_version = self.env_version(stack, &env).await?;
        let building = Building {
            stack,
            described: &described.stack,
            env: &described.build_env,
            repository: &repository,
            folder: &folder,
            tag: self.launcher.identity.tag(stack, number),
            mtime: u64::try_from(commit.time).unwrap_or_default(),
        };
        let built = self.build_images(&building, say).await?;
        let mut instructions = self.compile(stack, &described.stack, number, previous, &built).await?;
        if let Some(previous) = previous {
            let ended = endings(&self.procs(stack).await?, previous, &instructions);
            instructions.extend(ended);
        }
        for line in too_large(&instructions, crate::hq::limits::memory(), crate::hq::limits::processors()) {
            say(&phase(&line));
        }
        let release = Release {
            number,
            cause: request.cause.clone(),
            commit: Some(request.commit.clone()),
            subject: commit.subject,
            env_version,
            instructions,
            user: request.access.user.clone(),
            created: self.clock.now(),
        };
        self.keep_tarball(stack, &release).await?;
        let after = Aftermath::of(number, described.after, given);
        Ok(Prepared { release, env: Some(env_version).filter(|_| env != has), after })
    }

    async fn build_images(&self, building: &Building<'_>, say: Say<'_>) -> Result<BTreeMap<NodeName, Built>, HqError> {
        let reach = self.reach(&self.settings.build.registries).await?;
        build_images(self.engines().local(), &self.settings, building, Some(reach), say).await
    }

    async fn compile(
        &self,
        stack: &StackName,
        described: &Stack,
        number: ReleaseNumber,
        previous: Option<&Release>,
        built: &BTreeMap<NodeName, Built>,
    ) -> Result<Vec<Instruction>, HqError> {
        let counts = self.procs(stack).await?.into_iter().map(|proc| (proc.node, proc.count)).collect();
        let images = node_images(built);
        let context = Context {
            stack,
            release: number,
            images: &images,
            counts: &counts,
            hostnames: &self.settings.hostnames,
            size: self.settings.size,
            previous: previous.map(|release| release.instructions.as_slice()).unwrap_or_default(),
        };
        compile(described, &context).map_err(HqError::Compile)
    }

    /// Writes `stacks/<stack>/build/<n>.tar.gz`.
    async fn keep_tarball(&self, stack: &StackName, release: &Release) -> Result<(), HqError> {
        let folder = self.stack_folder(stack).join("build");
        let path = folder.join(format!("{}.tar.gz", release.number));
        let bytes = pack(&manifest(stack, release), &release.instructions);
        let error = |source| HqError::File { path: path.display().to_string(), source };
        tokio::fs::create_dir_all(&folder).await.map_err(error)?;
        tokio::fs::write(&path, bytes).await.map_err(error)
    }

    async fn say_urls(&self, stack: &StackName, release: &Release, began: Instant, say: Say<'_>) {
        let time = match &release.cause {
            Cause::Push(_) => format!("{} after the push", took(began.elapsed())),
            _ => format!("after {}", took(began.elapsed())),
        };
        say(&phase(&format!("Release {} of {stack} is live, {time}", release.number)));
        if let Ok(Some(table)) = layout::read_json::<StackRoutes>(&*self.db, &layout::routes(stack)).await {
            for url in self.urls(&table).await {
                say(&detail(&url));
            }
        }
        let resting = self.procs(stack).await.unwrap_or_default().into_iter();
        let resting = resting.filter(|proc| proc.count == 0 && proc.settings.kind != Kind::Task);
        for proc in resting.filter(|proc| release.instructions.iter().any(|one| one.launches() == Some(&proc.node))) {
            let node = proc.node;
            say(&detail(&format!("{node} rests; start it: scale {stack} {node}=1")));
        }
    }

    /// The number of the release that serves.
    ///
    /// # Errors
    /// [`HqError::NeverDeployed`] when there is none.
    pub async fn current(&self, stack: &StackName) -> Result<Release, HqError> {
        let last = self.releases(stack).await?.pop();
        last.ok_or_else(|| HqError::NeverDeployed(stack.clone()))
    }

    /// Sets which branch deploys, once.
    ///
    /// # Errors
    /// When the status cannot be read or written.
    pub async fn choose_branch(&self, stack: &StackName, branch: &str) -> Result<(), HqError> {
        let mut status = self.status(stack).await?;
        if status.branch.is_none() {
            status.branch = Some(branch.to_owned());
            layout::put_json(&*self.db, &layout::status(stack), &status, Guard::Any).await?;
        }
        Ok(())
    }
}

/// A release about to be launched.
struct Prepared {
    release: Release,
    /// The version of variables that the launch brings; `None` leaves them.
    env: Option<u64>,
    /// What comes once it is live.
    after: Aftermath,
}

/// A checkout about to be built.
pub struct Building<'a> {
    /// Whose.
    pub stack: &'a StackName,
    /// Its nodes.
    pub described: &'a Stack,
    /// Variables of its builds; those of the settings cover them.
    pub env: &'a Env,
    /// Its files.
    pub repository: &'a crate::buildpacks::Repository,
    /// Where they are.
    pub folder: &'a Path,
    /// The tag of its images.
    pub tag: String,
    /// Seconds since the epoch that every file gets.
    pub mtime: u64,
}

/// Builds every image a checkout needs, from registries within `reach` if somebody else names them.
///
/// # Errors
/// The first that could not be built.
pub async fn build_images(
    engine: &dyn crate::docker::Engine,
    settings: &crate::etc::Settings,
    building: &Building<'_>,
    reach: Option<Reach>,
    say: Say<'_>,
) -> Result<BTreeMap<NodeName, Built>, HqError> {
    let began = Instant::now();
    let built = find_images(engine, settings, building, reach, say).await?;
    if !built.is_empty() {
        say(&detail(&format!("images ready after {}", took(began.elapsed()))));
    }
    Ok(built)
}

/// The same, of which nothing is said where they are there already.
///
/// # Errors
/// As [`build_images`].
pub async fn find_images(
    engine: &dyn crate::docker::Engine,
    settings: &crate::etc::Settings,
    building: &Building<'_>,
    reach: Option<Reach>,
    say: Say<'_>,
) -> Result<BTreeMap<NodeName, Built>, HqError> {
    let mut env = building.env.clone();
    env.cover(&settings.build.env);
    let build_settings = BuildSettings {
        ca: settings.build.ca_bundle.clone(),
        env,
        memory: Some(settings.build.memory.unwrap_or(Megabytes(crate::hq::limits::memory().0 * 4 / 5))),
        processes: Some(settings.build.processes),
        spare: Some(settings.build.spare),
        timeout: Some(settings.build.timeout),
        reach,
        syntaxes: settings.build.syntaxes.clone(),
    };
    let plans = plan(building.described, building.repository, &build_settings)?;
    let job = BuildJob {
        stack: building.stack,
        suffix: &building.tag,
        dir: building.folder,
        mtime: building.mtime,
        plans: &plans,
        settings: &build_settings,
    };
    Ok(images(engine, &job, say).await?)
}

/// What compilation needs of the built images.
pub fn node_images(built: &BTreeMap<NodeName, Built>) -> BTreeMap<NodeName, NodeImage> {
    let image = |built: &Built| NodeImage {
        id: built.image.clone(),
        ports: built.ports.clone(),
        command: built.command.clone(),
        health: built.health.clone(),
        starts: built.starts,
        enters: built.enters,
    };
    built.iter().map(|(node, built)| (node.clone(), image(built))).collect()
}

/// The manifest of a release's tarball.
pub fn manifest(stack: &StackName, release: &Release) -> Manifest {
    Manifest {
        format: FORMAT,
        stack: stack.clone(),
        release: release.number,
        commit: release.commit.clone(),
        env_version: release.env_version,
    }
}

/// A warning for each node that asks for more than the machine has: no container of it will get that much.
fn too_large(instructions: &[Instruction], memory: Megabytes, processors: MilliCpus) -> Vec<String> {
    let mut lines = Vec::new();
    for instruction in instructions {
        let (Instruction::Ensure { node, settings } | Instruction::Deploy { node, settings, .. }) = instruction else {
            continue;
        };
        if settings.size > memory {
            lines.push(format!("Warning: `size` of {node} is {}; this server has {memory} in all", settings.size));
        }
        if let Some(cpus) = settings.cpus.filter(|cpus| *cpus > processors) {
            lines.push(format!("Warning: `cpus` of {node} is {cpus}; this server has {processors}"));
        }
    }
    lines
}

/// An operation that so far only builds.
fn building(number: ReleaseNumber) -> Operation {
    Operation {
        verb: "deploy".to_owned(),
        release: None,
        pinned: Some(number),
        branch: None,
        plan: Plan::default(),
        phase: Phase::Building,
        env_version: None,
        front: None,
        after: false,
    }
}

/// The domains people can open, each once, wildcards left out.
pub fn answered(table: &StackRoutes) -> impl Iterator<Item = &Domain> {
    let answered = table.nodes.values().filter(|node| match &node.target {
        Target::Peers(peers) => !peers.is_empty(),
        Target::Site(_) => true,
    });
    answered.flat_map(|node| &node.domains).filter(|domain| !domain.is_wildcard())
}
