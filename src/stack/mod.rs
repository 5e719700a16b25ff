//! A stack as its repository describes it: the checked form of quarry.yml, a Procfile, a Dockerfile or a detection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::buildpacks::shell_words;
use crate::env::Env;
use crate::front::{Rules, Status};
use crate::grid::Filter;
use crate::names::{ContainerPath, Domain, InnerPath, NodeName, StackNode};
use crate::units::port::Port;
use crate::units::{Balance, Megabytes, MilliCpus, Millis, Protocol};

mod app_json;
mod checks;
mod describe;
mod entry;
mod extras;
pub mod files;
mod foreign;
mod health;
mod healthchecks;
pub mod job;
mod json;
mod keys;
mod mistakes;
mod packs;
pub mod procfile;
mod project;
pub mod routing;
mod schedule;
mod settings;
mod tree;
mod values;
pub mod wishes;
pub mod yaml;

pub use describe::{After, Described, describe};
pub use health::{Health, Page, Probe};
pub use mistakes::{Mistake, Mistakes};
pub use schedule::{Schedule, ZoneName};

/// The nodes of a stack, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stack {
    /// At least one when it came from a parser.
    pub nodes: BTreeMap<NodeName, Node>,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers HTTP, is routed.
    Web,
    /// Runs without being routed.
    Worker,
    /// Outlives pushes; others link to it.
    Service,
    /// Only an image, for other nodes to run.
    Image,
    /// Files the router serves itself.
    Static,
    /// Runs to its end at its times.
    Task,
}

/// Where a node's image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A ready image, by its docker reference.
    Image(String),
    /// The image of another node of this stack.
    Node(NodeName),
    /// Dockerfile text from quarry.yml, built at the repository's root.
    Inline(String),
    /// A Dockerfile by its path within the repository, relative, without `..`.
    Dockerfile(String),
    /// A buildpack: by name, or by detection.
    Pack(Option<String>),
    /// Buildpacks of Heroku's API, in order: folders of quarry's settings by name, or addresses of git repositories
    /// with `#branch` after them.
    Buildpacks(Vec<String>),
    /// No image: static nodes.
    Nothing,
}

/// A command line: words run as they are, or text for `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// Run by `/bin/sh -c`.
    Shell(String),
    /// Run without a shell.
    Words(Vec<String>),
}

impl Command {
    /// The argument vector docker runs. Shell text is `exec`ed where it is one simple command, so that signals arrive.
    pub fn words(&self) -> Vec<String> {
        match self {
            Command::Words(words) => words.clone(),
            Command::Shell(text) => shell_words(text),
        }
    }
}

/// What happens to the old containers of a node while the new ones come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// New ones run and are healthy before old ones stop.
    StartFirst,
    /// Old ones stop before new ones start: never two at once.
    StopFirst,
}

/// What happens when the time of a task comes and an earlier run of it is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskOverlap {
    /// The time is left out.
    #[default]
    Skip,
    /// Both run.
    Allow,
    /// The earlier one is ended.
    Replace,
}

impl TaskOverlap {
    /// Whether it is what nobody asked for.
    pub fn is_usual(&self) -> bool {
        *self == TaskOverlap::Skip
    }
}

