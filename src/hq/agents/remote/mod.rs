//! One agent, and in which order it is told things; see [`act`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, AgentError, Applied, Turn, Vitals};
use crate::docker::Container;
use crate::embassy::Table;
use crate::network::wall::Wall;

pub mod act;

/// One agent as HQ drives it.
pub struct Remote {
    agent: Arc<dyn Agent>,
    rivals: Rivals,
    /// One configuration at a time; the turn of the last.
    config: tokio::sync::Mutex<Turn>,
    /// One change of tables at a time; the turn of the last.
    routes: tokio::sync::Mutex<Turn>,
    /// One change of the embassy's ports at a time; the turn of the last.
    ports: tokio::sync::Mutex<Turn>,
    state: RwLock<State>,
    /// Its server leaves: nobody is to follow it any more.
    pub leaving: CancellationToken,
    /// Nobody does.
    pub left: CancellationToken,
}

/// Whether another HQ may act on the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rivals {
    /// The state is this machine's files, which one process at a time has open.
    None,
    /// The epoch tells them apart.
    Possible,
}

/// What HQ knows of an agent.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Where HQ's own router is reached from there; `None` when the server does not route.
    pub router: Option<SocketAddr>,
    /// Since when its router may hold older tables than HQ's.
    pub behind: Option<Instant>,
    /// What it told last.
    pub vitals: Option<Vitals>,
    /// What docker there had when it answered last; nothing until it has.
    pub containers: Option<Arc<Vec<Container>>>,
    /// Whether its embassy stands; nothing until it was told to.
    pub embassy: Option<bool>,
    /// The embassy's ports it has for certain.
    pub exposed: Option<Arc<Table>>,
    /// The wall it has for certain.
    pub wall: Option<Wall>,
    /// What became of the last configuration.
    pub told: Option<Result<Applied, AgentError>>,
    /// Why its rules went back by themselves.
    pub rolled_back: Option<String>,
    /// What another HQ has told it since this one did: there are two of the same state, or two have one server.
    pub rival: Option<Turn>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Remote {
    /// An agent for the HQ of this epoch.
    pub fn new(agent: Arc<dyn Agent>, epoch: u64, rivals: Rivals) -> Self {
        let first = Turn { epoch, generation: 0 };
        let [config, routes, ports] = [(); 3].map(|()| tokio::sync::Mutex::new(first));
        let (leaving, left) = Default::default();
        Self { agent, rivals, config, routes, ports, state: RwLock::default(), leaving, left }
    }

    /// What HQ knows of it.
    pub fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes something of it.
    pub fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The turn after an agent has refused `own`, because it `held` a newer one: above that, unless another HQ has said it.
fn above(own: Turn, held: Turn, rivals: Rivals) -> Option<Turn> {
    let next = Turn { epoch: held.epoch, generation: held.generation.saturating_add(1) };
    match rivals {
        Rivals::Possible if held.epoch != own.epoch => None,
        Rivals::None | Rivals::Possible => Some(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Config;
    use crate::agent::fake::FakeAgent;

    #[tokio::test]
    async fn an_hq_notices_that_another_one_tells_its_server_what_to_be() {
        let agent = FakeAgent::new();
        agent.configure(&Config::nothing(Turn { epoch: 0, generation: 7 })).await.unwrap();
        let hq = || Remote::new(Arc::new(agent.clone()), 0, Rivals::None);
        let (one, other) = (hq(), hq());
        // What was told before it began is its own from an earlier time.
        one.configure(Config::nothing).await.unwrap();
        one.configure(Config::nothing).await.unwrap();
        assert_eq!(one.state().rival, None);
        other.configure(Config::nothing).await.unwrap();
        other.configure(Config::nothing).await.unwrap();
        assert_eq!(other.state().rival, None);
        one.configure(Config::nothing).await.unwrap();
        assert_eq!(one.state().rival, Some(Turn { epoch: 0, generation: 11 }));
    }

    #[test]
    fn an_hq_that_began_anew_goes_on_above_what_it_said_before_and_never_above_another_one() {
        let turn = |epoch, generation| Turn { epoch, generation };
        let check = |own, held, rivals, expected| assert_eq!(above(own, held, rivals), expected, "{own:?} {held:?}");
        check(turn(0, 1), turn(0, 9), Rivals::None, Some(turn(0, 10)));
        // The state was in a cluster once.
        check(turn(0, 1), turn(4, 9), Rivals::None, Some(turn(4, 10)));
        check(turn(4, 1), turn(4, 9), Rivals::Possible, Some(turn(4, 10)));
        check(turn(4, 1), turn(5, 0), Rivals::Possible, None);
    }
}
