//! One entry of quarry.yml: from its keys to a [`Node`].

use std::collections::BTreeSet;

use crate::buildpacks::Repository;
use crate::grid::Filter;
use crate::names::reference::is_id;
use crate::names::{Domain, InnerPath, NodeName, StackNode};
use crate::units::Megabytes;

use super::keys::{Found, KINDS, Keys, name_of};
use super::mistakes::{Notes, nearest, shown};
use super::tree::{Shape, Spot};
use super::{Command, Kind, Node, Overlap, Source, foreign, settings, values};

/// What an entry may refer to.
pub(super) struct Around<'a> {
    pub repository: &'a Repository,
    /// Every node of the file with the `type` it names, for references to it.
    pub nodes: &'a BTreeSet<NodeName>,
    /// What builds a node that says nothing about it.
    pub own: &'a Source,
}

/// A node that was read, with the places needed to check it against the others.
pub(super) struct Draft {
    /// Where its name stands.
    pub spot: Spot,
    pub node: Node,
    /// Where it names another node's image.
    pub container: Option<Spot>,
    /// Where each of `node.link` stands.
    pub links: Vec<Spot>,
    /// Where each of `node.domains` stands.
    pub domains: Vec<Spot>,
}

/// Less than this and the engine refuses to start a container.
const SMALLEST: Megabytes = Megabytes(6);

/// Reads the entry `name`. What cannot be read is noted and left at its default, so that the rest is checked too.
pub(super) fn read(
    name: &NodeName,
    spot: Spot,
    mut keys: Keys<'_>,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Draft {
    let kind = kind(name, spot, &keys, around, notes);
    refuse_document_root_beside_containers(kind, &keys, notes);
    keys.refuse_without_effect(kind, notes);
    let (source, container) = match kind {
        Kind::Static => (Source::Nothing, None),
        Kind::Web | Kind::Worker | Kind::Service | Kind::Image | Kind::Task => {
            source(name, spot, kind, &keys, around, notes)
        }
    };
    let mut draft = Draft { spot, node: Node::new(kind, source), container, links: Vec::new(), domains: Vec::new() };
    running(&mut draft.node, &keys, notes);
    ports(&mut draft, &keys, around, notes);
    capacity(&mut draft.node, &keys, notes);
    references(&mut draft, name, &keys, around, notes);
    settings::read(&mut draft.node, &keys, notes);
    if kind == Kind::Task && !keys.has("schedule") {
        notes.add(spot, "a node of type `task` needs `schedule`, such as `0 3 * * *`");
    }
    draft
}

/// The type as written, or as it follows from the other keys.
fn kind(name: &NodeName, spot: Spot, keys: &Keys<'_>, around: &Around<'_>, notes: &mut Notes<'_>) -> Kind {
    let files_only = keys.has("document_root") && !keys.has_source() && !keys.has("run");
    let written = keys.found("type").and_then(|key| values::choice(key, &KINDS, notes));
    match written {
        Some(Kind::Web) | None if files_only => Kind::Static,
        Some(kind) => kind,
        None if keys.has("domains") || name.as_str() == "web" => Kind::Web,
        None if keys.has("schedule") => Kind::Task,
        None if keys.has("document_root") => Kind::Static,
        None if keys.has("run") && (!keys.has_source() || borrows_image(name, keys, around)) => Kind::Worker,
        None if keys.has("type") => Kind::Worker,
        None => {
            let names = KINDS.map(|(name, _)| name).join(", ");
            notes.add(spot, format!("`{name}` needs a `type`: one of {names}"));
            Kind::Worker
        }
    }
}

/// Whether `container` is another node of the file.
fn borrows_image(name: &NodeName, keys: &Keys<'_>, around: &Around<'_>) -> bool {
    keys.found("container").is_some_and(|key| match &key.value.shape {
        Shape::Text(text) => text != name.as_str() && around.nodes.iter().any(|node| node.as_str() == text),
        Shape::Nothing | Shape::List(_) | Shape::Map(_) => false,
    })
}

