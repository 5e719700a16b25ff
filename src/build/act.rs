//! Builds the images of a stack, or finds them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::dockerfile::Dockerfile;
use super::dockerignore::Ignore;
use super::elsewhere::act::{bring, named};
use super::elsewhere::may_decide;
use super::engine::{Abilities, Syntax, adapt, knows_heredocs};
pub use super::failure::BuildError;
use super::limits::{self, Group, Most};
use super::output::Output;
use super::plan::{ImagePlan, Recipe};
use super::reached::{Reached, UNFINISHED};
use super::tar::{Context, context};
use super::{BuildSettings, files};
use crate::buildpacks::{CA_PATH, Rendered};
use crate::docker::{BuildRequest, Builder, Engine, EngineError, Image, Say, Surroundings};
use crate::names::reference::Reference;
use crate::names::{ImageId, NodeName, StackName};
use crate::stack::Command;
use crate::units::{Megabytes, Millis};

/// Where a Dockerfile that is not the repository's own lies in the context.
const DOCKERFILE: &str = ".quarry/Dockerfile";

/// A build whose cache or image was taken away under its hands is tried this often.
const TRIES: u32 = 3;

/// The images of one deploy.
#[derive(Debug, Clone, Copy)]
pub struct BuildJob<'a> {
    /// Whose they are.
    pub stack: &'a StackName,
    /// The tag after `quarry/<stack>/<node>:`.
    pub suffix: &'a str,
    /// The checkout.
    pub dir: &'a Path,
    /// Seconds since the epoch that every file in the context gets: the commit's time.
    pub mtime: u64,
    /// What each node needs.
    pub plans: &'a BTreeMap<NodeName, ImagePlan>,
    /// What the server's owner has set.
    pub settings: &'a BuildSettings,
}

/// A node's image, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: ImageId,
    /// TCP ports it exposes, ascending.
    pub ports: Vec<u16>,
    /// What its buildpack starts; the image carries it already.
    pub command: Option<Command>,
    /// Path its buildpack knows to answer when the application is up.
    pub health: Option<String>,
    /// Whether the image has a command or entrypoint of its own.
    pub starts: bool,
    /// Whether it has an entrypoint.
    pub enters: bool,
    /// Paths it declares as volumes.
    pub volumes: Vec<String>,
}

/// Builds or finds the image of every planned node, one after the other by name. What happens is said line by line,
/// fit for a terminal. Dropping the future ends the build that runs.
///
/// # Errors
/// The first image that cannot be had.
pub async fn images(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    say: Say<'_>,
) -> Result<BTreeMap<NodeName, Built>, BuildError> {
    let mut built: BTreeMap<NodeName, Built> = BTreeMap::new();
    for (node, plan) in job.plans {
        let one = match plan {
            ImagePlan::Ready(reference) => described(named(engine, job, node, reference, say).await?, None),
            ImagePlan::Build(recipe) => build(engine, job, node, recipe, say).await?,
            ImagePlan::SameAs(_) => continue,
        };
        built.insert(node.clone(), one);
    }
    for (node, plan) in job.plans {
        if let ImagePlan::SameAs(other) = plan {
            let shared = built.get(other).cloned().ok_or_else(|| BuildError::NoPlan(node.clone()))?;
            built.insert(node.clone(), shared);
        }
    }
    Ok(built)
}

fn described(image: Image, pack: Option<&Rendered>) -> Built {
    let mut ports = image.ports;
    if let (true, Some(port)) = (ports.is_empty(), pack.and_then(|pack| pack.port)) {
        ports.push(port);
    }
    Built {
        image: image.id,
        ports,
        command: pack.and_then(|pack| pack.command.clone()).map(Command::Shell),
        health: pack.and_then(|pack| pack.health.clone()),
        starts: !image.command.is_empty() || !image.entrypoint.is_empty(),
        enters: !image.entrypoint.is_empty(),
        volumes: image.volumes,
    }
}

async fn build(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    node: &NodeName,
    recipe: &Recipe,
    say: Say<'_>,
) -> Result<Built, BuildError> {
    say(&format!("-----> Building {node} by {recipe}"));
    let prepared = prepare(engine, job, node, recipe, say).await?;
    let error = |source| BuildError::Engine { node: node.clone(), source };
    let mut tries = 1;
    let image = loop {
        match attempt(engine, job, node, recipe, &prepared, say).await {
            Ok(id) => match engine.image(id.as_str()).await.map_err(error)? {
                Some(image) => break image,
                // All of its steps were cached, and it was that of another stack, collected before this one had named it.
                None if tries < TRIES => {}
                None => return Err(error(EngineError::NotFound { what: format!("image `{id}` any more") })),
            },
            Err(BuildError::Failed { message, .. }) if tries < TRIES && lost_its_cache(&message) => {}
            Err(error) => return Err(error),
        }
        tries += 1;
    };
    Ok(match recipe {
        Recipe::Pack { rendered, .. } => described(image, Some(rendered)),
        Recipe::Inline(_) | Recipe::Path(_) => described(image, None),
    })
}

