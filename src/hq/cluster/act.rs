//! Makes the cluster, changes who is in it, and moves HQ's state there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::files::{authority, known_authority, move_in, write_endpoints};
use super::house::House;
use super::plan::{Step, check, next};
use super::{ClusterError, Shown, ShownMember, instead};
use crate::db::copy::Target;
use crate::db::copy::act::copy;
use crate::db::etcd::{Cluster, Etcd};
use crate::db::{Db, layout};
use crate::etc;
use crate::etc::etcd::Secret;
use crate::hq::progress::{detail, phase};
use crate::hq::servers::ServerError;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::names::ServerName;
use crate::servers::authority::{Authority, Identity, Whom};
use crate::servers::etcd::circle::{Circle, CircleError};
use crate::servers::etcd::process::{Data, MemberError, Papers, clear, data, start, supply, why};
use crate::servers::member::{Birth, Health, Place, Seat, Voice, host};
use crate::servers::ssh::Link;

/// From its start until a member answers.
const STARTING: Duration = Duration::from_secs(60);
/// Pause between two looks whether it does.
const AGAIN: Duration = Duration::from_millis(200);
/// More steps than any change takes.
const STEPS: usize = 40;

/// What those hear who wait for it.
const MOVE: &str = "the move of HQ's state into etcd, after which HQ begins anew: try again then";

/// What became of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was in etcd before.
    Stayed,
    /// It is there now, and HQ begins anew.
    Moved,
}

/// What is known while a cluster is changed.
struct Work<'a> {
    hq: &'a Hq,
    house: &'a House,
    say: Say<'a>,
    /// The servers that are to be members.
    wanted: Vec<Place>,
    authority: Authority,
    /// HQ's own.
    identity: Identity,
    /// Where the state is now, if that is a cluster.
    home: Option<Vec<String>>,
}

impl Hq {
    /// HQ serves, and this is its home.
    pub fn inhabit(&self, house: House) {
        // A second one would be a second `serve` in one process.
        let _ = self.house.set(house);
    }

