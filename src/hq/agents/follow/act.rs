//! Follows one agent: listens, brings it (back) to its server, tells it what its server should be, and says how it
//! stands. Three tasks, so that none of it ever waits for the rest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::agent::files::FOLDER;
use crate::agent::http::{Client, Way};
use crate::agent::ssh::{Came, Routes, install};
use crate::agent::vitals::Docker;
use crate::agent::{AgentError, Routing, Vitals, process};
use crate::db::Db;
use crate::hq::agents::wanted::Wanted;
use crate::hq::agents::{Agents, Pulse, Remote, Ssh, Voice, scribe};
use crate::names::ServerName;
use crate::router::edge::Edge;
use crate::router::tls::TlsChange;
use crate::servers::ssh::{Line, State};

/// Before an agent that is not heard is listened to again.
const AGAIN: Duration = Duration::from_millis(500);

/// Between two tries to bring the agent to a server that HQ reaches.
const BRING: Duration = Duration::from_secs(20);

/// Before an agent that could not be told everything is told again.
const RETRY: Duration = Duration::from_secs(5);

/// Before rules that kept HQ out are tried again.
const RULES: Duration = Duration::from_secs(120);

/// How often it is looked at how a server stands.
const LOOK: Duration = Duration::from_millis(250);

/// One server and its agent.
pub struct Follower {
    /// Which server.
    pub server: ServerName,
    /// The way to it; `None` for HQ's own.
    pub line: Option<Arc<Line>>,
    /// Its agent.
    pub remote: Arc<Remote>,
    /// All agents.
    pub agents: Agents,
    /// The state.
    pub db: Arc<dyn Db>,
    /// HQ's own router, whose tables count.
    pub edge: Option<Arc<dyn Edge>>,
    /// What servers should be, as that changes.
    pub wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// How long a silent server is waited for.
    pub lease: Duration,
    /// Someone has to be told something.
    pub due: Arc<Notify>,
    /// Whether HQ brings the agent to its server.
    pub brings: bool,
}

/// The agent at the end of a line, or on HQ's own server, where it lives in `own`.
pub fn client(line: Option<&Arc<Line>>, own: &Path) -> Client {
    let way = match line {
        Some(line) => Way::Line(line.clone()),
        None => return Client::new(Way::Here, own),
    };
    Client::new(way, Path::new(FOLDER))
}

impl Follower {
    /// Follows until the server leaves; then nothing that was written of it is left.
    pub async fn follow(self) {
        let (tell, told) = watch::channel(None);
        let heard = told.clone();
        let follow = async {
            let tell = tell;
            tokio::select! {
                ((), (), ()) = async { tokio::join!(self.listen(&tell), self.judge(heard), self.instruct()) } => {}
                () = self.remote.leaving.cancelled() => {}
            }
        };
        tokio::join!(follow, scribe::act::write(&*self.db, &self.server, self.lease, told));
        self.remote.left.cancel();
    }

    /// Hears the agent, and brings it where it does not answer although its server is reached.
    async fn listen(&self, tell: &watch::Sender<Option<Vitals>>) {
        let mut brought: Option<Instant> = None;
        loop {
            let why = match self.remote.agent().vitals().await {
                Ok(mut vitals) => {
                    // Whatever it was told before the way to it broke may not have reached it.
                    self.remote.fall_behind();
                    self.due.notify_one();
                    loop {
                        match vitals.next().await {
                            Some(Ok(vitals)) => self.hear(vitals, tell, &mut brought).await,
                            Some(Err(error)) => break error,
                            None => {
                                break AgentError::Away { place: self.server.to_string(), why: "it hung up".into() };
                            }
                        }
                    }
                }
                Err(error) => error,
            };
            tracing::debug!(server = %self.server, %why, "the agent is not heard");
            self.remote.fall_behind();
            if self.brings && self.ssh() == Ssh::Works && brought.is_none_or(|last| last.elapsed() >= BRING) {
                brought = Some(Instant::now());
                self.bring().await;
            }
            sleep(AGAIN).await;
        }
    }

