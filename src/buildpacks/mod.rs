//! Buildpacks: how a repository without a Dockerfile gets one.
//!
//! A pack is a folder in the top-level `buildpacks/` (a Dockerfile template and what it means) and a file here that
//! detects it and fills the template. Each template lays the runtime first, whose text is the same for every
//! repository so that stacks share it, then the dependencies, then the source: a push that leaves the lock file alone
//! rebuilds only the last.

use crate::names::EnvName;

mod dependencies;
mod dockerfile;
mod node;
mod python;
mod repository;
mod shell;
mod static_site;
mod templates;
mod versions;

pub use dockerfile::dockerfile_ports;
pub use repository::{Repository, Unreadable};
pub use shell::shell_words;

/// A way of building a kind of repository.
#[derive(Debug)]
pub struct Pack {
    /// Its folder in `buildpacks/`, and what `buildpack:` in quarry.yml calls it.
    pub name: &'static str,
    /// A start command, for a person who has to write one.
    pub example: &'static str,
    /// The file it goes by, when the repository is of its kind.
    detect: fn(&Repository) -> Option<String>,
    plan: fn(&Repository) -> Result<Plan, PackError>,
}

/// Every pack, in the order they are asked: a Flask site with a package.json for its assets is Python's.
static PACKS: [Pack; 3] = [
    Pack {
        name: "python",
        example: "gunicorn app:app --bind 0.0.0.0:$PORT",
        detect: python::detect,
        plan: python::plan,
    },
    Pack { name: "node", example: "node server.js", detect: node::detect, plan: node::plan },
    Pack { name: "static", example: "static-site /app", detect: static_site::detect, plan: static_site::plan },
];

/// What a build wants from a pack beside the repository.
#[derive(Debug, Clone, Default)]
pub struct PackRequest<'a> {
    /// Commands that install the dependencies instead of the pack's own, run as root in `/app`.
    pub install: &'a [String],
    /// Whether certificates to be trusted lie in the context at [`CA_PATH`].
    pub ca: bool,
    /// Names of build arguments the install steps see. They do not get into the image's environment.
    pub build_env: &'a [EnvName],
}

/// Where the context holds the certificates of [`PackRequest::ca`].
pub const CA_PATH: &str = ".quarry/ca.crt";

/// A pack's answer for one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Text of the Dockerfile; good for the classic builder and for BuildKit.
    pub dockerfile: String,
    /// The start command the image already carries; `None` when none could be guessed.
    pub command: Option<String>,
    /// The port it listens on when that is not `$PORT`.
    pub port: Option<u16>,
    /// A path that answers when it is ready.
    pub health: Option<String>,
    /// Lines for the pusher: what was chosen, and warnings.
    pub said: Vec<String>,
}

/// A repository that a pack cannot build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A file the pack reads is unfit.
    #[error("`{path}` {reason}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: Unreadable,
    },
    /// A file the pack reads does not have its format.
    #[error("`{path}` is not valid: {reason}")]
    Broken {
        /// Which file.
        path: String,
        /// The parser's words.
        reason: String,
    },
    /// The repository is not of the pack's kind.
    #[error("the {pack} buildpack needs {needs}")]
    Missing {
        /// Which pack.
        pack: &'static str,
        /// What is not there.
        needs: &'static str,
    },
    /// The template did not render.
    #[error("cannot write the Dockerfile of the {pack} buildpack: {reason}")]
    Template {
        /// Which pack.
        pack: &'static str,
        /// The template engine's words.
        reason: String,
    },
}

/// What a pack found out about a repository: the values of its template, and how the image starts.
#[derive(Debug, Default)]
struct Plan {
    /// Values by the names the template uses.
    values: Vec<(&'static str, String)>,
    command: Option<String>,
    health: Option<String>,
    said: Vec<String>,
}

impl Pack {
    /// The file that shows the repository is of this pack's kind.
    pub fn recognises(&self, repository: &Repository) -> Option<String> {
        (self.detect)(repository)
    }
}

/// The pack for a repository: the first that recognises it.
pub fn detect(repository: &Repository) -> Option<&'static Pack> {
    PACKS.iter().find(|pack| pack.recognises(repository).is_some())
}

/// The pack of this name.
pub fn by_name(name: &str) -> Option<&'static Pack> {
    PACKS.iter().find(|pack| pack.name == name)
}

/// Names of all packs.
pub fn names() -> impl Iterator<Item = &'static str> {
    PACKS.iter().map(|pack| pack.name)
}

/// Writes the Dockerfile of a repository.
///
/// # Errors
/// A file the pack reads is unfit, or the repository is not of its kind.
pub fn render(pack: &Pack, repository: &Repository, request: &PackRequest<'_>) -> Result<Rendered, PackError> {
    let mut plan = (pack.plan)(repository)?;
    if let Some(text) = text(repository, "Aptfile")? {
        plan.values.push(("packages", debian_packages(text)?));
    }
    let dockerfile = templates::dockerfile(pack.name, &plan, request)?;
    Ok(Rendered { dockerfile, command: plan.command, port: None, health: plan.health, said: plan.said })
}

/// The Debian packages an Aptfile names, one a line, as Heroku's apt buildpack reads it.
fn debian_packages(aptfile: &str) -> Result<String, PackError> {
    let lines = aptfile.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let packages: Vec<&str> = lines.collect();
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-:=~".contains(c))
    };
    match packages.iter().find(|name| !is_name(name)) {
        None => Ok(packages.join(" ")),
        Some(wrong) => Err(PackError::Broken {
            path: "Aptfile".to_owned(),
            reason: format!("`{}` is not the name of a Debian package", wrong.escape_debug()),
        }),
    }
}

/// The text of a file the pack reads; `None` when it is not there.
fn text<'a>(repository: &'a Repository, path: &str) -> Result<Option<&'a str>, PackError> {
    match repository.unreadable.get(path) {
        Some(reason) => Err(PackError::Unreadable { path: path.to_owned(), reason: *reason }),
        None => Ok(repository.text(path)),
    }
}
