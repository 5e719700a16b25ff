//! The python pack: a virtual environment filled by pip, uv or poetry.

use std::collections::BTreeSet;

use super::dependencies::Files;
use super::templates::exec;
use super::{PackError, Plan, Repository, text};

use crate::names::printable::excerpt;

/// The version that Debian's python3 is.
const VERSION: &str = "3.11";

/// The files that show how the dependencies are pinned, in the order they are preferred.
pub(super) fn detect(repository: &Repository) -> Option<String> {
    let pinned = ["uv.lock", "poetry.lock", "requirements.txt"].into_iter().find(|file| repository.has(file));
    let project = || repository.has("pyproject.toml").then_some("pyproject.toml").filter(|_| is_project(repository));
    pinned.or_else(project).map(str::to_owned)
}

/// Whether pyproject.toml describes a program, and not only the settings of some formatter. A broken one does: its
/// mistake is then told.
fn is_project(repository: &Repository) -> bool {
    match Project::of(repository) {
        Ok(project) => project.is_some_and(|project| project.is_program),
        Err(_) => true,
    }
}

pub(super) fn plan(repository: &Repository) -> Result<Plan, PackError> {
    let project = Project::of(repository)?.unwrap_or_default();
    let mut plan = Plan::default();
    let mut files = Files::default();
    let mut dependencies = project.dependencies.clone();
    if repository.has("uv.lock") && repository.has("pyproject.toml") {
        plan.values.push(("uv", "yes".to_owned()));
        let sync = "/opt/uv/bin/uv sync --frozen --no-dev --no-install-project";
        plan.values.push(("dependencies", sync.to_owned()));
        files.take(repository, &["pyproject.toml", "uv.lock"]);
    } else if repository.has("poetry.lock") || (project.is_poetry && !repository.has("requirements.txt")) {
        plan.values.push(("poetry", "yes".to_owned()));
        let install = "/opt/poetry/bin/poetry install --only main --no-root --no-interaction --no-ansi";
        plan.values.push(("dependencies", install.to_owned()));
        files.take(repository, &["pyproject.toml", "poetry.lock", "poetry.toml"]);
    } else if repository.has("requirements.txt") {
        let requirements = text(repository, "requirements.txt")?.unwrap_or_default();
        dependencies.extend(requirements.lines().filter_map(name));
        plan.values.push(("dependencies", "pip install -r requirements.txt".to_owned()));
        requirement_files(repository, &mut files);
        if requirements.lines().any(is_local) {
            files.need_source();
            plan.said
                .push("requirements.txt installs from the repository itself: it is installed at every push".into());
        }
    } else if !project.requirements.is_empty() {
        // The list itself is the cache key: other changes of pyproject.toml cost nothing.
        let words = ["pip", "install"].into_iter().chain(project.requirements.iter().map(String::as_str));
        plan.values.push(("dependencies", exec(words)));
    } else if detect(repository).is_none() {
        plan.said.push(nothing_to_install(repository));
    }
    plan.values.push(("copies", files.lines()));
    if files.needs_source() {
        plan.values.push(("source_first", "yes".to_owned()));
    }
    if repository.has_folder("src") {
        plan.values.push(("python_path", "/app/src".to_owned()));
    }
    plan.said.extend(version_warning(repository, &project));
    plan.command = command(repository, &dependencies, &mut plan.said);
    Ok(plan)
}

/// The line for a repository whose dependencies are not where they are looked for.
fn nothing_to_install(repository: &Repository) -> String {
    let looked = "no uv.lock, poetry.lock, requirements.txt or pyproject.toml with dependencies at the top";
    let listed =
        |path: &&String| ["requirements.txt", "pyproject.toml"].iter().any(|file| path.ends_with(&format!("/{file}")));
    let elsewhere = match repository.paths.iter().find(listed) {
        Some(path) if path.ends_with(".txt") => format!(" (there is {path}: `install: pip install -r {path}`)"),
        Some(path) => format!(" (there is {path})"),
        None => String::new(),
    };
    format!("Warning: the python buildpack installs nothing: {looked} of the repository{elsewhere}")
}

/// What pyproject.toml says that matters here.
#[derive(Debug, Default)]
struct Project {
    is_program: bool,
    is_poetry: bool,
    /// As pip takes them.
    requirements: Vec<String>,
    /// Names alone, normalised.
    dependencies: BTreeSet<String>,
    requires_python: Option<String>,
}

