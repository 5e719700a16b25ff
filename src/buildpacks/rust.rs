//! The rust pack: cargo.

use toml::{Table, Value};

use super::dependencies::Files;
use super::versions::{asked_for, is_at_most};
use super::{PackError, Plan, Repository, text};

/// The least that Debian's rustc-web is; it follows the browsers it is there for.
const VERSION: &str = "1.85";

pub(super) fn detect(repository: &Repository) -> Option<String> {
    repository.has("Cargo.toml").then(|| "Cargo.toml".to_owned())
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let path = "Cargo.toml";
    let needs = "a Cargo.toml at the top of the repository";
    let text = text(repository, path)?.ok_or(PackError::Missing { pack: "rust", needs })?;
    let cargo: Table = text.parse().map_err(|error: toml::de::Error| PackError::Broken {
        path: path.to_owned(),
        reason: error.message().to_owned(),
    })?;
    let mut plan = Plan::default();
    if is_simple(&cargo, repository) {
        let mut files = Files::default();
        files.take(repository, &["Cargo.toml", "Cargo.lock", ".cargo/config.toml"]);
        plan.values.push(("copies", files.lines()));
    }
    if repository.has("Cargo.lock") {
        plan.values.push(("locked", "--locked".to_owned()));
    } else {
        plan.said.push("Warning: there is no Cargo.lock; commit it, or each build may use other versions".to_owned());
    }
    plan.said.extend(version_warning(&cargo, repository));
    plan.command = command(&cargo, repository);
    Ok(plan)
}

/// Whether the dependencies can be built before the source is there: one package, nothing in its own places, nothing
/// that a build script makes.
fn is_simple(cargo: &Table, repository: &Repository) -> bool {
    let package = cargo.get("package").and_then(Value::as_table);
    let mut local = ["dependencies", "build-dependencies", "patch"].iter().filter_map(|key| cargo.get(*key));
    package.is_some_and(|package| !package.contains_key("build"))
        && ["workspace", "bin", "lib", "example", "bench", "test"].iter().all(|key| !cargo.contains_key(*key))
        && repository.has("src/main.rs")
        && !repository.has("build.rs")
        && !local.any(has_path)
}

/// Whether a dependency lies in the repository.
fn has_path(value: &Value) -> bool {
    value.as_table().is_some_and(|table| table.contains_key("path") || table.values().any(has_path))
}

/// The package's only binary, or the one it is run by.
fn command(cargo: &Table, repository: &Repository) -> Option<String> {
    let package = cargo.get("package")?;
    let word = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let bins: Vec<&Value> = cargo.get("bin").and_then(Value::as_array).into_iter().flatten().collect();
    let only = || match &bins[..] {
        [one] => word(one.get("name")),
        _ => None,
    };
    let by_name = || word(package.get("name")).filter(|_| repository.has("src/main.rs"));
    let name = word(package.get("default-run")).or_else(only).or_else(by_name)?;
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    plain.then(|| format!("bin/{name}"))
}

/// A line when a later version is asked for than there is.
fn version_warning(cargo: &Table, repository: &Repository) -> Option<String> {
    let toolchain = || {
        let text = repository.text("rust-toolchain.toml")?;
        let channel = text.parse::<Table>().ok()?.get("toolchain")?.get("channel")?.as_str()?.to_owned();
        Some(("rust-toolchain.toml", channel))
    };
    let plain = || Some(("rust-toolchain", repository.text("rust-toolchain")?.trim().to_owned()));
    let least = || Some(("Cargo.toml", cargo.get("package")?.get("rust-version")?.as_str()?.to_owned()));
    let (file, version) = toolchain().or_else(plain).or_else(least)?;
    let later = version == "nightly" || version.starts_with("nightly-") || !is_at_most(&version, VERSION);
    later.then(|| asked_for(file, "Rust", &version, "Debian's rustc-web"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_of_the_package_is_started() {
        let check = |cargo: &str, expected: Option<&str>| {
            let plan = plan(&Repository::of([("Cargo.toml", cargo), ("src/main.rs", "")])).unwrap();
            assert_eq!(plan.command.as_deref(), expected, "{cargo}");
        };
        check("[package]\nname = \"shop\"", Some("bin/shop"));
        check("[package]\nname = \"shop\"\ndefault-run = \"web\"", Some("bin/web"));
        check("[package]\nname = \"shop\"\n[[bin]]\nname = \"server\"\npath = \"x.rs\"", Some("bin/server"));
        check("[workspace]\nmembers = [\"a\"]", None);
        check("[package]\nname = \"a;b\"", None);
    }

    #[test]
    fn dependencies_are_built_first_where_nothing_of_the_source_decides_them() {
        let check = |cargo: &str, more: &str, expected: bool| {
            let plan = plan(&Repository::of([("Cargo.toml", cargo), ("src/main.rs", ""), (more, "")])).unwrap();
            assert_eq!(plan.values.iter().any(|(key, _)| *key == "copies"), expected, "{cargo} {more}");
        };
        check("[package]\nname = \"a\"\n[dependencies]\nserde = \"1\"", "Cargo.lock", true);
        check("[package]\nname = \"a\"\n[dependencies]\nb = {path = \"b\"}", "Cargo.lock", false);
        check("[package]\nname = \"a\"", "build.rs", false);
    }

    #[test]
    fn a_later_rust_than_debians_is_warned_about() {
        let said = |file: &str, text: &str| {
            let files = [("Cargo.toml", "[package]\nname = \"a\""), ("Cargo.lock", ""), (file, text)];
            plan(&Repository::of(files)).unwrap().said
        };
        assert_eq!(said("rust-toolchain", "1.70"), [""; 0]);
        assert_eq!(said("rust-toolchain.toml", "[toolchain]\nchannel = \"stable\""), [""; 0]);
        assert!(said("rust-toolchain", "nightly-2024-01-01")[0].contains("asks for Rust nightly-2024-01-01"));
    }
}
