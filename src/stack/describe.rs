//! Which description of a stack a repository holds: quarry.yml, else a Procfile, else a Dockerfile, else a detection.

use crate::buildpacks::{self, PackRequest, Repository};
use crate::names::NodeName;

use super::mistakes::{Mistake, Mistakes};
use super::{Kind, Node, Source, Stack};

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
    if repository.has("Dockerfile") {
        return Ok(Described { stack: only(web_by_dockerfile(repository)), said: vec!["Dockerfile".to_owned()] });
    }
    match buildpacks::detect(repository) {
        Some(pack) => detected(pack, repository),
        None => Err(nothing_deployable().into()),
    }
}

fn nothing_deployable() -> Mistake {
    Mistake::of_repository(
        "nothing deployable in the repository: add a quarry.yml, a Procfile, a Dockerfile, or one of the files that \
         buildpacks go by (requirements.txt, pyproject.toml, package.json, index.html)",
    )
}

/// The name of the node that a repository without quarry.yml and Procfile becomes.
fn web() -> NodeName {
    "web".parse().expect("`web` is a node name")
}

fn only(node: Node) -> Stack {
    Stack { nodes: [(web(), node)].into() }
}

fn web_by_dockerfile(repository: &Repository) -> Node {
    let mut node = Node::new(Kind::Web, Source::Dockerfile("Dockerfile".to_owned()));
    node.expose = repository.text("Dockerfile").map(buildpacks::dockerfile_ports).unwrap_or_default();
    node
}

fn detected(pack: &'static buildpacks::Pack, repository: &Repository) -> Result<Described, Mistakes> {
    let by = pack.recognises(repository).unwrap_or_default();
    let rendered = buildpacks::render(pack, repository, &PackRequest::default())
        .map_err(|error| Mistake::of_repository(error.to_string()))?;
    let mut said = vec![format!("Detected {} ({by})", pack.name)];
    said.extend(rendered.said);
    Ok(Described { stack: only(Node::new(Kind::Web, Source::Pack(Some(pack.name.to_owned())))), said })
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
    }

    #[test]
    fn the_ports_of_a_dockerfile_are_exposed() {
        let described = describe(&Repository::of([("Dockerfile", "FROM a\nEXPOSE 8080")])).unwrap();
        assert_eq!(described.stack.nodes[&web()].expose, [8080]);
    }
}
