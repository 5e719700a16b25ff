//! The containers of a plan, with everything docker has to know of them.

use std::net::SocketAddr;

use super::{PlanError, Planner};
use crate::instruction::Settings;
use crate::launch::neighbours::Neighbours;
use crate::launch::{ContainerPlan, Proc, Role, Step};
use crate::names::{ContainerName, NodeName, ServerName};
use crate::stack::Kind;
use crate::units::port::Port;

impl<'a> Planner<'a> {
    /// Names of a node's next containers: the lowest indices whose names are free.
    pub(super) fn free_names(&self, proc: &Proc) -> impl Iterator<Item = (u32, ContainerName)> + use<'a> {
        let (world, node, release) = (self.world, proc.node.clone(), proc.release);
        let named = move |index| (index, world.identity.container(&world.stack, &node, release, index));
        (1..).map(named).filter(|(_, name)| !world.names.contains(name))
    }

    /// A container of a node, with its ports.
    pub(super) fn container(
        &mut self,
        proc: &Proc,
        index: u32,
        name: ContainerName,
        server: ServerName,
    ) -> Result<ContainerPlan, PlanError> {
        let published = self.published(proc, &server)?;
        let Neighbours { services, outside, hosts } = self.places.neighbours(&server, &proc.settings);
        Ok(ContainerPlan {
            name,
            services,
            outside,
            hosts,
            server,
            stack: self.world.stack.clone(),
            node: proc.node.clone(),
            release: proc.release,
            index,
            role: if proc.address.is_some() { Role::Service } else { Role::Node },
            settings: proc.settings.clone(),
            env_version: proc.env_version,
            published,
            network: self.world.identity.network(&self.world.stack),
            address: proc.address,
        })
    }

    /// Where a container's ports are published: a service's where they have always been, all others anew. Through the
    /// embassy all of them are reached, else what is routed.
    fn published(&mut self, proc: &Proc, server: &ServerName) -> Result<Vec<(Port, SocketAddr)>, PlanError> {
        if proc.address.is_some() {
            return Ok(proc.published.clone());
        }
        let exposed = match (proc.settings.kind, &self.world.exchange) {
            (Kind::Task, _) => Vec::new(),
            (_, Some(_)) => proc.settings.ports.clone(),
            (Kind::Web, None) => proc.settings.first_port().map(Port::tcp).into_iter().collect(),
            (Kind::Worker | Kind::Service | Kind::Image | Kind::Static, None) => Vec::new(),
        };
        exposed.into_iter().map(|port| Ok((port, self.places.port(server)?))).collect()
    }

    /// The release command: once, before any container of the node, in a container of its own.
    pub(super) fn release_command(&mut self, proc: &Proc) -> Result<(), PlanError> {
        let server = self.places.of_release_command(proc)?;
        let node: NodeName = format!("{:.32}-release", proc.node.as_str())
            .parse()
            .unwrap_or_else(|_| "release".parse().expect("a name written in the program is well formed"));
        let settings = Settings {
            command: proc.settings.release.clone(),
            args: Vec::new(),
            ports: Vec::new(),
            health: None,
            release: None,
            hook: Vec::new(),
            unhook: Vec::new(),
            ..proc.settings.clone()
        };
        let Neighbours { services, outside, hosts } = self.places.neighbours(&server, &settings);
        let container = ContainerPlan {
            name: self.world.identity.container(&self.world.stack, &node, proc.release, 0),
            stack: self.world.stack.clone(),
            node: proc.node.clone(),
            release: proc.release,
            index: 0,
            role: Role::Once,
            settings,
            env_version: proc.env_version,
            services,
            outside,
            hosts,
            server,
            published: Vec::new(),
            network: self.world.identity.network(&self.world.stack),
            address: None,
        };
        self.releases.push(Step::Once { container: Box::new(container) });
        Ok(())
    }
}
