//! The house rules that a machine can check. A finding names the file, the line and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::source::{Source, line_of};

#[path = "tidy/source.rs"]
mod source;

/// The layers from the ground up; a module imports from layers below its own. `src/lib.rs` shows the same table.
const LAYERS: [&[&str]; 10] = [
    &["names", "units", "clock", "descriptors"],
    &["env"],
    &["etc", "db", "front", "grid", "buildpacks", "seal"],
    &["stack", "docker", "router"],
    &["certs", "instruction", "servers"],
    &["build", "embassy", "network"],
    &["agent", "launch"],
    &["hq"],
    &["api", "dock"],
    &["cli"],
];

/// Traits for the outside world.
const SEAMS: [&str; 10] = [
    "certs/authority.rs",
    "db/mod.rs",
    "docker/mod.rs",
    "router/edge.rs",
    "clock.rs",
    "hq/door.rs",
    "hq/cloud/gate.rs",
    "servers/cloud.rs",
    "servers/supply.rs",
    "agent/mod.rs",
];

/// A file, or a folder of them, with one of these names knows that one outside thing.
const TOUCH: [&str; 21] = [
    "acme", "ssh", "git", "tar", "bollard", "etcd", "files", "nginx", "iptables", "nft", "ip", "tcp", "http",
    "process", "stats", "socket", "terminal", "limits", "lock", "tarball", "sshd",
];

/// What a file that decides does not do.
const IO: [&str; 18] = [
    "std::fs",
    "std::process",
    "std::os::unix::net",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::thread::spawn",
    "std::thread::sleep",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "tokio::spawn",
    "tokio::time::sleep",
    "rustix::fs",
    "rustix::process",
    "Timestamp::now",
    "Instant::now",
    "SystemTime::now",
];

/// Crates whose types stop at the files that touch their thing.
const CRATES: [(&str, &str); 5] =
    [("instant_acme", "acme"), ("bollard", "bollard"), ("etcd_client", "etcd"), ("russh", "ssh"), ("git2", "git")];

/// Folders of the repository that are embedded, each by one file.
const ASSETS: [&str; 3] = ["hooks", "buildpacks", "router"];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;

/// A rule that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: String) -> Self {
        Self { path: source.path.clone(), line, what }
    }
}

/// What DESIGN calls the kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decide,
    Seam,
    Touch,
    Act,
    Fake,
    Door,
}

fn kind(source: &Source) -> Kind {
    let parts = source.parts();
    if SEAMS.contains(&source.path.as_str()) {
        Kind::Seam
    } else if parts.first() == Some(&"cli") || source.path == "main.rs" {
        Kind::Door
    } else if parts.iter().skip(1).any(|part| *part == "fake") {
        Kind::Fake
    } else if parts.last() == Some(&"act") {
        Kind::Act
    } else if parts.iter().any(|part| TOUCH.contains(part)) {
        Kind::Touch
    } else {
        Kind::Decide
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module that a path in a source leads to, when it leads to one of this crate's.
fn target<'a>(source: &Source, path: &'a str) -> Option<&'a str> {
    let mut segments = path.split("::").peekable();
    if segments.next_if_eq(&"crate").is_some() {
        return segments.next();
    }
    let mut ups = 0;
    while segments.next_if_eq(&"super").is_some() {
        ups += 1;
    }
    (ups > 0 && ups == source.module().len()).then(|| segments.next()).flatten()
}

fn imports(source: &Source) -> Vec<Finding> {
    let Some(&from) = source.module().first() else { return Vec::new() };
    let Some(own) = layer(from) else {
        let what = format!("`{from}` has no layer; give it a row in tests/it/tidy.rs and in src/lib.rs");
        return vec![Finding::new(source, 1, what)];
    };
    let refused = |(line, path): (usize, String)| {
        let to = target(source, &path)?;
        let other = layer(to)?;
        let why = if to == from || other < own {
            return None;
        } else if other == own {
            "stands beside it"
        } else {
            "stands above it"
        };
        let what = format!("`{from}` imports `{to}`, which {why}; take what is needed as an argument, or move it down");
        Some(Finding::new(source, line, what))
    };
    source.paths().into_iter().filter_map(refused).collect()
}

