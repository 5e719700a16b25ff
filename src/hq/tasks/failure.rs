//! Why a task is not run.

use crate::names::{NodeName, StackName};
use crate::stack::ZoneName;

/// Why a task is not run.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The stack has no such task.
    #[error("`{stack}` has no task `{node}`; it has: {known}")]
    NoTask {
        /// Whose.
        stack: StackName,
        /// Which.
        node: NodeName,
        /// Those there are.
        known: String,
    },
    /// No such run, or its output is gone.
    #[error("nothing is kept of run {number} of `{stack}/{node}`; `tasks history {stack}/{node}` lists what is")]
    NoRun {
        /// Whose.
        stack: StackName,
        /// Which task.
        node: NodeName,
        /// Which run.
        number: u64,
    },
    /// The machine does not know the time zone.
    #[error("node `{node}`: this machine knows no time zone `{}`; see /usr/share/zoneinfo (apt install tzdata)", zone.as_str())]
    Zone {
        /// Whose.
        node: NodeName,
        /// Which.
        zone: ZoneName,
    },
    /// Its output cannot be read.
    #[error("cannot read what run {number} printed")]
    Output {
        /// Which run.
        number: u64,
        /// Why.
        source: std::io::Error,
    },
}
