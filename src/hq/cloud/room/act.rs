//! Waits for room where a grid that sizes itself can have it, for as long as a machine may take to come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{described, news};
use crate::hq::act::{Job, Planned};
use crate::hq::cloud::outlook::check;
use crate::hq::cloud::sized::Awaited;
use crate::hq::cloud::{Sizing, Wants};
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::plan::PlanError;
use crate::names::StackName;

/// Pause between two tries.
const AGAIN: Duration = Duration::from_secs(2);

/// Somebody waits for room, until this is dropped.
struct Wish<'a> {
    sizing: &'a Sizing,
    stack: &'a StackName,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.sizing.note_wants(self.stack, Wants::default());
    }
}

impl Hq {
    /// Plans a job, after waiting for room if need be. What is healed or moves off a server does not wait: it gets what
    /// room there is, and the rest when there is more.
    ///
    /// # Errors
    /// Why there is no plan: also when the cloud cannot help, or not in time.
    pub(in crate::hq) async fn find_room(self: &Arc<Self>, job: &Job, say: Say<'_>) -> Result<Planned, HqError> {
        let (planned, shortage) = self.try_plan(job).await?;
        if job.takes_what_there_is() {
            let wants = if planned.is_ok() { Wants::rest(shortage) } else { Wants::of(shortage) };
            self.sizing.note_wants(&job.stack, wants);
            return planned.map_err(HqError::from);
        }
        let wants = Wants::of(shortage);
        match planned {
            Err(PlanError::NoRoom(why)) if !wants.is_empty() => {
                self.check_room(&wants).await?;
                say(&phase(&format!("No room for all of {}; asking the cloud for it", described(&wants))));
                say(&detail(&why.to_string()));
                self.wait_for_room(job, wants, say).await
            }
            other => other.map_err(HqError::from),
        }
    }

    /// Whether all of this could have room.
    async fn check_room(&self, wants: &Wants) -> Result<(), HqError> {
        let Some(limits) = self.sizing.limits() else { return Ok(()) };
        let grid = self.sized_grid(&limits, &self.rentals().await?, Awaited::Yes).await?;
        Ok(check(grid, &self.sizing.wants(), wants).map_err(PlanError::from)?)
    }

    async fn wait_for_room(self: &Arc<Self>, job: &Job, wants: Wants, say: Say<'_>) -> Result<Planned, HqError> {
        let until = Instant::now() + self.sizing.rents()?.create_timeout.duration();
        let wish = Wish { sizing: &self.sizing, stack: &job.stack };
        wish.sizing.note_wants(&job.stack, wants);
        let mut told: BTreeSet<String> = news(&self.rentals().await?, &self.sizing.troubles())
            .into_iter()
            .filter(|line| line.ends_with("up"))
            .collect();
        loop {
            sleep(AGAIN).await;
            for line in news(&self.rentals().await?, &self.sizing.troubles()) {
                if told.insert(line.clone()) {
                    say(&detail(&line));
                }
            }
            let (planned, shortage) = self.try_plan(job).await?;
            let wants = Wants::of(shortage);
            match planned {
                // Limits that were taken away meanwhile leave nothing to wait for.
                Err(PlanError::NoRoom(_)) if Instant::now() < until && !wants.is_empty() => {
                    wish.sizing.note_wants(&job.stack, wants);
                }
                other => return other.map_err(HqError::from),
            }
        }
    }
}
