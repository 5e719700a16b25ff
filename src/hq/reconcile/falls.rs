//! Containers that fall again and again, and how long each waits before HQ starts it once more. Most the engine starts
//! again by itself, and slows down by itself; those that may exist only once are HQ's to start.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::instruction::Instruction;
use crate::launch::world::{Instance, World};
use crate::names::{ContainerName, NodeName};

/// A container that has run for so long has recovered.
const RECOVERED: SignedDuration = SignedDuration::from_mins(10);

/// Before the second start; each further one waits twice as long.
const FIRST: SignedDuration = SignedDuration::from_secs(10);

/// The longest wait.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// `stacks/<stack>/falls.json`: the containers that have fallen lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Falls(BTreeMap<ContainerName, Fall>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fall {
    /// How often, in a row.
    count: u32,
    /// Since when it is what it is.
    since: Timestamp,
    is_down: bool,
}

impl Fall {
    fn due(&self) -> Timestamp {
        let wait = match self.count {
            0 | 1 => SignedDuration::ZERO,
            count => (FIRST * (1 << (count - 2).min(10))).min(LONGEST),
        };
        self.since.saturating_add(wait).expect("a few minutes are no overflow")
    }
}

impl Falls {
    /// Notes which containers lie, and which have got up again.
    pub fn see(&mut self, world: &World, now: Timestamp) {
        let ours: BTreeMap<&ContainerName, &Instance> =
            alone(world).map(|instance| (&instance.name, instance)).collect();
        self.0.retain(|name, _| ours.contains_key(name));
        // A clock that was set back must not make anybody wait until it is that late again.
        self.0.values_mut().for_each(|fall| fall.since = fall.since.min(now));
        for (name, instance) in ours {
            match (self.0.get_mut(name), instance.runs) {
                (None, true) => {}
                (None, false) => drop(self.0.insert(name.clone(), Fall { count: 1, since: now, is_down: true })),
                (Some(fall), false) if fall.is_down => {}
                (Some(fall), false) => *fall = Fall { count: fall.count + 1, since: now, is_down: true },
                (Some(fall), true) if fall.is_down => *fall = Fall { since: now, is_down: false, ..fall.clone() },
                (Some(fall), true) if now.duration_since(fall.since) >= RECOVERED => drop(self.0.remove(name)),
                (Some(_), true) => {}
            }
        }
    }

    /// When a container that lies is started again.
    pub fn due(&self, container: &ContainerName) -> Option<Timestamp> {
        self.0.get(container).filter(|fall| fall.is_down).map(Fall::due)
    }

    /// Takes out what has to wait, notes what is started now, and tells how long it is until the next one is due.
    pub fn hold(
        &mut self,
        instructions: &mut Vec<Instruction>,
        world: &World,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        let waiting: BTreeMap<&NodeName, Timestamp> = alone(world)
            .filter_map(|instance| Some((&instance.node, self.due(&instance.name)?)))
            .filter(|(_, due)| *due > now)
            .collect();
        instructions.retain(|instruction| !scaled(instruction).is_some_and(|node| waiting.contains_key(node)));
        let started: BTreeSet<&NodeName> = instructions.iter().filter_map(scaled).collect();
        for instance in alone(world).filter(|instance| started.contains(&instance.node)) {
            if let Some(fall) = self.0.get_mut(&instance.name) {
                *fall = Fall { since: now, is_down: false, ..fall.clone() };
            }
        }
        waiting.values().map(|due| due.duration_since(now)).min()
    }
}

/// The containers the engine does not start again.
fn alone(world: &World) -> impl Iterator<Item = &Instance> {
    world.instances.iter().filter(|instance| {
        world.procs.get(&instance.node).is_some_and(|proc| proc.settings.is_alone() && proc.address.is_none())
    })
}

