//! A machine from the intent to order it until it is surely gone: `grid/rentals/<server>.json`, and what comes next.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::ServerName;
use crate::servers::cloud::{Machine, MachineId, MachineState, Token};
use crate::units::{Megabytes, Millis};

/// A machine that HQ rents. Written before anything that is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rental {
    /// By which the cloud knows the order, and HQ the machine.
    pub token: Token,
    /// Its memory, at least.
    pub size: Megabytes,
    /// What it has to be good for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// How far it is.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// The cloud's name for it, once it has told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MachineId>,
}

/// How far a rental is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is to be ordered, and may have been.
    Ordered,
    /// The cloud has the order.
    Made,
    /// It is a server.
    Serving,
    /// It is a server that is being emptied, to be given back.
    Leaving,
    /// It is no server, and must not be there any more.
    Ending,
    /// The same, and the cloud has been told.
    Ended,
}

impl Stage {
    /// The state for people, of one that is no server.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Ordered => "ordered",
            Stage::Made => "creating",
            Stage::Serving | Stage::Leaving => "leaving",
            Stage::Ending | Stage::Ended => "destroying",
        }
    }

    /// Whether it will be a slice of the grid.
    pub fn is_coming(self) -> bool {
        matches!(self, Stage::Ordered | Stage::Made)
    }
}

/// What is to be seen of a rental outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the cloud shows of it.
    pub machine: Option<Machine>,
    /// Whether it is one of HQ's servers.
    pub server: Server,
}

/// What HQ knows of the server that a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It is none.
    None,
    /// It is one, and nothing is lost with it that has not been moved away.
    Free,
    /// It is one that keeps data of a stack.
    Keeps,
    /// It is one that has been given up for lost, and keeps nothing.
    Lost,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Nothing, until something else changes.
    Rest,
    /// To look again in a moment.
    Wait,
    /// To ask the cloud for it.
    Create,
    /// To make it a server.
    Admit(Machine),
    /// To move off it what runs there, and let the server go.
    Empty,
    /// To let go a server whose machine is gone.
    GiveUp,
    /// To have it destroyed.
    Destroy(Machine),
    /// To note that it is here.
    Go(Stage),
    /// To forget it.
    Forget,
}

/// For how long a machine may be missing in lists after it was ordered.
const LAG: Duration = Duration::from_secs(120);

impl Rental {
    /// The same, here.
    pub fn at(self, stage: Stage, now: Timestamp) -> Self {
        Self { stage, since: now, ..self }
    }

    /// What comes next. Nothing is destroyed that is a server, and nothing forgotten that may still appear.
    pub fn next(&self, seen: &Seen, now: Timestamp, create_timeout: Millis) -> Move {
        // A clock that was set back would have it wait for as long as that.
        let Ok(age) = Duration::try_from(now.duration_since(self.since)) else { return Move::Go(self.stage) };
        let state = seen.machine.as_ref().map(|machine| machine.state);
        match (self.stage, seen.server) {
            (Stage::Ordered, _) => match state {
                None => Move::Create,
                Some(MachineState::Stopping) => Move::Go(Stage::Ending),
                Some(MachineState::Creating | MachineState::Running) => Move::Go(Stage::Made),
            },
            (Stage::Made, _) => match &seen.machine {
                _ if age > create_timeout.duration() => Move::Go(Stage::Ending),
                Some(machine) if machine.state == MachineState::Running && machine.address.is_some() => {
                    Move::Admit(machine.clone())
                }
                Some(machine) if machine.state == MachineState::Stopping => Move::Go(Stage::Ending),
                Some(_) | None => Move::Wait,
            },
            // A person has removed it.
            (Stage::Serving | Stage::Leaving, Server::None) => Move::Go(Stage::Ending),
            (Stage::Serving, Server::Free | Server::Keeps) => Move::Rest,
            (Stage::Leaving, Server::Free) => Move::Empty,
            (Stage::Leaving, Server::Keeps) => Move::Go(Stage::Serving),
            (Stage::Serving | Stage::Leaving, Server::Lost) => match state {
                None | Some(MachineState::Stopping) => Move::GiveUp,
                // It may come back: only the way to it is broken.
                Some(MachineState::Creating | MachineState::Running) => Move::Wait,
            },
            (Stage::Ending | Stage::Ended, Server::Free | Server::Keeps | Server::Lost) => Move::Go(Stage::Leaving),
            (Stage::Ending | Stage::Ended, Server::None) => match &seen.machine {
                Some(machine) if machine.state == MachineState::Stopping => Move::Wait,
                Some(machine) => Move::Destroy(machine.clone()),
                None if self.stage == Stage::Ended || age > LAG => Move::Forget,
                None => Move::Wait,
            },
        }
    }
}

/// A name that nothing has: `auto1`, `auto2`, …
pub fn free_name(taken: &BTreeSet<ServerName>) -> ServerName {
    let names = (1_u32..).map(|number| format!("auto{number}").parse().expect("a name of ours is well formed"));
    names.into_iter().find(|name| !taken.contains(name)).expect("there are more names than servers")
}

