//! HQ: takes pushes and commands, decides, and drives docker and the router.
//!
//! [`ssh`] and [`socket`] are the ways in, and the HTTP api above; all speak to a [`door::Door`]. One operation changes a stack at a time
//! ([`lock`]). Each goes the same way: gather the world, plan, journal, stage, switch, commit, retire ([`act`]);
//! [`deploy`] and [`change`] say with which instructions, [`recover`] finishes or undoes what a killed HQ left, and
//! [`reconcile`] heals what drifts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use self::agents::routers::act::Routers;
use crate::clock::Clock;
use crate::db::Db;
use crate::docker::engines::Engines;
use crate::etc::Settings;
use crate::launch::act::Launcher;
use crate::launch::journal::act::Book;
use crate::launch::{Ground, Identity};
use crate::names::{ReleaseNumber, ServerName, StackName};
use crate::router::edge::Edge;
use crate::seal::Seal;
use crate::servers::Lines;
use crate::servers::process::Programs;
use crate::servers::registry::Registry;

pub mod act;
pub mod agents;
pub mod backup;
pub mod certs;
pub mod change;
pub mod cloud;
pub mod cluster;
pub mod collect;
pub mod deploy;
pub mod destroy;
pub mod doctor;
pub mod door;
pub mod embassies;
pub mod env;
mod error;
pub mod events;
pub mod exec;
pub mod fleet;
pub mod frames;
pub mod front;
pub mod git;
pub mod grid;
pub mod guard;
pub mod health;
pub mod hooks;
pub mod install;
pub mod jobs;
pub mod limits;
pub mod lock;
pub mod metrics;
pub mod oneoff;
pub mod outposts;
pub mod progress;
pub mod reconcile;
pub mod recover;
pub mod remote;
pub mod rights;
pub mod runs;
pub mod servers;
pub mod shallow;
pub mod socket;
pub mod ssh;
pub mod stacks;
pub mod status;
pub mod tasks;
pub mod tcp;
pub mod tokens;
pub mod upgrade;
pub mod world;

pub use error::{HqError, chain};
pub use git::push;
pub use socket::{call, relay};
pub use ssh::keys;

/// What HQ works with.
pub struct Parts {
    /// Quarry's root folder.
    pub root: PathBuf,
    /// Settings of /etc/quarry.
    pub settings: Settings,
    /// The tree.
    pub db: Arc<dyn Db>,
    /// The servers' docker.
    pub engines: Engines,
    /// The router, unless stacks run locally.
    pub edge: Option<Arc<dyn Edge>>,
    /// Whether containers and routes may be changed.
    pub awake: Awake,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Opens variables.
    pub seal: Arc<Seal>,
    /// Which HQ this is.
    pub identity: Identity,
    /// Where containers of HQ's own server are reached.
    pub ground: Ground,
    /// The router's port as it stands in URLs: empty, or `:8080`.
    pub url_port: String,
}

/// Whether an HQ changes what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awake {
    /// It serves, or runs stacks locally.
    Yes,
    /// A command has opened the tree because no HQ serves: it reads and keeps records, the router is out of its reach.
    No,
}

/// The one that acts.
pub struct Hq {
    /// Quarry's root folder.
    pub root: PathBuf,
    /// Settings of /etc/quarry.
    pub settings: Settings,
    /// The tree.
    pub db: Arc<dyn Db>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Performs steps; holds docker and the router.
    pub launcher: Launcher,
    /// The router's port as it stands in URLs: empty, or `:8080`.
    pub url_port: String,
    awake: Awake,
    /// The agents of the servers.
    pub agents: agents::Agents,
    /// The SSH lines to the other servers.
    lines: Lines,
    /// What brings images to them.
    pub registry: Arc<Registry>,
    /// Where containers of HQ's own server are reached as long as it is the only one.
    bridge: Ground,
    /// Servers have come or gone.
    fleet_changed: tokio::sync::Notify,
    /// HQ's key for servers is made once.
    key_making: tokio::sync::Mutex<()>,
    /// Held while the record of a server is read, changed and written; never while a server is waited for.
    records: tokio::sync::Mutex<()>,
    /// The record of events.
    trail: events::act::Trail,
    /// Held while a person's rights are read, changed and written.
    rights_change: tokio::sync::Mutex<()>,
    /// Held while what is kept of a task is read, changed and written.
    diaries: tokio::sync::Mutex<()>,
    /// A task was suspended or resumed.
    tasks_changed: tokio::sync::Notify,
    /// A run of a task has ended.
    run_ended: tokio::sync::Notify,
    /// Held by whoever reads repositories file by file; alone, while their packs are put together.
    pub packs: tokio::sync::RwLock<()>,
    /// Servers that are being taken out of the grid.
    leaving: servers::leave::Leaving,
    members: RwLock<BTreeMap<ServerName, fleet::Member>>,
    /// What each server's engine last told.
    memory: Arc<Mutex<fleet::Memory>>,
    /// What asking containers how they are has shown.
    checkups: Mutex<health::Checkups>,
    /// What is known of a grid that sizes itself.
    pub sizing: cloud::Sizing,
    /// The certificates of domains.
    pub certs: Arc<certs::Certs>,
    queue: lock::Queue,
    /// Planning reads what others have taken: one plan at a time.
    planning: tokio::sync::Mutex<world::Reserved>,
    books: Mutex<BTreeMap<StackName, Arc<tokio::sync::OnceCell<Arc<Book>>>>>,
    /// Those who are inside.
    pub traffic: Arc<upgrade::Traffic>,
    /// When it began.
    begun: jiff::Timestamp,
    /// Its own home, while it serves.
    house: OnceLock<Arc<cluster::house::House>>,
}

