//! Buildpacks: how a repository without a Dockerfile gets one.
//!
//! A pack is a folder in the top-level `buildpacks/` (a Dockerfile template and what it means) and a file here that
//! detects it and fills the template. Each template lays the runtime first, whose text is the same for every
//! repository so that stacks share it, then the dependencies, then the source: a push that leaves the lock file alone
//! rebuilds only the last.

use std::collections::BTreeMap;

use crate::names::EnvName;

mod dependencies;
mod dockerfile;
pub mod files;
mod go;
mod heroku;
mod java;
mod node;
mod php;
mod python;
mod repository;
mod ruby;
mod rust;
mod shelf;
mod shell;
mod static_site;
mod templates;
mod versions;

pub use dockerfile::dockerfile_ports;
pub use heroku::{LAUNCHER, heroku, is_address};
pub use repository::{Repository, Unreadable};
pub use shelf::{BadPack, Own, Shelf, Template};
pub use shell::{plain_words, shell_words};

/// A way of building a kind of repository.
#[derive(Debug, Clone, Copy)]
pub struct Pack<'r> {
    /// Its folder in `buildpacks/` or the settings, and what `buildpack:` in quarry.yml calls it.
    pub name: &'r str,
    /// A start command, for a person who has to write one.
    pub example: &'r str,
    way: Way<'r>,
}

/// Who knows it.
#[derive(Debug, Clone, Copy)]
enum Way<'r> {
    /// A file here.
    BuiltIn {
        /// The file it goes by, when the repository is of its kind.
        detect: fn(&Repository) -> Option<String>,
        plan: fn(&Repository) -> Result<Plan, PackError>,
    },
    /// The server's owner.
    Own(&'r Template),
}

/// Every built-in pack, in the order they are asked: a Flask site with a package.json for its assets is Python's.
static PACKS: [Pack<'static>; 8] = [
    Pack {
        name: "python",
        example: "gunicorn app:app --bind 0.0.0.0:$PORT",
        way: Way::BuiltIn { detect: python::detect, plan: python::plan },
    },
    Pack {
        name: "ruby",
        example: "bundle exec puma -p $PORT",
        way: Way::BuiltIn { detect: ruby::detect, plan: ruby::plan },
    },
    Pack { name: "go", example: "bin/server", way: Way::BuiltIn { detect: go::detect, plan: go::plan } },
    Pack { name: "rust", example: "bin/server", way: Way::BuiltIn { detect: rust::detect, plan: rust::plan } },
    Pack {
        name: "java",
        example: "java -jar target/server.jar",
        way: Way::BuiltIn { detect: java::detect, plan: java::plan },
    },
    Pack { name: "php", example: "php-site public", way: Way::BuiltIn { detect: php::detect, plan: php::plan } },
    Pack { name: "node", example: "node server.js", way: Way::BuiltIn { detect: node::detect, plan: node::plan } },
    Pack {
        name: "static",
        example: "static-site /app",
        way: Way::BuiltIn { detect: static_site::detect, plan: static_site::plan },
    },
];

/// The files that the built-in packs go by, for a person whose repository has none of them.
pub const GO_BY: [&str; 12] = [
    "requirements.txt",
    "pyproject.toml",
    "Gemfile",
    "go.mod",
    "Cargo.toml",
    "pom.xml",
    "gradlew",
    "Main.java",
    "composer.json",
    "index.php",
    "package.json",
    "index.html",
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
    /// Further files of the context, by their path.
    pub files: BTreeMap<String, Vec<u8>>,
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
    /// A buildpack that is nowhere.
    #[error(
        "there is no buildpack `{name}`: neither a folder of quarry's settings nor the address of a git repository"
    )]
    NoScripts {
        /// As it was written.
        name: String,
    },
    /// The template did not render.
    #[error("cannot write the Dockerfile of the {pack} buildpack: {reason}")]
    Template {
        /// Which pack.
        pack: String,
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

impl Pack<'_> {
    /// The file that shows the repository is of this pack's kind.
    pub fn recognises(&self, repository: &Repository) -> Option<String> {
        match self.way {
            Way::BuiltIn { detect, .. } => detect(repository),
            Way::Own(template) => template.recognises(repository),
        }
    }
}

/// Every pack there is for a repository: those of the server's owner are asked first, by name.
fn all(repository: &Repository) -> impl Iterator<Item = Pack<'_>> {
    let own = |(name, template)| Pack { name, example: "./server", way: Way::Own(template) };
    repository.shelf.templates().map(own).chain(PACKS.iter().copied())
}

/// The pack for a repository: the first that recognises it.
pub fn detect(repository: &Repository) -> Option<Pack<'_>> {
    all(repository).find(|pack| pack.recognises(repository).is_some())
}

/// The pack of this name.
pub fn by_name<'r>(name: &str, repository: &'r Repository) -> Option<Pack<'r>> {
    all(repository).find(|pack| pack.name == name)
}

/// Names of all packs, the built-in ones first.
pub fn names(repository: &Repository) -> impl Iterator<Item = &str> {
    PACKS.iter().map(|pack| pack.name).chain(repository.shelf.names())
}

/// Writes the Dockerfile of a repository.
///
/// # Errors
/// A file the pack reads is unfit, or the repository is not of its kind.
pub fn render(pack: Pack<'_>, repository: &Repository, request: &PackRequest<'_>) -> Result<Rendered, PackError> {
    let (mut plan, template) = match pack.way {
        Way::BuiltIn { plan, .. } => (plan(repository)?, templates::built_in(pack.name)),
        Way::Own(template) => (template.plan(repository)?, template.text.as_str()),
    };
    plan.values.extend(packages(repository)?);
    let dockerfile = templates::dockerfile(pack.name, template, &plan, request)?;
    let (command, health, said) = (plan.command, plan.health, plan.said);
    Ok(Rendered { dockerfile, command, port: None, health, said, files: BTreeMap::new() })
}

/// The value of a template for the Debian packages that the repository wants.
fn packages(repository: &Repository) -> Result<Option<(&'static str, String)>, PackError> {
    let text = text(repository, "Aptfile")?;
    text.map(|text| Ok(("packages", debian_packages(text)?))).transpose()
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
