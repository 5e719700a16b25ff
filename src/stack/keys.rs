//! The keys of a node in quarry.yml: which there are, which mean the same, which have to wait.

use std::collections::BTreeMap;

use super::Kind;
use super::mistakes::{Notes, nearest, shown};
use super::tree::{Entry, Spot, Tree};

/// Keys of other tools, and what means the same here.
const ELSEWHERE: [(&str, &str); 15] = [
    ("build", "dockerfile"),
    ("depends_on", "link"),
    ("entrypoint", "run"),
    ("environment", "env"),
    ("healthcheck", "health"),
    ("hostname", "domains"),
    ("instances", "scale"),
    ("links", "link"),
    ("mem_limit", "size"),
    ("memory", "size"),
    ("port", "expose"),
    ("replicas", "scale"),
    ("start", "run"),
    ("stop_grace_period", "grace"),
    ("working_dir", "cwd"),
];

/// What a key is good for today.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Now,
    /// Understood, without effect yet: refused rather than ignored.
    Later,
}

use Standing::{Later, Now};

/// As written, what it means, and whether it has its effect yet.
const KEYS: [(&str, &str, Standing); 42] = [
    ("args", "args", Now),
    ("balance", "balance", Now),
    ("buildpack", "buildpack", Now),
    ("command", "run", Now),
    ("container", "container", Now),
    ("cpus", "cpus", Now),
    ("cwd", "cwd", Now),
    ("daemonize", "daemonize", Later),
    ("deamonize", "daemonize", Later),
    ("dockerfile", "dockerfile", Now),
    ("document_root", "document_root", Now),
    ("domains", "domains", Now),
    ("env", "env", Now),
    ("expose", "expose", Now),
    ("filter", "filter", Now),
    ("fixed", "fixed", Now),
    ("global", "global", Later),
    ("grace", "grace", Now),
    ("health", "health", Now),
    ("hook", "hook", Now),
    ("image", "container", Now),
    ("install", "install", Now),
    ("link", "link", Now),
    ("overlap", "overlap", Now),
    ("ports", "expose", Now),
    ("protocol", "protocol", Now),
    ("release", "release", Now),
    ("route", "domains", Now),
    ("router", "router", Now),
    ("run", "run", Now),
    ("scale", "scale", Now),
    ("schedule", "schedule", Now),
    ("size", "size", Now),
    ("ssl_cert", "ssl_cert", Now),
    ("ssl_key", "ssl_key", Now),
    ("static", "static", Now),
    ("tags", "filter", Now),
    ("timezone", "timezone", Now),
    ("type", "type", Now),
    ("unhook", "unhook", Now),
    ("volume", "volumes", Now),
    ("volumes", "volumes", Now),
];

/// Keys of other tools that would give a container rights over its server.
const NEVER: [&str; 14] = [
    "cap_add",
    "cap_drop",
    "cgroup_parent",
    "device_cgroup_rules",
    "devices",
    "ipc",
    "network",
    "network_mode",
    "networks",
    "pid",
    "privileged",
    "security_opt",
    "sysctls",
    "userns_mode",
];

/// Keys of what runs in containers.
const RUNNING: [&str; 18] = [
    "release", "overlap", "run", "args", "cwd", "expose", "balance", "volumes", "env", "link", "scale", "size", "cpus",
    "filter", "health", "grace", "hook", "unhook",
];

/// Keys of what runs all the time.
const STANDING: [&str; 7] = ["release", "expose", "balance", "scale", "health", "hook", "unhook"];

/// Keys that mean nothing for a kind of node, by what they mean.
fn without_effect(kind: Kind) -> impl Iterator<Item = &'static str> {
    let (own, running): (&[&str], &[&str]) = match kind {
        Kind::Web => (&["schedule", "timezone"], &[]),
        Kind::Worker => {
            (&["schedule", "timezone", "domains", "document_root", "protocol", "router", "ssl_cert", "ssl_key"], &[])
        }
        Kind::Service => (
            &[
                "schedule",
                "timezone",
                "domains",
                "document_root",
                "protocol",
                "router",
                "ssl_cert",
                "ssl_key",
                "release",
                "overlap",
            ],
            &[],
        ),
        Kind::Image => (
            &["schedule", "timezone", "domains", "document_root", "protocol", "router", "ssl_cert", "ssl_key"],
            &RUNNING,
        ),
        Kind::Static => {
            (&["schedule", "timezone", "protocol", "container", "dockerfile", "buildpack", "install"], &RUNNING)
        }
        Kind::Task => (&["domains", "document_root", "protocol", "router", "ssl_cert", "ssl_key"], &STANDING),
    };
    own.iter().chain(running).copied()
}

/// A key that was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'t> {
    /// The key as the person spells it.
    pub written: &'t str,
    pub spot: Spot,
    pub value: &'t Tree,
}

/// The keys of one node by their meaning; only those that have an effect.
pub(super) struct Keys<'t>(BTreeMap<&'static str, Found<'t>>);

impl<'t> Keys<'t> {
    /// Sorts the entries of the node called `node`.
    pub(super) fn sort(node: &str, entries: &'t [Entry], notes: &mut Notes<'_>) -> Self {
        let mut keys = BTreeMap::new();
        for Entry { key, spot, value } in entries {
            let found = Found { written: key, spot: *spot, value };
            match KEYS.iter().find(|(written, _, _)| written == key) {
                Some((_, _, Later)) => notes.add(*spot, format!("`{key}` is not supported yet")),
                Some((_, means, Now)) => {
                    if let Some(other) = keys.insert(*means, found) {
                        let message = format!("`{key}` means the same as `{}`; keep one of them", other.written);
                        notes.add(*spot, message);
                    }
                }
                None => unknown(node, key, *spot, notes),
            }
        }
        Self(keys)
    }

    pub(super) fn found(&self, key: &str) -> Option<Found<'t>> {
        self.0.get(key).copied()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether it says where its image comes from.
    pub(super) fn has_source(&self) -> bool {
        ["container", "dockerfile", "buildpack"].iter().any(|key| self.has(key))
    }

    /// Notes the keys that a node of this kind cannot use, and takes them out.
    pub(super) fn refuse_without_effect(&mut self, kind: Kind, notes: &mut Notes<'_>) {
        for key in without_effect(kind) {
            if let Some(found) = self.0.remove(key) {
                let message = format!("`{}` has no effect on a node of type `{}`", found.written, name_of(kind));
                notes.add(found.spot, message);
            }
        }
    }
}

/// Whether a node may have this key.
pub(super) fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(written, _, _)| *written == key)
}

fn unknown(node: &str, key: &str, spot: Spot, notes: &mut Notes<'_>) {
    let message = format!("unknown key {} in node `{node}`", shown(key));
    if NEVER.contains(&key) {
        notes.add(spot, format!("{message}: containers get no rights over their server"));
    } else {
        let same = ELSEWHERE.iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| (*ours).to_owned());
        let near = || nearest(key, KEYS.iter().map(|(written, _, _)| *written));
        notes.suggest(spot, message, same.or_else(near));
    }
}

/// Every kind with the word for it in quarry.yml.
pub(super) const KINDS: [(&str, Kind); 6] = [
    ("web", Kind::Web),
    ("worker", Kind::Worker),
    ("service", Kind::Service),
    ("image", Kind::Image),
    ("static", Kind::Static),
    ("task", Kind::Task),
];

/// The word for a kind.
pub(super) fn name_of(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}
