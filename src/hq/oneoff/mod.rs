//! Commands that run once in a container of their own; see [`act`].

pub mod act;

use crate::instruction::Settings;
use crate::launch::neighbours::Neighbours;
use crate::launch::{ContainerPlan, Proc, Role};
use crate::names::{ContainerName, NodeName, ServerName, StackName};
use crate::stack::Command;

/// A command to run once in a container of its own.
pub struct OneOff {
    /// In whose name.
    pub stack: StackName,
    /// With which node's image and settings; the web node's (or the first one's) when absent.
    pub node: Option<NodeName>,
    /// The command; the node's own, and under its name, without.
    pub words: Option<Vec<String>>,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// The container of a one-off command: the node's settings with another command.
pub fn one_off_plan(
    server: ServerName,
    name: ContainerName,
    proc: &Proc,
    around: Neighbours,
    wanted: &OneOff,
    network: String,
) -> ContainerPlan {
    let Neighbours { services, outside, hosts } = around;
    ContainerPlan {
        name,
        server,
        stack: wanted.stack.clone(),
        node: proc.node.clone(),
        release: proc.release,
        index: 0,
        role: Role::Once,
        settings: match &wanted.words {
            Some(words) => {
                let command = Some(Command::Words(words.clone()));
                Settings { command, args: Vec::new(), ..proc.settings.clone() }
            }
            None => proc.settings.clone(),
        },
        env_version: proc.env_version,
        services,
        outside,
        hosts,
        published: Vec::new(),
        network,
        address: None,
    }
}
