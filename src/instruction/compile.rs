//! From a stack to the instructions that bring it about.

use std::collections::{BTreeMap, BTreeSet};

use super::{DEFAULT_PORT, Instruction, Settings};
use crate::buildpacks::{plain_words, shell_words};
use crate::names::{Domain, ImageId, NodeName, ReleaseNumber, StackName};
use crate::router::default_domains;
use crate::stack::{Command, Health, Kind, Node, Probe, Source, Stack};
use crate::units::Megabytes;
use crate::units::port::Port;

/// What a node's finished image adds to what the repository says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// The image.
    pub id: ImageId,
    /// TCP ports it exposes, ascending.
    pub ports: Vec<u16>,
    /// What a buildpack starts when the node names no command.
    pub command: Option<Command>,
    /// Path a buildpack knows to answer when the application is up.
    pub health: Option<String>,
    /// Whether the image already has a command or entrypoint of its own.
    pub starts: bool,
    /// Whether it has an entrypoint.
    pub enters: bool,
}

/// Everything outside the repository that a compilation depends on.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// Whose instructions these are.
    pub stack: &'a StackName,
    /// The release they make.
    pub release: ReleaseNumber,
    /// Images by node, for every node that needs one.
    pub images: &'a BTreeMap<NodeName, NodeImage>,
    /// How many containers each node has now; they stay where quarry.yml names no number.
    pub counts: &'a BTreeMap<NodeName, u32>,
    /// Names under which every stack gets a domain of its own.
    pub hostnames: &'a [Domain],
    /// Memory of a node that names none.
    pub size: Megabytes,
    /// The instructions of the release that serves now.
    pub previous: &'a [Instruction],
}

/// A stack that cannot be launched although its file is well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An image was not built; a bug of the caller.
    #[error("the node `{0}` has no image")]
    NoImage(NodeName),
    /// Nothing says what to start.
    #[error("the node `{0}` has nothing to run: give it `run`, or its image a CMD")]
    NothingToRun(NodeName),
    /// A link to a node without ports.
    #[error("`{from}` links to `{to}`, which exposes no port: add `expose` to `{to}`")]
    NoPort {
        /// Who links.
        from: NodeName,
        /// To whom.
        to: NodeName,
    },
    /// An http check without a port.
    #[error("the node `{0}` has an http health check but exposes no port")]
    NoHealthPort(NodeName),
}