fn refuse_document_root_beside_containers(kind: Kind, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    match keys.found("document_root") {
        Some(key) if kind == Kind::Web => {
            let message = "`document_root` beside a container is not supported yet; make it a node of type `static`";
            notes.add(key.spot, message);
        }
        Some(_) | None => {}
    }
}

/// Where the image comes from, and where another node's image is named.
fn source(
    name: &NodeName,
    spot: Spot,
    kind: Kind,
    keys: &Keys<'_>,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> (Source, Option<Spot>) {
    let given: Vec<Found<'_>> =
        ["container", "dockerfile", "buildpack"].iter().filter_map(|key| keys.found(key)).collect();
    for further in given.iter().skip(1) {
        let message = format!("`{}` and `{}` both name an image; keep one of them", given[0].written, further.written);
        notes.add(further.spot, message);
    }
    if let Some(install) = keys.found("install")
        && (keys.has("container") || keys.has("dockerfile"))
    {
        notes.add(install.spot, "`install` needs a buildpack; with a ready image or a Dockerfile it has no effect");
    }
    let by_repository = || match around.own {
        Source::Dockerfile(_) if keys.has("install") => Source::Pack(None),
        own => own.clone(),
    };
    // Stands in for what was not understood: nothing further is to be said about it.
    let unknown = || Source::Image(String::new());
    if let Some(key) = keys.found("container") {
        let source = container(name, key, around, notes).unwrap_or_else(unknown);
        let reference = matches!(source, Source::Node(_)).then_some(key.value.spot);
        (source, reference)
    } else if let Some(key) = keys.found("dockerfile") {
        (dockerfile(key, around, notes).unwrap_or_else(unknown), None)
    } else if let Some(key) = keys.found("buildpack") {
        (buildpack(key, around, notes).unwrap_or_else(unknown), None)
    } else {
        if kind == Kind::Service && !keys.has("run") {
            notes.add(spot, format!("the service `{name}` needs a `container`, the image it runs"));
            return (unknown(), None);
        }
        (by_repository(), None)
    }
}

/// Another node of this file by its name, alone or after `stack/`; any other text is an image.
fn container(name: &NodeName, key: Found<'_>, around: &Around<'_>, notes: &mut Notes<'_>) -> Option<Source> {
    let (spot, text) = values::word(key, notes)?;
    if text != name.as_str()
        && let Some(node) = around.nodes.iter().find(|node| node.as_str() == text)
    {
        return Some(Source::Node(node.clone()));
    }
    if let Some(node) = text.strip_prefix("stack/") {
        let known = around.nodes.iter().find(|known| known.as_str() == node && *known != name);
        if known.is_none() {
            let others = around.nodes.iter().filter(|known| *known != name).map(NodeName::as_str);
            let message = format!("{} names no other node of this file", shown(text));
            notes.suggest(spot, message, nearest(node, others).map(|near| format!("stack/{near}")));
        }
        return known.cloned().map(Source::Node);
    }
    if is_id(text) {
        let message = format!("{} is the id of an image; images are found by name, such as `debian:12`", shown(text));
        notes.add(spot, message);
        return None;
    }
    if is_image(text) {
        return Some(Source::Image(text.to_owned()));
    }
    let near = nearest(text, around.nodes.iter().map(NodeName::as_str));
    notes.suggest(spot, format!("{} is neither an image nor a node of this file", shown(text)), near);
    None
}

/// The grammar of docker's references, without its finer points: `[server[:port]/]path[:tag][@digest]`.
fn is_image(text: &str) -> bool {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (rest, None),
    };
    let word = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let (server, inner) = match path.split_once('/') {
        Some((server, inner)) if server.contains(['.', ':']) || server == "localhost" => (Some(server), inner),
        Some(_) | None => (None, path),
    };
    text.len() <= 255
        && server.is_none_or(|server| word(server, ".-:"))
        && inner.split('/').all(|part| word(part, "._-") && !part.contains(|c: char| c.is_ascii_uppercase()))
        && tag.is_none_or(|tag| word(tag, "._-") && tag.len() <= 128)
        && digest.is_none_or(|digest| digest.starts_with("sha256:") && word(digest, ":"))
}

