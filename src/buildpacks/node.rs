//! The node pack: npm, pnpm or yarn, by the lock file.

use serde_json::Value;

use super::dependencies::Files;
use super::versions::admits;
use super::{PackError, Plan, Repository, shell_words, text};

use crate::names::printable::excerpt;

/// The version that Debian's nodejs is.
const MAJOR: u64 = 18;

/// package.json, unless it only serves the tools of a static site.
pub(super) fn detect(repository: &Repository) -> Option<String> {
    if !repository.has("package.json") {
        return None;
    }
    let tools_only = Package::of(repository).is_ok_and(|package| {
        repository.has("index.html") && package.script("build").is_none() && start(repository, &package).is_none()
    });
    (!tools_only).then(|| match Manager::of(repository) {
        Manager::Npm { locked: None } => "package.json".to_owned(),
        Manager::Npm { locked: Some(lock) } => lock.to_owned(),
        Manager::Pnpm => "pnpm-lock.yaml".to_owned(),
        Manager::Yarn => "yarn.lock".to_owned(),
    })
}

/// What installs the dependencies.
enum Manager {
    Npm { locked: Option<&'static str> },
    Pnpm,
    Yarn,
}

impl Manager {
    fn of(repository: &Repository) -> Self {
        let npm = ["package-lock.json", "npm-shrinkwrap.json"].into_iter().find(|file| repository.has(file));
        match npm {
            Some(lock) => Manager::Npm { locked: Some(lock) },
            None if repository.has("pnpm-lock.yaml") => Manager::Pnpm,
            None if repository.has("yarn.lock") => Manager::Yarn,
            None => Manager::Npm { locked: None },
        }
    }
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let package = Package::of(repository)?;
    let manager = Manager::of(repository);
    let hook = package.hook_that_needs_source();
    let build = package.script("build").is_some();
    let development = if build || hook.is_some() { Development::Wanted } else { Development::LeftOut };
    let tool = Tool::of(&manager, &package, repository, development);
    let mut plan = Plan::default();
    let mut files = files(repository, &package);
    if let Some(hook) = hook {
        files.need_source();
        plan.said
            .push(format!("package.json's `{hook}` may need the source: dependencies are installed at every push"));
    }
    if let Some(global) = tool.global {
        plan.values.push(("global", global));
    }
    plan.values.push(("dependencies", tool.install));
    if build {
        plan.values.push(("build", "npm run build".to_owned()));
        plan.values.push(("prune", tool.prune));
    }
    plan.values.push(("copies", files.lines()));
    if files.needs_source() {
        plan.values.push(("source_first", "yes".to_owned()));
    }
    plan.said.extend(version_warning(repository, &package));
    plan.command = start(repository, &package);
    Ok(plan)
}

/// package.json.
struct Package(Value);

impl Package {
    fn of(repository: &Repository) -> Result<Self, PackError> {
        let path = "package.json";
        let needs = "a package.json at the top of the repository";
        let text = text(repository, path)?.ok_or(PackError::Missing { pack: "node", needs })?;
        let broken = |reason: String| PackError::Broken { path: path.to_owned(), reason };
        let value: Value =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| broken(e.to_string()))?;
        if value.is_object() { Ok(Self(value)) } else { Err(broken("it is not an object".to_owned())) }
    }

    fn text(&self, path: &[&str]) -> Option<&str> {
        path.iter().try_fold(&self.0, |value, key| value.get(key))?.as_str().filter(|text| !text.trim().is_empty())
    }

    fn script(&self, name: &str) -> Option<&str> {
        self.text(&["scripts", name])
    }

    /// A script that npm runs while it installs, unless it is known to do without the source.
    fn hook_that_needs_source(&self) -> Option<&'static str> {
        let harmless = ["husky", "husky install", "patch-package", "husky || true"];
        ["preinstall", "install", "postinstall", "prepare"]
            .into_iter()
            .find(|hook| self.script(hook).is_some_and(|script| !harmless.contains(&script.trim())))
    }

    fn has_workspaces(&self) -> bool {
        self.0.get("workspaces").is_some()
    }

    /// The version in `packageManager`, when it names `manager`: digits and dots alone.
    fn manager_version(&self, manager: &str) -> Option<&str> {
        let version = self.text(&["packageManager"])?.strip_prefix(manager)?.strip_prefix('@')?;
        let version = version.split('+').next()?;
        (version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(|c| c.is_ascii_digit() || c == '.'))
            .then_some(version)
    }
}

/// Whether the dependencies of development are installed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Development {
    Wanted,
    LeftOut,
}

/// Command lines of a package manager.
struct Tool {
    /// What npm installs to have it.
    global: Option<String>,
    install: String,
    /// Takes the dependencies of development out again; yarn 2 and 3 cannot do it without a plugin.
    prune: String,
}

