//! Makes the containers of one-off commands.

use super::{OneOff, one_off_plan};
use crate::hq::{Hq, HqError};
use crate::launch::ContainerPlan;
use crate::launch::plan::PlanError;
use crate::names::{ContainerName, ServerName};

impl Hq {
    /// Makes the container of a one-off command, not yet started, and gives its server and name.
    ///
    /// # Errors
    /// When the stack or node does not exist, or docker fails.
    pub async fn prepare_one_off(&self, wanted: OneOff) -> Result<(ServerName, ContainerName), HqError> {
        let plan = self.one_off(&wanted).await?;
        let mut request = self.launcher.request(&plan).await?;
        request.tty = wanted.tty;
        request.stdin = true;
        self.engines().of(&plan.server)?.create(request).await?;
        Ok((plan.server, plan.name))
    }

    /// The container of a one-off command: beside its node, under a name that is free.
    ///
    /// # Errors
    /// When the stack or node does not exist, or its server is away.
    pub async fn one_off(&self, wanted: &OneOff) -> Result<ContainerPlan, HqError> {
        self.check_awake()?;
        let current = self.current(&wanted.stack).await?;
        let procs = self.procs(&wanted.stack).await?;
        let found = match &wanted.node {
            Some(node) => procs.iter().find(|proc| proc.node == *node),
            None => procs
                .iter()
                .find(|proc| proc.node.as_str() == "web")
                .or_else(|| procs.iter().find(|proc| proc.address.is_none()).or_else(|| procs.first())),
        };
        let missing = || wanted.node.clone().unwrap_or_else(|| "web".parse().expect("`web` is a node name"));
        let proc = found.ok_or_else(|| self.no_node(&wanted.stack, &missing(), &current))?;
        let world = self.world(&wanted.stack, current.number, current.env_version).await?;
        let node = match &wanted.words {
            Some(_) => "run".parse().expect("`run` is a node name"),
            None => proc.node.clone(),
        };
        let mut free = 1..;
        let name = free
            .find_map(|index| {
                let name = self.launcher.identity.container(&wanted.stack, &node, current.number, index);
                (!world.names.contains(&name)).then_some(name)
            })
            .expect("one of infinitely many names is free");
        // Where the node itself runs, so that links and volumes are those it has.
        if let Some(home) = proc.home.as_ref().filter(|home| !world.servers.contains_key(*home)) {
            return Err(PlanError::Away { node: proc.node.clone(), server: home.clone() }.into());
        }
        let near = proc.home.clone().or_else(|| world.of(&proc.node).map(|instance| instance.server.clone()).next());
        let server = near.filter(|server| world.servers.contains_key(server)).unwrap_or_else(|| world.here.clone());
        let network = self.launcher.identity.network(&wanted.stack);
        Ok(one_off_plan(server, name, proc, &procs, wanted, network))
    }
}
