//! Hands out numbers, and tells every embassy its ports whenever something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;
use tokio::time::{sleep, timeout};

use super::{Known, Lead, Numbers, Seen};
use crate::db::{DbError, Guard, layout};
use crate::docker::Network;
use crate::embassy::Table;
use crate::hq::agents::{Remote, Voice};
use crate::hq::rights::{Access, Right};
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::exchange::{Exchange, Exposure, exposures, free};
use crate::launch::journal::Journal;
use crate::launch::{Proc, Step};
use crate::names::{NodeName, ServerName, StackName, StackNode};
use crate::stack::Stack;

/// Everything is told again this often, should something have been missed.
const ROUND: Duration = Duration::from_secs(10);

/// Changes that happen so close together are one.
const SETTLE: Duration = Duration::from_millis(5);

/// Before an embassy that could not be told is told again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long HQ waits for the agents' first words after it has begun: what is launched meanwhile would not know that there
/// are embassies.
const FIRST: SignedDuration = SignedDuration::from_secs(5);

/// Between two looks whether they have spoken.
const LOOK: Duration = Duration::from_millis(50);

/// The networks of each server that has told of them.
type Networks = BTreeMap<ServerName, Vec<Network>>;

impl Hq {
    /// Keeps the embassies of all servers until it is dropped.
    pub async fn keep_embassies(self: Arc<Self>) {
        let mut asked = self.agents.asked();
        loop {
            sleep(SETTLE).await;
            let number = *asked.borrow_and_update();
            let told = self.tell_embassies().await;
            if let Err(error) = &told {
                tracing::warn!(error = ?error, "it cannot be read what the embassies should be told");
            }
            self.agents.answer(number);
            let pause = if matches!(told, Ok(true)) { ROUND } else { AGAIN };
            // Nobody else changes it but who asks.
            let _ = timeout(pause, asked.changed()).await;
        }
    }

