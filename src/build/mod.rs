//! From a checkout to images: what to build, with which files, by which builder.

use std::collections::BTreeSet;

use crate::env::Env;
use crate::names::reach::Reach;
use crate::units::{Megabytes, Millis};

pub mod act;
pub mod dockerfile;
pub mod dockerignore;
pub mod elsewhere;
pub mod engine;
pub mod failure;
pub mod files;
pub mod heredoc;
pub mod limits;
pub mod output;
pub mod plan;
pub mod reached;
pub mod tar;

/// What the server's owner has set for all builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildSettings {
    /// Certificates to be trusted, as one PEM text.
    pub ca: Option<String>,
    /// Build arguments: proxies, package indexes. A Dockerfile sees one where it has an `ARG` of its name, docker's
    /// predefined ones (`HTTP_PROXY` and the like) always.
    pub env: Env,
    /// Memory for each step.
    pub memory: Option<Megabytes>,
    /// Processes and threads of one build at a time.
    pub processes: Option<u32>,
    /// What must stay free on the disk.
    pub spare: Option<Megabytes>,
    /// A build that takes longer is ended; no limit when absent.
    pub timeout: Option<Millis>,
    /// The registries that images may be named from; all where whoever names them stands at the machine.
    pub reach: Option<Reach>,
    /// Images that a `# syntax=` line may name besides docker's own.
    pub syntaxes: BTreeSet<String>,
}
