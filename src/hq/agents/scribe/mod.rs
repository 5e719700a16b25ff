//! What is written of a server for people and tools, all of it under the server's lease: `servers/<id>/vitals.json` and
//! `ps/<server>/<container>.json`; see [`act`]. Figures that change with each breath are not: they are HQ's to ask for.

use std::collections::BTreeMap;

use crate::agent::Vitals;
use crate::agent::vitals::Docker;
use crate::db::{Key, layout};
use crate::names::ServerName;

pub mod act;

/// The keys and values that say what an agent told.
pub fn pages(server: &ServerName, vitals: &Vitals) -> BTreeMap<Key, Vec<u8>> {
    let mut pages = BTreeMap::new();
    let mut shown = vitals.clone();
    if let Docker::Answers(containers) = &vitals.docker {
        for container in containers {
            pages.insert(layout::ps(server, &container.name), json(container));
        }
        shown.docker = Docker::Answers(Vec::new());
    }
    shown.machine.uptime = 0;
    shown.machine.load = 0;
    shown.machine.memory.free = shown.machine.memory.total;
    shown.machine.disk.free = shown.machine.disk.total;
    pages.insert(layout::server_value(server, "vitals.json"), json(&shown));
    pages
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("quarry's records have string keys and serialise");
    text.push(b'\n');
    text
}