fn io_in_decisions(source: &Source) -> Vec<Finding> {
    if kind(source) != Kind::Decide {
        return Vec::new();
    }
    let does = |path: &str| IO.iter().find(|io| is_at(path, io) || ends_like(path, io)).copied();
    let used = source.paths().into_iter().filter_map(|(line, path)| Some((line, format!("uses {}", does(&path)?))));
    let waits = source.code.match_indices("async fn ").map(|(place, _)| {
        let line = line_of(&source.code, place);
        (line, "has an `async fn`".to_owned())
    });
    let advice = "move that into an act or touch file (names in tests/it/tidy.rs), or take its result as an argument";
    used.chain(waits)
        .map(|(line, what)| Finding::new(source, line, format!("a file that decides {what}; {advice}")))
        .collect()
}

/// Whether `path` is `what` or lies below it.
fn is_at(path: &str, what: &str) -> bool {
    path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a path such as `jiff::Timestamp::now` ends in `Timestamp::now`.
fn ends_like(path: &str, what: &str) -> bool {
    what.ends_with("::now") && path.strip_suffix(what).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

fn stray_crates(source: &Source) -> Vec<Finding> {
    let stray = |(line, path): (usize, String)| {
        let (name, home) = CRATES.iter().find(|(name, _)| path.starts_with(&format!("{name}::")))?;
        if source.parts().contains(home) {
            return None;
        }
        let what = format!("the crate {name} stops at files named `{home}`; give it a type of our own there");
        Some(Finding::new(source, line, what))
    };
    source.paths().into_iter().filter_map(stray).collect()
}

fn long_file(source: &Source) -> Vec<Finding> {
    let lines = source.written.lines().count();
    if lines <= LONGEST_FILE {
        return Vec::new();
    }
    let what = format!("{lines} lines before the tests, {LONGEST_FILE} is the limit; split it along a noun");
    vec![Finding::new(source, lines, what)]
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.code.lines().collect();
    let starts = lines.iter().enumerate().filter_map(|(place, line)| Some((place, function(line)?)));
    let long = starts.filter_map(|(start, name)| {
        let length = length(&lines[start..]);
        let what = format!("`{name}` has {length} lines, {LONGEST_FUNCTION} is the limit; give a step of it a name");
        (length > LONGEST_FUNCTION).then(|| Finding::new(source, start + 1, what))
    });
    long.collect()
}

/// The name of the function whose head begins on this line.
fn function(line: &str) -> Option<&str> {
    let mut words = line.trim_start();
    while let Some((word, rest)) = words.split_once(' ') {
        match word {
            "fn" => return rest.split(['(', '<']).next(),
            "pub" | "async" | "const" | "unsafe" | "default" | "extern" => words = rest,
            visibility if visibility.starts_with("pub(") => words = rest,
            _ => return None,
        }
    }
    None
}

/// How many lines a function that begins on the first one has: to the brace that closes it, or to the end of its head.
fn length(lines: &[&str]) -> usize {
    let mut depth = 0_usize;
    for (place, line) in lines.iter().enumerate() {
        let opened = depth > 0 || line.contains('{');
        depth += line.matches('{').count();
        depth -= line.matches('}').count().min(depth);
        if depth == 0 && (opened || line.trim_end().ends_with(';')) {
            return place + 1;
        }
    }
    lines.len()
}

fn unfinished(source: &Source) -> Vec<Finding> {
    let found = |word: &'static str| {
        let whole = |place: usize| !source.whole[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        source.whole.match_indices(word).filter(move |(place, _)| whole(*place)).map(move |(place, _)| {
            let what = format!("`{word}` is for work under way; write what is missing");
            Finding::new(source, line_of(&source.whole, place), what)
        })
    };
    ["todo!", "unimplemented!", "dbg!"].into_iter().flat_map(found).collect()
}

/// The asset folders that a source embeds, with the line.
fn embedded(source: &Source) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for name in ["include_str!", "include_bytes!", "include_dir!"] {
        for (place, _) in source.code.match_indices(name) {
            let end = source.code[place..].find(';').map_or(source.code.len(), |length| place + length);
            let texts = source.written[place..end].split('"').skip(1).step_by(2);
            let asset = texts.filter_map(|text| asset(&source.path, text)).next();
            found.extend(asset.map(|asset| (line_of(&source.code, place), asset)));
        }
    }
    found
}

/// The asset folder a path leads to, from the file `source` or from the repository's root.
fn asset(source: &str, text: &str) -> Option<&'static str> {
    let from_root = text.strip_prefix("$CARGO_MANIFEST_DIR").or(text.starts_with('/').then_some(text));
    let mut place: Vec<&str> = match from_root {
        Some(_) => Vec::new(),
        None => std::iter::once("src").chain(source.split('/')).collect(),
    };
    place.pop();
    for segment in from_root.unwrap_or(text).split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(place.pop()),
            segment => place.push(segment),
        }
    }
    ASSETS.into_iter().find(|asset| place.first() == Some(asset))
}

