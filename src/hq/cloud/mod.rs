//! A grid that sizes itself: what has no room is noted, machines are rented for it, and given back when they are spare.
//!
//! ```text
//! a push, a scale, a heal ── no room ──▶ wants ─┐
//!                                               ├─▶ outlook (slicegrid) ──▶ rentals ──▶ cloud
//! grid/autosize.json, servers, containers ──────┘                             ordered ▶ made ▶ serving ▶ leaving ▶ ending
//! ```
//!
//! [`room`] is where an operation waits for room, [`sized`] the grid as slicegrid sees it, [`act`] the loop, and
//! [`rent`] brings one rental forward. Limits are state and not settings: they are changed by a command from any door,
//! count at once, and move with the state. The program that is run as root is a setting, which no key can change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::grid::{Autosize, Block, Overbook};
use crate::launch::shortage::Shortage;
use crate::names::{ContainerName, ServerName, StackName};
use crate::servers::cloud::{Cloud, Machine, MachineId};
use crate::units::Millis;

pub mod act;
pub mod gate;
pub mod outlook;
pub mod rent;
pub mod rental;
pub mod room;
pub mod sized;

use gate::Gate;

/// How a grid sizes itself: `grid/autosize.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Within what bounds.
    #[serde(flatten)]
    pub autosize: Autosize,
    /// For how long a server must have been spare before it is given back.
    #[serde(default = "usual_idle")]
    pub idle: Millis,
}

/// Long enough for a scale up and down again, or a round of deploys.
fn usual_idle() -> Millis {
    Millis::seconds(10 * 60)
}

impl Limits {
    /// These bounds, with the usual patience.
    ///
    /// # Errors
    /// [`SizingError::Bounds`].
    pub fn new(autosize: Autosize, idle: Option<Millis>) -> Result<Self, SizingError> {
        let (min, max) = (autosize.min, autosize.max);
        if min > max || max == 0 || max > MOST {
            return Err(SizingError::Bounds { min, max });
        }
        if autosize.spare > 90 {
            return Err(SizingError::Spare(autosize.spare));
        }
        Ok(Self { autosize, idle: idle.unwrap_or(usual_idle()) })
    }
}

/// A typing mistake must not rent a data centre.
const MOST: usize = 10_000;

/// Why a grid does not size itself like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizingError {
    /// Nobody makes machines.
    #[error("no cloud is known; write the path of its program into cloud/command of HQ's settings, and start HQ again")]
    NoCloud,
    /// The bounds contradict each other.
    #[error("a grid cannot have at least {min} and at most {max} servers (1 to {MOST})")]
    Bounds {
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// Nothing could ever be given back.
    #[error("{0} percent of the memory cannot stay free; at most 90")]
    Spare(u8),
    /// A person has added it.
    #[error("the machine {id} is the server `{server}`, which was added by hand; remove that, and it is given back")]
    InUse {
        /// The machine.
        id: MachineId,
        /// The server it is.
        server: ServerName,
    },
    /// Nothing is known yet of a grid that is to be changed.
    #[error("say how many servers there may be and how large a new one is: grid autosize --max 5 --size 2g")]
    Unsaid,
}

/// What is known of a grid that sizes itself. Everything in it is found out again after a restart.
#[derive(Default)]
pub struct Sizing {
    rents: OnceLock<Rents>,
    state: Mutex<State>,
    /// Something has changed that the loop should look at.
    look: Notify,
    /// Somebody has begun to wait for room.
    awaited: Notify,
}

/// Where machines come from.
#[derive(Clone)]
pub struct Rents {
    /// Who makes them.
    pub cloud: Arc<dyn Cloud>,
    /// How they become servers.
    pub gate: Arc<dyn Gate>,
    /// How long one may take from the order until it is a server.
    pub create_timeout: Millis,
}

#[derive(Default)]
struct State {
    limits: Option<Limits>,
    wants: BTreeMap<StackName, Wants>,
    troubles: BTreeMap<ServerName, Trouble>,
    /// Machines that bear this HQ's mark and that it knows nothing of.
    strangers: Vec<Machine>,
}

/// What has no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Containers that are to be made; those of one launch all together, or they would take the room of each other.
    pub blocks: BTreeMap<ContainerName, Block>,
    /// Containers that go when those come.
    pub going: BTreeSet<ContainerName>,
}

