//! What is fed, with what, and what must hold of it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use quarry::build::dockerfile::Dockerfile;
use quarry::build::dockerignore::Ignore;
use quarry::build::elsewhere::{Around, images};
use quarry::build::engine::{Abilities, Syntax, adapt};
use quarry::build::output::{Output, clean};
use quarry::buildpacks::Repository;
use quarry::cli::{advice, normalised};
use quarry::env::{Env, from_arguments, from_text};
use quarry::front::{Hash, Hsts, Login, Rate, Snippet, Status};
use quarry::hq::exec::{Request, parse, words};
use quarry::hq::hooks::{self, Packet};
use quarry::hq::keys::PublicKey;
use quarry::hq::remote::Remote;
use quarry::hq::{frames, shallow};
use quarry::names::printable::{is_harmless, printable, printable_json, printable_line};
use quarry::names::{Domain, StackName};
use quarry::router::{StackRoutes, check_domains, default_domains};
use quarry::servers::ssh::quote;
use quarry::units::net::Net;

use super::doors::{api, api_seeds, docker, docker_seeds, job, job_seeds};
use super::properties::{described, harmless, harmless_line};
use super::seeds::{files, texts};

/// A reader of other people's bytes.
pub struct Target {
    pub name: &'static str,
    /// What it begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Reads, and panics when a promise is broken.
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 21] = [
    Target {
        name: "exec",
        seeds: exec_seeds,
        words: &["git-receive-pack ", "git upload-pack ", ".git", "~/"],
        run: exec,
    },
    Target { name: "quarry-yml", seeds: || files("quarry.yml"), words: &YML, run: quarry_yml },
    Target { name: "app-json", seeds: || files("app.json"), words: &JSON, run: app_json },
    Target { name: "procfile", seeds: || files("Procfile"), words: &["web: ", "release: ", "worker: "], run: procfile },
    Target {
        name: "checks",
        seeds: || files("CHECKS"),
        words: &["WAIT=", "TIMEOUT=", "ATTEMPTS=", "//", "http://"],
        run: checks,
    },
    Target { name: "project", seeds: || files("project.toml"), words: &TOML, run: project },
    Target { name: "packs", seeds: pack_seeds, words: &PACKS, run: packs },
    Target { name: "env", seeds: env_seeds, words: &["export ", "\\u{1b}", "\\n", "A=", "\"", "'"], run: env },
    Target { name: "domains", seeds: domain_seeds, words: &["*.", "xn--", "localhost", ".."], run: domains },
    Target {
        name: "pkt-lines",
        seeds: packet_seeds,
        words: &["0000", "0004", "fff0", "shallow ", "refs/heads/"],
        run: packets,
    },
    Target { name: "frames", seeds: frame_seeds, words: &["\u{1}\0\0\0\u{5}", "words", "terminal"], run: messages },
    Target { name: "nginx", seeds: route_seeds, words: &JSON, run: nginx },
    Target {
        name: "snippet",
        seeds: snippet_seeds,
        words: &["add_header ", "expires ", ";", "\"", "'", "\\", "${", "}", "{", "#"],
        run: snippet,
    },
    Target {
        name: "rules",
        seeds: rule_seeds,
        words: &["$6$", "/s burst ", "includeSubDomains", "/24", "::"],
        run: rules,
    },
    Target {
        name: "commands",
        seeds: command_seeds,
        words: &["\0-a\0", "\0--app=", "\0-p\0", "config", "logs", ":"],
        run: commands,
    },
    Target { name: "jobs", seeds: job_seeds, words: &YML, run: job },
    Target {
        name: "docker",
        seeds: docker_seeds,
        words: &["\"HostConfig\":{", "\"Binds\":[", "/containers/", "\"ExposedPorts\":{", "\"Labels\":{", "%2f"],
        run: docker,
    },
    Target { name: "api", seeds: api_seeds, words: &["/v1/", "stacks/", "?follow=", "%2f", "&limit="], run: api },
    Target { name: "dockerfile", seeds: || files("Dockerfile"), words: &DOCKER, run: dockerfile },
    Target {
        name: "submodules",
        seeds: || {
            texts(&[
                "https://me:x@git.example:8443/a/b.git",
                "git@git.example:a",
                "ssh://git@[::1]:22/~/a",
                "git://h/a",
            ])
        },
        words: &["://", "ssh://", "git@", "-oProxyCommand=", "[::ffff:127.0.0.1]", "@", ":", "ext::"],
        run: submodules,
    },
    Target {
        name: "screen",
        seeds: screen_seeds,
        words: &["\x1b[1;31m", "\x1b]8;;", "\x1b\\", "Step 1/2 : "],
        run: screen,
    },
];

