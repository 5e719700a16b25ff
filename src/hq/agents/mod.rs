//! The agents of the servers, as HQ drives them: what each is to be told, and how each stands. [`act`] follows one agent
//! a server, [`routers`] makes one edge of all routers, [`wanted`] says what a server should be, and [`ways`] what the
//! containers there reach on others.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, OnceCell, watch};

use crate::agent::ssh::Program;
use crate::agent::{Config, Turn};
use crate::names::ServerName;

pub mod act;
pub mod follow;
pub mod remote;
pub mod routers;
pub mod scribe;
pub mod voice;
pub mod wanted;
pub mod ways;

pub use remote::Remote;
use wanted::Wanted;

pub use voice::{Pulse, Ssh, Voice};

/// The agents HQ follows. Clones share them.
#[derive(Clone)]
pub struct Agents(Arc<Shared>);

struct Shared {
    agents: RwLock<BTreeMap<ServerName, Arc<Remote>>>,
    voices: watch::Sender<BTreeMap<ServerName, Voice>>,
    /// Goes up whenever somebody has changed what servers should be.
    wishes: watch::Sender<u64>,
    /// Goes up whenever embassies may have to be told something.
    asked: watch::Sender<u64>,
    /// Up to which of these all were told.
    answered: watch::Sender<u64>,
    /// Whether somebody follows agents.
    followed: AtomicBool,
    /// What every server should be.
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    /// Held while it is found out: what was found later counts.
    finding: Mutex<()>,
    /// What HQ brings to servers as their agent.
    program: OnceCell<Program>,
}

impl Default for Agents {
    fn default() -> Self {
        let (agents, voices, wishes) = (RwLock::default(), watch::Sender::default(), watch::Sender::default());
        let (asked, answered, followed) = Default::default();
        let (wanted, finding, program) = (watch::Sender::default(), Mutex::default(), OnceCell::new());
        Self(Arc::new(Shared { agents, voices, wishes, asked, answered, followed, wanted, finding, program }))
    }
}

impl Agents {
    /// How each server stands, as it changes. A server that is not in it has no agent that is followed.
    pub fn voices(&self) -> watch::Receiver<BTreeMap<ServerName, Voice>> {
        self.0.voices.subscribe()
    }

    /// Goes up whenever somebody has changed what servers should be.
    pub fn wishes(&self) -> watch::Receiver<u64> {
        self.0.wishes.subscribe()
    }

    /// Somebody has changed what servers should be.
    pub fn wish(&self) {
        self.0.wishes.send_modify(|wishes| *wishes += 1);
    }

    /// Goes up whenever embassies may have to be told something.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.0.asked.subscribe()
    }

    /// Embassies may have to be told something; nobody waits for it.
    pub fn stir(&self) {
        self.0.asked.send_modify(|asked| *asked += 1);
    }

    /// Those of up to this were told, as far as they could be.
    pub fn answer(&self, number: u64) {
        self.0.answered.send_replace(number);
    }

    /// Whether servers have embassies: all that have said something, and not none. One that is new is taken to have one.
    pub fn have_embassies(&self) -> bool {
        let said: Vec<bool> = self.all().values().filter_map(|remote| remote.state().embassy).collect();
        !said.is_empty() && said.into_iter().all(|stands| stands)
    }

    /// What every server should be, once that is known.
    pub fn wanted(&self) -> watch::Receiver<Option<Arc<Wanted>>> {
        self.0.wanted.subscribe()
    }

    fn want(&self, wanted: Arc<Wanted>) {
        self.0.wanted.send_if_modified(|old| {
            let is_new = old.as_ref() != Some(&wanted);
            *old = Some(wanted);
            is_new
        });
    }

    /// What a server is to be told as its next turn: what is wanted by then.
    fn config(&self, server: &ServerName, turn: Turn) -> Config {
        match &*self.0.wanted.borrow() {
            Some(wanted) => wanted.config(server, turn),
            None => Config::nothing(turn),
        }
    }

    /// Every agent that is followed, by server.
    pub fn all(&self) -> BTreeMap<ServerName, Arc<Remote>> {
        self.0.agents.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn follow(&self, server: ServerName, remote: Arc<Remote>) {
        self.0.agents.write().unwrap_or_else(PoisonError::into_inner).insert(server, remote);
    }

    fn forget(&self, server: &ServerName) {
        self.0.agents.write().unwrap_or_else(PoisonError::into_inner).remove(server);
        self.0.voices.send_modify(|all| {
            all.remove(server);
        });
    }

    /// Notes how a server stands; how it stood before.
    fn note(&self, server: &ServerName, voice: Voice) -> Option<Voice> {
        let mut before = None;
        self.0.voices.send_if_modified(|all| {
            before = all.insert(server.clone(), voice);
            before != Some(voice)
        });
        before
    }
}
