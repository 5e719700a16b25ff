//! What holds at every step.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use quarry::db::{Db, layout};
use quarry::docker::State;
use quarry::launch::journal::{Journal, Phase};
use quarry::launch::label;
use quarry::names::{ReleaseNumber, StackName};
use quarry::router::Target;

use super::machine::Machine;
use super::pushes::{ALONE, FIXED, MOVABLE, SIZE};
use super::{Lies, World};

/// A container of quarry's, wherever it is.
#[derive(Debug, Clone)]
struct One {
    name: String,
    stack: String,
    node: String,
    release: String,
    role: String,
    runs: bool,
    ports: Vec<SocketAddr>,
    /// Its server counts: it was not lost, and nobody has given it up.
    counts: bool,
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

impl World {
    fn containers(&self) -> Vec<One> {
        let mut list = Vec::new();
        for machine in self.machines() {
            let counts = !machine.is_lost() && !machine.is_given_up();
            machine.engine.each(|container, request| {
                let text = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
                list.push(One {
                    name: container.name.to_string(),
                    stack: text(label::STACK),
                    node: text(label::NODE),
                    release: text(label::RELEASE),
                    role: text(label::ROLE),
                    runs: matches!(container.state, State::Running | State::Paused),
                    ports: request.ports.iter().map(|port| SocketAddr::new(port.address, port.port)).collect(),
                    counts,
                });
            });
        }
        list
    }

    /// What holds at every step; `when` names the step.
    pub fn check(&self, when: &str) {
        let containers = self.containers();
        if let Some(wrong) = self.routes_are_right(&containers).or_else(|| self.alone_is_alone(&containers)) {
            self.broken(|| format!("{wrong} (after {when})"));
        }
    }

    /// No domain points at another stack's container, and a stack answers with one release.
    fn routes_are_right(&self, containers: &[One]) -> Option<String> {
        let mut at: BTreeMap<SocketAddr, &One> = BTreeMap::new();
        for one in containers.iter().filter(|one| one.runs) {
            at.extend(one.ports.iter().map(|port| (*port, one)));
        }
        let named: BTreeMap<&str, &One> = containers.iter().map(|one| (one.name.as_str(), one)).collect();
        self.edge.look(|tables| {
            for table in tables.values() {
                for (node, routes) in &table.nodes {
                    let Target::Peers(peers) = &routes.target else { continue };
                    for peer in peers {
                        let meant = peer.container.as_str();
                        if let Some(one) = at.get(&peer.address).filter(|one| one.name != meant) {
                            let (stack, other) = (&table.stack, &one.name);
                            return Some(format!("{node} of {stack} is {meant}, and {other} answers at its address"));
                        }
                        let Some(one) = named.get(meant) else { continue };
                        if one.release != table.release.to_string() {
                            let release = table.release;
                            return Some(format!("{} answers in the table of release {release}", one.name));
                        }
                    }
                }
            }
            None
        })
    }

    /// Of what may exist only once there are never two that run, but for what a lost server still may do.
    fn alone_is_alone(&self, containers: &[One]) -> Option<String> {
        let mut running: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        let alone = |one: &&One| one.runs && one.counts && one.role != "once" && ALONE.contains(&one.node.as_str());
        for one in containers.iter().filter(alone) {
            if let Some(other) = running.insert((&one.stack, &one.node), &one.name) {
                return Some(format!("{other} and {} run at once", one.name));
            }
        }
        None
    }

    /// What keeps data is only ever made where its data is.
    fn fixed_stays(&self, machine: &Machine, name: &str) {
        let mut parts = name.split('.');
        let (Some(stack), Some(node)) = (parts.next(), parts.next()) else { return };
        if !FIXED.contains(&node) {
            return;
        }
        let mut homes = self.homes.lock().unwrap();
        let first = Lies { at: machine.address, counts: false };
        let home = homes.entry((stack.to_owned(), node.to_owned())).or_insert(first);
        if home.at == machine.address {
            return;
        }
        // A push that was taken back leaves no data that anybody has seen.
        let counts = |other: &Arc<Machine>| !other.is_given_up() && (home.counts || other.has(stack, node));
        match self.machine_at(home.at).filter(counts) {
            Some(other) => self.broken(|| format!("{name} is made on {}, its data is on {}", machine.name, other.name)),
            None => home.at = machine.address,
        }
    }

