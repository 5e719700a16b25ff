//! Looks at a rental, asks what comes next, does it, and notes it: in this order, so that HQ may end anywhere between.

use std::sync::Arc;

use async_trait::async_trait;

use super::Progress;
use crate::db::{DbError, Guard, layout};
use crate::grid::Standing;
use crate::hq::cloud::gate::Gate;
use crate::hq::cloud::rental::{Move, Rental, Seen, Server, Stage};
use crate::hq::cloud::{Rents, SizingError};
use crate::hq::fleet::Survey;
use crate::hq::fleet::presence::Presence;
use crate::hq::servers::leave::Force;
use crate::hq::servers::{ServerError, Wanted};
use crate::hq::{Hq, HqError};
use crate::names::ServerName;
use crate::servers::cloud::{Machine, MachineState, Order};

/// Machines are entered by SSH, as `servers add` does it: their cloud has let HQ's key in.
pub struct OverSsh;

#[async_trait]
impl Gate for OverSsh {
    async fn admit(&self, hq: &Arc<Hq>, wanted: Wanted) -> Result<(), HqError> {
        hq.add_server(wanted, None, &|line| tracing::debug!(line, "a rented machine becomes a server")).await.map(drop)
    }
}

impl Hq {
    /// Brings a rental as far as it goes now.
    ///
    /// # Errors
    /// What stands in its way. It may be gone on with at any time.
    pub(in crate::hq::cloud) async fn bring_forward(
        self: &Arc<Self>,
        server: &ServerName,
    ) -> Result<Progress, HqError> {
        let rents = self.sizing.rents()?.clone();
        loop {
            let Some(rental) = layout::read_json::<Rental>(&*self.db, &layout::rental(server)).await? else {
                return Ok(Progress::Rests);
            };
            let machine = self.machine_of(&rents, &rental).await?;
            let seen = Seen { machine, server: self.server_of(server, &rental).await? };
            let next = rental.next(&seen, self.clock.now(), rents.create_timeout);
            tracing::debug!(%server, stage = ?rental.stage, ?next, "a rented machine");
            match next {
                Move::Rest => return Ok(Progress::Rests),
                Move::Wait => return Ok(Progress::Waits),
                Move::Create => self.create(&rents, server, rental).await?,
                Move::Admit(machine) => self.admit(&rents, server, rental, machine).await?,
                Move::Empty => match self.empty(server).await? {
                    Emptied::Yes => self.note_rental(server, rental, Stage::Ending).await?,
                    Emptied::No => {
                        self.change_server(server, |record| record.standing = Standing::Up).await?;
                        self.note_rental(server, rental, Stage::Serving).await?;
                        return Ok(Progress::Stays);
                    }
                },
                Move::GiveUp => {
                    tracing::warn!(%server, "the cloud has taken a server away");
                    self.remove_server(server, Force::Yes, &|_| {}).await?;
                    self.note_rental(server, rental, Stage::Ending).await?;
                }
                Move::Destroy(machine) => {
                    self.check_unused(&machine).await?;
                    rents.cloud.destroy(&machine).await?;
                    tracing::info!(%server, id = %machine.id, "a machine is given back");
                    self.note_rental(server, rental, Stage::Ended).await?;
                    return Ok(Progress::Waits);
                }
                Move::Go(stage) => self.note_rental(server, rental, stage).await?,
                Move::Forget => {
                    self.db.delete(&layout::rental(server), Guard::Any).await?;
                    tracing::info!(%server, "a rented machine is gone");
                    return Ok(Progress::Rests);
                }
            }
            self.sizing.note_progress(server);
        }
    }

    /// Writes how far a rental is.
    pub(in crate::hq::cloud) async fn note_rental(
        &self,
        server: &ServerName,
        rental: Rental,
        stage: Stage,
    ) -> Result<(), DbError> {
        tracing::info!(%server, ?stage, "a rented machine");
        layout::put_json(&*self.db, &layout::rental(server), &rental.at(stage, self.clock.now()), Guard::Any).await
    }

    /// What the cloud shows of a rental. Whatever else it shows of this HQ is noted for people.
    async fn machine_of(&self, rents: &Rents, rental: &Rental) -> Result<Option<Machine>, HqError> {
        let machines = rents.cloud.list(&self.launcher.identity.id).await?;
        let rentals = self.rentals().await?;
        let is_known = |machine: &&Machine| rentals.values().any(|rental| rental.token == machine.token);
        let (known, strangers): (Vec<&Machine>, Vec<&Machine>) = machines.iter().partition(is_known);
        let strangers = strangers.into_iter().filter(|machine| machine.state != MachineState::Stopping);
        self.sizing.note_strangers(strangers.cloned().collect());
        Ok(known.into_iter().find(|machine| machine.token == rental.token).cloned())
    }

