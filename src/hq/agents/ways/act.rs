//! Sees to it that servers know the ways of containers before these run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::Known;
use crate::agent::AgentError;
use crate::db::{DbError, layout};
use crate::hq::Hq;
use crate::hq::agents::wanted::Wanted;
use crate::hq::progress::detail;
use crate::launch::act::Say;
use crate::launch::journal::Journal;
use crate::launch::{Plan, Proc, Step};
use crate::names::ServerName;
use crate::network::act::build;
use crate::network::nft::NftError;
use crate::network::wall::Way;

/// How long a launch waits for the servers it makes containers on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before an agent is asked again that is not there, or not yet.
const AGAIN: Duration = Duration::from_millis(200);

impl Hq {
    /// What the containers of each server reach on others, those of launches under way included.
    ///
    /// # Errors
    /// When the tree cannot be read. What is damaged is a person's to mend, and leads nowhere.
    pub(in crate::hq::agents) async fn ways(&self) -> Result<BTreeMap<ServerName, BTreeSet<Way>>, DbError> {
        let mut known = Known::default();
        for (server, networks) in self.known_networks() {
            known.server(&server, &networks, &self.launcher.identity);
        }
        // Journals first: what a launch has been committed meanwhile to is in its procs.
        for entry in layout::all(&*self.db, layout::JOURNALS).await? {
            let journal = layout::parse_json::<Journal>(&*self.db, &entry).ok();
            if let (Some(stack), Some(active)) =
                (layout::stack_of(&entry.key), journal.and_then(|journal| journal.active))
            {
                known.plan(&stack, &active.plan);
            }
        }
        for entry in layout::all(&*self.db, layout::PROCS).await? {
            if let (Some(stack), Ok(proc)) =
                (layout::stack_of(&entry.key), layout::parse_json::<Proc>(&*self.db, &entry))
            {
                known.proc(&stack, &proc);
            }
        }
        Ok(known.ways())
    }

    /// Has the servers, and their embassies, know what the containers of this plan, which is in its journal, reach on
    /// others, so that their first packet passes. A server that cannot be told holds up the launch for a moment only: it is told when it
    /// answers.
    pub async fn open_ways(&self, plan: &Plan, say: Say<'_>) {
        self.agents.refresh().await;
        let Some(known) = self.agents.wanted().borrow().clone() else { return };
        let servers: BTreeSet<&ServerName> =
            plan.revocable().filter_map(Step::makes).map(|container| &container.server).collect();
        if servers.is_empty() || self.members().len() < 2 {
            return;
        }
        let wanted = match self.want(known.ports).await {
            Ok(wanted) => wanted,
            Err(error) => {
                tracing::warn!(%error, "it cannot be read what containers reach");
                return;
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let far = servers.into_iter().filter(|server| *server != self.engines().here());
        let told = far.map(async |server| (server, self.build_far_wall(server, &wanted, deadline).await));
        for (server, told) in join_all(told).await {
            if let Err(error) = told {
                tracing::warn!(%server, %error, "a server does not know what its new containers reach");
                say(&detail(&format!("containers on {server} may not reach services on other servers yet: {error}")));
            }
        }
    }

    /// An operation is over: what no longer runs leaves no way behind. Nobody waits for it.
    pub fn close_ways(&self) {
        if self.members().len() > 1 {
            self.agents.wish();
        }
    }

    /// Waits until another server has the wall that is wanted.
    async fn build_far_wall(&self, server: &ServerName, wanted: &Wanted, deadline: Instant) -> Result<(), AgentError> {
        let wall = wanted.wall(server);
        let away = |why: &str| AgentError::Away { place: format!("`{server}`"), why: why.to_owned() };
        let mut last = away("it takes too long");
        while Instant::now() < deadline {
            let Some(remote) = self.agents.all().remove(server) else {
                last = away("it is not there");
                sleep(AGAIN).await;
                continue;
            };
            // Without ways of its own it has nothing to wait for.
            let stands = remote.state().wall;
            if stands.as_ref() == Some(&wall) || wall.ways.as_ref().is_none_or(BTreeSet::is_empty) && stands.is_none() {
                return Ok(());
            }
            match timeout_at(deadline, remote.configure(|turn| self.agents.config(server, turn))).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => last = error,
                Err(_) => break,
            }
            sleep(AGAIN).await;
        }
        Err(last)
    }

    /// Puts up again what somebody has taken down, and asks for networks that are not known.
    pub(in crate::hq::agents) async fn look_after_ways(self: &Arc<Self>) {
        let wanted = self.agents.wanted().borrow().clone();
        // That there is none has been told when it was wanted.
        if let Some(wanted) = wanted
            && let Err(error) = self.build_own_wall(&wanted).await
        {
            tracing::debug!(%error, "HQ's own wall is not up");
        }
        let known = self.known_networks();
        if self.members().into_keys().any(|server| !known.contains_key(&server)) {
            // Whoever answers is heard, however late; nobody waits.
            let hq = self.clone();
            tokio::spawn(async move { hq.survey().await.map(drop) });
        }
    }

    /// Puts up the wall of HQ's own server.
    pub(in crate::hq::agents) async fn build_own_wall(&self, wanted: &Wanted) -> Result<(), NftError> {
        build(&wanted.wall(self.engines().here())).await
    }
}
