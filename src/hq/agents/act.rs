//! Keeps what every server should be up to date, and one follower for each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep, timeout};

use super::follow::act::{Follower, client};
use super::remote::Rivals;
use super::wanted::{Lock, Place, Ports, Wanted};
use super::{Agents, Remote};
use crate::agent::config::Contents;
use crate::agent::files::FOLDER;
use crate::agent::ssh::{Came, InstallError, Program, Routes, dismiss, install};
use crate::agent::{AgentError, Applied, Config};
use crate::db::epoch::Holder;
use crate::db::{DbError, Guard, layout};
use crate::hq::progress::detail;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::names::ServerName;
use crate::network::config::ConfigPath;
use crate::network::sshd;
use crate::servers::ssh::Line;

/// How often it is looked whether a server has come or gone.
const LOOK: Duration = Duration::from_millis(500);

/// Before changes are asked for again that the state no longer tells.
const AGAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether HQ's own wall stands, and the networks of every server are known.
const WALL: Duration = Duration::from_secs(10);

/// How long a launch waits for embassies that are told something.
const REFRESH: Duration = Duration::from_secs(3);

/// A follower and what it goes by.
struct Task {
    line: Option<Arc<Line>>,
    stop: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

/// What became of telling each server what it should be.
pub type Told = BTreeMap<ServerName, Result<Applied, AgentError>>;

/// How long a command waits for servers that are told something.
const TELL: Duration = Duration::from_secs(30);

impl Agents {
    /// Whether somebody follows agents.
    pub fn are_followed(&self) -> bool {
        self.0.followed.load(Ordering::Acquire)
    }

    /// Has all embassies that answer know what runs now, and waits for it, but not for long.
    pub async fn refresh(&self) {
        if !self.have_embassies() {
            return;
        }
        let mut answered = self.0.answered.subscribe();
        self.stir();
        let number = *self.0.asked.borrow();
        let done = answered.wait_for(|done| *done >= number);
        if timeout(REFRESH, done).await.is_err() {
            tracing::warn!("the embassies take too long to learn what has changed");
        }
    }

    /// What HQ brings to servers as their agent: its own program.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn program(&self) -> Result<&Program, InstallError> {
        self.0.program.get_or_try_init(Program::own).await
    }
}

