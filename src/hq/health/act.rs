//! Asks every container that has a lasting check, and has what is sick left out and made anew.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::{Checkups, Place, ROUND};
use crate::hq::{Hq, HqError};
use crate::launch::check::awaiting;
use crate::launch::world::instance;
use crate::launch::{Proc, Step, label};
use crate::names::StackName;
use crate::stack::Health;

/// How many are asked at the same time.
const AT_ONCE: usize = 32;

/// A container that is asked, and what.
struct Watched {
    place: Place,
    health: Health,
    /// The step that once waited for it: it knows where its ports are.
    step: Step,
}

impl Hq {
    /// Asks until the process ends.
    pub async fn keep_health(self: Arc<Self>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            match self.watched().await {
                Ok(watched) => self.ask_all(watched).await,
                Err(error) => tracing::warn!(error = ?error, "it cannot be read which containers have a health check"),
            }
        }
    }

    /// Containers that count as sick.
    pub fn sick(&self) -> BTreeSet<Place> {
        self.checkup(|checkups| checkups.sick())
    }

    /// What runs as it should and has a lasting check.
    async fn watched(&self) -> Result<Vec<Watched>, HqError> {
        let mut procs = self.all_procs().await?;
        let lasts = |proc: &Proc| proc.settings.health.as_ref().is_some_and(|health| health.lasting);
        procs.retain(|_, proc| lasts(proc));
        if procs.is_empty() {
            return Ok(Vec::new());
        }
        let survey = self.survey().await?;
        let mut watched = Vec::new();
        for seen in survey.containers.iter().filter(|seen| !survey.silent.contains_key(&seen.server)) {
            let stack = seen.container.labels.get(label::STACK).and_then(|stack| stack.parse::<StackName>().ok());
            let Some(stack) = stack else { continue };
            let found = instance(&seen.server, &seen.container, &self.launcher.identity, &stack);
            let Some(found) = found.filter(|found| found.runs) else { continue };
            let proc = procs.get(&(stack, found.node.clone()));
            let Some(proc) = proc.filter(|proc| found.release == Some(proc.release)) else { continue };
            let step = awaiting(&found.server, &found.name, proc, found.published, &found.exposed);
            let health = proc.settings.health.clone().expect("only what has a check is left");
            watched.push(Watched { place: (found.server, found.name), health, step });
        }
        Ok(watched)
    }

    async fn ask_all(&self, mut watched: Vec<Watched>) {
        self.checkup(|checkups| {
            let now = Instant::now();
            checkups.admit(watched.iter().map(|one| one.place.clone()), now);
            watched.retain(|one| checkups.is_due(&one.place, &one.health, now));
        });
        let asked = stream::iter(watched).map(|one| async move {
            let answer = self.launcher.is_well(&one.step, &one.health).await;
            let is_well = answer.is_ok();
            let changed = self.checkup(|checkups| checkups.note(&one.place, &one.health, is_well, Instant::now()));
            match (changed, answer) {
                (true, Err(why)) => tracing::warn!(container = %one.place.1, server = %one.place.0, why, "sick"),
                (true, Ok(())) => tracing::info!(container = %one.place.1, server = %one.place.0, "well again"),
                (false, _) => {}
            }
            changed
        });
        let changes: Vec<bool> = asked.buffer_unordered(AT_ONCE).collect().await;
        if changes.contains(&true) {
            self.agents.stir();
            self.fleet_changed.notify_one();
        }
    }

    fn checkup<T>(&self, look: impl FnOnce(&mut Checkups) -> T) -> T {
        look(&mut self.checkups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