impl Wants {
    /// What a launch waits for that is not begun before all of it has room.
    pub fn of(shortage: Shortage) -> Self {
        if shortage.without.is_empty() {
            return Self::default();
        }
        let Shortage { mut without, with, going } = shortage;
        without.extend(with);
        Self { blocks: without, going }
    }

    /// What is left when all that has room has been begun.
    pub fn rest(shortage: Shortage) -> Self {
        Self { blocks: shortage.without, going: BTreeSet::new() }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// Why a rental does not come forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The last error with its causes.
    pub why: String,
    /// How many there were in a row.
    pub failures: u32,
    /// When it is tried again.
    pub again: Instant,
}

impl Sizing {
    /// Whether more may be promised than there is: a grid that can grow need not.
    pub fn overbook(&self) -> Overbook {
        if self.limits().is_some() { Overbook::Refused } else { Overbook::default() }
    }

    /// The limits that count now; none when the grid stays as people make it.
    pub fn limits(&self) -> Option<Limits> {
        self.state().limits.clone()
    }

    /// Where machines come from.
    ///
    /// # Errors
    /// [`SizingError::NoCloud`].
    pub fn rents(&self) -> Result<&Rents, SizingError> {
        self.rents.get().ok_or(SizingError::NoCloud)
    }

    /// Why rentals do not come forward, by their servers' names.
    pub fn troubles(&self) -> BTreeMap<ServerName, Trouble> {
        self.state().troubles.clone()
    }

    /// Machines that bear this HQ's mark and that it knows nothing of: a person's to look at.
    pub fn strangers(&self) -> Vec<Machine> {
        self.state().strangers.clone()
    }

    /// What has no room, of all stacks.
    pub fn wants(&self) -> Wants {
        let mut all = Wants::default();
        for wants in self.state().wants.values() {
            all.blocks.extend(wants.blocks.clone());
            all.going.extend(wants.going.iter().cloned());
        }
        all
    }

    /// Whether anything waits for room.
    pub fn is_awaited(&self) -> bool {
        !self.state().wants.is_empty()
    }

    /// What has no room of a stack, in place of what was known of it.
    pub fn note_wants(&self, stack: &StackName, wants: Wants) {
        let mut state = self.state();
        let before =
            if wants.is_empty() { state.wants.remove(stack) } else { state.wants.insert(stack.clone(), wants) };
        if before.as_ref() != state.wants.get(stack) {
            if state.wants.contains_key(stack) {
                self.awaited.notify_waiters();
            }
            self.look.notify_one();
        }
    }

    /// Notes an error, and for how long to leave the rental alone after it.
    fn note_trouble(&self, server: &ServerName, why: String, now: Instant) -> Duration {
        let mut state = self.state();
        let failures = state.troubles.get(server).map_or(1, |trouble| trouble.failures + 1);
        let pause = rental::backoff(failures);
        state.troubles.insert(server.clone(), Trouble { why, failures, again: now + pause });
        pause
    }

    fn note_progress(&self, server: &ServerName) {
        self.state().troubles.remove(server);
    }

    fn note_strangers(&self, strangers: Vec<Machine>) {
        let mut state = self.state();
        for machine in strangers.iter().filter(|machine| !state.strangers.contains(machine)) {
            tracing::warn!(id = %machine.id, token = %machine.token, "the cloud has a machine of this HQ that it knows nothing of");
        }
        state.strangers = strangers;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Megabytes;

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        let check = |min, max, spare, good: bool| {
            let autosize = Autosize { spare, ..Autosize::new(min, max, Megabytes(1000)) };
            assert_eq!(Limits::new(autosize, None).is_ok(), good, "{min} {max} {spare}");
        };
        check(0, 1, 25, true);
        check(5, 5, 0, true);
        check(2, 1, 25, false);
        check(0, 0, 25, false);
        check(1, 10_001, 25, false);
        check(1, 2, 91, false);
    }

    #[test]
    fn limits_are_kept_in_one_flat_record() {
        let limits = Limits::new(Autosize::new(1, 5, Megabytes(2048)), None).unwrap();
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(text, r#"{"min":1,"max":5,"size":2048,"spare":25,"idle":600000}"#);
        let short: Limits = serde_json::from_str(r#"{"min":1,"max":5,"size":2048}"#).unwrap();
        assert_eq!(short, limits);
    }
}