/// One entry of quarry.yml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it is for.
    pub kind: Kind,
    /// Where its image comes from.
    pub source: Source,
    /// Commands that install dependencies in a pack build, in order.
    pub install: Vec<String>,
    /// What runs; the image's own command when absent.
    pub command: Option<Command>,
    /// An ENTRYPOINT of the image stays, and gets the words of `command`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_entrypoint: bool,
    /// Further arguments after the command (or to the image's entrypoint).
    pub args: Vec<String>,
    /// Working directory inside the container, absolute.
    pub cwd: Option<String>,
    /// Container ports, the first one of TCP routed. A web node without any gets `$PORT`.
    pub expose: Vec<Port>,
    /// How those that link to it are spread among its containers.
    #[serde(default, skip_serializing_if = "Balance::is_usual")]
    pub balance: Balance,
    /// Domains routed to it.
    pub domains: Vec<Domain>,
    /// The certificate of these domains with its chain, a file within the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_cert: Option<InnerPath>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_key: Option<InnerPath>,
    /// What it speaks on the routed port.
    #[serde(default, skip_serializing_if = "Protocol::is_usual")]
    pub protocol: Protocol,
    /// What the router does with its requests.
    #[serde(default, skip_serializing_if = "Rules::is_usual")]
    pub rules: Rules,
    /// Files within the repository that the router shows at these statuses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pages: BTreeMap<Status, InnerPath>,
    /// Folder within the repository that the router serves, relative, without `..`.
    pub document_root: Option<InnerPath>,
    /// Absolute paths inside the container that are kept.
    pub volumes: Vec<ContainerPath>,
    /// Its own variables.
    pub env: Env,
    /// Nodes of this stack whose addresses it gets.
    pub link: Vec<NodeName>,
    /// Nodes of other stacks whose addresses it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<StackNode>,
    /// How many containers; `None` leaves the number as it is.
    pub scale: Option<u32>,
    /// How many containers at first, where `scale` names no number.
    pub first: u32,
    /// The servers that will do.
    pub filter: Filter,
    /// It stays on the server where it first came up.
    pub fixed: bool,
    /// It survives pushes: what runs stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_static: bool,
    /// Memory limit and size of its block.
    pub size: Option<Megabytes>,
    /// Processor share.
    pub cpus: Option<MilliCpus>,
    /// How it shows that it is ready.
    pub health: Option<Health>,
    /// Runs once in the new image before any traffic.
    pub release: Option<Command>,
    /// Old and new at once, or never.
    pub overlap: Overlap,
    /// How long old containers may finish what they do.
    pub grace: Millis,
    /// Run inside a container that has come up.
    pub hook: Vec<Command>,
    /// Run inside a container that is about to go.
    pub unhook: Vec<Command>,
    /// When a task runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// In which time zone; UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<ZoneName>,
    /// What it does while it still runs.
    #[serde(default, skip_serializing_if = "TaskOverlap::is_usual")]
    pub task_overlap: TaskOverlap,
}

/// Default of [`Node::grace`].
pub const GRACE: Millis = Millis::seconds(10);

impl Node {
    /// A node of `kind` from `source` with every default.
    pub fn new(kind: Kind, source: Source) -> Self {
        Self {
            kind,
            source,
            install: Vec::new(),
            command: None,
            keeps_entrypoint: false,
            args: Vec::new(),
            cwd: None,
            expose: Vec::new(),
            balance: Balance::default(),
            domains: Vec::new(),
            ssl_cert: None,
            ssl_key: None,
            protocol: Protocol::default(),
            rules: Rules::default(),
            pages: BTreeMap::new(),
            document_root: None,
            volumes: Vec::new(),
            env: Env::new(),
            link: Vec::new(),
            outside: Vec::new(),
            scale: None,
            first: 1,
            size: None,
            filter: Filter::default(),
            fixed: false,
            is_static: false,
            cpus: None,
            health: None,
            release: None,
            overlap: Overlap::StartFirst,
            grace: GRACE,
            hook: Vec::new(),
            unhook: Vec::new(),
            schedule: None,
            timezone: None,
            task_overlap: TaskOverlap::Skip,
        }
    }

    /// The port that is routed, and that checks ask: the first one of TCP.
    pub fn first_port(&self) -> Option<u16> {
        self.expose.iter().find_map(|port| port.connected())
    }

    /// Whether containers of it run all the time.
    pub fn runs(&self) -> bool {
        match self.kind {
            Kind::Web | Kind::Worker | Kind::Service => true,
            Kind::Image | Kind::Static | Kind::Task => false,
        }
    }
}
