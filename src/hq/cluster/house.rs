//! What a serving HQ has in hand of its own home.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::db::gate::act::{Closed, Gate};
use crate::hq::lock::Turn;

/// Where HQ's settings are, the gate before its state, and the bell that starts it again.
pub struct House {
    /// The folder of the settings.
    pub etc: PathBuf,
    /// Before the state, unless that is in etcd already.
    pub gate: Option<Arc<Gate>>,
    /// Rung when HQ is to begin anew, because its state lives elsewhere.
    pub again: CancellationToken,
    /// One command changes the cluster at a time.
    pub alone: tokio::sync::Mutex<()>,
    left: OnceLock<Left>,
}

/// Nothing is begun and nothing written any more in a home that HQ has left.
struct Left {
    _turns: Vec<Turn>,
    _closed: Closed,
}

impl House {
    /// A house that nobody has left.
    pub fn new(etc: PathBuf, gate: Option<Arc<Gate>>) -> Self {
        Self { etc, gate, again: CancellationToken::new(), alone: Default::default(), left: OnceLock::new() }
    }

    /// The state lives elsewhere from now on: who waits to write here waits until HQ has begun anew.
    pub fn leave(&self, turns: Vec<Turn>, closed: Closed) {
        // Nobody leaves twice: the gate is closed for good.
        let _ = self.left.set(Left { _turns: turns, _closed: closed });
        self.again.cancel();
    }

    /// Whether HQ is about to begin anew.
    pub fn is_left(&self) -> bool {
        self.left.get().is_some()
    }
}
