//! A job: one process to run, as JSON or YAML, or as the flags of a command.
//!
//! It is a node without a repository: its keys are those of quarry.yml that such a node can have, and a few of its own.

use std::collections::BTreeSet;

use crate::buildpacks::Repository;
use crate::names::{NodeName, ServerName, StackName};

use super::entry::{self, Around};
use super::keys::{Found, Keys, is_known};
use super::mistakes::{Mistakes, Notes, nearest, shown};
use super::tree::{self, Entry, Shape, Spot, Tree};
use super::{Kind, Node, Source, values};

/// One process to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name; one that nobody has to know gets one when it runs.
    pub name: Option<NodeName>,
    /// In whose name it runs; in that of jobs as such without.
    pub stack: Option<StackName>,
    /// The server it was given to.
    pub server: Option<ServerName>,
    /// Whether it runs by itself; whoever runs another one is attached to it.
    pub daemonize: bool,
    /// What runs, and how.
    pub node: Node,
}

/// A key that was given as a flag, which covers that of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The key.
    pub key: &'static str,
    /// Its value, or the items of its list.
    pub values: Vec<String>,
    /// Whether it is a list.
    pub is_list: bool,
}

impl Flag {
    /// A key with one value.
    pub fn one(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, values: vec![value.into()], is_list: false }
    }

    /// A key with a list.
    pub fn list(key: &'static str, values: Vec<String>) -> Self {
        Self { key, values, is_list: true }
    }
}

/// The job's own keys, each with what it means.
const OWN: [(&str, &str); 9] = [
    ("name", "name"),
    ("stack", "stack"),
    ("server", "server"),
    ("viking-host", "server"),
    ("viking_host", "server"),
    ("daemonize", "daemonize"),
    ("deamonize", "daemonize"),
    ("viking-filter", "filter"),
    ("viking_filter", "filter"),
];

/// What a job has no use for: it is not routed, not built, and there is one of it.
const FOREIGN: [&str; 20] = [
    "type",
    "dockerfile",
    "buildpack",
    "install",
    "domains",
    "route",
    "document_root",
    "ssl_cert",
    "ssl_key",
    "router",
    "protocol",
    "scale",
    "release",
    "schedule",
    "timezone",
    "overlap",
    "link",
    "global",
    "hook",
    "unhook",
];

/// A variable of the job's that keeps it on its server, as `fixed` does.
const FIXED: &str = "VIKING_FIXED";

/// Where flags stand.
const FLAG: Spot = Spot { line: 0, column: 0 };

/// Reads a job from the text of `file`, which may be empty, and from flags.
///
/// # Errors
/// Every mistake of it.
pub fn parse(file: &str, text: &str, flags: &[Flag]) -> Result<Job, Mistakes> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (tree, found) = tree::read(file, text);
    let mut notes = Notes::of(file, found);
    let mut entries = match tree.map(|tree| (tree.spot, tree.shape)) {
        Some((_, Shape::Map(entries))) => entries,
        Some((spot, Shape::List(_) | Shape::Text(_))) => {
            notes.add(spot, "a job is a mapping of keys, such as `{image: postgres, command: psql}`");
            Vec::new()
        }
        Some((_, Shape::Nothing)) | None => Vec::new(),
    };
    entries.retain(|entry| flags.iter().all(|flag| meaning(&entry.key) != meaning(flag.key)));
    entries.extend(flags.iter().map(Flag::entry));
    let job = read(entries, &mut notes);
    notes.or(job).map_err(of_flags)
}

/// A mistake of a flag stands in no file.
fn of_flags(Mistakes(mistakes): Mistakes) -> Mistakes {
    let bare = |mistake: super::Mistake| match mistake.line {
        Some(0) => super::Mistake { file: None, line: None, column: None, ..mistake },
        _ => mistake,
    };
    Mistakes::sorted(mistakes.into_iter().map(bare).collect())
}

