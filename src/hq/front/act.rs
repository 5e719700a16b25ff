//! Carries out what people order of a stack's routing. The caller holds the stack's turn.

use std::sync::Arc;

use super::{ordered, with_domains};
use crate::db::{DbError, Guard, layout};
use crate::front::{Front, Mode};
use crate::hq::act::Job;
use crate::hq::{Hq, HqError};
use crate::instruction::Instruction;
use crate::launch::act::LaunchError;
use crate::names::{Domain, NodeName, StackName};
use crate::router::{StackRoutes, check_domains};

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

    /// Opens, pauses or closes a stack to its visitors.
    ///
    /// # Errors
    /// As [`Hq::direct`].
    pub async fn set_mode(self: &Arc<Self>, stack: &StackName, mode: Mode) -> Result<(), HqError> {
        let front = Front { mode, ..self.front(stack).await? };
        self.direct(stack, front).await
    }

    /// Refuses domains that a stack cannot have: those its instructions bring, and those that were ordered for their
    /// nodes. The default domains count too: `a.b` of a stack `a` must not be another's explicit domain.
    ///
    /// # Errors
    /// Every domain the stack cannot have.
    pub async fn check_domains_of(
        &self,
        stack: &StackName,
        instructions: &[Instruction],
        tables: &[StackRoutes],
    ) -> Result<(), HqError> {
        let front = self.front(stack).await?;
        let domains = instructions.iter().flat_map(Instruction::domains).chain(ordered(&front, instructions));
        Ok(check_domains(stack, domains, &self.settings.hostnames, tables)?)
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
