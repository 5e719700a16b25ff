//! From instructions to running containers: a plan that leaves nothing to choose, and its execution.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use self::step::Step;
use crate::docker::{Container, Network};
use crate::instruction::Settings;
use crate::names::{ContainerName, NodeName, ReleaseNumber, ServerName, StackName, StackNode};
use crate::router::StackRoutes;
use crate::stack::Kind;
use crate::units::hex::mark;
use crate::units::net::Net;
use crate::units::port::Port;

pub mod act;
pub mod address;
pub mod check;
pub mod compose;
pub mod container;
pub mod difference;
pub mod exchange;
pub mod files;
pub mod journal;
pub mod neighbours;
pub mod no_plan;
pub mod place;
pub mod plan;
pub mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod shortage;
pub mod step;
pub mod table;
pub mod undo;
pub mod world;

/// Everything a launch will do, in order. Printing it is the dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Makes and checks the new; nothing that serves is touched.
    pub stage: Vec<Step>,
    /// Just before the commit: what may not overlap stops here.
    pub switch: Vec<Step>,
    /// Right after the commit: every endpoint of the stack changes at once.
    pub route: Vec<Step>,
    /// The old drains and goes, in the background.
    pub retire: Vec<Step>,
    /// What should run from the commit on, by node.
    pub procs: BTreeMap<NodeName, Proc>,
    /// Nodes that should not run any more.
    pub ended: Vec<NodeName>,
    /// Lines for the person: differences that are not applied, and how to apply them.
    pub notes: Vec<String>,
}

impl Plan {
    /// The steps before the commit, in order: what a failure undoes.
    pub fn revocable(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.stage.iter().chain(&self.switch)
    }

    /// Beside what it does, these nodes are no more.
    pub fn end(&mut self, nodes: &[NodeName]) {
        self.procs.retain(|node, _| !nodes.contains(node));
        self.ended.extend_from_slice(nodes);
    }

    /// The tables that the router gets with the commit.
    pub fn tables(&self) -> impl Iterator<Item = &StackRoutes> {
        self.route.iter().filter_map(|step| match step {
            Step::Route { table } => Some(table),
            _ => None,
        })
    }

    /// Whether it changes anything that runs or is routed.
    pub fn does_something(&self) -> bool {
        self.revocable().chain(&self.route).chain(&self.retire).next().is_some() || !self.ended.is_empty()
    }
}

/// What should run of one node; `proc/<stack>/<node>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proc {
    /// The node.
    pub node: NodeName,
    /// How many containers.
    pub count: u32,
    /// The release whose settings they have.
    pub release: ReleaseNumber,
    /// The version of the stack's variables they were made with.
    pub env_version: u64,
    /// How they run.
    pub settings: Settings,
    /// A service's fixed address on the stack's network of its server.
    pub address: Option<Ipv4Addr>,
    /// The server of a node that cannot move: a service, or one that keeps volumes; and where a node is that may exist
    /// only once, which moves when its server is drained, not when it is lost.
    pub home: Option<ServerName>,
    /// A service's ports that the stack's containers on other servers reach, each with where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<(Port, SocketAddr)>,
}

impl Proc {
    /// Whether it keeps something on its server: it never leaves that.
    pub fn is_fixed(&self) -> bool {
        self.home.is_some() && (self.address.is_some() || self.settings.stays())
    }

    /// Whether it waits for its server when that is lost: its data is nowhere else, or it may exist only once and may
    /// still run there.
    pub fn waits(&self) -> bool {
        self.home.is_some() || self.settings.is_alone()
    }
}

impl ContainerPlan {
    /// Where the router reaches it: its first port of TCP, when it answers requests.
    pub fn routed(&self) -> Option<SocketAddr> {
        if self.settings.kind == Kind::Web { exchange::connected(&self.published).next() } else { None }
    }
}

/// Where a service is reached from one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// A name or an address.
    pub host: String,
    /// The port to ask there, by the service's own port, in the order of its `expose`.
    pub ports: Vec<(Port, u16)>,
}

impl Reach {
    /// Of these ports alone, in their order; `None` when one of them is not reached.
    pub fn of(self, ports: &[Port]) -> Option<Self> {
        let own = |port: &Port| self.ports.iter().find(|(own, _)| own == port).copied();
        let ports = ports.iter().map(own).collect::<Option<Vec<_>>>()?;
        (!ports.is_empty()).then_some(Self { ports, ..self })
    }
}

/// What a container is to quarry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs a node's process.
    Node,
    /// Runs a service.
    Service,
    /// Runs a command once and goes.
    Once,
}

impl Role {
    /// The word in labels.
    pub fn word(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Service => "service",
            Role::Once => "once",
        }
    }
}

/// A container to make, with everything decided but the values of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Its name.
    pub name: ContainerName,
    /// The server it is made on.
    pub server: ServerName,
    /// Whose it is.
    pub stack: StackName,
    /// Which node's.
    pub node: NodeName,
    /// Which release's settings it has.
    pub release: ReleaseNumber,
    /// Its number among the node's containers.
    pub index: u32,
    /// What it is for.
    pub role: Role,
    /// How it runs.
    pub settings: Settings,
    /// The version of the stack's variables it gets.
    pub env_version: u64,
    /// Where the stack's services, and what else it links to in its stack, are reached from its server.
    pub services: BTreeMap<NodeName, Reach>,
    /// Where it finds nodes of other stacks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outside: BTreeMap<StackNode, Reach>,
    /// Names that mean an address inside of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, IpAddr>,
    /// Its published ports, each with where it is reached on the server; the first one of TCP is routed.
    pub published: Vec<(Port, SocketAddr)>,
    /// The stack's network.
    pub network: String,
    /// A fixed address there.
    pub address: Option<Ipv4Addr>,
}

