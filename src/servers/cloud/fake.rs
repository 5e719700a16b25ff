//! A cloud in memory. Time is tokio's and may be paused; ids count up, nothing is random.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Cloud, CloudError, Machine, MachineId, MachineState, Order, Token};

/// A cloud in memory; clones are the same cloud.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    /// Every machine there ever was, by id.
    machines: BTreeMap<MachineId, Made>,
    /// How long one takes to be there.
    boots_after: Duration,
    /// How long a new one is missing in lists.
    listed_after: Duration,
    /// How long one takes to go.
    gone_after: Duration,
    /// At most so many at once.
    quota: Option<usize>,
    /// Calls from the next one on that fail before they do anything.
    refused: usize,
    /// Calls from the next one on that are carried out and answered with an error.
    unanswered: usize,
    calls: Vec<String>,
}

#[derive(Debug)]
struct Made {
    order: Order,
    since: Instant,
    /// When it was told to go.
    ends: Option<Instant>,
}

impl Fake {
    /// A cloud whose machines are there at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine takes so long to be there.
    pub fn boots_after(&self, time: Duration) {
        self.world().boots_after = time;
    }

    /// A new machine is missing in lists for so long.
    pub fn lists_after(&self, time: Duration) {
        self.world().listed_after = time;
    }

    /// A machine that goes is still listed for so long.
    pub fn gone_after(&self, time: Duration) {
        self.world().gone_after = time;
    }

    /// At most so many machines at once; what is beyond is refused.
    pub fn quota(&self, machines: Option<usize>) {
        self.world().quota = machines;
    }

    /// The next calls fail and do nothing.
    pub fn refuse(&self, calls: usize) {
        self.world().refused = calls;
    }

    /// The next calls do what they should, and their answers are lost.
    pub fn lose_answers(&self, calls: usize) {
        self.world().unanswered = calls;
    }

    /// A machine goes without being asked to.
    pub fn take_away(&self, token: &Token) {
        let mut world = self.world();
        let gone = Instant::now() - world.gone_after;
        world.machines.values_mut().filter(|made| made.order.token == *token).for_each(|made| made.ends = Some(gone));
    }

    /// The orders whose machines are there and not told to go, by id.
    pub fn standing(&self) -> Vec<Order> {
        let world = self.world();
        world.machines.values().filter(|made| made.ends.is_none()).map(|made| made.order.clone()).collect()
    }

    /// How many machines there ever were.
    pub fn made(&self) -> usize {
        self.world().machines.len()
    }

    /// Every call with what it was about, in order.
    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn call(&mut self, doing: &'static str, what: String) -> Result<(), CloudError> {
        self.calls.push(what);
        if self.refused > 0 {
            self.refused -= 1;
            return Err(CloudError::Refused { doing, why: "not now".to_owned() });
        }
        Ok(())
    }

    fn answer<T>(&mut self, doing: &'static str, answer: T) -> Result<T, CloudError> {
        if self.unanswered > 0 {
            self.unanswered -= 1;
            return Err(CloudError::Away { doing, why: "the connection broke".to_owned() });
        }
        Ok(answer)
    }

    fn lives(&self, made: &Made) -> bool {
        made.ends.is_none_or(|ends| ends.elapsed() < self.gone_after)
    }

    fn show(&self, id: &MachineId, made: &Made) -> Machine {
        let state = match made.ends {
            Some(_) => MachineState::Stopping,
            None if made.since.elapsed() < self.boots_after => MachineState::Creating,
            None => MachineState::Running,
        };
        let number: u64 = id.to_string().trim_start_matches("m-").parse().unwrap_or_default();
        let address = format!("root@10.99.{}.{}", number / 250, number % 250 + 1).parse();
        Machine {
            id: id.clone(),
            token: made.order.token.clone(),
            state,
            address: address.ok().filter(|_| state == MachineState::Running),
            host_key: None,
            size: None,
        }
    }
}

#[async_trait]
impl Cloud for Fake {
    async fn create(&self, order: &Order) -> Result<Machine, CloudError> {
        const DOING: &str = "create a machine";
        let mut world = self.world();
        world.call(DOING, format!("create {}", order.token))?;
        let known = world.machines.iter().find(|(_, made)| made.order.token == order.token);
        if let Some((id, made)) = known {
            let machine = world.show(id, made);
            return world.answer(DOING, machine);
        }
        let living = world.machines.values().filter(|made| world.lives(made)).count();
        if world.quota.is_some_and(|quota| living >= quota) {
            return Err(CloudError::Refused { doing: DOING, why: format!("the quota of {living} is reached") });
        }
        let id: MachineId = format!("m-{:04}", world.machines.len() + 1).parse().expect("an id of ours is well formed");
        world.machines.insert(id.clone(), Made { order: order.clone(), since: Instant::now(), ends: None });
        let machine = world.show(&id, &world.machines[&id]);
        world.answer(DOING, machine)
    }

    async fn list(&self, owner: &str) -> Result<Vec<Machine>, CloudError> {
        const DOING: &str = "list the machines";
        let mut world = self.world();
        world.call(DOING, format!("list {owner}"))?;
        let shown =
            |made: &Made| made.order.owner == owner && world.lives(made) && made.since.elapsed() >= world.listed_after;
        let machines = world.machines.iter().filter(|(_, made)| shown(made));
        let machines = machines.map(|(id, made)| world.show(id, made)).collect();
        world.answer(DOING, machines)
    }

    async fn destroy(&self, machine: &Machine) -> Result<(), CloudError> {
        const DOING: &str = "destroy a machine";
        let mut world = self.world();
        world.call(DOING, format!("destroy {}", machine.token))?;
        if let Some(made) = world.machines.get_mut(&machine.id) {
            made.ends.get_or_insert_with(Instant::now);
        }
        world.answer(DOING, ())
    }
}
