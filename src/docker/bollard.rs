//! The real engine, over any way to its socket.
//!
//! Every call is one request. A call lasts as long as the engine needs for it, but only while the engine still answers
//! pings: a dead or stalled dockerd shows within seconds, a slow disk does not look like one.

use std::error::Error as _;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{
    Answered, Archive, Asked, Attached, BuildRequest, Container, ContainerRequest, Engine, EngineError, Event, Image,
    Lane, LogRequest, Network, Output, Say, Surroundings, Wire,
};
use crate::names::{ContainerName, ImageId};
use crate::units::Millis;

mod archives;
mod attach;
mod builds;
mod containers;
mod images;
mod networks;
mod passing;
mod streams;
mod transport;

/// Where dockerd listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long a call is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// A call still open after this long is followed by a ping, again and again.
    quiet: Duration,
    /// The engine answers a ping within this time or counts as stalled.
    ping: Duration,
    /// It takes no longer: an engine that answers pings but not this has a stuck container.
    limit: Duration,
}

/// For plain calls: a person or a site may be waiting.
const CALL: Patience =
    Patience { quiet: Duration::from_secs(5), ping: Duration::from_secs(5), limit: Duration::from_secs(180) };

/// For builds and downloads, which may themselves be what makes the server slow.
const STREAM: Patience =
    Patience { quiet: Duration::from_secs(30), ping: Duration::from_secs(60), limit: Duration::MAX };

/// For output that may not come for days: an engine that stalls is found out while nobody asks it anything.
const QUIET: Patience =
    Patience { quiet: Duration::from_secs(20), ping: Duration::from_secs(10), limit: Duration::MAX };

/// One server's docker. Connects when first asked.
#[derive(Debug, Clone)]
pub struct Docker {
    wire: Arc<dyn Wire>,
    calls: bollard::Docker,
    about: OnceCell<About>,
}

/// What the engine said of itself when it was first asked.
#[derive(Debug, Clone)]
struct About {
    version: String,
    /// The server's processor.
    architecture: String,
    /// `docker-init` is installed: process 1 of each container passes signals on and reaps.
    init: bool,
    /// It knows the runtime whose containers get their streams past it.
    hands_over: bool,
    surroundings: Surroundings,
}

impl Docker {
    /// The engine that listens on a socket of this machine. Nothing is opened yet.
    pub fn connect(socket: &Path) -> Self {
        Self::over(Arc::new(transport::Local::new(socket)))
    }

