//! One edge of all routers: each change goes to HQ's own first, and then to all others at once.
//!
//! A router that HQ cannot reach holds nobody up. It goes on with its older tables, so what those name must not stop
//! too soon: until it has been told everything, its server is gone, or [`PATIENCE`] is over since the change it missed,
//! it counts as having a request under way everywhere. Draining waits for it then as for any request, for the node's
//! grace at most.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::routing_from_afar;
use crate::agent::Routing;
use crate::front::Snippet;
use crate::hq::Hq;
use crate::hq::agents::{Agents, Remote, Voice};
use crate::names::{ServerName, StackName};
use crate::router::StackRoutes;
use crate::router::edge::{Edge, EdgeError, Tally};
use crate::router::tls::{TlsChange, TlsState};

/// How long a router that cannot be reached is taken to send requests to what its older tables name.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a router may think about what is under way.
const ASK: Duration = Duration::from_secs(2);

/// All routers of an HQ.
pub struct Routers {
    own: Arc<dyn Edge>,
    agents: Agents,
}

impl Routers {
    /// HQ's own one and those of other servers.
    pub fn new(own: Arc<dyn Edge>, agents: Agents) -> Self {
        Self { own, agents }
    }

    /// Every agent that may have something under way: with a router of its own, or an embassy.
    fn carriers(&self) -> impl Iterator<Item = (ServerName, Arc<Remote>)> + use<> {
        self.agents.all().into_iter().filter(|(_, remote)| {
            let state = remote.state();
            state.router.is_some() || state.embassy == Some(true)
        })
    }

    /// Those of other servers, each with HQ's address as it is seen from there.
    fn others(&self) -> Vec<(ServerName, Arc<Remote>, SocketAddr)> {
        let all = self.agents.all().into_iter();
        all.filter_map(|(server, remote)| {
            let hq = remote.state().router?;
            Some((server, remote, hq))
        })
        .collect()
    }

    async fn tell_others(&self, routing: Routing) {
        let told = self.others().into_iter().map(|(server, remote, hq)| {
            let routing = routing_from_afar(&routing, hq);
            async move {
                if let Err(error) = remote.route(&routing).await {
                    tracing::warn!(%server, %error, "a router goes on with older tables until it is reached again");
                }
            }
        });
        join_all(told).await;
    }
}

#[async_trait]
impl Edge for Routers {
    async fn try_snippet(&self, snippet: &Snippet) -> Result<(), EdgeError> {
        self.own.try_snippet(snippet).await
    }

    async fn set(&self, routes: &StackRoutes) -> Result<(), EdgeError> {
        self.own.set(routes).await?;
        self.tell_others(Routing::Set(routes.clone())).await;
        Ok(())
    }

    async fn remove(&self, stack: &StackName) -> Result<(), EdgeError> {
        self.own.remove(stack).await?;
        self.tell_others(Routing::Remove(stack.clone())).await;
        Ok(())
    }

