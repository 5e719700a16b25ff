//! Makes the cluster, changes who is in it, and moves HQ's state there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::db::copy::Target;
use crate::db::copy::act::copy;
use crate::db::etcd::{Cluster, Etcd};
use crate::db::{Db, layout};
use crate::etc;
use crate::etc::etcd::Secret;
use crate::hq::cluster::ClusterError;
use crate::hq::cluster::files::{authority, begun, known_authority, move_in, note_begun, write_endpoints};
use crate::hq::cluster::house::House;
use crate::hq::cluster::plan::{Step, next};
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

/// What is known while a cluster is changed.
pub struct Work<'a> {
    hq: &'a Hq,
    house: &'a House,
    say: Say<'a>,
    /// The servers that are to be members.
    wanted: Vec<Place>,
    /// Others, on which an attempt that was cut off may have begun.
    begun: Vec<Place>,
    authority: Authority,
    /// HQ's own.
    identity: Identity,
    /// Where the state is now, if that is a cluster.
    home: Option<Vec<String>>,
}

impl<'a> Work<'a> {
    /// With what is in HQ's settings, or made now.
    ///
    /// # Errors
    /// When the state is in somebody else's etcd, or the settings cannot be used.
    pub fn begin(hq: &'a Hq, house: &'a House, wanted: Vec<Place>, say: Say<'a>) -> Result<Self, HqError> {
        let now = hq.clock.now();
        let Some(home) = hq.home_settings()? else {
            let authority = authority(&house.etc, now)?;
            let identity = issue(&authority, &Whom::Hq, hq, house)?;
            let begun = remember(hq, house, &wanted)?;
            return Ok(Self { hq, house, say, wanted, begun, authority, identity, home: None });
        };
        note_begun(&house.etc, &BTreeSet::new())?;
        let place = || home.endpoints.join(", ");
        let own = known_authority(&house.etc)?.filter(|own| home.ca.as_ref() == Some(&own.certificate()));
        match (own, &home.identity) {
            (Some(authority), Some((certificate, Secret(key)))) => {
                let identity = Identity { certificate: certificate.clone(), key: key.clone() };
                let (begun, home) = (Vec::new(), Some(home.endpoints));
                Ok(Self { hq, house, say, wanted, begun, authority, identity, home })
            }
            _ => Err(ClusterError::Foreign { place: place() }.into()),
        }
    }

    /// The cluster as HQ asks it: where it is known to be, else where it is to be.
    fn cluster(&self) -> Cluster {
        let wanted = || self.wanted.iter().chain(&self.begun).map(Place::client).collect();
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

    /// Whether it is what HQ's state is in already.
    pub fn is_home(&self) -> bool {
        self.home.is_some()
    }

    /// One step after the other until the cluster is as it should be.
    ///
    /// # Errors
    /// What stands in the way; taken up again it goes on from there.
    pub async fn bring_about(&mut self) -> Result<(), HqError> {
        self.look_at_begun().await;
        for _ in 0..STEPS {
            let seats = match self.circle().look().await {
                Ok(seats) => seats,
                Err(CircleError::Away { place, .. }) => self.wake(place).await?,
                Err(error @ CircleError::Refused { .. }) => return Err(ClusterError::from(error).into()),
            };
            match next(&self.wanted, &seats) {
                Some(step) => self.perform(step, &seats).await?,
                None => {
                    self.begun.clear();
                    return Ok(());
                }
            }
        }
        Err(ClusterError::Restless.into())
    }

    /// No member answers. Those that have data are started; where there are none, the first member is made. What a
    /// server has that is no member of HQ's home is none of its data: it left, and could not be cleared.
    async fn wake(&self, place: String) -> Result<Vec<Seat>, HqError> {
        let may_have = |place: &&Place| self.home.as_ref().is_none_or(|home| home.contains(&place.client()));
        let mut kept = Vec::new();
        for place in self.wanted.iter().filter(may_have) {
            match self.link(place).await {
                Ok(link) if data(&link).await.map_err(at(place))? == Data::There => kept.push((place, link)),
                Ok(_) => {}
                // Most are enough; a cluster to be made needs all.
                Err(error) if self.home.is_some() => (self.say)(&detail(&told(&error))),
                Err(error) => return Err(error),
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
            (self.say)(&detail(&format!(
                "its server keeps its data, which nobody starts any more: {}",
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
            )));
        }
        Ok(())
    }

    /// Keeps to what an earlier attempt has begun elsewhere and answers: its members leave as others would. What does not
    /// answer may hold anything, and is a person's to look at.
    async fn look_at_begun(&mut self) {
        for place in std::mem::take(&mut self.begun) {
            match self.circle().health(&place.client()).await {
                Health::Healthy { .. } => self.begun.push(place),
                Health::Away { why } => {
                    let server = &place.server;
                    tracing::warn!(%server, why, "an etcd that was begun does not answer");
                    (self.say)(&detail(&format!("the etcd that was begun on {server} before is left as it is: {why}")));
                }
            }
        }
    }

    async fn clear(&self, seat: &Seat) -> Result<(), HqError> {
        let on = |ip| self.hq.members().into_iter().find(|(_, member)| member.ground.address == ip);
        let Some((server, _)) = host(&seat.peer).and_then(on) else { return Ok(()) };
        let link = self.hq.lines.of(&server)?.link().await.map_err(ServerError::Link)?;
        clear(&link).await.map_err(|source| ClusterError::Member { server, source: source.into() })?;
        Ok(())
    }

    /// HQ asks all who vote from now on.
    ///
    /// # Errors
    /// When none answers, or that cannot be written.
    pub async fn settle(&mut self) -> Result<(), HqError> {
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
    ///
    /// # Errors
    /// What stands in the way; the state stays where it is.
    pub async fn move_state(&self) -> Result<(), HqError> {
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
        // Where that cannot be, the next change of the cluster does it.
        let _ = note_begun(&self.house.etc, &BTreeSet::new());
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

/// Notes where an etcd is begun; the answer is where else one was.
fn remember(hq: &Hq, house: &House, wanted: &[Place]) -> Result<Vec<Place>, ClusterError> {
    let named = |server: &ServerName| wanted.iter().any(|place| place.server == *server);
    let mut all = begun(&house.etc)?;
    let members = hq.members();
    let others = all.iter().filter(|server| !named(server));
    let others =
        others.filter_map(|server| Some(Place { server: server.clone(), ip: members.get(server)?.ground.address }));
    let others = others.collect();
    all.extend(wanted.iter().map(|place| place.server.clone()));
    note_begun(&house.etc, &all)?;
    Ok(others)
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

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn titles(seats: &[Seat]) -> String {
    seats.iter().map(Seat::title).collect::<Vec<_>>().join(", ")
}