/// How long to wait after so many failures in a row: 2 s to about 4 min.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Millis = Millis::seconds(600);

    fn rental(stage: Stage) -> Rental {
        Rental {
            token: "0-auto1-1".parse().unwrap(),
            size: Megabytes(2048),
            tags: BTreeSet::new(),
            stage,
            since: Timestamp::UNIX_EPOCH,
            id: None,
        }
    }

    fn machine(state: MachineState) -> Machine {
        Machine {
            id: "i-1".parse().unwrap(),
            token: "0-auto1-1".parse().unwrap(),
            state,
            address: Some("root@10.0.0.7".parse().unwrap()),
            host_key: None,
            size: None,
        }
    }

    #[track_caller]
    fn check(stage: Stage, machine: Option<Machine>, server: Server, age: u64, expected: &Move) {
        let now = Timestamp::from_second(age.cast_signed()).unwrap();
        let next = rental(stage).next(&Seen { machine: machine.clone(), server }, now, TIMEOUT);
        assert_eq!(next, *expected, "{stage:?} {machine:?} {server:?} {age}");
    }

    #[test]
    fn an_order_is_found_again_before_it_is_repeated() {
        use MachineState::{Creating, Running, Stopping};
        check(Stage::Ordered, None, Server::None, 9999, &Move::Create);
        check(Stage::Ordered, Some(machine(Creating)), Server::None, 0, &Move::Go(Stage::Made));
        check(Stage::Ordered, Some(machine(Running)), Server::None, 0, &Move::Go(Stage::Made));
        check(Stage::Ordered, Some(machine(Stopping)), Server::None, 0, &Move::Go(Stage::Ending));
    }

    #[test]
    fn a_machine_is_waited_for_and_not_for_ever() {
        let nowhere = Machine { address: None, ..machine(MachineState::Running) };
        check(Stage::Made, None, Server::None, 600, &Move::Wait);
        check(Stage::Made, Some(machine(MachineState::Creating)), Server::None, 1, &Move::Wait);
        check(Stage::Made, Some(nowhere), Server::None, 1, &Move::Wait);
        let there = machine(MachineState::Running);
        check(Stage::Made, Some(there.clone()), Server::None, 1, &Move::Admit(there.clone()));
        // HQ was killed between the server's record and its own.
        check(Stage::Made, Some(there.clone()), Server::Free, 1, &Move::Admit(there.clone()));
        check(Stage::Made, Some(machine(MachineState::Stopping)), Server::None, 1, &Move::Go(Stage::Ending));
        check(Stage::Made, Some(there), Server::None, 601, &Move::Go(Stage::Ending));
    }

    #[test]
    fn what_is_a_server_is_emptied_before_it_is_destroyed() {
        let there = || Some(machine(MachineState::Running));
        check(Stage::Serving, there(), Server::Free, 9999, &Move::Rest);
        check(Stage::Leaving, there(), Server::Free, 9999, &Move::Empty);
        check(Stage::Leaving, there(), Server::Keeps, 0, &Move::Go(Stage::Serving));
        for server in [Server::Free, Server::Keeps, Server::Lost] {
            check(Stage::Ending, there(), server, 9999, &Move::Go(Stage::Leaving));
            check(Stage::Ended, None, server, 9999, &Move::Go(Stage::Leaving));
        }
        check(Stage::Serving, there(), Server::None, 0, &Move::Go(Stage::Ending));
        check(Stage::Ending, there(), Server::None, 0, &Move::Destroy(machine(MachineState::Running)));
        check(Stage::Ended, there(), Server::None, 0, &Move::Destroy(machine(MachineState::Running)));
    }

    #[test]
    fn a_server_is_given_up_only_when_its_cloud_has_it_no_more() {
        check(Stage::Serving, None, Server::Lost, 0, &Move::GiveUp);
        check(Stage::Serving, Some(machine(MachineState::Stopping)), Server::Lost, 0, &Move::GiveUp);
        check(Stage::Serving, Some(machine(MachineState::Running)), Server::Lost, 9999, &Move::Wait);
        check(Stage::Serving, None, Server::Keeps, 9999, &Move::Rest);
    }

    #[test]
    fn nothing_is_forgotten_that_may_still_appear() {
        check(Stage::Ending, None, Server::None, 119, &Move::Wait);
        check(Stage::Ending, None, Server::None, 121, &Move::Forget);
        check(Stage::Ended, None, Server::None, 0, &Move::Forget);
        check(Stage::Ended, Some(machine(MachineState::Stopping)), Server::None, 9999, &Move::Wait);
    }

    #[test]
    fn what_was_noted_before_the_clock_was_set_back_is_noted_anew() {
        let waiting = Rental { since: Timestamp::from_second(1000).unwrap(), ..rental(Stage::Made) };
        let seen = Seen { machine: None, server: Server::None };
        let now = Timestamp::from_second(10).unwrap();
        assert_eq!(waiting.next(&seen, now, TIMEOUT), Move::Go(Stage::Made));
        assert_eq!(waiting.at(Stage::Made, now).next(&seen, now, TIMEOUT), Move::Wait);
    }

    #[test]
    fn names_are_used_again() {
        let taken = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(free_name(&taken(&["hq", "s1"])).as_str(), "auto1");
        assert_eq!(free_name(&taken(&["auto1", "auto3"])).as_str(), "auto2");
    }

    #[test]
    fn a_rental_is_kept_as_json() {
        let text = serde_json::to_string(&rental(Stage::Made)).unwrap();
        let expected = r#"{"token":"0-auto1-1","size":2048,"stage":"made","since":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Rental>(&text).unwrap(), rental(Stage::Made));
    }
}
