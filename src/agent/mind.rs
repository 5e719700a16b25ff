//! What an agent does next: configurations are applied one after the other, the tables of the router and of the embassy
//! change one after the other, none of the three waits for another, and whatever changes is told.

use std::collections::VecDeque;

use super::config::{Applied, Config, Turn, in_order};
use super::lane::Lane;
use super::vitals::{Docker, Machine, Vitals};
use super::{AgentError, Routing};
use crate::embassy::Table;
use crate::network::act::Standing;

/// One question of HQ's, to be answered once.
pub type Ticket = u64;

/// What an agent hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// HQ wants this.
    Configure(Ticket, Box<Config>),
    /// HQ wants the router to serve this.
    Route(Ticket, Turn, Routing),
    /// HQ wants the embassy to have these ports.
    Expose(Ticket, Turn, Table),
    /// A configuration was applied, or could not even be kept.
    Applied(Option<Ticket>, Result<Applied, AgentError>),
    /// Locknet's rules stand like this.
    Stands(Option<Standing>),
    /// The router's tables were changed, or not.
    Routed(Ticket, Turn, Result<(), AgentError>),
    /// The embassy's ports were changed, or not.
    Exposed(Ticket, Result<(), AgentError>),
    /// Docker is like this.
    Docker(Docker),
    /// The machine is like this.
    Machine(Machine),
    /// The program it runs has this digest.
    Program(String),
    /// A while has passed.
    Look,
}

/// What an agent does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Carries out a configuration.
    Apply(Option<Ticket>, Box<Config>, How),
    /// Changes the router's tables.
    Route(Ticket, Turn, Routing),
    /// Changes the embassy's ports.
    Expose(Ticket, Table),
    /// Tells HQ what became of a configuration.
    Answer(Ticket, Result<Applied, AgentError>),
    /// Tells HQ what became of a change of the tables.
    AnswerChange(Ticket, Result<(), AgentError>),
    /// Tells everybody who listens how the server is.
    Show(Vitals),
}

/// How a configuration is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It goes to the disk first, and new rules of locknet on trial.
    New,
    /// It stood before: what has come off is put back.
    Again,
}

/// Everything an agent has in mind.
#[derive(Debug)]
pub struct Mind {
    /// What should be, as the disk has it.
    config: Option<Config>,
    /// The latest configuration that was heard, applied or not.
    heard: Option<Turn>,
    applying: Option<Config>,
    wanted: VecDeque<(Ticket, Config)>,
    routings: Lane<(Ticket, Turn, Routing)>,
    exposures: Lane<(Ticket, Table)>,
    vitals: Vitals,
}

impl Mind {
    /// With what the disk has, which is to be put in place again first.
    pub fn new(version: &str, kept: Option<Config>) -> (Self, Vec<Action>) {
        let vitals = Vitals {
            version: version.to_owned(),
            program: String::new(),
            machine: Machine::default(),
            docker: Docker::Silent("it has not been asked yet".to_owned()),
            locknet: None,
            config: None,
            routes: None,
        };
        let mut mind = Self {
            heard: kept.as_ref().map(|config| config.turn),
            config: kept,
            applying: None,
            wanted: VecDeque::new(),
            routings: Lane::default(),
            exposures: Lane::default(),
            vitals,
        };
        let actions = mind.decide(Event::Look);
        (mind, actions)
    }

    /// The label of the containers to look at, if HQ has told it.
    pub fn label(&self) -> Option<&str> {
        let config = self.applying.as_ref().or(self.config.as_ref());
        config.map(|config| config.label.as_str())
    }

