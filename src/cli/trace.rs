//! What a command leaves in the record of events: its beginning where it changes something, and what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::command_place;
use super::failure::{Exit, Failure};
use crate::hq::Hq;
use crate::hq::events::{Event, Outcome};
use crate::names::{EnvName, StackName};

/// One command's events.
pub struct Trace {
    hq: Arc<Hq>,
    event: Mutex<Event>,
    /// Whether it changes something.
    changes: bool,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Silent,
    Begun,
    /// Somebody asked for what is not theirs.
    Refused,
}

impl Trace {
    /// Nothing is written yet.
    pub fn new(hq: Arc<Hq>, event: Event, changes: bool) -> Self {
        Self { hq, event: Mutex::new(event), changes, state: Mutex::new(State::Silent) }
    }

    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    fn event(&self) -> Event {
        self.event.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it is, for those who wait for it.
    pub fn told(&self) -> String {
        let event = self.event();
        format!("`{}` by {}", event.what, event.user)
    }

    /// Which stack it is about.
    pub fn about(&self, stack: &StackName) {
        self.event.lock().unwrap_or_else(PoisonError::into_inner).stack = Some(stack.clone());
    }

    /// It was asked for by somebody who may not.
    pub fn refused(&self) {
        self.set(State::Refused);
    }

    /// It begins to do what it does.
    pub async fn begin(&self) {
        if self.changes && self.set(State::Begun) == State::Silent {
            self.hq.write_event(self.event()).await;
        }
    }

    /// It has ended.
    pub async fn end(&self, done: &Result<u8, Failure>) {
        let refused = self.set(State::Silent) == State::Refused;
        let (outcome, why) = match done {
            Ok(0) => (Outcome::Done, None),
            Ok(code) => (Outcome::Done, Some(format!("exit code {code}"))),
            Err(failure) if refused || failure.code == Exit::Refused as u8 => {
                (Outcome::Refused, Some(failure.message.clone()))
            }
            Err(failure) => (Outcome::Failed, Some(failure.message.clone())),
        };
        if self.changes || outcome == Outcome::Refused {
            self.hq.end_event(self.event(), outcome, why.as_deref()).await;
        }
    }
}

/// A command's words as an event shows them: whatever may be the value of a variable stays out.
pub fn told(words: &[String]) -> String {
    let place = command_place(words).filter(|place| words[*place] == "env");
    let Some(place) = place.filter(|place| words.get(place + 1).is_some_and(|verb| verb == "set")) else {
        return words.join(" ");
    };
    let (before, given) = words.split_at(place + 2);
    let mut stack = true;
    let told = given.iter().map(|word| match word.split_once('=') {
        _ if ["--no-restart", "--json"].contains(&word.as_str()) => word.clone(),
        Some((name, _)) if name.parse::<EnvName>().is_ok() => {
            stack = false;
            format!("{name}=…")
        }
        None if std::mem::take(&mut stack) && word.parse::<StackName>().is_ok() => word.clone(),
        _ => "…".to_owned(),
    });
    before.iter().cloned().chain(told).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::normalised;

    #[test]
    fn values_of_variables_are_not_told_however_they_are_spelt() {
        let check = |line: &str, expected: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(told(&normalised(words)), expected, "{line}");
        };
        check("env set blog KEY=secret B=c=d", "env set blog KEY=… B=…");
        check("--stack=blog env set KEY=secret", "--stack=blog env set KEY=…");
        check("--stack blog env set KEY=secret", "--stack blog env set KEY=…");
        check("env set --stack blog KEY=secret", "--stack blog env set KEY=…");
        check("config:set KEY=secret -a blog", "--stack blog env set KEY=…");
        check("config:set --no-restart blog KEY=secret", "env set --no-restart blog KEY=…");
        check("--json --stack blog env:set KEY=a s3cret", "--json --stack blog env set KEY=… …");
        check("env set blog TOKEN s3cret", "env set blog … …");
        check("env set blog KEY=a \n-s3=cret", "env set blog KEY=… …");
        check("scale blog web=2", "scale blog web=2");
        check("env import blog --replace", "env import blog --replace");
    }
}
