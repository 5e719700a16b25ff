//! Which description of a stack a repository holds: quarry.yml, else a Procfile, else a Dockerfile, else a detection.

use crate::buildpacks::{self, Pack, PackError, PackRequest, Rendered, Repository};
use crate::names::NodeName;

use super::mistakes::{Mistake, Mistakes};
use super::{Kind, Node, Source, Stack, procfile, yaml};

/// A stack, and the lines that tell the pusher what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The checked stack; at least one node.
    pub stack: Stack,
    /// What was chosen and why, one thought a line.
    pub said: Vec<String>,
}

/// Finds out what a repository deploys as.
///
/// # Errors
/// Every mistake of its description, or that there is none.
pub fn describe(repository: &Repository) -> Result<Described, Mistakes> {
    let (stack, mut said) = match written(repository)? {
        Some((file, text)) if file == "Procfile" => {
            let stack = procfile::parse(file, text, &own_source(repository))?;
            let lacking = unbuildable(&stack, repository).into_iter().next();
            if let Some((_, message)) = lacking {
                // A file that cannot be used is no mistake of the Procfile.
                let named = |path: &String| message.starts_with(&format!("`{path}` "));
                let other = repository.unreadable.keys().any(named);
                let mistake = if other { Mistake::of_repository(message) } else { Mistake::of_file(file, message) };
                return Err(mistake.into());
            }
            let said = nodes_of(file, &stack);
            (stack, vec![said])
        }
        Some((file, text)) => {
            let stack = yaml::parse(file, text, repository)?;
            let said = nodes_of(file, &stack);
            (stack, vec![said])
        }
        None => undescribed(repository)?,
    };
    said.extend(said_by_packs(&stack, repository));
    Ok(Described { stack: with_ports(stack, repository), said })
}

/// The file that describes the stack, and its text.
fn written(repository: &Repository) -> Result<Option<(&'static str, &str)>, Mistakes> {
    if repository.has("quarry.yml") && repository.has("quarry.yaml") {
        return Err(Mistake::of_repository("there is both a quarry.yml and a quarry.yaml; keep one of them").into());
    }
    let Some(file) = ["quarry.yml", "quarry.yaml", "Procfile"].into_iter().find(|file| repository.has(file)) else {
        return Ok(None);
    };
    match (repository.text(file), repository.unreadable.get(file)) {
        (_, Some(reason)) => Err(Mistake::of_file(file, format!("the file {reason}")).into()),
        (text, None) => Ok(Some((file, text.unwrap_or_default()))),
    }
}

/// A repository without quarry.yml and Procfile is one web node.
fn undescribed(repository: &Repository) -> Result<(Stack, Vec<String>), Mistakes> {
    let source = own_source(repository);
    let said = match &source {
        Source::Dockerfile(path) => vec![path.clone()],
        _ if buildpacks::detect(repository).is_none() => return Err(nothing_deployable().into()),
        _ => Vec::new(),
    };
    let web: NodeName = "web".parse().expect("`web` is a node name");
    let stack = Stack { nodes: [(web, Node::new(Kind::Web, source))].into() };
    if let Some((_, message)) = unbuildable(&stack, repository).into_iter().next() {
        return Err(Mistake::of_repository(message).into());
    }
    Ok((stack, said))
}

fn nothing_deployable() -> Mistake {
    Mistake::of_repository(
        "nothing deployable in the repository: add a quarry.yml, a Procfile, a Dockerfile, or one of the files that \
         buildpacks go by (requirements.txt, pyproject.toml, package.json, index.html)",
    )
}

/// How a node is built that says nothing about it.
fn own_source(repository: &Repository) -> Source {
    match repository.has("Dockerfile") {
        true => Source::Dockerfile("Dockerfile".to_owned()),
        false => Source::Pack(None),
    }
}

/// Routed nodes and services that name no ports have those of the Dockerfile they come from.
fn with_ports(mut stack: Stack, repository: &Repository) -> Stack {
    let ports: Vec<(NodeName, Vec<u16>)> = stack
        .nodes
        .iter()
        .filter(|(_, node)| matches!(node.kind, Kind::Web | Kind::Service) && node.expose.is_empty())
        .filter_map(|(name, node)| Some((name.clone(), dockerfile(&maker(&stack, node)?.source, repository)?)))
        .map(|(name, text)| (name, buildpacks::dockerfile_ports(text)))
        .collect();
    for (name, ports) in ports {
        if let Some(node) = stack.nodes.get_mut(&name) {
            node.expose = ports;
        }
    }
    stack
}

/// The Dockerfile's text, as far as it is known before the build.
fn dockerfile<'a>(source: &'a Source, repository: &'a Repository) -> Option<&'a str> {
    match source {
        Source::Inline(text) => Some(text),
        Source::Dockerfile(path) => repository.text(path),
        Source::Image(_) | Source::Node(_) | Source::Pack(_) | Source::Nothing => None,
    }
}

