//! What differs between a service that runs and what the repository says now.

use super::world::World;
use crate::instruction::Settings;
use crate::names::NodeName;

/// A line that names what differs and how to apply it.
pub fn difference(world: &World, node: &NodeName, runs: &Settings, wanted: &Settings) -> String {
    let mut parts = Vec::new();
    let mut part = |what: &str, differs: bool| {
        if differs {
            parts.push(what.to_owned());
        }
    };
    part("image", runs.image != wanted.image);
    part("command", runs.command != wanted.command || runs.args != wanted.args || runs.cwd != wanted.cwd);
    part("env", runs.env != wanted.env);
    part("expose", runs.ports != wanted.ports);
    part("volumes", runs.volumes != wanted.volumes);
    part("size", runs.size != wanted.size || runs.cpus != wanted.cpus);
    part("link", runs.links != wanted.links || runs.outside != wanted.outside);
    if parts.is_empty() {
        parts.push("settings".to_owned());
    }
    let list = parts.join(", ");
    format!("service {node} keeps running as it is; changed: {list}. Apply with `restart {}/{node}`", world.stack)
}
