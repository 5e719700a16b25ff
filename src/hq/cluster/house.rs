//! What a serving HQ has in hand of its own home.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::db::gate::act::{Closed, Gate};
use crate::hq::agents::wanted::Ports;
use crate::hq::lock::Turn;
use crate::hq::upgrade::Held;

/// The SSH port and the socket.
const DOORS: usize = 2;

/// Where HQ's settings are, the gate before its state, and the bell that starts it again.
pub struct House {
    /// The folder of the settings.
    pub etc: PathBuf,
    /// Before the state, unless that is in etcd already.
    pub gate: Option<Arc<Gate>>,
    /// Rung when HQ is to begin anew, because its state lives elsewhere.
    pub again: CancellationToken,
    /// One command changes the cluster at a time.
    pub alone: Arc<tokio::sync::Mutex<()>>,
    /// Where the program lies that HQ is.
    pub program: PathBuf,
    /// Where it listens, once it does.
    pub ports: OnceLock<Ports>,
    /// How many doors HQ has, of those at which nobody waits to be let in while it is upgraded.
    pub doors: usize,
    /// Where the program lies that HQ is to be next.
    pub(in crate::hq) successor: OnceLock<PathBuf>,
    left: OnceLock<Left>,
}

/// Nothing is begun, nobody let in and nothing written any more in a home that HQ has left.
struct Left {
    _turns: Vec<Turn>,
    _shut: Shut,
}

/// By what.
enum Shut {
    /// The state lives elsewhere.
    Gate { _closed: Closed },
    /// Another program follows.
    Doors { _held: Held },
}

impl House {
    /// A house that nobody has left.
    pub fn new(etc: PathBuf, gate: Option<Arc<Gate>>, program: PathBuf) -> Self {
        let (again, alone) = (CancellationToken::new(), Default::default());
        Self {
            etc,
            gate,
            again,
            alone,
            program,
            ports: OnceLock::new(),
            doors: DOORS,
            successor: OnceLock::new(),
            left: OnceLock::new(),
        }
    }

    /// The state lives elsewhere from now on: who waits to write here waits until HQ has begun anew.
    pub fn leave(&self, turns: Vec<Turn>, closed: Closed) {
        // Nobody leaves twice: the gate is closed for good.
        let _ = self.left.set(Left { _turns: turns, _shut: Shut::Gate { _closed: closed } });
        self.again.cancel();
    }

    /// HQ is another program from now on: who waits waits until that serves.
    pub fn leave_as(&self, program: PathBuf, turns: Vec<Turn>, held: Held) {
        // Whoever leaves holds `alone`.
        let _ = self.successor.set(program);
        let _ = self.left.set(Left { _turns: turns, _shut: Shut::Doors { _held: held } });
        self.again.cancel();
    }

    /// Whether HQ is about to begin anew.
    pub fn is_left(&self) -> bool {
        self.left.get().is_some()
    }
}
