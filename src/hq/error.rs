//! Why HQ does not do what it is asked to.

use super::{backup, certs, cloud, cluster, env, front, git, jobs, rights, servers, tasks, upgrade};
use crate::db::DbError;
use crate::docker::EngineError;
use crate::instruction::compile::CompileError;
use crate::instruction::tarball::TarballError;
use crate::launch::act::LaunchError;
use crate::launch::plan::PlanError;
use crate::names::{NodeName, ReleaseNumber, ServerName, StackName, StackNode};
use crate::router::BadDomains;
use crate::stack::Mistakes;
use crate::stack::files::RepositoryError;

/// Why HQ did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum HqError {
    /// The tree.
    #[error("cannot read or keep the state")]
    State(#[from] DbError),
    /// Nobody serves.
    #[error("no HQ serves on this machine, so nothing that runs can be changed; start it: quarry serve")]
    Asleep,
    /// No such stack.
    #[error("there is no stack `{0}`; `stacks` lists them")]
    NoStack(StackName),
    /// The key of all variables.
    #[error(transparent)]
    Env(#[from] env::EnvError),
    /// A task.
    #[error(transparent)]
    Task(#[from] tasks::act::TaskError),
    /// A job.
    #[error(transparent)]
    Job(#[from] jobs::JobError),
    /// Somebody may not do that.
    #[error(transparent)]
    Rights(#[from] rights::RightsError),
    /// The record of events.
    #[error("cannot read the events")]
    Events {
        /// Why.
        source: std::io::Error,
    },
    /// It is there already.
    #[error("the stack `{0}` exists already")]
    StackExists(StackName),
    /// What an earlier operation left is in the way.
    #[error("an earlier operation on `{0}` has yet to be finished or taken back; HQ tries on, ask again in a moment")]
    Unsettled(StackName),
    /// Its destruction waits for servers.
    #[error(
        "the stack `{stack}` that was destroyed still has something on {}, which cannot be reached; bring it back, or \
         give it up: servers remove {} --force", listed(.servers), listed(.servers)
    )]
    StillLeaving {
        /// Its name.
        stack: StackName,
        /// Those servers.
        servers: Vec<ServerName>,
    },
    /// Every number at the embassies is somebody's.
    #[error(
        "every port from {first} to {last} of the embassy is handed out; destroy a stack, or widen `embassy/ports` in \
         quarry's settings"
    )]
    NoNumber {
        /// The first there is.
        first: u16,
        /// The last.
        last: u16,
    },
    /// A link to what its pusher may not use, or what is not there.
    #[error("`{from}` links to `{to}`, but {why}")]
    Link {
        /// Who links.
        from: NodeName,
        /// To whom.
        to: StackNode,
        /// What is wrong with it.
        why: String,
    },
    /// No release yet.
    #[error("`{0}` has never been deployed; push it first: git push <remote> master")]
    NeverDeployed(StackName),
    /// No such release, or no longer kept.
    #[error("release {number} of `{stack}` is not kept; `releases {stack}` lists those that are")]
    NoRelease {
        /// Whose.
        stack: StackName,
        /// Which.
        number: ReleaseNumber,
    },
    /// No such node.
    #[error("`{stack}` has no node `{node}`; it has: {known}")]
    NoNode {
        /// Whose.
        stack: StackName,
        /// Which.
        node: NodeName,
        /// Those there are.
        known: String,
    },
    /// The branch has moved since the pusher looked.
    #[error("the branch moved in the meantime; fetch and push again")]
    Stale,
    /// No name for a branch.
    #[error("`{0}` is no name for a branch: git itself takes it for something else")]
    BranchName(String),
    /// The repository failed.
    #[error("cannot use the repository of `{stack}`")]
    Git {
        /// Whose.
        stack: StackName,
        /// Why.
        source: git::GitError,
    },
    /// The checkout cannot be read.
    #[error("cannot read the checkout")]
    Checkout(#[from] RepositoryError),
    /// The repository's own mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// The buildpacks of the settings cannot be used.
    #[error(transparent)]
    Packs(#[from] crate::buildpacks::files::ShelfError),
    /// The stack cannot be launched.
    #[error("{}", lines(.0))]
    Compile(Vec<CompileError>),
    /// Domains the stack cannot have.
    #[error(transparent)]
    Domain(#[from] BadDomains),
    /// An image was not built.
    #[error(transparent)]
    Build(#[from] crate::build::act::BuildError),
    /// A node's image cannot be planned.
    #[error(transparent)]
    Images(#[from] crate::build::plan::PlanError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The launch failed and was undone.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A server could not be added or changed.
    #[error(transparent)]
    Server(#[from] servers::ServerError),
    /// The cloud did not do it.
    #[error(transparent)]
    Cloud(#[from] crate::servers::cloud::CloudError),
    /// The grid cannot size itself like that.
    #[error(transparent)]
    Sizing(#[from] cloud::SizingError),
    /// The etcd that HQ makes.
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    /// Orders for the router.
    #[error(transparent)]
    Front(#[from] front::FrontError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] backup::BackupError),
    /// HQ stays the program it is.
    #[error(transparent)]
    Upgrade(#[from] upgrade::UpgradeError),
    /// Certificates.
    #[error(transparent)]
    Certs(#[from] certs::CertsError),
    /// A server's agent.
    #[error("cannot end the agent of `{server}`")]
    Agent {
        /// Which server.
        server: ServerName,
        /// Why.
        source: Box<crate::agent::ssh::InstallError>,
    },
    /// Docker failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The instruction tarball is no good.
    #[error(transparent)]
    Tarball(#[from] TarballError),
    /// A file of HQ's could not be written.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The disk is nearly full.
    #[error("only {free} MB are free under {path}; a launch needs {needed} MB: remove something first")]
    Full {
        /// Where.
        path: String,
        /// What there is.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// The branch that deploys cannot be taken away.
    #[error(
        "`{branch}` is the branch that deploys `{stack}`; it cannot be deleted (`destroy {stack}` removes the stack)"
    )]
    DeployBranch {
        /// Whose.
        stack: StackName,
        /// Which.
        branch: String,
    },
    /// The pusher went away while images were built.
    #[error("cancelled; nothing was changed")]
    Cancelled,
    /// An image a kept release needs is gone.
    #[error("the image of node `{node}` in release {number} is no longer there; push its commit again")]
    ImageGone {
        /// Which node.
        node: NodeName,
        /// Which release.
        number: ReleaseNumber,
    },
}

fn listed<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn lines<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// An error and its causes in one line; a cause that repeats its parent is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
