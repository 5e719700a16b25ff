//! Buildpacks of Heroku's API: `bin/detect`, `bin/compile` and `bin/release`, several in order.
//!
//! They run while the image is built, as the user `app`; quarry itself never runs them.

use std::collections::BTreeMap;

use super::templates::{self, exec};
use super::{PackError, PackRequest, Plan, Rendered, Repository};

/// What runs a command line with the environment that the buildpacks have left; `@web` is what they start as `web`.
pub const LAUNCHER: &str = "/usr/local/bin/quarry-launch";

/// Where the context holds the folders of the server's owner.
const FOLDERS: &str = ".quarry/buildpacks";

/// Schemes of addresses that git may fetch from.
const SCHEMES: [&str; 3] = ["https://", "http://", "git://"];

/// Whether this is the address of a git repository, with `#branch` after it or without.
pub fn is_address(text: &str) -> bool {
    let (address, branch) = split(text);
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    SCHEMES
        .iter()
        .any(|scheme| address.strip_prefix(scheme).is_some_and(|rest| rest.contains('/') && !rest.starts_with('/')))
        && plain(address, ":/.-_~@%+")
        && branch.is_none_or(|branch| !branch.is_empty() && !branch.starts_with('-') && plain(branch, "./-_"))
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('#').map_or((text, None), |(address, branch)| (address, Some(branch)))
}

/// The Dockerfile that runs these buildpacks over a repository, and the files it needs.
///
/// # Errors
/// When one is neither an address nor a folder of the server's owner, or the Aptfile is broken.
pub fn heroku(names: &[String], repository: &Repository, request: &PackRequest<'_>) -> Result<Rendered, PackError> {
    let mut files = BTreeMap::new();
    let mut fetches = Vec::new();
    let mut folders = Vec::new();
    for (number, name) in (1..).zip(names) {
        if let Some(scripts) = repository.shelf.scripts(name) {
            let folder = format!("{number}-{name}");
            for (path, bytes) in scripts {
                files.insert(format!("{FOLDERS}/{folder}/{path}"), bytes.clone());
            }
            fetches.push(format!("COPY [\"{FOLDERS}/{folder}/\",\"/buildpacks/{folder}/\"]"));
            folders.push(format!("/buildpacks/{folder}"));
        } else if is_address(name) {
            let (address, branch) = split(name);
            let short = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default().trim_end_matches(".git");
            let folder = format!("/buildpacks/{number}-{short}");
            let clone = ["git", "clone", "--quiet", "--depth", "1"].into_iter();
            let at = branch.into_iter().flat_map(|branch| ["--branch", branch]);
            let words = clone.chain(at).chain(["--", address, &folder]);
            fetches.push(format!("RUN {}", exec(words)));
            folders.push(folder);
        } else {
            return Err(PackError::NoScripts { name: name.clone() });
        }
    }
    let words = ["quarry-compile"].into_iter().chain(folders.iter().map(String::as_str));
    let mut plan = Plan { values: vec![("compile", exec(words))], ..Plan::default() };
    plan.values.extend(super::packages(repository)?);
    let dockerfile = templates::heroku(&plan, &fetches, request)?;
    let command = Some(format!("{LAUNCHER} @web"));
    Ok(Rendered { dockerfile, command, port: None, health: None, said: Vec::new(), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_fetched_from() {
        for (text, expected) in [
            ("https://github.com/heroku/heroku-buildpack-ruby.git", true),
            ("https://git.example/a/b#v1.2", true),
            ("git://10.0.0.1:9418/pack", true),
            ("https://git.example/a b", false),
            ("https://git.example/a#--upload-pack=x", false),
            ("https://git.example/a#", false),
            ("ext::sh -c x", false),
            ("file:///etc", false),
            ("-https://a/b", false),
            ("https:///x", false),
            ("https://a/b\";rm", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
    }

    #[test]
    fn folders_are_copied_and_repositories_fetched_in_their_order() {
        let mut repository = Repository::default();
        let files = ["bin/detect", "bin/compile"].map(|path| (path.to_owned(), Vec::new())).into();
        repository.shelf.put("mine", files).unwrap();
        let names = ["mine".to_owned(), "https://git.example/other.git#v2".to_owned()];
        let rendered = heroku(&names, &repository, &PackRequest::default()).unwrap();
        for line in [
            "COPY [\".quarry/buildpacks/1-mine/\",\"/buildpacks/1-mine/\"]",
            "RUN [\"git\",\"clone\",\"--quiet\",\"--depth\",\"1\",\"--branch\",\"v2\",\"--\",\"https://git.example/other.git\",\"/buildpacks/2-other\"]",
            "RUN [\"quarry-compile\",\"/buildpacks/1-mine\",\"/buildpacks/2-other\"]",
        ] {
            assert!(rendered.dockerfile.lines().any(|known| known == line), "{line}\n{}", rendered.dockerfile);
        }
        let paths: Vec<&String> = rendered.files.keys().collect();
        assert_eq!(paths, [".quarry/buildpacks/1-mine/bin/compile", ".quarry/buildpacks/1-mine/bin/detect"]);
        assert!(heroku(&["nothing".to_owned()], &repository, &PackRequest::default()).is_err());
    }
}
