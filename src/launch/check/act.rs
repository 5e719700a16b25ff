//! Waiting until a new container has come up, or has shown that it will not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Check, LISTEN, SERVICE_LISTEN, SETTLE, http};
use crate::docker::{Engine, EngineError, LogRequest, State};
use crate::launch::act::{LaunchError, Say};
use crate::launch::container::act::say_output;
use crate::launch::{Role, Step};
use crate::names::{ContainerName, NodeName};
use crate::stack::{Command, Health, Probe};
use crate::units::Millis;
use crate::units::port::Port;

/// The container an await step waits for.
pub struct Awaited<'a> {
    /// The engine it runs on.
    pub engine: &'a dyn Engine,
    /// Its name.
    pub container: &'a ContainerName,
    /// Its node, for the person.
    pub node: &'a NodeName,
    /// Its routed port.
    pub port: Option<u16>,
    /// Where that is published.
    pub published: Option<std::net::SocketAddr>,
    /// Ports that are published, with where: another server's containers are reached nowhere else.
    pub exposed: &'a [(Port, std::net::SocketAddr)],
    /// What it is for.
    pub role: Role,
}

/// Lines of a failed container's log that the pusher sees.
const LAST_LINES: u32 = 30;
/// First pause between two looks at a starting container.
const FIRST_POLL: Duration = Duration::from_millis(15);

impl<'a> Awaited<'a> {
    /// What such a step waits for; `None` when it is another one.
    pub fn of(step: &'a Step, engine: &'a dyn Engine) -> Option<Self> {
        match step {
            Step::Await { container, node, port, published, exposed, role, .. } => {
                let (port, published, role) = (*port, *published, *role);
                Some(Self { engine, container, node, port, published, exposed, role })
            }
            _ => None,
        }
    }
}

