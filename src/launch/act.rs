//! Performing steps: journal first, then do, and back again where a launch fails before its commit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::check::act::Awaited;
use super::journal::Phase;
use super::journal::act::Book;
use super::undo::{Undo, undo};
use super::{Identity, Role, Step};
use crate::db::{Db, DbError};
use crate::docker::engines::Engines;
use crate::docker::{Engine, EngineError, Restart};
use crate::env::Env;
use crate::names::{ContainerName, InnerPath, NodeName, ServerName, StackName};
use crate::router::edge::{Edge, EdgeError};
use crate::seal::Seal;
use crate::servers::supply::{Supply, SupplyError};
use crate::stack::Health;
use crate::units::Millis;

/// Takes one line for the person who waits.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Why a launch did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Docker failed.
    #[error("cannot {doing}")]
    Engine {
        /// The step.
        doing: String,
        /// Why.
        source: EngineError,
    },
    /// A server could not be given what a container needs.
    #[error("cannot {doing}")]
    Supply {
        /// The step.
        doing: String,
        /// Why.
        source: Box<SupplyError>,
    },
    /// The router failed.
    #[error("cannot change the router")]
    Edge(#[source] EdgeError),
    /// The journal or a record could not be read or written.
    #[error("cannot keep the launch's state")]
    State(#[source] DbError),
    /// A folder could not be made.
    #[error("cannot make {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process ended.
    #[error("{node} ended with exit code {code} right after starting; its last lines are above")]
    Died {
        /// Which node.
        node: NodeName,
        /// Its exit code.
        code: i64,
    },
    /// The health check never succeeded.
    #[error("{node} did not become healthy within {limit}: {what}")]
    Sick {
        /// Which node.
        node: NodeName,
        /// How long it had.
        limit: Millis,
        /// What the last try showed.
        what: String,
    },
    /// A web node that does not listen.
    #[error("{node} did not listen on port {port} within {limit}; it must listen on 0.0.0.0 and the port in $PORT")]
    Deaf {
        /// Which node.
        node: NodeName,
        /// The port.
        port: u16,
        /// How long it had.
        limit: Millis,
    },
    /// A release command that does not end.
    #[error("the release command of {node} did not end within {limit}, the `release-timeout` of quarry's settings")]
    Overdue {
        /// Which node.
        node: NodeName,
        /// How long it had.
        limit: Millis,
    },
    /// A release command or hook failed.
    #[error("the {what} of {node} failed with exit code {code}")]
    Command {
        /// `release command` or `hook`.
        what: &'static str,
        /// Which node.
        node: String,
        /// Its exit code.
        code: i64,
    },
}

/// Performs steps on the servers.
#[derive(Clone)]
pub struct Launcher {
    /// The servers' docker.
    pub engines: Engines,
    /// Brings images and folders to the other servers.
    pub supply: Arc<dyn Supply>,
    /// The router; none when a stack runs locally.
    pub edge: Option<Arc<dyn Edge>>,
    /// The tree, for variables.
    pub db: Arc<dyn Db>,
    /// Opens them.
    pub seal: Arc<Seal>,
    /// Which HQ.
    pub identity: Identity,
    /// Variables of every stack.
    pub etc_env: Env,
    /// How long a release command may take.
    pub release_timeout: Millis,
    /// Quarry's root folder: volumes, checkouts and sites are below it.
    pub root: PathBuf,
}

impl Launcher {
    /// Performs everything before the commit, journaling each step before it begins.
    ///
    /// # Errors
    /// The step that failed. The caller undoes.
    pub async fn before_commit(&self, book: &Book, say: Say<'_>) -> Result<(), LaunchError> {
        let plan = book.read().await.active.map(|active| active.plan).unwrap_or_default();
        let steps: Vec<&Step> = plan.revocable().collect();
        let mut begun = 0;
        while begun < steps.len() {
            let together = together(&steps[begun..]);
            if together > 0 {
                let beside = steps[begun..begun + together].iter().map(|step| self.perform(book.stack(), step, say));
                try_join_all(beside).await?;
                begun += together;
                continue;
            }
            let step = steps[begun];
            begun += 1;
            if step.leaves_something() {
                book.write(|journal| {
                    if let Some(active) = &mut journal.active {
                        active.phase = Phase::Before(begun);
                    }
                })
                .await
                .map_err(LaunchError::State)?;
            }
            self.perform(book.stack(), step, say).await?;
        }
        Ok(())
    }

    /// Takes back what the active operation has begun. Errors are kept until all steps were tried. What another server
    /// that does not answer still has is retired when it does.
    ///
    /// # Errors
    /// The first step that could not be taken back.
    pub async fn take_back(&self, book: &Book, say: Say<'_>) -> Result<(), LaunchError> {
        let Some(active) = book.read().await.active else { return Ok(()) };
        let begun = match active.phase {
            Phase::Building | Phase::Committed | Phase::Destroying => 0,
            Phase::Before(begun) => begun.max(last_written(&active.plan, begun)),
        };
        let far = |step: &Step| step.server().is_some_and(|server| server != self.engines.here());
        let (mut first, mut later, mut stays) = (Ok(()), Vec::new(), false);
        for step in undo(&active.plan, begun) {
            let done = match step {
                // The new one may still run, and of this there may be only one.
                Undo::Step(Step::Start { .. }) if stays => Ok(()),
                Undo::Step(step) => match self.perform(book.stack(), &step, say).await {
                    Err(error) if far(&step) => {
                        stays = true;
                        tracing::warn!(stack = %book.stack(), %step, error = ?error, "a step is taken back later");
                        // What was stopped is started again by the reconciler, like everything that should run.
                        later.extend(Some(step).filter(Step::only_removes));
                        Ok(())
                    }
                    done => {
                        stays |= done.is_err();
                        done
                    }
                },
                Undo::RemoveFolder(folder) => remove_folder(folder).await,
            };
            if first.is_ok() {
                first = done;
            }
        }
        if !later.is_empty() {
            book.write(|journal| journal.retiring.extend(later)).await.map_err(LaunchError::State)?;
        }
        first
    }

    /// Performs the retiring steps one by one, each leaving the journal when it is done. A step that fails is logged
    /// and kept for the next start, the following ones go on.
    pub async fn retire(&self, book: &Book) {
        let _alone = book.retiring.lock().await;
        let quiet = |_: &str| {};
        let mut failed = 0;
        loop {
            let Some(step) = book.read().await.retiring.get(failed).cloned() else { return };
            match self.perform(book.stack(), &step, &quiet).await {
                Ok(()) => {
                    let written = book
                        .write(|journal| {
                            if let Some(place) = journal.retiring.iter().position(|one| *one == step) {
                                journal.retiring.remove(place);
                            }
                        })
                        .await;
                    if let Err(error) = written {
                        tracing::warn!(stack = %book.stack(), %error, "the journal of retirement cannot be written");
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(stack = %book.stack(), %step, %error, "a step of retirement failed");
                    failed += 1;
                }
            }
        }
    }

    /// Does one step. Every step may be done twice.
    ///
    /// # Errors
    /// What the step ran into.
    pub async fn perform(&self, stack: &StackName, step: &Step, say: Say<'_>) -> Result<(), LaunchError> {
        let engine = |source| LaunchError::Engine { doing: step.to_string(), source };
        match step {
            gone if gone.only_removes() && self.has_left(gone) => Ok(()),
            Step::Fetch { server, image } => {
                let supplied = self.supply.image(server, image).await;
                supplied.map_err(|error| LaunchError::Supply { doing: step.to_string(), source: Box::new(error) })
            }
            Step::Network { server, name, subnet } => {
                let network = self.identity.labelled(stack, name, subnet);
                self.engine(server)?.create_network(&network).await.map_err(engine)
            }
            Step::Site { document_root, folder, .. } => self.copy_site(stack, document_root, folder).await,
            Step::Once { container } => self.once(container, say).await,
            Step::Boot { container } => self.boot(container).await?.map_err(engine),
            Step::Start { server, container } => match self.engine(server)?.start(container).await {
                // On the way back a container that is gone has nothing to start.
                Err(EngineError::NotFound { .. }) => Ok(()),
                other => other.map_err(engine),
            },
            Step::Await { server, container, check, role, restart, .. } => {
                let docker = self.engine(server)?;
                let awaited = Awaited::of(step, &*docker).expect("it is such a step");
                awaited.wait_until_up(check, say).await?;
                // Who is made next may need it at once.
                if let Some(edge) = self.edge.as_ref().filter(|_| *role == Role::Service) {
                    edge.follow_containers().await;
                }
                match restart {
                    Restart::UnlessStopped => docker.keep_running(container).await.map_err(engine),
                    Restart::No => Ok(()),
                }
            }
            Step::Hook { server, container, command, must } => {
                let hooked = self.hook(server, container, command, say).await;
                if *must { hooked } else { Ok(()) }
            }
            Step::Stop { server, container, grace } => {
                self.engine(server)?.stop(container, *grace).await.map_err(engine)
            }
            Step::Route { .. } | Step::Unroute { .. } | Step::Drain { .. } => self.on_edge(step).await,
            Step::Remove { server, container, grace } => {
                let docker = self.engine(server)?;
                docker.stop(container, *grace).await.map_err(engine)?;
                docker.remove(container).await.map_err(engine)
            }
            Step::RemoveNetwork { server, name } => self.engine(server)?.remove_network(name).await.map_err(engine),
            Step::Sweep { server, network } => self.sweep(stack, server, network).await,
        }
    }

    /// Asks the container that a step waited for once more.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn is_well(&self, step: &Step, health: &Health) -> Result<(), String> {
        let Some(server) = step.server() else { return Ok(()) };
        let engine = self.engine(server).map_err(|error| error.to_string())?;
        match Awaited::of(step, &*engine) {
            Some(awaited) => awaited.is_well(health).await,
            None => Ok(()),
        }
    }

    /// Whether a step is for a server that is no longer one of HQ's.
    fn has_left(&self, step: &Step) -> bool {
        step.server().is_some_and(|server| matches!(self.engines.of(server), Err(EngineError::NoServer { .. })))
    }

    async fn hook(
        &self,
        server: &ServerName,
        container: &ContainerName,
        command: &crate::stack::Command,
        say: Say<'_>,
    ) -> Result<(), LaunchError> {
        match self.engine(server)?.exec(container, &command.words(), say).await {
            Ok(0) => Ok(()),
            Ok(code) => Err(LaunchError::Command { what: "hook", node: container.to_string(), code }),
            Err(source) => Err(LaunchError::Engine { doing: format!("run the hook of {container}"), source }),
        }
    }

    /// The router's part of a launch; a stack that runs locally has none.
    async fn on_edge(&self, step: &Step) -> Result<(), LaunchError> {
        let Some(edge) = &self.edge else { return Ok(()) };
        if let Step::Route { table } = step {
            edge.set(table).await.map_err(LaunchError::Edge)?;
        }
        if let Step::Unroute { stack } = step {
            edge.remove(stack).await.map_err(LaunchError::Edge)?;
        }
        if let Step::Drain { published, others, grace, .. } = step {
            let until = Instant::now() + grace.duration();
            for peer in [published].into_iter().chain(others) {
                drain(&**edge, *peer, until).await;
            }
        }
        Ok(())
    }

    /// A server's docker.
    pub(super) fn engine(&self, server: &ServerName) -> Result<Arc<dyn Engine>, LaunchError> {
        self.engines.of(server).map_err(|source| LaunchError::Engine { doing: format!("work on {server}"), source })
    }

    async fn copy_site(
        &self,
        stack: &StackName,
        root: &InnerPath,
        folder: &std::path::Path,
    ) -> Result<(), LaunchError> {
        let from = self.root.join("stacks").join(stack.as_str()).join("src").join(root.as_str());
        on_disk(folder.to_owned(), move |to| super::files::copy_site(&from, to)).await
    }
}

/// Waits until nothing is under way at the address, at most until then.
async fn drain(edge: &dyn Edge, published: std::net::SocketAddr, until: Instant) {
    // A router that does not answer has nothing under way that could be waited for.
    while let Ok(1..) = edge.in_flight(published).await
        && Instant::now() < until
    {
        sleep(DRAIN_POLL).await;
    }
}

/// Pause between two looks at a draining one.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// How many of these steps are done side by side, so that the slowest one is waited for and not all in turn: new
/// containers come up, and servers get their images.
fn together(steps: &[&Step]) -> usize {
    let awaits = steps.iter().take_while(|step| matches!(step, Step::Await { .. })).count();
    awaits.max(steps.iter().take_while(|step| matches!(step, Step::Fetch { .. })).count())
}

/// Steps that are not journaled may follow the last written one; undoing them costs nothing.
fn last_written(plan: &super::Plan, begun: usize) -> usize {
    begun.min(plan.revocable().count())
}

async fn remove_folder(folder: PathBuf) -> Result<(), LaunchError> {
    on_disk(folder, super::files::remove_folder).await
}

/// Does something with a folder, off the async threads.
pub(super) async fn on_disk(
    folder: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<(), LaunchError> {
    let path = folder.clone();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    let done = done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    done.map_err(|source| LaunchError::Folder { path: folder, source })
}