    /// How the server is.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// What follows from an event.
    pub fn decide(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Configure(ticket, config) => self.configure(ticket, *config),
            Event::Route(ticket, turn, routing) => self.route(ticket, turn, routing),
            Event::Expose(ticket, turn, table) => self.expose(ticket, turn, table),
            Event::Applied(ticket, outcome) => self.applied(ticket, outcome),
            Event::Stands(standing) => self.show(|vitals| vitals.locknet = standing),
            Event::Routed(ticket, turn, outcome) => self.routed(ticket, turn, outcome),
            Event::Exposed(ticket, outcome) => self.exposed(ticket, outcome),
            Event::Docker(docker) => self.show(|vitals| vitals.docker = docker),
            // Each second: that nothing has changed is news too.
            Event::Machine(machine) => {
                self.vitals.machine = machine;
                vec![Action::Show(self.vitals.clone())]
            }
            Event::Program(digest) => self.show(|vitals| vitals.program = digest),
            Event::Look => self.look(),
        }
    }

    fn configure(&mut self, ticket: Ticket, config: Config) -> Vec<Action> {
        if let Err(held) = in_order(self.heard, config.turn) {
            return vec![Action::Answer(ticket, Err(AgentError::Stale { held }))];
        }
        self.heard = Some(config.turn);
        self.wanted.push_back((ticket, config));
        self.next().into_iter().collect()
    }

    /// The configuration to begin with now, if none is being applied. Those that a later one has overtaken while they
    /// waited are applied all the same: each is somebody's answer.
    fn next(&mut self) -> Option<Action> {
        if self.applying.is_some() {
            return None;
        }
        let (ticket, config) = self.wanted.pop_front()?;
        self.applying = Some(config.clone());
        Some(Action::Apply(Some(ticket), config.into(), How::New))
    }

    fn applied(&mut self, ticket: Option<Ticket>, outcome: Result<Applied, AgentError>) -> Vec<Action> {
        let config = self.applying.take();
        let mut actions = Vec::new();
        if let Ok(applied) = &outcome {
            self.config = config;
            // Whether one is under way, and which, is told of locknet itself.
            let applied = Applied { trial: None, ..applied.clone() };
            actions.extend(self.show(|vitals| vitals.config = Some(applied)));
        }
        actions.extend(ticket.map(|ticket| Action::Answer(ticket, outcome)));
        actions.extend(self.next());
        actions
    }

    fn route(&mut self, ticket: Ticket, turn: Turn, routing: Routing) -> Vec<Action> {
        match self.routings.take(turn, (ticket, turn, routing)) {
            Ok(next) => next.map(route).into_iter().collect(),
            Err(held) => vec![Action::AnswerChange(ticket, Err(AgentError::Stale { held }))],
        }
    }

    fn routed(&mut self, ticket: Ticket, turn: Turn, outcome: Result<(), AgentError>) -> Vec<Action> {
        let mut actions = Vec::new();
        if outcome.is_ok() {
            actions.extend(self.show(|vitals| vitals.routes = Some(turn)));
        }
        actions.push(Action::AnswerChange(ticket, outcome));
        actions.extend(self.routings.done().map(route));
        actions
    }

    fn expose(&mut self, ticket: Ticket, turn: Turn, table: Table) -> Vec<Action> {
        match self.exposures.take(turn, (ticket, table)) {
            Ok(next) => next.map(expose).into_iter().collect(),
            Err(held) => vec![Action::AnswerChange(ticket, Err(AgentError::Stale { held }))],
        }
    }

    fn exposed(&mut self, ticket: Ticket, outcome: Result<(), AgentError>) -> Vec<Action> {
        let next = self.exposures.done().map(expose);
        [Action::AnswerChange(ticket, outcome)].into_iter().chain(next).collect()
    }

    fn look(&mut self) -> Vec<Action> {
        match (&self.config, &self.applying) {
            (Some(config), None) => {
                let config = config.clone();
                self.applying = Some(config.clone());
                vec![Action::Apply(None, config.into(), How::Again)]
            }
            (Some(_) | None, Some(_)) | (None, None) => Vec::new(),
        }
    }

    fn show(&mut self, change: impl FnOnce(&mut Vitals)) -> Vec<Action> {
        let before = self.vitals.clone();
        change(&mut self.vitals);
        if before == self.vitals { Vec::new() } else { vec![Action::Show(self.vitals.clone())] }
    }
}

fn route((ticket, turn, routing): (Ticket, Turn, Routing)) -> Action {
    Action::Route(ticket, turn, routing)
}