const YML: [&str; 40] = [
    "web:",
    "type: ",
    "container: ",
    "image: ",
    "dockerfile: ",
    "buildpack: ",
    "install: ",
    "run: ",
    "command: ",
    "args: ",
    "cwd: ",
    "expose: ",
    "domains: ",
    "route: ",
    "document_root: ",
    "ssl_cert: ",
    "volumes: ",
    "env: ",
    "link: ",
    "global: ",
    "scale: ",
    "size: 256mb",
    "cpus: ",
    "filter: ",
    "tags: ",
    "fixed: true",
    "static",
    "health: ",
    "release: ",
    "overlap: ",
    "schedule: ",
    "hook: ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|\n",
    ">-\n",
    "\n  ",
    "- ",
];
const JSON: [&str; 24] = [
    "\"env\":",
    "\"formation\":",
    "\"healthchecks\":",
    "\"scripts\":",
    "\"cron\":",
    "\"buildpacks\":",
    "\"quantity\":",
    "\"size\":",
    "\"path\":",
    "\"command\":",
    "\"schedule\":",
    "\"generator\":",
    "\"secret\"",
    "\"required\":",
    "\"value\":",
    "\"domains\":",
    "\"target\":",
    "\"peers\":",
    "\"site\":",
    "\"address\":",
    "\\u001b",
    "\\u0000",
    "null",
    "1e400",
];
const TOML: [&str; 8] =
    ["[build]", "[[build.env]]", "name = ", "value = ", "[[io.buildpacks.group]]", "uri = ", "\"\"\"", "'''"];
const PACKS: [&str; 16] = [
    "\n---\n",
    "requirements.txt\n",
    "package.json\n",
    "Gemfile\n",
    "go.mod\n",
    "composer.json\n",
    "pom.xml\n",
    "Cargo.toml\n",
    "pyproject.toml\n",
    "runtime.txt\n",
    ".python-version\n",
    "Aptfile\n",
    "app.py\n",
    "main.go\n",
    "\nRUN id\n",
    "\\\n",
];
const DOCKER: [&str; 20] = [
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "EXPOSE ",
    "CMD ",
    "ENTRYPOINT ",
    "WORKDIR ",
    "ONBUILD ",
    "# syntax=",
    "# escape=`",
    "<<EOF",
    "<<-'EOF'",
    "EOF",
    "--mount=type=bind",
    "--from=",
    "${X:-y}",
    "AS ",
];

pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn exec_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "git-receive-pack 'blog.git'",
        "git upload-pack '/blog'",
        "env set blog A=\"x y\" 'B=c'",
        "run blog sh -c 'a \\\" b'",
    ])
}

fn exec(bytes: &[u8]) {
    match parse(bytes) {
        Ok(Request::Git(_, stack)) => {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(stack.as_str().chars().all(plain) && !stack.as_str().starts_with('-'), "{stack:?}");
        }
        Ok(Request::Command(given)) => {
            let quoted = quote(given.iter().map(String::as_str));
            assert_eq!(words(&quoted).as_ref(), Ok(&given), "{quoted}");
        }
        Err(error) => {
            harmless_line(&error.to_string());
            std::error::Error::source(&error).iter().for_each(|cause| harmless_line(&cause.to_string()));
        }
    }
}

fn quarry_yml(bytes: &[u8]) {
    let rest = [
        ("Dockerfile", "FROM a\nEXPOSE 80\n"),
        ("public/index.html", ""),
        ("requirements.txt", "flask\n"),
        ("app/x", ""),
    ];
    described(&Repository::of([("quarry.yml", &*text(bytes))].into_iter().chain(rest)));
}

fn app_json(bytes: &[u8]) {
    described(&Repository::of([
        ("app.json", &*text(bytes)),
        ("Procfile", "web: x\nworker: y\n"),
        ("Dockerfile", "FROM a\n"),
    ]));
}

fn procfile(bytes: &[u8]) {
    let text = text(bytes);
    described(&Repository::of([("Procfile", &*text), ("requirements.txt", "flask\n")]));
    described(&Repository::of([("Procfile", &*text), ("Dockerfile", "FROM a\nENTRYPOINT [\"x\"]\nEXPOSE 80 90\n")]));
}

fn checks(bytes: &[u8]) {
    described(&Repository::of([("CHECKS", &*text(bytes)), ("Procfile", "web: x\n"), ("Dockerfile", "FROM a\n")]));
}