impl Tool {
    fn of(manager: &Manager, package: &Package, repository: &Repository, development: Development) -> Self {
        let pick = |wanted: &str, left_out: &str| match development {
            Development::Wanted => wanted.to_owned(),
            Development::LeftOut => left_out.to_owned(),
        };
        match manager {
            Manager::Npm { locked } => {
                let verb = if locked.is_some() { "ci" } else { "install" };
                let scope = pick("--include=dev", "--omit=dev");
                Self {
                    global: None,
                    install: format!("npm {verb} {scope} --no-audit --no-fund"),
                    prune: "npm prune --omit=dev --no-audit --no-fund".to_owned(),
                }
            }
            Manager::Pnpm => Self {
                global: Some(format!("pnpm@{}", pnpm_version(package))),
                install: format!("pnpm install --frozen-lockfile {}", pick("--prod=false", "--prod")),
                prune: "CI=true pnpm prune --prod".to_owned(),
            },
            Manager::Yarn => Self::yarn(package, repository, development),
        }
    }

    /// Yarn 1 and the later ones share a lock file's name and little else.
    fn yarn(package: &Package, repository: &Repository, development: Development) -> Self {
        let version = package.manager_version("yarn");
        let classic = version.map_or(!repository.has(".yarnrc.yml"), |version| version.starts_with("1."));
        if classic {
            let scope = if development == Development::Wanted { "--production=false" } else { "--production" };
            return Self {
                global: Some(format!("yarn@{}", version.unwrap_or("1"))),
                install: format!("yarn install --frozen-lockfile --non-interactive {scope}"),
                prune: "yarn install --frozen-lockfile --non-interactive --production --ignore-scripts".to_owned(),
            };
        }
        Self {
            global: Some(format!("@yarnpkg/cli-dist@{}", version.unwrap_or("4"))),
            install: "yarn install --immutable".to_owned(),
            prune: match version {
                Some(version) if version.starts_with(['2', '3']) => "true".to_owned(),
                Some(_) | None => "yarn workspaces focus --all --production".to_owned(),
            },
        }
    }
}

/// The version package.json asks for, as long as it runs on Debian's node.
fn pnpm_version(package: &Package) -> &str {
    let fits = |version: &&str| {
        version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major <= 10)
    };
    package.manager_version("pnpm").filter(fits).unwrap_or("9")
}

/// Everything a package manager reads while it installs.
fn files(repository: &Repository, package: &Package) -> Files {
    let mut files = Files::default();
    let named = [
        "package.json",
        "package-lock.json",
        "npm-shrinkwrap.json",
        ".npmrc",
        "pnpm-lock.yaml",
        "pnpm-workspace.yaml",
        ".pnpmfile.cjs",
        "yarn.lock",
        ".yarnrc",
        ".yarnrc.yml",
    ];
    files.take(repository, &named);
    let members = package.has_workspaces() || repository.has("pnpm-workspace.yaml");
    for path in &repository.paths {
        let member = members && path.ends_with("/package.json") && !path.contains("node_modules/");
        let beside = path.starts_with("patches/") || path.starts_with(".yarn/");
        if member || beside {
            files.take(repository, &[path]);
        }
    }
    files
}

/// How the program is started: its `start` script without npm in between where the shell alone can do it.
fn start(repository: &Repository, package: &Package) -> Option<String> {
    if let Some(script) = package.script("start") {
        let alone = package.script("prestart").is_none() && package.script("poststart").is_none();
        let plain = shell_words(script).last().is_some_and(|text| text.starts_with("exec "));
        let own = script.contains("npm_") || script.starts_with("npm ") || script.contains('\'');
        return Some(if alone && plain && !own { script.trim().to_owned() } else { "npm start".to_owned() });
    }
    let main = package.text(&["main"]).map(|main| main.trim_start_matches("./"));
    let file = ["server.js"].into_iter().chain(main).chain(["index.js", "app.js"]).find(|file| repository.has(file))?;
    let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    plain.then(|| format!("node {file}"))
}

