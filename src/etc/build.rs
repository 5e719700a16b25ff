//! What builds get and may take.

use std::collections::BTreeSet;

use super::{certificates, hosts, parse, variable};
use crate::env::Env;
use crate::names::reference::is_id;
use crate::units::{Megabytes, Millis};

/// What builds get and may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Certificates that builds trust, as PEM text.
    pub ca_bundle: Option<String>,
    /// Variables and build arguments of every build.
    pub env: Env,
    /// How long one image may take.
    pub timeout: Millis,
    /// Memory of each build step; most of the machine's without.
    pub memory: Option<Megabytes>,
    /// Processes and threads of the builds of a stack.
    pub processes: u32,
    /// Disk that builds leave free.
    pub spare: Megabytes,
    /// TCP ports of HQ's own server that builds reach besides its router's and HQ's.
    pub ports: BTreeSet<u16>,
    /// Hosts inside that images may come from: names or addresses, as references name them.
    pub registries: BTreeSet<String>,
    /// Images that a `# syntax=` line may name besides docker's own.
    pub syntaxes: BTreeSet<String>,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            ca_bundle: None,
            env: Env::new(),
            timeout: Millis::seconds(30 * 60),
            memory: None,
            processes: 4096,
            spare: Megabytes(1024),
            ports: BTreeSet::new(),
            registries: BTreeSet::new(),
            syntaxes: BTreeSet::new(),
        }
    }
}

/// What there is besides `env/<NAME>`.
const KNOWN: [&str; 8] = ["ca-bundle", "memory", "ports", "processes", "registries", "spare", "syntaxes", "timeout"];

impl Build {
    /// Takes one file's text.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let value = text.trim();
        match name.split_once('/').unwrap_or(("", name)) {
            ("env", name) => variable(&mut self.env, name, text)?,
            ("", "ca-bundle") => self.ca_bundle = Some(certificates(text)?),
            ("", "timeout") => self.timeout = parse(value)?,
            ("", "memory") => self.memory = Some(parse(value)?),
            ("", "processes") => self.processes = processes(value)?,
            ("", "spare") => self.spare = parse(value)?,
            ("", "ports") => self.ports = lent(text)?,
            ("", "registries") => self.registries = hosts(text)?,
            ("", "syntaxes") => self.syntaxes = syntaxes(text)?,
            _ => {
                let known = KNOWN.join(", build/");
                return Err(format!("there is no setting `build/{name}`; there are build/env/<NAME>, build/{known}"));
            }
        }
        Ok(())
    }
}

fn lent(text: &str) -> Result<BTreeSet<u16>, String> {
    let port = |word: &str| {
        let port = word.parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("`{word}` is not a port from 1 to 65535; write one a line"))
    };
    text.split_whitespace().map(port).collect()
}

fn syntaxes(text: &str) -> Result<BTreeSet<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let image = |line: &str| match is_id(line) || line.contains(char::is_whitespace) {
        true => Err(format!("`{line}` is no name of an image; write one such as `ghcr.io/team/syntax:1` a line")),
        false => Ok(line.to_owned()),
    };
    lines.map(image).collect()
}

fn processes(value: &str) -> Result<u32, String> {
    let count = value.parse().ok().filter(|count| (16..=1_000_000).contains(count));
    count.ok_or_else(|| format!("`{value}` is not a number of processes from 16 to 1000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_a_line_and_what_is_none_is_said() {
        let mut build = Build::default();
        build.set("ports", "3128\n8081\n").unwrap();
        assert_eq!(build.ports, [3128, 8081].into());
        for wrong in ["0", "http", "70000", "80/tcp"] {
            assert!(build.set("ports", wrong).unwrap_err().contains("is not a port"), "{wrong}");
        }
        assert!(build.set("port", "80").unwrap_err().contains("build/ports"));
    }
    #[test]
    fn registries_and_syntaxes_are_one_a_line() {
        let mut build = Build::default();
        build.set("registries", "# ours\nRegistry.internal\n10.0.0.5\n").unwrap();
        build.set("syntaxes", "ghcr.io/team/syntax:1\n").unwrap();
        assert_eq!(build.registries, ["registry.internal", "10.0.0.5"].map(str::to_owned).into());
        assert_eq!(build.syntaxes, ["ghcr.io/team/syntax:1".to_owned()].into());
        assert!(build.set("syntaxes", "a b").is_err() && build.set("syntaxes", "sha256:04df").is_err());
        assert!(build.set("registries", "registry.internal:5000").is_err());
    }
}