impl Project {
    fn of(repository: &Repository) -> Result<Option<Self>, PackError> {
        let path = "pyproject.toml";
        let Some(text) = text(repository, path)? else { return Ok(None) };
        let broken =
            |error: toml::de::Error| PackError::Broken { path: path.to_owned(), reason: error.message().to_owned() };
        let table: toml::Table = text.parse().map_err(broken)?;
        let project = table.get("project").and_then(toml::Value::as_table);
        let poetry = table.get("tool").and_then(|tool| tool.get("poetry")).and_then(toml::Value::as_table);
        let requirements: Vec<String> = project
            .and_then(|project| project.get("dependencies"))
            .and_then(toml::Value::as_array)
            .map(|list| list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let pinned = poetry.and_then(|poetry| poetry.get("dependencies")).and_then(toml::Value::as_table);
        let names = pinned.into_iter().flat_map(|table| table.keys()).map(|name| normal(name));
        Ok(Some(Self {
            is_program: project.is_some() || poetry.is_some(),
            is_poetry: pinned.is_some(),
            dependencies: requirements.iter().filter_map(|line| name(line)).chain(names).collect(),
            requires_python: project
                .and_then(|project| project.get("requires-python"))
                .and_then(toml::Value::as_str)
                .map(str::to_owned),
            requirements,
        }))
    }
}

/// The project's name in one requirement, normalised; nothing for options, links and comments.
fn name(requirement: &str) -> Option<String> {
    let end = requirement.trim_start().find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
    let word = &requirement.trim_start()[..end.unwrap_or(requirement.trim_start().len())];
    word.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| normal(word))
}