    async fn follow_containers(&self) {
        self.agents.refresh().await;
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, EdgeError> {
        self.own.tables().await
    }

    async fn secure(&self, change: &TlsChange) -> Result<(), EdgeError> {
        self.own.secure(change).await?;
        self.tell_others(Routing::Tls(change.clone())).await;
        Ok(())
    }

    async fn secured(&self) -> Result<TlsState, EdgeError> {
        self.own.secured().await
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, EdgeError> {
        let own = self.own.in_flight(peer).await?;
        let voices = self.agents.voices().borrow().clone();
        let is_gone = |server: &ServerName| voices.get(server) == Some(&Voice::Gone);
        let there = self.carriers().filter(|(server, _)| !is_gone(server));
        let others = there.map(|(_, remote)| async move {
            let state = remote.state();
            match state.behind.filter(|_| state.router.is_some()) {
                Some(since) => u64::from(since.elapsed() < PATIENCE),
                // One that has just been lost is behind with the next change.
                None => timeout(ASK, remote.agent().in_flight(peer)).await.ok().and_then(Result::ok).unwrap_or(0),
            }
        });
        Ok(join_all(others).await.into_iter().fold(own, u64::saturating_add))
    }

    /// Of HQ's own: others are asked one by one.
    async fn tallies(&self) -> Result<Vec<Tally>, EdgeError> {
        self.own.tallies().await
    }
}

impl Hq {
    /// What the router of each server has answered since it started, as far as it says.
    pub async fn answered(&self) -> BTreeMap<ServerName, Vec<Tally>> {
        let asked = self.agents.all().into_iter().map(|(server, remote)| async move {
            let state = remote.state();
            let routes = state.router.is_some() && state.behind.is_none();
            (server, if routes { remote.agent().tallies().await.ok() } else { None })
        });
        let mut all: BTreeMap<_, _> =
            join_all(asked).await.into_iter().filter_map(|(server, told)| Some((server, told?))).collect();
        if let Some(edge) = &self.launcher.edge
            && let Ok(own) = edge.tallies().await
        {
            all.insert(self.engines().here().clone(), own);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fake::FakeAgent;
    use crate::agent::{Config, Turn};
    use crate::hq::agents::remote::Rivals;
    use crate::names::ReleaseNumber;
    use crate::router::fake::FakeEdge;

    struct Bench {
        own: Arc<FakeEdge>,
        far: FakeAgent,
        remote: Arc<Remote>,
        routers: Routers,
    }

    async fn bench() -> Bench {
        let (own, far, agents) = (Arc::new(FakeEdge::new()), FakeAgent::new(), Agents::default());
        let remote = Arc::new(Remote::new(Arc::new(far.clone()), 1, Rivals::None));
        let listen = Some(vec!["0.0.0.0:80".parse().unwrap()]);
        let config = |turn: Turn| Config { router: listen.clone(), ..Config::nothing(turn) };
        remote.configure(config).await.unwrap();
        remote.note(|state| state.router = Some("10.0.0.1:80".parse().unwrap()));
        agents.follow("s1".parse().unwrap(), remote.clone());
        let routers = Routers::new(own.clone(), agents);
        Bench { own, far, remote, routers }
    }

    fn table(release: u64) -> StackRoutes {
        StackRoutes::new("blog".parse().unwrap(), ReleaseNumber(release), [])
    }

    #[tokio::test]
    async fn every_router_has_the_table_when_the_switch_is_done() {
        let bench = bench().await;
        bench.routers.set(&table(1)).await.unwrap();
        assert_eq!(bench.far.edge().tables().await.unwrap(), [table(1)]);
        bench.routers.remove(&table(1).stack).await.unwrap();
        assert!(bench.far.edge().tables().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_hqs_own_router_refuses_reaches_no_other() {
        let bench = bench().await;
        bench.own.refuse(Some("no"));
        assert!(bench.routers.set(&table(1)).await.is_err());
        assert!(bench.far.edge().tables().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn requests_under_way_are_those_of_all_routers() {
        let bench = bench().await;
        let peer = "10.0.0.2:20000".parse().unwrap();
        bench.own.hold(peer, 2);
        bench.far.edge().hold(peer, 3);
        assert_eq!(bench.routers.in_flight(peer).await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_that_cannot_be_reached_holds_up_nobody_and_catches_up() {
        let bench = bench().await;
        let peer = "10.0.0.2:20000".parse().unwrap();
        bench.routers.set(&table(1)).await.unwrap();
        bench.far.cut_off();
        bench.routers.set(&table(2)).await.unwrap();
        assert_eq!(bench.routers.in_flight(peer).await.unwrap(), 1, "it may send requests to the old ones");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(bench.routers.in_flight(peer).await.unwrap(), 0, "but nobody waits for ever");
        bench.far.heal();
        assert_eq!(bench.far.edge().tables().await.unwrap(), [table(1)]);
        bench
            .remote
            .catch_up(async || bench.own.tables().await.map(|tables| vec![Routing::All(tables)]))
            .await
            .unwrap();
        assert_eq!(bench.far.edge().tables().await.unwrap(), [table(2)]);
        assert_eq!(bench.routers.in_flight(peer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_hq_that_begins_anew_is_heard() {
        let bench = bench().await;
        bench.routers.set(&table(1)).await.unwrap();
        let agents = Agents::default();
        let remote = Arc::new(Remote::new(Arc::new(bench.far.clone()), 1, Rivals::Possible));
        remote.note(|state| state.router = Some("10.0.0.1:80".parse().unwrap()));
        agents.follow("s1".parse().unwrap(), remote);
        Routers::new(bench.own.clone(), agents).set(&table(2)).await.unwrap();
        assert_eq!(bench.far.edge().tables().await.unwrap(), [table(2)]);
    }
}
