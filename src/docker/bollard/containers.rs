//! Containers: made, started, stopped, removed, listed.

use std::collections::HashMap;
use std::path::Path;

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, ContainerUpdateBody, EndpointIpamConfig,
    EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkingConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions,
    ResizeContainerTTYOptions, StartContainerOptions, StopContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;

use super::{About, CALL, Docker, Patience, QUIET, Subject};
use crate::docker::handover::socket::can_offer;
use crate::docker::{Container, ContainerRequest, EngineError, Log, Restart, State, handover};
use crate::names::ContainerName;
use crate::units::Millis;
use crate::units::port::Port;

/// A container that talks fills at most 30 MB of the server's disk.
const LOG_SIZE: (&str, &str) = ("10m", "3");

/// What docker would give a container and hardly one needs: raw packets (forged addresses), device files, the audit
/// log, file capabilities. CHOWN, SETUID, KILL, NET_BIND_SERVICE and the like stay, nginx and postgres start with them.
const DROPPED: [&str; 4] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP"];

impl Docker {
    pub(super) async fn create_container(&self, request: ContainerRequest) -> Result<(), EngineError> {
        let subject = Subject::container("make", &request.name);
        let About { init, hands_over, .. } = *self.about().await?;
        let options = CreateContainerOptions { name: Some(request.name.to_string()), ..Default::default() };
        // A terminal is the engine's.
        let may_be_handed = hands_over && request.log == Log::Handed && !request.tty;
        let handed = may_be_handed && can_offer(Path::new(handover::FOLDER));
        let create = |handed| self.client().create_container(Some(options.clone()), body(&request, init, handed));
        match self.call(&subject, create(handed)).await {
            // Somebody has taken the runtime away since the engine was asked.
            Err(EngineError::Refused { message, .. }) if handed && message.contains("runtime") => {
                self.call(&subject, create(false)).await.map(drop)
            }
            made => made.map(drop),
        }
    }

