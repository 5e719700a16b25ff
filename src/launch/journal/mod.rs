//! What an operation writes before each step, so that a killed HQ can finish or undo it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::Release;
use super::{Plan, Step};
use crate::front::Front;
use crate::names::{CommitId, ContainerName, ReleaseNumber, ServerName};

pub mod act;

/// `journal/<stack>.json`: the operation under way, and what still has to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// At most one operation changes a stack at a time.
    pub active: Option<Operation>,
    /// Steps that retire old containers, oldest first. They are idempotent and only ever go forward.
    pub retiring: Vec<Step>,
    /// The release that is live, and whose commit still has certificates to show or commands to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ReleaseNumber>,
}

impl Journal {
    /// Containers on their way out, each with its server: two servers may have one of the same name after one of them was
    /// away for a while.
    pub fn going(&self) -> BTreeSet<(&ServerName, &ContainerName)> {
        self.retiring.iter().filter_map(Step::removed).collect()
    }

    /// The servers on which a stack that is gone still has something.
    pub fn sweeping(&self) -> BTreeSet<&ServerName> {
        let swept = self.retiring.iter().filter(|step| matches!(step, Step::Sweep { .. }));
        swept.filter_map(Step::server).collect()
    }

    /// Whether there is nothing left to do.
    pub fn is_empty(&self) -> bool {
        self.active.is_none() && self.retiring.is_empty() && self.after.is_none()
    }
}

/// One operation on a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What it is, in a word for people: `deploy`, `scale` …
    pub verb: String,
    /// The release it makes; `None` for scale and restart.
    pub release: Option<Release>,
    /// The number pinned in the repository for it.
    pub pinned: Option<ReleaseNumber>,
    /// The branch it moves when it commits.
    pub branch: Option<BranchMove>,
    /// Its steps; empty while images are built.
    pub plan: Plan,
    /// How far it is.
    pub phase: Phase,
    /// Env names to put into the tree when it commits come from this version; `None` leaves the tree.
    pub env_version: Option<u64>,
    /// What is ordered of the stack's routing from the commit on; `None` leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front: Option<Front>,
    /// Whether something of the commit is still to come once the release is live.
    #[serde(default)]
    pub after: bool,
}

/// A branch and its old and new commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchMove {
    /// Its name, such as `master`.
    pub branch: String,
    /// What it must point at before; `None`: it must not exist.
    pub old: Option<CommitId>,
    /// What it points at after.
    pub new: CommitId,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Images are built; nothing runs yet.
    Building,
    /// This many of the revocable steps may have begun.
    Before(usize),
    /// The release counts: only forward from here.
    Committed,
    /// The stack goes away: only forward.
    Destroying,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::sample::name;
    use crate::units::Millis;

    #[test]
    fn what_goes_is_known_by_its_server_and_its_name() {
        let remove =
            |server: &str| Step::Remove { server: name(server), container: name("blog.web.1.1"), grace: Millis(0) };
        let sweep = Step::Sweep { server: name("s3"), network: "quarry-blog".to_owned() };
        let journal = Journal { retiring: vec![remove("s1"), sweep], ..Journal::default() };
        let (s1, s2, s3, container) = (name("s1"), name("s2"), name("s3"), name("blog.web.1.1"));
        assert!(journal.going().contains(&(&s1, &container)));
        assert!(!journal.going().contains(&(&s2, &container)), "one of the same name on another server stays");
        assert_eq!(journal.sweeping(), BTreeSet::from([&s3]));
    }
}