impl Flag {
    fn entry(&self) -> Entry {
        let text = |value: &String| Tree { spot: FLAG, shape: Shape::Text(value.clone()) };
        let shape = match (self.is_list, self.values.first()) {
            (false, Some(value)) => Shape::Text(value.clone()),
            (true, _) | (false, None) => Shape::List(self.values.iter().map(text).collect()),
        };
        Entry { key: self.key.to_owned(), spot: FLAG, value: Tree { spot: FLAG, shape } }
    }
}

/// Different spellings of one key.
fn meaning(key: &str) -> &str {
    match key {
        "image" => "container",
        "command" | "run" => "run",
        "ports" => "expose",
        "volume" => "volumes",
        "tags" => "filter",
        other => OWN.iter().find(|(written, _)| *written == other).map_or(other, |(_, means)| *means),
    }
}

fn read(entries: Vec<Entry>, notes: &mut Notes<'_>) -> Job {
    let spot = entries.first().map_or(Spot { line: 1, column: 1 }, |entry| entry.spot);
    let (own, rest): (Vec<Entry>, Vec<Entry>) = entries
        .into_iter()
        .partition(|entry| OWN.iter().any(|(written, means)| *written == entry.key && *means != "filter"));
    let find = |means: &str| {
        let entry = own.iter().find(|entry| meaning(&entry.key) == means)?;
        Some(Found { written: &entry.key, spot: entry.spot, value: &entry.value })
    };
    let name: Option<NodeName> = find("name").and_then(|key| values::parsed(key, notes));
    let stack = find("stack").and_then(|key| values::parsed(key, notes));
    let server = find("server").and_then(|key| values::parsed(key, notes));
    let daemonize = find("daemonize").and_then(|key| values::flag(key, notes));
    let mut node = node(name.as_ref(), spot, rest, notes);
    // What must be there after a push or keeps data has a server of its own.
    let says_so = node.env.iter().any(|(name, value)| name.as_str() == FIXED && !matches!(value, "" | "0" | "false"));
    node.fixed = node.fixed || node.is_static || says_so;
    let daemonize = daemonize.unwrap_or(!node.expose.is_empty());
    if daemonize && name.is_none() {
        notes.add(spot, "a job that runs by itself needs a `name`, by which it is found again");
    }
    Job { name, stack, server, daemonize, node }
}

