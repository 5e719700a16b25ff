//! Shows where HQ's state is, and sees to it that it is where it should be.

use std::sync::Arc;

use futures_util::future::join_all;

use super::change::act::Work;
use super::house::House;
use super::plan::check;
use super::{ClusterError, Shown, ShownMember, instead};
use crate::db::etcd::Cluster;
use crate::etc;
use crate::etc::etcd::Secret;
use crate::hq::servers::ServerError;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::names::ServerName;
use crate::servers::etcd::circle::Circle;
use crate::servers::member::{Place, Seat, Voice, host};

/// What became of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was in etcd before.
    Stayed,
    /// It is there now, and HQ begins anew.
    Moved,
}

impl Hq {
    /// HQ serves, and this is its home.
    pub fn inhabit(&self, house: Arc<House>) {
        // A second one would be a second `serve` in one process.
        let _ = self.house.set(house);
    }

    /// What a serving HQ has in hand of its home.
    pub fn house(&self) -> Option<&House> {
        self.house.get().map(|house| &**house)
    }

    /// Makes these servers, and no others, the members of the etcd that HQ's state is in, and moves it there when it is
    /// not there yet. Taken up again it goes on where an earlier attempt ended.
    ///
    /// # Errors
    /// What stands in the way; the state is then where it was.
    pub async fn make_cluster(self: &Arc<Self>, servers: Vec<ServerName>, say: Say<'_>) -> Result<Outcome, HqError> {
        self.check_awake()?;
        check(&servers)?;
        let house = self.house().ok_or(HqError::Asleep)?;
        let wanted = self.places(&servers)?;
        let _alone = house.alone.lock().await;
        if house.is_left() {
            return Ok(Outcome::Moved);
        }
        let mut work = Work::begin(self, house, wanted, say)?;
        work.bring_about().await?;
        if work.is_home() {
            work.settle().await?;
            return Ok(Outcome::Stayed);
        }
        work.move_state().await?;
        Ok(Outcome::Moved)
    }

    /// Where these servers are. It is known without the state, which may be away.
    fn places(&self, servers: &[ServerName]) -> Result<Vec<Place>, HqError> {
        let members = self.members();
        let place = |server: &ServerName| {
            if server == self.engines().here() {
                return Err(ClusterError::Own(server.clone()).into());
            }
            match members.get(server) {
                Some(member) => Ok(Place { server: server.clone(), ip: member.ground.address }),
                None => Err(ServerError::NoServer(server.clone()).into()),
            }
        };
        servers.iter().map(place).collect()
    }

    /// Where the settings say the state is; the settings' file is read, as members may have come since HQ started.
    pub(super) fn home_settings(&self) -> Result<Option<etc::etcd::Etcd>, ClusterError> {
        match self.house() {
            Some(house) => Ok(etc::files::read(&house.etc)?.etcd),
            None => Ok(self.settings.etcd.clone()),
        }
    }

    /// Where the state is and how its members stand; it is told also when none of them answers.
    ///
    /// # Errors
    /// When the settings cannot be read.
    pub async fn show_cluster(&self) -> Result<Shown, ClusterError> {
        let Some(home) = self.home_settings()? else {
            let place = self.root.display().to_string();
            return Ok(Shown { home: "files", place, members: Vec::new() });
        };
        let place = home.endpoints.join(", ");
        let cluster = cluster(&home);
        let seats = Circle::new(cluster.clone()).look().await;
        let members = match seats {
            Ok(seats) => seats.iter().map(|seat| self.shown(seat)).collect(),
            Err(_) => {
                let circle = Circle::new(cluster);
                let seat = async |endpoint: &String| {
                    let (peer, health) = (endpoint.clone(), circle.health(endpoint).await);
                    Seat { id: 0, name: None, peer, voice: Voice::Voter, health }
                };
                let seats = join_all(home.endpoints.iter().map(seat)).await;
                seats.iter().map(|seat| self.shown(seat)).collect()
            }
        };
        Ok(Shown { home: "etcd", place, members })
    }

    fn shown(&self, seat: &Seat) -> ShownMember {
        let ip = host(&seat.peer);
        let on = |ip| self.members().into_iter().find(|(_, member)| Some(member.ground.address) == ip);
        let server = on(ip).map(|(server, _)| server.to_string());
        let name = server.unwrap_or_else(|| seat.title().to_owned());
        let address = ip.map_or_else(|| seat.peer.clone(), |ip| ip.to_string());
        ShownMember::of(seat, name, address)
    }

    /// Refuses to let go of a server that has a part of the state.
    ///
    /// # Errors
    /// [`ClusterError::IsMember`] with what to do instead.
    pub fn check_no_member(&self, server: &ServerName) -> Result<(), HqError> {
        let Some(home) = self.home_settings()? else { return Ok(()) };
        let members = self.members();
        let Some(own) = members.get(server).map(|member| member.ground.address) else { return Ok(()) };
        if !home.endpoints.iter().any(|endpoint| host(endpoint) == Some(own)) {
            return Ok(());
        }
        let is_other = |name: &ServerName| name != server && name != self.engines().here();
        let others: Vec<String> = members.keys().filter(|name| is_other(name)).map(ToString::to_string).collect();
        Err(ClusterError::IsMember { server: server.clone(), others: instead(&others) }.into())
    }
}

/// The cluster that settings name.
pub fn cluster(home: &etc::etcd::Etcd) -> Cluster {
    let open = |(name, secret): &(String, Secret)| (name.clone(), secret.0.clone());
    Cluster {
        endpoints: home.endpoints.clone(),
        prefix: home.prefix.clone(),
        ca: home.ca.clone(),
        identity: home.identity.as_ref().map(open),
        login: home.login.as_ref().map(open),
    }
}
