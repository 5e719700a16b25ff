//! The five launch instructions: the only words by which a long-running container or a route changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::env::Env;
use crate::front::Rules;
use crate::grid::Filter;
use crate::names::{ContainerName, ContainerPath, Domain, ImageId, InnerPath, NodeName, ReleaseNumber, StackNode};
use crate::stack::{Command, Health, Kind, Overlap, Schedule, TaskOverlap, ZoneName};
use crate::units::port::Port;
use crate::units::{Balance, Megabytes, MilliCpus, Millis, Protocol};

pub mod compile;
pub mod tarball;

/// One step of a launch as a person or the reconciler says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "instruction", rename_all = "UPPERCASE")]
pub enum Instruction {
    /// A service container is running with these settings.
    Ensure {
        /// Which service.
        node: NodeName,
        /// How it runs.
        settings: Box<Settings>,
    },
    /// `count` containers of this release run and take over from older ones.
    Deploy {
        /// Which node.
        node: NodeName,
        /// Which release.
        release: ReleaseNumber,
        /// How many, at most [`MOST`].
        #[serde(deserialize_with = "count")]
        count: u32,
        /// How they run.
        settings: Box<Settings>,
    },
    /// There are `count` containers of the node's current release.
    Scale {
        /// Which node.
        node: NodeName,
        /// How many, at most [`MOST`]; 0 lets a node rest.
        #[serde(deserialize_with = "count")]
        count: u32,
    },
    /// The router serves these domains from this node.
    Route {
        /// Which node.
        node: NodeName,
        /// Domains that come.
        add: Vec<Domain>,
        /// Domains that go.
        remove: Vec<Domain>,
        /// Folder of the repository that is served instead of containers.
        document_root: Option<InnerPath>,
        /// What happens to requests on the way.
        #[serde(default, skip_serializing_if = "Rules::is_usual")]
        rules: Box<Rules>,
    },
    /// The container is stopped and removed.
    Kill {
        /// Which.
        container: ContainerName,
        /// Between SIGTERM and SIGKILL.
        grace: Millis,
    },
}

/// The most containers of one node.
pub const MOST: u32 = 100;

/// A number of containers that somebody else wrote down.
fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(from)?;
    if count > MOST {
        return Err(D::Error::custom(format!("{count} containers; a node has at most {MOST}")));
    }
    Ok(count)
}

impl Instruction {
    /// The node of which containers run by this instruction.
    pub fn launches(&self) -> Option<&NodeName> {
        match self {
            Instruction::Ensure { node, .. } | Instruction::Deploy { node, .. } => Some(node),
            Instruction::Scale { .. } | Instruction::Route { .. } | Instruction::Kill { .. } => None,
        }
    }

    /// How the containers it launches run.
    pub fn settings(&self) -> Option<&Settings> {
        match self {
            Instruction::Ensure { settings, .. } | Instruction::Deploy { settings, .. } => Some(settings),
            Instruction::Scale { .. } | Instruction::Route { .. } | Instruction::Kill { .. } => None,
        }
    }

    /// The domains that come by this instruction.
    pub fn domains(&self) -> &[Domain] {
        match self {
            Instruction::Route { add, .. } => add,
            Instruction::Ensure { .. }
            | Instruction::Deploy { .. }
            | Instruction::Scale { .. }
            | Instruction::Kill { .. } => &[],
        }
    }
}

/// How the containers of a node run. No values of the stack's env: those are read when a container is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What kind of node it is: web nodes are routed.
    pub kind: Kind,
    /// The image, by content.
    pub image: ImageId,
    /// Replaces the image's entrypoint and command.
    pub command: Option<Command>,
    /// Words after the command.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Container ports; the first one of TCP is routed.
    pub ports: Vec<Port>,
    /// How those that link to it are spread among its containers.
    #[serde(default, skip_serializing_if = "Balance::is_usual")]
    pub balance: Balance,
    /// What it speaks on that.
    #[serde(default, skip_serializing_if = "Protocol::is_usual")]
    pub protocol: Protocol,
    /// Kept paths inside the container.
    pub volumes: Vec<ContainerPath>,
    /// The node's own variables, as the repository has them.
    pub env: Env,
    /// Nodes whose addresses it gets, with the ports they answer on.
    pub links: BTreeMap<NodeName, Vec<Port>>,
    /// Nodes of other stacks whose addresses it gets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outside: BTreeSet<StackNode>,
    /// The servers that will do.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// Its containers stay on the server where they first came up, as with volumes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// A push leaves it as it is.
    #[serde(default, rename = "static", skip_serializing_if = "std::ops::Not::not")]
    pub is_static: bool,
    /// Memory limit.
    pub size: Megabytes,
    /// Processor share.
    pub cpus: Option<MilliCpus>,
    /// How it shows that it is ready.
    pub health: Option<Health>,
    /// Runs once before any traffic.
    pub release: Option<Command>,
    /// Old and new at once, or never.
    pub overlap: Overlap,
    /// How long an old container may finish.
    pub grace: Millis,
    /// Run inside a container that has come up.
    pub hook: Vec<Command>,
    /// Run inside a container about to go.
    pub unhook: Vec<Command>,
    /// When a task runs; its containers are those of single runs, and never stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// In which time zone; UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<ZoneName>,
    /// What a task does at a time at which it still runs.
    #[serde(default, skip_serializing_if = "TaskOverlap::is_usual")]
    pub task_overlap: TaskOverlap,
}

impl Settings {
    /// Whether old and new containers may never run at the same time.
    pub fn is_alone(&self) -> bool {
        self.overlap == Overlap::StopFirst
    }

    /// The port that is routed, and that checks ask: the first one of TCP.
    pub fn first_port(&self) -> Option<u16> {
        self.ports.iter().find_map(|port| port.connected())
    }

    /// Whether its containers stay on the server where the first one came up: something they need is only there.
    pub fn stays(&self) -> bool {
        self.fixed || self.kind == Kind::Service || !self.volumes.is_empty()
    }
}

/// Memory limit of a node that names none.
pub const DEFAULT_SIZE: Megabytes = Megabytes(512);

/// The port a web node without `expose` is told to listen on by `$PORT`.
pub const DEFAULT_PORT: u16 = 5000;