impl Hq {
    /// An HQ of these parts. It does nothing until it is asked.
    pub fn new(parts: Parts) -> Arc<Self> {
        let here = parts.engines.here().clone();
        let bridge = parts.ground;
        let member = fleet::Member::of(&limits::own_record(), bridge.clone());
        let lines = Lines::default();
        let registry = Arc::new(Registry::new(&parts.root, parts.engines.shared()));
        let agents = agents::Agents::default();
        let launcher = Launcher {
            supply: Arc::new(Programs::new(registry.clone(), parts.engines.clone(), lines.clone())),
            engines: parts.engines,
            edge: parts.edge.map(|own| Arc::new(Routers::new(own, agents.clone())) as Arc<dyn Edge>),
            db: parts.db.clone(),
            seal: parts.seal,
            identity: parts.identity,
            etc_env: parts.settings.env.clone(),
            release_timeout: parts.settings.release_timeout,
            root: parts.root.clone(),
        };
        let trail = events::act::Trail::new(parts.root.join("events"), parts.clock.now());
        Arc::new(Self {
            root: parts.root,
            settings: parts.settings,
            db: parts.db,
            begun: parts.clock.now(),
            clock: parts.clock,
            launcher,
            url_port: parts.url_port,
            awake: parts.awake,
            agents,
            lines,
            registry,
            bridge,
            fleet_changed: tokio::sync::Notify::new(),
            key_making: tokio::sync::Mutex::default(),
            records: tokio::sync::Mutex::default(),
            trail,
            rights_change: tokio::sync::Mutex::default(),
            diaries: tokio::sync::Mutex::default(),
            tasks_changed: tokio::sync::Notify::new(),
            run_ended: tokio::sync::Notify::new(),
            packs: tokio::sync::RwLock::default(),
            leaving: servers::leave::Leaving::default(),
            members: RwLock::new(BTreeMap::from([(here, member)])),
            memory: Arc::default(),
            checkups: Mutex::default(),
            sizing: cloud::Sizing::default(),
            certs: Arc::default(),
            queue: lock::Queue::default(),
            planning: tokio::sync::Mutex::default(),
            books: Mutex::default(),
            traffic: Arc::default(),
            house: OnceLock::new(),
        })
    }

    /// The docker of every server.
    pub fn engines(&self) -> &Engines {
        &self.launcher.engines
    }

    /// Whether an agent looks after HQ's own server: a machine's main HQ brings one, any other has one only if somebody
    /// runs it in its folder.
    pub fn has_own_agent(&self) -> bool {
        self.is_main() || crate::agent::files::socket(&self.own_agent()).exists()
    }

    /// The folder of that agent.
    pub fn own_agent(&self) -> PathBuf {
        if self.is_main() { PathBuf::from(crate::agent::files::FOLDER) } else { self.root.join("agent") }
    }

    /// Whether it is the machine's main HQ.
    fn is_main(&self) -> bool {
        self.launcher.identity.suffix.is_empty()
    }

    /// The folder of one stack's own files.
    pub fn stack_folder(&self, stack: &StackName) -> PathBuf {
        self.root.join("stacks").join(stack.as_str())
    }

    /// The folder of one release's sites.
    pub fn sites_folder(&self, stack: &StackName, release: ReleaseNumber) -> PathBuf {
        self.root.join("sites").join(stack.as_str()).join(release.to_string())
    }
}

/// Which HQ lives at a root, from the root's digest in hexadecimal: the default root's docker names carry no suffix.
pub fn identity(root: &Path, digest: &str, secret: String) -> Identity {
    let id: String = digest.chars().take(8).collect();
    let suffix = if root == Path::new(crate::etc::ROOT) { String::new() } else { format!("-{}", &id[..4]) };
    Identity { id, suffix, secret }
}
