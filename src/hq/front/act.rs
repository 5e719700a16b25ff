//! Carries out what people order of a stack's routing. The caller holds the stack's turn, where nothing else is said.

use std::sync::Arc;

use super::{ordered, rows, with_domains, with_redirect};
use crate::db::{DbError, Guard, layout};
use crate::front::{Front, Mode};
use crate::hq::act::Job;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::act::LaunchError;
use crate::launch::journal::Phase;
use crate::names::{Domain, NodeName, ReleaseNumber, StackName};
use crate::router::{NodeRoutes, StackRoutes, Target, check_domains, check_table};

impl Hq {
    /// What is ordered of a stack's routing.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn front(&self, stack: &StackName) -> Result<Front, DbError> {
        Ok(layout::read_json(&*self.db, &layout::front(stack)).await?.unwrap_or_default())
    }

    /// What the router has of a stack; `None` before its first release.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn routes(&self, stack: &StackName) -> Result<Option<StackRoutes>, DbError> {
        layout::read_json(&*self.db, &layout::routes(stack)).await
    }

    /// Puts orders in force. Before the first release they wait for it.
    ///
    /// # Errors
    /// Why they cannot be; then nothing has changed.
    pub async fn direct(self: &Arc<Self>, stack: &StackName, front: Front) -> Result<(), HqError> {
        self.check_awake()?;
        if self.releases(stack).await?.is_empty() {
            return Ok(layout::put_json(&*self.db, &layout::front(stack), &front, Guard::Any).await?);
        }
        let job = Job { front: Some(front), ..Job::of(stack, "route", Vec::new()) };
        self.operate(job, &|_| {}).await.map(drop)
    }

    /// Adds domains to a node.
    ///
    /// # Errors
    /// The stack has one of them, another stack does, or the router does not take it.
    pub async fn add_domains(
        self: &Arc<Self>,
        stack: &StackName,
        node: Option<&NodeName>,
        domains: &[Domain],
    ) -> Result<NodeName, HqError> {
        let (front, routes) = (self.front(stack).await?, self.routes(stack).await?);
        let node = super::node(stack, node, routes.as_ref())?;
        let front = with_domains(&front, routes.as_ref(), &node, domains)?;
        check_domains(stack, domains, &self.settings.hostnames, &self.tables().await?)?;
        self.direct(stack, front).await?;
        Ok(node)
    }

    /// Leads visitors of a domain to another one. One that the stack does not have yet goes to the node.
    ///
    /// # Errors
    /// They would be led in a circle, or as [`Hq::add_domains`]; then nothing has changed.
    pub async fn redirect_domain(
        self: &Arc<Self>,
        stack: &StackName,
        node: Option<&NodeName>,
        from: &Domain,
        to: &Domain,
    ) -> Result<(), HqError> {
        let (mut front, routes) = (self.front(stack).await?, self.routes(stack).await?);
        if rows(&front, routes.as_ref()).iter().all(|row| row.domain != *from) {
            let node = super::node(stack, node, routes.as_ref())?;
            front = with_domains(&front, routes.as_ref(), &node, std::slice::from_ref(from))?;
            check_domains(stack, [from], &self.settings.hostnames, &self.tables().await?)?;
        }
        self.direct(stack, with_redirect(stack, &front, routes.as_ref(), from, to)?).await
    }

    /// Opens, pauses or closes a stack to its visitors. That needs no turn: who builds an image for it, or waits for one,
    /// holds it up no more than others.
    ///
    /// # Errors
    /// The router does not take it, or an earlier operation is not at its end; then nothing has changed.
    pub async fn set_mode(&self, stack: &StackName, mode: Mode) -> Result<(), HqError> {
        self.check_awake()?;
        let _table = self.queue.table(stack).await;
        let active = self.book(stack).await?.read().await.active;
        if active.is_some_and(|active| active.phase != Phase::Building) {
            return Err(HqError::Unsettled(stack.clone()));
        }
        let before = self.front(stack).await?;
        let front = Front { mode: mode.clone(), ..before.clone() };
        layout::put_json(&*self.db, &layout::front(stack), &front, Guard::Any).await?;
        let Some(routes) = self.routes(stack).await? else { return Ok(()) };
        let routes = StackRoutes { mode, ..routes };
        if let Some(edge) = &self.launcher.edge
            && let Err(error) = edge.set(&routes).await
        {
            layout::put_json(&*self.db, &layout::front(stack), &before, Guard::Any).await?;
            return Err(LaunchError::Edge(error).into());
        }
        Ok(layout::put_json(&*self.db, &layout::routes(stack), &routes, Guard::Any).await?)
    }

    /// Refuses domains that a stack cannot have: those its instructions bring, and those that were ordered for their
    /// nodes. The default domains count too: `a.b` of a stack `a` must not be another's explicit domain.
    ///
    /// # Errors
    /// Every domain the stack cannot have, or wants for two nodes.
    pub async fn check_domains_of(&self, stack: &StackName, instructions: &[Instruction]) -> Result<(), HqError> {
        let front = self.front(stack).await?;
        let domains = instructions.iter().flat_map(Instruction::domains).chain(ordered(&front, instructions));
        check_domains(stack, domains, &self.settings.hostnames, &self.tables().await?)?;
        let nodes = instructions.iter().filter_map(|one| match one {
            Instruction::Route { node, add, .. } => {
                Some((node.clone(), NodeRoutes::new(add.clone(), Target::Peers(Vec::new()))))
            }
            _ => None,
        });
        Ok(check_table(&StackRoutes::new(stack.clone(), ReleaseNumber(0), nodes))?)
    }

    /// Has the router try what these instructions would make it read. After the commit of a release it would be too late.
    ///
    /// # Errors
    /// What nginx says of a snippet.
    pub async fn try_snippets(&self, instructions: &[Instruction]) -> Result<(), HqError> {
        let Some(edge) = &self.launcher.edge else { return Ok(()) };
        for instruction in instructions {
            let Instruction::Route { rules, .. } = instruction else { continue };
            if let Some(snippet) = &rules.snippet {
                edge.try_snippet(snippet).await.map_err(LaunchError::Edge)?;
            }
        }
        Ok(())
    }
}
