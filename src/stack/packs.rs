//! The packs of a stack: which builds each node, what they say, and where none can.

use crate::buildpacks::{self, Pack, PackError, PackRequest, Rendered, Repository};
use crate::names::NodeName;

use super::{Command, Node, Source, Stack};

/// The pack that builds a node, by name or by detection; `None` where no pack is used or none fits.
fn pack_of<'r>(source: &Source, repository: &'r Repository) -> Option<Pack<'r>> {
    match source {
        Source::Pack(Some(name)) => buildpacks::by_name(name, repository),
        Source::Pack(None) => buildpacks::detect(repository),
        Source::Image(_)
        | Source::Node(_)
        | Source::Inline(_)
        | Source::Dockerfile(_)
        | Source::Buildpacks(_)
        | Source::Nothing => None,
    }
}

fn rendered(pack: Pack<'_>, node: &Node, repository: &Repository) -> Result<Rendered, PackError> {
    buildpacks::render(pack, repository, &PackRequest { install: &node.install, ..PackRequest::default() })
}

/// What each pack has to say, each line once.
pub(super) fn said(stack: &Stack, repository: &Repository) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for node in stack.nodes.values() {
        let lines = match (&node.source, pack_of(&node.source, repository)) {
            (Source::Buildpacks(names), _) => vec![format!("Buildpacks {}", names.join(", "))],
            (source, Some(pack)) => {
                let by = pack.recognises(repository).filter(|_| *source == Source::Pack(None));
                let first = match by {
                    Some(by) => format!("Detected {} ({by})", pack.name),
                    None => format!("Buildpack {}", pack.name),
                };
                let more = rendered(pack, node, repository).map(|rendered| rendered.said).unwrap_or_default();
                [vec![first], more].concat()
            }
            (_, None) => continue,
        };
        for line in lines {
            if !said.contains(&line) {
                said.push(line);
            }
        }
    }
    said
}

/// Nodes whose pack cannot build them or leaves them without a command, with the reason.
pub(super) fn unbuildable(stack: &Stack, repository: &Repository) -> Vec<(NodeName, String)> {
    let mut found = Vec::new();
    for (name, node) in &stack.nodes {
        let Some(maker) = maker(stack, node) else { continue };
        let owns = std::ptr::eq(maker, node);
        if let Source::Buildpacks(names) = &maker.source {
            let error = buildpacks::heroku(names, repository, &PackRequest::default()).err().filter(|_| owns);
            found.extend(error.map(|error| (name.clone(), error.to_string())));
            continue;
        }
        if !matches!(maker.source, Source::Pack(_)) {
            continue;
        }
        match pack_of(&maker.source, repository).map(|pack| (pack, rendered(pack, maker, repository))) {
            None if owns => found.push((name.clone(), no_image(name))),
            Some((_, Err(error))) if owns => found.push((name.clone(), error.to_string())),
            Some((pack, Ok(rendered))) if node.runs() && node.command.is_none() && rendered.command.is_none() => {
                found.push((name.clone(), no_command(pack)));
            }
            None | Some(_) => {}
        }
    }
    found
}

/// The node whose image a node runs: itself, or the end of its references.
pub(super) fn maker<'s>(stack: &'s Stack, node: &'s Node) -> Option<&'s Node> {
    let mut maker = node;
    for _ in 0..=stack.nodes.len() {
        match &maker.source {
            Source::Node(name) => maker = stack.nodes.get(name)?,
            Source::Image(_)
            | Source::Inline(_)
            | Source::Dockerfile(_)
            | Source::Pack(_)
            | Source::Buildpacks(_)
            | Source::Nothing => return Some(maker),
        }
    }
    None
}

/// What buildpacks of Heroku's API leave in `.profile.d` comes before every command in their images.
pub(super) fn with_profile(mut stack: Stack) -> Stack {
    let by_scripts =
        |node: &Node| matches!(maker(&stack, node).map(|maker| &maker.source), Some(Source::Buildpacks(_)));
    let names: Vec<NodeName> =
        stack.nodes.iter().filter(|(_, node)| by_scripts(node)).map(|(name, _)| name.clone()).collect();
    let wrapped = |command: Option<Command>| {
        command.map(|command| match command {
            Command::Shell(text) => Command::Words(vec![buildpacks::LAUNCHER.to_owned(), text]),
            Command::Words(words) => Command::Words(words),
        })
    };
    for name in names {
        let Some(node) = stack.nodes.get_mut(&name) else { continue };
        node.release = wrapped(node.release.take());
        node.command = match node.command.take() {
            // The launcher knows what bin/release has named for a process.
            None => Some(Command::Words(vec![buildpacks::LAUNCHER.to_owned(), format!("@{name}")])),
            command => wrapped(command),
        };
    }
    stack
}

fn no_image(name: &NodeName) -> String {
    format!(
        "`{name}` has no image: the repository has no Dockerfile and no buildpack knows it, so name a `container`, a \
         `dockerfile` or a `buildpack`"
    )
}

fn no_command(pack: Pack<'_>) -> String {
    format!(
        "the {} buildpack finds no command to start: add a Procfile with a line such as `web: {}`, or `run` in quarry.yml",
        pack.name, pack.example
    )
}
