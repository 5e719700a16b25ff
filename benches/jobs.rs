//! Jobs beside docker itself: `true` and a gigabyte in each direction through one SSH connection, and 10,000 of them compared.
//!
//! Quarry's `jobs run` goes through a connection to its own receiver that stays open, `docker run --rm` and a plain command
//! through one to OpenSSH's server; the client is the same. `across` has the gigabyte go on to another server, beside plain
//! ssh that goes on from HQ's. `reconcile` looks for what differs between 10,000 jobs that should run and 10,000 containers
//! on 100 servers, of which every hundredth is missing, and plans what is to be made. Names of parts may be given (`true
//! pipe across reconcile`), and `QUARRY_ROUNDS`.

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
use self::common::lab::Lab;
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
                bench.pipe("a job");
            }
        }
        if parts.want("across") {
            Bench::across(&Lab::up(1)).pipe("a job elsewhere");
        }
    })
}

struct Bench {
    place: Place,
    hq: Hq,
    sshd: Sshd,
    /// What says to HQ on which server a job runs, and how plain ssh goes on to the same one from HQ's.
    onward: Option<([&'static str; 2], Vec<String>)>,
}

impl Bench {
    fn start() -> Self {
        let bench = Self::new();
        // Opens both connections, and has each make what it makes once.
        done(&mut bench.ours(&["true"]));
        done(&mut bench.theirs(&["docker", "run", "--rm", IMAGE, "true"]));
        bench
    }

    fn new() -> Self {
        let place = Place::new();
        let (sshd, hq) = (Sshd::start(&place), Hq::start(&place, &Engine::new()));
        Self { place, hq, sshd, onward: None }
    }

    /// The same, on a lab's server. All connections stay open: the client's, HQ's to the server, and that of plain ssh.
    fn across(lab: &Lab) -> Self {
        let mut bench = Self::new();
        bench.hq.add_server(lab, 1);
        let own = bench.place.ssh_words_of(lab.key().as_ref());
        let onward = own.into_iter().chain(bench.place.kept("onward")).chain([lab.address(1)]).collect();
        bench.onward = Some((["--server", "s1"], onward));
        done(&mut bench.ours(&["true"]));
        done(&mut bench.theirs(&["true"]));
        bench
    }

    /// A command over the connection that stays open; it is opened with the first one.
    fn over(&self, user: &str, port: u16, words: &[&str]) -> Command {
        let own = self.place.ssh_words();
        let mut command = Command::new(&own[0]);
        command.args(&own[1..]).args(self.place.kept(user));
        command.arg("-p").arg(port.to_string()).arg(format!("{user}@127.0.0.1")).args(words);
        command.env_remove("SSH_AUTH_SOCK").stderr(Stdio::null());
        command
    }

    fn ours(&self, words: &[&str]) -> Command {
        let server = self.onward.iter().flat_map(|(server, _)| *server);
        let run = ["jobs", "run", "--image", IMAGE].into_iter().chain(server).chain(["--"]);
        let job: Vec<&str> = run.chain(words.iter().copied()).collect();
        self.over("quarry", self.hq.ssh, &job)
    }

    fn theirs(&self, words: &[&str]) -> Command {
        let Some((_, onward)) = &self.onward else { return self.over("root", self.sshd.port, words) };
        // A shell on the way takes one pair of quotes away.
        let quoted = format!("'{}'", words.join(" ").replace('\'', r"'\''"));
        let words: Vec<&str> = onward.iter().map(String::as_str).chain([&*quoted]).collect();
        self.over("root", self.sshd.port, &words)
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

    fn pipe(&self, job: &str) {
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
        row(&format!("a gigabyte into {job}, beside ssh"), &into, Target::RatioAtLeast(0.8));
        row(&format!("a gigabyte out of {job}, beside ssh"), &out, Target::RatioAtLeast(0.8));
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
