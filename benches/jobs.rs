//! Jobs beside docker itself: `true` and a gigabyte in each direction through one SSH connection, and 10,000 of them compared.
//!
//! Quarry's `jobs run` goes through a connection to its own receiver that stays open, `docker run --rm` and a plain command
//! through one to OpenSSH's server; the client is the same. `reconcile` looks for what differs between 10,000 jobs that
//! should run and 10,000 containers on 100 servers, of which every hundredth is missing, and plans what is to be made. Names
//! of parts may be given (`true pipe reconcile`), and `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use quarry::grid::{Block, Filter, Overbook, Slice};
use quarry::hq::reconcile::drift;
use quarry::instruction::Settings;
use quarry::launch::plan::plan;
use quarry::launch::world::{Footing, Instance, World};
use quarry::launch::{Ground, Identity, Role};
use quarry::names::{ImageId, NodeName, ReleaseNumber, ServerName};
use quarry::stack::{Kind, Overlap};
use quarry::units::{Megabytes, Millis};

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::{done, timed};
use self::common::sshd::Sshd;
use self::common::table::{Pairs, Target, figure, heading, median, row};
use self::common::{Parts, end, ours_first, rounds};

mod common;

const IMAGE: &str = "debian:bookworm-slim";

/// What goes through a pipe, in MB.
const PIPED: u64 = 1000;

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        if parts.want("reconcile") {
            reconcile();
        }
        if parts.want("true") || parts.want("pipe") {
            let bench = Bench::start();
            if parts.want("true") {
                bench.run_true();
            }
            if parts.want("pipe") {
                bench.pipe();
            }
        }
    })
}

struct Bench {
    place: Place,
    hq: Hq,
    sshd: Sshd,
}

impl Bench {
    fn start() -> Self {
        let place = Place::new();
        let (sshd, hq) = (Sshd::start(&place), Hq::start(&place, &Engine::new()));
        let bench = Self { place, hq, sshd };
        // Opens both connections, and has each make what it makes once.
        done(&mut bench.ours(&["true"]));
        done(&mut bench.theirs(&["docker", "run", "--rm", IMAGE, "true"]));
        bench
    }

    /// A command over the connection that stays open; it is opened with the first one.
    fn over(&self, user: &str, port: u16, words: &[&str]) -> Command {
        let own = self.place.ssh_words();
        let mut command = Command::new(&own[0]);
        let path = self.place.path(&format!("{user}.control"));
        command.args(&own[1..]).args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]);
        command.arg("-o").arg(format!("ControlPath={}", path.display()));
        command.arg("-p").arg(port.to_string()).arg(format!("{user}@127.0.0.1")).args(words);
        command.env_remove("SSH_AUTH_SOCK").stderr(Stdio::null());
        command
    }

    fn ours(&self, words: &[&str]) -> Command {
        let job = [&["jobs", "run", "--image", IMAGE, "--"][..], words].concat();
        self.over("quarry", self.hq.ssh, &job)
    }

    fn theirs(&self, words: &[&str]) -> Command {
        self.over("root", self.sshd.port, words)
    }

    fn run_true(&self) {
        let mut pairs = Pairs::default();
        for round in 0..rounds(21) {
            let ours = || timed(&mut self.ours(&["true"]));
            let theirs = || timed(&mut self.theirs(&["docker", "run", "--rm", IMAGE, "true"]));
            let (ours, theirs) = in_turn(round, ours, theirs);
            pairs.add(ours, theirs);
        }
        heading("milliseconds");
        row("`jobs run` of `true`, beside `docker run --rm`", &pairs, Target::RatioAtMost(1.2));
    }

    fn pipe(&self) {
        let file = self.place.path("piped");
        done(Command::new("sh").args(["-c", &format!("head -c {PIPED}MB /dev/urandom >\"$0\"")]).arg(&file));
        let sink = "cat >/dev/null";
        let source = format!("head -c {PIPED}MB /dev/zero");
        let rate = |command: &mut Command, input: Stdio| {
            end::checkpoint();
            let began = Instant::now();
            let status = command.stdin(input).stdout(Stdio::null()).status().unwrap();
            assert!(status.success(), "{command:?}: {status}");
            PIPED as f64 / began.elapsed().as_secs_f64()
        };
        let given = || Stdio::from(File::open(&file).unwrap());
        let (mut into, mut out) = (Pairs::default(), Pairs::default());
        for round in 0..rounds(5) {
            let ours = || rate(&mut self.ours(&["sh", "-c", &format!("'{sink}'")]), given());
            let theirs = || rate(&mut self.theirs(&["sh", "-c", &format!("'{sink}'")]), given());
            let (ours, theirs) = in_turn(round, ours, theirs);
            into.add(ours, theirs);
            let words: Vec<&str> = source.split(' ').collect();
            let ours = || rate(&mut self.ours(&words), Stdio::null());
            let theirs = || rate(&mut self.theirs(&words), Stdio::null());
            let (ours, theirs) = in_turn(round, ours, theirs);
            out.add(ours, theirs);
        }
        heading("MB a second");
        row("a gigabyte into a job, beside plain ssh", &into, Target::RatioAtLeast(0.8));
        row("a gigabyte out of a job, beside plain ssh", &out, Target::RatioAtLeast(0.8));
    }
}

