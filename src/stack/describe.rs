//! Which description of a stack a repository holds: quarry.yml, else a Procfile, else a Dockerfile, else a detection;
//! and what other files of it add to that.

use crate::buildpacks::{self, Repository};
use crate::env::Env;
use crate::names::NodeName;
use crate::names::printable::excerpt;
use crate::units::port::Port;

use super::extras::Extras;
use super::mistakes::{Mistake, Mistakes, clean};
use super::packs::{self, maker, unbuildable};
use super::wishes::Wish;
use super::{Command, Kind, Node, Source, Stack, procfile, yaml};

/// A stack, and what else its repository says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The checked stack; at least one node.
    pub stack: Stack,
    /// What was chosen and why, one thought a line.
    pub said: Vec<String>,
    /// Variables that the stack should have.
    pub wishes: Vec<Wish>,
    /// What runs once a release is live.
    pub after: After,
    /// Variables of its builds.
    pub build_env: Env,
}

/// Commands that run once a release is live, in a container of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After {
    /// After the stack's first release.
    pub first: Option<Command>,
    /// After each.
    pub each: Option<Command>,
}

/// Finds out what a repository deploys as.
///
/// # Errors
/// Every mistake of its description, or that there is none.
pub fn describe(repository: &Repository) -> Result<Described, Mistakes> {
    let (extras, stack) = match (Extras::read(repository), stack(repository)) {
        (Ok(extras), Ok(stack)) => (extras, stack),
        (Err(mut mistakes), Err(more)) => {
            mistakes.0.extend(more.0);
            return Err(Mistakes::sorted(mistakes.0));
        }
        (Err(mistakes), Ok(_)) | (Ok(_), Err(mistakes)) => return Err(mistakes),
    };
    let (mut stack, mut said) = stack;
    let more = extras.apply(&mut stack);
    said.extend(more);
    said.extend(packs::said(&stack, repository));
    let stack = with_ports(stack, repository, &mut said);
    said.extend(hints(repository));
    let Extras { app, project, .. } = extras;
    Ok(Described {
        stack: packs::with_profile(stack),
        said: said.iter().map(|line| clean(line)).collect(),
        wishes: app.wishes,
        after: After { first: app.postdeploy_first, each: app.postdeploy },
        build_env: project.env,
    })
}

/// The stack by itself, and the lines that tell where it was found.
fn stack(repository: &Repository) -> Result<(Stack, Vec<String>), Mistakes> {
    match written(repository)? {
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
            Ok((stack, vec![said]))
        }
        Some((file, text)) => {
            let stack = yaml::parse(file, text, repository)?;
            let said = nodes_of(file, &stack);
            Ok((stack, vec![said]))
        }
        None => undescribed(repository),
    }
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
        Source::Pack(None) if buildpacks::detect(repository).is_none() => {
            return Err(nothing_deployable(repository).into());
        }
        _ => Vec::new(),
    };
    let web: NodeName = "web".parse().expect("`web` is a node name");
    let stack = Stack { nodes: [(web, Node::new(Kind::Web, source))].into() };
    if let Some((_, message)) = unbuildable(&stack, repository).into_iter().next() {
        return Err(Mistake::of_repository(message).into());
    }
    Ok((stack, said))
}

fn nothing_deployable(repository: &Repository) -> Mistake {
    let below: Vec<&str> = repository
        .paths
        .iter()
        .filter_map(|path| path.rsplit_once('/'))
        .filter(|(_, file)| ["quarry.yml", "Procfile", "Dockerfile"].contains(file))
        .map(|(folder, _)| folder)
        .collect();
    let elsewhere = match below.first() {
        Some(folder) => format!("; there is one in `{folder}`: env set STACK QUARRY_BUILD_DIR={folder}"),
        None => String::new(),
    };
    Mistake::of_repository(format!(
        "nothing deployable in the repository: add a quarry.yml, a Procfile, a Dockerfile, or one of the files that \
         buildpacks go by ({}){elsewhere}",
        buildpacks::GO_BY.join(", ")
    ))
}

/// How a node is built that says nothing about it: by the buildpacks that are named for the repository as a whole, by
/// its Dockerfile, or by detection.
pub(super) fn own_source(repository: &Repository) -> Source {
    let named = Extras::read(repository).ok().and_then(|extras| extras.buildpacks);
    named.unwrap_or_else(|| match repository.has("Dockerfile") {
        true => Source::Dockerfile("Dockerfile".to_owned()),
        false => Source::Pack(None),
    })
}

