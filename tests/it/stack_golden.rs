//! Whole descriptions of stacks and what they are read as: one folder each in `golden/`.
//!
//! `UPDATE_GOLDEN=1` writes what is expected from what comes out; read the difference before it is committed.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use quarry::buildpacks::{self, PackRequest, Repository};
use quarry::stack::{describe, files, yaml};

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// What came out of `case` is what its neighbour with this ending holds.
fn check(case: &Path, ending: &str, got: &str) {
    let golden = case.with_extension(ending);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, got).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(got == expected, "{} is not what came out:\n{got}", golden.display());
}

#[test]
fn good_descriptions_are_read_as_their_stacks() {
    for case in cases("good") {
        let described = describe(&files::read(&case).unwrap()).unwrap_or_else(|m| panic!("{}:\n{m}", case.display()));
        let stack = serde_json::to_string_pretty(&described.stack).unwrap();
        check(&case, "json", &format!("{stack}\n"));
        check(&case, "said", &format!("{}\n", described.said.join("\n")));
    }
}

#[test]
fn every_mistake_of_a_description_is_told_at_once_with_its_place() {
    for case in cases("wrong") {
        let mistakes = describe(&files::read(&case).unwrap()).unwrap_err();
        check(&case, "mistakes", &format!("{mistakes}\n"));
    }
}

#[test]
fn twelve_different_mistakes_are_twelve_lines_and_more() {
    let case = cases("wrong").into_iter().find(|case| case.ends_with("twelve")).unwrap();
    let mistakes = describe(&files::read(&case).unwrap()).unwrap_err();
    assert!(mistakes.0.len() >= 12, "{mistakes}");
    assert!(mistakes.0.iter().all(|mistake| mistake.line.is_some() && mistake.column.is_some()), "{mistakes}");
    assert!(mistakes.0.is_sorted_by_key(|mistake| mistake.line), "{mistakes}");
}

#[test]
fn packs_write_their_dockerfiles() {
    let install = ["make tools".to_owned(), "pip install \"x\"\n".to_owned()];
    let names = ["PIP_INDEX_URL".parse().unwrap(), "HTTPS_PROXY".parse().unwrap()];
    let plain = PackRequest::default();
    let full = PackRequest { install: &install, ca: true, build_env: &names };
    for case in cases("packs") {
        let repository = files::read(&case).unwrap();
        let pack = buildpacks::detect(&repository).unwrap();
        check(&case, "Dockerfile", &buildpacks::render(pack, &repository, &plain).unwrap().dockerfile);
        check(&case, "full.Dockerfile", &buildpacks::render(pack, &repository, &full).unwrap().dockerfile);
    }
}

#[test]
fn the_runtime_of_a_pack_is_the_same_text_for_every_repository() {
    let runtime = |case: &Path, request: &PackRequest<'_>| {
        let repository = files::read(case).unwrap();
        let pack = buildpacks::detect(&repository).unwrap();
        let text = buildpacks::render(pack, &repository, request).unwrap().dockerfile;
        (pack.name.to_owned(), text.split("WORKDIR").next().unwrap().to_owned())
    };
    let mut known = std::collections::BTreeMap::new();
    for case in cases("packs") {
        for request in [PackRequest::default(), PackRequest { ca: true, ..PackRequest::default() }] {
            let (pack, text) = runtime(&case, &request);
            assert_eq!(*known.entry(pack).or_insert_with(|| text.clone()), text, "{}", case.display());
        }
    }
}