fn project(bytes: &[u8]) {
    described(&Repository::of([("project.toml", &*text(bytes)), ("Procfile", "web: x\n"), ("package.json", "{}")]));
}

fn pack_seeds() -> Vec<Vec<u8>> {
    let names =
        ["package.json", "requirements.txt", "pyproject.toml", "Gemfile", "go.mod", "composer.json", "Cargo.toml"];
    let named = |name: &&str| {
        let named = |text: &Vec<u8>| [name.as_bytes(), b"\n", text].concat();
        files(name).iter().map(named).collect::<Vec<_>>()
    };
    names.iter().flat_map(named).collect()
}

/// Files behind each other, each with its name on its first line.
fn packs(bytes: &[u8]) {
    let text = text(bytes);
    let files = text.split("\n---\n").map(|file| file.split_once('\n').unwrap_or((file, "")));
    described(&Repository::of(files.chain([("Procfile", "web: x\n")])));
}

fn env_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "A=1\n# no\nexport B = two # x\nC='a #b'\n",
        "K=\"-----BEGIN\nline\n-----END\"\n",
        "{\"A\": \"1\", \"N\": 2}",
    ])
}

fn env(bytes: &[u8]) {
    let text = text(bytes);
    for read in [from_text(&text), from_arguments(text.split('\n'))] {
        match read {
            Ok(env) => {
                for pair in env.pairs() {
                    let name = pair.split('=').next().unwrap_or_default();
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    assert!(!name.is_empty() && name.chars().all(plain) && !pair.contains('\0'), "{pair:?}");
                }
            }
            Err(error) => {
                harmless_line(&error.to_string());
                std::error::Error::source(&error).iter().for_each(|cause| harmless_line(&cause.to_string()));
            }
        }
    }
}

fn domain_seeds() -> Vec<Vec<u8>> {
    texts(&["blog.example.com\n*.example.com\nlocalhost\n", "a.b.localhost\nxn--bcher-kva.example\n1.2.3.4"])
}

fn domains(bytes: &[u8]) {
    let text = text(bytes);
    let blog: StackName = "blog".parse().unwrap();
    let hostnames: [Domain; 2] = ["localhost", "apps.test"].map(|name| name.parse().unwrap());
    let mut good = Vec::new();
    for line in text.lines() {
        match line.parse::<Domain>() {
            Ok(domain) => {
                assert!(domain.as_str().len() <= 255 && domain.as_str() == line);
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
                assert!(domain.as_str().trim_start_matches("*.").chars().all(plain), "{domain:?}");
                good.push(domain);
            }
            Err(error) => harmless_line(&error.to_string()),
        }
        if let Ok(stack) = line.parse::<StackName>() {
            assert!(!default_domains(&stack, None, &hostnames).is_empty());
        }
    }
    match check_domains(&blog, &good, &hostnames, &[]) {
        Ok(()) => {
            // What lies below the server's own names answers for the stack of that name alone.
            let below =
                |domain: &&Domain| domain.as_str().ends_with(".localhost") || domain.as_str().ends_with(".apps.test");
            for domain in good.iter().filter(below) {
                let label =
                    domain.as_str().trim_end_matches(".localhost").trim_end_matches(".apps.test").rsplit('.').next();
                assert_eq!(label, Some("blog"), "{domain}");
            }
        }
        Err(bad) => harmless(&bad.to_string()),
    }
}

fn packet_seeds() -> Vec<Vec<u8>> {
    let id = "1".repeat(40);
    let mut command = Vec::new();
    hooks::write(&mut command, Packet::Line(b"version=1\0push-options atomic"));
    hooks::write(&mut command, Packet::Flush);
    hooks::write(&mut command, Packet::Line(format!("{} {id} refs/heads/master", "0".repeat(40)).as_bytes()));
    hooks::write(&mut command, Packet::Flush);
    let mut cut = Vec::new();
    hooks::write(&mut cut, Packet::Line(format!("shallow {id}\n").as_bytes()));
    hooks::write(&mut cut, Packet::Line(format!("{id} {id} refs/heads/a\0report-status").as_bytes()));
    hooks::write(&mut cut, Packet::Flush);
    vec![command, cut]
}

