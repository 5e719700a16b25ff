//! From instructions to running containers: a plan that leaves nothing to choose, and its execution.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::check::{Check, SETTLE};
use crate::docker::Restart;
use crate::instruction::Settings;
use crate::names::{ContainerName, InnerPath, NodeName, ReleaseNumber, ServerName, StackName};
use crate::router::StackRoutes;
use crate::stack::{Command, Kind};
use crate::units::Millis;

pub mod act;
pub mod address;
pub mod check;
pub mod compose;
pub mod container;
pub mod difference;
pub mod files;
pub mod journal;
pub mod place;
pub mod plan;
pub mod record;
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
    /// The server of a node that cannot move: a service, or one that keeps volumes.
    pub home: Option<ServerName>,
    /// A service's ports that the stack's containers on other servers reach, each with where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<(u16, SocketAddr)>,
}

impl ContainerPlan {
    /// Where the router reaches it: its first port, when it answers requests.
    pub fn routed(&self) -> Option<SocketAddr> {
        let (_, at) = self.published.first().filter(|_| self.settings.kind == Kind::Web)?;
        Some(*at)
    }
}

/// Where a service is reached from one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// A name or an address.
    pub host: String,
    /// The port to ask there, by the service's own port, in the order of its `expose`.
    pub ports: Vec<(u16, u16)>,
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
    /// Where the stack's services are reached from its server, by node.
    pub services: BTreeMap<NodeName, Reach>,
    /// Its published ports, each with where it is reached on the server; the first one is routed.
    pub published: Vec<(u16, SocketAddr)>,
    /// The stack's network.
    pub network: String,
    /// A fixed address there.
    pub address: Option<Ipv4Addr>,
}

/// One thing to do; nothing in it is left to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Make the stack's network.
    Network {
        /// On which server.
        server: ServerName,
        /// Its name.
        name: String,
        /// Its subnet.
        subnet: String,
    },
    /// Copy a folder of the checkout to where the router serves it.
    Site {
        /// Which node.
        node: NodeName,
        /// Folder within the checkout.
        document_root: InnerPath,
        /// Absolute folder to make.
        folder: PathBuf,
    },
    /// Run a command in a container of its own and wait for success.
    Once {
        /// The container.
        container: Box<ContainerPlan>,
    },
    /// Make and start a container.
    Boot {
        /// The container.
        container: Box<ContainerPlan>,
    },
    /// Start a container that exists.
    Start {
        /// On which server.
        server: ServerName,
        /// Which.
        container: ContainerName,
    },
    /// Wait until a container has come up.
    Await {
        /// On which server.
        server: ServerName,
        /// Which.
        container: ContainerName,
        /// Which node's, for the person.
        node: NodeName,
        /// What it must show.
        check: Check,
        /// Its routed port, where it has one.
        port: Option<u16>,
        /// Where its routed port is published.
        published: Option<SocketAddr>,
        /// Whether not listening refuses the launch.
        role: Role,
        /// What the engine does from then on when it ends.
        restart: Restart,
    },
    /// Run a command inside a container.
    Hook {
        /// On which server.
        server: ServerName,
        /// Which container.
        container: ContainerName,
        /// The command.
        command: Command,
        /// Whether its failure refuses the launch.
        must: bool,
    },
    /// Stop a container and keep it, to be started again should the launch fail.
    Stop {
        /// On which server.
        server: ServerName,
        /// Which.
        container: ContainerName,
        /// Between SIGTERM and SIGKILL.
        grace: Millis,
    },
    /// Give the router the stack's table.
    Route {
        /// The whole table.
        table: StackRoutes,
    },
    /// Take the stack out of the router.
    Unroute {
        /// Whose table.
        stack: StackName,
    },
    /// Wait until no request is under way at an address.
    Drain {
        /// The container behind it.
        container: ContainerName,
        /// The address.
        published: SocketAddr,
        /// At most this long.
        grace: Millis,
    },
    /// Stop and remove a container.
    Remove {
        /// On which server.
        server: ServerName,
        /// Which.
        container: ContainerName,
        /// Between SIGTERM and SIGKILL.
        grace: Millis,
    },
    /// Remove the stack's network.
    RemoveNetwork {
        /// On which server.
        server: ServerName,
        /// Its name.
        name: String,
    },
}

impl Step {
    /// The container it makes.
    pub fn makes(&self) -> Option<&ContainerPlan> {
        match self {
            Step::Boot { container } | Step::Once { container } => Some(container),
            Step::Network { .. }
            | Step::Site { .. }
            | Step::Start { .. }
            | Step::Await { .. }
            | Step::Hook { .. }
            | Step::Stop { .. }
            | Step::Route { .. }
            | Step::Unroute { .. }
            | Step::Drain { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    /// One line as the dry run prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Network { server, name, subnet } => write!(f, "network  {name} {subnet} on {server}"),
            Step::Site { node, document_root, .. } => write!(f, "site     {node} from {document_root}"),
            Step::Once { container } => {
                write!(f, "once     {} on {} {}", container.name, container.server, command_text(container))
            }
            Step::Boot { container } => {
                let image = &container.settings.image.as_str()[7..19];
                write!(f, "boot     {} on {} image {image}", container.name, container.server)?;
                match container.published.first() {
                    Some((_, address)) => write!(f, " at {address}"),
                    None => Ok(()),
                }
            }
            Step::Start { container, .. } => write!(f, "start    {container}"),
            Step::Await { container, check, .. } => match check {
                Check::Health(_) => write!(f, "await    {container} healthy"),
                Check::Listens => write!(f, "await    {container} listening"),
                Check::Settles => write!(f, "await    {container} up for {SETTLE}"),
            },
            Step::Hook { container, command, .. } => write!(f, "hook     {container} {}", command.words().join(" ")),
            Step::Stop { container, grace, .. } => write!(f, "stop     {container} within {grace}"),
            Step::Route { table } => {
                let domains: usize = table.nodes.values().map(|node| node.domains.len()).sum();
                write!(f, "route    {} release {} on {domains} domains", table.stack, table.release)
            }
            Step::Unroute { stack } => write!(f, "unroute  {stack}"),
            Step::Drain { container, grace, .. } => write!(f, "drain    {container} within {grace}"),
            Step::Remove { container, grace, .. } => write!(f, "remove   {container} within {grace}"),
            Step::RemoveNetwork { server, name } => write!(f, "remove   network {name} on {server}"),
        }
    }
}

fn command_text(container: &ContainerPlan) -> String {
    match &container.settings.command {
        Some(Command::Shell(text)) => text.clone(),
        Some(Command::Words(words)) => words.join(" "),
        None => String::from("(the image's command)"),
    }
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
}

/// Which HQ this is on a machine: keeps names of two roots on one engine apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The value of the `quarry.hq` label.
    pub id: String,
    /// Put after every docker name; empty for the machine's main HQ.
    pub suffix: String,
}

impl Identity {
    /// The name of a stack's network.
    pub fn network(&self, stack: &StackName) -> String {
        format!("quarry-{stack}{}", self.suffix)
    }

    /// The name of a node's container.
    pub fn container(&self, stack: &StackName, node: &NodeName, release: ReleaseNumber, index: u32) -> ContainerName {
        format!("{stack}.{node}.{release}.{index}{}", self.suffix)
            .parse()
            .expect("a container name made of checked names is well formed")
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
