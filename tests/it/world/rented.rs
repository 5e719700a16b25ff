//! The cloud of a world as one HQ reaches it, and how its machines become servers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quarry::db::{Guard, layout};
use quarry::docker::State;
use quarry::grid::Autosize;
use quarry::hq::cloud::gate::Gate;
use quarry::hq::cloud::{Limits, Rents};
use quarry::hq::servers::{ServerError, Wanted};
use quarry::hq::{Hq, HqError};
use quarry::servers::Record;
use quarry::servers::cloud::{Cloud, CloudError, Machine as Rented, Order};
use quarry::units::{Megabytes, Millis};
use tokio::time::sleep;

use super::World;
use super::life::Life;
use super::machine::{Docker, Machine, Reach};

/// The memory of a machine that is rented.
const SIZE: Megabytes = Megabytes(400);

/// For how long a server must have been spare.
const IDLE: Millis = Millis::seconds(60);

/// How long a machine may take to come.
const CREATE_TIMEOUT: Millis = Millis::seconds(300);

/// At most so many servers, HQ's own with them, and so much of their memory free.
pub fn limits(max: usize, spare: u8) -> Limits {
    Limits::new(Autosize { spare, ..Autosize::new(1, max, SIZE) }, Some(IDLE)).unwrap()
}

/// Where one HQ rents.
pub fn rents(world: &Arc<World>, life: &Arc<Life>) -> Rents {
    let counter = Arc::new(Counter { world: world.clone(), life: life.clone() });
    Rents { cloud: counter.clone(), gate: counter, create_timeout: CREATE_TIMEOUT }
}

struct Counter {
    world: Arc<World>,
    life: Arc<Life>,
}

impl Counter {
    async fn asked(&self) {
        self.life.alive().await;
        sleep(Duration::from_millis(1 + self.world.dice.below(40))).await;
        self.life.alive().await;
    }
}

#[async_trait]
impl Cloud for Counter {
    async fn create(&self, order: &Order) -> Result<Rented, CloudError> {
        self.life.instant().await;
        self.asked().await;
        let made = self.world.cloud.create(order).await;
        self.world.note(|| format!("the cloud is asked for {}: {made:?}", order.token));
        self.world.check_rented();
        self.life.instant().await;
        made
    }

    async fn list(&self, owner: &str) -> Result<Vec<Rented>, CloudError> {
        self.asked().await;
        self.world.cloud.list(owner).await
    }

    async fn destroy(&self, rented: &Rented) -> Result<(), CloudError> {
        self.life.instant().await;
        self.asked().await;
        let stood = self.world.cloud.standing();
        let gone = self.world.cloud.destroy(rented).await;
        self.world.note(|| format!("the cloud takes {} back: {gone:?}", rented.token));
        let order = stood.iter().find(|order| order.token == rented.token);
        let still = self.world.cloud.standing().iter().any(|order| order.token == rented.token);
        if let (Some(_), false, Some(machine)) = (order, still, self.world.rented(&rented.token)) {
            self.world.check_unused(&machine);
            machine.scrap();
        }
        self.life.instant().await;
        gone
    }
}

#[async_trait]
impl Gate for Counter {
    async fn admit(&self, hq: &Arc<Hq>, wanted: Wanted) -> Result<(), HqError> {
        self.asked().await;
        let server = wanted.name.unwrap();
        let address = wanted.address.host.parse().unwrap();
        let order = wanted.order.clone().unwrap();
        let stands = self.world.cloud.standing().into_iter().any(|standing| standing.token == order);
        let machine = match self.world.machine_at(address) {
            Some(machine) => machine,
            None => self.world.arrive(Machine::at(server.clone(), address, wanted.size.unwrap())),
        };
        self.world.note_rented(order, &machine);
        if !stands || machine.reach() != Reach::Up {
            return Err(ServerError::Silent(server).into());
        }
        let record = Record { order: wanted.order, tags: wanted.tags, ..machine.record() };
        layout::put_json(&*hq.db, &layout::server_settings(&server), &record, Guard::Any).await?;
        let (world, life) = (self.world.clone(), self.life.clone());
        world.join(&server, &machine);
        hq.enrol(&server, &record, Arc::new(Docker { world, life, machine }));
        Ok(())
    }
}

impl World {
    /// How long this cloud takes.
    pub fn furnish_cloud(&self) {
        let longest = self.dice.weighed(&[(1, 1), (2, 10), (1, 60)]);
        let time = || Duration::from_secs(self.dice.below(longest));
        self.cloud.boots_after(time());
        self.cloud.lists_after(time());
        self.cloud.gone_after(time());
    }

    /// From now on there may be so many servers.
    pub fn allow(&self, max: usize) {
        let mut most = self.most.lock().unwrap();
        *most = max.max(*most);
    }

    /// No more is rented than was ever allowed, and nothing twice for one server.
    fn check_rented(&self) {
        let standing = self.cloud.standing();
        let most = *self.most.lock().unwrap();
        let mut names: Vec<String> = standing.iter().map(|order| order.name.to_string()).collect();
        names.sort();
        if standing.len() >= most || names.windows(2).any(|pair| pair[0] == pair[1]) {
            self.broken(|| format!("{names:?} are rented, and there may be {most} servers with HQ's own"));
        }
    }

    /// Nothing runs on a machine that is given back.
    fn check_unused(&self, machine: &Machine) {
        let mut runs = Vec::new();
        machine.engine.each(|container, _| {
            if container.state == State::Running {
                runs.push(container.name.to_string());
            }
        });
        if !runs.is_empty() && !machine.is_given_up() {
            self.broken(|| format!("{} is given back while {runs:?} run there", machine.name));
        }
    }

    /// One of the rented machines is gone, without anybody having asked for it.
    pub fn take_away(&self, which: u64) {
        let standing = self.cloud.standing();
        if standing.is_empty() {
            return;
        }
        let order = &standing[which as usize % standing.len()];
        self.note(|| format!("that is {}", order.token));
        self.cloud.take_away(&order.token);
        if let Some(machine) = self.rented(&order.token) {
            machine.scrap();
        }
    }
}
