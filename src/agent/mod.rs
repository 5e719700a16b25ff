//! What stands on each server beside docker: `quarry agent`, a process of its own.
//!
//! It observes docker and tells HQ its vitals, and keeps what HQ wants of the server: locknet, the hosts file, config
//! files, a router. What it was told last is on its disk: with HQ gone, and after a reboot, everything stays as it is.
//! HQ speaks to it through this seam: over SSH to the socket [`http`] serves, or to the [`fake`]. [`mind`] decides,
//! [`act`] does.
//!
//! It is told three things, and each in its own order ([`Turn`]): the configuration, and the tables of the router and of
//! the embassy, which change a hundred times as often and must not wait behind the rest.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::embassy::{PortCounts, Table};
use crate::names::StackName;
use crate::router::StackRoutes;
use crate::router::edge::Tally;
use crate::router::tls::TlsChange;

pub mod act;
pub mod bootstrap;
pub mod config;
mod deaths;
pub mod fake;
pub mod files;
pub mod http;
pub mod lane;
pub mod mind;
mod post;
pub mod process;
pub mod ssh;
pub mod stats;
pub mod vitals;
mod ward;

pub use config::{Applied, Config, Part, Turn};
pub use vitals::Vitals;

/// What went wrong between HQ and an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentError {
    /// It does not answer, or the way to it is cut.
    #[error("the agent on {place} does not answer: {why}")]
    Away {
        /// Which server.
        place: String,
        /// Why.
        why: String,
    },
    /// It has been told something newer.
    #[error("the agent was told something newer already (epoch {}, number {})", .held.epoch, .held.generation)]
    Stale {
        /// What it holds.
        held: Turn,
    },
    /// The server does not route.
    #[error("no router runs on the server")]
    NoRouter,
    /// The router does not do it.
    #[error("{0}")]
    Router(String),
    /// The embassy does not do it, or not in full.
    #[error("{0}")]
    Embassy(String),
    /// Locknet's trial is over, or was another one.
    #[error("{0}")]
    Trial(String),
    /// The agent cannot keep what it is told.
    #[error("{0}")]
    Disk(String),
    /// The two do not understand each other: one of them is older.
    #[error("the agent on {place} speaks otherwise: {why}")]
    Foreign {
        /// Which server.
        place: String,
        /// What is not understood.
        why: String,
    },
}

/// A change of the router's tables, or of what it shows for HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// The whole table of one stack.
    Set(StackRoutes),
    /// One stack less; gone is success.
    Remove(StackName),
    /// All there are: every other stack's goes.
    All(Vec<StackRoutes>),
    /// Certificates and challenges.
    Tls(TlsChange),
}

/// The agent of one server, as HQ drives it.
#[async_trait]
pub trait Agent: Send + Sync {
    /// Makes the server what the configuration says, and has it on the server's disk before anything else. What could
    /// not be applied is in the answer; the rest is. The same turn again is the same again.
    ///
    /// # Errors
    /// [`AgentError::Stale`] after a newer one.
    async fn configure(&self, config: &Config) -> Result<Applied, AgentError>;

    /// Keeps locknet's rules on trial. It comes over a new connection: that it arrives is what the trial is for.
    ///
    /// # Errors
    /// [`AgentError::Trial`] when the time is over, or others are on trial.
    async fn confirm(&self, trial: &str) -> Result<(), AgentError>;

    /// Changes the router's tables; when it returns, no new request there reaches an address the tables do not name.
    ///
    /// # Errors
    /// [`AgentError::Stale`], [`AgentError::NoRouter`], or the router's own.
    async fn route(&self, turn: Turn, routing: &Routing) -> Result<(), AgentError>;

    /// The tables the router holds now, by stack name.
    ///
    /// # Errors
    /// As [`Agent::route`].
    async fn tables(&self) -> Result<Vec<StackRoutes>, AgentError>;

    /// Has the embassy's ports be these, and has them on the server's disk; when it returns, nobody there is led to an
    /// address that is not in the table.
    ///
    /// # Errors
    /// [`AgentError::Stale`]: nothing has changed. [`AgentError::Embassy`]: there is none, or it cannot open some of the
    /// ports; the agent goes on trying. [`AgentError::Disk`]: they count until the agent begins anew.
    async fn expose(&self, turn: Turn, table: &Table) -> Result<(), AgentError>;

    /// What the embassy's ports have counted; none without one.
    ///
    /// # Errors
    /// When the agent does not answer.
    async fn ports(&self) -> Result<Vec<PortCounts>, AgentError>;

    /// How many requests and connections are under way from this server's router and embassy to an address.
    ///
    /// # Errors
    /// When the agent does not answer, or its router fails.
    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError>;

    /// How many requests each stack has had at the router since that started; up to a second old.
    ///
    /// # Errors
    /// [`AgentError::NoRouter`], or the router's own.
    async fn tallies(&self) -> Result<Vec<Tally>, AgentError>;

    /// How the server is: now, at each change, and at least each second. Silence is a loss.
    ///
    /// # Errors
    /// When the agent does not answer.
    async fn vitals(&self) -> Result<BoxStream<'static, Result<Vitals, AgentError>>, AgentError>;
}
