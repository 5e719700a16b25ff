//! The engine seam: what quarry asks of one server's docker, in quarry's own words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::names::{ContainerName, ImageId, ServerName};
use crate::units::{Megabytes, Millis};

pub mod architecture;
pub mod bollard;
pub mod engines;
pub mod fake;
pub mod handover;
pub mod lines;
pub mod passing;
mod request;
pub mod usage;

pub use passing::{Answered, Asked};
pub use request::{Attachment, ContainerRequest, Log, Published, Restart};
pub use usage::Usage;

/// What went wrong with the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine does not answer, or not in time, or the way to it is cut.
    #[error("{engine} does not answer")]
    Unreachable {
        /// Which one, as its [`Wire`] calls it.
        engine: String,
        /// The connection's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Quarry has no server of this name.
    #[error("there is no server `{server}`; `servers list` shows those there are")]
    NoServer {
        /// The name.
        server: ServerName,
    },
    /// The thing asked for is not there.
    #[error("docker knows no {what}")]
    NotFound {
        /// Kind and name, such as "image `redis:7`".
        what: String,
    },
    /// The name or address is taken, or the thing is in use.
    #[error("docker refuses: {message}")]
    Conflict {
        /// The engine's own words.
        message: String,
    },
    /// The build ran and failed; its output has been streamed.
    #[error("the image build failed: {message}")]
    Build {
        /// The engine's last words.
        message: String,
    },
    /// Anything else the engine says.
    #[error("docker could not {doing}: {message}")]
    Refused {
        /// What was asked, as an infinitive with its object.
        doing: String,
        /// The engine's own words.
        message: String,
    },
}

/// A container as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: ContainerName,
    /// Its image's id.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub state: State,
    /// Its address on each network it is on, by network name.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Seconds since the epoch at which it was made.
    pub created: i64,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Fell and is about to be started again by the engine.
    Restarting,
    /// Stands still by `docker pause`.
    Paused,
    /// Ended with this code.
    Exited(i64),
    /// Being removed, or beyond repair.
    Dead,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Content id.
    pub id: ImageId,
    /// TCP ports it exposes, ascending.
    pub ports: Vec<u16>,
    /// Its command.
    pub command: Vec<String>,
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Paths it declares as volumes.
    pub volumes: Vec<String>,
    /// Its environment names and values.
    pub env: Vec<String>,
    /// Dockerfile lines that whoever builds from it performs (`ONBUILD`); empty in a list.
    pub triggers: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Size in bytes.
    pub size: u64,
    /// The processor it is built for, in docker's words (`amd64`, `arm64`); empty in a list.
    pub architecture: String,
}

/// Which builder takes a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// The old one, in every engine.
    Classic,
    /// BuildKit: `RUN --mount`, heredocs, parallel stages.
    BuildKit,
}

/// An image to build from a tar stream.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Tag the result gets.
    pub tag: String,
    /// Dockerfile's path within the context.
    pub dockerfile: String,
    /// Build arguments (`--build-arg`).
    pub args: BTreeMap<String, String>,
    /// Which builder.
    pub builder: Builder,
    /// Build without the cache.
    pub no_cache: bool,
    /// Memory for each step.
    pub memory: Option<Megabytes>,
    /// The control group its steps run in; the engine's own without.
    pub group: Option<String>,
}

/// The machine an engine runs on, as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Who makes control groups: `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
    /// Where it keeps images and containers.
    pub folder: PathBuf,
    /// Containers run on while it is restarted.
    pub live_restore: bool,
}

/// One chunk of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output (or the terminal).
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
}

/// Which part of a container's log to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Last lines to begin with; all when absent.
    pub tail: Option<u32>,
    /// Go on with what comes.
    pub follow: bool,
    /// Engine's RFC 3339 time before each line.
    pub timestamps: bool,
}

/// A running process's streams.
pub struct Attached {
    /// What it prints, until it ends.
    pub output: BoxStream<'static, Result<Output, EngineError>>,
    /// What it reads. Its end is shutting it down and letting go of it: a pipe knows only the latter.
    pub input: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The container's name.
    pub container: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The engine's verb: `start die stop kill destroy oom …`.
    pub action: String,
}

/// A user-defined bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its subnet, such as `10.208.0.0/26`.
    pub subnet: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A whole archive as a stream, for builds.
pub type Archive = Box<dyn AsyncRead + Send + Unpin>;

/// Takes output line by line, as it comes.
pub type Say<'a> = &'a (dyn for<'line> Fn(&'line str) + Send + Sync + 'a);

/// What a connection to an engine is for. A way that is shared keeps them apart, so that none holds up another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A question, and an answer that is read at once.
    Call,
    /// Images and build contexts.
    Bulk,
    /// Output for a reader who may stop reading: logs, terminals.
    Reader,
}

