//! An agent in memory, with the real one's promises, that can be cut off.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::watch;

use super::config::in_order;
use super::vitals::{Docker, Machine};
use super::{Agent, AgentError, Applied, Config, Routing, Turn, Vitals};
use crate::embassy::{PortCounts, Table};
use crate::names::StackName;
use crate::network::Policy;
use crate::network::act::Standing;
use crate::router::StackRoutes;
use crate::router::edge::{Edge, Tally};
use crate::router::fake::FakeEdge;

/// The agent; clones are the same one.
#[derive(Clone)]
pub struct FakeAgent(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    edge: FakeEdge,
    /// `None` while it is cut off.
    vitals: watch::Sender<Option<Vitals>>,
}

#[derive(Default)]
struct World {
    config: Option<Config>,
    routes: Option<Turn>,
    exposed: Option<Turn>,
    ports: Table,
    confirmed: Option<Policy>,
    trial: Option<(String, Policy)>,
    trials: u64,
    cut_off: bool,
    /// Every configuration that was taken.
    history: Vec<Config>,
}

impl Default for FakeAgent {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeAgent {
    /// One that was never told anything, on a server without containers.
    pub fn new() -> Self {
        let vitals = Vitals {
            version: "fake".to_owned(),
            program: "0".repeat(64),
            machine: Machine::default(),
            docker: Docker::Answers(Vec::new()),
            locknet: Some(Standing::Off),
            config: None,
            routes: None,
        };
        let vitals = watch::Sender::new(Some(vitals));
        Self(Arc::new(Inner { world: Mutex::default(), edge: FakeEdge::new(), vitals }))
    }

    /// Its router.
    pub fn edge(&self) -> &FakeEdge {
        &self.0.edge
    }

    /// What it was told, in order.
    pub fn history(&self) -> Vec<Config> {
        self.world().history.clone()
    }

    /// The embassy's ports as it was told them last.
    pub fn exposed(&self) -> Table {
        self.world().ports.clone()
    }

    /// From now on nothing comes through, either way.
    pub fn cut_off(&self) {
        self.world().cut_off = true;
        // Whoever listens hears the end.
        self.0.vitals.send_modify(|_| {});
    }

    /// Comes through again.
    pub fn heal(&self) {
        self.world().cut_off = false;
    }

    /// What it tells is changed like this.
    pub fn change(&self, change: impl FnOnce(&mut Vitals)) {
        self.0.vitals.send_modify(|vitals| {
            if let Some(vitals) = vitals {
                change(vitals);
            }
        });
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<MutexGuard<'_, World>, AgentError> {
        let world = self.world();
        if world.cut_off { Err(away()) } else { Ok(world) }
    }

    fn router(&self) -> Result<&FakeEdge, AgentError> {
        let routes = self.reached()?.config.as_ref().is_some_and(|config| config.router.is_some());
        if routes { Ok(&self.0.edge) } else { Err(AgentError::NoRouter) }
    }
}

fn away() -> AgentError {
    AgentError::Away { place: "the fake".to_owned(), why: "it is cut off".to_owned() }
}

fn router(error: impl std::error::Error) -> AgentError {
    AgentError::Router(error.to_string())
}

#[async_trait]
impl Agent for FakeAgent {
    async fn configure(&self, config: &Config) -> Result<Applied, AgentError> {
        let applied = {
            let mut world = self.reached()?;
            in_order(world.config.as_ref().map(|config| config.turn), config.turn)
                .map_err(|held| AgentError::Stale { held })?;
            world.config = Some(config.clone());
            world.history.push(config.clone());
            world.trial = None;
            let mut trial = None;
            match &config.locknet {
                None => world.confirmed = None,
                Some(policy) if world.confirmed.as_ref() == Some(policy) => {}
                Some(policy) => {
                    world.trials += 1;
                    trial = Some(format!("trial-{}", world.trials));
                    world.trial = trial.clone().map(|id| (id, policy.clone()));
                }
            }
            let standing = match (&trial, &world.confirmed) {
                (Some(id), _) => Standing::Trial(id.clone()),
                (None, Some(_)) => Standing::Applied,
                (None, None) => Standing::Off,
            };
            let applied = Applied { turn: config.turn, trial, failed: BTreeMap::new() };
            let shown = Applied { trial: None, ..applied.clone() };
            drop(world);
            self.change(|vitals| {
                vitals.config = Some(shown);
                vitals.locknet = Some(standing);
            });
            applied
        };
        if config.router.is_none() {
            let stacks: Vec<StackName> =
                self.0.edge.tables().await.unwrap_or_default().into_iter().map(|table| table.stack).collect();
            for stack in stacks {
                self.0.edge.remove(&stack).await.map_err(router)?;
            }
        }
        Ok(applied)
    }