impl Hq {
    /// Follows the agents of all servers until it is dropped. `ports` are where HQ and the routers listen.
    pub async fn follow_agents(self: Arc<Self>, ports: Ports) {
        self.agents.0.followed.store(true, Ordering::Release);
        let mut wishes = self.agents.wishes();
        let mut tasks: BTreeMap<ServerName, Task> = BTreeMap::new();
        tokio::spawn(self.clone().hear_wishes());
        let epoch = self.own_epoch().await;
        let (mut members, mut looks) = (None, interval(WALL));
        loop {
            let now = self.members();
            if members.as_ref() != Some(&now) || wishes.has_changed().unwrap_or(false) {
                wishes.mark_unchanged();
                match self.want(ports).await {
                    Ok(_) => members = Some(now.clone()),
                    Err(error) => {
                        tracing::warn!(%error, "it cannot be read what servers should be");
                        members = None;
                        sleep(AGAIN).await;
                    }
                }
            }
            self.follow_members(now.into_keys().collect(), &mut tasks, epoch);
            tokio::select! {
                _ = wishes.changed() => wishes.mark_changed(),
                _ = looks.tick() => self.look_after_ways().await,
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Values that somebody wrote by hand are wishes, too.
    async fn hear_wishes(self: Arc<Self>) {
        loop {
            match self.db.watch(layout::CONFIG).await {
                Ok(mut changes) => {
                    self.agents.wish();
                    while changes.next().await.is_some() {
                        self.agents.wish();
                    }
                }
                Err(error) => tracing::warn!(%error, "changes of config files are not heard"),
            }
            sleep(AGAIN).await;
        }
    }

    /// Which HQ this is among all that ever acted on its state.
    async fn own_epoch(&self) -> u64 {
        if !self.db.is_shared() {
            return 0;
        }
        loop {
            match layout::read_json::<Holder>(&*self.db, &layout::epoch()).await {
                Ok(holder) => return holder.map_or(0, |holder| holder.number),
                Err(error) => tracing::warn!(%error, "HQ's own epoch cannot be read"),
            }
            sleep(AGAIN).await;
        }
    }

    /// One follower for each server; another one where the way to it has changed.
    fn follow_members(
        self: &Arc<Self>,
        members: BTreeSet<ServerName>,
        tasks: &mut BTreeMap<ServerName, Task>,
        epoch: u64,
    ) {
        let mut ways: BTreeMap<ServerName, Option<Arc<Line>>> = BTreeMap::new();
        for server in members {
            if server != *self.engines().here() {
                ways.extend(self.lines.of(&server).ok().map(|line| (server, Some(line))));
            } else if self.has_own_agent() {
                ways.insert(server, None);
            }
        }
        let gone: Vec<ServerName> = tasks.keys().filter(|server| !ways.contains_key(*server)).cloned().collect();
        for server in gone {
            tasks.remove(&server);
            self.agents.forget(&server);
        }
        for (server, line) in ways {
            let same = |task: &Task| match (&task.line, &line) {
                (None, None) => true,
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (Some(_), None) | (None, Some(_)) => false,
            };
            if tasks.get(&server).is_some_and(same) {
                continue;
            }
            let rivals = if self.db.is_shared() { Rivals::Possible } else { Rivals::None };
            let remote = Arc::new(Remote::new(Arc::new(client(line.as_ref(), &self.own_agent())), epoch, rivals));
            self.agents.follow(server.clone(), remote.clone());
            let follower = Follower {
                server: server.clone(),
                line: line.clone(),
                remote,
                agents: self.agents.clone(),
                db: self.db.clone(),
                edge: self.launcher.edge.clone(),
                wanted: self.agents.wanted(),
                lease: self.settings.lease.duration(),
                due: Arc::new(Notify::new()),
                brings: line.is_some() || self.is_main(),
            };
            let stop = tokio::spawn(follower.follow()).abort_handle();
            tasks.insert(server, Task { line, stop });
        }
    }

    /// Finds out what every server should be, has it told from now on, and makes it so on HQ's own.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn want(&self, ports: Ports) -> Result<Arc<Wanted>, DbError> {
        // One after the other, each from its first look on: what was found out later counts.
        let _alone = self.agents.0.finding.lock().await;
        let before = self.agents.wanted().borrow().clone();
        let wanted = Arc::new(self.wanted(ports).await?);
        let here = self.engines().here();
        // Without it HQ serves on, and says what is missing.
        if before.is_none_or(|before| before.wall(here) != wanted.wall(here))
            && let Err(error) = self.build_own_wall(&wanted).await
        {
            tracing::error!(error = ?error, "a stack's containers can reach what others publish: {error}");
        }
        self.agents.want(wanted.clone());
        Ok(wanted)
    }

    /// What every server should be.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn wanted(&self, ports: Ports) -> Result<Wanted, DbError> {
        let here = self.engines().here().clone();
        let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
        let mut servers = BTreeMap::new();
        for (name, record) in self.server_records().await? {
            if let Some(way) = record.way {
                seen.insert(way.hq);
                let sshd = BTreeSet::from([way.address.port]);
                servers.insert(name, Place { addresses: vec![way.ip], sshd, tags: record.tags });
            }
        }
        let own = self.members().remove(&here);
        let mut addresses: Vec<IpAddr> = Vec::new();
        // Docker's bridge is no way for others.
        addresses.extend(own.iter().map(|own| own.ground.address).filter(|address| *address != self.bridge.address));
        addresses.extend(seen.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
        let tags = own.map(|own| own.tags).unwrap_or_default();
        let lock = layout::read_json::<Lock>(&*self.db, &layout::network()).await?;
        // Asking takes a moment, and only rules for HQ's own machine need to know.
        let sshd = if lock == Some(Lock::On) { sshd::ports().await } else { BTreeSet::new() };
        servers.insert(here.clone(), Place { addresses, sshd, tags });
        let hq = self.launcher.identity.id.clone();
        let subnets = self.settings.subnets.to_string();
        let (files, ways) = (self.config_files().await?, self.ways().await?);
        let (balancers, lent) = (self.settings.balancers.clone(), self.settings.build.ports.clone());
        let embassy = self.settings.embassy.address;
        Ok(Wanted { hq, subnets, lock, servers, here, ports, balancers, files, lent, ways, embassy })
    }

    /// The config files of every server. One whose key is damaged is left out with a warning.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn config_files(&self) -> Result<BTreeMap<ConfigPath, Contents>, DbError> {
        let mut files = BTreeMap::new();
        for entry in layout::all(&*self.db, layout::CONFIG_FILES).await? {
            match layout::config_path(&entry.key).and_then(|path| path.parse::<ConfigPath>().ok()) {
                Some(path) => drop(files.insert(path, Contents(entry.value))),
                None => tracing::warn!(key = %entry.key, "this is no path of a config file; left out"),
            }
        }
        Ok(files)
    }

    /// Whether servers refuse strangers, from now on.
    ///
    /// # Errors
    /// When the tree cannot be written.
    pub async fn lock_network(&self, lock: Lock) -> Result<Told, HqError> {
        self.check_awake()?;
        layout::put_json(&*self.db, &layout::network(), &lock, Guard::Any).await?;
        self.tell_all().await
    }

    /// Gives every server this config file, or takes it away.
    ///
    /// # Errors
    /// When the tree cannot be written, or the path is no key.
    pub async fn write_config(&self, path: &ConfigPath, bytes: Option<&[u8]>) -> Result<Told, HqError> {
        self.check_awake()?;
        let key = layout::config_file(&path.to_string())?;
        match bytes {
            Some(bytes) => drop(self.db.put(&key, bytes, Guard::Any, None).await?),
            None => self.db.delete(&key, Guard::Any).await?,
        }
        self.tell_all().await
    }

    /// Tells every server now what it should be, and waits for them all. Those that are away are told when they are
    /// back.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn tell_all(&self) -> Result<Told, HqError> {
        let known = self.agents.wanted().borrow().clone();
        let Some(known) = known else { return Ok(Told::new()) };
        self.want(known.ports).await?;
        let told = self.agents.all().into_iter().map(|(server, remote)| {
            let agents = self.agents.clone();
            async move {
                let told = timeout(TELL, remote.configure(|turn| agents.config(&server, turn))).await;
                let late = || AgentError::Away { place: format!("`{server}`"), why: "it takes too long".to_owned() };
                let told = told.unwrap_or_else(|_| Err(late()));
                (server, told)
            }
        });
        Ok(join_all(told).await.into_iter().collect())
    }