/// Whether the builder tripped over a layer of its cache that someone removed meanwhile: old images of other stacks are
/// collected at any time, and their unnamed parents with them. Built again it starts from what is left.
fn lost_its_cache(message: &str) -> bool {
    [
        "failed to get digest sha256:",
        "No such image: sha256:",
        "unable to find image \"sha256:",
        "unknown parent image ID ",
        "layer does not exist",
    ]
    .iter()
    .any(|words| message.contains(words))
}

async fn attempt(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    node: &NodeName,
    recipe: &Recipe,
    prepared: &Prepared,
    say: Say<'_>,
) -> Result<ImageId, BuildError> {
    let around = engine.surroundings().await.map_err(|source| BuildError::Engine { node: node.clone(), source })?;
    let group = confined(&around, job, prepared.builder, say).await;
    let request = BuildRequest {
        tag: format!("quarry/{}/{node}:{}", job.stack, job.suffix),
        dockerfile: prepared.dockerfile.clone(),
        args: job.settings.env.iter().map(|(name, value)| (name.to_string(), value.to_owned())).collect(),
        builder: prepared.builder,
        no_cache: false,
        memory: job.settings.memory,
        group: group.as_ref().and_then(|group| group.parent.clone()),
    };
    let output = Mutex::new(Output::default());
    let crowded = AtomicBool::new(false);
    let reached = Mutex::new(Reached::default());
    let follow = |line: &str| {
        reached.lock().unwrap_or_else(PoisonError::into_inner).hear(line);
        crowded.fetch_or(CROWDED.iter().any(|words| line.contains(words)), Ordering::Relaxed);
        for shown in output.lock().unwrap_or_else(PoisonError::into_inner).line(line) {
            say(&format!("       {shown}"));
        }
    };
    let building = engine.build(request, context(prepared.context.clone()), &follow);
    let ended = tokio::select! {
        built = building => Ok(built),
        ended = elapsed(job.settings.timeout) => Err(ended),
        ended = full(&around.folder, job.settings.spare) => Err(ended),
        ended = bounded(group.as_ref()) => Err(ended),
    };
    let (held, step) = output.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    if let Some(line) = held {
        say(&format!("       {line}"));
    }
    if !matches!(ended, Ok(Ok(_)))
        && let Some(image) = reached.into_inner().unwrap_or_else(PoisonError::into_inner).own
    {
        // Nobody would know whose it is, and the next try begins with it. Where that cannot be, it is as it was.
        let _ = engine.tag(&image, &format!("quarry/{}/{node}{UNFINISHED}:{}", job.stack, job.suffix)).await;
    }
    let (node, recipe) = (node.clone(), recipe.to_string());
    match ended {
        Ok(Ok(id)) => Ok(id),
        Ok(Err(EngineError::Build { message })) => {
            let message = super::output::clean(&message);
            let hint = hint(&message, crowded.into_inner(), job.settings);
            Err(BuildError::Failed { node, recipe, step, message, hint })
        }
        Ok(Err(source)) => Err(BuildError::Engine { node, source }),
        Err(Ended::Late(limit)) => Err(BuildError::TooSlow { node, recipe, step, limit }),
        Err(Ended::Full { free, spare }) => Err(BuildError::Full { node, recipe, step, free, spare }),
    }
}

/// Why a build was ended.
enum Ended {
    Late(Millis),
    Full { free: Megabytes, spare: Megabytes },
}

/// What programs say when they may start no more of themselves.
const CROWDED: [&str; 4] =
    ["Resource temporarily unavailable", "Cannot fork", "an't fork", "failed to create new OS thread"];

/// Pause between two looks at the disk.
const LOOK: Duration = Duration::from_millis(500);

/// What may have ended a step that says nothing of it.
fn hint(message: &str, crowded: bool, settings: &BuildSettings) -> Option<String> {
    if let Some(processes) = settings.processes.filter(|_| crowded) {
        return Some(format!("a build may have {processes} processes (`build/processes`)"));
    }
    let memory =
        settings.memory.filter(|_| message.contains("non-zero code: 137") || message.contains("exit code: 137"));
    memory.map(|memory| format!("it was killed, perhaps because a build may take {memory} of memory (`build/memory`)"))
}

async fn elapsed(limit: Option<Millis>) -> Ended {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit.duration()).await;
            Ended::Late(limit)
        }
        None => std::future::pending().await,
    }
}