/// Bytes both ways.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// The way to an engine's socket, here or on another server.
#[async_trait]
pub trait Wire: std::fmt::Debug + Send + Sync {
    /// The engine at its end, for messages: "docker at /var/run/docker.sock", "docker on `s2` (10.77.0.12)".
    fn engine(&self) -> String;
    /// A new connection to the socket; fails in time when there is none to be had.
    async fn open(&self, lane: Lane) -> std::io::Result<Box<dyn Pipe>>;
    /// Whether the engine is on this machine, so that files can be handed to what it runs.
    fn is_here(&self) -> bool {
        false
    }
}

/// One server's docker.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The engine's version text, such as `20.10.24`; fails when it does not answer within 5 s.
    async fn version(&self) -> Result<String, EngineError>;
    /// The server's processor, in docker's words (`amd64`, `arm64`).
    async fn architecture(&self) -> Result<String, EngineError>;
    /// What it runs on.
    async fn surroundings(&self) -> Result<Surroundings, EngineError>;

    /// What is known of an image; `None` when it is not here.
    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError>;
    /// Fetches an image from its registry, saying what happens.
    async fn pull(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError>;
    /// Brings an image to the registry that `reference` names: what the registry has stays, the rest travels.
    async fn push(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError>;
    /// Builds; each line of output (ANSI escapes included) goes to `say`. Dropping the future cancels the build.
    async fn build(&self, request: BuildRequest, context: Archive, say: Say<'_>) -> Result<ImageId, EngineError>;
    /// Gives an image one more name.
    async fn tag(&self, reference: &str, tag: &str) -> Result<(), EngineError>;
    /// Takes away a name or an image; gone is success.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;
    /// Images with a name in this folder, such as `quarry/blog` or `quarry/*`, by tag; of their configuration only the
    /// labels. Names go by the engine's own index: a label would cost each build of the classic builder one more step.
    async fn images(&self, folder: &str) -> Result<Vec<Image>, EngineError>;

    /// Lets go of what BuildKit keeps beyond so many bytes, the longest unused first; what that came to.
    async fn trim_build_cache(&self, keep: u64) -> Result<u64, EngineError>;

    /// These images as one archive, what they share once, without their names. [`EngineError::NotFound`] when one is not
    /// here, at once or from the stream.
    async fn save(&self, images: &[ImageId]) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError>;
    /// Takes in every image of such an archive; those that are here already stay as they are.
    async fn load(&self, archive: Archive) -> Result<(), EngineError>;

    /// Makes a container. [`EngineError::Conflict`] when the name is taken.
    async fn create(&self, request: ContainerRequest) -> Result<(), EngineError>;
    /// Starts it; running is success.
    async fn start(&self, name: &ContainerName) -> Result<(), EngineError>;
    /// SIGTERM, `grace`, SIGKILL; stopped or gone is success.
    async fn stop(&self, name: &ContainerName, grace: Millis) -> Result<(), EngineError>;
    /// Sends a signal by name (`SIGINT`); not running or gone is success.
    async fn signal(&self, name: &ContainerName, signal: &str) -> Result<(), EngineError>;
    /// Removes it, running or not, with its anonymous volumes; gone is success.
    async fn remove(&self, name: &ContainerName) -> Result<(), EngineError>;
    /// One container; `None` when gone.
    async fn container(&self, name: &ContainerName) -> Result<Option<Container>, EngineError>;
    /// All containers, running or not, that carry `label` (`key` or `key=value`), by name.
    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError>;
    /// Waits until it ends and gives its exit code.
    async fn wait(&self, name: &ContainerName) -> Result<i64, EngineError>;
    /// Its log.
    async fn logs(
        &self,
        name: &ContainerName,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError>;
    /// From now on the engine starts it again when it ends, unless it was stopped by hand.
    async fn keep_running(&self, name: &ContainerName) -> Result<(), EngineError>;
    /// Attaches to a container made with `stdin`, before it is started.
    async fn attach(&self, name: &ContainerName) -> Result<Attached, EngineError>;
    /// Sets its terminal's size.
    async fn resize(&self, name: &ContainerName, columns: u16, rows: u16) -> Result<(), EngineError>;
    /// Runs words inside it, output to `say`, and gives the exit code.
    async fn exec(&self, name: &ContainerName, words: &[String], say: Say<'_>) -> Result<i64, EngineError>;

    /// Networks that carry `label`, by name.
    async fn networks(&self, label: &str) -> Result<Vec<Network>, EngineError>;
    /// Makes a network; existing with the same subnet is success.
    async fn create_network(&self, network: &Network) -> Result<(), EngineError>;
    /// Removes it; gone is success.
    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;
    /// The IPv4 address of the default bridge on the server (docker0), on which ports are published.
    async fn bridge_address(&self) -> Result<IpAddr, EngineError>;

    /// Passes a request in docker's own words on. An answer that is no success is one, too.
    async fn pass(&self, asked: Asked) -> Result<Answered, EngineError>;

    /// Container events from now on, until the engine goes away.
    async fn events(&self) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError>;
}