    async fn server_of(&self, server: &ServerName, rental: &Rental) -> Result<Server, HqError> {
        let record = self.server_records().await?.remove(server);
        // One that a person has added under this name is none of the rental's.
        if record.and_then(|record| record.order).is_none_or(|order| order != rental.token) {
            return Ok(Server::None);
        }
        let kept = self.homes().await?.contains_key(server);
        Ok(match (kept, self.presence(server)) {
            (true, _) => Server::Keeps,
            (false, Presence::Gone) => Server::Lost,
            (false, Presence::Up | Presence::Suspect | Presence::Returning) => Server::Free,
        })
    }

    async fn create(&self, rents: &Rents, server: &ServerName, rental: Rental) -> Result<(), HqError> {
        let order = Order {
            owner: self.launcher.identity.id.clone(),
            token: rental.token.clone(),
            name: server.clone(),
            size: rental.size,
            tags: rental.tags.clone(),
            key: self.server_key().await?.authorized_key(),
        };
        let machine = rents.cloud.create(&order).await?;
        let rental = Rental { id: Some(machine.id), ..rental };
        Ok(self.note_rental(server, rental, Stage::Made).await?)
    }

    async fn admit(
        self: &Arc<Self>,
        rents: &Rents,
        server: &ServerName,
        rental: Rental,
        machine: Machine,
    ) -> Result<(), HqError> {
        let Some(address) = machine.address else { return Ok(()) };
        let wanted = Wanted {
            address,
            name: Some(server.clone()),
            tags: rental.tags.clone(),
            // What was asked for and not what a kernel leaves of it, or the grid would ask for it again for ever.
            size: Some(machine.size.unwrap_or(rental.size)),
            fingerprint: machine.host_key,
            order: Some(rental.token.clone()),
        };
        rents.gate.admit(self, wanted).await?;
        let rental = Rental { id: Some(machine.id), ..rental };
        Ok(self.note_rental(server, rental, Stage::Serving).await?)
    }

    /// Moves off a server what runs there, and lets it go. It stays when something cannot move, or room is wanted.
    async fn empty(self: &Arc<Self>, server: &ServerName) -> Result<Emptied, HqError> {
        let awaited = self.sizing.awaited.notified();
        if self.sizing.is_awaited() {
            return Ok(Emptied::No);
        }
        let (hq, name) = (self.clone(), server.clone());
        // Of its own: it may be waiting for the very operation that waits for room. Once the server takes containers
        // again, what is left of it moves nothing.
        let draining = tokio::spawn(async move { hq.drain_server(&name, &|_| {}).await });
        tokio::select! {
            drained = draining => drained.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?,
            () = awaited => return Ok(Emptied::No),
        };
        if self.free(server).await?.is_none() {
            return Ok(Emptied::No);
        }
        let departure = self.begin_departure(server).await?;
        // A turn may be held by the very operation that waits for room: until here it can have the server back.
        let awaited = self.sizing.awaited.notified();
        tokio::select! {
            homeless = self.rehome(server, &|_| {}) => homeless?,
            () = awaited => return Ok(Emptied::No),
        }
        match self.free(server).await? {
            Some(survey) => self.take_out(&departure, &survey, server, &|_| {}).await?,
            None => return Ok(Emptied::No),
        }
        Ok(Emptied::Yes)
    }

    /// What was seen when a server that takes nothing new could go; none while it cannot.
    async fn free(&self, server: &ServerName) -> Result<Option<Survey>, HqError> {
        match self.check_unneeded(server).await {
            Ok(survey) => Ok(Some(survey).filter(|_| !self.sizing.is_awaited())),
            // It is looked at again when it answers, or is lost.
            Err(error @ HqError::Server(ServerError::Silent(_))) => Err(error),
            Err(HqError::Server(needed)) => {
                tracing::info!(%server, %needed, "a server that was spare stays");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A machine that a person has made a server by hand is theirs.
    async fn check_unused(&self, machine: &Machine) -> Result<(), HqError> {
        let Some(address) = &machine.address else { return Ok(()) };
        let records = self.server_records().await?;
        let at = |way: &crate::servers::Way| way.address == *address;
        match records.into_iter().find(|(_, record)| record.way.as_ref().is_some_and(at)) {
            Some((server, _)) => Err(SizingError::InUse { id: machine.id.clone(), server }.into()),
            None => Ok(()),
        }
    }
}

/// Whether a server has nothing left and was let go.
enum Emptied {
    Yes,
    No,
}