    /// Has the agent of a server that leaves take back what it did there, and ends it.
    ///
    /// # Errors
    /// When it is not reached; then what it did stays.
    pub async fn dismiss_agent(&self, server: &ServerName) -> Result<(), HqError> {
        let Some(remote) = self.agents.all().remove(server) else { return Ok(()) };
        remote.leaving.cancel();
        if timeout(TELL, remote.left.cancelled()).await.is_err() {
            tracing::warn!(%server, "the agent of a server that leaves is followed still");
        }
        let told = timeout(TELL, remote.configure(Config::nothing)).await;
        if let Ok(Err(error)) = told {
            tracing::warn!(%server, %error, "the agent that leaves does not take back what it did");
        }
        let line = self.lines.of(server)?;
        dismiss(&line, FOLDER).await.map_err(|error| HqError::Agent { server: server.clone(), source: error.into() })
    }

    /// Brings the agent to a server that joins. A server without one runs containers all the same.
    pub async fn bring_agent(&self, line: &Arc<Line>, tags: &BTreeSet<String>, say: Say<'_>) {
        let routes = if tags.contains(super::wanted::ROUTER) { Routes::Yes } else { Routes::No };
        let brought = match self.agents.program().await {
            Ok(program) => install(line, program, FOLDER, routes).await,
            Err(error) => Err(error),
        };
        match brought {
            Ok(Came::Runs) => say(&detail("its agent runs")),
            Ok(Came::Changed) => say(&detail("its agent was brought up to date")),
            Ok(Came::Started) => say(&detail("its agent was started")),
            Err(error) => {
                tracing::warn!(server = %line.server(), error = ?error, "the server has no agent");
                say(&detail(&format!("it has no agent, so strangers are not kept out: {error}")));
            }
        }
    }
}