    pub(super) async fn start_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        let subject = Subject::container("start", name);
        self.call(&subject, self.client().start_container(name.as_str(), None::<StartContainerOptions>)).await
    }

    pub(super) async fn stop_container(&self, name: &ContainerName, grace: Millis) -> Result<(), EngineError> {
        let subject = Subject::container("stop", name);
        let options = StopContainerOptions { t: Some(seconds(grace)), ..Default::default() };
        let patience = Patience { limit: CALL.limit + grace.duration(), ..CALL };
        let stop = self.client().stop_container(name.as_str(), Some(options));
        gone_is_success(self.patient(&subject, patience, stop).await)
    }

    pub(super) async fn signal_container(&self, name: &ContainerName, signal: &str) -> Result<(), EngineError> {
        let subject = Subject::container("signal", name);
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.call(&subject, self.client().kill_container(name.as_str(), Some(options))).await {
            Err(EngineError::Conflict { message }) if message.contains("is not running") => Ok(()),
            answer => gone_is_success(answer),
        }
    }

    pub(super) async fn remove_container(&self, name: &ContainerName) -> Result<(), EngineError> {
        let subject = Subject::container("remove", name);
        let options = RemoveContainerOptions { v: true, force: true, ..Default::default() };
        match self.call(&subject, self.client().remove_container(name.as_str(), Some(options))).await {
            // Someone else's removal is under way: done when that is done.
            Err(EngineError::Conflict { message }) if message.contains("is already in progress") => {
                let ended = ended(self.client(), name, "removed");
                gone_is_success(self.call(&subject, ended).await.map(|_| ()))
            }
            answer => gone_is_success(answer),
        }
    }

    pub(super) async fn find_container(&self, name: &ContainerName) -> Result<Option<Container>, EngineError> {
        // The engine takes a regular expression; of what a name can hold only the dot means more than itself.
        let pattern = format!("^/{}$", name.as_str().replace('.', r"\."));
        Ok(self.list_containers("name", &pattern).await?.pop())
    }

    /// Containers by one filter, by name, in one request.
    pub(super) async fn list_containers(&self, filter: &str, value: &str) -> Result<Vec<Container>, EngineError> {
        let subject = Subject { verb: "list", kind: "containers with", name: value };
        let filters = HashMap::from([(filter.to_owned(), vec![value.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = self.call(&subject, self.client().list_containers(Some(options))).await?;
        let mut containers: Vec<_> = found.into_iter().filter_map(container).collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    pub(super) async fn wait_container(&self, name: &ContainerName) -> Result<i64, EngineError> {
        let subject = Subject::container("wait for", name);
        self.patient(&subject, QUIET, ended(self.client(), name, "not-running")).await
    }

    /// Waits until a container ends that is not started yet.
    pub(super) async fn wait_for_first_end(&self, name: &ContainerName) -> Result<i64, EngineError> {
        let subject = Subject::container("wait for", name);
        self.patient(&subject, QUIET, ended(self.client(), name, "next-exit")).await
    }

    pub(super) async fn restart_container_when_it_ends(&self, name: &ContainerName) -> Result<(), EngineError> {
        let subject = Subject::container("change the restart policy of", name);
        let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::UNLESS_STOPPED), maximum_retry_count: None };
        let change = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        self.call(&subject, self.client().update_container(name.as_str(), change)).await
    }

    pub(super) async fn resize_terminal(
        &self,
        name: &ContainerName,
        columns: u16,
        rows: u16,
    ) -> Result<(), EngineError> {
        let subject = Subject::container("resize the terminal of", name);
        let options = ResizeContainerTTYOptions { h: rows.into(), w: columns.into() };
        self.call(&subject, self.client().resize_container_tty(name.as_str(), options)).await
    }
}

/// The exit code once the container has reached `condition`.
async fn ended(client: &bollard::Docker, name: &ContainerName, condition: &str) -> Result<i64, Error> {
    let options = WaitContainerOptions { condition: condition.to_owned() };
    match client.wait_container(name.as_str(), Some(options)).next().await {
        Some(Ok(response)) => Ok(response.status_code),
        // Bollard makes an error of every code that is not 0.
        Some(Err(Error::DockerContainerWaitError { code, error })) if error.is_empty() => Ok(code),
        Some(Err(error)) => Err(error),
        None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    }
}

pub(super) fn gone_is_success(answer: Result<(), EngineError>) -> Result<(), EngineError> {
    match answer {
        Err(EngineError::NotFound { .. }) => Ok(()),
        answer => answer,
    }
}

/// Whole seconds, rounded up: the engine knows no finer grace.
fn seconds(time: Millis) -> i32 {
    i32::try_from(time.0.div_ceil(1000)).unwrap_or(i32::MAX)
}

fn body(request: &ContainerRequest, init: bool, handed: bool) -> ContainerCreateBody {
    let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    // Open streams of the engine's would only wait beside those that it is handed.
    let stdin = request.stdin && !handed;
    let runtime = handed.then(|| handover::RUNTIME.to_owned());
    ContainerCreateBody {
        image: Some(request.image.clone()),
        entrypoint: request.entrypoint.clone(),
        cmd: words(&request.command),
        working_dir: request.cwd.clone(),
        env: words(&request.env.pairs()),
        labels: Some(request.labels.clone().into_iter().collect()),
        exposed_ports: Some(request.ports.iter().map(|port| inner(port.container)).collect()),
        tty: Some(request.tty),
        open_stdin: Some(stdin),
        // End of file on the attached connection closes the process's standard input.
        stdin_once: Some(stdin),
        attach_stdin: Some(stdin),
        stop_timeout: Some(seconds(request.stop_timeout).into()),
        host_config: Some(HostConfig { runtime, ..host_config(request, init) }),
        networking_config: request.network.as_ref().map(|attachment| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                attachment.network.clone(),
                EndpointSettings {
                    aliases: words(&attachment.aliases),
                    ipam_config: attachment.address.map(|address| EndpointIpamConfig {
                        ipv4_address: Some(address.to_string()),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            )])),
        }),
        ..Default::default()
    }
}

