//! Reads every journal when HQ starts and brings each stack to rest before anything else may touch it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::db::{DbError, Guard, layout};
use crate::hq::collect::stray_pins;
use crate::hq::fleet::Seen;
use crate::hq::{Hq, HqError};
use crate::launch::journal::Phase;
use crate::launch::{Step, label};
use crate::names::StackName;
use crate::units::Millis;

/// How long HQ waits for one stack before it serves the others.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is left of a stack that was brought to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It exists.
    There,
    /// Its destruction was finished.
    Gone,
}

impl Hq {
    /// Finishes or undoes each unfinished operation, gives the router every table, and goes on retiring in the
    /// background. One damaged stack does not stop the others; it is reported by name.
    ///
    /// # Errors
    /// When the tree cannot be listed at all.
    pub async fn recover(self: &Arc<Self>) -> Result<(), HqError> {
        for stack in self.known_stacks().await? {
            let (hq, name) = (self.clone(), stack.clone());
            let recovered = tokio::spawn(async move {
                if let Err(error) = hq.recover_stack(&name).await {
                    tracing::error!(stack = %name, error = ?error, "the stack could not be brought to rest");
                }
            });
            // What cannot be finished is tried on in its turn, and holds up nobody else.
            if tokio::time::timeout(PATIENCE, recovered).await.is_err() {
                tracing::warn!(%stack, "bringing the stack to rest takes long; HQ goes on without it");
            }
        }
        if let Err(error) = self.restore_routes().await {
            tracing::error!(error = ?error, "the router keeps what it serves; the tables of the tree could not be given to it");
        }
        Ok(())
    }

    /// Stacks that exist, and those that were going when HQ ended.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn known_stacks(&self) -> Result<BTreeSet<StackName>, DbError> {
        let mut stacks = self.stack_names().await?;
        for journal in self.db.names(layout::JOURNALS).await? {
            stacks.extend(journal.strip_suffix(".json").and_then(|name| name.parse::<StackName>().ok()));
        }
        Ok(stacks)
    }

    async fn recover_stack(self: &Arc<Self>, stack: &StackName) -> Result<(), HqError> {
        let _turn = self.turn(stack, "the recovery after a restart of HQ", &|_| {}).await;
        match self.bring_to_rest(stack).await? {
            Rest::There => self.drop_strays(stack).await?,
            Rest::Gone => return Ok(()),
        }
        if self.book(stack).await?.read().await.after.is_some() {
            self.catch_up_after(stack);
        }
        Ok(())
    }

    /// Finishes or takes back what the journal of a stack says is under way. The caller holds the stack's turn, so that
    /// nobody is at it.
    ///
    /// # Errors
    /// What could not be done yet; the journal stays.
    pub async fn bring_to_rest(self: &Arc<Self>, stack: &StackName) -> Result<Rest, HqError> {
        let book = self.book(stack).await?;
        let journal = book.read().await;
        if let Some(active) = &journal.active {
            tracing::info!(%stack, verb = active.verb, phase = ?active.phase, "an operation was interrupted");
        }
        match journal.active.as_ref().map(|active| active.phase) {
            Some(Phase::Building | Phase::Before(_)) => {
                self.take_back(&book, &|_| {}).await;
                if book.read().await.active.is_some() {
                    return Err(HqError::Unsettled(stack.clone()));
                }
            }
            Some(Phase::Committed) => self.finish(&book, &|_| {}).await,
            Some(Phase::Destroying) => {
                self.finish_destroy(stack, &|_| {}).await?;
                return Ok(Rest::Gone);
            }
            None if !journal.retiring.is_empty() => {
                let (hq, book) = (self.clone(), book.clone());
                tokio::spawn(async move { hq.launcher.retire(&book).await });
            }
            None => {}
        }
        match self.status(stack).await {
            // Only what a silent server still has of it is left.
            Err(HqError::NoStack(_)) => Ok(Rest::Gone),
            other => other.map(|_| Rest::There),
        }
    }

    /// Takes back what an earlier operation could not, before the next one takes its place in the journal: else what it
    /// left would count as the stack's own. The caller holds the stack's turn.
    ///
    /// # Errors
    /// [`HqError::Unsettled`] while that is not possible, and when the earlier one has gone forward only now: what was
    /// asked for was asked of another state.
    pub async fn settle_earlier(self: &Arc<Self>, stack: &StackName) -> Result<(), HqError> {
        let active = self.book(stack).await?.read().await.active;
        match active.map(|active| active.phase) {
            // That one builds images and is about to launch them.
            None | Some(Phase::Building) => Ok(()),
            Some(Phase::Before(_)) => self.bring_to_rest(stack).await.map(drop),
            Some(Phase::Committed | Phase::Destroying) => {
                self.bring_to_rest(stack).await?;
                Err(HqError::Unsettled(stack.clone()))
            }
        }
    }

    /// Pins and one-off containers that nothing explains any more.
    async fn drop_strays(&self, stack: &StackName) -> Result<(), HqError> {
        self.with_repository(stack, |repository| repository.sweep()).await?;
        let releases = self.releases(stack).await?;
        for pin in stray_pins(&self.pins(stack).await?, &releases) {
            self.unpin_number(stack, pin).await;
        }
        let book = self.book(stack).await?;
        let journal = book.read().await;
        let known = journal.going();
        // Runs of tasks go on, and are taken up.
        self.end_lost_jobs(stack).await?;
        let tasks = self.tasks(stack).await?;
        let runs: BTreeSet<_> =
            tasks.values().flat_map(|(_, diary)| diary.runs.values().map(|run| &run.container)).collect();
        for Seen { server, container } in self.containers().await? {
            let text = |name: &str| container.labels.get(name).map(String::as_str);
            let once = text(label::ROLE) == Some("once") && text(label::STACK) == Some(stack.as_str());
            if text(label::HQ) == Some(&self.launcher.identity.id)
                && once
                && !runs.contains(&container.name)
                && !known.contains(&(&server, &container.name))
            {
                let step = Step::Remove { server, container: container.name.clone(), grace: Millis::seconds(1) };
                self.launcher.perform(stack, &step, &|_| {}).await?;
            }
        }
        Ok(())
    }

    /// Gives the router the tables of the tree, and takes away those of stacks that are gone.
    async fn restore_routes(&self) -> Result<(), HqError> {
        let Some(edge) = &self.launcher.edge else { return Ok(()) };
        let mut tables = self.tables().await?;
        for table in &mut tables {
            // An HQ that ended while it closed a stack to its visitors has written that down, and maybe not more.
            let mode = self.front(&table.stack).await?.mode;
            if mode != table.mode {
                table.mode = mode;
                layout::put_json(&*self.db, &layout::routes(&table.stack), table, Guard::Any).await?;
            }
        }
        let served = edge.tables().await.map_err(crate::launch::act::LaunchError::Edge)?;
        for table in tables.iter().filter(|table| !served.contains(table)) {
            edge.set(table).await.map_err(crate::launch::act::LaunchError::Edge)?;
        }
        let known: BTreeSet<&StackName> = tables.iter().map(|table| &table.stack).collect();
        for table in served.iter().filter(|table| !known.contains(&table.stack)) {
            edge.remove(&table.stack).await.map_err(crate::launch::act::LaunchError::Edge)?;
        }
        Ok(())
    }
}
