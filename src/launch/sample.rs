//! Worlds for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::world::{Footing, Instance, World};
use super::{ContainerPlan, Ground, Identity, Plan, Step};
use crate::grid::{Block, Filter, Overbook, Slice};
use crate::instruction::Settings;
use crate::names::{ImageId, ReleaseNumber};
use crate::stack::{Kind, Overlap};
use crate::units::port::Port;
use crate::units::{Megabytes, Millis};

pub fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn image() -> ImageId {
    name(&format!("sha256:{}", "a".repeat(64)))
}

/// Servers of 1000 MB with these names, the first of which is HQ's own.
pub fn world(servers: &[&str]) -> World {
    let footing = |(index, server): (usize, &&str)| {
        let address = IpAddr::from([10, 0, 0, 1 + index as u8]);
        let footing = Footing {
            ground: Ground { address, ports: 20_000..=20_099 },
            ports_taken: BTreeSet::new(),
            network_exists: false,
            subnet: format!("10.208.{index}.0/26"),
            slice: Slice::new(Megabytes(1000)),
        };
        (name(server), footing)
    };
    World {
        identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
        stack: name("blog"),
        release: ReleaseNumber(1),
        env_version: 1,
        instances: Vec::new(),
        leaving: Vec::new(),
        names: BTreeSet::new(),
        procs: BTreeMap::new(),
        data: BTreeMap::new(),
        routes: None,
        front: Default::default(),
        servers: servers.iter().enumerate().map(footing).collect(),
        here: name(servers[0]),
        built: BTreeMap::new(),
        exchange: None,
        overbook: Overbook::default(),
        waits: false,
        sites: "/sites".into(),
    }
}

pub fn settings() -> Settings {
    Settings {
        kind: Kind::Web,
        image: image(),
        command: None,
        args: Vec::new(),
        cwd: None,
        ports: vec![Port::tcp(80)],
        balance: Default::default(),
        protocol: Default::default(),
        volumes: Vec::new(),
        env: Default::default(),
        links: BTreeMap::new(),
        outside: Default::default(),
        size: Megabytes(100),
        filter: Filter::default(),
        fixed: false,
        is_static: false,
        cpus: None,
        health: None,
        release: None,
        overlap: Overlap::StartFirst,
        grace: Millis(500),
        hook: Vec::new(),
        unhook: Vec::new(),
        schedule: None,
        timezone: None,
        task_overlap: Default::default(),
    }
}

pub fn booted(plan: &Plan) -> Vec<&ContainerPlan> {
    plan.revocable().filter_map(Step::makes).collect()
}

/// The world once a plan has been carried out.
pub fn after(mut world: World, plan: &Plan) -> World {
    for made in booted(plan) {
        let block = Block::new(made.settings.size, made.stack.clone(), made.node.clone());
        let slice = &mut world.servers.get_mut(&made.server).unwrap().slice;
        slice.blocks.insert(made.name.clone(), block);
        world.names.insert(made.name.clone());
        world.instances.push(Instance {
            name: made.name.clone(),
            server: made.server.clone(),
            node: made.node.clone(),
            release: Some(made.release),
            index: made.index,
            role: made.role,
            runs: true,
            published: made.routed(),
            exposed: Vec::new(),
        });
    }
    world.procs.extend(plan.procs.clone());
    world
}
