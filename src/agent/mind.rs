//! What an agent does next: configurations are applied one after the other, the router's tables change one after the
//! other, neither waits for the other, and whatever changes is told.

use std::collections::VecDeque;

use super::config::{Applied, Config, Turn, in_order};
use super::vitals::{Docker, Machine, Vitals};
use super::{AgentError, Routing};
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
    /// A configuration was applied, or could not even be kept.
    Applied(Option<Ticket>, Result<Applied, AgentError>),
    /// Locknet's rules stand like this.
    Stands(Option<Standing>),
    /// The router's tables were changed, or not.
    Routed(Ticket, Turn, Result<(), AgentError>),
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
    /// Tells HQ what became of a configuration.
    Answer(Ticket, Result<Applied, AgentError>),
    /// Tells HQ what became of a change of the tables.
    AnswerRoute(Ticket, Result<(), AgentError>),
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
    routing: bool,
    routes_heard: Option<Turn>,
    routings: VecDeque<(Ticket, Turn, Routing)>,
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
            routing: false,
            routes_heard: None,
            routings: VecDeque::new(),
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
            Event::Applied(ticket, outcome) => self.applied(ticket, outcome),
            Event::Stands(standing) => self.show(|vitals| vitals.locknet = standing),
            Event::Routed(ticket, turn, outcome) => self.routed(ticket, turn, outcome),
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
        if let Err(held) = in_order(self.routes_heard, turn) {
            return vec![Action::AnswerRoute(ticket, Err(AgentError::Stale { held }))];
        }
        self.routes_heard = Some(turn);
        self.routings.push_back((ticket, turn, routing));
        self.next_routing().into_iter().collect()
    }

    fn next_routing(&mut self) -> Option<Action> {
        if self.routing {
            return None;
        }
        let (ticket, turn, routing) = self.routings.pop_front()?;
        self.routing = true;
        Some(Action::Route(ticket, turn, routing))
    }

    fn routed(&mut self, ticket: Ticket, turn: Turn, outcome: Result<(), AgentError>) -> Vec<Action> {
        self.routing = false;
        let mut actions = Vec::new();
        if outcome.is_ok() {
            actions.extend(self.show(|vitals| vitals.routes = Some(turn)));
        }
        actions.push(Action::AnswerRoute(ticket, outcome));
        actions.extend(self.next_routing());
        actions
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
        assert_eq!(deeds(&mut mind, Event::Route(4, turn(2), remove())), [Action::AnswerRoute(4, stale)]);
        assert_eq!(
            deeds(&mut mind, Event::Routed(2, turn(1), Ok(()))),
            [Action::AnswerRoute(2, Ok(())), Action::Route(3, turn(3), remove())]
        );
        assert_eq!(mind.vitals().routes, Some(turn(1)));
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