/// A line when another version is asked for than there is.
fn version_warning(repository: &Repository, package: &Package) -> Option<String> {
    let engines = package.text(&["engines", "node"]).map(|range| ("package.json", range));
    let file = || {
        let name = [".nvmrc", ".node-version"].into_iter().find(|file| repository.text(file).is_some())?;
        Some((name, repository.text(name)?.trim()))
    };
    let (name, range) = engines.or_else(file)?;
    let shown = excerpt(range, 40);
    let warning = || format!("Warning: {name} asks for node {shown}; the buildpack has {MAJOR} and uses that");
    (!admits(range, MAJOR)).then(warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(files: &[(&str, &str)]) -> Plan {
        plan(&Repository::of(files.iter().copied())).unwrap()
    }

    fn value(plan: &Plan, key: &str) -> String {
        plan.values.iter().find(|(known, _)| *known == key).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    #[test]
    fn the_lock_file_chooses_what_installs() {
        let check = |files: &[(&str, &str)], global: &str, install: &str| {
            let plan = planned(files);
            assert_eq!((value(&plan, "global").as_str(), value(&plan, "dependencies").as_str()), (global, install));
        };
        let package = ("package.json", "{}");
        check(&[package], "", "npm install --omit=dev --no-audit --no-fund");
        check(&[package, ("package-lock.json", "")], "", "npm ci --omit=dev --no-audit --no-fund");
        check(&[package, ("pnpm-lock.yaml", "")], "pnpm@9", "pnpm install --frozen-lockfile --prod");
        let asked = ("package.json", r#"{"packageManager": "pnpm@8.15.1+sha256.abc", "scripts": {"build": "x"}}"#);
        check(&[asked, ("pnpm-lock.yaml", "")], "pnpm@8.15.1", "pnpm install --frozen-lockfile --prod=false");
        let classic = "yarn install --frozen-lockfile --non-interactive --production";
        check(&[package, ("yarn.lock", "")], "yarn@1", classic);
        let lock = [package, ("yarn.lock", ""), (".yarnrc.yml", "")];
        check(&lock, "@yarnpkg/cli-dist@4", "yarn install --immutable");
    }

    #[test]
    fn a_start_script_runs_without_npm_where_the_shell_can_do_it() {
        let check = |package: &str, more: &[&str], expected: Option<&str>| {
            let files: Vec<(&str, &str)> =
                [("package.json", package)].into_iter().chain(more.iter().map(|path| (*path, ""))).collect();
            assert_eq!(planned(&files).command.as_deref(), expected, "{package}");
        };
        check(r#"{"scripts": {"start": "node server.js"}}"#, &[], Some("node server.js"));
        check(r#"{"scripts": {"start": "next start -p $PORT"}}"#, &[], Some("next start -p $PORT"));
        check(r#"{"scripts": {"start": "a && b"}}"#, &[], Some("npm start"));
        check(r#"{"scripts": {"start": "node .", "prestart": "x"}}"#, &[], Some("npm start"));
        check(r#"{"main": "./lib/app.js"}"#, &["lib/app.js"], Some("node lib/app.js"));
        check(r#"{"main": "lib/app.js"}"#, &["server.js", "lib/app.js"], Some("node server.js"));
        check("{}", &["index.js"], Some("node index.js"));
        check(r#"{"main": "x;reboot"}"#, &["x;reboot"], None);
        check("{}", &[], None);
    }

    #[test]
    fn scripts_that_run_while_installing_get_the_source_first() {
        let check = |script: &str, expected: &str| {
            let plan = planned(&[("package.json", &format!(r#"{{"scripts": {script}}}"#))]);
            assert_eq!(value(&plan, "source_first"), expected, "{script}");
        };
        check(r#"{"postinstall": "prisma generate"}"#, "yes");
        check(r#"{"prepare": "husky"}"#, "");
        check(r#"{"test": "x"}"#, "");
    }

    #[test]
    fn the_members_of_a_workspace_are_copied_into_their_folders() {
        let plan = planned(&[("package.json", r#"{"workspaces": ["packages/*"]}"#), ("packages/a/package.json", "{}")]);
        let lines = "COPY --chown=app:app [\"package.json\",\"./\"]\n\
                     COPY --chown=app:app [\"packages/a/package.json\",\"./packages/a/\"]";
        assert_eq!(value(&plan, "copies"), lines);
    }

    #[test]
    fn a_package_json_that_only_serves_a_static_site_is_not_nodes() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(detect(&Repository::of(files.iter().copied())).as_deref(), expected, "{files:?}");
        };
        check(&[("package.json", "{}"), ("index.html", "")], None);
        check(&[("package.json", "{}"), ("index.html", ""), ("server.js", "")], Some("package.json"));
        check(&[("package.json", r#"{"scripts": {"build": "vite"}}"#), ("index.html", "")], Some("package.json"));
        check(&[("package.json", "broken")], Some("package.json"));
    }

    #[test]
    fn another_node_than_debians_is_warned_about() {
        let check = |range: &str, warned: bool| {
            let package = format!(r#"{{"engines": {{"node": "{range}"}}}}"#);
            assert_eq!(!planned(&[("package.json", &package)]).said.is_empty(), warned, "{range}");
        };
        check(">=18", false);
        check("20.x", true);
        let plan = planned(&[("package.json", "{}"), (".nvmrc", "v20\n")]);
        assert_eq!(plan.said, ["Warning: .nvmrc asks for node v20; the buildpack has 18 and uses that"]);
    }
}