/// Names are compared in lowercase with single dashes (PEP 503).
fn normal(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

/// Whether a requirement is a folder of the repository.
fn is_local(line: &str) -> bool {
    let line = line.trim();
    let target = line.strip_prefix("-e").or_else(|| line.strip_prefix("--editable")).unwrap_or(line);
    target.trim_start_matches(['=', ' ']).starts_with(['.', '/']) || line.contains("file:")
}

/// requirements.txt may include its neighbours.
fn requirement_files(repository: &Repository, files: &mut Files) {
    for path in &repository.paths {
        let is_list = |name: &str| name.starts_with("requirements") || name.starts_with("constraints");
        let listed = !path.contains('/') && path.ends_with(".txt") && is_list(path);
        if listed || path.starts_with("requirements/") {
            files.take(repository, &[path]);
        }
    }
}

/// A line when another minor version is asked for than there is.
fn version_warning(repository: &Repository, project: &Project) -> Option<String> {
    let asked = [".python-version", "runtime.txt"].into_iter().find_map(|file| {
        let line =
            repository.text(file)?.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
        Some((file, line.strip_prefix("python-").unwrap_or(line).to_owned()))
    });
    let (file, version) = match asked {
        Some(asked) => asked,
        None => ("pyproject.toml", project.requires_python.clone().filter(|range| excludes_debian(range))?),
    };
    let minor: Vec<&str> = version.split('.').take(2).collect();
    let shown = excerpt(&version, 20);
    let fits = minor.join(".") == VERSION || version == "3";
    (!fits).then(|| format!("Warning: {file} asks for Python {shown}; the buildpack has {VERSION} and uses that"))
}

/// Whether a range such as `>=3.12,<4` leaves Debian's version out; unsure means no.
fn excludes_debian(range: &str) -> bool {
    range.split(',').any(|bound| {
        let bound = bound.trim();
        let operator = bound.trim_end_matches(|c: char| c.is_ascii_digit() || ".* ".contains(c));
        let minor: Option<u32> =
            bound[operator.len()..].trim().strip_prefix("3.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match (operator.trim(), minor) {
            (">=", Some(minor)) => minor > 11,
            (">", Some(minor)) => minor > 11,
            ("<", Some(minor)) => minor <= 11,
            ("<=", Some(minor)) => minor < 11,
            ("~=" | "==", Some(minor)) => minor != 11 && bound.matches('.').count() > 1,
            (_, _) => false,
        }
    })
}

/// Files that may hold the application, in the order they are looked at.
const APPLICATIONS: [&str; 10] = [
    "app.py",
    "main.py",
    "wsgi.py",
    "asgi.py",
    "server.py",
    "application.py",
    "app/main.py",
    "app/app.py",
    "src/main.py",
    "src/app.py",
];

/// How the program is probably started.
fn command(repository: &Repository, dependencies: &BTreeSet<String>, said: &mut Vec<String>) -> Option<String> {
    let has = |name: &str| dependencies.contains(name);
    if repository.has("manage.py") && has("django") {
        return Some(django(repository, has("gunicorn"), has("uvicorn"), said));
    }
    let file = APPLICATIONS.into_iter().find(|file| repository.has(file))?;
    // The template puts `src` into Python's path.
    let module = file.trim_end_matches(".py").trim_start_matches("src/").replace('/', ".");
    let text = repository.text(file).unwrap_or_default();
    let variable = variable(text).unwrap_or(if module.ends_with("sgi") { "application" } else { "app" });
    let asynchronous = has("fastapi") || has("starlette") || module == "asgi" || !(has("flask") || has("gunicorn"));
    if asynchronous && (has("uvicorn") || has("fastapi")) {
        return Some(format!("uvicorn {module}:{variable} --host 0.0.0.0 --port $PORT"));
    }
    if has("gunicorn") {
        return Some(format!("gunicorn {module}:{variable} --bind 0.0.0.0:$PORT"));
    }
    if has("flask") {
        said.push("Warning: gunicorn is not among the dependencies; Flask's development server answers".into());
        return Some(format!("flask --app {module}:{variable} run --host 0.0.0.0 --port $PORT"));
    }
    None
}

fn django(repository: &Repository, gunicorn: bool, uvicorn: bool, said: &mut Vec<String>) -> String {
    let package = |file: &str| {
        let inside = |path: &&String| path.matches('/').count() == 1 && path.ends_with(&format!("/{file}"));
        let folder = repository.paths.iter().find(inside)?.split('/').next()?;
        folder.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| folder.to_owned())
    };
    match (package("wsgi.py"), package("asgi.py")) {
        (Some(package), _) if gunicorn => format!("gunicorn {package}.wsgi:application --bind 0.0.0.0:$PORT"),
        (_, Some(package)) if uvicorn => format!("uvicorn {package}.asgi:application --host 0.0.0.0 --port $PORT"),
        (_, _) => {
            said.push("Warning: gunicorn is not among the dependencies; Django's development server answers".into());
            "python manage.py runserver --noreload 0.0.0.0:$PORT".to_owned()
        }
    }
}