fn nodes_of(file: &str, stack: &Stack) -> String {
    let names: Vec<&str> = stack.nodes.keys().map(NodeName::as_str).collect();
    format!("{file}: {}", names.join(", "))
}

/// The pack that builds a node, by name or by detection; `None` where no pack is used or none fits.
fn pack_of(source: &Source, repository: &Repository) -> Option<&'static Pack> {
    match source {
        Source::Pack(Some(name)) => buildpacks::by_name(name),
        Source::Pack(None) => buildpacks::detect(repository),
        Source::Image(_) | Source::Node(_) | Source::Inline(_) | Source::Dockerfile(_) | Source::Nothing => None,
    }
}

fn rendered(pack: &'static Pack, node: &Node, repository: &Repository) -> Result<Rendered, PackError> {
    buildpacks::render(pack, repository, &PackRequest { install: &node.install, ..PackRequest::default() })
}

/// What each pack has to say, each line once.
fn said_by_packs(stack: &Stack, repository: &Repository) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for node in stack.nodes.values() {
        let Some(pack) = pack_of(&node.source, repository) else { continue };
        let mut lines = match (&node.source, pack.recognises(repository)) {
            (Source::Pack(None), Some(by)) => vec![format!("Detected {} ({by})", pack.name)],
            _ => vec![format!("Buildpack {}", pack.name)],
        };
        lines.extend(rendered(pack, node, repository).map(|rendered| rendered.said).unwrap_or_default());
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
fn maker<'s>(stack: &'s Stack, node: &'s Node) -> Option<&'s Node> {
    let mut maker = node;
    for _ in 0..=stack.nodes.len() {
        match &maker.source {
            Source::Node(name) => maker = stack.nodes.get(name)?,
            Source::Image(_) | Source::Inline(_) | Source::Dockerfile(_) | Source::Pack(_) | Source::Nothing => {
                return Some(maker);
            }
        }
    }
    None
}

fn no_image(name: &NodeName) -> String {
    format!(
        "`{name}` has no image: the repository has no Dockerfile and no buildpack knows it, so name a `container`, a \
         `dockerfile` or a `buildpack`"
    )
}

fn no_command(pack: &Pack) -> String {
    format!(
        "the {} buildpack finds no command to start: add a Procfile with a line such as `web: {}`, or `run` in quarry.yml",
        pack.name, pack.example
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Result<&[&str], &str>) {
        let described = describe(&Repository::of(files.iter().copied()));
        match (described, expected) {
            (Ok(described), Ok(said)) => assert_eq!(described.said, said),
            (Err(mistakes), Err(start)) => assert!(mistakes.to_string().starts_with(start), "{mistakes}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_repository_is_told_what_it_was_taken_for() {
        check(&[("index.html", "")], Ok(&["Detected static (index.html)"]));
        check(&[("Dockerfile", "FROM a"), ("index.html", "")], Ok(&["Dockerfile"]));
        check(&[("README", "")], Err("nothing deployable in the repository: add a quarry.yml"));
        check(&[("Procfile", "web: x\nb: y"), ("Dockerfile", "FROM a")], Ok(&["Procfile: b, web"]));
        check(
            &[("Procfile", "web: x"), ("requirements.txt", "")],
            Ok(&["Procfile: web", "Detected python (requirements.txt)"]),
        );
        check(&[("quarry.yml", "web: {container: nginx}"), ("Procfile", "web: x")], Ok(&["quarry.yml: web"]));
        check(&[("quarry.yml", ""), ("quarry.yaml", "")], Err("there is both"));
        check(&[("Procfile", "web: x")], Err("Procfile: `web` has no image"));
    }

    #[test]
    fn the_ports_of_a_dockerfile_are_those_of_web_alone() {
        let files = [("Dockerfile", "FROM a\nEXPOSE 8080"), ("Procfile", "web: x\nworker: y")];
        let stack = describe(&Repository::of(files)).unwrap().stack;
        let ports: Vec<_> = stack.nodes.values().map(|node| node.expose.clone()).collect();
        assert_eq!(ports, [vec![8080], vec![]]);
    }

    #[test]
    fn a_description_that_cannot_be_read_is_a_mistake_and_not_passed_over() {
        let mut repository = Repository::of([("Procfile", "web: x"), ("index.html", "")]);
        repository.paths.insert("quarry.yml".into());
        repository.unreadable.insert("quarry.yml".into(), buildpacks::Unreadable::NotAFile);
        assert_eq!(describe(&repository).unwrap_err().to_string(), "quarry.yml: the file is not a regular file");
        let mut repository = Repository::of([("Procfile", "web: x")]);
        repository.paths.insert("requirements.txt".into());
        repository.unreadable.insert("requirements.txt".into(), buildpacks::Unreadable::Outside);
        let told = describe(&repository).unwrap_err().to_string();
        assert_eq!(told, "`requirements.txt` is a link that leads out of the repository");
    }
}
