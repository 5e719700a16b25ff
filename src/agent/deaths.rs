//! Containers that have died although docker still lists them as running: it says first that one has died, and puts it in
//! order some hundred milliseconds later, without another word.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::docker::{Container, Event, State};

/// After so long the list is right.
const DOUBT: Duration = Duration::from_secs(2);

/// How soon the list is looked at again while somebody has just died.
pub const AGAIN: Duration = Duration::from_millis(300);

/// Who has died lately, by name.
#[derive(Debug, Default)]
pub struct Deaths(BTreeMap<String, Instant>);

impl Deaths {
    /// Something has happened to a container.
    pub fn hear(&mut self, event: &Event, now: Instant) {
        match event.action.as_str() {
            "die" => drop(self.0.insert(event.container.clone(), now)),
            "start" | "destroy" => drop(self.0.remove(&event.container)),
            _ => {}
        }
    }

    /// Corrects a list; whether there was anything to correct.
    pub fn correct(&mut self, containers: &mut [Container], now: Instant) -> bool {
        self.0.retain(|_, died| now.saturating_duration_since(*died) < DOUBT);
        let runs = |container: &&mut Container| container.state == State::Running;
        let mut corrected = false;
        for container in containers.iter_mut().filter(runs) {
            if self.0.contains_key(container.name.as_str()) {
                // With which code is told when docker knows.
                container.state = State::Dead;
                corrected = true;
            }
        }
        corrected
    }

    /// Whether a list may yet change by itself.
    pub fn are_recent(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Container {
        Container {
            id: String::new(),
            name: name.parse().unwrap(),
            image: String::new(),
            labels: BTreeMap::new(),
            state: State::Running,
            addresses: BTreeMap::new(),
            created: 0,
        }
    }

    fn event(container: &str, action: &str) -> Event {
        Event { container: container.to_owned(), labels: BTreeMap::new(), action: action.to_owned() }
    }

    #[test]
    fn who_has_died_does_not_run_until_it_is_started_or_the_list_is_sure() {
        let (mut deaths, begin) = (Deaths::default(), Instant::now());
        let states = |deaths: &mut Deaths, at: Duration| {
            let mut both = [container("blog.web.1.1"), container("blog.web.1.2")];
            deaths.correct(&mut both, begin + at);
            both.map(|container| container.state)
        };
        deaths.hear(&event("blog.web.1.1", "kill"), begin);
        assert!(!deaths.are_recent());
        deaths.hear(&event("blog.web.1.1", "die"), begin);
        assert_eq!(states(&mut deaths, AGAIN), [State::Dead, State::Running]);
        assert!(deaths.are_recent());
        deaths.hear(&event("blog.web.1.1", "start"), begin);
        assert_eq!(states(&mut deaths, AGAIN), [State::Running; 2]);
        deaths.hear(&event("blog.web.1.2", "die"), begin);
        assert_eq!(states(&mut deaths, DOUBT), [State::Running; 2]);
        assert!(!deaths.are_recent());
    }
}
