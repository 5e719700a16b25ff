//! Which image each node runs, and what has to be built for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::BuildSettings;
use crate::buildpacks::{self, PackError, PackRequest, Rendered, Repository, Unreadable};
use crate::names::{EnvName, NodeName};
use crate::stack::{Node, Source, Stack};

/// Where a node's image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlan {
    /// It exists under this reference, here or at a registry.
    Ready(String),
    /// It is built.
    Build(Recipe),
    /// It is that of another node, whose own plan is not `SameAs`.
    SameAs(NodeName),
}

/// How to build an image from the checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// By a buildpack's Dockerfile.
    Pack {
        /// The pack's name.
        name: String,
        /// Its answer.
        rendered: Rendered,
    },
    /// By Dockerfile text from quarry.yml.
    Inline(String),
    /// By a Dockerfile of the repository.
    Path(String),
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipe::Pack { name, .. } if name.contains([',', '/']) => write!(f, "the buildpacks {name}"),
            Recipe::Pack { name, .. } => write!(f, "the {name} buildpack"),
            Recipe::Inline(_) => f.write_str("the Dockerfile in quarry.yml"),
            Recipe::Path(path) => write!(f, "{path}"),
        }
    }
}

/// Every node whose image cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(pub Vec<(NodeName, NoImage)>);

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (node, why)) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(f, "{line}node `{node}`: {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// Why a node has no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoImage {
    /// It runs the image of a node that is not there or has none.
    #[error("there is no node `{0}` with an image")]
    NoNode(NodeName),
    /// Nodes that run each other's image.
    #[error("it runs the image of `{0}`, which in the end is its own")]
    Circle(NodeName),
    /// Its Dockerfile is not in the repository.
    #[error("the repository has no file `{0}`; is it committed?")]
    NoDockerfile(String),
    /// Its Dockerfile is no text.
    #[error("`{0}` {1}")]
    Unreadable(String, Unreadable),
    /// No pack of that name.
    #[error("there is no buildpack `{given}`; there are {known}")]
    NoPack {
        /// What quarry.yml says.
        given: String,
        /// What it could say.
        known: String,
    },
    /// No pack recognises the repository.
    #[error("no buildpack recognises the repository; add a Dockerfile, or say `container:`")]
    NotRecognised,
    /// The pack refuses.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Plans the image of every node that has one. Nodes with the same recipe share one build, the first by name.
///
/// # Errors
/// Every node whose image cannot be planned.
pub fn plan(
    stack: &Stack,
    repository: &Repository,
    settings: &BuildSettings,
) -> Result<BTreeMap<NodeName, ImagePlan>, PlanError> {
    let build_env: Vec<EnvName> = settings.env.iter().map(|(name, _)| name.clone()).collect();
    let mut plans: BTreeMap<NodeName, ImagePlan> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, node) in &stack.nodes {
        let request = PackRequest { install: &node.install, ca: settings.ca.is_some(), build_env: &build_env };
        match recipe(name, node, stack, repository, &request) {
            Ok(Some(ImagePlan::Build(recipe))) => {
                let twin = plans.iter().find(|(_, plan)| matches!(plan, ImagePlan::Build(held) if *held == recipe));
                let plan = match twin {
                    Some((first, _)) => ImagePlan::SameAs(first.clone()),
                    None => ImagePlan::Build(recipe),
                };
                plans.insert(name.clone(), plan);
            }
            Ok(Some(plan)) => drop(plans.insert(name.clone(), plan)),
            Ok(None) => {}
            Err(mistake) => mistakes.push((name.clone(), mistake)),
        }
    }
    let followed: Vec<_> = plans.keys().map(|name| (name.clone(), follow(name, &plans))).collect();
    for (name, end) in followed {
        // A node whose image rests on one that is already a mistake is not one more.
        let known = |target: &NodeName| mistakes.iter().any(|(node, _)| node == target);
        match end {
            Ok(end) if end != name => drop(plans.insert(name, ImagePlan::SameAs(end))),
            Ok(_) => {}
            Err(NoImage::NoNode(target)) if known(&target) => {}
            Err(mistake) => mistakes.push((name, mistake)),
        }
    }
    mistakes.sort_by(|a, b| a.0.cmp(&b.0));
    if mistakes.is_empty() { Ok(plans) } else { Err(PlanError(mistakes)) }
}

/// The node at the end of a chain of `SameAs`.
fn follow(name: &NodeName, plans: &BTreeMap<NodeName, ImagePlan>) -> Result<NodeName, NoImage> {
    let mut seen = BTreeSet::new();
    let mut at = name;
    loop {
        match plans.get(at) {
            Some(ImagePlan::SameAs(next)) if seen.insert(at) => at = next,
            Some(ImagePlan::SameAs(next)) => return Err(NoImage::Circle(next.clone())),
            Some(ImagePlan::Ready(_) | ImagePlan::Build(_)) => return Ok(at.clone()),
            None => return Err(NoImage::NoNode(at.clone())),
        }
    }
}

