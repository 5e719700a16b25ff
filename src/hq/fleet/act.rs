//! Asks every server's engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::presence::{Presence, Signs};
use super::{Member, Memory, Seen, Survey};
use crate::docker::{Container, Engine, EngineError, Network};
use crate::hq::agents::Agents;
use crate::hq::{Hq, HqError};
use crate::launch::{Plan, Step, label};
use crate::names::{ServerName, StackName};
use crate::servers::ssh::State;

/// How long a server is waited for that was silent the last time.
const MOMENT: Duration = Duration::from_secs(1);
/// Pause between two looks at the servers' signs of life.
const LOOK: Duration = Duration::from_millis(500);

impl Hq {
    /// What HQ knows of each server.
    pub fn members(&self) -> BTreeMap<ServerName, Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every container of this HQ with its server.
    ///
    /// # Errors
    /// When HQ's own engine does not answer.
    pub async fn containers(&self) -> Result<Vec<Seen>, HqError> {
        Ok(self.survey().await?.containers)
    }

    /// Asks all engines at once. A server that does not answer holds up nobody: its containers count as they were seen
    /// last, and until it has answered again nobody waits for it for longer than a moment.
    ///
    /// # Errors
    /// When HQ's own engine does not answer.
    pub async fn survey(&self) -> Result<Survey, HqError> {
        let asked = self.engines().all().into_iter().map(|(server, engine)| async move {
            let known = self.remembered(&server);
            if let (Some(why), Presence::Gone) = (&known, self.presence(&server)) {
                return (server, Err(Silence { why: why.clone(), error: None }));
            }
            // Of its own: one that comes back late is heard, although nobody waits for it any more.
            let asking = tokio::spawn(ask(self.memory.clone(), self.agents.clone(), server.clone(), engine));
            let answer = match known {
                None => asking.await,
                Some(why) => match timeout(MOMENT, asking).await {
                    Ok(answer) => answer,
                    Err(_) => return (server, Err(Silence { why, error: None })),
                },
            };
            (server, answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
        });
        let mut survey = Survey::default();
        for (server, answer) in join_all(asked).await {
            let containers = match answer {
                Ok((containers, networks)) => {
                    survey.networks.insert(server.clone(), networks);
                    containers
                }
                Err(Silence { error: Some(error), .. }) if server == *self.engines().here() => return Err(error.into()),
                Err(Silence { why, .. }) => {
                    survey.silent.insert(server.clone(), why);
                    let memory = self.memory();
                    if memory.presence.get(&server) == Some(&Presence::Gone) {
                        survey.gone.insert(server.clone());
                    }
                    memory.containers.get(&server).cloned().unwrap_or_default()
                }
            };
            let seen = |container| Seen { server: server.clone(), container };
            survey.containers.extend(containers.into_iter().map(seen));
        }
        Ok(survey)
    }

    /// Why a server was silent the last time. HQ's own is always waited for.
    pub(in crate::hq) fn remembered(&self, server: &ServerName) -> Option<String> {
        self.memory().silent.get(server).filter(|_| server != self.engines().here()).cloned()
    }

    /// The networks of this HQ's and other HQs' stacks on each server, as its engine last told them.
    pub(in crate::hq) fn known_networks(&self) -> BTreeMap<ServerName, Vec<Network>> {
        self.memory().networks.clone()
    }

    /// The networks that a launch has made on servers whose others are known: nobody else tells of them until those
    /// servers are asked again.
    pub(in crate::hq) fn note_networks(&self, stack: &StackName, plan: &Plan) {
        let mut memory = self.memory();
        for step in plan.revocable() {
            if let Step::Network { server, name, subnet } = step
                && let Some(known) = memory.networks.get_mut(server)
            {
                known.retain(|network| network.name != *name);
                known.push(self.launcher.identity.labelled(stack, name, subnet));
            }
        }
    }

    /// Whether some server has not said yet what it runs, since this HQ began, and is not taken for lost either.
    pub fn knows_too_little(&self) -> bool {
        let memory = self.memory();
        let unheard = |server: &ServerName| {
            !memory.containers.contains_key(server) && memory.presence.get(server) != Some(&Presence::Gone)
        };
        self.engines().all().iter().any(|(server, _)| unheard(server))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a server stands with HQ.
    pub fn presence(&self, server: &ServerName) -> Presence {
        self.memory().presence.get(server).copied().unwrap_or_default()
    }

    /// Servers that are back, and may still run what has moved elsewhere.
    pub fn returning(&self) -> Vec<ServerName> {
        let memory = self.memory();
        let returning = memory.presence.iter().filter(|(_, presence)| **presence == Presence::Returning);
        returning.map(|(server, _)| server.clone()).collect()
    }

    /// Concludes how a server stands, and has everything looked at when that has changed.
    pub fn note_signs(&self, server: &ServerName, signs: Signs) {
        let before = self.presence(server);
        let after = before.after(signs, self.settings.lease.duration());
        self.note_presence(server, before, after);
    }

    /// Nothing is left on a server that should be elsewhere.
    pub fn welcome(&self, server: &ServerName) {
        let before = self.presence(server);
        self.note_presence(server, before, before.welcomed());
    }

    fn note_presence(&self, server: &ServerName, before: Presence, after: Presence) {
        if before == after {
            return;
        }
        let mut memory = self.memory();
        memory.presence.insert(server.clone(), after);
        match after {
            Presence::Up => tracing::info!(%server, "the server counts"),
            Presence::Suspect => tracing::warn!(%server, "the server is not heard from"),
            Presence::Gone => {
                memory.silent.entry(server.clone()).or_insert_with(|| "it is lost".to_owned());
                tracing::error!(%server, "the server is lost; what can run elsewhere is started there");
            }
            Presence::Returning => tracing::info!(%server, "the server is back"),
        }
        drop(memory);
        if !matches!((before, after), (Presence::Up, Presence::Suspect) | (Presence::Suspect, Presence::Up)) {
            self.fleet_changed.notify_one();
        }
    }

    /// Notes which servers are heard from, until the process ends.
    pub async fn watch_servers(self: Arc<Self>) {
        let told = self.agents.voices();
        loop {
            for server in self.members().into_keys() {
                let Ok(line) = self.lines.of(&server) else { continue };
                let silent = match &*line.state().borrow() {
                    State::Up => None,
                    State::Connecting => Some(Duration::ZERO),
                    State::Down { since, .. } => Some(since.elapsed()),
                };
                let told = told.borrow().get(&server).copied();
                self.note_signs(&server, Signs { silent, told });
            }
            sleep(LOOK).await;
        }
    }
}

/// No answer.
struct Silence {
    why: String,
    error: Option<EngineError>,
}

async fn ask(
    memory: Arc<Mutex<Memory>>,
    agents: Agents,
    server: ServerName,
    engine: Arc<dyn Engine>,
) -> Result<(Vec<Container>, Vec<Network>), Silence> {
    let answer = tokio::try_join!(engine.containers(label::HQ), engine.networks(label::HQ));
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Ok((containers, networks)) => {
            memory.silent.remove(&server);
            memory.containers.insert(server.clone(), containers.clone());
            // What containers may reach goes by their networks.
            if memory.networks.get(&server) != Some(&networks) {
                memory.networks.insert(server, networks.clone());
                agents.wish();
            }
            Ok((containers, networks))
        }
        Err(error) => {
            let why = told(&error);
            tracing::debug!(%server, why, "the server does not answer");
            memory.silent.insert(server, why.clone());
            Err(Silence { why, error: Some(error) })
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