fn packets(bytes: &[u8]) {
    if let Ok(shallow::Opening::Over { length, .. }) = shallow::opening(bytes) {
        assert!(length <= bytes.len());
    }
    let mut rest = bytes;
    while let Some((digits, after)) = rest.split_first_chunk::<4>() {
        let Ok(length) = hooks::length(*digits) else { break };
        let Some(line) = after.get(..length.unwrap_or(0)) else { break };
        rest = &after[line.len()..];
        if let Ok(offer) = hooks::offer(line) {
            one_packet(&hooks::acceptance(offer)[..hooks::acceptance(offer).len() - 4]);
        }
        if let Ok(command) = hooks::command(line) {
            assert!(command.reference.starts_with("refs/"));
            let mut report = Vec::new();
            hooks::report(&mut report, &command.reference, Err(&text(bytes)));
            one_packet(&report);
            let reason = &report[4..].strip_prefix(format!("ng {} ", command.reference).as_bytes());
            assert!(reason.is_none_or(|reason| text(reason).chars().all(is_harmless)), "{:?}", text(&report));
        }
    }
}

/// What is written is read as one line, whole.
fn one_packet(bytes: &[u8]) {
    let (digits, line) = bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(hooks::length(*digits), Ok(Some(line.len())), "{:?}", text(bytes));
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let words = vec!["ps".to_owned(), "blog".to_owned()];
    let messages =
        [frames::Message::Command { words, terminal: None }, frames::Message::Stdin(Bytes::from_static(b"x"))];
    let encoded = messages.iter().map(|message| {
        let mut bytes = BytesMut::new();
        frames::encode(message, &mut bytes);
        bytes.to_vec()
    });
    encoded.collect()
}

fn messages(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<{ frames::HEAD }>() {
        let (kind, length) = match frames::head(*head) {
            Ok(head) => head,
            Err(error) => return harmless_line(&error.to_string()),
        };
        let Some(content) = after.get(..length) else { return };
        rest = &after[length..];
        match frames::decode(kind, Bytes::copy_from_slice(content)) {
            Ok(message) => {
                let mut again = BytesMut::new();
                frames::encode(&message, &mut again);
                let head = *again.first_chunk::<{ frames::HEAD }>().unwrap();
                let length = frames::head(head).unwrap().1;
                let content = again.split_off(frames::HEAD).freeze();
                assert_eq!(length, content.len());
                assert_eq!(frames::decode(kind, content), Ok(message));
            }
            Err(error) => harmless_line(&error.to_string()),
        }
    }
}

fn route_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"stack\":\"blog\",\"release\":7,\"nodes\":{\"docs\":{\"domains\":[\"docs.test\"],\"target\":{\"site\":\"/srv/docs\"}},\
         \"web\":{\"domains\":[\"*.blog.test\"],\"target\":{\"peers\":[{\"container\":\"blog.web.7.1\",\"address\":\"172.17.0.1:20000\"}]}}}}",
    ])
}

fn snippet_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "expires 1h;",
        "add_header X-A 'a \"b\"' always; # b\n",
        r"rewrite ^/(.*)\.html$ /$1 permanent;",
        "sub_filter ${host} x;",
    ])
}

/// What a stack adds to nginx's configuration is known names and words in quotes, whatever it was.
fn snippet(bytes: &[u8]) {
    let Ok(snippet) = String::from_utf8_lossy(bytes).parse::<Snippet>() else { return };
    for line in snippet.lines(false) {
        let (mut quoted, mut escaped, mut outside) = (false, false, String::new());
        for c in line.chars() {
            assert!(!c.is_control() || c == '\t', "{line:?}");
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                c if !quoted => outside.push(c),
                _ => {}
            }
        }
        let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == ' ';
        assert!(!quoted && outside.strip_suffix(';').is_some_and(|rest| rest.chars().all(plain)), "{line:?}");
    }
    assert_eq!(snippet.to_string().parse(), Ok(snippet));
}

fn rule_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "10/s burst 5",
        "1y includeSubDomains",
        "anna",
        "192.0.2.0/24",
        "2001:db8::/32",
        "503",
        "$5$abcdefgh$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ])
}

/// What is taken reads back, from JSON too.
fn rules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    again::<Rate>(&text);
    again::<Hsts>(&text);
    again::<Login>(&text);
    again::<Hash>(&text);
    again::<Status>(&text);
    again::<Net>(&text);
}

fn again<T: std::str::FromStr + serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    text: &str,
) {
    if let Ok(read) = text.parse::<T>() {
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), read, "{json}");
    }
}

fn command_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "config:set\0A=1\0-a\0blog",
        "logs\0blog\0-p\0web",
        "rollback\0v12",
        "--stack\0x\0env",
        "run\0blog\0ls\0-a",
    ])
}