    async fn hear(&self, vitals: Vitals, tell: &watch::Sender<Option<Vitals>>, brought: &mut Option<Instant>) {
        let program = vitals.program.clone();
        let mut is_new = false;
        self.remote.note(|state| {
            if let Docker::Answers(now) = &vitals.docker
                && state.containers.as_deref() != Some(now)
            {
                (is_new, state.containers) = (true, Some(Arc::new(now.clone())));
            }
            state.vitals = Some(vitals.clone());
        });
        if is_new {
            self.agents.stir();
        }
        tell.send_replace(Some(vitals));
        // An agent of an earlier HQ goes on as this one's.
        if self.brings
            && !program.is_empty()
            && brought.is_none_or(|last| last.elapsed() >= BRING)
            && self.agents.program().await.is_ok_and(|own| own.digest() != program)
        {
            *brought = Some(Instant::now());
            self.bring().await;
        }
    }

    async fn bring(&self) {
        let routes = if self.routes() { Routes::Yes } else { Routes::No };
        let brought = match (self.agents.program().await, &self.line) {
            (Ok(program), Some(line)) => install(line, program, FOLDER, routes).await,
            (Ok(program), None) => process::install(program, FOLDER).await,
            (Err(error), _) => Err(error),
        };
        match brought {
            Ok(Came::Runs) => {}
            Ok(came) => tracing::info!(server = %self.server, ?came, "the agent runs"),
            Err(error) => tracing::warn!(server = %self.server, error = ?error, "the server has no agent: {error}"),
        }
    }

    fn routes(&self) -> bool {
        self.wanted.borrow().as_ref().is_some_and(|wanted| wanted.routes(&self.server))
    }

    fn ssh(&self) -> Ssh {
        match &self.line {
            None => Ssh::Works,
            Some(line) => match &*line.state().borrow() {
                State::Up => Ssh::Works,
                State::Connecting | State::Down { .. } => Ssh::Fails,
            },
        }
    }

    /// Says how the server stands.
    async fn judge(&self, mut told: watch::Receiver<Option<Vitals>>) {
        let mut pulse = Pulse::begin(Instant::now(), self.lease);
        loop {
            if let Ok(Ok(())) = timeout(LOOK, told.changed()).await
                && told.borrow_and_update().is_some()
            {
                pulse.heard(Instant::now());
            }
            let now = pulse.at(Instant::now(), self.ssh());
            let before = self.agents.note(&self.server, now);
            if before != Some(now) {
                self.agents.stir();
            }
            match (before, now) {
                (Some(before), now) if before == now => {}
                (_, Voice::Up) => tracing::info!(server = %self.server, "the server is there"),
                (None, Voice::Suspect) => {}
                (_, Voice::Suspect) => tracing::warn!(server = %self.server, "the server has fallen silent"),
                (_, Voice::Gone) => tracing::error!(server = %self.server, "the server is gone"),
            }
        }
    }

    /// Tells the agent what its server should be, whenever that changes or it may not know.
    async fn instruct(&self) {
        let mut wanted = self.wanted.clone();
        loop {
            let now = wanted.borrow_and_update().clone();
            let again = match now {
                Some(now) => self.tell(&now).await,
                None => None,
            };
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.due.notified() => {}
                () = pause(again) => {}
            }
        }
    }

    /// Tells everything once; when to try again what did not work.
    async fn tell(&self, wanted: &Wanted) -> Option<Duration> {
        let routes = wanted.routes(&self.server);
        let hq = wanted.router_of_hq();
        self.remote.note(|state| state.router = hq.filter(|_| routes));
        match self.remote.configure(|turn| self.agents.config(&self.server, turn)).await {
            Ok(applied) => {
                self.agents.stir();
                for (part, why) in &applied.failed {
                    tracing::warn!(server = %self.server, ?part, why, "a server is not yet what it should be");
                }
            }
            // It is told when it is heard again.
            Err(AgentError::Away { .. }) => return Some(RETRY),
            Err(error @ AgentError::Trial(_)) => {
                tracing::error!(server = %self.server, %error, "new rules kept HQ out; those before are back");
                return Some(RULES);
            }
            Err(error) => {
                tracing::warn!(server = %self.server, %error, "the agent does not take what it is told");
                return Some(RETRY);
            }
        }
        if !routes {
            return None;
        }
        let edge = self.edge.as_ref()?;
        let all = async || {
            let tables = edge.tables().await.map(Routing::All)?;
            let tables = match hq {
                Some(hq) => super::super::routers::routing_from_afar(&tables, hq),
                None => tables,
            };
            let tls = edge.secured().await.map(TlsChange::All).map(Routing::Tls)?;
            Ok::<_, crate::router::edge::EdgeError>(vec![tables, tls])
        };
        match self.remote.catch_up(all).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(server = %self.server, %error, "a router does not take the tables");
                Some(RETRY)
            }
        }
    }
}

/// Waits so long, or for ever.
async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}