/// A container's port as docker has it.
fn inner(port: Port) -> String {
    format!("{}/{}", port.number, port.transport.word())
}

fn host_config(request: &ContainerRequest, init: bool) -> HostConfig {
    let memory = request.memory.and_then(|memory| i64::try_from(memory.bytes()).ok());
    let mut ports: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &request.ports {
        let binding = PortBinding { host_ip: Some(port.address.to_string()), host_port: Some(port.port.to_string()) };
        ports.entry(inner(port.container)).or_default().get_or_insert_default().push(binding);
    }
    // Mounts and not binds: a host path may hold a colon, and a folder that is missing is an error and not root's.
    let mounts = request.binds.iter().map(|(source, target)| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.clone()),
        ..Default::default()
    });
    let restart = match request.restart {
        Restart::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
        Restart::No => RestartPolicyNameEnum::NO,
    };
    HostConfig {
        memory,
        // The same as memory: no swap on top, so that the limit is one.
        memory_swap: memory,
        nano_cpus: request.cpus.map(|cpus| i64::from(cpus.0) * 1_000_000),
        pids_limit: request.pids,
        init: init.then_some(true),
        log_config: Some(log(request.log)),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cap_drop: Some(DROPPED.map(str::to_owned).to_vec()),
        network_mode: request.network.as_ref().map(|attachment| attachment.network.clone()),
        port_bindings: Some(ports),
        extra_hosts: Some(request.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        mounts: Some(mounts.collect()),
        restart_policy: Some(RestartPolicy { name: Some(restart), maximum_retry_count: None }),
        ..Default::default()
    }
}

fn log(log: Log) -> HostConfigLogConfig {
    match log {
        Log::None | Log::Handed => HostConfigLogConfig { typ: Some("none".to_owned()), config: None },
        Log::Kept => HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.0.to_owned()),
                ("max-file".to_owned(), LOG_SIZE.1.to_owned()),
            ])),
        },
    }
}

/// The engine's summary in quarry's words; `None` for a container whose name quarry could not have chosen.
fn container(summary: ContainerSummary) -> Option<Container> {
    let names = summary.names.unwrap_or_default();
    let name = names.iter().find_map(|name| name.strip_prefix('/')?.parse().ok())?;
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let addresses = networks
        .into_iter()
        .filter_map(|(network, endpoint)| Some((network, endpoint.ip_address?.parse().ok()?)))
        .collect();
    Some(Container {
        id: summary.id.unwrap_or_default(),
        name,
        image: summary.image_id.unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        state: state(summary.state, summary.status.as_deref().unwrap_or_default()),
        addresses,
        created: summary.created.unwrap_or_default(),
    })
}

fn state(state: Option<ContainerSummaryStateEnum>, status: &str) -> State {
    use ContainerSummaryStateEnum as Engine;
    match state {
        Some(Engine::CREATED) => State::Created,
        Some(Engine::RUNNING | Engine::STOPPING) => State::Running,
        Some(Engine::PAUSED) => State::Paused,
        Some(Engine::RESTARTING) => State::Restarting,
        Some(Engine::EXITED) => State::Exited(exit_code(status)),
        Some(Engine::REMOVING | Engine::DEAD | Engine::EMPTY) | None => State::Dead,
    }
}

/// The code in `Exited (137) 3 minutes ago`, the only place where a list has it.
fn exit_code(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code.parse());
    code.and_then(Result::ok).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_read_from_the_engines_status() {
        let check = |status: &str, expected: State| {
            assert_eq!(state(Some(ContainerSummaryStateEnum::EXITED), status), expected);
        };
        check("Exited (0) Less than a second ago", State::Exited(0));
        check("Exited (137) 3 minutes ago", State::Exited(137));
        check("nonsense", State::Exited(-1));
    }

    #[test]
    fn grace_is_rounded_up_to_whole_seconds() {
        assert_eq!(seconds(Millis(0)), 0);
        assert_eq!(seconds(Millis(1)), 1);
        assert_eq!(seconds(Millis::seconds(10)), 10);
    }
}