    /// The engine of `DOCKER_HOST` when that names a unix socket, else of the usual one.
    pub fn local() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        Self::connect(Path::new(host.strip_prefix("unix://").unwrap_or(DEFAULT_SOCKET)))
    }

    /// The engine at the end of `wire`. Nothing is opened yet.
    pub fn over(wire: Arc<dyn Wire>) -> Self {
        Self { calls: transport::client(&wire, Lane::Call), wire, about: OnceCell::new() }
    }

    /// Bollard's client for plain calls.
    fn client(&self) -> &bollard::Docker {
        &self.calls
    }

    /// Bollard's client for what is no plain call.
    fn client_on(&self, lane: Lane) -> bollard::Docker {
        transport::client(&self.wire, lane)
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
        EngineError::Unreachable { engine: self.wire.engine(), source: source.into() }
    }

    /// Waits for `call` as long as the engine lives and `patience` lasts.
    async fn patient<T>(
        &self,
        subject: &Subject<'_>,
        patience: Patience,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let watched = async {
            tokio::pin!(call);
            loop {
                match timeout(patience.quiet, &mut call).await {
                    Ok(answer) => return answer.map_err(|error| self.explain(subject, error)),
                    Err(_) => self.ping(patience.ping).await?,
                }
            }
        };
        timeout(patience.limit, watched).await.unwrap_or_else(|_| {
            let message = format!("it did not answer within {} seconds", patience.limit.as_secs());
            Err(EngineError::Refused { doing: subject.doing(), message })
        })
    }

    /// Waits for a plain call.
    async fn call<T>(
        &self,
        subject: &Subject<'_>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        self.patient(subject, CALL, call).await
    }

    /// Succeeds when the engine answers in time.
    async fn ping(&self, limit: Duration) -> Result<(), EngineError> {
        match timeout(limit, self.client().ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(elapsed) => Err(self.unreachable(elapsed)),
        }
    }

    /// Asked once: an engine's abilities do not change while it runs.
    async fn about(&self) -> Result<&About, EngineError> {
        self.about
            .get_or_try_init(|| async {
                let answer = match timeout(CALL.ping, self.client().version()).await {
                    Ok(answer) => answer.map_err(|error| self.explain(&Subject::ENGINE, error))?,
                    Err(elapsed) => return Err(self.unreachable(elapsed)),
                };
                // An engine without the binary lists it as version `N/A`.
                let init = answer.components.unwrap_or_default().iter().any(|component| {
                    component.name == "docker-init" && !["", "N/A"].contains(&component.version.as_str())
                });
                let (version, architecture) = (answer.version.unwrap_or_default(), answer.arch.unwrap_or_default());
                let info = match timeout(CALL.ping, self.client().info()).await {
                    Ok(info) => info.map_err(|error| self.explain(&Subject::ENGINE, error))?,
                    Err(elapsed) => return Err(self.unreachable(elapsed)),
                };
                let hands_over = self.wire.is_here() && attach::hands_over(&info);
                let cgroup_driver = info.cgroup_driver.map_or_else(String::new, |driver| driver.to_string());
                let surroundings = Surroundings {
                    cgroup_driver,
                    folder: info.docker_root_dir.unwrap_or_default().into(),
                    live_restore: info.live_restore_enabled.unwrap_or(false),
                };
                Ok(About { version, architecture, init, hands_over, surroundings })
            })
            .await
    }

    /// Bollard's error in quarry's words.
    fn explain(&self, subject: &Subject<'_>, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code: 404, message } if subject.is_meant(&message) => {
                EngineError::NotFound { what: subject.what() }
            }
            Error::DockerResponseServerError { status_code: 404, message } => {
                EngineError::NotFound { what: missing(&message).unwrap_or_else(|| subject.what()) }
            }
            Error::DockerResponseServerError { status_code: 409, message } => EngineError::Conflict { message },
            Error::DockerResponseServerError { message, .. } if is_taken(&message) => EngineError::Conflict { message },
            Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
                EngineError::Refused { doing: subject.doing(), message }
            }
            Error::SocketNotFoundError(_)
            | Error::RequestTimeoutError
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::IOError { .. } => self.unreachable(error),
            other => {
                let cause = other.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                EngineError::Refused { doing: subject.doing(), message: format!("{other}{cause}") }
            }
        }
    }
}

/// Whether the engine speaks of a port or address that something else holds; it answers those with plain 500 and 403.
fn is_taken(message: &str) -> bool {
    ["port is already allocated", "address already in use", "Address already in use", "Pool overlaps"]
        .iter()
        .any(|words| message.contains(words))
}

/// What a 404 says is missing where it is not the thing asked for: a container's image or network.
fn missing(message: &str) -> Option<String> {
    if let Some(image) = message.strip_prefix("No such image: ") {
        return Some(format!("image `{image}`"));
    }
    let network = message.strip_prefix("network ")?.strip_suffix(" not found")?;
    Some(format!("network `{network}`"))
}

/// What a call is about, for its error.
#[derive(Debug, Clone, Copy)]
struct Subject<'a> {
    verb: &'static str,
    kind: &'static str,
    name: &'a str,
}

impl<'a> Subject<'a> {
    const ENGINE: Subject<'static> = Subject { verb: "say its version", kind: "", name: "" };

    fn container(verb: &'static str, name: &'a ContainerName) -> Self {
        Self { verb, kind: "container", name: name.as_str() }
    }

    fn what(&self) -> String {
        format!("{} `{}`", self.kind, self.name)
    }