/// Text with a line break, or that starts like a Dockerfile, is one; anything else is a path to one.
fn dockerfile(key: Found<'_>, around: &Around<'_>, notes: &mut Notes<'_>) -> Option<Source> {
    let (_, text) = values::word(key, notes)?;
    let starts = |word: &str| text.trim_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if text.trim_end().contains('\n') || starts("FROM ") {
        if !text.lines().any(|line| line.trim_start().get(..5).is_some_and(|from| from.eq_ignore_ascii_case("FROM "))) {
            notes.add(key.value.spot, format!("the text of `{}` has no FROM line", key.written));
        }
        return Some(Source::Inline(text.to_owned()));
    }
    let (spot, path) = values::inner_path(key, notes)?;
    let repository = around.repository;
    if repository.has(path.as_str()) || repository.cut {
        return Some(Source::Dockerfile(path.to_string()));
    }
    let near = nearest(path.as_str(), repository.paths.iter().map(String::as_str));
    notes.suggest(spot, format!("there is no file {} in the repository", shown(path.as_str())), near);
    None
}

/// A pack by its name, or buildpacks of Heroku's API.
fn buildpack(key: Found<'_>, around: &Around<'_>, notes: &mut Notes<'_>) -> Option<Source> {
    let words = values::words(key, notes);
    let names: Vec<&str> = words.iter().map(|(_, text)| *text).collect();
    if names.is_empty() {
        return None;
    }
    let spot =
        words.iter().find(|(_, text)| foreign::source(&[text], around.repository).is_err()).map(|(spot, _)| *spot);
    let wrong = |unknown: foreign::Unknown| {
        notes.suggest(spot.unwrap_or(key.value.spot), unknown.message, unknown.suggestion);
    };
    foreign::source(&names, around.repository).map_err(wrong).ok()
}

/// What runs, and with what.
fn running(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    if let Some(key) = keys.found("install") {
        node.install = values::words(key, notes).into_iter().map(values::owned).collect();
    }
    node.command = keys.found("run").and_then(|key| values::command(key, notes));
    if let Some(key) = keys.found("args") {
        node.args = values::arguments(key, notes);
    }
    // A shell takes words after its text as $0 and $1 and drops them, so they become part of the text.
    if let Some(Command::Shell(text)) = &mut node.command {
        for word in node.args.drain(..) {
            text.push_str(&format!(" '{}'", word.replace('\'', r"'\''")));
        }
    }
    node.cwd = keys.found("cwd").and_then(|key| {
        let word = values::word(key, notes)?;
        values::container_path(key.written, word, notes).map(String::from)
    });
    if let Some(key) = keys.found("env") {
        node.env = settings::env(key, notes);
    }
}

/// Ports, domains and the folder that is served.
fn ports(draft: &mut Draft, keys: &Keys<'_>, around: &Around<'_>, notes: &mut Notes<'_>) {
    let node = &mut draft.node;
    if let Some(key) = keys.found("expose") {
        for word in values::words(key, notes) {
            match values::port(key.written, word, notes) {
                Some(port) if node.expose.contains(&port) => {
                    notes.add(word.0, format!("the port {port} is already there"));
                }
                Some(port) => node.expose.push(port),
                None => {}
            }
        }
    }
    if let Some(key) = keys.found("domains") {
        for (spot, text) in values::words(key, notes) {
            match text.to_lowercase().parse::<Domain>() {
                Ok(domain) => {
                    node.domains.push(domain);
                    draft.domains.push(spot);
                }
                Err(error) => notes.suggest(spot, error.to_string(), bare_domain(text)),
            }
        }
    }
    match keys.found("document_root") {
        Some(key) => node.document_root = document_root(key, around, notes),
        None if node.kind == Kind::Static => {
            notes.add(draft.spot, "a node of type `static` needs `document_root`, the folder to serve");
        }
        None => {}
    }
}