/// Routed nodes and services that name no ports have those of the Dockerfile they come from.
fn with_ports(mut stack: Stack, repository: &Repository, said: &mut Vec<String>) -> Stack {
    let found: Vec<(NodeName, Vec<u16>)> = stack
        .nodes
        .iter()
        .filter(|(_, node)| matches!(node.kind, Kind::Web | Kind::Service) && node.expose.is_empty())
        .filter_map(|(name, node)| Some((name.clone(), dockerfile(&maker(&stack, node)?.source, repository)?)))
        .map(|(name, text)| (name, buildpacks::dockerfile_ports(text)))
        .collect();
    for (name, ports) in found {
        let Some(node) = stack.nodes.get_mut(&name) else { continue };
        if let (Kind::Web, [first, more @ ..]) = (node.kind, &ports[..])
            && !more.is_empty()
        {
            let more: Vec<String> = more.iter().map(u16::to_string).collect();
            said.push(format!(
                "{name} is routed at the first port it exposes, {first}, and not at {}",
                more.join(", ")
            ));
        }
        node.expose = ports.into_iter().map(Port::tcp).collect();
    }
    stack
}

/// The Dockerfile's text, as far as it is known before the build.
fn dockerfile<'a>(source: &'a Source, repository: &'a Repository) -> Option<&'a str> {
    match source {
        Source::Inline(text) => Some(text),
        Source::Dockerfile(path) => repository.text(path),
        Source::Image(_) | Source::Node(_) | Source::Pack(_) | Source::Buildpacks(_) | Source::Nothing => None,
    }
}

fn nodes_of(file: &str, stack: &Stack) -> String {
    let names: Vec<&str> = stack.nodes.keys().map(NodeName::as_str).collect();
    format!("{file}: {}", names.join(", "))
}

/// What people who come from elsewhere stumble over.
fn hints(repository: &Repository) -> Vec<String> {
    let mut hints = Vec::new();
    if repository.has(".env") {
        hints.push(".env sets no variables of the stack; to take its values: env import STACK < .env".to_owned());
    }
    if let Some(first) = repository.pointers.iter().next() {
        let shown = excerpt(first, 80);
        let (count, files) = match repository.pointers.len() {
            1 => (String::new(), "is a pointer of Git LFS, not the file"),
            more => (format!(" and {} others", more - 1), "are pointers of Git LFS, not the files"),
        };
        hints.push(format!(
            "Warning: `{shown}`{count} {files} themselves, which a push does not bring; put them into git: \
             git lfs migrate export --everything --include='*'"
        ));
    }
    hints
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
        assert_eq!(ports, [vec![Port::tcp(8080)], vec![]]);
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

    #[test]
    fn what_people_from_elsewhere_stumble_over_is_said() {
        check(
            &[("index.html", ""), (".env", "A=b")],
            Ok(&[
                "Detected static (index.html)",
                ".env sets no variables of the stack; to take its values: env import STACK < .env",
            ]),
        );
        check(
            &[("README", ""), ("apps/web/Procfile", "")],
            Err(
                "nothing deployable in the repository: add a quarry.yml, a Procfile, a Dockerfile, or one of the files that \
                 buildpacks go by (requirements.txt",
            ),
        );
        let mut repository = Repository::of([("index.html", "")]);
        repository.pointers = ["a.png", "b.png"].map(str::to_owned).into();
        let said = describe(&repository).unwrap().said.join("\n");
        assert!(
            said.contains("Warning: `a.png` and 1 others are pointers of Git LFS, not the files themselves"),
            "{said}"
        );
    }

    #[test]
    fn a_repository_of_workers_alone_runs_them_and_routes_nothing() {
        let stack =
            describe(&Repository::of([("Procfile", "bot: ./bot\nclock: ./clock"), ("Dockerfile", "FROM a")])).unwrap();
        let nodes: Vec<_> = stack.stack.nodes.values().map(|node| (node.kind, node.first)).collect();
        assert_eq!(nodes, [(Kind::Worker, 1), (Kind::Worker, 1)]);
    }
}