fn recipe(
    name: &NodeName,
    node: &Node,
    stack: &Stack,
    repository: &Repository,
    request: &PackRequest<'_>,
) -> Result<Option<ImagePlan>, NoImage> {
    Ok(Some(match &node.source {
        Source::Nothing => return Ok(None),
        Source::Image(reference) => ImagePlan::Ready(reference.clone()),
        Source::Node(target) if target == name => return Err(NoImage::Circle(target.clone())),
        Source::Node(target) if stack.nodes.contains_key(target) => ImagePlan::SameAs(target.clone()),
        Source::Node(target) => return Err(NoImage::NoNode(target.clone())),
        Source::Inline(text) => ImagePlan::Build(Recipe::Inline(text.clone())),
        Source::Dockerfile(path) => ImagePlan::Build(by_path(path, repository)?),
        Source::Pack(pack) => ImagePlan::Build(packed(pack.as_deref(), repository, request)?),
        Source::Buildpacks(names) => {
            let rendered = buildpacks::heroku(names, repository, request)?;
            ImagePlan::Build(Recipe::Pack { name: names.join(", "), rendered })
        }
    }))
}

fn by_path(path: &str, repository: &Repository) -> Result<Recipe, NoImage> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if !repository.has(path) && !repository.cut {
        return Err(NoImage::NoDockerfile(path.to_owned()));
    }
    match repository.unreadable.get(path) {
        None => Ok(Recipe::Path(path.to_owned())),
        Some(reason) => Err(NoImage::Unreadable(path.to_owned(), *reason)),
    }
}

fn packed(pack: Option<&str>, repository: &Repository, request: &PackRequest<'_>) -> Result<Recipe, NoImage> {
    let pack = match pack {
        Some(name) => buildpacks::by_name(name, repository).ok_or_else(|| NoImage::NoPack {
            given: name.to_owned(),
            known: buildpacks::names(repository).collect::<Vec<_>>().join(", "),
        })?,
        None => buildpacks::detect(repository).ok_or(NoImage::NotRecognised)?,
    };
    Ok(Recipe::Pack { name: pack.name.to_owned(), rendered: buildpacks::render(pack, repository, request)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Kind;

    fn stack(nodes: &[(&str, Source)]) -> Stack {
        let node = |(name, source): &(&str, Source)| (name.parse().unwrap(), Node::new(Kind::Worker, source.clone()));
        Stack { nodes: nodes.iter().map(node).collect() }
    }

    fn check(nodes: &[(&str, Source)], files: &[(&str, &str)]) -> Result<BTreeMap<NodeName, ImagePlan>, String> {
        let repository = Repository::of(files.iter().copied());
        plan(&stack(nodes), &repository, &BuildSettings::default()).map_err(|error| error.to_string())
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn nodes_with_the_same_recipe_build_once() {
        let path = || Source::Dockerfile("Dockerfile".to_owned());
        let files = [("Dockerfile", "FROM a")];
        let plans = check(&[("a", path()), ("b", path()), ("c", Source::Inline("FROM b".to_owned()))], &files).unwrap();
        assert_eq!(plans[&name("a")], ImagePlan::Build(Recipe::Path("Dockerfile".to_owned())));
        assert_eq!(plans[&name("b")], ImagePlan::SameAs(name("a")));
        assert!(matches!(&plans[&name("c")], ImagePlan::Build(Recipe::Inline(_))));
        let mut different = stack(&[("a", Source::Pack(None)), ("b", Source::Pack(None))]);
        let repository = Repository::of([("index.html", "x")]);
        let plans = plan(&different, &repository, &BuildSettings::default()).unwrap();
        assert_eq!(plans[&name("b")], ImagePlan::SameAs(name("a")));
        different.nodes.remove(&name("a"));
        assert!(matches!(
            plan(&different, &repository, &BuildSettings::default()).unwrap()[&name("b")],
            ImagePlan::Build(_)
        ));
    }

    #[test]
    fn an_image_may_be_borrowed_over_several_nodes() {
        let nodes = [
            ("a", Source::Node(name("b"))),
            ("b", Source::Node(name("c"))),
            ("c", Source::Image("redis:7".to_owned())),
            ("d", Source::Nothing),
        ];
        let plans = check(&nodes, &[]).unwrap();
        assert_eq!(plans[&name("a")], ImagePlan::SameAs(name("c")));
        assert_eq!(plans[&name("b")], ImagePlan::SameAs(name("c")));
        assert_eq!(plans.len(), 3);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let nodes = [
            ("a", Source::Node(name("b"))),
            ("b", Source::Node(name("a"))),
            ("c", Source::Node(name("c"))),
            ("d", Source::Dockerfile("missing".to_owned())),
            ("e", Source::Pack(Some("cobol".to_owned()))),
            ("f", Source::Pack(None)),
            ("g", Source::Node(name("nobody"))),
            ("h", Source::Node(name("d"))),
        ];
        let told = check(&nodes, &[]).unwrap_err();
        let lines: Vec<_> = told.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["a", "b", "c", "d", "e", "f", "g"].map(|node| format!("node `{node}`")));
        assert!(told.contains("static") && told.contains("cobol"), "{told}");
    }
}