    fn doing(&self) -> String {
        if self.name.is_empty() { self.verb.to_owned() } else { format!("{} {}", self.verb, self.what()) }
    }

    fn is_meant(&self, message: &str) -> bool {
        !self.name.is_empty() && message.contains(self.name)
    }
}

#[async_trait]
impl Engine for Docker {
    async fn version(&self) -> Result<String, EngineError> {
        // The cell may be full while the engine is gone, and this is the question by which people find out.
        self.ping(CALL.ping).await?;
        Ok(self.about().await?.version.clone())
    }

    async fn architecture(&self) -> Result<String, EngineError> {
        Ok(self.about().await?.architecture.clone())
    }

    async fn surroundings(&self) -> Result<Surroundings, EngineError> {
        Ok(self.about().await?.surroundings.clone())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        self.inspect_image(reference).await
    }

    async fn pull(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError> {
        self.pull_image(reference, say).await
    }

    async fn push(&self, reference: &str, say: Say<'_>) -> Result<(), EngineError> {
        self.push_image(reference, say).await
    }

    async fn build(&self, request: BuildRequest, context: Archive, say: Say<'_>) -> Result<ImageId, EngineError> {
        self.build_image(request, context, say).await
    }

    async fn tag(&self, reference: &str, tag: &str) -> Result<(), EngineError> {
        self.tag_image(reference, tag).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.delete_image(reference).await
    }

    async fn images(&self, folder: &str) -> Result<Vec<Image>, EngineError> {
        self.list_images(folder).await
    }

    async fn trim_build_cache(&self, keep: u64) -> Result<u64, EngineError> {
        self.prune_builds(keep).await
    }

    async fn save(&self, images: &[ImageId]) -> Result<BoxStream<'static, Result<Bytes, EngineError>>, EngineError> {
        self.save_images(images).await
    }

    async fn load(&self, archive: Archive) -> Result<(), EngineError> {
        self.load_images(archive).await
    }

    async fn create(&self, request: ContainerRequest) -> Result<(), EngineError> {
        self.create_container(request).await
    }

    async fn start(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.start_container(name).await
    }

    async fn stop(&self, name: &ContainerName, grace: Millis) -> Result<(), EngineError> {
        self.stop_container(name, grace).await
    }

    async fn signal(&self, name: &ContainerName, signal: &str) -> Result<(), EngineError> {
        self.signal_container(name, signal).await
    }

    async fn remove(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.remove_container(name).await
    }

    async fn container(&self, name: &ContainerName) -> Result<Option<Container>, EngineError> {
        self.find_container(name).await
    }

    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError> {
        self.list_containers("label", label).await
    }

    async fn wait(&self, name: &ContainerName) -> Result<i64, EngineError> {
        self.wait_container(name).await
    }

    async fn logs(
        &self,
        name: &ContainerName,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Output, EngineError>>, EngineError> {
        self.read_logs(name, &request).await
    }

    async fn attach(&self, name: &ContainerName) -> Result<Attached, EngineError> {
        self.attach_container(name).await
    }

    async fn keep_running(&self, name: &ContainerName) -> Result<(), EngineError> {
        self.restart_container_when_it_ends(name).await
    }

    async fn resize(&self, name: &ContainerName, columns: u16, rows: u16) -> Result<(), EngineError> {
        self.resize_terminal(name, columns, rows).await
    }

    async fn exec(&self, name: &ContainerName, words: &[String], say: Say<'_>) -> Result<i64, EngineError> {
        self.run_inside(name, words, say).await
    }

    async fn networks(&self, label: &str) -> Result<Vec<Network>, EngineError> {
        self.list_networks(label).await
    }

    async fn create_network(&self, network: &Network) -> Result<(), EngineError> {
        self.make_network(network).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.delete_network(name).await
    }

    async fn bridge_address(&self) -> Result<IpAddr, EngineError> {
        self.find_bridge().await
    }

    async fn pass(&self, asked: Asked) -> Result<Answered, EngineError> {
        self.pass_on(asked).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Event, EngineError>>, EngineError> {
        self.watch_events().await
    }
}