    async fn confirm(&self, trial: &str) -> Result<(), AgentError> {
        let mut world = self.reached()?;
        let (_, policy) = world
            .trial
            .take_if(|(id, _)| id == trial)
            .ok_or_else(|| AgentError::Trial(format!("no rules are on trial under `{trial}`")))?;
        world.confirmed = Some(policy);
        drop(world);
        self.change(|vitals| vitals.locknet = Some(Standing::Applied));
        Ok(())
    }

    async fn route(&self, turn: Turn, routing: &Routing) -> Result<(), AgentError> {
        {
            let mut world = self.reached()?;
            in_order(world.routes, turn).map_err(|held| AgentError::Stale { held })?;
            world.routes = Some(turn);
        }
        let edge = self.router()?;
        match routing {
            Routing::Set(routes) => edge.set(routes).await.map_err(router)?,
            Routing::Remove(stack) => edge.remove(stack).await.map_err(router)?,
            Routing::Tls(change) => edge.secure(change).await.map_err(router)?,
            Routing::All(tables) => {
                for table in edge.tables().await.map_err(router)? {
                    edge.remove(&table.stack).await.map_err(router)?;
                }
                for table in tables {
                    edge.set(table).await.map_err(router)?;
                }
            }
        }
        self.change(|vitals| vitals.routes = Some(turn));
        Ok(())
    }

    async fn tables(&self) -> Result<Vec<StackRoutes>, AgentError> {
        self.router()?.tables().await.map_err(router)
    }

    async fn expose(&self, turn: Turn, table: &Table) -> Result<(), AgentError> {
        let mut world = self.reached()?;
        in_order(world.exposed, turn).map_err(|held| AgentError::Stale { held })?;
        (world.exposed, world.ports) = (Some(turn), table.clone());
        if world.config.as_ref().is_none_or(|config| config.embassy.is_none()) {
            return Err(AgentError::Embassy("no embassy stands on the server".to_owned()));
        }
        Ok(())
    }

    async fn ports(&self) -> Result<Vec<PortCounts>, AgentError> {
        // Nobody connects to a fake.
        self.reached().map(|_| Vec::new())
    }

    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError> {
        drop(self.reached()?);
        match self.router() {
            Ok(edge) => edge.in_flight(peer).await.map_err(router),
            Err(_) => Ok(0),
        }
    }

    async fn tallies(&self) -> Result<Vec<Tally>, AgentError> {
        drop(self.reached()?);
        self.router()?.tallies().await.map_err(router)
    }

    async fn vitals(&self) -> Result<BoxStream<'static, Result<Vitals, AgentError>>, AgentError> {
        drop(self.reached()?);
        let mut listener = self.0.vitals.subscribe();
        listener.mark_changed();
        let told = unfold(Some((self.clone(), listener)), |state| async move {
            let (agent, mut listener) = state?;
            listener.changed().await.ok()?;
            if agent.reached().is_err() {
                return Some((Err(away()), None));
            }
            let vitals = listener.borrow_and_update().clone()?;
            Some((Ok(vitals), Some((agent, listener))))
        });
        Ok(told.boxed())
    }
}
