//! The agent at work: hears docker, HQ and the clock, asks [`Mind`], does what it says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::deaths::{self, Deaths};
use super::files::{self, Home};
use super::http::Service;
use super::mind::{Action, Event, Mind, Ticket};
use super::ward::act::Ward;
use super::{AgentError, Applied, Config, Routing, Turn, Vitals, stats, vitals};
use crate::docker::{Engine, EngineError};
use crate::embassy::{Legacy, PortCounts, Table};
use crate::router::StackRoutes;
use crate::router::edge::{Edge, Tally};

/// How often the machine is measured. HQ hears from the agent this often, too.
const MEASURE: Duration = Duration::from_secs(1);

/// How often what stands is compared with what should.
const LOOK: Duration = Duration::from_secs(10);

/// Docker's containers are listed this often even if nothing is heard of them: an event may get lost.
const LIST: Duration = Duration::from_secs(10);

/// How soon docker is asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// How long docker may think about a list.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events that happen so close together are one change.
const SETTLE: Duration = Duration::from_millis(20);

/// Events that wait for the agent.
const WAITING: usize = 256;

/// A running agent, as those who ask it know it.
pub struct Host {
    events: mpsc::Sender<Event>,
    tickets: Mutex<Tickets>,
    vitals: watch::Sender<Option<Vitals>>,
    ward: Ward,
}

#[derive(Default)]
struct Tickets {
    last: Ticket,
    configurations: BTreeMap<Ticket, oneshot::Sender<Result<Applied, AgentError>>>,
    changes: BTreeMap<Ticket, oneshot::Sender<Result<(), AgentError>>>,
}

/// Runs the agent that lives in this folder, with what the program before it has `left`, until it is to be `renewed`;
/// what it leaves then.
///
/// # Errors
/// The socket cannot be made, or fails.
pub async fn run(
    home: Home,
    engine: Arc<dyn Engine>,
    places: Places,
    left: Option<Legacy>,
    renewed: impl Future<Output = ()>,
) -> Result<Option<Legacy>, files::FolderError> {
    let listener = home.listen()?;
    let folder = home.folder().to_owned();
    let kept = files::kept(&folder).unwrap_or_else(|error| {
        tracing::error!(%error, "what HQ wanted last is damaged; the agent waits to be told again");
        None
    });
    let (events, inbox) = mpsc::channel(WAITING);
    let host = Arc::new(Host {
        events,
        tickets: Mutex::default(),
        vitals: watch::Sender::new(None),
        ward: Ward::new(&folder, places.hosts, &places.own, left),
    });
    let (label, labels) = watch::channel(None);
    tokio::spawn(host.clone().measure());
    tokio::spawn(host.clone().observe(engine, labels));
    tokio::spawn(super::http::serve(listener, host.clone()));
    tracing::info!(folder = %folder.display(), "the agent is ready");
    tokio::select! {
        () = host.attend(kept, inbox, label) => {}
        () = renewed => {}
    }
    let left = host.ward.leave().await;
    drop(home);
    Ok(left)
}

/// Where an agent finds what it looks after.
#[derive(Debug, Clone)]
pub struct Places {
    /// The machine's hosts file.
    pub hosts: PathBuf,
    /// Folders that are closed to config files, beside the agent's own.
    pub own: Vec<PathBuf>,
}

impl Host {
    async fn attend(
        self: &Arc<Self>,
        kept: Option<Config>,
        mut inbox: mpsc::Receiver<Event>,
        label: watch::Sender<Option<String>>,
    ) {
        let (mut mind, first) = Mind::new(env!("CARGO_PKG_VERSION"), kept);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, and has just been taken.
        looks.tick().await;
        let mut actions = first;
        loop {
            label.send_if_modified(|now| {
                let is_new = now.as_deref() != mind.label();
                *now = mind.label().map(str::to_owned);
                is_new
            });
            for action in actions {
                self.perform(action);
            }
            let event = tokio::select! {
                event = inbox.recv() => event.expect("the agent itself holds a sender"),
                _ = looks.tick() => Event::Look,
            };
            actions = mind.decide(event);
        }
    }

