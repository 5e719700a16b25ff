//! What is known of a stack besides its releases.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::UserName;

/// `stacks/<stack>/status`; its being there makes the stack exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who made it.
    pub owner: UserName,
    /// When.
    pub created: Timestamp,
    /// The branch that deploys, once one was pushed.
    pub branch: Option<String>,
    /// Its containers' network, once it has one.
    pub subnet: Option<String>,
}

/// Branches that deploy when they are the first to be pushed.
pub const DEPLOY_BRANCHES: [&str; 2] = ["master", "main"];

/// What a push to a branch means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchUse {
    /// It is deployed.
    Deploy,
    /// It is only stored; the name is the branch that deploys, once there is one.
    Store(Option<String>),
}

/// Decides what a push to `branch` means for a stack whose deploy branch is `chosen`.
pub fn branch_use(chosen: Option<&str>, branch: &str) -> BranchUse {
    match chosen {
        Some(chosen) if chosen == branch => BranchUse::Deploy,
        None if DEPLOY_BRANCHES.contains(&branch) => BranchUse::Deploy,
        other => BranchUse::Store(other.map(str::to_owned)),
    }
}