fn expose((ticket, table): (Ticket, Table)) -> Action {
    Action::Expose(ticket, table)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn turn(generation: u64) -> Turn {
        Turn { epoch: 1, generation }
    }

    fn config(generation: u64) -> Config {
        Config { label: "quarry.hq=x".into(), ..Config::nothing(turn(generation)) }
    }

    fn done(generation: u64) -> Applied {
        Applied { turn: turn(generation), trial: None, failed: BTreeMap::new() }
    }

    fn remove() -> Routing {
        Routing::Remove("blog".parse().unwrap())
    }

    /// What is done about it, without what is only shown.
    fn deeds(mind: &mut Mind, event: Event) -> Vec<Action> {
        mind.decide(event).into_iter().filter(|action| !matches!(action, Action::Show(_))).collect()
    }

    #[test]
    fn what_the_disk_has_is_put_in_place_first_and_an_older_wish_is_refused() {
        let (mut mind, first) = Mind::new("1", Some(config(5)));
        assert_eq!(first, [Action::Apply(None, config(5).into(), How::Again)]);
        let refused = deeds(&mut mind, Event::Configure(1, config(4).into()));
        assert_eq!(refused, [Action::Answer(1, Err(AgentError::Stale { held: turn(5) }))]);
        assert_eq!(mind.label(), Some("quarry.hq=x"));
    }

    #[test]
    fn configurations_are_applied_one_after_the_other_and_each_is_answered() {
        let (mut mind, first) = Mind::new("1", None);
        assert_eq!(first, []);
        assert_eq!(
            deeds(&mut mind, Event::Configure(1, config(1).into())),
            [Action::Apply(Some(1), config(1).into(), How::New)]
        );
        assert_eq!(deeds(&mut mind, Event::Configure(2, config(2).into())), []);
        assert_eq!(deeds(&mut mind, Event::Look), []);
        assert_eq!(
            deeds(&mut mind, Event::Applied(Some(1), Ok(done(1)))),
            [Action::Answer(1, Ok(done(1))), Action::Apply(Some(2), config(2).into(), How::New)]
        );
        assert_eq!(deeds(&mut mind, Event::Applied(Some(2), Ok(done(2)))), [Action::Answer(2, Ok(done(2)))]);
        assert_eq!(deeds(&mut mind, Event::Look), [Action::Apply(None, config(2).into(), How::Again)]);
    }

    #[test]
    fn what_could_not_be_kept_is_not_what_should_be_and_may_come_again() {
        let (mut mind, _) = Mind::new("1", None);
        deeds(&mut mind, Event::Configure(1, config(1).into()));
        deeds(&mut mind, Event::Applied(Some(1), Ok(done(1))));
        deeds(&mut mind, Event::Configure(2, config(2).into()));
        let full = AgentError::Disk("no space left".into());
        let answer = deeds(&mut mind, Event::Applied(Some(2), Err(full.clone())));
        assert_eq!(answer, [Action::Answer(2, Err(full))]);
        assert_eq!(deeds(&mut mind, Event::Look), [Action::Apply(None, config(1).into(), How::Again)]);
        deeds(&mut mind, Event::Applied(None, Ok(done(1))));
        assert_eq!(
            deeds(&mut mind, Event::Configure(3, config(2).into())),
            [Action::Apply(Some(3), config(2).into(), How::New)]
        );
    }

    #[test]
    fn the_tables_wait_for_each_other_and_not_for_the_configuration() {
        let (mut mind, _) = Mind::new("1", None);
        deeds(&mut mind, Event::Configure(1, config(9).into()));
        assert_eq!(deeds(&mut mind, Event::Route(2, turn(1), remove())), [Action::Route(2, turn(1), remove())]);
        assert_eq!(deeds(&mut mind, Event::Route(3, turn(3), remove())), []);
        let stale = Err(AgentError::Stale { held: turn(3) });
        assert_eq!(deeds(&mut mind, Event::Route(4, turn(2), remove())), [Action::AnswerChange(4, stale)]);
        assert_eq!(
            deeds(&mut mind, Event::Routed(2, turn(1), Ok(()))),
            [Action::AnswerChange(2, Ok(())), Action::Route(3, turn(3), remove())]
        );
        assert_eq!(mind.vitals().routes, Some(turn(1)));
    }

    #[test]
    fn the_embassys_ports_wait_for_each_other_and_for_nothing_else() {
        let (mut mind, _) = Mind::new("1", None);
        deeds(&mut mind, Event::Configure(1, config(9).into()));
        deeds(&mut mind, Event::Route(2, turn(1), remove()));
        let table = Table::default();
        let begun = deeds(&mut mind, Event::Expose(3, turn(1), table.clone()));
        assert_eq!(begun, [Action::Expose(3, table.clone())]);
        assert_eq!(deeds(&mut mind, Event::Expose(4, turn(2), table.clone())), []);
        let stale = Err(AgentError::Stale { held: turn(2) });
        let refused = deeds(&mut mind, Event::Expose(5, turn(1), table.clone()));
        assert_eq!(refused, [Action::AnswerChange(5, stale)]);
        let went_on = deeds(&mut mind, Event::Exposed(3, Ok(())));
        assert_eq!(went_on, [Action::AnswerChange(3, Ok(())), Action::Expose(4, table)]);
    }

    #[test]
    fn vitals_are_told_when_they_change_and_with_every_measurement() {
        let (mut mind, _) = Mind::new("1", None);
        let docker = Docker::Answers(Vec::new());
        assert_eq!(mind.decide(Event::Docker(docker.clone())).len(), 1);
        assert_eq!(mind.decide(Event::Docker(docker)), []);
        for _ in 0..2 {
            assert_eq!(mind.decide(Event::Machine(Machine::default())), [Action::Show(mind.vitals().clone())]);
        }
    }
}