/// An app.json, mostly of the keys that mean something, with values that often do not fit.
fn app_json() -> impl Strategy<Value = serde_json::Value> {
    let words = "env|formation|healthchecks|scripts|cron|buildpacks|dokku|web|worker|Web|quantity|size|memory|path|content|\
                 command|schedule|type|startup|readiness|liveness|attempts|wait|timeout|uptime|listening|port|httpHeaders|name|\
                 value|required|generator|secret|sync|predeploy|postdeploy|url|heroku/python|@daily|* * * * *|/up|concurrency_policy";
    let word = proptest::sample::select(words.split('|').map(str::to_owned).collect::<Vec<_>>());
    let text = prop_oneof![3 => word, 1 => any::<String>()];
    let leaf = prop_oneof![
        4 => text.clone().prop_map(serde_json::Value::from),
        2 => (-2..4000i64).prop_map(serde_json::Value::from),
        1 => any::<bool>().prop_map(serde_json::Value::from),
        1 => Just(serde_json::Value::Null),
    ];
    let value = leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            3 => proptest::collection::btree_map(text.clone(), inner.clone(), 0..6).prop_map(serde_json::Value::from_iter),
            1 => proptest::collection::vec(inner, 0..4).prop_map(serde_json::Value::from_iter),
        ]
    });
    let keys =
        proptest::sample::subsequence(vec!["env", "formation", "healthchecks", "scripts", "cron", "buildpacks"], 0..=6);
    (keys, proptest::collection::vec(value, 6)).prop_map(|(keys, values)| {
        keys.into_iter().map(str::to_owned).zip(values).collect::<serde_json::Map<_, _>>().into()
    })
}

/// Lines that a Procfile or CHECKS might have.
fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[a-zA-Z_-]{0,12}: ?.{0,30}",
        "(WAIT|TIMEOUT|ATTEMPTS|X)=.{0,6}",
        "/[a-z/]{0,10} ?.{0,20}",
        ".{0,40}"
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// Every mistake is of a file and has its line, but for what is said of a file or the repository as a whole.
fn has_its_place(mistake: &quarry::stack::Mistake) -> bool {
    let whole = ["there is no process", "`buildpack` is one of", "the file is empty", "`web` has no image"];
    let about = |start: &&str| mistake.message.starts_with(*start);
    mistake.line.is_some() || whole.iter().any(about) || mistake.message.contains("buildpack finds no command")
}

