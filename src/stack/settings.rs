//! The settings of a node in quarry.yml that have a shape of their own: env, volumes, health, release, hooks.

use crate::env::Env;
use crate::names::{ContainerPath, EnvName};
use crate::units::{Balance, Millis, Protocol};

use super::health::{INTERVAL, RETRIES, START, TIMEOUT};
use super::keys::{Found, Keys};
use super::mistakes::{Notes, nearest, shown};
use super::tree::{Entry, Shape, Spot, Tree};
use super::{Health, Kind, Node, Overlap, Probe, Source, TaskOverlap};
use super::{routing, values};

/// Reads release, overlap, grace, hooks and health into `node`, whose ports are known.
pub(super) fn read(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    node.release = keys.found("release").and_then(|key| values::command(key, notes));
    if let Some(key) = keys.found("overlap").filter(|_| node.kind != Kind::Task) {
        let choices = [("start-first", Overlap::StartFirst), ("stop-first", Overlap::StopFirst)];
        node.overlap = values::choice(key, &choices, notes).unwrap_or(node.overlap);
    }
    certificate(node, keys, notes);
    if let Some(key) = keys.found("protocol") {
        let choices = [("http", Protocol::Http), ("grpc", Protocol::Grpc), ("h2c", Protocol::Grpc)];
        node.protocol = values::choice(key, &choices, notes).unwrap_or_default();
    }
    if let Some(key) = keys.found("balance") {
        let choices = [("round-robin", Balance::RoundRobin), ("least-connections", Balance::LeastConnections)];
        node.balance = values::choice(key, &choices, notes).unwrap_or_default();
    }
    routing::read(node, keys, notes);
    if let Some(key) = keys.found("grace") {
        node.grace = values::parsed(key, notes).unwrap_or(node.grace);
    }
    if let Some(key) = keys.found("hook") {
        node.hook = values::commands(key, notes);
    }
    if let Some(key) = keys.found("unhook") {
        node.unhook = values::commands(key, notes);
    }
    node.health = match keys.found("health") {
        Some(key) => health(key, node, notes),
        None if node.runs() => health_by_env(node, keys, notes),
        None => None,
    };
    schedule(node, keys, notes);
    if let (Some(2..), Overlap::StopFirst, Some(key)) = (node.scale, node.overlap, keys.found("scale")) {
        let why = if node.volumes.is_empty() { "`overlap: stop-first`" } else { "a volume" };
        let message = format!("a node with {why} never runs twice, so `scale` is 1 at most");
        notes.add(key.value.spot, message);
    }
    check_env(node, keys, notes);
}

/// A task runs something at its times.
fn schedule(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    if let Some(key) = keys.found("schedule") {
        node.schedule = match values::word(key, notes) {
            Some((spot, text)) => text.parse().map_err(|error| notes.add(spot, format!("{error}"))).ok(),
            None => None,
        };
    }
    if let Some(key) = keys.found("timezone") {
        node.timezone = match values::word(key, notes) {
            Some((spot, text)) => text.parse().map_err(|error| notes.add(spot, format!("{error}"))).ok(),
            None => None,
        };
    }
    if let Some(key) = keys.found("overlap").filter(|_| node.kind == Kind::Task) {
        let choices = [("skip", TaskOverlap::Skip), ("allow", TaskOverlap::Allow), ("replace", TaskOverlap::Replace)];
        node.task_overlap = values::choice(key, &choices, notes).unwrap_or_default();
    }
}

