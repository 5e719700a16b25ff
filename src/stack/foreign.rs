//! Buildpacks as Heroku, Dokku and Cloud Native Buildpacks spell them, and what they come to here.

use crate::buildpacks::{self, Repository, is_address};

use super::Source;
use super::mistakes::{Mistake, Mistakes, nearest, shown};

/// Other words for the built-in packs: the last part of `heroku/…` and the like.
const ALIASES: [(&str, &str); 19] = [
    ("go", "go"),
    ("gradle", "java"),
    ("java", "java"),
    ("jvm", "java"),
    ("maven", "java"),
    ("node", "node"),
    ("nodejs", "node"),
    ("nodejs-engine", "node"),
    ("nodejs-npm", "node"),
    ("nodejs-pnpm", "node"),
    ("nodejs-yarn", "node"),
    ("nginx", "static"),
    ("php", "php"),
    ("python", "python"),
    ("ruby", "ruby"),
    ("rust", "rust"),
    ("static", "static"),
    ("web-servers", "static"),
    ("httpd", "static"),
];

/// Whose names for packs are understood.
const OWNERS: [&str; 4] = ["heroku", "heroku-community", "paketo-buildpacks", "paketo-community"];

/// Those that do nothing that is not done anyway.
const NOTHING: [&str; 3] = ["heroku/procfile", "paketo-buildpacks/procfile", "heroku/deb-packages"];

/// One buildpack of a list.
enum One {
    /// A pack of quarry's own, built in or of the settings' folder.
    Pack(String),
    /// A folder of the settings with scripts of Heroku's API, or an address.
    Scripts(String),
}

/// A name that means nothing.
pub(super) struct Unknown {
    pub message: String,
    pub suggestion: Option<String>,
}

/// What builds a node that names these buildpacks; by detection where none is left.
///
/// # Errors
/// The first that is unknown.
pub(super) fn source(names: &[&str], repository: &Repository) -> Result<Source, Unknown> {
    let asked = names.iter().filter(|name| !NOTHING.contains(&base(name)));
    let all: Vec<One> = asked.map(|name| one(name, repository)).collect::<Result<_, _>>()?;
    Ok(match &all[..] {
        [] => Source::Pack(None),
        [One::Pack(name)] => Source::Pack(Some(name.clone())),
        several => Source::Buildpacks(several.iter().map(scripts).collect()),
    })
}

/// A name without the version that may follow it.
fn base(name: &str) -> &str {
    name.trim().split('@').next().unwrap_or_default()
}

fn one(name: &str, repository: &Repository) -> Result<One, Unknown> {
    let name = name.trim();
    let bare = base(name).trim_start_matches("urn:cnb:registry:").trim_start_matches("docker://");
    let bare = bare.trim_start_matches("urn:cnb:builder:").trim_start_matches("docker.io/");
    if let Some(known) = own(name, repository) {
        return Ok(known);
    }
    let official = official(name);
    let short = match bare.split_once('/') {
        Some((owner, short)) if OWNERS.contains(&owner) => Some(short),
        Some(_) | None => official,
    };
    if let Some((_, pack)) = short.and_then(|short| ALIASES.iter().find(|(alias, _)| *alias == short)) {
        return Ok(One::Pack((*pack).to_owned()));
    }
    if is_address(name) {
        return Ok(One::Scripts(name.to_owned()));
    }
    match bare.split_once('/') {
        Some(("heroku", short)) if short.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
            Ok(One::Scripts(of_heroku(short)))
        }
        Some(_) | None => Err(unknown(name, repository)),
    }
}

fn own(name: &str, repository: &Repository) -> Option<One> {
    if repository.shelf.scripts(name).is_some() {
        return Some(One::Scripts(name.to_owned()));
    }
    buildpacks::by_name(name, repository).map(|pack| One::Pack(pack.name.to_owned()))
}

/// The language of one of Heroku's own repositories, when it stands at no particular branch.
fn official(address: &str) -> Option<&str> {
    let path = address.strip_prefix("https://github.com/heroku/heroku-buildpack-")?;
    Some(path.strip_suffix(".git").unwrap_or(path))
}

fn of_heroku(language: &str) -> String {
    format!("https://github.com/heroku/heroku-buildpack-{language}.git")
}

/// Beside others a pack is the one of Heroku's API for the same language.
fn scripts(one: &One) -> String {
    match one {
        One::Scripts(name) => name.clone(),
        One::Pack(name) if name == "node" => of_heroku("nodejs"),
        One::Pack(name) => of_heroku(name),
    }
}

fn unknown(name: &str, repository: &Repository) -> Unknown {
    let known: Vec<&str> = buildpacks::names(repository).collect();
    let message = format!("`buildpack` is one of {}, not {}", known.join(", "), shown(name));
    Unknown { message, suggestion: nearest(name, known) }
}

/// The lines of `.buildpacks`.
///
/// # Errors
/// When the file is not readable as text.
pub(super) fn lines(repository: &Repository) -> Result<Vec<String>, Mistakes> {
    if let Some(reason) = repository.unreadable.get(FILE) {
        return Err(Mistake::of_file(FILE, format!("the file {reason}")).into());
    }
    let lines = repository.text(FILE).unwrap_or_default().lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// The list of buildpacks of Heroku's multi pack, one a line.
pub(super) const FILE: &str = ".buildpacks";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expected: Result<Source, &str>) {
        let got = source(names, &Repository::default());
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{names:?}"),
            (Err(unknown), Err(start)) => assert!(unknown.message.ends_with(start), "{}", unknown.message),
            (Ok(got), Err(_)) => panic!("{names:?} is {got:?}"),
            (Err(unknown), Ok(_)) => panic!("{names:?}: {}", unknown.message),
        }
    }

    #[test]
    fn the_packs_of_others_are_those_for_the_same_language() {
        let pack = |name: &str| Ok(Source::Pack(Some(name.to_owned())));
        check(&["heroku/nodejs"], pack("node"));
        check(&["heroku/python@1.2.3", "heroku/procfile"], pack("python"));
        check(&["paketo-buildpacks/java"], pack("java"));
        check(&["https://github.com/heroku/heroku-buildpack-ruby.git"], pack("ruby"));
        check(&[], Ok(Source::Pack(None)));
        check(&["cobol"], Err("not `cobol`"));
        check(&["someone/else"], Err("not `someone/else`"));
    }

    #[test]
    fn several_and_those_from_elsewhere_are_of_herokus_api() {
        let of = |names: &[&str]| Ok(Source::Buildpacks(names.iter().map(|name| name.to_string()).collect()));
        let (node, php) = (of_heroku("nodejs"), of_heroku("php"));
        check(&["heroku/nodejs", "heroku/php"], of(&[&node, &php]));
        check(&["https://git.example/pack.git#v2"], of(&["https://git.example/pack.git#v2"]));
        check(&["heroku/apt"], of(&[&of_heroku("apt")]));
    }
}