/// Labels by which quarry finds its containers again.
pub mod label {
    /// Which HQ made it.
    pub const HQ: &str = "quarry.hq";
    /// Its stack.
    pub const STACK: &str = "quarry.stack";
    /// Its node.
    pub const NODE: &str = "quarry.node";
    /// The release whose settings it has.
    pub const RELEASE: &str = "quarry.release";
    /// Its number among the node's containers.
    pub const INDEX: &str = "quarry.index";
    /// Its [`super::Role`].
    pub const ROLE: &str = "quarry.role";
    /// Where its routed port is published, `address:port`.
    pub const ADDRESS: &str = "quarry.address";
    /// Its memory limit in megabytes: its block in the grid.
    pub const SIZE: &str = "quarry.size";
    /// Further published ports of its server, with blanks between them.
    pub const PORTS: &str = "quarry.ports";
    /// There where its output goes to whoever is attached and nowhere else.
    pub const UNKEPT: &str = "quarry.unkept";
    /// That label's value where all of its streams are that person's alone.
    pub const STREAMS: &str = "streams";
    /// There where the container of a job stays when that has ended, until somebody takes it away.
    pub const STAYS: &str = "quarry.stays";
    /// Every port it exposes, with where that is published: `80=10.0.0.2:20000 53/udp=10.0.0.2:20001`, with blanks between them.
    pub const EXPOSED: &str = "quarry.exposed";
}

/// Which HQ this is on a machine: keeps names of two roots on one engine apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The value of the `quarry.hq` label.
    pub id: String,
    /// Put after every docker name; empty for the machine's main HQ.
    pub suffix: String,
    /// What nobody outside knows. Whoever could guess an image's name could build on another stack's.
    pub secret: String,
}

impl Identity {
    /// The name of a stack's network.
    pub fn network(&self, stack: &StackName) -> String {
        format!("quarry-{stack}{}", self.suffix)
    }

    /// A stack's network of this name, as the engine is asked for it and tells of it.
    pub fn labelled(&self, stack: &StackName, name: &str, subnet: &str) -> Network {
        let labels = [(label::HQ, self.id.as_str()), (label::STACK, stack.as_str())];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Network { name: name.to_owned(), subnet: subnet.to_owned(), labels }
    }

    /// Whose a network is, and its addresses; `None` when it is not this HQ's.
    pub fn stack_of(&self, network: &Network) -> Option<(StackName, Net)> {
        let own = network.labels.get(label::HQ) == Some(&self.id);
        let stack = network.labels.get(label::STACK).filter(|_| own)?;
        Some((stack.parse().ok()?, network.subnet.parse().ok()?))
    }

    /// The name of a node's container.
    pub fn container(&self, stack: &StackName, node: &NodeName, release: ReleaseNumber, index: u32) -> ContainerName {
        format!("{stack}.{node}.{release}.{index}{}", self.suffix)
            .parse()
            .expect("a container name made of checked names is well formed")
    }

    /// The tag of a release's images: its number, what cannot be guessed, and the HQ's suffix.
    pub fn tag(&self, stack: &StackName, number: ReleaseNumber) -> String {
        let mark = mark(format!("{}\n{stack}\n{number}", self.secret), 10);
        format!("{number}-{mark}{}", self.suffix)
    }

    /// The word by which this HQ's routers know each other when they speak of a stack.
    pub fn pass(&self, stack: &StackName) -> String {
        mark(format!("router\n{}\n{stack}", self.secret), 16)
    }

    /// Whether a container is this HQ's.
    pub fn owns(&self, container: &Container) -> bool {
        container.labels.get(label::HQ) == Some(&self.id)
    }

    /// Whether an image's name ends like those of this HQ.
    pub fn has_made(&self, tag: &str) -> bool {
        let bare = tag.rsplit(':').next().and_then(|tag| tag.strip_suffix(&self.suffix));
        let number = bare.map(|bare| {
            bare.split_once('-').map_or(bare, |(number, mark)| {
                let is_mark = mark.len() == 20 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
                if is_mark { number } else { "" }
            })
        });
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    }
}

/// Where containers can be reached on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The server's private address on which ports are published.
    pub address: IpAddr,
    /// Ports handed out.
    pub ports: std::ops::RangeInclusive<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_another_hq_on_the_machine_are_left_alone() {
        let check = |suffix: &str, tag: &str, expected: bool| {
            let identity = Identity { id: "0123abcd".into(), suffix: suffix.into(), secret: "hush".into() };
            assert_eq!(identity.has_made(tag), expected, "{tag} for `{suffix}`");
        };
        check("", "quarry/blog/web:3", true);
        check("", "quarry/blog/web:3-0123", false);
        check("-0123", "quarry/blog/web:3-0123", true);
        check("-0123", "quarry/blog/web:3", false);
        check("-0123", "quarry/blog/web:3-4567", false);
    }
}