impl Awaited<'_> {
    /// Waits until the container shows what `check` asks; on failure its last lines are said first.
    ///
    /// # Errors
    /// Why it does not count as up.
    pub async fn wait_until_up(&self, check: &Check, say: Say<'_>) -> Result<(), LaunchError> {
        let up = tokio::select! {
            biased;
            died = self.death(self.container) => match died {
                Ok(code) => Err(LaunchError::Died { node: self.node.clone(), code }),
                Err(source) => Err(LaunchError::Engine { doing: format!("watch {}", self.container), source }),
            },
            up = self.up(check) => up,
        };
        if up.is_err() {
            self.say_last_lines(say).await;
        }
        up
    }

    /// Asks a container that has come up once more.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn is_well(&self, health: &Health) -> Result<(), String> {
        self.probe(health, None).await
    }

    /// Ends with the exit code when the container ends or falls into a restart.
    async fn death(&self, name: &ContainerName) -> Result<i64, EngineError> {
        match self.engine.container(name).await?.map(|found| found.state) {
            Some(State::Exited(code)) => Ok(code),
            Some(State::Restarting | State::Dead) | None => Ok(-1),
            Some(State::Created | State::Running | State::Paused) => self.engine.wait(name).await,
        }
    }

    async fn up(&self, check: &Check) -> Result<(), LaunchError> {
        match check {
            Check::Health(health) => self.healthy(health).await,
            Check::Settles => {
                sleep(SETTLE.duration()).await;
                if self.role == Role::Service && self.port.is_some() {
                    // A service may well listen elsewhere than its image says: late is told, not refused.
                    let _ = timeout(SERVICE_LISTEN.duration(), self.listening()).await;
                }
                Ok(())
            }
            Check::Listens => {
                let both = async { tokio::join!(sleep(SETTLE.duration()), self.listening()) };
                timeout(LISTEN.duration(), both).await.map(drop).map_err(|_| LaunchError::Deaf {
                    node: self.node.clone(),
                    port: self.port.unwrap_or_default(),
                    limit: LISTEN,
                })
            }
        }
    }

    async fn listening(&self) {
        loop {
            let address = match self.published {
                Some(address) => Some(address),
                None => self.inner_address(self.port.unwrap_or_default()).await,
            };
            if let Some(address) = address
                && http::listens(address, Duration::from_secs(1)).await
            {
                return;
            }
            sleep(FIRST_POLL).await;
        }
    }

    /// Where a container's own port can be reached from this server.
    async fn inner_address(&self, port: u16) -> Option<std::net::SocketAddr> {
        let found = self.engine.container(self.container).await.ok()??;
        found.addresses.values().next().map(|ip| std::net::SocketAddr::new(*ip, port))
    }

    /// Tries at first quickly, then at the check's interval, until it succeeds or the time to start is over.
    async fn healthy(&self, health: &Health) -> Result<(), LaunchError> {
        let began = Instant::now();
        let mut pause = FIRST_POLL;
        let mut failures = 0;
        loop {
            let what = match self.probe(health, Some(began)).await {
                Ok(()) => return Ok(()),
                Err(what) => what,
            };
            if began.elapsed() >= health.start.duration() {
                failures += 1;
            }
            if failures >= health.retries.max(1) {
                let limit = Millis(began.elapsed().as_millis() as u64);
                return Err(LaunchError::Sick { node: self.node.clone(), limit, what });
            }
            sleep(pause).await;
            pause = (pause * 2).min(health.interval.duration().max(FIRST_POLL));
        }
    }

    async fn probe(&self, health: &Health, began: Option<Instant>) -> Result<(), String> {
        match &health.probe {
            Probe::All(probes) => {
                for probe in probes {
                    self.ask(probe, health.timeout, began).await?;
                }
                Ok(())
            }
            probe => self.ask(probe, health.timeout, began).await,
        }
    }

    async fn ask(&self, probe: &Probe, timeout: Millis, began: Option<Instant>) -> Result<(), String> {
        let limit = timeout.duration();
        match probe {
            Probe::Http(path) => match http::status(self.address(None).await?, path, limit).await {
                Ok(200..=399) => Ok(()),
                Ok(code) => Err(format!("GET {path} answered {code}")),
                Err(error) => Err(format!("GET {path}: {error}")),
            },
            Probe::Page(page) => {
                let path = &page.path;
                match http::page(self.address(page.port).await?, page, limit).await {
                    Ok((200..=399, true)) => Ok(()),
                    Ok((200..=399, false)) => Err(format!("GET {path} answered without the text that is looked for")),
                    Ok((code, _)) => Err(format!("GET {path} answered {code}")),
                    Err(error) => Err(format!("GET {path}: {error}")),
                }
            }
            Probe::Tcp(port) => self.open(Some(*port), limit).await,
            Probe::Listening => self.open(None, limit).await,
            Probe::Uptime(up) if began.is_none_or(|began| began.elapsed() >= up.duration()) => Ok(()),
            Probe::Uptime(up) => Err(format!("it has not run for {up} yet")),
            Probe::Command(command) => self.succeeds(command, timeout).await,
            Probe::All(_) => Err("checks within checks are not asked".to_owned()),
        }
    }

    /// Where a port is reached; the routed one when none is named.
    async fn address(&self, port: Option<u16>) -> Result<std::net::SocketAddr, String> {
        let own = port.is_none_or(|port| self.port == Some(port));
        let named = self.exposed.iter().find(|(exposed, _)| Some(*exposed) == port.map(Port::tcp)).map(|(_, at)| *at);
        match named.or(self.published.filter(|_| own)) {
            Some(address) => Ok(address),
            None => {
                let port = port.or(self.port).unwrap_or_default();
                self.inner_address(port).await.ok_or_else(|| "it has no address".to_owned())
            }
        }
    }

    async fn open(&self, port: Option<u16>, limit: Duration) -> Result<(), String> {
        let address = self.address(port).await?;
        let shown = port.or(self.port).unwrap_or_default();
        if http::listens(address, limit).await { Ok(()) } else { Err(format!("port {shown} is closed")) }
    }

    async fn succeeds(&self, command: &Command, limit: Millis) -> Result<(), String> {
        let quiet = |_: &str| {};
        let words = command.words();
        match timeout(limit.duration(), self.engine.exec(self.container, &words, &quiet)).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(code)) => Err(format!("`{}` ended with {code}", words.join(" "))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("`{}` took longer than {limit}", words.join(" "))),
        }
    }

    async fn say_last_lines(&self, say: Say<'_>) {
        let request = LogRequest { tail: Some(LAST_LINES), follow: false, timestamps: false };
        if let Ok(output) = self.engine.logs(self.container, request).await {
            let told = AtomicBool::new(false);
            let under_a_title = |line: &str| {
                if !told.swap(true, Ordering::Relaxed) {
                    say(&format!("       last lines of {}:", self.node));
                }
                say(line);
            };
            // A log that does not end must not keep the answer from the pusher.
            let _ = timeout(Duration::from_secs(5), say_output(output, &under_a_title)).await;
        }
    }
}
