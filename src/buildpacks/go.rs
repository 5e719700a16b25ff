//! The go pack: modules, one binary a main package.

use super::dependencies::Files;
use super::versions::{asked_for, is_at_most};
use super::{PackError, Plan, Repository, text};

/// The version that Debian's go is.
const VERSION: &str = "1.19";

pub(super) fn detect(repository: &Repository) -> Option<String> {
    repository.has("go.mod").then(|| "go.mod".to_owned())
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let needs = "a go.mod at the top of the repository";
    let module = text(repository, "go.mod")?.ok_or(PackError::Missing { pack: "go", needs })?;
    let mut plan = Plan::default();
    let mut files = Files::default();
    files.take(repository, &["go.mod", "go.sum"]);
    if module.lines().any(|line| line.contains("=> ./") || line.contains("=> ../")) || repository.has("go.work") {
        files.need_source();
    }
    plan.values.push(("copies", files.lines()));
    if files.needs_source() || repository.has("vendor/modules.txt") {
        plan.values.push(("source_first", "yes".to_owned()));
    }
    let targets = targets(module, repository);
    plan.command = command(module, &targets, repository);
    plan.values.push(("targets", targets.join(" ")));
    plan.said.extend(version_warning(module));
    Ok(plan)
}

fn is_package(word: &str) -> bool {
    (word == "." || word.starts_with("./")) && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
}

/// What is built: what go.mod names for Heroku, else the main packages where people have them, else everything.
fn targets(module: &str, repository: &Repository) -> Vec<String> {
    let comment = module.lines().find_map(|line| line.trim().strip_prefix("// +heroku install "));
    let named: Vec<String> =
        comment.unwrap_or_default().split_whitespace().filter(|word| is_package(word)).map(str::to_owned).collect();
    if !named.is_empty() {
        return named;
    }
    let has_code = |folder: &str| {
        let code = |path: &&String| path.ends_with(".go") && !path.ends_with("_test.go");
        repository
            .paths
            .iter()
            .filter(code)
            .any(|path| path.rsplit_once('/').map_or("", |(folder, _)| folder) == folder)
    };
    let mut found: Vec<String> = Vec::new();
    if has_code("") {
        found.push(".".to_owned());
    }
    if repository.has_folder("cmd") {
        found.push("./cmd/...".to_owned());
    }
    if found.is_empty() { vec!["./...".to_owned()] } else { found }
}

/// The one binary that can be meant: that of the top, else the only one below `cmd`.
fn command(module: &str, targets: &[String], repository: &Repository) -> Option<String> {
    let path = module.lines().find_map(|line| line.trim().strip_prefix("module "))?.trim().trim_matches('"');
    let at_top = targets.iter().any(|target| target == ".");
    let name = if at_top {
        let mut parts = path.rsplit('/');
        let last = parts.next()?;
        // The last part of a later major version is no name: `example.com/shop/v2`.
        let is_version =
            last.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
        if is_version { parts.next().unwrap_or(last) } else { last }
    } else {
        let mut folders: Vec<&str> = repository
            .paths
            .iter()
            .filter_map(|path| path.strip_prefix("cmd/")?.split_once('/').map(|(name, _)| name))
            .collect();
        folders.dedup();
        match folders[..] {
            [only] => only,
            _ => return None,
        }
    };
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.is_empty();
    plain.then(|| format!("bin/{name}"))
}

/// A line when a later version is asked for than there is.
fn version_warning(module: &str) -> Option<String> {
    let line = |word: &str| module.lines().find_map(|line| line.trim().strip_prefix(word)).map(str::trim);
    let version = line("// +heroku goVersion ").or(line("toolchain ")).or(line("go "))?;
    let version = version.trim_start_matches("go");
    (!is_at_most(version, VERSION)).then(|| asked_for("go.mod", "Go", version, VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_of_the_top_or_the_only_command_is_started() {
        let check = |files: &[(&str, &str)], targets: &str, command: Option<&str>| {
            let plan = plan(&Repository::of(files.iter().copied())).unwrap();
            let built = plan.values.iter().find(|(key, _)| *key == "targets").map(|(_, text)| text.as_str());
            assert_eq!((built, plan.command.as_deref()), (Some(targets), command), "{files:?}");
        };
        let module = ("go.mod", "module example.com/shop\n\ngo 1.19\n");
        check(&[module, ("main.go", "")], ".", Some("bin/shop"));
        check(&[module, ("cmd/web/main.go", "")], "./cmd/...", Some("bin/web"));
        check(&[module, ("main.go", ""), ("cmd/a/main.go", "")], ". ./cmd/...", Some("bin/shop"));
        check(&[module, ("cmd/a/main.go", ""), ("cmd/b/main.go", "")], "./cmd/...", None);
        check(&[module, ("x_test.go", ""), ("server/main.go", "")], "./...", None);
        check(&[("go.mod", "module example.com/shop/v2\n"), ("a.go", "")], ".", Some("bin/shop"));
        check(&[("go.mod", "module a\n// +heroku install ./x ./y/... ;rm\n"), ("a.go", "")], "./x ./y/...", None);
    }

    #[test]
    fn a_later_go_than_debians_is_warned_about() {
        let check = |line: &str, warned: bool| {
            let module = format!("module a\n{line}\n");
            let plan = plan(&Repository::of([("go.mod", module.as_str())])).unwrap();
            assert_eq!(!plan.said.is_empty(), warned, "{line} {:?}", plan.said);
        };
        check("go 1.17", false);
        check("go 1.19", false);
        check("go 1.22.1", true);
        check("go 1.18\ntoolchain go1.21.3", true);
    }
}
