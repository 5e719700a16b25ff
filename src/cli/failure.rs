//! How a command fails: an exit code that stays, the error with its causes, and a hint where one helps.

use std::error::Error;

use crate::hq::backup::BackupError;
use crate::hq::certs::CertsError;
use crate::hq::cluster::ClusterError;
use crate::hq::door::{Ended, Why};
use crate::hq::jobs::JobError;
use crate::hq::rights::RightsError;
use crate::hq::servers::ServerError;
use crate::hq::tasks::act::TaskError;
use crate::hq::upgrade::UpgradeError;
use crate::hq::{HqError, chain};

/// Exit codes; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The person's mistake: something named does not exist, a file is wrong.
    Mistake = 1,
    /// The command line is not one.
    Usage = 2,
    /// It was understood and refused; nothing changed.
    Refused = 3,
    /// Quarry's own fault.
    Bug = 70,
}

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// What the process or channel ends with.
    pub code: u8,
    /// Lines for the person.
    pub message: String,
    /// The code in more detail.
    pub why: Option<Why>,
}

impl Failure {
    /// A failure in one sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { code: exit as u8, message: message.into(), why: Ended::with(exit as u8).why }
    }

    /// What is named does not exist.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(Exit::Mistake, message).because(Why::Missing)
    }

    /// The same in more detail.
    #[must_use]
    pub fn because(self, why: Why) -> Self {
        Self { why: Some(why), ..self }
    }

    /// Any error, told with its causes.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }
}

impl From<HqError> for Failure {
    fn from(error: HqError) -> Self {
        let exit = match &error {
            HqError::NoStack(_)
            | HqError::StackExists(_)
            | HqError::StillLeaving { .. }
            | HqError::NeverDeployed(_)
            | HqError::NoRelease { .. }
            | HqError::NoNode { .. }
            | HqError::BranchName(_)
            | HqError::Mistakes(_)
            | HqError::Compile(_)
            | HqError::Images(_)
            | HqError::Tarball(_)
            | HqError::Job(_)
            | HqError::Link { .. }
            | HqError::Front(_)
            | HqError::Sizing(_) => Exit::Mistake,
            HqError::State(_)
            | HqError::Asleep
            | HqError::Unsettled(_)
            | HqError::Stale
            | HqError::Git { .. }
            | HqError::Checkout(_)
            | HqError::Packs(_)
            | HqError::Domain(_)
            | HqError::Build(_)
            | HqError::Plan(_)
            | HqError::Launch(_)
            | HqError::Engine(_)
            | HqError::Cloud(_)
            | HqError::Agent { .. }
            | HqError::File { .. }
            | HqError::Full { .. }
            | HqError::Cancelled
            | HqError::DeployBranch { .. }
            | HqError::NoNumber { .. }
            | HqError::ImageGone { .. } => Exit::Refused,
            HqError::Rights(RightsError::Hidden(_) | RightsError::Word(_) | RightsError::None { .. }) => Exit::Mistake,
            HqError::Task(TaskError::NoTask { .. } | TaskError::NoRun { .. } | TaskError::Zone { .. }) => Exit::Mistake,
            HqError::Task(TaskError::Output { .. }) => Exit::Refused,
            HqError::Rights(_) | HqError::Events { .. } | HqError::Env(_) => Exit::Refused,
            HqError::Backup(error) => of_backup(error),
            HqError::Upgrade(UpgradeError::Unfit { .. }) => Exit::Mistake,
            HqError::Upgrade(_) => Exit::Refused,
            HqError::Cluster(error) => of_cluster(error),
            HqError::Certs(error) => of_certs(error),
            HqError::Server(error) => of_server(error),
        };
        match why(&error) {
            Some(why) => Self::of(exit, &error).because(why),
            None => Self::of(exit, &error),
        }
    }
}

