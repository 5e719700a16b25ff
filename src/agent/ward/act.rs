//! Puts a configuration in place, part by part: what fails in one holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::agent::mind::How;
use crate::agent::post::act::Post;
use crate::agent::{AgentError, Applied, Config, Part, Routing, files};
use crate::embassy::{Legacy, PortCounts, Table};
use crate::names::StackName;
use crate::network::Locknet;
use crate::network::act::{Came, NetworkError, Standing, TRIAL, build};
use crate::network::config::act::Configs;
use crate::network::files::keep_hosts;
use crate::network::files::machine::speaks_ipv6;
use crate::network::nft::{self, NftError};
use crate::network::wall::Wall;
use crate::router::StackRoutes;
use crate::router::edge::{Edge, EdgeError};
use crate::router::nginx::{Listen, Nginx};
use crate::router::tls::{TlsChange, TlsState};

/// How long requests under way have when a server stops routing.
const GRACE: Duration = Duration::from_secs(10);

/// The server's files, rules and router.
pub struct Ward {
    folder: PathBuf,
    hosts: PathBuf,
    locknet: Locknet,
    configs: Configs,
    router: RwLock<Option<Router>>,
    wall: Mutex<Option<Wall>>,
    post: Post,
}

struct Router {
    listen: Listen,
    nginx: Arc<Nginx>,
    watch: JoinHandle<()>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Ward {
    /// Remembers what it does in `folder`. `legacy` is what the program before this one has left.
    pub fn new(folder: &Path, hosts: PathBuf, own: &[PathBuf], legacy: Option<Legacy>) -> Self {
        Self {
            folder: folder.to_owned(),
            hosts,
            locknet: Locknet::new(folder),
            configs: Configs::new(folder, own),
            router: RwLock::default(),
            wall: Mutex::default(),
            post: Post::new(folder, legacy),
        }
    }

    /// Keeps a new configuration, and puts it or one that stood before in place. Locknet's rules go last, because they
    /// may cut off whoever waits for the answer.
    ///
    /// # Errors
    /// It cannot be kept; then nothing has changed.
    pub async fn apply(&self, config: &Config, how: How) -> Result<Applied, AgentError> {
        if how == How::New {
            let (folder, own) = (self.folder.clone(), config.clone());
            let kept = spawn_blocking(move || files::keep(&folder, &own)).await;
            let kept = kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            kept.map_err(|error| AgentError::Disk(format!("cannot keep the configuration: {error}")))?;
        }
        let mut failed = BTreeMap::new();
        let mut note = |part: Part, done: Result<(), String>| {
            if let Err(why) = done {
                tracing::warn!(?part, why, "a part of the configuration is not in place");
                failed.insert(part, why);
            }
        };
        note(Part::Hosts, self.keep_hosts(config).await);
        note(Part::Files, self.write_files(config).await);
        note(Part::Router, self.run_router(config).await);
        note(Part::Embassy, self.post.stand_at(config.embassy).await);
        note(Part::Wall, self.build_wall(config).await.map_err(|error| told(&error)));
        let trial = match self.lock(config, how).await {
            Ok(trial) => trial,
            Err(error) => {
                note(Part::Locknet, Err(told(&error)));
                None
            }
        };
        Ok(Applied { turn: config.turn, trial, failed })
    }

    /// How locknet's rules stand.
    pub async fn standing(&self) -> Option<Standing> {
        self.locknet.check().await.ok()
    }

    /// Keeps the rules on trial.
    ///
    /// # Errors
    /// [`AgentError::Trial`].
    pub async fn confirm(&self, trial: &str) -> Result<(), AgentError> {
        self.locknet.confirm(trial).await.map_err(|error| AgentError::Trial(told(&error)))
    }

    /// The router.
    ///
    /// # Errors
    /// [`AgentError::NoRouter`].
    pub fn edge(&self) -> Result<Arc<Nginx>, AgentError> {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.as_ref().map(|router| router.nginx.clone()).ok_or(AgentError::NoRouter)
    }

    /// Changes its tables.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub async fn route(&self, routing: &Routing) -> Result<(), AgentError> {
        let edge = self.edge()?;
        let done = match routing {
            Routing::Set(routes) => edge.set(routes).await,
            Routing::Remove(stack) => edge.remove(stack).await,
            Routing::All(tables) => set_all(&edge, tables).await,
            Routing::Tls(change) => edge.secure(change).await,
        };
        done.map_err(|error| AgentError::Router(told(&error)))
    }

    /// Changes the embassy's ports.
    ///
    /// # Errors
    /// As [`Post::expose`].
    pub async fn expose(&self, table: Table) -> Result<(), AgentError> {
        self.post.expose(table).await
    }

    /// What it leaves to the program that replaces this one.
    pub async fn leave(&self) -> Option<Legacy> {
        self.post.leave().await
    }

    /// What the embassy's ports have counted.
    pub fn ports(&self) -> Vec<PortCounts> {
        self.post.counts()
    }

    /// How many requests and connections are under way to an address.
    ///
    /// # Errors
    /// The router does not say.
    pub async fn in_flight(&self, peer: SocketAddr) -> Result<u64, AgentError> {
        let requests = match self.edge() {
            Ok(edge) => edge.in_flight(peer).await.map_err(|error| AgentError::Router(told(&error)))?,
            Err(_) => 0,
        };
        Ok(requests.saturating_add(self.post.open(peer)))
    }

