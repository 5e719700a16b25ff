//! Moves one stack after another off a server, each by an operation of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::leaving;
use crate::grid::Standing;
use crate::hq::act::{DRAIN, Job};
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::launch::world::World;
use crate::names::{ContainerName, NodeName, ServerName, StackName};

/// How long old containers are waited for after they were replaced; they go on retiring afterwards.
const RETIRE: Duration = Duration::from_secs(120);
/// How many stacks move at once.
const TOGETHER: usize = 4;
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(100);

impl Hq {
    /// Nothing new comes to a server, and what can move leaves it. The answer is what stays: some of it for good, and what
    /// has no room elsewhere until the reconciler finds it some.
    ///
    /// # Errors
    /// When there is no such server. A stack that cannot be moved is said and does not stop the others.
    pub async fn drain_server(
        self: &Arc<Self>,
        server: &ServerName,
        say: Say<'_>,
    ) -> Result<Vec<ContainerName>, HqError> {
        self.change_server(server, |record| record.standing = Standing::Draining).await?;
        let moving = |stack: StackName| async move {
            if let Err(error) = self.move_stack(&stack, server, say).await {
                tracing::warn!(%stack, %server, error = ?error, "a stack could not be moved");
                say(&phase(&format!("{stack} stays: {error}")));
            }
        };
        // Side by side: a stack in the middle of a long push holds up no other one.
        stream::iter(self.known_stacks().await?).for_each_concurrent(TOGETHER, moving).await;
        Ok(self.own_containers(&self.survey().await?, server))
    }

    /// What has yet to leave servers that are drained; it had no room when that began, or HQ ended in the midst of it.
    pub(in crate::hq) fn leftovers(&self, world: &World) -> Option<Job> {
        let nodes: BTreeMap<_, _> = self.draining().iter().flat_map(|server| leaving(world, server)).collect();
        (!nodes.is_empty()).then(|| Job { verb: DRAIN, ..Self::scale_job(&world.stack, &nodes) })
    }

    async fn move_stack(self: &Arc<Self>, stack: &StackName, server: &ServerName, say: Say<'_>) -> Result<(), HqError> {
        let _turn = self.turn(stack, format!("the draining of {server}"), say).await;
        let Some(current) = self.releases(stack).await?.pop() else { return Ok(()) };
        let world = self.world(stack, current.number, current.env_version).await?;
        let nodes = leaving(&world, server);
        // The reconciler may have come first.
        let gone = world.leaving.iter().filter(|instance| instance.server == *server);
        let moving: BTreeSet<&NodeName> = nodes.keys().chain(gone.map(|instance| &instance.node)).collect();
        if moving.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = moving.into_iter().map(NodeName::as_str).collect();
        say(&phase(&format!("Moving {} of {stack}", names.join(", "))));
        if !nodes.is_empty() {
            let job = Job { verb: DRAIN, ..Self::scale_job(stack, &nodes) };
            let plan = self.operate(job, say).await?;
            let moved = plan.revocable().filter_map(crate::launch::Step::makes);
            moved.for_each(|made| say(&detail(&format!("{} on {}", made.name, made.server))));
        }
        let book = self.book(stack).await?;
        let until = Instant::now() + RETIRE;
        while !book.read().await.retiring.is_empty() && Instant::now() < until {
            sleep(POLL).await;
        }
        Ok(())
    }
}
