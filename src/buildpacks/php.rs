//! The php pack: PHP behind nginx, dependencies by composer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::dependencies::Files;
use super::versions::{admits_minor, asked_for};
use super::{PackError, Plan, Repository, text};

/// The version that Debian's php is.
const VERSION: (u64, u64) = (8, 2);

/// Extensions beyond those that are there, and the Debian packages with them.
const EXTENSIONS: [(&str, &str); 18] = [
    ("apcu", "php-apcu"),
    ("bcmath", "php-bcmath"),
    ("gd", "php-gd"),
    ("gmp", "php-gmp"),
    ("imagick", "php-imagick"),
    ("imap", "php-imap"),
    ("intl", "php-intl"),
    ("ldap", "php-ldap"),
    ("memcached", "php-memcached"),
    ("mongodb", "php-mongodb"),
    ("mysqli", "php-mysql"),
    ("pdo_mysql", "php-mysql"),
    ("pdo_pgsql", "php-pgsql"),
    ("pdo_sqlite", "php-sqlite3"),
    ("pgsql", "php-pgsql"),
    ("redis", "php-redis"),
    ("soap", "php-soap"),
    ("sqlite3", "php-sqlite3"),
];

/// Folders that may be the site, the repository itself last.
const ROOTS: [&str; 3] = ["public", "web", "webroot"];

pub(super) fn detect(repository: &Repository) -> Option<String> {
    ["composer.json", "index.php"].into_iter().find(|file| repository.has(file)).map(str::to_owned)
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let needs = "a composer.json or an index.php at the top of the repository";
    detect(repository).ok_or(PackError::Missing { pack: "php", needs })?;
    let mut plan = Plan::default();
    if let Some(composer) = composer(repository)? {
        let mut files = Files::default();
        files.take(repository, &["composer.json", "composer.lock"]);
        if composer.get("repositories").is_some_and(|list| list.to_string().contains("\"path\"")) {
            files.need_source();
        }
        plan.values.push(("copies", files.lines()));
        if files.needs_source() {
            plan.values.push(("source_first", "yes".to_owned()));
        }
        plan.values.push(("composer", "yes".to_owned()));
        if composer.get("scripts").and_then(|scripts| scripts.get("compile")).is_some() {
            plan.values.push(("compile", "yes".to_owned()));
        }
        extensions(&composer, &mut plan);
        plan.said.extend(version_warning(&composer));
        let requires = composer
            .get("require")
            .and_then(Value::as_object)
            .is_some_and(|all| all.keys().any(|name| name.contains('/')));
        if requires && !repository.has("composer.lock") {
            plan.said.push(
                "Warning: there is no composer.lock; commit it, or each build may install other versions".to_owned(),
            );
        }
    }
    let root = ROOTS.into_iter().find(|root| repository.has(&format!("{root}/index.php")));
    plan.command = Some(match root {
        Some(root) => format!("php-site {root}"),
        None => "php-site".to_owned(),
    });
    Ok(plan)
}

fn composer(repository: &Repository) -> Result<Option<Value>, PackError> {
    let path = "composer.json";
    let Some(text) = text(repository, path)? else { return Ok(None) };
    let broken = |reason: String| PackError::Broken { path: path.to_owned(), reason };
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| broken(e.to_string()))?;
    if value.is_object() { Ok(Some(value)) } else { Err(broken("it is not an object".to_owned())) }
}

fn extensions(composer: &Value, plan: &mut Plan) {
    let required = composer.get("require").and_then(Value::as_object).into_iter().flat_map(|all| all.keys());
    let wanted: BTreeSet<&str> = required
        .filter_map(|name| name.strip_prefix("ext-"))
        .filter_map(|name| EXTENSIONS.iter().find(|(known, _)| *known == name).map(|(_, package)| *package))
        .collect();
    if !wanted.is_empty() {
        plan.values.push(("extensions", wanted.into_iter().collect::<Vec<_>>().join(" ")));
    }
}

fn version_warning(composer: &Value) -> Option<String> {
    let range = composer.get("require")?.get("php")?.as_str()?;
    let (major, minor) = VERSION;
    (!admits_minor(range, VERSION)).then(|| asked_for("composer.json", "PHP", range, &format!("{major}.{minor}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(files: &[(&str, &str)]) -> Plan {
        plan(&Repository::of(files.iter().copied())).unwrap()
    }

    #[test]
    fn the_site_is_where_its_index_is() {
        for (file, expected) in
            [("public/index.php", "php-site public"), ("web/index.php", "php-site web"), ("index.php", "php-site")]
        {
            assert_eq!(planned(&[("composer.json", "{}"), (file, "")]).command.as_deref(), Some(expected));
        }
        assert_eq!(detect(&Repository::of([("index.php", "")])).as_deref(), Some("index.php"));
        assert_eq!(detect(&Repository::of([("index.html", "")])), None);
    }

    #[test]
    fn extensions_come_from_debian_each_package_once() {
        let composer =
            r#"{"require": {"php": "^8.1", "ext-pgsql": "*", "ext-pdo_pgsql": "*", "ext-gd": "*", "ext-json": "*"}}"#;
        let plan = planned(&[("composer.json", composer)]);
        let value = plan.values.iter().find(|(key, _)| *key == "extensions").map(|(_, text)| text.as_str());
        assert_eq!((value, plan.said.len()), (Some("php-gd php-pgsql"), 0));
    }

    #[test]
    fn another_php_than_debians_is_warned_about() {
        for (range, warned) in [
            ("^8.1", false),
            (">=7.4", false),
            ("~8.2.0", false),
            ("^8.3", true),
            ("7.4.*", true),
            ("^7.4 || ^8.0", false),
            (">=8.4", true),
        ] {
            let composer = format!(r#"{{"require": {{"php": "{range}"}}}}"#);
            assert_eq!(!planned(&[("composer.json", &composer)]).said.is_empty(), warned, "{range}");
        }
    }
}