/// What an exit code does not tell.
fn why(error: &HqError) -> Option<Why> {
    match error {
        HqError::NoStack(_) | HqError::NoRelease { .. } | HqError::NoNode { .. } => Some(Why::Missing),
        HqError::Job(JobError::None { .. }) | HqError::Server(ServerError::NoServer(_)) => Some(Why::Missing),
        HqError::Task(TaskError::NoTask { .. } | TaskError::NoRun { .. }) => Some(Why::Missing),
        HqError::Rights(RightsError::Hidden(_) | RightsError::None { .. }) => Some(Why::Missing),
        HqError::Rights(RightsError::Taken(_)) | HqError::StackExists(_) => Some(Why::Taken),
        HqError::NeverDeployed(_) => Some(Why::Refused),
        HqError::Job(JobError::Taken { .. }) | HqError::Domain(_) => Some(Why::Taken),
        HqError::Rights(
            RightsError::Operator(_)
            | RightsError::TooLittle { .. }
            | RightsError::Creation { .. }
            | RightsError::Owner { .. },
        ) => Some(Why::Forbidden),
        HqError::Job(JobError::NoStack) => Some(Why::Forbidden),
        HqError::State(error) if error.is_away() => Some(Why::Away),
        HqError::Engine(_) | HqError::Agent { .. } | HqError::Asleep | HqError::Unsettled(_) => Some(Why::Away),
        _ => None,
    }
}

fn of_server(error: &ServerError) -> Exit {
    match error {
        ServerError::NoServer(_)
        | ServerError::Taken { .. }
        | ServerError::Known { .. }
        | ServerError::Size { .. }
        | ServerError::Itself { .. } => Exit::Mistake,
        ServerError::Link(_)
        | ServerError::Key(_)
        | ServerError::Facts(_)
        | ServerError::Closed { .. }
        | ServerError::Shut { .. }
        | ServerError::Fingerprint { .. }
        | ServerError::NoDocker { .. }
        | ServerError::Foreign { .. }
        | ServerError::Twin { .. }
        | ServerError::Failed { .. }
        | ServerError::Busy { .. }
        | ServerError::Keeps { .. }
        | ServerError::Claimed(_)
        | ServerError::Silent(_)
        | ServerError::Leaving(_)
        | ServerError::Own => Exit::Refused,
    }
}

fn of_cluster(error: &ClusterError) -> Exit {
    match error {
        ClusterError::Count(_) | ClusterError::Twice(_) | ClusterError::Own(_) | ClusterError::Etc(_) => Exit::Mistake,
        ClusterError::Foreign { .. }
        | ClusterError::Settings { .. }
        | ClusterError::Authority { .. }
        | ClusterError::Circle(_)
        | ClusterError::Member { .. }
        | ClusterError::Silent { .. }
        | ClusterError::Lost { .. }
        | ClusterError::Inhabited
        | ClusterError::Look(_)
        | ClusterError::Copy(_)
        | ClusterError::Restless
        | ClusterError::IsMember { .. } => Exit::Refused,
    }
}

fn of_backup(error: &BackupError) -> Exit {
    match error {
        BackupError::Foreign(_)
        | BackupError::Damaged { .. }
        | BackupError::Format { .. }
        | BackupError::NotEmpty(_)
        | BackupError::Differs(_) => Exit::Mistake,
        BackupError::Restless
        | BackupError::File { .. }
        | BackupError::Gone
        | BackupError::Images(_)
        | BackupError::State(_) => Exit::Refused,
    }
}

fn of_certs(error: &CertsError) -> Exit {
    match error {
        CertsError::Bad(_)
        | CertsError::Unreadable { .. }
        | CertsError::None(_)
        | CertsError::NoAuthority { .. }
        | CertsError::NotRouted(_)
        | CertsError::NotCertified(_) => Exit::Mistake,
        CertsError::UnderWay(_) | CertsError::Failed { .. } | CertsError::Shown(_) => Exit::Refused,
    }
}

impl From<RightsError> for Failure {
    fn from(error: RightsError) -> Self {
        Self::from(HqError::from(error))
    }
}

impl From<crate::db::DbError> for Failure {
    fn from(error: crate::db::DbError) -> Self {
        Self::from(HqError::from(error))
    }
}

impl From<crate::docker::EngineError> for Failure {
    fn from(error: crate::docker::EngineError) -> Self {
        Self::from(HqError::from(error))
    }
}

impl From<crate::names::BadName> for Failure {
    fn from(error: crate::names::BadName) -> Self {
        Self::of(Exit::Mistake, &error)
    }
}

/// The output of the command is gone: nobody is left to tell.
pub fn hung_up() -> Failure {
    Failure { code: 141, message: String::new(), why: None }
}

/// The person pressed Ctrl-C, or a signal asked for an end; the code is a shell's for that.
pub fn interrupted(message: &str) -> Failure {
    Failure { code: 130, message: message.to_owned(), why: None }
}
