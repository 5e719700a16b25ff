//! Asks every server's engine.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use futures_util::future::join_all;

use super::{Member, Seen, Survey};
use crate::docker::{Container, EngineError, Network};
use crate::hq::{Hq, HqError};
use crate::launch::label;
use crate::names::ServerName;

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
    /// last.
    ///
    /// # Errors
    /// When HQ's own engine does not answer.
    pub async fn survey(&self) -> Result<Survey, HqError> {
        let asked = self.engines().all().into_iter().map(|(server, engine)| async move {
            let containers = engine.containers(label::HQ);
            let networks = engine.networks(label::HQ);
            (server, tokio::try_join!(containers, networks))
        });
        let mut survey = Survey::default();
        for (server, answer) in join_all(asked).await {
            self.note(&mut survey, server, answer)?;
        }
        Ok(survey)
    }

    fn note(
        &self,
        survey: &mut Survey,
        server: ServerName,
        answer: Result<(Vec<Container>, Vec<Network>), EngineError>,
    ) -> Result<(), HqError> {
        let mut last = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let containers = match answer {
            Ok((containers, networks)) => {
                survey.networks.insert(server.clone(), networks);
                last.insert(server.clone(), containers.clone());
                containers
            }
            Err(error) if server == *self.engines().here() => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%server, %error, "the server does not answer");
                survey.silent.insert(server.clone());
                last.get(&server).cloned().unwrap_or_default()
            }
        };
        let seen = |container| Seen { server: server.clone(), container };
        survey.containers.extend(containers.into_iter().map(seen));
        Ok(())
    }
}