    /// Tells each what has changed for it; whether all of them know.
    async fn tell_embassies(&self) -> Result<bool, DbError> {
        let voices = self.agents.voices().borrow().clone();
        // Who is silent is told when it speaks again, and holds up nobody.
        let networks = self.known_networks();
        let hears = |server: &ServerName| voices.get(server) == Some(&Voice::Up) && networks.contains_key(server);
        let standing = self.agents.all().into_iter();
        let standing = standing.filter(|(server, remote)| remote.state().embassy == Some(true) && hears(server));
        let standing: Vec<(ServerName, Arc<Remote>)> = standing.collect();
        if standing.is_empty() {
            return Ok(true);
        }
        // What is not known yet must not look as if it were not there: they go on with what they were told before.
        let early = self.clock.now().duration_since(self.begun).unsigned_abs() < self.settings.lease.duration();
        if early && !self.knows_all(&voices, &networks) {
            return Ok(false);
        }
        let mut tables = self.known_to_embassies(&networks).await?.tables();
        let told = standing.into_iter().filter_map(|(server, remote)| {
            let table: Arc<Table> = Arc::new(tables.remove(&server)?);
            Some(async move {
                match remote.expose(&table).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(%server, %error, "an embassy goes on with older ports until it is told again");
                        false
                    }
                }
            })
        });
        Ok(join_all(told).await.into_iter().all(|told| told))
    }

    /// Whether every server that is not lost has said what runs there, and its networks are known.
    fn knows_all(&self, voices: &BTreeMap<ServerName, Voice>, networks: &Networks) -> bool {
        let is_known = |(server, remote): (&ServerName, &Arc<Remote>)| {
            remote.state().containers.is_some() && networks.contains_key(server)
        };
        let all = self.agents.all();
        all.iter().filter(|(server, _)| voices.get(*server) != Some(&Voice::Gone)).all(is_known)
    }

    /// Every port, where it leads, and what the embassies that answer have counted.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn leads(&self) -> Result<Vec<Lead>, HqError> {
        let mut leads = self.known_to_embassies(&self.known_networks()).await?.leads();
        let asked = self.agents.all().into_values().map(|remote| async move { remote.agent().ports().await });
        for counts in join_all(asked).await.into_iter().flatten().flatten() {
            let lead = leads.iter_mut().find(|lead| lead.number == counts.port.number);
            lead.into_iter().for_each(|lead| lead.counts.push(counts.clone()));
        }
        Ok(leads)
    }

    /// Everything the tables follow from.
    async fn known_to_embassies(&self, networks: &Networks) -> Result<Known, DbError> {
        let mut known = Known { numbers: self.handed_out().await?.of, ..Known::default() };
        if known.numbers.is_empty() {
            known.servers = self.agents.all().into_keys().map(|server| (server, Seen::default())).collect();
            return Ok(known);
        }
        // Procs first: what a launch is committed to meanwhile is in its journal.
        for entry in layout::all(&*self.db, layout::PROCS).await? {
            if let (Some(stack), Ok(proc)) =
                (layout::stack_of(&entry.key), layout::parse_json::<Proc>(&*self.db, &entry))
            {
                known.stacks.entry(stack).or_default().procs.insert(proc.node.clone(), proc);
            }
        }
        let (voices, sick) = (self.agents.voices().borrow().clone(), self.sick());
        for (server, remote) in self.agents.all() {
            let seen = known.servers.entry(server.clone()).or_default();
            let containers = remote.state().containers.unwrap_or_default();
            let own = containers.iter().filter(|container| self.launcher.identity.owns(container));
            seen.containers = own.cloned().collect();
            seen.is_heard = voices.get(&server) == Some(&Voice::Up);
            let own = sick.iter().filter(|(on, _)| *on == server);
            seen.sick = own.map(|(_, name)| name.clone()).collect();
        }
        for (server, networks) in networks {
            known.servers.entry(server.clone()).or_default().note_networks(networks, &self.launcher.identity);
        }
        for entry in layout::all(&*self.db, layout::JOURNALS).await? {
            let journal = layout::parse_json::<Journal>(&*self.db, &entry).ok();
            let (Some(stack), Some(journal)) = (layout::stack_of(&entry.key), journal) else { continue };
            for step in journal.active.iter().flat_map(|active| active.plan.revocable()) {
                if let Step::Network { server, subnet, .. } = step
                    && let Ok(subnet) = subnet.parse()
                {
                    known.servers.entry(server.clone()).or_default().networks.insert((stack.clone(), subnet));
                }
            }
            known.stacks.entry(stack).or_default().follow(&journal);
        }
        Ok(known)
    }

    /// Every number that is handed out.
    async fn handed_out(&self) -> Result<Numbers, DbError> {
        let mut numbers = Numbers::default();
        for entry in layout::all(&*self.db, layout::EMBASSY_PORTS).await? {
            let Some(number) = layout::embassy_number(&entry.key) else { continue };
            numbers.taken.insert(number);
            let exposure = layout::parse_json(&*self.db, &entry).ok();
            numbers.of.extend(exposure.map(|exposure| (exposure, number)));
        }
        Ok(numbers)
    }

    /// Where nodes are reached, if there are embassies.
    pub(in crate::hq) async fn exchange(&self) -> Result<Option<Exchange>, HqError> {
        match self.embassy() {
            Some(address) => Ok(Some(Exchange { address, numbers: self.handed_out().await?.of })),
            None => Ok(None),
        }
    }

    /// Where every server's embassy listens, if every server has one.
    pub fn embassy(&self) -> Option<IpAddr> {
        self.settings.embassy.address.filter(|_| self.has_own_agent() && self.agents.have_embassies())
    }

    /// Gives a number to each port that these instructions expose and that has none yet.
    ///
    /// # Errors
    /// No number is left, or the tree cannot be written.
    pub(in crate::hq) async fn hand_out(&self, stack: &StackName, instructions: &[Instruction]) -> Result<(), HqError> {
        self.hear_agents().await;
        if self.embassy().is_none() {
            return Ok(());
        }
        let own = instructions.iter().filter_map(|instruction| {
            let node = StackNode { stack: stack.clone(), node: instruction.launches()?.clone() };
            Some(exposures(&node, instruction.settings()?).collect::<Vec<_>>())
        });
        let mut wanted: BTreeSet<Exposure> = own.flatten().collect();
        let mut numbers = self.handed_out().await?;
        wanted.retain(|exposure| !numbers.of.contains_key(exposure));
        while let Some(exposure) = wanted.first() {
            let range = self.settings.embassy.ports.clone();
            let full = HqError::NoNumber { first: *range.start(), last: *range.end() };
            let number = free(&numbers.taken, range).ok_or(full)?;
            match layout::put_json(&*self.db, &layout::embassy_port(number), exposure, Guard::Absent).await {
                Ok(_) => {
                    numbers.taken.insert(number);
                    wanted.pop_first();
                }
                // Somebody was faster.
                Err(DbError::Changed { .. }) => {
                    numbers = self.handed_out().await?;
                    wanted.retain(|exposure| !numbers.of.contains_key(exposure));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Refuses links to other stacks that their pusher may not use, or that lead nowhere.
    ///
    /// # Errors
    /// The first of them.
    pub(in crate::hq) async fn check_links(
        &self,
        access: &Access,
        own: &StackName,
        stack: &Stack,
    ) -> Result<(), HqError> {
        for (from, node) in &stack.nodes {
            for to in node.outside.iter().filter(|to| to.stack != *own) {
                self.check_link(access, from, to).await?;
            }
        }
        Ok(())
    }

    async fn check_link(&self, access: &Access, from: &NodeName, to: &StackNode) -> Result<(), HqError> {
        // Who reaches a database has what is in it.
        self.check_right(access, &to.stack, Right::Deploy).await?;
        self.hear_agents().await;
        let refused = |why: String| Err(HqError::Link { from: from.clone(), to: to.clone(), why });
        if self.embassy().is_none() {
            return refused("not every server has an embassy; see `network show`".to_owned());
        }
        let procs = self.procs(&to.stack).await?;
        match procs.iter().find(|proc| proc.node == to.node) {
            Some(proc) if proc.settings.ports.is_empty() => {
                refused("that exposes no port: add `expose` to it".to_owned())
            }
            Some(_) => Ok(()),
            None => {
                let known: Vec<String> = procs.iter().map(|proc| format!("`{}`", proc.node)).collect();
                let known = if known.is_empty() { "nothing".to_owned() } else { known.join(" ") };
                refused(format!("no such node runs there; `{}` has {known}", to.stack))
            }
        }
    }

    /// A stack is gone: its numbers are free again, and nobody is led by them.
    pub(in crate::hq) async fn give_back(&self, stack: &StackName) -> Result<(), DbError> {
        for number in self.handed_out().await?.of.into_iter().filter(|(of, _)| of.node.stack == *stack) {
            self.db.delete(&layout::embassy_port(number.1), Guard::Any).await?;
        }
        self.agents.refresh().await;
        Ok(())
    }

    /// After HQ has begun, waits a moment until every agent was told what its server should be: then it is known where
    /// there are embassies.
    async fn hear_agents(&self) {
        if self.settings.embassy.address.is_none() || !self.has_own_agent() || !self.agents.are_followed() {
            return;
        }
        let is_told =
            |server: &ServerName| self.agents.all().get(server).is_some_and(|remote| remote.state().told.is_some());
        let is_new = || self.clock.now().duration_since(self.begun) < FIRST;
        while is_new() && !self.members().keys().all(is_told) {
            sleep(LOOK).await;
        }
    }
}