fn scaled(instruction: &Instruction) -> Option<&NodeName> {
    match instruction {
        Instruction::Scale { node, .. } => Some(node),
        Instruction::Ensure { .. }
        | Instruction::Deploy { .. }
        | Instruction::Route { .. }
        | Instruction::Kill { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hq::reconcile::drift;
    use crate::instruction::Settings;
    use crate::launch::plan::plan;
    use crate::launch::sample::{after, name, settings, world};
    use crate::names::ReleaseNumber;
    use crate::stack::Overlap;

    /// One container that may exist only once.
    fn single() -> World {
        let settings = Settings { overlap: Overlap::StopFirst, ..settings() };
        let deploy = Instruction::Deploy {
            node: name("web"),
            release: ReleaseNumber(1),
            count: 1,
            settings: Box::new(settings),
        };
        let launched = plan(&[deploy], &world(&["hq"])).unwrap();
        let mut world = after(world(&["hq"]), &launched);
        world.routes = None;
        world
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    /// Looks at the container, which lies or runs; whether it is started, or for how long it waits.
    fn look(falls: &mut Falls, runs: bool, seconds: i64) -> Result<bool, i64> {
        let mut world = single();
        world.instances[0].runs = runs;
        falls.see(&world, at(seconds));
        let mut instructions = drift(&world);
        match falls.hold(&mut instructions, &world, at(seconds)) {
            Some(wait) => {
                assert_eq!(instructions, []);
                Err(wait.as_secs())
            }
            None => Ok(!instructions.is_empty()),
        }
    }

    #[test]
    fn each_fall_waits_twice_as_long_as_the_one_before_up_to_five_minutes() {
        let mut falls = Falls::default();
        let mut now = 0;
        assert_eq!(look(&mut falls, false, now), Ok(true), "the first time at once");
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            now += 5;
            assert_eq!(look(&mut falls, false, now), Err(expected));
            // HQ begins anew in between.
            falls = serde_json::from_str(&serde_json::to_string(&falls).unwrap()).unwrap();
            assert_eq!(look(&mut falls, false, now + 4), Err(expected - 4));
            now += expected;
            assert_eq!(look(&mut falls, false, now), Ok(true));
        }
    }

    #[test]
    fn nobody_waits_until_a_clock_that_was_set_back_is_that_late_again() {
        let mut falls = Falls::default();
        assert_eq!(look(&mut falls, false, 100_000), Ok(true));
        assert_eq!(look(&mut falls, false, 100_005), Err(10));
        assert_eq!(look(&mut falls, false, 500), Err(10));
        assert_eq!(look(&mut falls, false, 510), Ok(true));
    }

    #[test]
    fn one_that_has_run_for_long_has_recovered_and_another_container_begins_anew() {
        let mut falls = Falls::default();
        assert_eq!(look(&mut falls, false, 0), Ok(true));
        assert_eq!(look(&mut falls, true, 599), Ok(false));
        assert_eq!(look(&mut falls, false, 599), Err(10));
        assert_eq!(look(&mut falls, false, 609), Ok(true));
        assert_eq!(look(&mut falls, true, 1209), Ok(false));
        assert_eq!(falls, Falls::default());
        assert_eq!(look(&mut falls, false, 1210), Ok(true));
        let mut other = single();
        other.instances[0].name = name("blog.web.2.1");
        falls.see(&other, at(1211));
        assert_eq!(falls, Falls::default());
    }

    #[test]
    fn what_the_engine_starts_again_is_not_held() {
        let mut world = single();
        world.procs.get_mut(&name::<NodeName>("web")).unwrap().settings.overlap = Overlap::StartFirst;
        world.instances[0].runs = false;
        let mut falls = Falls::default();
        for seconds in 0..3 {
            falls.see(&world, at(seconds));
            let mut instructions = drift(&world);
            assert_eq!(falls.hold(&mut instructions, &world, at(seconds)), None);
            assert_eq!(instructions.len(), 1);
        }
    }
}