    /// What a serving HQ has in hand of its home.
    pub fn house(&self) -> Option<&House> {
        self.house.get()
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
        match &work.home {
            Some(_) => {
                work.settle().await?;
                Ok(Outcome::Stayed)
            }
            None => {
                work.move_state().await?;
                Ok(Outcome::Moved)
            }
        }
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
    fn home_settings(&self) -> Result<Option<etc::etcd::Etcd>, ClusterError> {
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
            Err(error) => {
                let silent = |endpoint: &String| Seat {
                    id: 0,
                    name: None,
                    peer: endpoint.clone(),
                    voice: Voice::Voter,
                    health: Health::Away { why: error.to_string() },
                };
                home.endpoints.iter().map(|endpoint| self.shown(&silent(endpoint))).collect()
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

impl<'a> Work<'a> {
    /// With what is in HQ's settings, or made now.
    fn begin(hq: &'a Hq, house: &'a House, wanted: Vec<Place>, say: Say<'a>) -> Result<Self, HqError> {
        let now = hq.clock.now();
        let Some(home) = hq.home_settings()? else {
            let authority = authority(&house.etc, now)?;
            let identity = issue(&authority, &Whom::Hq, hq, house)?;
            return Ok(Self { hq, house, say, wanted, authority, identity, home: None });
        };
        let place = || home.endpoints.join(", ");
        let own = known_authority(&house.etc)?.filter(|own| home.ca.as_ref() == Some(&own.certificate()));
        match (own, &home.identity) {
            (Some(authority), Some((certificate, Secret(key)))) => {
                let identity = Identity { certificate: certificate.clone(), key: key.clone() };
                Ok(Self { hq, house, say, wanted, authority, identity, home: Some(home.endpoints) })
            }
            _ => Err(ClusterError::Foreign { place: place() }.into()),
        }
    }

    /// The cluster as HQ asks it: where it is known to be, else where it is to be.
    fn cluster(&self) -> Cluster {
        let wanted = || self.wanted.iter().map(Place::client).collect();
        Cluster {
            endpoints: self.home.clone().unwrap_or_else(wanted),
            prefix: etc::etcd::PREFIX.to_owned(),
            ca: Some(self.authority.certificate()),
            identity: Some((self.identity.certificate.clone(), self.identity.key.clone())),
            login: None,
        }
    }

    fn circle(&self) -> Circle {
        Circle::new(self.cluster())
    }

    /// One step after the other until the cluster is as it should be.
    async fn bring_about(&mut self) -> Result<(), HqError> {
        for _ in 0..STEPS {
            let seats = match self.circle().look().await {
                Ok(seats) => seats,
                Err(CircleError::Away { place, .. }) => self.wake(place).await?,
                Err(error @ CircleError::Refused { .. }) => return Err(ClusterError::from(error).into()),
            };
            match next(&self.wanted, &seats) {
                Some(step) => self.perform(step, &seats).await?,
                None => return Ok(()),
            }
        }
        Err(ClusterError::Restless.into())
    }

    /// No member answers. Those that have data are started; where there are none, the first member is made.
    async fn wake(&self, place: String) -> Result<Vec<Seat>, HqError> {
        let mut kept = Vec::new();
        for place in &self.wanted {
            let link = self.link(place).await?;
            if data(&link).await.map_err(at(place))? == Data::There {
                kept.push((place, link));
            }
        }
        for (place, link) in &kept {
            (self.say)(&phase(&format!("Starting etcd on {} again", place.server)));
            self.start(place, link, &Birth::Joins(&self.wanted)).await?;
        }
        let first = match kept.first() {
            Some((place, _)) => *place,
            None if self.home.is_some() => return Err(ClusterError::Lost { place }.into()),
            None => self.found().await?,
        };
        let until = Instant::now() + STARTING;
        loop {
            match self.circle().look().await {
                Ok(seats) => return Ok(seats),
                Err(_) if Instant::now() < until => sleep(AGAIN).await,
                Err(error) => return Err(self.silent(first, error.to_string()).await.into()),
            }
        }
    }

    /// The first member.
    async fn found(&self) -> Result<&Place, HqError> {
        let place = &self.wanted[0];
        (self.say)(&phase(&format!("Making an etcd on {}", place.server)));
        let link = self.prepare(place).await?;
        let token = format!("quarry-{}-{}", self.hq.launcher.identity.id, self.hq.clock.now().as_millisecond());
        self.start(place, &link, &Birth::Founds(&token)).await?;
        Ok(place)
    }

    async fn perform(&mut self, step: Step, seats: &[Seat]) -> Result<(), HqError> {
        match step {
            Step::Mend(seat, place) => self.mend(&seat, &place, seats).await,
            Step::Add(place) => self.add(&place, seats).await,
            Step::Promote(seat, place) => {
                if !seat.is_healthy() {
                    let link = self.link(&place).await?;
                    self.start(&place, &link, &Birth::Joins(&others(seats))).await?;
                }
                self.promote(seat.id, &place).await
            }
            Step::Remove(seat) => self.remove(&seat, seats).await,
        }
    }

    /// A member that does not answer is started again; without its data it is none, and has to begin as a new one.
    async fn mend(&mut self, seat: &Seat, place: &Place, seats: &[Seat]) -> Result<(), HqError> {
        let link = self.link(place).await?;
        supply(&link, || (self.say)(&detail("installing it from the distribution"))).await.map_err(at(place))?;
        if data(&link).await.map_err(at(place))? == Data::Absent {
            return self.remove(seat, seats).await;
        }
        (self.say)(&phase(&format!("Starting etcd on {} again", place.server)));
        self.start(place, &link, &Birth::Joins(&others(seats))).await?;
        self.wait_for(place).await
    }

    /// One more member. It listens first and votes once it knows what the others do.
    async fn add(&mut self, place: &Place, seats: &[Seat]) -> Result<(), HqError> {
        (self.say)(&phase(&format!("Adding {} to the etcd of {}", place.server, titles(seats))));
        let link = self.prepare(place).await?;
        let id = self.circle().add(&place.peer()).await.map_err(ClusterError::from)?;
        self.start(place, &link, &Birth::Joins(&others(seats))).await?;
        self.promote(id, place).await
    }

    async fn promote(&mut self, id: u64, place: &Place) -> Result<(), HqError> {
        self.wait_for(place).await?;
        self.circle().promote(id).await.map_err(ClusterError::from)?;
        self.settle().await
    }

    /// A member leaves. HQ asks the others from then on, and its server keeps nothing of the state.
    async fn remove(&mut self, seat: &Seat, seats: &[Seat]) -> Result<(), HqError> {
        (self.say)(&phase(&format!("Taking {} out of etcd", seat.title())));
        if seat.voice == Voice::Voter {
            let left = seats.iter().filter(|other| other.id != seat.id && other.voice == Voice::Voter);
            self.go_by(left)?;
        }
        self.circle().remove(seat.id).await.map_err(ClusterError::from)?;
        if let Err(error) = self.clear(seat).await {
            tracing::warn!(member = seat.title(), error = ?error, "a member that left keeps its data");
            (self.say)(&detail("its server cannot be cleared of it now"));
        }
        Ok(())
    }

    async fn clear(&self, seat: &Seat) -> Result<(), HqError> {
        let on = |ip| self.hq.members().into_iter().find(|(_, member)| member.ground.address == ip);
        let Some((server, _)) = host(&seat.peer).and_then(on) else { return Ok(()) };
        let link = self.hq.lines.of(&server)?.link().await.map_err(ServerError::Link)?;
        clear(&link).await.map_err(|source| ClusterError::Member { server, source: source.into() })?;
        Ok(())
    }

    /// HQ asks all who vote.
    async fn settle(&mut self) -> Result<(), HqError> {
        let seats = self.circle().look().await.map_err(ClusterError::from)?;
        Ok(self.go_by(seats.iter().filter(|seat| seat.voice == Voice::Voter))?)
    }

    /// HQ asks these from now on, also after its next start. As long as its state is elsewhere it asks nobody.
    fn go_by<'s>(&mut self, seats: impl Iterator<Item = &'s Seat>) -> Result<(), ClusterError> {
        let Some(home) = &mut self.home else { return Ok(()) };
        let places = self.hq.members();
        let client = |seat: &Seat| {
            let (server, _) = places.iter().find(|(_, member)| host(&seat.peer) == Some(member.ground.address))?;
            Some(Place { server: server.clone(), ip: host(&seat.peer)? }.client())
        };
        let endpoints: Vec<String> = seats.filter_map(client).collect();
        if !endpoints.is_empty() && endpoints != *home {
            write_endpoints(&self.house.etc, &endpoints)?;
            self.hq.db.relocate(&endpoints);
            *home = endpoints;
        }
        Ok(())
    }

    /// The state goes into the cluster while nothing writes. Killed at any instant, HQ has one home that is whole: the
    /// settings change in one step, and nothing is written in the old one any more.
    async fn move_state(&self) -> Result<(), HqError> {
        let Some(gate) = &self.house.gate else { return Err(HqError::Asleep) };
        let mut turns = Vec::new();
        for stack in self.hq.known_stacks().await? {
            turns.push(self.hq.turn(&stack, MOVE, self.say).await);
        }
        (self.say)(&phase("Moving HQ's state into etcd"));
        let closed = gate.close().await;
        let to = Etcd::new(&self.cluster());
        if to.read(&layout::last_epoch()).await.map_err(ClusterError::Look)?.is_some() {
            return Err(ClusterError::Inhabited.into());
        }
        // What an attempt that was cut off left there counts for nothing.
        let copied = copy(gate.home(), &to, Target::Replaced).await.map_err(ClusterError::Copy)?;
        let endpoints: Vec<String> = self.wanted.iter().map(Place::client).collect();
        move_in(&self.house.etc, &endpoints, &self.authority, &self.identity)?;
        (self.say)(&detail(&format!("{} keys ({} bytes), read back", copied.keys, copied.bytes)));
        tracing::info!(keys = copied.keys, "the state is in etcd; HQ begins anew");
        self.house.leave(turns, closed);
        Ok(())
    }

    async fn link(&self, place: &Place) -> Result<Arc<Link>, HqError> {
        let line = self.hq.lines.of(&place.server)?;
        Ok(line.link().await.map_err(|error| at(place)(MemberError::Link(error)))?)
    }

    /// A server on which a member can be started that has nothing of an earlier one.
    async fn prepare(&self, place: &Place) -> Result<Arc<Link>, HqError> {
        let link = self.link(place).await?;
        supply(&link, || (self.say)(&detail("installing it from the distribution"))).await.map_err(at(place))?;
        clear(&link).await.map_err(at(place))?;
        Ok(link)
    }

    async fn start(&self, place: &Place, link: &Link, birth: &Birth<'_>) -> Result<(), HqError> {
        let whom = Whom::Member { name: place.server.to_string(), ip: place.ip };
        let identity = issue(&self.authority, &whom, self.hq, self.house)?;
        let (settings, authority) = (place.settings(birth), self.authority.certificate());
        let papers = Papers { settings: &settings, identity: &identity, authority: &authority };
        Ok(start(link, &papers).await.map_err(at(place))?)
    }

    async fn wait_for(&self, place: &Place) -> Result<(), HqError> {
        let until = Instant::now() + STARTING;
        loop {
            match self.circle().health(&place.client()).await {
                Health::Healthy { .. } => return Ok(()),
                Health::Away { .. } if Instant::now() < until => sleep(AGAIN).await,
                Health::Away { why } => return Err(self.silent(place, why).await.into()),
            }
        }
    }

    /// What it says itself explains more than that it does not answer.
    async fn silent(&self, place: &Place, heard: String) -> ClusterError {
        let own = match self.link(place).await {
            Ok(link) => why(&link).await,
            Err(_) => None,
        };
        ClusterError::Silent { server: place.server.clone(), why: own.unwrap_or(heard) }
    }
}

fn issue(authority: &Authority, whom: &Whom, hq: &Hq, house: &House) -> Result<Identity, ClusterError> {
    let failed = |source| ClusterError::Authority { path: house.etc.join(etc::AUTHORITY), source };
    authority.issue(whom, hq.clock.now()).map_err(failed)
}

fn at(place: &Place) -> impl Fn(MemberError) -> ClusterError {
    let server = place.server.clone();
    move |source| ClusterError::Member { server: server.clone(), source: source.into() }
}

/// Where the members are that there are already.
fn others(seats: &[Seat]) -> Vec<Place> {
    let voters = seats.iter().filter(|seat| seat.voice == Voice::Voter);
    voters.filter_map(|seat| Some(Place { server: seat.name.as_ref()?.parse().ok()?, ip: host(&seat.peer)? })).collect()
}

fn titles(seats: &[Seat]) -> String {
    seats.iter().map(Seat::title).collect::<Vec<_>>().join(", ")
}

fn cluster(home: &etc::etcd::Etcd) -> Cluster {
    let open = |(name, secret): &(String, Secret)| (name.clone(), secret.0.clone());
    Cluster {
        endpoints: home.endpoints.clone(),
        prefix: home.prefix.clone(),
        ca: home.ca.clone(),
        identity: home.identity.as_ref().map(open),
        login: home.login.as_ref().map(open),
    }
}
