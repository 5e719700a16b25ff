//! The servers of a world: those that people have, and those that are rented.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use quarry::db::{Guard, layout};
use quarry::docker::fake::Behaviour;
use quarry::names::{ContainerName, ServerName};
use quarry::servers::cloud::Token;

use super::World;
use super::machine::Machine;
use super::rented::limits;

/// How many servers there may be to begin with.
const USUAL: usize = 5;

/// The machines there are, and what all of them know.
#[derive(Default)]
pub struct Members {
    machines: Vec<Arc<Machine>>,
    /// Which machine a server is.
    seats: BTreeMap<ServerName, Arc<Machine>>,
    /// Which machine an order was.
    rented: BTreeMap<Token, Arc<Machine>>,
    /// What the containers of images and of names do, wherever they run.
    images: Vec<(String, Behaviour)>,
    containers: Vec<(ContainerName, Behaviour)>,
}

impl World {
    /// Has the tree know people's servers.
    pub async fn furnish(&self) {
        let known = self.machines().into_iter().filter(|machine| self.has_cloud || machine.name.as_str() != "hq");
        for machine in known {
            let key = layout::server_settings(&machine.name);
            layout::put_json(&*self.tree, &key, &machine.record(), Guard::Any).await.unwrap();
        }
        if self.has_cloud {
            self.allow(USUAL);
            layout::put_json(&*self.tree, &layout::autosize(), &limits(USUAL, 25), Guard::Any).await.unwrap();
        }
    }

    /// Every machine there is, HQ's own first.
    pub fn machines(&self) -> Vec<Arc<Machine>> {
        self.members.lock().unwrap().machines.clone()
    }

    /// HQ's own.
    pub fn own(&self) -> Arc<Machine> {
        self.members.lock().unwrap().machines[0].clone()
    }

    /// The machine with this number, if there is one (yet).
    pub fn machine(&self, number: usize) -> Option<Arc<Machine>> {
        self.members.lock().unwrap().machines.get(number).cloned()
    }

    /// The machine at an address.
    pub fn machine_at(&self, address: IpAddr) -> Option<Arc<Machine>> {
        self.machines().into_iter().find(|machine| machine.address == address)
    }

    /// One more machine.
    pub fn arrive(self: &Arc<Self>, machine: Machine) -> Arc<Machine> {
        let machine = Arc::new(machine);
        tokio::spawn(watch(self.clone(), machine.clone()));
        let mut members = self.members.lock().unwrap();
        members.images.iter().for_each(|(image, how)| machine.engine.behave_image(image, how.clone()));
        members.containers.iter().for_each(|(name, how)| machine.engine.behave(name, how.clone()));
        members.machines.push(machine.clone());
        machine
    }

    /// Which machine a server is from now on.
    pub fn seat(&self, server: &ServerName, machine: &Arc<Machine>) {
        self.members.lock().unwrap().seats.insert(server.clone(), machine.clone());
    }

    /// The machine that a server is.
    pub fn seated(&self, server: &ServerName) -> Option<Arc<Machine>> {
        self.members.lock().unwrap().seats.get(server).cloned()
    }

    /// Which machine came for an order.
    pub fn note_rented(&self, order: Token, machine: &Arc<Machine>) {
        self.members.lock().unwrap().rented.insert(order, machine.clone());
    }

    /// The machine that came for an order and was let in.
    pub fn rented(&self, order: &Token) -> Option<Arc<Machine>> {
        self.members.lock().unwrap().rented.get(order).cloned()
    }

    /// What the containers of an image do.
    pub fn behave_image(&self, image: &str, how: &Behaviour) {
        let mut members = self.members.lock().unwrap();
        members.machines.iter().for_each(|machine| machine.engine.behave_image(image, how.clone()));
        members.images.push((image.to_owned(), how.clone()));
    }

    /// What one container does.
    pub fn behave(&self, name: &ContainerName, how: &Behaviour) {
        let mut members = self.members.lock().unwrap();
        members.machines.iter().for_each(|machine| machine.engine.behave(name, how.clone()));
        members.containers.push((name.clone(), how.clone()));
    }

    /// Every container does well from its next start on.
    pub fn behave_all(&self) {
        let mut members = self.members.lock().unwrap();
        members.images.clear();
        members.containers.clear();
        members.machines.iter().for_each(|machine| machine.engine.behave_all());
    }

    /// A machine becomes a server, or one again: what it had before counts no more.
    pub fn join(&self, server: &ServerName, machine: &Arc<Machine>) {
        if machine.is_given_up() {
            self.homes.lock().unwrap().retain(|_, home| home.at != machine.address);
            machine.set_given_up(false);
        }
        machine.set_lost(false);
        self.seat(server, machine);
    }
}

/// Looks at the world whenever something has changed on a server by itself.
async fn watch(world: Arc<World>, machine: Arc<Machine>) {
    let mut changes = machine.engine.changes();
    while changes.changed().await.is_ok() {
        world.check("something happened by itself");
    }
}