/// A certificate is nothing without its key, and neither is without domains.
fn certificate(node: &mut Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    let path = |key: Option<Found<'_>>, notes: &mut Notes<'_>| Some(values::inner_path(key?, notes)?.1);
    let (chain, key) = (keys.found("ssl_cert"), keys.found("ssl_key"));
    match (chain, key) {
        (Some(one), None) => notes.add(one.spot, "`ssl_cert` needs `ssl_key`, the file with its private key"),
        (None, Some(one)) => {
            notes.add(one.spot, "`ssl_key` needs `ssl_cert`, the file with the certificate and its chain")
        }
        (Some(one), Some(_)) if node.domains.is_empty() => {
            notes.add(one.spot, "`ssl_cert` needs `domains`: a stack's own domains share no certificate");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    (node.ssl_cert, node.ssl_key) = (path(chain, notes), path(key, notes));
}

/// A mapping, or a list of `NAME=value`.
pub(super) fn env(key: Found<'_>, notes: &mut Notes<'_>) -> Env {
    let mut env = Env::new();
    match &key.value.shape {
        Shape::Map(entries) => {
            for entry in entries {
                if let Some((name, value)) = variable(entry, notes) {
                    env.set(name, value);
                }
            }
        }
        Shape::List(_) => {
            for (spot, text) in values::words(key, notes) {
                match text.split_once('=') {
                    None => notes.add(spot, format!("{} has no `=`; write NAME=value", shown(text))),
                    Some((name, value)) => match name.parse::<EnvName>() {
                        Ok(name) if env.value(&name).is_some() => notes.add(spot, format!("`{name}` is already there")),
                        Ok(name) => env.set(name, value),
                        Err(error) => notes.add(spot, error.to_string()),
                    },
                }
            }
        }
        Shape::Nothing | Shape::Text(_) => {
            let message = format!("`{}` takes a mapping of names to values, or a list of NAME=value", key.written);
            notes.add(key.value.spot, message);
        }
    }
    env
}

fn variable(entry: &Entry, notes: &mut Notes<'_>) -> Option<(EnvName, String)> {
    let name = entry.key.parse().map_err(|error| notes.add(entry.spot, format!("{error}"))).ok();
    let value = match &entry.value.shape {
        Shape::Nothing => Some(String::new()),
        Shape::Text(text) if !text.contains('\0') => Some(text.clone()),
        Shape::Text(_) => {
            notes.add(entry.value.spot, format!("the value of {} contains a NUL character", shown(&entry.key)));
            None
        }
        Shape::List(_) | Shape::Map(_) => {
            let message = format!("the value of {} is {}, not text", shown(&entry.key), entry.value.what());
            notes.add(entry.value.spot, message);
            None
        }
    };
    Some((name?, value?))
}

/// Variables that quarry sets itself would be covered and silently lost.
fn check_env(node: &Node, keys: &Keys<'_>, notes: &mut Notes<'_>) {
    let Some(key) = keys.found("env") else { return };
    for (name, value) in node.env.iter() {
        let spot = spot_of(key.value, name.as_str());
        if name.as_str().starts_with("QUARRY_") {
            notes.add(spot, format!("`{name}` is quarry's own: names that start with QUARRY_ are set by it"));
        }
        let first = node.first_port().map(|port| port.to_string());
        if name.as_str() == "PORT" && node.kind == Kind::Web && first.as_deref() != Some(value) {
            notes.add(spot, "`PORT` of a web node is set by quarry; to choose it, write it as `expose`");
        }
    }
}

fn spot_of(env: &Tree, name: &str) -> Spot {
    let found = match &env.shape {
        Shape::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.spot),
        Shape::List(items) => items
            .iter()
            .find(|item| matches!(&item.shape, Shape::Text(text) if text.split('=').next() == Some(name)))
            .map(|item| item.spot),
        Shape::Nothing | Shape::Text(_) => None,
    };
    found.unwrap_or(env.spot)
}

/// Folders the system itself lives in: a volume there hides it.
const SYSTEM: [&str; 8] = ["/", "/bin", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr"];

/// Absolute paths inside the container, each once.
pub(super) fn volumes(key: Found<'_>, notes: &mut Notes<'_>) -> Vec<ContainerPath> {
    let mut volumes: Vec<ContainerPath> = Vec::new();
    for (spot, text) in values::words(key, notes) {
        if let Some((before, _)) = text.split_once(':') {
            let message = format!(
                "{} mounts `{before}` of the server; quarry keeps volumes in its own place, so write only the path inside \
                 the container",
                shown(text)
            );
            notes.add(spot, message);
            continue;
        }
        let Some(path) = values::container_path(key.written, (spot, text), notes) else { continue };
        let text = path.as_str();
        if SYSTEM.contains(&text) || text.starts_with("/proc/") || text.starts_with("/sys/") {
            notes.add(spot, format!("a volume cannot cover {} of the container", shown(text)));
        } else if volumes.contains(&path) {
            notes.add(spot, format!("the volume {} is already there", shown(text)));
        } else {
            volumes.push(path);
        }
    }
    volumes
}

/// The keys of `health`.
const HEALTH: [&str; 8] = ["http", "tcp", "command", "interval", "timeout", "retries", "grace", "once"];

/// A mapping with exactly one question, or a bare path to GET.
fn health(key: Found<'_>, node: &Node, notes: &mut Notes<'_>) -> Option<Health> {
    let mut health = Health::of(Probe::Http(String::new()));
    let entries = match &key.value.shape {
        Shape::Map(entries) => entries,
        Shape::Nothing | Shape::Text(_) | Shape::List(_) => {
            health.probe = http(key, node, notes)?;
            return Some(health);
        }
    };
    let mut probes = Vec::new();
    for Entry { key: written, spot, value } in entries {
        let found = Found { written, spot: *spot, value };
        match written.as_str() {
            "http" | "tcp" | "command" => probes.push((*spot, probe(found, node, notes))),
            "interval" => health.interval = period(found, notes).unwrap_or(INTERVAL),
            "timeout" => health.timeout = period(found, notes).unwrap_or(TIMEOUT),
            "retries" => health.retries = values::number(found, 0, 1000, notes).unwrap_or(RETRIES),
            "grace" => health.start = values::parsed(found, notes).unwrap_or(START),
            "once" => health.lasting = !values::flag(found, notes).unwrap_or_default(),
            _ => notes.suggest(*spot, format!("unknown key {} in `health`", shown(written)), nearest(written, HEALTH)),
        }
    }
    match probes.len() {
        0 => notes.add(key.spot, "`health` needs one of `http`, `tcp`, `command`"),
        1 => {}
        _ => notes.add(probes[1].0, "`health` takes only one of `http`, `tcp`, `command`"),
    }
    health.probe = probes.into_iter().next()?.1?;
    Some(health)
}

/// What the node's variables say of it.
fn health_by_env(node: &Node, keys: &Keys<'_>, notes: &mut Notes<'_>) -> Option<Health> {
    Health::by_env(&node.env).unwrap_or_else(|(name, what)| {
        let env = keys.found("env").expect("a variable that is wrong stands in `env`");
        notes.add(spot_of(env.value, name.as_str()), what);
        None
    })
}

fn probe(key: Found<'_>, node: &Node, notes: &mut Notes<'_>) -> Option<Probe> {
    match key.written {
        "http" => http(key, node, notes),
        "tcp" => {
            let word = values::word(key, notes)?;
            values::tcp_port(key.written, word, notes).map(Probe::Tcp)
        }
        _ => values::command(key, notes).map(Probe::Command),
    }
}

fn http(key: Found<'_>, node: &Node, notes: &mut Notes<'_>) -> Option<Probe> {
    let (spot, path) = values::word(key, notes)?;
    if !path.starts_with('/') || path.contains(|c: char| c.is_control() || c.is_whitespace()) || path.len() > 1000 {
        notes.add(spot, format!("`{}` is a path such as `/health`, not {}", key.written, shown(path)));
        return None;
    }
    // Any other image may bring ports of its own, which only the engine knows.
    if node.kind != Kind::Web && node.first_port().is_none() && matches!(node.source, Source::Pack(_)) {
        notes.add(spot, "an HTTP health check asks the first port of `expose`, and there is none");
    }
    Some(Probe::Http(path.to_owned()))
}

/// A length of time that a loop can wait for.
fn period(key: Found<'_>, notes: &mut Notes<'_>) -> Option<Millis> {
    let period: Millis = values::parsed(key, notes)?;
    if period < Millis(10) {
        notes.add(key.value.spot, format!("`{}` is at least 10ms", key.written));
        return None;
    }
    Some(period)
}
