//! Makes the containers of one-off commands.

use super::{OneOff, one_off_plan};
use crate::docker::EngineError;
use crate::hq::{Hq, HqError};
use crate::launch::neighbours::{hidden, neighbours};
use crate::launch::plan::PlanError;
use crate::launch::record::Release;
use crate::launch::{ContainerPlan, Plan, Step};
use crate::names::{ContainerName, ServerName, StackName};

/// How often a name is looked for that nobody takes meanwhile.
const TRIES: u32 = 20;

impl Hq {
    /// Makes the container of a one-off command, not yet started, and gives its server and name.
    ///
    /// # Errors
    /// When the stack or node does not exist, or docker fails.
    pub async fn prepare_one_off(&self, wanted: OneOff) -> Result<(ServerName, ContainerName), HqError> {
        let mut tries = 0;
        loop {
            let plan = self.one_off(&wanted).await?;
            let mut request = self.launcher.request(&plan).await?;
            request.tty = wanted.tty;
            request.stdin = true;
            tries += 1;
            match self.engines().of(&plan.server)?.create(request).await {
                // Somebody else has made one of that name meanwhile.
                Err(EngineError::Conflict { .. }) if tries < TRIES => {}
                created => return Ok(created.map(|_| (plan.server, plan.name))?),
            }
        }
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
        if world.servers.get(&server).is_some_and(|footing| !footing.network_exists) {
            self.found_network(&wanted.stack, &server, &current).await?;
        }
        let network = self.launcher.identity.network(&wanted.stack);
        let around = neighbours(&world, &hidden(&world, &[]), procs.iter(), &server, &proc.settings);
        Ok(one_off_plan(server, name, proc, around, wanted, network))
    }

    /// Makes the stack's network on a server: where nothing of the stack stands, such as one of tasks alone, no launch
    /// has needed it.
    async fn found_network(&self, stack: &StackName, server: &ServerName, current: &Release) -> Result<(), HqError> {
        // Nobody else plans with the same subnet meanwhile.
        let reserved = self.planning.lock().await;
        let world = self.gather(stack, current.number, current.env_version, &reserved).await?;
        let Some(footing) = world.servers.get(server).filter(|footing| !footing.network_exists) else {
            return Ok(());
        };
        let (name, subnet) = (self.launcher.identity.network(stack), footing.subnet.clone());
        let step = Step::Network { server: server.clone(), name, subnet };
        self.launcher.perform(stack, &step, &|_| {}).await?;
        self.note_networks(stack, &Plan { stage: vec![step], ..Plan::default() });
        Ok(())
    }
}
