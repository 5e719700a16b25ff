//! Waits until nothing is under way, closes the doors, and has HQ begin anew as another program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use super::process::Arrival;
use super::{Held, State, Traffic, UpgradeError};
use crate::hq::cluster::house::House;
use crate::hq::lock::Turn;
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;

/// With the doors closed others wait: what is still inside then has at most this long.
const CLOSED: Duration = Duration::from_secs(120);

/// Those who only look have this long once the doors are closed.
pub const HASTE: Duration = Duration::from_secs(2);

/// The program that runs, also when its file has gone.
const RUNNING: &str = "/proc/self/exe";

/// What those hear who wait for a stack's turn.
const WHO: &str = "the upgrade of HQ";

impl Traffic {
    /// Waits until it stands like this.
    pub async fn until(&self, like: impl Fn(&State) -> bool) {
        // It lives as long as what it is asked of.
        let _ = self.watch().wait_for(|state| like(state)).await;
    }

    /// Ends a moment after the doors have been closed.
    pub async fn haste(&self) {
        loop {
            self.until(|state| state.held).await;
            if timeout(HASTE, self.until(|state| !state.held)).await.is_err() {
                return;
            }
        }
    }
}

/// HQ with closed doors and nobody inside, about to begin anew. Dropped it is as before.
pub struct Ready {
    house: Arc<House>,
    root: PathBuf,
    arrival: Arrival,
    version: String,
    closing: Instant,
    turns: Vec<Turn>,
    held: Held,
    _alone: OwnedMutexGuard<()>,
}

impl Hq {
    /// Makes way for the program `new`, or for the one that lies in the place of HQ's own. Serves everybody until nothing
    /// is under way, for `patience` at most; then it lets nobody in until the last one has left. The caller's own
    /// connection does not count. Dropped meanwhile, HQ goes on as it is.
    ///
    /// # Errors
    /// What stands in the way; HQ goes on as it is.
    pub async fn make_way(&self, new: Option<&Path>, patience: Duration, say: Say<'_>) -> Result<Ready, HqError> {
        self.check_awake()?;
        let house = self.house.get().cloned().ok_or(HqError::Asleep)?;
        let Ok(alone) = house.alone.clone().try_lock_owned() else { return Err(UpgradeError::UnderWay.into()) };
        if house.is_left() {
            return Err(UpgradeError::UnderWay.into());
        }
        let (named, program) = (new.unwrap_or(&house.program).to_owned(), house.program.clone());
        let arrival = blocking(move || Arrival::bring(&named, &program)).await?;
        let version = arrival.rehearse(&self.root, &house.etc).await?;
        say(&phase(&format!("quarry {version} works here; this HQ is {}", env!("CARGO_PKG_VERSION"))));
        self.wait_for_quiet(patience, say).await?;
        let held = self.traffic.hold();
        let closing = Instant::now();
        say(&phase("Letting nobody in until those inside have finished"));
        let left = async {
            self.traffic.until(|state| state.closed >= house.doors && state.guests <= 1 && state.work == 0).await;
            // What has nobody inside any more may go on without them.
            let mut turns = Vec::new();
            for stack in self.known_stacks().await? {
                turns.push(self.turn(&stack, WHO, &|_| {}).await);
            }
            Ok::<_, HqError>(turns)
        };
        let turns = match timeout(CLOSED.min(patience), left).await {
            Ok(turns) => turns?,
            Err(_) => return Err(self.busy(closing.elapsed()).into()),
        };
        Ok(Ready { house, root: self.root.clone(), arrival, version, closing, turns, held, _alone: alone })
    }

    async fn wait_for_quiet(&self, patience: Duration, say: Say<'_>) -> Result<(), HqError> {
        let mut told = Vec::new();
        let deadline = Instant::now() + patience;
        loop {
            let under_way = self.traffic.under_way();
            if under_way.is_empty() {
                return Ok(());
            }
            for what in under_way.iter().filter(|what| !told.contains(*what)) {
                say(&detail(&format!("waiting for {what}")));
            }
            told = under_way;
            let count = self.traffic.watch().borrow().work;
            let fewer = self.traffic.until(|state| state.work != count || state.work == 0);
            if tokio::time::timeout_at(deadline, fewer).await.is_err() {
                // Others always come: from now on they wait.
                return Ok(());
            }
        }
    }

    fn busy(&self, waited: Duration) -> UpgradeError {
        let mut what = self.traffic.under_way();
        if what.is_empty() {
            what.push("a connection that does not end".to_owned());
        }
        UpgradeError::Busy { waited: waited.as_secs(), what: what.join(", ") }
    }
}

impl Ready {
    /// Puts the program in HQ's place and has HQ begin anew as that.
    ///
    /// # Errors
    /// What the disk says; HQ goes on as it is.
    pub async fn begin_anew(self, say: Say<'_>) -> Result<(), HqError> {
        let Self { house, root, arrival, version, closing, turns, held, _alone } = self;
        blocking(move || arrival.install(Path::new(RUNNING), &root)).await?;
        say(&detail(&format!("HQ begins anew, {} ms later", closing.elapsed().as_millis())));
        tracing::info!(version, "HQ begins anew as another program");
        house.leave_as(house.program.clone(), turns, held);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UpgradeError> + Send + 'static,
) -> Result<T, UpgradeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What HQ is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The same program once more.
    Same,
    /// What lies here by now.
    At(PathBuf),
}

impl House {
    /// Whether another program follows.
    pub fn next(&self) -> Next {
        self.successor.get().cloned().map_or(Next::Same, Next::At)
    }
}