/// Another spelling never ends in a panic, and what is quarry's own already stays so.
fn commands(bytes: &[u8]) {
    let words: Vec<String> = String::from_utf8_lossy(bytes).split('\0').map(str::to_owned).collect();
    let once = normalised(words.clone());
    assert!(once.len() <= words.len() + 3, "{words:?} {once:?}");
    let _ = advice(&words);
}

/// A table as nginx is handed it: one line, that reads back as it was.
fn nginx(bytes: &[u8]) {
    if let Ok(routes) = serde_json::from_str::<StackRoutes>(&text(bytes)) {
        let line = serde_json::to_string(&routes).unwrap();
        assert!(!line.contains(['\n', '\r', '\0']), "{line:?}");
        assert_eq!(serde_json::from_str::<StackRoutes>(&line).unwrap(), routes);
    }
}

fn dockerfile(bytes: &[u8]) {
    let text = text(bytes);
    let parsed = Dockerfile::parse(&text);
    let lines = text.lines().count();
    assert!(
        parsed
            .instructions
            .iter()
            .all(|instruction| instruction.lines.0 < instruction.lines.1 && instruction.lines.1 <= lines)
    );
    let _ = (parsed.builder(), quarry::buildpacks::dockerfile_ports(&text));
    match images(&parsed, Around { arguments: &Env::new(), architecture: "amd64" }) {
        Ok(images) => assert!(images.iter().all(|image| !image.is_empty()), "{images:?}"),
        Err(error) => harmless(&printable(&error.to_string())),
    }
    for knows_heredocs in [false, true] {
        match adapt("Dockerfile", &text, parsed.clone(), Abilities { syntax: Syntax::Missing, knows_heredocs }) {
            Ok(adapted) => {
                let inside = |path: &String| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
                assert!(adapted.files.keys().all(inside), "{:?}", adapted.files.keys());
                adapted.said.iter().for_each(|line| harmless_line(&printable(line)));
                assert!(knows_heredocs || !adapted.dockerfile.has_heredocs());
            }
            Err(error) => harmless_line(&printable_line(&error.to_string())),
        }
    }
    if let Ok(ignore) = Ignore::parse(".dockerignore", &text) {
        for path in ["a", "a/b/c.txt", ".git/config", "node_modules/x", "Dockerfile"] {
            let _ = ignore.verdict(path);
        }
    }
}

/// An address leads where it says and is nobody's option.
fn submodules(bytes: &[u8]) {
    let text = text(bytes);
    let Ok(remote) = Remote::parse(&text) else { return };
    let again = remote.at(&remote.host);
    assert_eq!(Remote::parse(&again), Ok(remote.clone()), "{again}");
    assert!(!remote.host.starts_with('-') && !again.starts_with('-') && remote.port() != 0, "{again}");
    assert!(again.chars().all(|c| is_harmless(c) && !c.is_whitespace()), "{again:?}");
    let pinned = remote.at("192.0.2.1");
    assert_eq!(Remote::parse(&pinned).map(|pinned| pinned.host).as_deref(), Ok("192.0.2.1"), "{pinned}");
}

fn screen_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "Step 1/2 : RUN x\n\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x1b\\b\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me",
        "plain é\u{202e}",
    ])
}

/// Every way of a foreign text to a terminal.
fn screen(bytes: &[u8]) {
    let text = text(bytes);
    let mut output = Output::default();
    let mut shown: Vec<String> = text.lines().flat_map(|line| output.line(line)).collect();
    let (held, step) = output.end();
    shown.extend(held.into_iter().chain(step));
    shown.push(clean(&text));
    for line in shown {
        let rest = without_colours(&line);
        assert!(rest.chars().all(|c| is_harmless(c) || c == '\t'), "{line:?}");
    }
    harmless(&printable(&text));
    harmless_line(&printable_line(&text));
    let json = serde_json::to_string_pretty(&BTreeMap::from([(&text, 1)])).unwrap();
    harmless(&printable_json(&json));
    assert_eq!(
        serde_json::from_str::<BTreeMap<String, u8>>(&printable_json(&json)).unwrap(),
        BTreeMap::from([(text.to_string(), 1)])
    );
    if let Err(error) = text.parse::<PublicKey>() {
        harmless_line(&error.to_string());
    }
}

/// The text without `ESC [ digits ; m`, which is all that may be left of a terminal's language.
fn without_colours(line: &str) -> String {
    let mut rest = line;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text.push_str(before);
        let end = after.find('m').unwrap_or(after.len());
        let plain = after[..end].bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'));
        assert!(plain && end < after.len(), "{line:?}");
        rest = &after[end + 1..];
    }
    text + rest
}