/// Measures both sides; who goes first changes.
fn in_turn(round: usize, ours: impl FnOnce() -> f64, theirs: impl FnOnce() -> f64) -> (f64, f64) {
    if ours_first(round) {
        let ours = ours();
        (ours, theirs())
    } else {
        let theirs = theirs();
        (ours(), theirs)
    }
}

const JOBS: usize = 10_000;
const SERVERS: usize = 100;

fn reconcile() {
    let world = world();
    let missing = JOBS / SERVERS;
    let mut seconds = Vec::new();
    for _ in 0..rounds(9) {
        let began = Instant::now();
        let instructions = drift(&world);
        let planned = plan(&instructions, &world).unwrap();
        seconds.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(instructions.len(), missing);
        assert_eq!(planned.revocable().filter_map(quarry::launch::Step::makes).count(), missing);
    }
    heading("milliseconds");
    figure(&format!("{JOBS} jobs compared, {missing} of them planned anew"), median(seconds), Target::AtMost(100.0));
}

fn settings() -> Settings {
    Settings {
        kind: Kind::Worker,
        image: format!("sha256:{}", "a".repeat(64)).parse::<ImageId>().unwrap(),
        command: None,
        args: vec!["sleep".into(), "1000".into()],
        cwd: None,
        ports: Vec::new(),
        balance: Default::default(),
        protocol: Default::default(),
        volumes: Vec::new(),
        env: Default::default(),
        links: BTreeMap::new(),
        outside: Default::default(),
        filter: Filter::default(),
        fixed: false,
        is_static: false,
        size: Megabytes(128),
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

/// A hundred servers with a hundred jobs each, the last of which is missing on each.
fn world() -> World {
    let servers: Vec<ServerName> = (0..SERVERS).map(|number| format!("s{number}").parse().unwrap()).collect();
    let footing = |(index, server): (usize, &ServerName)| {
        let footing = Footing {
            ground: Ground { address: IpAddr::from([10, 0, 1, index as u8]), ports: 20_000..=29_999 },
            ports_taken: BTreeSet::new(),
            network_exists: true,
            subnet: format!("10.208.{index}.0/24"),
            slice: Slice::new(Megabytes(64 << 10)),
        };
        (server.clone(), footing)
    };
    let mut world = World {
        identity: Identity { id: "0123abcd".into(), suffix: String::new(), secret: String::new() },
        stack: "jobs".parse().unwrap(),
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
        here: servers[0].clone(),
        built: BTreeMap::new(),
        overbook: Overbook::default(),
        exchange: None,
        waits: true,
        sites: "/sites".into(),
    };
    for number in 0..JOBS {
        let node: NodeName = format!("job-{number}").parse().unwrap();
        let proc = world.proc(&node, 1, ReleaseNumber(1), 1, &settings());
        world.procs.insert(node.clone(), proc);
        let server = &servers[number % SERVERS];
        if number / SERVERS == JOBS / SERVERS - 1 {
            continue;
        }
        let name = world.identity.container(&world.stack, &node, ReleaseNumber(1), 1);
        let block = Block::new(Megabytes(128), world.stack.clone(), node.clone());
        world.servers.get_mut(server).unwrap().slice.blocks.insert(name.clone(), block);
        world.names.insert(name.clone());
        world.instances.push(Instance {
            name,
            server: server.clone(),
            node,
            release: Some(ReleaseNumber(1)),
            index: 1,
            role: Role::Node,
            runs: true,
            published: None,
            exposed: Vec::new(),
        });
    }
    world
}
