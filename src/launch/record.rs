//! The immutable record of one release.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::instruction::Instruction;
use crate::names::{CommitId, ReleaseNumber, UserName};

/// One release; `stacks/<stack>/releases/<n>.json`. Values of the stack's env are never inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its number.
    pub number: ReleaseNumber,
    /// What made it.
    pub cause: Cause,
    /// The commit it runs.
    pub commit: Option<CommitId>,
    /// First line of the commit's message.
    pub subject: String,
    /// The version of the stack's variables.
    pub env_version: u64,
    /// Its instructions; images are named by content inside.
    pub instructions: Vec<Instruction>,
    /// Who asked for it.
    pub user: UserName,
    /// When it was committed (or begun, until then).
    pub created: Timestamp,
}

/// What made a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A push to this branch.
    Push(String),
    /// A deploy by command of this reference.
    Deploy(String),
    /// Variables changed: their names.
    Env(Vec<String>),
    /// Back to an earlier release.
    Rollback(ReleaseNumber),
    /// A launch of an instruction tarball.
    Launch,
    /// The first job: what has no repository needs a beginning, too.
    Jobs,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Push(branch) => write!(f, "push to {branch}"),
            Cause::Deploy(reference) => write!(f, "deploy of {reference}"),
            Cause::Env(names) => write!(f, "env {}", names.join(" ")),
            Cause::Rollback(number) => write!(f, "rollback to {number}"),
            Cause::Launch => f.write_str("launch"),
            Cause::Jobs => f.write_str("jobs"),
        }
    }
}
