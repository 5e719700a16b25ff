//! HQ becomes a newer program: those who are inside finish, those who knock meanwhile wait a moment, and nobody is
//! turned away. [`act`] waits and decides, [`process`] deals with the programs, [`files`] marks one that is on trial.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub mod act;
pub mod files;
pub mod process;

/// Why HQ stays the program it is.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// Not from elsewhere.
    #[error("a program is put in HQ's place on HQ's machine only, by root: quarry upgrade FILE")]
    Elsewhere,
    /// It does not work here.
    #[error("{} does not work here: {why}", program.display())]
    Unfit {
        /// Which program.
        program: PathBuf,
        /// Its last words.
        why: String,
    },
    /// Somebody is inside.
    #[error("after {waited} s this is still under way: {what}; HQ stays as it is, try again later")]
    Busy {
        /// How long was waited.
        waited: u64,
        /// What.
        what: String,
    },
    /// A file.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is about to be another program already.
    #[error("HQ begins anew at this moment; try again")]
    UnderWay,
}

/// Those who are inside, and whether more are let in.
#[derive(Debug, Default)]
pub struct Traffic {
    state: watch::Sender<State>,
    work: Mutex<BTreeMap<u64, String>>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Nobody is let in; who knocks waits.
    pub held: bool,
    /// Doors at which nobody is being let in, as they have seen that they should not.
    pub closed: usize,
    /// Connections.
    pub guests: usize,
    /// Pushes, and commands that change something.
    pub work: usize,
    /// How many of those there were.
    begun: u64,
}

/// A connection, until this is dropped.
#[derive(Debug)]
pub struct Guest(Arc<Traffic>);

/// Work under way, until this is dropped.
#[derive(Debug)]
pub struct Work(Arc<Traffic>, u64);

/// A door at which nobody is let in, until this is dropped.
#[derive(Debug)]
pub struct ClosedDoor(Arc<Traffic>);

/// Nobody is let in, until this is dropped.
#[derive(Debug)]
pub struct Held(Arc<Traffic>);

impl Traffic {
    /// One more connection.
    pub fn guest(self: &Arc<Self>) -> Guest {
        self.state.send_modify(|state| state.guests += 1);
        Guest(self.clone())
    }

    /// Something begins that should come to its end. `what` is for those who wait for it.
    pub fn work(self: &Arc<Self>, what: String) -> Work {
        let mut number = 0;
        self.state.send_modify(|state| {
            state.work += 1;
            state.begun += 1;
            number = state.begun;
        });
        self.listed().insert(number, what);
        Work(self.clone(), number)
    }

    /// A door has seen that nobody is to be let in.
    pub fn close(self: &Arc<Self>) -> ClosedDoor {
        self.state.send_modify(|state| state.closed += 1);
        ClosedDoor(self.clone())
    }

    /// From now on nobody is let in.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.state.send_modify(|state| state.held = true);
        Held(self.clone())
    }

    /// How it stands, now and whenever that changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What is under way, the oldest first.
    pub fn under_way(&self) -> Vec<String> {
        self.listed().values().cloned().collect()
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.guests = state.guests.saturating_sub(1));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.listed().remove(&self.1);
        self.0.state.send_modify(|state| state.work = state.work.saturating_sub(1));
    }
}

impl Drop for ClosedDoor {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.closed = state.closed.saturating_sub(1));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.held = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_does_not_count() {
        let traffic = Arc::new(Traffic::default());
        let state = traffic.watch();
        let (guest, first) = (traffic.guest(), traffic.work("the push of a".into()));
        let second = traffic.work("scale b".into());
        assert_eq!((state.borrow().guests, state.borrow().work), (1, 2));
        drop(first);
        assert_eq!(traffic.under_way(), ["scale b"]);
        drop((guest, second));
        assert_eq!((state.borrow().guests, state.borrow().work), (0, 0));
        let held = traffic.hold();
        assert!(state.borrow().held);
        drop(held);
        assert!(!state.borrow().held);
    }
}
