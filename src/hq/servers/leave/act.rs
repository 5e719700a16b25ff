//! Looks whether a server can go, moves off it what can move, and lets it go clean.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Departure, Force, LET_GO};
use crate::db::{Guard, layout};
use crate::grid::Standing;
use crate::hq::fleet::Survey;
use crate::hq::progress::phase;
use crate::hq::servers::ServerError;
use crate::hq::servers::join::act::failed;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::world::World;
use crate::launch::{Proc, Step};
use crate::names::{ServerName, StackName};

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
        self.check_no_member(server)?;
        match force {
            Force::No => {
                self.check_unneeded(server).await?;
                let before = self.server_record(server).await?.standing;
                match self.remove_unneeded(server, say).await {
                    Err(needed @ HqError::Server(_)) => {
                        self.change_server(server, |record| record.standing = before).await?;
                        Err(needed)
                    }
                    removed => removed,
                }
            }
            Force::Yes => {
                let departure = self.begin_departure(server).await?;
                if !self.survey().await?.silent.contains_key(server) {
                    // What can move is not given up.
                    self.drain_server(server, say).await?;
                }
                self.rehome(server, say).await?;
                let survey = self.survey().await?;
                self.take_out(&departure, &survey, server, say).await
            }
        }
    }

    async fn remove_unneeded(self: &Arc<Self>, server: &ServerName, say: Say<'_>) -> Result<(), HqError> {
        let departure = self.begin_departure(server).await?;
        // A launch may have chosen it a moment ago; from now on none does.
        let survey = self.check_unneeded(server).await?;
        self.rehome(server, say).await?;
        self.take_out(&departure, &survey, server, say).await
    }

    /// From now on until the answer is dropped, the server takes no containers, whoever asks for that.
    ///
    /// # Errors
    /// [`ServerError::Leaving`] when somebody else takes it out; [`ServerError::NoServer`].
    pub(in crate::hq) async fn begin_departure(&self, server: &ServerName) -> Result<Departure<'_>, HqError> {
        let departure = self.leaving.begin(server).ok_or_else(|| ServerError::Leaving(server.clone()))?;
        self.change_server(server, |record| record.standing = Standing::Draining).await?;
        Ok(departure)
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
        _departure: &Departure<'_>,
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
            let lost = self.make_homeless(&stack, |home| home == server).await?;
            if !lost.is_empty() {
                say(&phase(&format!("{} of {stack} had its data on {server}; it begins anew", lost.join(", "))));
            }
        }
        Ok(())
    }

    /// What has its home on a server that was taken out begins anew: a launch may have kept it there until the end. Tells
    /// whether there was any.
    ///
    /// # Errors
    /// When the tree cannot be read or written.
    pub(in crate::hq) async fn free_from_former_servers(&self, world: &World) -> Result<bool, HqError> {
        let homes = world.procs.values().filter_map(|proc| proc.home.as_ref()).chain(world.data.values());
        let away: BTreeSet<&ServerName> = homes.filter(|home| self.engines().of(home).is_err()).collect();
        if away.is_empty() {
            return Ok(false);
        }
        // One whose record is damaged is one still.
        let known = self.db.names(layout::SERVERS).await?;
        let former = |home: &ServerName| away.contains(home) && !known.iter().any(|name| name == home.as_str());
        if !away.iter().any(|home| former(home)) {
            return Ok(false);
        }
        let lost = self.make_homeless(&world.stack, former).await?;
        tracing::warn!(stack = %world.stack, ?lost, "what was at home on a server that was taken out begins anew");
        Ok(true)
    }

    /// The nodes of a stack forget such a home; gives those whose data was there.
    async fn make_homeless(
        &self,
        stack: &StackName,
        leaves: impl Fn(&ServerName) -> bool,
    ) -> Result<Vec<String>, HqError> {
        let mut data = self.data(stack).await?;
        if data.values().any(&leaves) {
            data.retain(|_, home| !leaves(home));
            layout::put_json(&*self.db, &layout::data(stack), &data, Guard::Any).await?;
        }
        let mut lost = Vec::new();
        for proc in self.procs(stack).await?.into_iter().filter(|proc| proc.home.as_ref().is_some_and(&leaves)) {
            let kept_data = proc.is_fixed();
            let homeless = Proc { home: None, published: Vec::new(), ..proc };
            layout::put_json(&*self.db, &layout::proc(stack, &homeless.node), &homeless, Guard::Any).await?;
            lost.extend(kept_data.then(|| homeless.node.to_string()));
        }
        Ok(lost)
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
