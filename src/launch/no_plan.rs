//! Why instructions cannot be planned.

use super::address::Exhausted;
use crate::grid::NoRoom;
use crate::names::{NodeName, ServerName};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing left to hand out.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// SCALE of a node that was never deployed.
    #[error("the stack has no node `{0}` that runs; `ps` lists those it has")]
    NoNode(NodeName),
    /// A node that cannot move, and its server does not answer.
    #[error(
        "`{node}` stays on the server `{server}`, which does not answer: its data is there, or it may exist only once; \
         it waits for that server, or is given up there by `servers remove {server} --force`"
    )]
    Away {
        /// Which node.
        node: NodeName,
        /// Its server.
        server: ServerName,
    },
    /// No server can take a container.
    #[error("no server can take a container of `{0}`; `servers list` shows their states")]
    NoServer(NodeName),
    /// No server has room for a container.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// More than one container of something that may exist only once.
    #[error("`{0}` is a service or keeps volumes with `stop-first`: it has one container at most")]
    OnlyOne(NodeName),
    /// SCALE of what only runs at its times.
    #[error("`{0}` is a task: it runs at its times, and not all the time")]
    Task(NodeName),
}