fn second_readers(sources: &[Source]) -> Vec<Finding> {
    let mut readers: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for source in sources {
        for (line, asset) in embedded(source) {
            let first = *readers.entry(asset).or_insert(&source.path);
            if first != source.path {
                let what = format!("{asset}/ is embedded by src/{first} already; ask it for the text");
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

/// Every source below a folder, by path.
fn sources(folder: &Path) -> Vec<Source> {
    fn below(folder: &Path, root: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).unwrap().display().to_string();
                found.push(Source::new(&relative, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    below(folder, folder, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(mut findings: Vec<Finding>) {
    findings.sort();
    findings.dedup();
    let lines: Vec<String> = findings.iter().map(|f| format!("src/{}:{}: {}", f.path, f.line, f.what)).collect();
    assert!(lines.is_empty(), "{} findings\n\n{}\n", lines.len(), lines.join("\n"));
}

/// Runs one rule on every file.
fn assert_kept(rule: fn(&Source) -> Vec<Finding>) {
    let sources = sources(&root().join("src"));
    assert!(sources.len() > 20, "the sources are not where they are looked for");
    assert_none(sources.iter().flat_map(rule).collect());
}

#[test]
fn modules_import_only_from_layers_below() {
    assert_kept(imports);
}

#[test]
fn files_that_decide_do_nothing_else() {
    assert_kept(io_in_decisions);
}

#[test]
fn outside_crates_stop_at_their_touch_file() {
    assert_kept(stray_crates);
}

#[test]
fn files_are_short() {
    assert_kept(long_file);
}

#[test]
fn functions_fit_a_screen() {
    assert_kept(long_functions);
}

#[test]
fn nothing_is_left_to_do() {
    assert_kept(unfinished);
    assert_none(sources(&root().join("tests")).iter().flat_map(unfinished).collect());
}

#[test]
fn each_asset_folder_has_one_reader() {
    assert_none(second_readers(&sources(&root().join("src"))));
}

#[test]
fn the_table_in_lib_rs_is_the_one_that_is_checked() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table = text.split("```").nth(1).expect("src/lib.rs shows the layers");
    let mut shown: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    let mut row = None;
    for word in table.split_whitespace().filter(|word| *word != "//!" && *word != "text") {
        match word.parse::<usize>() {
            Ok(number) => row = Some(number),
            Err(_) => drop(shown.entry(row.expect("a number begins each row")).or_default().insert(word)),
        }
    }
    let checked: BTreeMap<usize, BTreeSet<&str>> =
        LAYERS.iter().map(|names| names.iter().copied().collect()).enumerate().collect();
    assert_eq!(shown, checked, "write the same rows in src/lib.rs and tests/it/tidy.rs");
}

/// Each rule on a text that breaks it in these lines.
mod rules {
    use super::*;

    fn check(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str, expected: &[usize]) {
        let findings = rule(&Source::new(path, text));
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{path}: {findings:?}\n{text}");
    }

    #[test]
    fn upward_and_sideways_imports_are_found() {
        check(imports, "db/mod.rs", "use crate::names::StackName;\nuse crate::env::Env;\n", &[]);
        check(imports, "db/mod.rs", "use crate::{\n    hq::Push, names,\n};\n", &[1]);
        check(imports, "db/files/tree.rs", "use crate::db::Key;\nuse super::super::super::docker::Engine;\n", &[2]);
        check(imports, "db/files/tree.rs", "use super::super::Key;\n", &[]);
        check(imports, "stack/mod.rs", "fn f() {\n    crate::docker::fake::Fake::new();\n}\n", &[2]);
        check(imports, "units.rs", "use super::names::X;\n// use crate::hq::X;\n", &[1]);
        check(imports, "env.rs", "#[cfg(test)]\nmod tests {\n    use crate::hq::X;\n}\n", &[3]);
        check(imports, "env.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::hq::X;\n}\n", &[]);
        check(imports, "misc/mod.rs", "", &[1]);
        check(imports, "main.rs", "use crate::cli;\n", &[]);
        check(imports, "lib.rs", "pub mod cli;\n", &[]);
    }

    #[test]
    fn io_is_found_in_files_that_decide_and_only_there() {
        let bad = "use std::fs;\nuse std::{io, process::Command};\nasync fn f() {}\nlet now = Instant::now();\nlet t = jiff::Timestamp::now();\n";
        check(io_in_decisions, "launch/plan.rs", bad, &[1, 2, 4, 5, 3]);
        for path in
            ["launch/act.rs", "db/files/tree.rs", "docker/bollard.rs", "cli/ps.rs", "db/mod.rs", "docker/fake/world.rs"]
        {
            check(io_in_decisions, path, bad, &[]);
        }
        check(
            io_in_decisions,
            "launch/plan.rs",
            "/// std::fs\nlet what = \"std::fs\"; my::std::fs(); std::fstab();\n",
            &[],
        );
    }

    #[test]
    fn outside_crates_are_found_away_from_home() {
        check(stray_crates, "docker/fake.rs", "use bollard::Docker;\nuse crate::docker::bollard::Engine;\n", &[1]);
        check(stray_crates, "docker/bollard/build.rs", "use bollard::Docker;\n", &[]);
        check(stray_crates, "hq/ssh.rs", "let repository = git2::Repository::open(path);\n", &[1]);
    }

    #[test]
    fn long_files_are_found() {
        check(long_file, "a.rs", &"x\n".repeat(400), &[]);
        check(long_file, "a.rs", &"x\n".repeat(401), &[401]);
        check(long_file, "a.rs", &format!("x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(500)), &[]);
    }

    #[test]
    fn long_functions_are_found() {
        let body = |lines: usize| "        let x = \"}\"; // }\n".repeat(lines);
        let function = |lines: usize| format!("impl A {{\n    pub async fn f(\n    ) {{\n{}    }}\n}}\n", body(lines));
        check(long_functions, "a.rs", &function(57), &[]);
        check(long_functions, "a.rs", &function(58), &[2]);
        check(long_functions, "a.rs", &format!("trait A {{\n    fn f(&self);\n}}\n{}", "x\n".repeat(99)), &[]);
    }

    #[test]
    fn unfinished_work_is_found_in_tests_too() {
        let text = "// todo!\nlet a = todo!();\n\n#[cfg(test)]\nmod tests {\n    dbg!(1);\n}\nmy_dbg!(1);\n";
        check(unfinished, "a.rs", text, &[2, 6]);
    }

    #[test]
    fn a_second_reader_of_an_asset_folder_is_found() {
        let reader = |path: &str, text: &str| Source::new(path, text);
        let one = reader("router/text.rs", "const A: &str = include_str!(\"../../router/a.lua\");\n");
        let same = reader("router/text.rs", "const B: &str = include_str!(\n    \"../../router/b.lua\"\n);\n");
        let own = reader("hq/page.rs", "const P: &str = include_str!(\"page.html\");\n");
        let other = reader("hq/git.rs", "\nconst H: &str = include_str!(concat!(env!(\"X\"), \"/router/b.lua\"));\n");
        assert!(second_readers(&[own, same]).is_empty());
        let findings = second_readers(&[one, other]);
        assert_eq!(
            findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect::<Vec<_>>(),
            [("hq/git.rs", 2)]
        );
    }
}
