//! Stops or takes away everything of a stack.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::db::{Guard, layout};
use crate::hq::progress::phase;
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::journal::{Journal, Operation, Phase};
use crate::launch::world::{Instance, World};
use crate::launch::{Plan, Step};
use crate::names::{ReleaseNumber, StackName};
use crate::units::Millis;

impl Hq {
    /// Stops every container of a stack and keeps its releases and volumes; gives how many there were.
    ///
    /// # Errors
    /// When docker fails.
    pub async fn stop_all(self: &Arc<Self>, stack: &StackName) -> Result<usize, HqError> {
        let current = self.current(stack).await?;
        let world = self.world(stack, current.number, current.env_version).await?;
        for instance in &world.instances {
            let grace = world.procs.get(&instance.node).map_or(Millis::seconds(10), |proc| proc.settings.grace);
            let (server, container) = (instance.server.clone(), instance.name.clone());
            let step = Step::Remove { server, container, grace };
            self.launcher.perform(stack, &step, &|_| {}).await?;
        }
        for network in self.no_networks(&world) {
            self.launcher.perform(stack, &network, &|_| {}).await?;
        }
        Ok(world.instances.len())
    }

    /// Steps that remove the stack's network from every server.
    fn no_networks(&self, world: &World) -> Vec<Step> {
        let name = self.launcher.identity.network(&world.stack);
        world.servers.keys().map(|server| Step::RemoveNetwork { server: server.clone(), name: name.clone() }).collect()
    }

    /// Takes a stack and everything it has away.
    ///
    /// # Errors
    /// When it cannot be begun; once begun, the next start finishes it.
    pub async fn destroy(self: &Arc<Self>, stack: &StackName, say: Say<'_>) -> Result<(), HqError> {
        self.check_awake()?;
        self.status(stack).await?;
        let begun = self.book(stack).await?.read().await.active.map(|active| active.phase);
        if begun == Some(Phase::Destroying) {
            return self.finish_destroy(stack, say).await;
        }
        let _table = self.queue.table(stack).await;
        self.settle_earlier(stack).await?;
        let world = self.world(stack, ReleaseNumber(0), 0).await?;
        let here = self.engines().here();
        let kill = |instance: &Instance| Step::Remove {
            server: instance.server.clone(),
            container: instance.name.clone(),
            grace: Millis::seconds(10),
        };
        let network = self.launcher.identity.network(stack);
        let mut plan = Plan { route: vec![Step::Unroute { stack: stack.clone() }], ..Plan::default() };
        plan.retire.extend(world.instances.iter().filter(|instance| instance.server == *here).map(kill));
        plan.retire.push(Step::RemoveNetwork { server: here.clone(), name: network.clone() });
        // What runs on a server that is silent now is not known: there everything goes that is found.
        let far = self.members().into_keys().filter(|server| server != here);
        plan.retire.extend(far.map(|server| Step::Sweep { server, network: network.clone() }));
        let book = self.book(stack).await?;
        let operation = Operation {
            verb: "destroy".to_owned(),
            release: None,
            pinned: None,
            branch: None,
            plan,
            phase: Phase::Destroying,
            env_version: None,
            front: None,
            after: false,
        };
        book.write(|journal| journal.active = Some(operation)).await?;
        self.finish_destroy(stack, say).await
    }

    /// Does what is left of a destruction that was begun. Every part may be done twice. A server that does not answer is
    /// swept when it does; until then the stack's name stays taken.
    ///
    /// # Errors
    /// What could not be removed; the journal stays.
    pub async fn finish_destroy(self: &Arc<Self>, stack: &StackName, say: Say<'_>) -> Result<(), HqError> {
        let book = self.book(stack).await?;
        let journal = book.read().await;
        let plan = journal.active.map(|active| active.plan).unwrap_or_default();
        let near = |step: &&Step| step.server().is_none_or(|server| server == self.engines().here());
        let earlier = journal.retiring.iter().filter(|step| matches!(step, Step::Remove { .. }));
        for step in plan.route.iter().chain(earlier).chain(&plan.retire).filter(near) {
            self.launcher.perform(stack, step, say).await?;
            // One write a step keeps the promise that every step can be the last one HQ lives to see.
            book.write(|_| {}).await?;
        }
        let sweeps = plan.retire.iter().filter(|step| matches!(step, Step::Sweep { .. }));
        let left = self.sweep_all(stack, sweeps, say).await;
        self.db.delete(&layout::routes(stack), Guard::Any).await?;
        self.db.delete_under(&layout::proc_prefix(stack)).await?;
        self.give_back(stack).await?;
        self.launcher.remove_images(self.engines().local(), stack, &BTreeSet::new()).await?;
        self.remove_folders(stack).await?;
        self.forget_rights(stack).await?;
        self.db.delete_under(&layout::stack(stack)).await?;
        let rests = !left.is_empty();
        let written = book.write(|journal| {
            *journal = Journal { retiring: left, ..Journal::default() };
        });
        let written = written.await;
        if !rests {
            // Also when that is in doubt: what counts is what the next one who asks finds in the tree.
            self.forget_book(stack);
        }
        Ok(written?)
    }

    /// Sweeps servers side by side; the answer is what must be tried again.
    async fn sweep_all(&self, stack: &StackName, sweeps: impl Iterator<Item = &Step>, say: Say<'_>) -> Vec<Step> {
        let swept = join_all(sweeps.map(|step| async move {
            let error = self.launcher.perform(stack, step, say).await.err()?;
            let server = step.server()?;
            tracing::warn!(%stack, %server, error = ?error, "a server is swept later");
            say(&phase(&format!(
                "{server} cannot be cleared of {stack} now; that follows when it answers, or with: servers remove \
                 {server} --force"
            )));
            Some(step.clone())
        }));
        swept.await.into_iter().flatten().collect()
    }
}
