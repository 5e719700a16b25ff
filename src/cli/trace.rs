//! What a command leaves in the record of events: its beginning where it changes something, and what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use super::failure::{Exit, Failure};
use crate::hq::Hq;
use crate::hq::events::{Event, Outcome};
use crate::names::StackName;

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
