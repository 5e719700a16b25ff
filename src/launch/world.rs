//! What is there before a plan is made: one stack's containers, routes, network, and what others have taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::exchange::{self, Exchange};
use super::{Ground, Identity, Proc, Role, Step, label};
use crate::docker::{Container, State};
use crate::front::Front;
use crate::grid::{Architecture, Overbook, Slice};
use crate::instruction::Settings;
use crate::names::{ContainerName, ImageId, NodeName, ReleaseNumber, ServerName, StackName};
use crate::router::StackRoutes;
use crate::units::port::Port;

/// One container of the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: ContainerName,
    /// The server it is on.
    pub server: ServerName,
    /// Its node.
    pub node: NodeName,
    /// The release whose settings it has; `None` when it is to be replaced whatever it is.
    pub release: Option<ReleaseNumber>,
    /// Its number.
    pub index: u32,
    /// What it is for.
    pub role: Role,
    /// Whether it runs (or is being started again by the engine).
    pub runs: bool,
    /// Where its routed port is published.
    pub published: Option<SocketAddr>,
    /// Where the ports are that others find through the embassy.
    pub exposed: Vec<(Port, SocketAddr)>,
}

impl Instance {
    /// Where others may be connected to it, the routed one first.
    pub fn reached(&self) -> impl Iterator<Item = SocketAddr> {
        let others = exchange::connected(&self.exposed).filter(|at| Some(*at) != self.published);
        self.published.into_iter().chain(others)
    }
}

/// What a stack finds on one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footing {
    /// Where ports are published.
    pub ground: Ground,
    /// Ports that containers, routes or launches under way have.
    pub ports_taken: BTreeSet<u16>,
    /// Whether the stack's network exists.
    pub network_exists: bool,
    /// The stack's subnet.
    pub subnet: String,
    /// The server's memory, and what all stacks have been promised of it.
    pub slice: Slice,
}

/// Everything a plan depends on besides its instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Which HQ.
    pub identity: Identity,
    /// Whose world.
    pub stack: StackName,
    /// The release after this launch.
    pub release: ReleaseNumber,
    /// The version of the variables new containers get.
    pub env_version: u64,
    /// The stack's containers but those on their way out, by node and index.
    pub instances: Vec<Instance>,
    /// Those on their way out that are still there.
    pub leaving: Vec<Instance>,
    /// Names no new container may have.
    pub names: BTreeSet<ContainerName>,
    /// What should run now.
    pub procs: BTreeMap<NodeName, Proc>,
    /// Where the volumes of nodes lie, also of those that have ended: one that comes back finds its data.
    pub data: BTreeMap<NodeName, ServerName>,
    /// What the router serves now.
    pub routes: Option<StackRoutes>,
    /// What people have ordered of its routing.
    pub front: Front,
    /// The servers that answer, and what the stack finds there.
    pub servers: BTreeMap<ServerName, Footing>,
    /// The server HQ is on, which has every image.
    pub here: ServerName,
    /// What images were built for, as far as is known.
    pub built: BTreeMap<ImageId, Architecture>,
    /// Folder under which this release's sites go.
    pub sites: PathBuf,
    /// Where nodes are reached through the embassies, where every server has one.
    pub exchange: Option<Exchange>,
    /// Whether a server may be promised more memory than it has.
    pub overbook: Overbook,
    /// What finds no room waits for it, and the rest comes about all the same; else everything is refused.
    pub waits: bool,
}

impl World {
    /// Containers of one node, by index.
    pub fn of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Instance> {
        self.instances.iter().filter(move |instance| instance.node == *node)
    }

    /// What should run of a node that is deployed; its home stays what it was, or is where its data lies.
    pub fn proc(
        &self,
        node: &NodeName,
        count: u32,
        release: ReleaseNumber,
        env_version: u64,
        settings: &Settings,
    ) -> Proc {
        let known = self.procs.get(node);
        let home = known.and_then(|known| known.home.as_ref());
        let data = self.data.get(node).filter(|_| !settings.volumes.is_empty());
        // Who knows whether it still runs there: with another one there might be two.
        let doubtful = settings.is_alone()
            && known.is_some_and(|known| known.count > 0)
            && home.is_some_and(|home| !self.servers.contains_key(home));
        Proc {
            node: node.clone(),
            count,
            release,
            env_version,
            settings: settings.clone(),
            address: None,
            home: home.or(data).filter(|_| settings.stays() || doubtful).cloned(),
            published: Vec::new(),
        }
    }

    /// Steps that take away what an earlier launch left of a node to drain. What may exist only once is booted after
    /// them; nobody waits for the old ones any more, so that a failure need not bring them back.
    pub fn evictions(&self, proc: &Proc) -> impl Iterator<Item = Step> {
        let leaving = self.leaving.iter().filter(|instance| instance.node == proc.node);
        leaving.map(|instance| Step::Remove {
            server: instance.server.clone(),
            container: instance.name.clone(),
            grace: proc.settings.grace,
        })
    }

    /// Makes every container of these nodes count as old: a restart replaces them.
    pub fn forget(&mut self, nodes: &BTreeSet<NodeName>) {
        for instance in self.instances.iter_mut().filter(|instance| nodes.contains(&instance.node)) {
            instance.release = None;
        }
    }
}

/// Reads the labels of a container on this server; `None` when it is not a node's or service's container of this stack
/// and HQ.
pub fn instance(
    server: &ServerName,
    container: &Container,
    identity: &Identity,
    stack: &StackName,
) -> Option<Instance> {
    let text = |name: &str| container.labels.get(name).map(String::as_str);
    if text(label::HQ) != Some(&identity.id) || text(label::STACK) != Some(stack.as_str()) {
        return None;
    }
    let role = match text(label::ROLE)? {
        "node" => Role::Node,
        "service" => Role::Service,
        _ => return None,
    };
    Some(Instance {
        name: container.name.clone(),
        server: server.clone(),
        node: text(label::NODE)?.parse().ok()?,
        release: Some(text(label::RELEASE)?.parse().ok()?),
        index: text(label::INDEX)?.parse().ok()?,
        role,
        runs: match container.state {
            State::Running | State::Restarting | State::Paused => true,
            State::Created | State::Exited(_) | State::Dead => false,
        },
        published: published(container),
        exposed: exchange::published(container),
    })
}

/// Where a quarry container says its routed port is published.
pub fn published(container: &Container) -> Option<SocketAddr> {
    container.labels.get(label::ADDRESS)?.parse().ok()
}

/// Every port of its server that a container says it has.
pub fn ports(container: &Container) -> impl Iterator<Item = u16> {
    let others = container.labels.get(label::PORTS).map(String::as_str).unwrap_or_default();
    let others = others.split_whitespace().filter_map(|port| port.parse().ok());
    published(container).map(|at| at.port()).into_iter().chain(others)
}