/// Compiles a stack: services first, then deployments, then routes, then the end of nodes that are gone.
///
/// # Errors
/// Every node that cannot be launched.
pub fn compile(stack: &Stack, context: &Context<'_>) -> Result<Vec<Instruction>, Vec<CompileError>> {
    let mut mistakes = Vec::new();
    let mut ensures = Vec::new();
    let mut deploys = Vec::new();
    for (name, node) in stack.nodes.iter().filter(|(_, node)| node.runs() || node.kind == Kind::Task) {
        if let Some(stays) = context.previous.iter().find(|one| node.is_static && is_deployed_static(one, name)) {
            deploys.push(recounted(stays, count(name, node, context)));
            continue;
        }
        match settings(stack, name, node, context) {
            Ok(settings) if node.kind == Kind::Service => {
                ensures.push(Instruction::Ensure { node: name.clone(), settings: Box::new(settings) });
            }
            Ok(settings) => deploys.push(Instruction::Deploy {
                node: name.clone(),
                release: context.release,
                count: count(name, node, context),
                settings: Box::new(settings),
            }),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut instructions = [ensures, deploys, routes(stack, context.stack, context.hostnames)].concat();
    succeed(&mut instructions, context.previous);
    Ok(instructions)
}

/// Whether this is the deployment of a node that a push leaves as it is.
fn is_deployed_static(instruction: &Instruction, name: &NodeName) -> bool {
    let Instruction::Deploy { node, settings, .. } = instruction else { return false };
    node == name && settings.is_static
}

/// The same deployment of so many containers.
fn recounted(instruction: &Instruction, count: u32) -> Instruction {
    match instruction.clone() {
        Instruction::Deploy { node, release, settings, .. } => Instruction::Deploy { node, release, count, settings },
        other => other,
    }
}

/// How many containers stand. Those of a task come and go with its runs.
fn count(name: &NodeName, node: &Node, context: &Context<'_>) -> u32 {
    match node.kind {
        Kind::Task => 0,
        Kind::Web | Kind::Worker | Kind::Service | Kind::Image | Kind::Static => {
            node.scale.or_else(|| context.counts.get(name).copied()).unwrap_or(node.first)
        }
    }
}

/// The ports a node answers on, the routed one first.
fn ports(node: &Node, image: &NodeImage) -> Vec<Port> {
    let usual = || vec![Port::tcp(DEFAULT_PORT)];
    if !node.expose.is_empty() {
        // Who is routed answers on TCP, too.
        let more = if node.kind == Kind::Web && node.first_port().is_none() { usual() } else { Vec::new() };
        return [node.expose.clone(), more].concat();
    }
    let packed = matches!(node.source, Source::Pack(_) | Source::Buildpacks(_));
    let mut ports: Vec<Port> = image.ports.iter().copied().map(Port::tcp).collect();
    match node.kind {
        Kind::Web if packed && node.command.is_some() => usual(),
        Kind::Web if ports.is_empty() => usual(),
        Kind::Web => {
            // Of several exposed ports the plain one is what a browser means.
            if let Some(place) = ports.iter().position(|port| *port == Port::tcp(80)) {
                ports.swap(0, place);
            }
            ports
        }
        Kind::Service => ports,
        Kind::Worker | Kind::Image | Kind::Static | Kind::Task => Vec::new(),
    }
}

fn settings(stack: &Stack, name: &NodeName, node: &Node, context: &Context<'_>) -> Result<Settings, CompileError> {
    let image = context.images.get(name).ok_or_else(|| CompileError::NoImage(name.clone()))?;
    let ports = ports(node, image);
    let first = ports.iter().find_map(|port| port.connected());
    let (command, args) = started(node, image, first);
    if command.is_none() && !image.starts && args.is_empty() {
        return Err(CompileError::NothingToRun(name.clone()));
    }
    let health = node.health.clone().or_else(|| {
        let own_start = node.command.is_none() && node.kind == Kind::Web;
        image.health.clone().filter(|_| own_start).map(pack_health)
    });
    if first.is_none() && health.as_ref().is_some_and(|health| health.probe.asks_first_port()) {
        return Err(CompileError::NoHealthPort(name.clone()));
    }
    let mut links = BTreeMap::new();
    let (own, outside): (Vec<_>, Vec<_>) = node.outside.iter().partition(|target| target.stack == *context.stack);
    for target in node.link.iter().chain(own.into_iter().map(|target| &target.node)) {
        let ports = link_ports(stack, target, context);
        if ports.is_empty() {
            return Err(CompileError::NoPort { from: name.clone(), to: target.clone() });
        }
        links.insert(target.clone(), ports);
    }
    Ok(Settings {
        kind: node.kind,
        image: image.id.clone(),
        command,
        args,
        cwd: node.cwd.clone(),
        ports,
        balance: node.balance,
        protocol: node.protocol,
        volumes: node.volumes.clone(),
        env: node.env.clone(),
        links,
        outside: outside.into_iter().cloned().collect(),
        filter: node.filter.clone(),
        fixed: node.fixed,
        is_static: node.is_static,
        size: node.size.unwrap_or(context.size),
        cpus: node.cpus,
        health,
        release: node.release.clone(),
        overlap: node.overlap,
        grace: node.grace,
        hook: node.hook.clone(),
        unhook: node.unhook.clone(),
        schedule: node.schedule.clone(),
        timezone: node.timezone.clone(),
        task_overlap: node.task_overlap,
    })
}

/// What runs, and the words after it. A command line that keeps the image's entrypoint becomes the words it gets, as
/// `docker run IMAGE words` has it; one that needs a shell is given one.
fn started(node: &Node, image: &NodeImage, port: Option<u16>) -> (Option<Command>, Vec<String>) {
    match &node.command {
        Some(Command::Shell(text)) if node.keeps_entrypoint && image.enters => (None, entry_words(text, port)),
        Some(command) => (Some(command.clone()), node.args.clone()),
        None => (image.command.clone(), node.args.clone()),
    }
}

fn entry_words(text: &str, port: Option<u16>) -> Vec<String> {
    // The only variable that is known here, and the one that command lines have.
    let known = match port {
        Some(port) => text.replace("${PORT}", &port.to_string()).replace("$PORT", &port.to_string()),
        None => text.to_owned(),
    };
    plain_words(&known).unwrap_or_else(|| shell_words(text))
}

fn link_ports(stack: &Stack, target: &NodeName, context: &Context<'_>) -> Vec<Port> {
    match (stack.nodes.get(target), context.images.get(target)) {
        (Some(node), Some(image)) => ports(node, image),
        (Some(node), None) => node.expose.clone(),
        (None, Some(_) | None) => Vec::new(),
    }
}

/// The check of a buildpack that knows its server answers at `path`.
fn pack_health(path: String) -> Health {
    // Nobody has asked for more than that it comes up.
    Health { lasting: false, ..Health::of(Probe::Http(path)) }
}

fn is_routed(node: &Node) -> bool {
    matches!(node.kind, Kind::Web | Kind::Static)
}

/// The node that owns the stack's own domain: `web`, else the first that is routed.
fn main_node(stack: &Stack) -> Option<&NodeName> {
    let mut routed = stack.nodes.iter().filter(|(_, node)| is_routed(node)).map(|(name, _)| name);
    routed.clone().find(|name| name.as_str() == "web").or_else(|| routed.next())
}

/// The instructions that route its nodes, which are known before anything is built.
pub fn routes(stack: &Stack, of: &StackName, hostnames: &[Domain]) -> Vec<Instruction> {
    let main = main_node(stack);
    let routed = stack.nodes.iter().filter(|(_, node)| is_routed(node));
    routed
        .map(|(name, node)| {
            let mut add = default_domains(of, Some(name).filter(|name| Some(*name) != main), hostnames);
            let own = node.domains.iter().chain(node.rules.redirect.keys());
            add.extend(own.filter(|domain| !add.contains(domain)).cloned().collect::<Vec<_>>());
            Instruction::Route {
                node: name.clone(),
                remove: Vec::new(),
                add,
                document_root: match node.kind {
                    Kind::Static => node.document_root.clone(),
                    Kind::Web | Kind::Worker | Kind::Service | Kind::Image | Kind::Task => None,
                },
                rules: Box::new(node.rules.clone()),
            }
        })
        .collect()
}

fn routed_domains(instructions: &[Instruction]) -> BTreeMap<&NodeName, &Vec<Domain>> {
    instructions
        .iter()
        .filter_map(|instruction| match instruction {
            Instruction::Route { node, add, .. } => Some((node, add)),
            Instruction::Ensure { .. }
            | Instruction::Deploy { .. }
            | Instruction::Scale { .. }
            | Instruction::Kill { .. } => None,
        })
        .collect()
}

/// Makes the instructions of a release those of the one that follows `previous`: domains and nodes that it no longer has
/// go.
pub fn succeed(new: &mut Vec<Instruction>, previous: &[Instruction]) {
    let before = routed_domains(previous);
    for instruction in new.iter_mut() {
        if let Instruction::Route { node, add, remove, .. } = instruction {
            let gone = before.get(node).into_iter().flat_map(|domains| domains.iter());
            *remove = gone.filter(|domain| !add.contains(domain)).cloned().collect();
        }
    }
    let endings = endings(new, previous);
    new.extend(endings);
}

/// What nodes of an earlier release that `new` no longer launches or routes come to: no domains, no containers.
fn endings(new: &[Instruction], previous: &[Instruction]) -> Vec<Instruction> {
    let routed = routed_domains(new);
    let still = launched(new);
    let gone = routed_domains(previous).into_iter().filter(|(node, add)| !routed.contains_key(node) && !add.is_empty());
    let unroute = gone.map(|(node, remove)| Instruction::Route {
        node: node.clone(),
        add: Vec::new(),
        remove: remove.clone(),
        document_root: None,
        rules: Box::default(),
    });
    let ended = previous.iter().filter(|one| one.launches().is_some_and(|node| !still.contains(node)));
    // One that survives pushes is of each release from its first one on.
    let rest = ended.map(|one| match one {
        Instruction::Deploy { settings, .. } if settings.is_static => one.clone(),
        _ => Instruction::Scale { node: one.launches().expect("it launches a node").clone(), count: 0 },
    });
    unroute.chain(rest).collect()
}

fn launched(instructions: &[Instruction]) -> BTreeSet<&NodeName> {
    instructions.iter().filter_map(Instruction::launches).collect()
}
