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
    let Some(place) = command_place(words) else { return words.join(" ") };
    let verb = words.get(place + 1).map(String::as_str);
    let (before, given) = words.split_at(words.len().min(place + 2));
    let given = match (words[place].as_str(), verb) {
        ("env", Some("set")) => set(given),
        ("jobs", Some("run")) => run(given),
        _ => given.to_vec(),
    };
    [before, &given].concat().join(" ")
}

/// What follows `env set`.
fn set(given: &[String]) -> Vec<String> {
    let mut stack = true;
    let told = given.iter().map(|word| match word.split_once('=') {
        _ if ["--no-restart", "--json"].contains(&word.as_str()) => word.clone(),
        Some((name, _)) if name.parse::<EnvName>().is_ok() => {
            stack = false;
            without_value(word)
        }
        None if std::mem::take(&mut stack) && word.parse::<StackName>().is_ok() => word.clone(),
        _ => without_value(word),
    });
    told.collect()
}

/// What follows `jobs run`, up to the job's own command.
fn run(given: &[String]) -> Vec<String> {
    let (mut is_value, mut is_own) = (false, false);
    let told = given.iter().map(|word| {
        is_own |= word == "--" && !is_value;
        if is_own {
            return word.clone();
        }
        if std::mem::take(&mut is_value) {
            return without_value(word);
        }
        // `-e A=b`, `-eA=b` and `-deA=b` are one and the same.
        let short = word.find('e').filter(|_| word.starts_with('-') && !word.starts_with("--"));
        match (short, word.strip_prefix("--env")) {
            (Some(at), _) if at + 1 < word.len() => format!("{}{}", &word[..=at], without_value(&word[at + 1..])),
            (Some(_), _) | (None, Some("")) => {
                is_value = true;
                word.clone()
            }
            (None, Some(rest)) if rest.starts_with('=') => format!("--env={}", without_value(&rest[1..])),
            (None, _) => word.clone(),
        }
    });
    told.collect()
}

/// The name of what may be a variable.
fn without_value(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _)) if name.parse::<EnvName>().is_ok() => format!("{name}=…"),
        Some(_) | None => "…".to_owned(),
    }
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
        check("jobs run -e KEY=secret --image a -- env A=b", "jobs run -e KEY=… --image a -- env A=b");
        check("jobs run --env KEY=secret -deB=s3cret job.yml", "jobs run --env KEY=… -deB=… job.yml");
        check(
            "--stack blog jobs run --env=KEY=a=b -eB=c -e -- -- x",
            "--stack blog jobs run --env=KEY=… -eB=… -e … -- x",
        );
        check("jobs run -de s3cret --name e", "jobs run -de … --name e");
        check("jobs list blog", "jobs list blog");
        check("scale blog web=2", "scale blog web=2");
        check("env import blog --replace", "env import blog --replace");
    }
}
