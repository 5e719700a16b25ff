//! From a commit to a release that serves, see [`act`].

use crate::hq::rights::Access;
use crate::launch::journal::BranchMove;
use crate::launch::record::Cause;
use crate::names::{CommitId, StackName};

pub mod act;
pub mod after;
pub mod anew;
pub mod source;

/// A commit somebody wants live.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose.
    pub stack: StackName,
    /// Which commit.
    pub commit: CommitId,
    /// The branch to move when it is live.
    pub branch: Option<BranchMove>,
    /// What made it.
    pub cause: Cause,
    /// Who asked.
    pub access: Access,
}
