//! Watches docker's events and the clock, and heals stacks that are at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::falls::Falls;
use super::{backoff, drift, overstays};
use crate::db::{DbError, Guard, layout};
use crate::docker::Engine;
use crate::hq::act::{HEAL, Job};
use crate::hq::cloud::Wants;
use crate::hq::recover::act::Rest;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::label;
use crate::launch::world::World;
use crate::names::{ServerName, StackName};

/// Every stack is looked at this often although no event names it.
const ROUND: Duration = Duration::from_secs(30);
/// An event is looked into after this: docker's own restart of a container comes first.
const SETTLE: Duration = Duration::from_secs(1);
/// How long to wait for docker to come back before its events are asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the loop hears.
enum Heard {
    /// Something happened to a container of this stack.
    Stack(StackName),
    /// A server's events are heard, perhaps again: what happened meanwhile shows in a look at everything.
    Listening(ServerName),
    /// A stack was looked at, and healed where that was needed.
    Healed(StackName, Healed),
    /// Servers have come, gone, been lost or come back.
    Servers,
    /// The earliest appointment is due.
    Due,
}

/// What became of healing a stack; when it is to be looked at again for what waits.
type Healed = Result<Option<Duration>, Box<HqError>>;

/// When each stack is looked at next, and how often healing it has failed in a row.
#[derive(Default)]
struct Agenda {
    due: BTreeMap<StackName, Instant>,
    failures: BTreeMap<StackName, u32>,
    round: Option<Instant>,
    /// Stacks that are being healed: one that waits for its containers does not hold up the others.
    busy: BTreeSet<StackName>,
    healing: JoinSet<(StackName, Healed)>,
}

