//! The edge seam: the running router as HQ drives it.

use std::net::SocketAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StackRoutes;
use super::tls::{TlsChange, TlsState};
use crate::front::Snippet;
use crate::names::StackName;
use crate::units::Millis;

/// What went wrong with the router.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// nginx does not answer on its control socket.
    #[error("the router does not answer; see {log}")]
    Down {
        /// nginx's error log.
        log: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// nginx refused the table.
    #[error("the router refused the routes of `{stack}`: {message}")]
    Refused {
        /// Whose table.
        stack: StackName,
        /// Its words.
        message: String,
    },
    /// nginx refused a certificate or a challenge.
    #[error("the router refused what it is to show for HTTPS: {message}")]
    Tls {
        /// Its words.
        message: String,
    },
    /// nginx refused directives of a stack's own.
    #[error("the router refused the snippet: {message}")]
    Snippet {
        /// Its words.
        message: String,
    },
    /// A file of the router could not be written.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// nginx is not installed or does not start.
    #[error("nginx does not start: {message}")]
    Start {
        /// The last words of nginx, with the install hint where a piece is missing.
        message: String,
    },
}

/// What a router has answered of one stack's requests with one kind of status, since it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Whose.
    pub stack: StackName,
    /// The status's first digit, 1 to 5.
    pub class: u8,
    /// How many.
    pub requests: u64,
    /// How long all of them took.
    pub took: Millis,
}

impl Tally {
    /// Reads a line of the router: stack, class, requests and milliseconds, with blanks between them.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (stack, class) = (next()?.parse().ok()?, next()?.parse().ok()?);
        // Lua has but one kind of number.
        let number = |word: &str| word.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number as u64);
        Some(Self { stack, class, requests: number(next()?)?, took: Millis(number(next()?)?) })
    }
}

/// A running router.
#[async_trait]
pub trait Edge: Send + Sync {
    /// Replaces the whole table of one stack in one step, durable for the next start of the router too. When it
    /// returns, no new request reaches an address that the table does not name.
    async fn set(&self, routes: &StackRoutes) -> Result<(), EdgeError>;

    /// Tells whether the router can read these directives; changes nothing.
    async fn try_snippet(&self, snippet: &Snippet) -> Result<(), EdgeError>;

    /// Takes all routes of a stack away; not there is success.
    async fn remove(&self, stack: &StackName) -> Result<(), EdgeError>;

    /// The tables the router holds now, by stack name.
    async fn tables(&self) -> Result<Vec<StackRoutes>, EdgeError>;

    /// Changes certificates and challenges. When it returns, new handshakes and questions follow it; certificates are
    /// durable for the next start of the router.
    async fn secure(&self, change: &TlsChange) -> Result<(), EdgeError>;

    /// The certificates, by domain, and the challenges, by token, that the router has now.
    async fn secured(&self) -> Result<TlsState, EdgeError>;

    /// Whoever leads containers to each other learns what runs now. A router of visitors has nothing to do.
    async fn follow_containers(&self) {}

    /// How many requests (and upgraded connections) are under way at this address right now.
    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, EdgeError>;

    /// How many requests each stack has had here since the router started; up to a second old.
    async fn tallies(&self) -> Result<Vec<Tally>, EdgeError>;
}