/// The domain within a URL, when that is what was written.
fn bare_domain(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let domain = rest.split(['/', ':']).next()?.trim_end_matches('.');
    domain.parse::<Domain>().ok().map(String::from)
}

fn document_root(key: Found<'_>, around: &Around<'_>, notes: &mut Notes<'_>) -> Option<InnerPath> {
    let (spot, folder) = values::inner_path(key, notes)?;
    let repository = around.repository;
    if !repository.has_folder(folder.as_str()) && !repository.cut {
        let folders: BTreeSet<&str> =
            repository.paths.iter().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder).collect();
        let near = nearest(folder.as_str(), folders);
        notes.suggest(spot, format!("there is no folder {} in the repository", shown(folder.as_str())), near);
        return None;
    }
    Some(folder)
}

/// How many, how large.
fn capacity(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    if let Some(key) = keys.found("scale") {
        match &key.value.shape {
            Shape::Map(_) => {
                notes.add(key.spot, "`scale` with bounds and policies is not supported yet; write a number")
            }
            Shape::Nothing | Shape::Text(_) | Shape::List(_) => node.scale = values::number(key, 0, 100, notes),
        }
        if node.kind == Kind::Service && node.scale.is_some_and(|scale| scale != 1) {
            notes.add(key.value.spot, "a service runs exactly once; take `scale` out");
        }
    }
    if let Some(key) = keys.found("size") {
        node.size = values::parsed(key, notes);
        if node.size.is_some_and(|size| size < SMALLEST) {
            notes.add(key.value.spot, format!("`{}` is at least {SMALLEST}", key.written));
        }
    }
    node.cpus = keys.found("cpus").and_then(|key| values::parsed(key, notes));
    if let Some(key) = keys.found("filter") {
        let words = values::words(key, notes).into_iter().flat_map(|(_, text)| text.split([',', ' ']));
        match Filter::new(words.filter(|word| !word.is_empty())) {
            Ok(filter) => node.filter = filter,
            Err(error) => notes.add(key.spot, format!("`{}`: {error}", key.written)),
        }
    }
    // What keeps data is fixed, whatever is written.
    node.fixed = keys.found("fixed").and_then(|key| values::flag(key, notes)).unwrap_or(false);
    node.is_static = keys.found("static").and_then(|key| values::flag(key, notes)).unwrap_or(false);
    if let Some(key) = keys.found("volumes") {
        node.volumes = settings::volumes(key, notes);
    }
    if !node.volumes.is_empty() && node.kind != Kind::Service {
        node.overlap = Overlap::StopFirst;
    }
}

/// Links to other nodes of the file, and to those of other stacks.
fn references(draft: &mut Draft, name: &NodeName, keys: &Keys<'_>, around: &Around<'_>, notes: &mut Notes<'_>) {
    let Some(key) = keys.found("link") else { return };
    for (spot, text) in values::words(key, notes) {
        if text.contains('/') {
            match text.parse::<StackNode>() {
                Ok(node) if draft.node.outside.contains(&node) => {}
                Ok(node) => draft.node.outside.push(node),
                Err(wrong) => notes.add(spot, wrong.to_string()),
            }
        } else if text == name.as_str() {
            notes.add(spot, format!("`{name}` links to itself"));
        } else if let Some(node) = around.nodes.iter().find(|node| node.as_str() == text) {
            if !draft.node.link.contains(node) {
                draft.node.link.push(node.clone());
                draft.links.push(spot);
            }
        } else {
            let near = nearest(text, around.nodes.iter().map(NodeName::as_str).filter(|node| *node != name.as_str()));
            notes.suggest(
                spot,
                format!("`{}` names {}, which is not a node of this file", key.written, shown(text)),
                near,
            );
        }
    }
}

/// A kind in a sentence.
pub(super) fn described(kind: Kind) -> String {
    format!("a node of type `{}`", name_of(kind))
}
