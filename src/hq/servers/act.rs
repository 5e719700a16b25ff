//! Reads and writes what is known of servers, and keeps HQ's list of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, PoisonError};

use super::{Listed, ServerError};
use crate::db::{DbError, Guard, layout};
use crate::docker::bollard::Docker;
use crate::docker::{Engine, Wire};
use crate::grid::{Slice, Standing};
use crate::hq::fleet::presence::Presence;
use crate::hq::fleet::{Member, Seen, Survey};
use crate::hq::{Hq, HqError, limits};
use crate::launch::{Ground, label};
use crate::names::{ContainerName, ServerName};
use crate::servers::ssh::{KeyPair, Line, Login, State};
use crate::servers::{Record, Way};
use crate::units::{Megabytes, Millis};

/// HQ's key for servers, in its root folder.
const KEY: &str = "server_key";

impl Hq {
    /// What is known of every server that was added or changed. A damaged record is left out with a warning.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn server_records(&self) -> Result<BTreeMap<ServerName, Record>, DbError> {
        let mut records = BTreeMap::new();
        for name in self.db.names(layout::SERVERS).await? {
            let Ok(name) = name.parse::<ServerName>() else { continue };
            match layout::read_json::<Record>(&*self.db, &layout::server_settings(&name)).await {
                Ok(record) => records.extend(record.map(|record| (name, record))),
                Err(error @ DbError::Damaged { .. }) => tracing::warn!(server = %name, %error, "a server is left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Begins to connect to every known server, so that stacks can be brought to rest there too.
    ///
    /// # Errors
    /// When the tree or HQ's key cannot be read.
    pub async fn open_servers(&self) -> Result<(), HqError> {
        let records = self.server_records().await?;
        if records.is_empty() {
            return Ok(());
        }
        let key = self.server_key().await?;
        for (name, record) in &records {
            match &record.way {
                Some(way) => {
                    let login = Login::Key(key.clone());
                    let line = Line::open(name.clone(), way.address.clone(), login, way.host_key.clone());
                    self.join(Arc::new(line), record);
                }
                None => self.note_member(name, record),
            }
        }
        Ok(())
    }

    /// The key with which HQ logs in to servers, made when first needed.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub async fn server_key(&self) -> Result<KeyPair, ServerError> {
        let path = self.root.join(KEY);
        // Two who come at once must not make two.
        let _alone = self.key_making.lock().await;
        let opened = tokio::task::spawn_blocking(move || KeyPair::open_or_create(&path)).await;
        Ok(opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
    }

    /// A server is one of HQ's from now on.
    pub(super) fn join(&self, line: Arc<Line>, record: &Record) {
        let server = line.server().clone();
        self.lines.add(line.clone());
        self.enrol(&server, record, Arc::new(Docker::over(line as Arc<dyn Wire>)));
    }

    /// The same, with an engine that need not be at the end of a line.
    pub fn enrol(&self, server: &ServerName, record: &Record, engine: Arc<dyn Engine>) {
        self.note_member(server, record);
        // Last: whoever finds the engine finds the rest.
        self.engines().add(server.clone(), engine);
        self.fleet_changed.notify_one();
    }

    /// Writes what is known of a server; the settings last, because they make it one.
    ///
    /// # Errors
    /// When the tree cannot be written.
    pub(super) async fn keep_server(&self, server: &ServerName, record: &Record) -> Result<(), DbError> {
        let ip = record.way.as_ref().map(|way| way.ip.to_string());
        let values = [("id", Some(server.to_string())), ("ip", ip), ("hostname", Some(record.hostname.clone()))];
        for (name, value) in values.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            let line = format!("{value}\n");
            self.db.put(&layout::server_value(server, name), line.as_bytes(), Guard::Any, None).await?;
        }
        layout::put_json(&*self.db, &layout::server_settings(server), record, Guard::Any).await
    }

    fn note_member(&self, server: &ServerName, record: &Record) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let address = match &record.way {
            Some(way) => way.ip,
            None => members.get(server).map_or(self.bridge.address, |member| member.ground.address),
        };
        let ground = Ground { address, ports: self.bridge.ports.clone() };
        members.insert(server.clone(), Member::of(record, ground));
        // What other servers can reach, instead of docker's own bridge.
        if let (Some(way), Some(own)) = (&record.way, members.get_mut(self.engines().here())) {
            own.ground.address = self.own_address(way, own.ground.address);
        }
    }

    /// HQ's address towards other servers; what it was when that is not one of this machine's.
    fn own_address(&self, way: &Way, now: IpAddr) -> IpAddr {
        if let Some(address) = self.settings.address {
            return address;
        }
        if now != self.bridge.address {
            return now;
        }
        if is_own(way.hq) {
            return way.hq;
        }
        tracing::warn!(address = %way.hq, "servers see HQ under an address it does not have; set `address`");
        now
    }

    /// The record of a server; one of HQ's own server is made up when there is none.
    ///
    /// # Errors
    /// [`ServerError::NoServer`].
    pub async fn server_record(&self, server: &ServerName) -> Result<Record, HqError> {
        let known = self.server_records().await?.remove(server);
        match known {
            Some(record) => Ok(record),
            None if server == self.engines().here() => Ok(limits::own_record()),
            None => Err(ServerError::NoServer(server.clone()).into()),
        }
    }

    /// Changes what a person decides of a server.
    ///
    /// # Errors
    /// When there is no such server, it is to take containers while it is being taken out, or the tree cannot be written.
    pub async fn change_server(
        &self,
        server: &ServerName,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<Record, HqError> {
        self.check_awake()?;
        let _alone = self.records.lock().await;
        let mut record = self.server_record(server).await?;
        change(&mut record);
        if record.standing == Standing::Up && self.leaving.contains(server) {
            return Err(ServerError::Leaving(server.clone()).into());
        }
        self.keep_server(server, &record).await?;
        self.note_member(server, &record);
        // What has no room so far may have it now, and what runs there may have to leave.
        self.fleet_changed.notify_one();
        Ok(record)
    }

    /// Takes what the tree says of the servers: a record may have been edited by hand, or written by a change whose answer
    /// got lost.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub(in crate::hq) async fn notice_records(&self) -> Result<(), DbError> {
        // Whoever is at it knows better, and is not waited for.
        let Ok(_alone) = self.records.try_lock() else { return Ok(()) };
        let members = self.members();
        for (server, record) in self.server_records().await? {
            let Some(known) = members.get(&server) else { continue };
            let same = known.size == record.size && known.tags == record.tags && known.standing == record.standing;
            if !same {
                self.note_member(&server, &record);
            }
        }
        Ok(())
    }

    /// Every server with what runs there.
    ///
    /// # Errors
    /// When the tree cannot be read, or HQ's own engine does not answer.
    pub async fn list_servers(&self) -> Result<Vec<Listed>, HqError> {
        let mut records = self.server_records().await?;
        records.entry(self.engines().here().clone()).or_insert_with(limits::own_record);
        let expected = self.expected_servers(&records).await?;
        let survey = self.survey().await?;
        let grid = self.grid_of(&survey.containers, &self.going().await);
        let listed = |(name, record): (ServerName, Record)| {
            let why = self.why_down(&name, &record, &survey);
            let used = grid.slices.get(&name).map_or(Megabytes(0), Slice::used);
            Listed {
                from: match (&record.way, &record.order) {
                    (None, _) => "here",
                    (Some(_), None) => "added",
                    (Some(_), Some(_)) => "cloud",
                },
                address: record.way.as_ref().map(|way| way.address.to_string()),
                ip: record.way.as_ref().map(|way| way.ip),
                host_key: record.way.as_ref().map(|way| way.host_key.fingerprint()),
                state: match (self.presence(&name), why.is_some()) {
                    (Presence::Gone, _) => "lost",
                    (Presence::Returning, false) => "returning",
                    (_, true) => "down",
                    (Presence::Up | Presence::Suspect, false) => record.standing.word(),
                },
                why,
                used,
                free: Megabytes(record.size.0.saturating_sub(used.0)),
                containers: self.own_containers(&survey, &name),
                name,
                hostname: record.hostname,
                size: record.size,
                processors: record.processors,
                architecture: record.architecture.to_string(),
                tags: record.tags,
            }
        };
        Ok(records.into_iter().map(listed).chain(expected).collect())
    }

    /// Why a server cannot be used now, with all that is known of it.
    fn why_down(&self, server: &ServerName, record: &Record, survey: &Survey) -> Option<String> {
        record.way.as_ref()?;
        let Ok(line) = self.lines.of(server) else { return Some("no HQ serves that would be connected".to_owned()) };
        let state = line.state().borrow().clone();
        match state {
            State::Up => survey.silent.get(server).cloned(),
            State::Connecting => Some("it is being connected to".to_owned()),
            State::Down { why, since } => match since.elapsed().as_secs() {
                0 => Some(format!("{why} (just now)")),
                seconds => Some(format!("{why} (for {})", Millis::seconds(seconds))),
            },
        }
    }

    /// The containers of this HQ on one server.
    pub(in crate::hq) fn own_containers(&self, survey: &Survey, server: &ServerName) -> Vec<ContainerName> {
        let own = |seen: &&Seen| {
            seen.server == *server && seen.container.labels.get(label::HQ) == Some(&self.launcher.identity.id)
        };
        survey.containers.iter().filter(own).map(|seen| seen.container.name.clone()).collect()
    }

    /// Servers that are being emptied.
    pub fn draining(&self) -> Vec<ServerName> {
        let members = self.members().into_iter();
        members.filter(|(_, member)| member.standing == Standing::Draining).map(|(name, _)| name).collect()
    }
}

/// Whether an address is one of this machine's.
pub(super) fn is_own(address: IpAddr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}