    /// What may go anywhere is only made where there is room for it. (What has a home goes there in any case.)
    fn has_room(&self, machine: &Machine, name: &str) {
        let node = name.split('.').nth(1).unwrap_or_default();
        if !MOVABLE.contains(&node) || self.overbooks.load(Ordering::SeqCst) {
            return;
        }
        // What is on its way out counts as room: all of a stack but its newest release, and its services.
        let mut stacks: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut taken = SIZE;
        machine.engine.each(|container, _| {
            let of = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
            match of(label::ROLE) == "service" {
                _ if matches!(container.state, State::Exited(_)) => {}
                true => taken.0 += SIZE.0,
                false => {
                    *stacks.entry(of(label::STACK)).or_default().entry(number(&of(label::RELEASE))).or_default() +=
                        SIZE.0
                }
            }
        });
        let coming = name.split('.').next().unwrap_or_default();
        let newest = |(stack, releases): (&String, &BTreeMap<u64, u64>)| {
            let release = if stack == coming { Some(number(name.split('.').nth(2).unwrap_or_default())) } else { None };
            release.map_or(releases.values().next_back(), |release| releases.get(&release)).copied()
        };
        taken.0 += stacks.iter().filter_map(newest).sum::<u64>();
        if taken > machine.size {
            self.broken(|| format!("{name} is made on {}, which then has {taken} in {}", machine.name, machine.size));
        }
    }

    /// Whether the release of an image is listed, of a stack that does not go: it can be rolled back to as long as its
    /// images are on HQ's own server.
    fn is_listed(&self, image: &str) -> Option<bool> {
        let (node, tag) = image.strip_prefix("quarry/")?.split_once(':')?;
        let stack: StackName = node.split('/').next()?.parse().ok()?;
        let number = ReleaseNumber(tag.split('-').next()?.parse().ok()?);
        // The memory answers at once.
        let listed = self.tree.read(&layout::release(&stack, number)).now_or_never()?.ok()?.is_some();
        let journal = layout::read_json::<Journal>(&*self.tree, &layout::journal(&stack)).now_or_never()?.ok()?;
        let goes = journal.and_then(|journal| journal.active).is_some_and(|active| active.phase == Phase::Destroying);
        Some(listed && !goes)
    }

    /// What an engine is about to do for HQ: data stays where it is, nothing that serves is stopped, and what can be
    /// rolled back to keeps its images.
    pub fn before(&self, machine: &Machine, doing: &str) {
        let image = doing.strip_prefix("remove-image ").filter(|_| machine.name == self.own().name);
        if let Some(image) = image.filter(|image| self.is_listed(image) == Some(true)) {
            self.broken(|| format!("HQ removes {image}, and its release is listed"));
        }
        if let Some(name) = doing.strip_prefix("create ") {
            self.fixed_stays(machine, name);
            self.has_room(machine, name);
        }
        let Some(name) = doing.strip_prefix("stop ").or_else(|| doing.strip_prefix("remove ")) else { return };
        // What could not move is given up with its server.
        if machine.is_given_up() {
            return;
        }
        let mut serving = Vec::new();
        machine.engine.each(|container, request| {
            let node = container.labels.get(label::NODE).map(String::as_str).unwrap_or_default();
            let runs = container.state == State::Running && !ALONE.contains(&node);
            if runs && container.name.as_str() == name {
                serving.extend(request.ports.iter().map(|port| SocketAddr::new(port.address, port.port)));
            }
        });
        let peer = |target: &Target| match target {
            Target::Peers(peers) => peers.iter().any(|peer| serving.contains(&peer.address)),
            Target::Site(_) => false,
        };
        let routed = self
            .edge
            .look(|tables| tables.values().flat_map(|table| table.nodes.values()).any(|node| peer(&node.target)));
        if routed {
            self.broken(|| format!("HQ does `{doing}` while the router sends requests there"));
        }
    }
}
