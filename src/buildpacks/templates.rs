//! The Dockerfile templates of `buildpacks/`, embedded and filled. The only reader of that folder.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value};

use super::{CA_PATH, PackError, PackRequest, Plan, shell_words};

const STATIC: &str = include_str!("../../buildpacks/static/Dockerfile.j2");
const STATIC_CONF: &str = include_str!("../../buildpacks/static/nginx.conf");
const STATIC_START: &str = include_str!("../../buildpacks/static/start.sh");
const PYTHON: &str = include_str!("../../buildpacks/python/Dockerfile.j2");
const NODE: &str = include_str!("../../buildpacks/node/Dockerfile.j2");
const RUBY: &str = include_str!("../../buildpacks/ruby/Dockerfile.j2");
const GO: &str = include_str!("../../buildpacks/go/Dockerfile.j2");
const RUST: &str = include_str!("../../buildpacks/rust/Dockerfile.j2");
const JAVA: &str = include_str!("../../buildpacks/java/Dockerfile.j2");
const PHP: &str = include_str!("../../buildpacks/php/Dockerfile.j2");
const PHP_CONF: &str = include_str!("../../buildpacks/php/nginx.conf");
const PHP_FPM: &str = include_str!("../../buildpacks/php/fpm.conf");
const PHP_START: &str = include_str!("../../buildpacks/php/start.sh");
const HEROKU: &str = include_str!("../../buildpacks/heroku/Dockerfile.j2");
const HEROKU_COMPILE: &str = include_str!("../../buildpacks/heroku/compile.sh");
const HEROKU_LAUNCH: &str = include_str!("../../buildpacks/heroku/launch.sh");

/// Build arguments docker hands to every step by itself. Declared, they would enter the cache key of each step, and a
/// changed proxy would rebuild everything.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Runs each command in a shell of its own and stops at the first that fails; the files belong to `app` afterwards.
const INSTALL: &str = r#"for command; do echo "+ $command"; /bin/sh -c "$command"; done; chown -R app:app /app"#;

/// The template of a built-in pack.
pub(super) fn built_in(name: &str) -> &'static str {
    match name {
        "python" => PYTHON,
        "node" => NODE,
        "ruby" => RUBY,
        "go" => GO,
        "rust" => RUST,
        "java" => JAVA,
        "php" => PHP,
        _ => STATIC,
    }
}

/// Fills the template of the pack called `name`.
pub(super) fn dockerfile(
    name: &str,
    template: &str,
    plan: &Plan,
    request: &PackRequest<'_>,
) -> Result<String, PackError> {
    let mut values = values(plan, request);
    let (conf, start) = if name == "php" { (PHP_CONF, PHP_START) } else { (STATIC_CONF, STATIC_START) };
    values.insert("nginx_conf", Value::from(printed(conf)));
    values.insert("start_sh", Value::from(printed(start)));
    values.insert("fpm_conf", Value::from(printed(PHP_FPM)));
    filled(name, template, values)
}

/// Fills the template for buildpacks of Heroku's API; `fetches` are the lines that bring them.
pub(super) fn heroku(plan: &Plan, fetches: &[String], request: &PackRequest<'_>) -> Result<String, PackError> {
    let mut values = values(plan, request);
    values.insert("fetches", Value::from(fetches.to_vec()));
    values.insert("compile_sh", Value::from(printed(HEROKU_COMPILE)));
    values.insert("launch_sh", Value::from(printed(HEROKU_LAUNCH)));
    filled("heroku", HEROKU, values)
}

/// What every template may use.
fn values(plan: &Plan, request: &PackRequest<'_>) -> BTreeMap<&'static str, Value> {
    let mut values: BTreeMap<&str, Value> = BTreeMap::new();
    for (key, value) in &plan.values {
        values.insert(key, Value::from(value.as_str()));
    }
    let names = request.build_env.iter().map(|name| name.as_str());
    let arguments: Vec<String> = names.filter(|name| !PREDEFINED.contains(name)).map(str::to_owned).collect();
    values.insert("arguments", Value::from(arguments));
    values.insert("ca", Value::from(request.ca));
    values.insert("ca_path", Value::from(CA_PATH));
    if !request.install.is_empty() {
        let words = ["/bin/sh", "-ec", INSTALL, "install"].into_iter();
        values.insert("install", Value::from(exec(words.chain(request.install.iter().map(String::as_str)))));
    }
    if let Some(command) = &plan.command {
        let words = shell_words(command);
        values.insert("command", Value::from(exec(words.iter().map(String::as_str))));
    }
    values
}

fn filled(name: &str, template: &str, values: BTreeMap<&'static str, Value>) -> Result<String, PackError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let rendered = environment.render_str(template, Value::from(values));
    // The engine takes the template's last line break away.
    let error = |error: minijinja::Error| PackError::Template { pack: name.to_owned(), reason: error.to_string() };
    rendered.map(|text| text + "\n").map_err(error)
}

/// Words in the JSON form of Dockerfile instructions, in which nothing is expanded.
pub(super) fn exec<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    serde_json::to_string(&words).expect("a list of strings is JSON")
}

/// The lines of a file as quoted words for `printf`, one per line of the Dockerfile.
fn printed(text: &str) -> String {
    let words: Vec<String> = text.lines().map(|line| format!("'{}'", line.replace('\'', r"'\''"))).collect();
    words.join(" \\\n    ")
}
