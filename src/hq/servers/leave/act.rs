//! Looks whether a server can go, moves off it what can move, and lets it go clean.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Force, LET_GO};
use crate::db::{Guard, layout};
use crate::grid::Standing;
use crate::hq::fleet::Survey;
use crate::hq::progress::phase;
use crate::hq::servers::ServerError;
use crate::hq::servers::join::act::failed;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::{Proc, Step};
use crate::names::ServerName;

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(10);

impl Hq {
    /// Takes a server out of the grid. With `force` what cannot move from there is given up, and what only was there
    /// begins anew elsewhere.
    ///
    /// # Errors
    /// As [`Hq::check_unneeded`] without force.
    pub async fn remove_server(
        self: &Arc<Self>,
        server: &ServerName,
        force: Force,
        say: Say<'_>,
    ) -> Result<(), HqError> {
        self.check_awake()?;
        if server == self.engines().here() {
            return Err(ServerError::Own.into());
        }
        let before = self.server_record(server).await?.standing;
        self.check_no_member(server)?;
        let survey = match force {
            Force::No => {
                self.check_unneeded(server).await?;
                // A launch may have chosen it a moment ago; from now on none does.
                self.change_server(server, |record| record.standing = Standing::Draining).await?;
                match self.check_unneeded(server).await {
                    Ok(survey) => survey,
                    Err(needed) => {
                        self.change_server(server, |record| record.standing = before).await?;
                        return Err(needed);
                    }
                }
            }
            Force::Yes => {
                match self.survey().await?.silent.contains_key(server) {
                    true => drop(self.change_server(server, |record| record.standing = Standing::Draining).await?),
                    // What can move is not given up.
                    false => drop(self.drain_server(server, say).await?),
                }
                self.survey().await?
            }
        };
        self.rehome(server, say).await?;
        self.take_out(&survey, server, say).await
    }

    /// Whether a server could be taken out without anything being lost; gives what was seen then.
    ///
    /// # Errors
    /// [`ServerError::Claimed`], [`ServerError::Busy`], [`ServerError::Silent`] or [`ServerError::Keeps`] when not.
    pub(in crate::hq) async fn check_unneeded(&self, server: &ServerName) -> Result<Survey, HqError> {
        let server = server.clone();
        // What a launch is about to make shows in its claims first, then in the containers.
        if self.planning.lock().await.reaches(&server) {
            return Err(ServerError::Claimed(server).into());
        }
        let survey = self.survey().await?;
        let containers = self.own_containers(&survey, &server);
        if !containers.is_empty() {
            return Err(ServerError::Busy { server, containers }.into());
        }
        if survey.silent.contains_key(&server) {
            return Err(ServerError::Silent(server).into());
        }
        // Data of nodes that rest, or have ended and may come back.
        match self.homes().await?.remove(&server) {
            Some(nodes) => Err(ServerError::Keeps { server, nodes: nodes.into_iter().collect() }.into()),
            None => Ok(survey),
        }
    }

    /// Takes a server out that nothing has its home on any more. Waits for no stack's turn.
    ///
    /// # Errors
    /// When the tree cannot be written.
    pub(in crate::hq) async fn take_out(
        self: &Arc<Self>,
        survey: &Survey,
        server: &ServerName,
        say: Say<'_>,
    ) -> Result<(), HqError> {
        if let Err(error) = self.leave_clean(survey, server).await {
            tracing::warn!(%server, error = ?error, "a server that was removed keeps something of quarry's");
            say(&phase(&format!("{server} keeps what quarry has there: {error}")));
        }
        let alone = self.records.lock().await;
        // First what says that it is HQ's: a restart in between must not bring it back without its record.
        self.db.delete_under(&layout::server(server)).await?;
        self.let_go(server);
        drop(alone);
        for stack in self.known_stacks().await? {
            if let Err(error) = self.heal(&stack).await {
                tracing::warn!(%stack, error = ?error, "a stack could not be healed after the loss of a server");
                say(&phase(&format!("{stack} cannot be completed now: {error}")));
            }
        }
        Ok(())
    }

    fn let_go(&self, server: &ServerName) {
        self.engines().remove(server);
        self.lines.remove(server);
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(server);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.containers.remove(server);
        memory.silent.remove(server);
        self.fleet_changed.notify_one();
    }

    /// What could not move from a server begins anew on another one.
    pub(in crate::hq) async fn rehome(self: &Arc<Self>, server: &ServerName, say: Say<'_>) -> Result<(), HqError> {
        for stack in self.known_stacks().await? {
            let _turn = self.turn(&stack, format!("the removal of {server}"), say).await;
            let mut data = self.data(&stack).await?;
            if data.values().any(|home| home == server) {
                data.retain(|_, home| home != server);
                layout::put_json(&*self.db, &layout::data(&stack), &data, Guard::Any).await?;
            }
            let mut lost = Vec::new();
            for proc in self.procs(&stack).await?.into_iter().filter(|proc| proc.home.as_ref() == Some(server)) {
                let kept_data = proc.is_fixed();
                let homeless = Proc { home: None, published: Vec::new(), ..proc };
                layout::put_json(&*self.db, &layout::proc(&stack, &homeless.node), &homeless, Guard::Any).await?;
                lost.extend(kept_data.then(|| homeless.node.to_string()));
            }
            if !lost.is_empty() {
                say(&phase(&format!("{} of {stack} had its data on {server}; it begins anew", lost.join(", "))));
            }
        }
        Ok(())
    }

    /// What quarry has on a server that leaves goes: containers that were given up, networks, HQ's key.
    async fn leave_clean(&self, survey: &Survey, server: &ServerName) -> Result<(), HqError> {
        if survey.silent.contains_key(server) {
            return Err(ServerError::Silent(server.clone()).into());
        }
        for stack in self.known_stacks().await? {
            let network = self.launcher.identity.network(&stack);
            self.launcher.perform(&stack, &Step::Sweep { server: server.clone(), network }, &|_| {}).await?;
        }
        let key = format!("{}\n", self.server_key().await?.authorized_key());
        if let Err(error) = self.dismiss_agent(server).await {
            tracing::warn!(%server, error = ?error, "the agent of a server that was removed runs on");
        }
        let link = self.lines.of(server)?.link().await.map_err(ServerError::Link)?;
        let done = link.exec(&["sh", "-c", LET_GO], key.as_bytes(), FAREWELL).await.map_err(ServerError::Link)?;
        if done.code == 0 { Ok(()) } else { Err(failed(link.address(), "take HQ's key away", &done.stderr).into()) }
    }
}
