//! What an engine is asked to make of an image.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::names::ContainerName;
use crate::units::port::Port;
use crate::units::{Megabytes, MilliCpus, Millis};

/// A container to make. Everything is decided; the engine only obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Its name.
    pub name: ContainerName,
    /// Image id or reference; never pulled implicitly.
    pub image: String,
    /// Replaces the image's entrypoint: `Some(vec![])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Command words; empty leaves the image's.
    pub command: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Variables.
    pub env: Env,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<Published>,
    /// Host folder and absolute container path.
    pub binds: Vec<(PathBuf, String)>,
    /// The network it joins, and its names and fixed address there.
    pub network: Option<Attachment>,
    /// Names it knows beside those of the network.
    pub hosts: BTreeMap<String, IpAddr>,
    /// Memory limit.
    pub memory: Option<Megabytes>,
    /// Processor share.
    pub cpus: Option<MilliCpus>,
    /// Most processes at once.
    pub pids: Option<i64>,
    /// Restarted by the engine unless stopped, or never.
    pub restart: Restart,
    /// How long the engine waits between SIGTERM and SIGKILL by default.
    pub stop_timeout: Millis,
    /// A terminal is attached.
    pub tty: bool,
    /// Standard input stays open.
    pub stdin: bool,
    /// What becomes of its output, besides going to whoever is attached.
    pub log: Log,
}

/// What an engine does with a container's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Log {
    /// Keeps the last of it.
    #[default]
    Kept,
    /// Nothing: it is for whoever is attached alone. Keeping it costs a line of JSON for each line, six bytes for each
    /// that is no text.
    None,
    /// Nothing, and it may go past the engine, to whoever attaches by [`Engine::attach`](super::Engine::attach) before
    /// the container is started. Then it does not start without.
    Handed,
}

/// A container port made reachable on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The server's address it listens on.
    pub address: IpAddr,
    /// The server's port.
    pub port: u16,
    /// The container's.
    pub container: Port,
}

/// How a container is on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// DNS names inside the network.
    pub aliases: Vec<String>,
    /// A fixed address, else the engine chooses.
    pub address: Option<Ipv4Addr>,
}

/// The engine's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// `unless-stopped`, log rotated.
    UnlessStopped,
    /// `no`: started by HQ alone.
    No,
}
