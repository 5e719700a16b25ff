//! Asks every server's engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Member, Memory, Seen, Survey};
use crate::docker::{Container, Engine, EngineError, Network};
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::names::ServerName;

/// How long a server is waited for that was silent the last time.
const MOMENT: Duration = Duration::from_secs(1);

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
            // Of its own: one that comes back late is heard, although nobody waits for it any more.
            let asking = tokio::spawn(ask(self.memory.clone(), server.clone(), engine));
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
                    let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
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
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.silent.get(server).filter(|_| server != self.engines().here()).cloned()
    }
}

/// No answer.
struct Silence {
    why: String,
    error: Option<EngineError>,
}

async fn ask(
    memory: Arc<Mutex<Memory>>,
    server: ServerName,
    engine: Arc<dyn Engine>,
) -> Result<(Vec<Container>, Vec<Network>), Silence> {
    let answer = tokio::try_join!(engine.containers(label::HQ), engine.networks(label::HQ));
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Ok((containers, networks)) => {
            memory.silent.remove(&server);
            memory.containers.insert(server, containers.clone());
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