    fn perform(self: &Arc<Self>, action: Action) {
        match action {
            Action::Apply(ticket, config, how) => {
                let host = self.clone();
                tokio::spawn(async move {
                    let applied = host.ward.apply(&config, how).await;
                    let standing = host.ward.standing().await;
                    host.tell(Event::Stands(standing)).await;
                    host.tell(Event::Applied(ticket, applied)).await;
                });
            }
            Action::Route(ticket, turn, routing) => {
                let host = self.clone();
                tokio::spawn(async move {
                    let routed = host.ward.route(&routing).await;
                    host.tell(Event::Routed(ticket, turn, routed)).await;
                });
            }
            Action::Expose(ticket, table) => {
                let host = self.clone();
                tokio::spawn(async move {
                    let exposed = host.ward.expose(table).await;
                    host.tell(Event::Exposed(ticket, exposed)).await;
                });
            }
            // Whoever has hung up needs no answer.
            Action::Answer(ticket, answer) => {
                let asked = self.tickets().configurations.remove(&ticket);
                let _ = asked.map(|asked| asked.send(answer));
            }
            Action::AnswerChange(ticket, answer) => {
                let asked = self.tickets().changes.remove(&ticket);
                let _ = asked.map(|asked| asked.send(answer));
            }
            Action::Show(vitals) => drop(self.vitals.send_replace(Some(vitals))),
        }
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question's number, and where its answer comes.
    fn ticket<T>(
        &self,
        of: impl FnOnce(&mut Tickets) -> &mut BTreeMap<Ticket, oneshot::Sender<T>>,
    ) -> (Ticket, oneshot::Receiver<T>) {
        let (answer, answered) = oneshot::channel();
        let mut tickets = self.tickets();
        tickets.last += 1;
        let ticket = tickets.last;
        of(&mut tickets).insert(ticket, answer);
        (ticket, answered)
    }

    async fn tell(&self, event: Event) {
        // The loop ends with the program.
        let _ = self.events.send(event).await;
    }

    async fn measure(self: Arc<Self>) {
        let digest = tokio::task::spawn_blocking(|| stats::digest(std::path::Path::new("/proc/self/exe")));
        match digest.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(digest) => self.tell(Event::Program(digest)).await,
            Err(error) => tracing::warn!(%error, "the agent cannot read its own program"),
        }
        let mut ticks = interval(MEASURE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let measured = tokio::task::spawn_blocking(stats::measure).await;
            self.tell(Event::Machine(measured.unwrap_or_default())).await;
        }
    }

    /// Tells of HQ's containers whenever one changes.
    async fn observe(self: Arc<Self>, engine: Arc<dyn Engine>, mut labels: watch::Receiver<Option<String>>) {
        loop {
            let label = labels.borrow_and_update().clone();
            let watching = watch_docker(&self, &*engine, label.as_deref());
            let why = tokio::select! {
                Err(error) = watching => error.to_string(),
                _ = labels.changed() => continue,
            };
            self.tell(Event::Docker(vitals::Docker::Silent(why))).await;
            sleep(AGAIN).await;
        }
    }
}

/// Lists at once, after each event, and now and then; a death is told before that.
async fn watch_docker(
    host: &Host,
    engine: &dyn Engine,
    label: Option<&str>,
) -> Result<std::convert::Infallible, EngineError> {
    // Events first: what happens after the list is not missed.
    let (mut events, mut deaths) = (engine.events().await?, Deaths::default());
    loop {
        let mut containers = match label {
            Some(label) => list(engine, label).await?,
            None => engine.version().await.map(|_| Vec::new())?,
        };
        deaths.correct(&mut containers, Instant::now());
        host.tell(Event::Docker(vitals::Docker::Answers(containers.clone()))).await;
        let pause = if deaths.are_recent() { deaths::AGAIN } else { LIST };
        if let Ok(event) = timeout(pause, events.next()).await {
            match event {
                Some(event) => deaths.hear(&event?, Instant::now()),
                None => return Err(late()),
            }
            // Who has died gets nobody new from this instant on; the rest takes a look at docker.
            if deaths.correct(&mut containers, Instant::now()) {
                host.tell(Event::Docker(vitals::Docker::Answers(containers))).await;
            }
            sleep(SETTLE).await;
            // What has come in the meantime is in the next list.
            while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
                deaths.hear(&event?, Instant::now());
            }
        }
    }
}

async fn list(engine: &dyn Engine, label: &str) -> Result<Vec<crate::docker::Container>, EngineError> {
    timeout(PATIENCE, engine.containers(label)).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> EngineError {
    EngineError::Unreachable { engine: "docker".to_owned(), source: "it has gone silent".into() }
}

#[async_trait::async_trait]
impl Service for Host {
    async fn configure(&self, config: Config) -> Result<Applied, AgentError> {
        let (ticket, answered) = self.ticket(|tickets| &mut tickets.configurations);
        self.tell(Event::Configure(ticket, config.into())).await;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    async fn route(&self, turn: Turn, routing: Routing) -> Result<(), AgentError> {
        let (ticket, answered) = self.ticket(|tickets| &mut tickets.changes);
        self.tell(Event::Route(ticket, turn, routing)).await;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    async fn expose(&self, turn: Turn, table: Table) -> Result<(), AgentError> {
        let (ticket, answered) = self.ticket(|tickets| &mut tickets.changes);
        self.tell(Event::Expose(ticket, turn, table)).await;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    async fn ports(&self) -> Result<Vec<PortCounts>, AgentError> {
        Ok(self.ward.ports())
    }

    async fn confirm(&self, trial: &str) -> Result<(), AgentError> {
        let confirmed = self.ward.confirm(trial).await;
        self.tell(Event::Stands(self.ward.standing().await)).await;
        confirmed
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, AgentError> {
        Ok(self.ward.edge()?.tables().await.map_err(|error| AgentError::Router(error.to_string()))?)
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError> {
        self.ward.in_flight(peer).await
    }

    async fn tallies(&self) -> Result<Vec<Tally>, AgentError> {
        Ok(self.ward.edge()?.tallies().await.map_err(|error| AgentError::Router(error.to_string()))?)
    }

    fn vitals(&self) -> watch::Receiver<Option<Vitals>> {
        self.vitals.subscribe()
    }
}

fn ending() -> AgentError {
    AgentError::Disk("the agent ends".to_owned())
}
