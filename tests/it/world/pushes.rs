//! What is pushed: the instructions of a stack of some nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use quarry::docker::fake::Behaviour;
use quarry::instruction::{Instruction, Settings};
use quarry::names::{ImageId, NodeName, ReleaseNumber, StackName};
use quarry::stack::{Command, Health, Kind, Overlap, Probe};
use quarry::units::port::Port;
use quarry::units::{Megabytes, Millis};

use super::World;
use super::acts::{Code, nodes};
use super::reign::identity;

/// Nodes of which there may never be two at once.
pub const ALONE: [&str; 3] = ["kv", "alone", "admin"];

/// Nodes that never leave their server.
pub const FIXED: [&str; 2] = ["kv", "admin"];

/// Nodes that go wherever there is room.
pub const MOVABLE: [&str; 2] = ["web", "extra"];

/// The memory of every container.
pub const SIZE: Megabytes = Megabytes(64);

pub fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// Builds the image of a push, whose containers do what `code` says, on every server.
pub fn build(world: &Arc<World>, stack: &StackName, number: u64, code: Code) -> ImageId {
    let source = format!("source/{stack}:{}", world.counted());
    let behaviour = match code {
        Code::Good | Code::ReleaseFails | Code::Releases => Behaviour::default(),
        Code::Dies => Behaviour::exits(30, 1),
        Code::Sick => Behaviour::default().inside(&["sick"], 1),
        Code::Falls => Behaviour::exits(7_000, 1),
        Code::Deaf => Behaviour { deaf: true, ..Behaviour::default() },
    };
    let release = Behaviour::exits(200, if code == Code::ReleaseFails { 1 } else { 0 });
    let image = world.own().engine.add_image(&source);
    world.behave_image(image.as_str(), &behaviour);
    world.behave(&format!("{stack}.web-release.{number}.0").parse().unwrap(), &release);
    let tag = identity().tag(stack, ReleaseNumber(number));
    world.own().engine.retag(&source, &format!("quarry/{stack}/web:{tag}"));
    image
}

/// The instructions of a push.
pub fn instructions(
    stack: &StackName,
    number: u64,
    image: &ImageId,
    web: u32,
    bits: u8,
    code: Code,
) -> Vec<Instruction> {
    let release = ReleaseNumber(number);
    let of = |kind, overlap, volumes: &[&str]| Box::new(settings(image, kind, overlap, volumes));
    let deploy = |name, count, settings| Instruction::Deploy { node: node(name), release, count, settings };
    let route = |name, domain: String| Instruction::Route {
        node: node(name),
        add: vec![domain.parse().unwrap()],
        remove: Vec::new(),
        document_root: None,
        rules: Box::default(),
    };
    let mut list = Vec::new();
    if bits & nodes::KV != 0 {
        list.push(Instruction::Ensure {
            node: node("kv"),
            settings: of(Kind::Service, Overlap::StopFirst, &["/data"]),
        });
    }
    let mut first = of(Kind::Web, Overlap::StartFirst, &[]);
    if matches!(code, Code::Releases | Code::ReleaseFails) {
        first.release = Some(Command::Words(vec!["migrate".into()]));
    }
    list.push(deploy("web", web, first));
    if bits & nodes::ALONE != 0 {
        list.push(deploy("alone", 1, of(Kind::Worker, Overlap::StopFirst, &[])));
    }
    if bits & nodes::ADMIN != 0 {
        list.push(deploy("admin", 1, of(Kind::Web, Overlap::StopFirst, &["/data"])));
    }
    if bits & nodes::EXTRA != 0 {
        list.push(deploy("extra", 2, of(Kind::Worker, Overlap::StartFirst, &[])));
    }
    list.push(route("web", format!("{stack}.localhost")));
    if bits & nodes::ADMIN != 0 {
        list.push(route("admin", format!("admin.{stack}.localhost")));
    }
    list
}

fn settings(image: &ImageId, kind: Kind, overlap: Overlap, volumes: &[&str]) -> Settings {
    Settings {
        kind,
        image: image.clone(),
        command: None,
        args: Vec::new(),
        cwd: None,
        ports: match kind {
            Kind::Web => vec![Port::tcp(80)],
            Kind::Service => vec![Port::tcp(6379)],
            Kind::Worker | Kind::Image | Kind::Static | Kind::Task => Vec::new(),
        },
        balance: Default::default(),
        protocol: Default::default(),
        volumes: volumes.iter().map(|path| path.parse().unwrap()).collect(),
        env: Default::default(),
        links: BTreeMap::new(),
        outside: Default::default(),
        size: SIZE,
        filter: Default::default(),
        fixed: false,
        is_static: false,
        cpus: None,
        health: Some(Health {
            probe: Probe::Command(Command::Words(vec!["true".into()])),
            interval: Millis(500),
            timeout: Millis(1000),
            retries: 2,
            start: Millis(2000),
            lasting: false,
        }),
        release: None,
        overlap,
        grace: Millis(1500),
        hook: Vec::new(),
        unhook: Vec::new(),
        schedule: None,
        timezone: None,
        task_overlap: Default::default(),
    }
}
