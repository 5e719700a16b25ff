//! One step of a plan.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Check, SETTLE};
use super::{ContainerPlan, Role};
use crate::docker::Restart;
use crate::names::{ContainerName, ImageId, InnerPath, NodeName, ServerName, StackName};
use crate::router::StackRoutes;
use crate::stack::Command;
use crate::units::Millis;
use crate::units::port::Port;

/// One thing to do; nothing in it is left to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Bring an image to a server; one that has it costs a look.
    Fetch {
        /// To which server.
        server: ServerName,
        /// Which image.
        image: ImageId,
    },
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
        /// Its ports that are published, with where.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        exposed: Vec<(Port, SocketAddr)>,
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
        /// Further ones of the same container.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<SocketAddr>,
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
    /// Remove everything a stack that is gone has on a server: containers, network, images, volumes.
    Sweep {
        /// On which server.
        server: ServerName,
        /// The network's name.
        network: String,
    },
}

impl Step {
    /// The container it makes.
    pub fn makes(&self) -> Option<&ContainerPlan> {
        match self {
            Step::Boot { container } | Step::Once { container } => Some(container),
            Step::Fetch { .. }
            | Step::Network { .. }
            | Step::Site { .. }
            | Step::Start { .. }
            | Step::Await { .. }
            | Step::Hook { .. }
            | Step::Stop { .. }
            | Step::Route { .. }
            | Step::Unroute { .. }
            | Step::Drain { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::Sweep { .. } => None,
        }
    }

    /// The server whose docker it needs.
    pub fn server(&self) -> Option<&ServerName> {
        match self {
            Step::Fetch { server, .. }
            | Step::Network { server, .. }
            | Step::Start { server, .. }
            | Step::Await { server, .. }
            | Step::Hook { server, .. }
            | Step::Stop { server, .. }
            | Step::Remove { server, .. }
            | Step::RemoveNetwork { server, .. }
            | Step::Sweep { server, .. } => Some(server),
            Step::Once { container } | Step::Boot { container } => Some(&container.server),
            Step::Site { .. } | Step::Route { .. } | Step::Unroute { .. } | Step::Drain { .. } => None,
        }
    }

    /// Whether it leaves something behind and so is journaled; looking and waiting are not.
    pub fn leaves_something(&self) -> bool {
        match self {
            Step::Network { .. }
            | Step::Site { .. }
            | Step::Once { .. }
            | Step::Boot { .. }
            | Step::Start { .. }
            | Step::Hook { .. }
            | Step::Stop { .. } => true,
            Step::Fetch { .. }
            | Step::Await { .. }
            | Step::Route { .. }
            | Step::Unroute { .. }
            | Step::Drain { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::Sweep { .. } => false,
        }
    }

    /// The container it takes away, and from where.
    pub fn removed(&self) -> Option<(&ServerName, &ContainerName)> {
        match self {
            Step::Remove { server, container, .. } => Some((server, container)),
            _ => None,
        }
    }

    /// Whether it only takes away: what is no longer there, or was on a server that is no longer HQ's, has gone.
    pub fn only_removes(&self) -> bool {
        match self {
            Step::Remove { .. } | Step::RemoveNetwork { .. } | Step::Sweep { .. } => true,
            Step::Fetch { .. }
            | Step::Network { .. }
            | Step::Site { .. }
            | Step::Once { .. }
            | Step::Boot { .. }
            | Step::Start { .. }
            | Step::Await { .. }
            | Step::Hook { .. }
            | Step::Stop { .. }
            | Step::Route { .. }
            | Step::Unroute { .. }
            | Step::Drain { .. } => false,
        }
    }
}

impl fmt::Display for Step {
    /// One line as the dry run prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Fetch { server, image } => write!(f, "fetch    image {} to {server}", &image.as_str()[7..19]),
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
            Step::Sweep { server, .. } => write!(f, "sweep    {server}"),
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