/// The keys that quarry.yml has, too.
fn node(name: Option<&NodeName>, spot: Spot, entries: Vec<Entry>, notes: &mut Notes<'_>) -> Node {
    let mut given = Vec::new();
    for mut entry in entries {
        if FOREIGN.contains(&entry.key.as_str()) {
            notes.add(
                entry.spot,
                format!("`{}` means nothing for a job; it belongs to a node of quarry.yml", entry.key),
            );
            continue;
        }
        let near = nearest(&entry.key, OWN.map(|(written, _)| written)).filter(|_| !is_known(&entry.key));
        if let (Some(near), false) = (near, meaning(&entry.key) != entry.key) {
            notes.suggest(entry.spot, format!("unknown key {} in a job", shown(&entry.key)), Some(near));
            continue;
        }
        if matches!(entry.key.as_str(), "viking-filter" | "viking_filter") {
            entry.key = meaning(&entry.key).to_owned();
        }
        given.push(entry);
    }
    if !given.iter().any(|entry| meaning(&entry.key) == "container") {
        notes.add(spot, "a job needs an `image`");
    }
    let kind = Tree { spot, shape: Shape::Text("worker".to_owned()) };
    given.push(Entry { key: "type".to_owned(), spot, value: kind });
    let called = name.map_or("job", NodeName::as_str);
    let keys = Keys::sort(called, &given, notes);
    let stand_in = || "job".parse().expect("`job` is a node name");
    let around = Around { repository: &Repository::default(), nodes: &BTreeSet::new(), own: &Source::Nothing };
    let draft = entry::read(&name.cloned().unwrap_or_else(stand_in), spot, keys, &around, notes);
    debug_assert_eq!(draft.node.kind, Kind::Worker);
    // What it is given stands behind an entrypoint, as `docker run IMAGE words` has it.
    Node { keeps_entrypoint: true, ..draft.node }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Command, Overlap};
    use crate::units::port::Port;

    fn job(text: &str) -> Job {
        parse("job.yml", text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn wrong(text: &str) -> String {
        parse("job.yml", text, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_job_is_read_from_json_and_from_yaml() {
        let json =
            job(r#"{"name": "mongo", "image": "mongo:6", "command": ["mongod", "--quiet"], "volumes": ["/data"],
            "ports": [27017], "env": {"A": "1"}, "size": "256mb", "filter": "ssd"}"#);
        let yaml = job("name: mongo\nimage: mongo:6\ncommand: [mongod, --quiet]\nvolumes: /data\nports: 27017\n\
                        env: [A=1]\nsize: 256mb\ntags: ssd\n");
        assert_eq!(json, yaml);
        let Job { name, stack, server, daemonize, node } = json;
        assert_eq!((name.unwrap().as_str(), stack, server, daemonize), ("mongo", None, None, true));
        assert_eq!(node.source, Source::Image("mongo:6".into()));
        assert_eq!(node.command, Some(Command::Words(vec!["mongod".into(), "--quiet".into()])));
        assert_eq!(
            (&node.expose[..], node.volumes.len(), node.overlap),
            (&[Port::tcp(27017)][..], 1, Overlap::StopFirst)
        );
    }

    #[test]
    fn what_nobody_says_follows_from_the_rest() {
        let plain = job("image: debian");
        assert!(!plain.daemonize && !plain.node.fixed && !plain.node.is_static && plain.name.is_none());
        assert!(job("{image: a, name: x, ports: [80]}").daemonize);
        assert!(!job("{image: a, ports: [80], daemonize: false}").daemonize);
        assert!(job("{image: a, name: x, deamonize: true}").daemonize);
        assert!(job("{image: a, static: true}").node.fixed);
        assert!(job("{image: a, env: {VIKING_FIXED: 1}}").node.fixed);
        assert!(!job("{image: a, env: {VIKING_FIXED: '0'}}").node.fixed);
        assert_eq!(job("{image: a, viking-host: s1}").server, Some("s1".parse().unwrap()));
        assert_eq!(job("{image: a, viking-filter: ssd}").node.filter, job("{image: a, filter: ssd}").node.filter);
    }

    #[test]
    fn flags_cover_what_the_file_says() {
        let flags =
            [Flag::one("image", "b"), Flag::list("command", vec!["x".into(), "y z".into()]), Flag::one("name", "n")];
        let job = parse("job.yml", "{container: a, run: old, name: m, size: 64mb}", &flags).unwrap();
        assert_eq!(job.node.source, Source::Image("b".into()));
        assert_eq!(job.node.command, Some(Command::Words(vec!["x".into(), "y z".into()])));
        assert_eq!(job.name.unwrap().as_str(), "n");
        assert!(job.node.size.is_some());
    }

    #[test]
    fn mistakes_are_told_all_at_once_with_their_places() {
        let text = wrong("nam: x\ndomains: a.b\nports: [80/udp]\nprivileged: true\n");
        for part in [
            "job.yml:1:1: unknown key `nam` in a job",
            "did you mean `name`",
            "`domains` means nothing for a job",
            "an `image`",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("containers get no rights over their server"), "{text}");
        assert!(wrong("[1]").contains("a job is a mapping"));
        assert!(wrong("{image: a, daemonize: true}").contains("needs a `name`"));
        let flag = parse("flags", "", &[Flag::one("image", "a"), Flag::one("size", "much")]).unwrap_err().to_string();
        assert!(flag.starts_with("`size`"), "{flag}");
    }
}