/// Text that looks enough like quarry.yml to get past its first lines.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("web"),
        Just("type"),
        Just("env"),
        Just("expose"),
        Just("link"),
        Just("health"),
        Just("domains"),
        Just("volumes"),
        Just("run"),
        Just("container"),
        Just("dockerfile"),
        Just("document_root"),
        Just("scale"),
        Just("8080:80"),
        Just("/a/../b"),
        Just("&a"),
        Just("*a"),
        Just("<<"),
        Just("!!str"),
        Just("!x"),
        Just("'"),
        Just("\""),
        Just("|"),
        Just("é\u{0}"),
        Just("99999999999999999999"),
        Just("-1"),
        Just("~"),
        Just("FROM x"),
    ];
    let joint = prop_oneof![
        Just(": "),
        Just(":\n"),
        Just("\n  "),
        Just("\n"),
        Just(" "),
        Just("\n- "),
        Just("\n    - "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("\t"),
        Just("\n---\n"),
        Just("#"),
        Just("\r\n"),
    ];
    proptest::collection::vec((word, joint), 0..60)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(word, joint)| [word, joint]).collect())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = yaml::parse("quarry.yml", &text, &Repository::default());
        let _ = describe(&Repository::of([("Procfile", text.as_str())]));
        let _ = buildpacks::dockerfile_ports(&text);
    }

    #[test]
    fn nothing_that_looks_like_quarry_yml_makes_the_parser_panic(text in yamlish()) {
        if let Err(mistakes) = yaml::parse("quarry.yml", &text, &Repository::of([("a/b", "")])) {
            prop_assert!(!mistakes.0.is_empty());
            prop_assert!(mistakes.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{mistakes:?}");
        }
    }

    #[test]
    fn the_files_of_others_are_read_or_refused_with_the_place(json in app_json(), text in lines(), any in any::<String>()) {
        let json = serde_json::to_string_pretty(&json).unwrap();
        for (app, procfile, checks, project) in
            [(json.as_str(), text.as_str(), "", ""), (&any, "web: x", &text, &any), (&json, "web: x\nworker: y", &any, &text)]
        {
            let files =
                [("app.json", app), ("Procfile", procfile), ("CHECKS", checks), ("project.toml", project), ("Dockerfile", "FROM a")];
            let lines = match describe(&Repository::of(files)) {
                Ok(described) => described.said,
                Err(mistakes) => {
                    prop_assert!(mistakes.0.iter().all(has_its_place), "{mistakes}\n{app}\n{procfile}");
                    mistakes.0.iter().map(ToString::to_string).collect()
                }
            };
            prop_assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        }
    }

    #[test]
    fn a_schedule_is_its_own_text_again(text in "[0-9*/,@a-z -]{0,24}") {
        if let Ok(schedule) = text.parse::<quarry::stack::Schedule>() {
            prop_assert_eq!(schedule.as_str().parse(), Ok(schedule.clone()));
        }
    }

    #[test]
    fn nothing_in_a_repository_adds_a_line_of_its_own_to_a_dockerfile(text in prop_oneof![yamlish(), any::<String>()]) {
        let json = |value: &str| serde_json::to_string(value).unwrap();
        let start = format!(r#"{{"scripts": {{"start": {0}, "build": {0}}}, "packageManager": {0}}}"#, json(&text));
        let main = format!(r#"{{"main": {0}, "workspaces": true, "engines": {{"node": {0}}}}}"#, json(&text));
        let escaped: String = text.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
        let project = format!("[project]\nrequires-python = \"{escaped}\"\ndependencies = [\"{escaped}\"]");
        let member = format!("{text}/package.json");
        let module = format!("{text} = Flask()");
        let gem = format!("gem '{text}'\nruby '{text}'\n{text}");
        let (gemspec, maven, jar) = (format!("{text}.gemspec"), format!(".mvn/{text}"), format!("{text}.jar"));
        let go = format!("module {text}\n// +heroku install {text} ./{text}\ngo {text}\n{text}");
        let command = format!("cmd/{text}/main.go");
        let cargo = format!("[package]\nname = \"{escaped}\"\nrust-version = \"{escaped}\"\ndefault-run = \"{escaped}\"");
        let composer = format!(r#"{{"require": {{"php": {0}, "ext-gd": {0}}}, "scripts": {{"compile": {0}}}}}"#, json(&text));
        let java = format!("java.runtime.version={text}");
        let repositories = [
            vec![("package.json", start.as_str()), (member.as_str(), "{}")],
            vec![("package.json", main.as_str()), (text.as_str(), ""), (member.as_str(), "{}")],
            vec![("pyproject.toml", project.as_str()), ("main.py", module.as_str())],
            vec![("requirements.txt", text.as_str()), ("requirements/\n", ""), ("Aptfile", text.as_str())],
            vec![("requirements.txt", "flask"), ("app.py", module.as_str()), ("runtime.txt", text.as_str())],
            vec![("Gemfile", gem.as_str()), ("Gemfile.lock", text.as_str()), (".ruby-version", text.as_str()), (gemspec.as_str(), "")],
            vec![("go.mod", go.as_str()), (command.as_str(), ""), ("main.go", "")],
            vec![("go.mod", go.as_str()), (command.as_str(), "")],
            vec![("Cargo.toml", cargo.as_str()), ("src/main.rs", ""), ("rust-toolchain", text.as_str())],
            vec![("composer.json", composer.as_str()), ("composer.lock", text.as_str())],
            vec![("pom.xml", text.as_str()), (maven.as_str(), ""), ("system.properties", java.as_str())],
            vec![(jar.as_str(), "")],
        ];
        let install = [text.clone()];
        for files in repositories {
            let repository = Repository::of(files);
            let Some(pack) = buildpacks::detect(&repository) else { continue };
            for install in [&install[..], &[]] {
                let request = PackRequest { install, ..PackRequest::default() };
                let Ok(rendered) = buildpacks::render(pack, &repository, &request) else { continue };
                prop_assert_eq!(foreign_line(&rendered.dockerfile), None, "{}", rendered.dockerfile);
                prop_assert!(rendered.said.iter().all(|line| !line.contains(char::is_control)), "{:?}", rendered.said);
            }
        }
    }
}

/// A line that does not begin with an instruction the templates use, continuations taken together.
fn foreign_line(dockerfile: &str) -> Option<String> {
    let instructions = ["ARG ", "FROM ", "RUN ", "ENV ", "WORKDIR ", "COPY ", "USER ", "CMD ", "STOPSIGNAL "];
    let joined = dockerfile.replace("\\\n", "");
    let foreign = joined.split(['\n', '\r']).find(|line| !instructions.iter().any(|known| line.starts_with(known)));
    foreign.filter(|line| !line.is_empty()).map(str::to_owned)
}