    async fn keep_hosts(&self, config: &Config) -> Result<(), String> {
        let (path, entries) = (self.hosts.clone(), config.hosts.clone());
        let kept = spawn_blocking(move || keep_hosts(&path, &entries)).await;
        match kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot keep {}: {error}", self.hosts.display())),
        }
    }

    async fn write_files(&self, config: &Config) -> Result<(), String> {
        let (configs, wanted) = (self.configs.clone(), config.files.clone());
        let wanted = wanted.into_iter().map(|(path, contents)| (path, contents.0)).collect();
        let set = spawn_blocking(move || configs.set(&wanted)).await;
        let (_, mistakes) = set.map_err(|panic| panic.to_string())?;
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes.iter().map(|error| told(error)).collect::<Vec<_>>().join("; "))
        }
    }

    /// Puts the wall up, each time again: somebody may have taken it down.
    async fn build_wall(&self, config: &Config) -> Result<(), NftError> {
        let before = self.wall.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(before) = before.filter(|before| config.wall.as_ref().map(Wall::table) != Some(before.table())) {
            nft::load(&before.removal()).await?;
        }
        if let Some(wall) = &config.wall {
            build(wall).await?;
        }
        self.wall.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.wall);
        Ok(())
    }

    /// Starts, changes or ends the router.
    async fn run_router(&self, config: &Config) -> Result<(), String> {
        let now = self.router.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|now| now.listen.clone());
        let wanted = config.router.as_ref().map(|http| {
            let can = |address: &&SocketAddr| address.is_ipv4() || speaks_ipv6();
            let can = |addresses: &[SocketAddr]| addresses.iter().filter(can).copied().collect();
            Listen { http: can(http), https: can(&config.https), front: config.balancers.clone() }
        });
        // An agent that was cut off while it ended its router has left one that nobody knows of.
        let is_left = now.is_none() && self.folder.join("router/nginx.pid").exists();
        if now == wanted && !is_left {
            return Ok(());
        }
        let Some(listen) = wanted else {
            // Dropped, it is watched no more.
            drop(self.router.write().unwrap_or_else(PoisonError::into_inner).take());
            return end(&Nginx::new(&self.folder, Vec::new())).await.map_err(|error| told(&error));
        };
        let nginx = Arc::new(Nginx::listening(&self.folder, listen.clone()));
        // It is watched even if it does not come up now: what holds its port may go.
        let came = nginx.start_or_adopt().await;
        let watched = nginx.clone();
        let watch = tokio::spawn(async move { watched.watch().await });
        *self.router.write().unwrap_or_else(PoisonError::into_inner) = Some(Router { listen, nginx, watch });
        match came {
            Ok(came) => {
                tracing::info!(?came, "the router serves");
                Ok(())
            }
            Err(error) => Err(told(&error)),
        }
    }

    /// Puts locknet's rules in force: new ones on trial. Those that stood before are put back, never ones that nobody
    /// has confirmed.
    async fn lock(&self, config: &Config, how: How) -> Result<Option<String>, NetworkError> {
        match (how, &config.locknet) {
            (How::Again, _) => self.locknet.restore().await.map(|_| None),
            (How::New, None) => self.locknet.off().await.map(|()| None),
            (How::New, Some(policy)) => match self.locknet.apply(policy, TRIAL).await? {
                Came::Trial(id) => Ok(Some(id)),
                Came::Already => Ok(None),
            },
        }
    }
}

/// Takes its tables and keys away, too: whoever routes again one day must not begin with them.
async fn end(nginx: &Nginx) -> Result<(), EdgeError> {
    if nginx.secured().await.is_ok() {
        nginx.secure(&TlsChange::All(TlsState::default())).await?;
    }
    if let Ok(tables) = nginx.tables().await {
        for table in tables {
            nginx.remove(&table.stack).await?;
        }
    }
    nginx.stop(GRACE).await
}

/// Every stack's table, and no other's. A domain that has moved from one stack to another is given up there first.
async fn set_all(edge: &Nginx, wanted: &[StackRoutes]) -> Result<(), EdgeError> {
    let now: BTreeMap<StackName, StackRoutes> =
        edge.tables().await?.into_iter().map(|table| (table.stack.clone(), table)).collect();
    let names: BTreeSet<&StackName> = wanted.iter().map(|table| &table.stack).collect();
    for stack in now.keys().filter(|stack| !names.contains(stack)) {
        edge.remove(stack).await?;
    }
    let mut waiting: Vec<&StackRoutes> = wanted.iter().filter(|table| now.get(&table.stack) != Some(table)).collect();
    while !waiting.is_empty() {
        let (before, mut refused, mut why) = (waiting.len(), Vec::new(), None);
        for table in waiting {
            match edge.set(table).await {
                Ok(()) => {}
                Err(error @ EdgeError::Refused { .. }) => {
                    refused.push(table);
                    why = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match why {
            Some(why) if refused.len() == before => return Err(why),
            Some(_) | None => waiting = refused,
        }
    }
    Ok(())
}

/// An error with its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