/// The variable that a module assigns its application to.
fn variable(text: &str) -> Option<&str> {
    let makers =
        ["Flask(", "FastAPI(", "Starlette(", "Quart(", "Bottle(", "create_app(", "make_app(", "get_wsgi_application("];
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let name = name.split(':').next()?.trim_end();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let made = value.trim_start();
        let maker = makers.iter().any(|maker| made.starts_with(maker) || made.contains(&format!(".{maker}")));
        (is_name && maker).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_of(files: &[(&str, &str)]) -> Option<String> {
        plan(&Repository::of(files.iter().copied())).unwrap().command
    }

    #[test]
    fn the_start_command_follows_from_the_dependencies_and_the_file() {
        let check = |files: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(command_of(files).as_deref(), expected, "{files:?}");
        };
        let flask = ("requirements.txt", "Flask==3.0 # web\ngunicorn>=20\n");
        check(&[flask, ("app.py", "app = Flask(__name__)")], Some("gunicorn app:app --bind 0.0.0.0:$PORT"));
        check(
            &[flask, ("main.py", "site: Flask = flask.Flask(__name__)")],
            Some("gunicorn main:site --bind 0.0.0.0:$PORT"),
        );
        check(&[flask, ("wsgi.py", "")], Some("gunicorn wsgi:application --bind 0.0.0.0:$PORT"));
        check(&[flask], None);
        check(
            &[("requirements.txt", "flask"), ("app.py", "")],
            Some("flask --app app:app run --host 0.0.0.0 --port $PORT"),
        );
        check(&[("requirements.txt", "requests"), ("app.py", "")], None);
        let fast = ("pyproject.toml", "[project]\ndependencies = [\"fastapi[standard]\", \"uvicorn\"]");
        check(&[fast, ("main.py", "app = FastAPI()")], Some("uvicorn main:app --host 0.0.0.0 --port $PORT"));
        let files =
            [("requirements.txt", "fastapi\nuvicorn"), ("app/__init__.py", ""), ("app/main.py", "api = FastAPI()")];
        check(&files, Some("uvicorn app.main:api --host 0.0.0.0 --port $PORT"));
        check(&[flask, ("src/app.py", "app = Flask(__name__)")], Some("gunicorn app:app --bind 0.0.0.0:$PORT"));
        let django = ("requirements.txt", "Django\ngunicorn");
        let files = [django, ("manage.py", ""), ("shop/wsgi.py", ""), ("shop/settings.py", "")];
        check(&files, Some("gunicorn shop.wsgi:application --bind 0.0.0.0:$PORT"));
        let files = [("requirements.txt", "Django"), ("manage.py", "")];
        check(&files, Some("python manage.py runserver --noreload 0.0.0.0:$PORT"));
    }

    #[test]
    fn each_way_of_pinning_installs_by_its_own_tool() {
        let check = |files: &[(&str, &str)], by: Option<&str>, tool: &str| {
            let repository = Repository::of(files.iter().copied());
            assert_eq!(detect(&repository).as_deref(), by);
            let plan = plan(&repository).unwrap();
            let installs = plan.values.iter().find(|(key, _)| *key == "dependencies").map(|(_, text)| text.as_str());
            assert!(installs.unwrap_or_default().contains(tool), "{installs:?}");
        };
        let project = ("pyproject.toml", "[project]\ndependencies = [\"flask>=3,<4\"]");
        let poetry = ("pyproject.toml", "[tool.poetry.dependencies]\npython = \"^3.11\"\nflask = \"*\"");
        check(&[("requirements.txt", "flask")], Some("requirements.txt"), "pip install -r requirements.txt");
        check(&[project, ("uv.lock", "")], Some("uv.lock"), "uv sync --frozen");
        check(&[poetry, ("poetry.lock", "")], Some("poetry.lock"), "poetry install");
        check(&[poetry], Some("pyproject.toml"), "poetry install");
        check(&[project], Some("pyproject.toml"), r#"["pip","install","flask>=3,<4"]"#);
        check(&[("pyproject.toml", "[tool.black]\n")], None, "");
    }

    #[test]
    fn a_repository_whose_dependencies_lie_elsewhere_is_told_where_they_are_looked_for() {
        let said = plan(&Repository::of([("api/requirements.txt", "flask"), ("main.py", "")])).unwrap().said;
        assert!(said[0].contains("installs nothing") && said[0].contains("api/requirements.txt"), "{said:?}");
        assert!(plan(&Repository::of([("requirements.txt", "")])).unwrap().said.is_empty());
    }

    #[test]
    fn another_python_than_debians_is_warned_about() {
        let check = |file: (&str, &str), expected: Option<&str>| {
            let said = plan(&Repository::of([("uv.lock", ""), file])).unwrap().said;
            assert_eq!(said.first().map(String::as_str), expected, "{file:?}");
        };
        let warning = "Warning: runtime.txt asks for Python 3.12.1; the buildpack has 3.11 and uses that";
        check(("runtime.txt", "python-3.12.1\n"), Some(warning));
        check(("runtime.txt", "python-3.11.9"), None);
        check((".python-version", "3.11"), None);
        check(("pyproject.toml", "[project]\nrequires-python = \">=3.9\""), None);
        let warning = "Warning: pyproject.toml asks for Python >=3.12; the buildpack has 3.11 and uses that";
        check(("pyproject.toml", "[project]\nrequires-python = \">=3.12\""), Some(warning));
    }

    #[test]
    fn requirements_that_point_into_the_repository_are_installed_from_it() {
        for (line, expected) in
            [("-e .", true), ("./lib", true), ("x @ file:///app/x", true), ("flask", false), ("-r base.txt", false)]
        {
            assert_eq!(is_local(line), expected, "{line}");
        }
    }

    #[test]
    fn a_broken_pyproject_is_told() {
        let error = plan(&Repository::of([("pyproject.toml", "[project")])).unwrap_err();
        assert!(error.to_string().starts_with("`pyproject.toml` is not valid: "), "{error}");
    }
}