/// Waits until less than `spare` is free on the disk.
async fn full(folder: &Path, spare: Option<Megabytes>) -> Ended {
    let Some(spare) = spare else { return std::future::pending().await };
    loop {
        match limits::free(folder).map(|free| Megabytes(free >> 20)).filter(|free| *free < spare) {
            Some(free) => return Ended::Full { free, spare },
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Pause between two looks for steps that have begun: what one can start of itself in so long no machine dies of.
const BEAT: Duration = Duration::from_millis(50);

/// Limits the steps of a build as they begin, where no group can be made for all of them. It never ends.
async fn bounded(group: Option<&Group>) -> Ended {
    let Some(steps) = group.and_then(|group| group.steps.as_ref()) else { return std::future::pending().await };
    loop {
        steps.bound();
        tokio::time::sleep(BEAT).await;
    }
}

/// The group in which a build can take only so much of the machine. Where there is none it is built all the same.
async fn confined(around: &Surroundings, job: &BuildJob<'_>, builder: Builder, say: Say<'_>) -> Option<Group> {
    let most = Most { memory: job.settings.memory, processes: job.settings.processes };
    let (around, name) = (around.clone(), job.stack.as_str().replace('-', "_"));
    let made = tokio::task::spawn_blocking(move || limits::group(&around, builder, &name, most)).await;
    match made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
        Ok(group) => Some(group),
        Err(error) => {
            tracing::warn!(stack = %job.stack, %error, "a build runs without a limit on its processes");
            say(&format!(" !     This build may take all of the machine ({error}); `quarry doctor` knows a remedy"));
            None
        }
    }
}

/// A build ready to be sent.
struct Prepared {
    dockerfile: String,
    builder: Builder,
    context: Context,
}

async fn prepare(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    node: &NodeName,
    recipe: &Recipe,
    say: Say<'_>,
) -> Result<Prepared, BuildError> {
    let path = match recipe {
        Recipe::Path(path) => path.clone(),
        Recipe::Inline(_) | Recipe::Pack { .. } => DOCKERFILE.to_owned(),
    };
    let ignore_paths = [format!("{path}.dockerignore"), ".dockerignore".to_owned()];
    let mut ignore = Ignore::default();
    for rules in &ignore_paths {
        if let Some(text) = file(job, node, rules).await? {
            ignore = Ignore::parse(rules, &text).map_err(|source| BuildError::Ignore { node: node.clone(), source })?;
            break;
        }
    }
    let mut extra = BTreeMap::new();
    if let Some(ca) = &job.settings.ca {
        extra.insert(CA_PATH.to_owned(), ca.clone().into_bytes());
    }
    let dockerfile = match recipe {
        Recipe::Pack { rendered, .. } => {
            extra.extend(rendered.files.clone());
            extra.insert(path.clone(), rendered.dockerfile.clone().into_bytes());
            // The builder takes these two away itself once it has read them: `COPY . .` then copies the repository.
            extra.insert(".dockerignore".to_owned(), format!("{DOCKERFILE}\n.dockerignore\n").into_bytes());
            Dockerfile::parse(&rendered.dockerfile)
        }
        Recipe::Inline(text) => {
            extra.insert(path.clone(), text.clone().into_bytes());
            adapted(engine, job, (node, recipe), (&path, text), &mut extra, say).await?
        }
        Recipe::Path(_) => {
            let no_text = || io::Error::other("it is no text in the repository");
            let wrong = |source| BuildError::File { node: node.clone(), path: path.clone(), source };
            let text = file(job, node, &path).await?.ok_or_else(no_text).map_err(wrong)?;
            // What has been looked at is what is sent: the builder follows links in a way of its own.
            extra.insert(path.clone(), text.clone().into_bytes());
            adapted(engine, job, (node, recipe), (&path, &text), &mut extra, say).await?
        }
    };
    let builder = dockerfile.builder();
    bring(engine, job, (node, recipe), &dockerfile, say).await?;
    let [own, general] = ignore_paths;
    let always = vec![path.clone(), own, general];
    let context = Context { dir: job.dir.to_owned(), ignore, always, extra, mtime: job.mtime };
    Ok(Prepared { dockerfile: path, builder, context })
}

async fn file(job: &BuildJob<'_>, node: &NodeName, path: &str) -> Result<Option<String>, BuildError> {
    let text = files::read(job.dir, path).await;
    text.map_err(|source| BuildError::File { node: node.clone(), path: path.to_owned(), source })
}

/// What a person's Dockerfile becomes for this engine; a changed text and its files go into `extra`.
async fn adapted(
    engine: &dyn Engine,
    job: &BuildJob<'_>,
    (node, recipe): (&NodeName, &Recipe),
    (path, text): (&str, &str),
    extra: &mut BTreeMap<String, Vec<u8>>,
    say: Say<'_>,
) -> Result<Dockerfile, BuildError> {
    let error = |source| BuildError::Engine { node: node.clone(), source };
    let dockerfile = Dockerfile::parse(text);
    let mut abilities = Abilities::default();
    if let Some((_, syntax)) = &dockerfile.syntax {
        let image = engine.image(syntax).await.map_err(error)?;
        let named = image.filter(|image| Reference::new(syntax).is_one_of(&image.tags));
        abilities.syntax = match named {
            _ if !may_decide(syntax, &job.settings.syntaxes) => Syntax::Unknown,
            Some(_) => Syntax::Here,
            None => Syntax::Missing,
        };
    }
    if dockerfile.has_heredocs() {
        abilities.knows_heredocs = knows_heredocs(&engine.version().await.map_err(error)?);
    }
    let adapted = adapt(path, text, dockerfile, abilities).map_err(|source| BuildError::TooNew {
        node: node.clone(),
        recipe: recipe.to_string(),
        source,
    })?;
    adapted.said.iter().for_each(|line| say(&format!("       {line}")));
    extra.extend(adapted.files);
    Ok(adapted.dockerfile)
}