impl Hq {
    /// Heals until the process ends.
    pub async fn reconcile(self: Arc<Self>) {
        let (tell, mut news) = mpsc::unbounded_channel();
        let mut heard_of: BTreeMap<ServerName, Weak<dyn Engine>> = BTreeMap::new();
        let mut agenda = Agenda::default();
        loop {
            for (server, engine) in self.engines().all() {
                let engine = Arc::downgrade(&engine);
                if !heard_of.get(&server).is_some_and(|known| known.ptr_eq(&engine)) {
                    tokio::spawn(self.clone().listen(server.clone(), engine.clone(), tell.clone()));
                    heard_of.insert(server, engine);
                }
            }
            let heard = tokio::select! {
                Some(heard) = news.recv() => heard,
                () = self.fleet_changed.notified() => Heard::Servers,
                () = sleep_until(agenda.next()) => Heard::Due,
                Some(done) = agenda.healing.join_next() => match done {
                    Ok((stack, healed)) => Heard::Healed(stack, healed),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            };
            match heard {
                Heard::Stack(stack) => agenda.look_at(stack, Instant::now() + SETTLE),
                Heard::Listening(server) => {
                    tracing::debug!(%server, "docker's events are heard");
                    agenda.round = Some(Instant::now());
                }
                Heard::Healed(stack, healed) => self.healed(&mut agenda, stack, healed).await,
                Heard::Servers => agenda.round = Some(Instant::now()),
                Heard::Due => self.heal_due(&mut agenda).await,
            }
        }
    }

    /// Tells the loop what happens on one server, for as long as this is HQ's way to it.
    async fn listen(self: Arc<Self>, server: ServerName, engine: Weak<dyn Engine>, tell: UnboundedSender<Heard>) {
        let counts = |engine: &Arc<dyn Engine>| self.engines().of(&server).is_ok_and(|now| Arc::ptr_eq(&now, engine));
        while let Some(engine) = engine.upgrade().filter(counts) {
            match engine.events().await {
                Ok(mut events) => {
                    let _ = tell.send(Heard::Listening(server.clone()));
                    // A way that was given up must not be kept open by listening to it.
                    while counts(&engine) {
                        match timeout(AGAIN, events.next()).await {
                            Ok(Some(Ok(event))) => {
                                let _ = self.stack_of(&event).map(|stack| tell.send(Heard::Stack(stack)));
                            }
                            Ok(Some(Err(_)) | None) => break,
                            Err(_) => {}
                        }
                    }
                }
                Err(error) => tracing::warn!(%server, %error, "docker's events cannot be heard"),
            }
            sleep(AGAIN).await;
        }
    }

    fn stack_of(&self, event: &crate::docker::Event) -> Option<StackName> {
        let ours = event.labels.get(label::HQ) == Some(&self.launcher.identity.id);
        let tells = ["die", "destroy", "stop", "oom"].contains(&event.action.as_str());
        event.labels.get(label::STACK).filter(|_| ours && tells)?.parse().ok()
    }

    async fn heal_due(self: &Arc<Self>, agenda: &mut Agenda) {
        let now = Instant::now();
        if agenda.round.is_none_or(|round| round <= now) {
            agenda.round = Some(now + ROUND);
            if let Err(error) = self.notice_records().await {
                tracing::warn!(%error, "the servers' records cannot be read");
            }
            match self.known_stacks().await {
                Ok(stacks) => stacks.into_iter().for_each(|stack| agenda.look_at(stack, now)),
                Err(error) => tracing::warn!(%error, "the stacks cannot be listed"),
            }
        }
        let due: Vec<StackName> =
            agenda.due.iter().filter(|(_, at)| **at <= now).map(|(stack, _)| stack.clone()).collect();
        for stack in due {
            agenda.due.remove(&stack);
            if agenda.busy.insert(stack.clone()) {
                let hq = self.clone();
                agenda.healing.spawn(async move {
                    let healed = hq.heal(&stack).await.map_err(Box::new);
                    (stack, healed)
                });
            }
        }
    }

    async fn healed(&self, agenda: &mut Agenda, stack: StackName, healed: Healed) {
        agenda.busy.remove(&stack);
        match healed {
            Ok(again) => {
                agenda.failures.remove(&stack);
                if let Some(pause) = again {
                    agenda.look_at(stack, Instant::now() + pause);
                }
            }
            Err(error) => {
                let failures = agenda.failures.entry(stack.clone()).or_default();
                *failures += 1;
                let pause = backoff(*failures);
                tracing::warn!(%stack, error = ?error, again_in = ?pause, "the stack could not be healed");
                agenda.look_at(stack, Instant::now() + pause);
            }
        }
        if !agenda.busy.is_empty() {
            return;
        }
        for server in self.returning() {
            match self.is_clear(&server).await {
                Ok(true) => self.welcome(&server),
                Ok(false) => {}
                Err(error) => tracing::warn!(%server, error = ?error, "what a server still runs cannot be seen"),
            }
        }
    }

    /// Whether nothing is left on a server that should be elsewhere.
    async fn is_clear(&self, server: &ServerName) -> Result<bool, HqError> {
        for stack in self.known_stacks().await? {
            if self.book(&stack).await?.read().await.going().iter().any(|(on, _)| *on == server) {
                return Ok(false);
            }
            let Some(current) = self.releases(&stack).await?.pop() else { continue };
            if overstays(&self.world(&stack, current.number, current.env_version).await?, server) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings one stack back to what should run, and tells when to look again for what has to wait. A busy stack is left
    /// alone: its operation ends in order itself.
    pub(in crate::hq) async fn heal(self: &Arc<Self>, stack: &StackName) -> Result<Option<Duration>, HqError> {
        let Some(_turn) = self.try_turn(stack, "the reconciler") else { return Ok(None) };
        let book = self.book(stack).await?;
        book.dispel_doubt().await?;
        let journal = book.read().await;
        if journal.active.is_some() || (!journal.retiring.is_empty() && !book.is_retiring()) {
            // Nobody is at it: the state was out of reach when it should have been finished.
            match self.bring_to_rest(stack).await? {
                Rest::There => {}
                Rest::Gone => return Ok(None),
            }
        }
        let Some(current) = self.releases(stack).await?.pop() else { return Ok(None) };
        let mut world = self.world(stack, current.number, current.env_version).await?;
        if self.free_from_former_servers(&world).await? {
            world = self.world(stack, current.number, current.env_version).await?;
        }
        // What seems to be missing may run where nobody has answered yet. That shows: the server answers, or is lost.
        if self.knows_too_little() {
            return Ok(None);
        }
        let mut instructions = drift(&world);
        let again = self.hold_fallen(&mut instructions, &world).await?;
        let job = match instructions.is_empty() {
            true => self.leftovers(&world),
            false => Some(healing(stack, instructions)),
        };
        match job {
            Some(job) => drop(self.operate(job, &|_| {}).await?),
            None => self.sizing.note_wants(stack, Wants::default()),
        }
        Ok(again)
    }

    /// Which containers of a stack have fallen lately.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn falls(&self, stack: &StackName) -> Result<Falls, HqError> {
        match layout::read_json(&*self.db, &layout::falls(stack)).await {
            // It is a count and nothing more.
            Err(DbError::Damaged { .. }) => Ok(Falls::default()),
            falls => Ok(falls?.unwrap_or_default()),
        }
    }

    /// Takes out what has fallen too often to be started now.
    async fn hold_fallen(
        &self,
        instructions: &mut Vec<Instruction>,
        world: &World,
    ) -> Result<Option<Duration>, HqError> {
        let before = self.falls(&world.stack).await?;
        let (mut falls, now) = (before.clone(), self.clock.now());
        falls.see(world, now);
        let wait = falls.hold(instructions, world, now);
        let key = layout::falls(&world.stack);
        if falls == Falls::default() && before != falls {
            self.db.delete(&key, Guard::Any).await?;
        } else if before != falls {
            layout::put_json(&*self.db, &key, &falls, Guard::Any).await?;
        }
        Ok(wait.map(|wait| wait.unsigned_abs()))
    }
}

fn healing(stack: &StackName, instructions: Vec<Instruction>) -> Job {
    tracing::info!(%stack, instructions = instructions.len(), "healing");
    Job::of(stack, HEAL, instructions)
}

impl Agenda {
    /// The earliest appointment.
    fn next(&self) -> Instant {
        let rounds = self.round.unwrap_or_else(Instant::now);
        self.due.values().copied().chain([rounds]).min().unwrap_or(rounds)
    }

    /// Looks at a stack at `at`, or earlier if that was planned already.
    fn look_at(&mut self, stack: StackName, at: Instant) {
        let due = self.due.entry(stack).or_insert(at);
        *due = at.min(*due);
    }
}
