//! The embassy beside HAProxy in tcp mode: bulk, new connections, kept ones, the whole p99, memory of idle ones.
//!
//! Client, servers and each proxy are processes of their own on this machine's loopback. HAProxy has a thread for each
//! processor and stands there twice, with and without splice: the one with the better median is the reference. `direct`
//! rows are the same without a proxy, for orientation. Parts: `bulk connections requests p99 memory`; `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use quarry::embassy::{Embassy, Endpoint, Exposed, Health, Sources, Table};
use quarry::units::Balance;
use quarry::units::Millis;
use quarry::units::port::Port;
use rustix::process::{Resource, getrlimit};

use self::common::place::{Place, free_port};
use self::common::program::{self, resident, until};
use self::common::table::{Pairs, Target as Promise, figure, heading, median, row};
use self::common::{Parts, end, number, rounds};
use self::load::After;

#[path = "../common/mod.rs"]
mod common;
mod load;
mod servers;

/// What a process of this benchmark is when it is not the benchmark itself, and what it needs for that.
const ROLE: &str = "QUARRY_BENCH_ROLE";
const ENDPOINTS: &str = "QUARRY_BENCH_ENDPOINTS";

/// Connections at once.
const AT_ONCE: usize = 64;
/// Of which so many are idle for the memory.
const IDLE: usize = 10_000;

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("servers") => servers::serve(),
        Ok("embassy") => embassy(),
        _ => return end::run(bench),
    }
    ExitCode::SUCCESS
}

/// The embassy, in front of these endpoints.
fn embassy() {
    let endpoints: Vec<SocketAddr> =
        std::env::var(ENDPOINTS).unwrap().split(' ').map(|address| address.parse().unwrap()).collect();
    let address = IpAddr::from([127, 0, 0, 2]);
    let exposed = |endpoint: &SocketAddr| Exposed {
        port: Port::tcp(free_port()),
        endpoints: vec![Endpoint {
            address: *endpoint,
            container: "bench.app.1.1".parse().unwrap(),
            health: Health::Healthy,
        }],
        balance: Balance::RoundRobin,
        from: Sources::Anywhere,
        drain: Millis::seconds(1),
        connect: Millis::seconds(5),
    };
    let table = Table { ports: endpoints.iter().map(exposed).collect() };
    let embassy = Embassy::start(address).unwrap();
    embassy.set(&table).unwrap();
    let [echoes, sends] = [0, 1].map(|place: usize| SocketAddr::new(address, table.ports[place].port.number));
    println!("{echoes} {sends}");
    servers::wait_for_end();
}

/// A way to both servers.
struct Way {
    name: &'static str,
    pid: u32,
    echoes: SocketAddr,
    sends: SocketAddr,
}

impl Way {
    /// This program in another role, which says where it is.
    fn to_role(role: &'static str, endpoints: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).env(ENDPOINTS, endpoints).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program::start(&mut command);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (echoes, sends) = line.trim().split_once(' ').unwrap_or_else(|| panic!("{role} says {line:?}"));
        let way = Self { name: role, pid: child.id(), echoes: echoes.parse().unwrap(), sends: sends.parse().unwrap() };
        // Its input ends with this process.
        std::mem::forget(child.stdin.take());
        std::thread::spawn(move || child.wait());
        way
    }

    /// HAProxy before both servers.
    fn to_haproxy(place: &Place, name: &'static str, options: &str, servers: &Way) -> Self {
        let [echoes, sends] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 3], free_port())));
        let threads = std::thread::available_parallelism().unwrap();
        // Beside them it has files of its own, pipes among them.
        let most = files() / 2 - 400;
        let mut text = format!(
            "global\n  nbthread {threads}\n  maxconn {most}\n  maxpipes 100\ndefaults\n  mode tcp\n  maxconn {most}\n  {options}\n  \
             timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        );
        for (what, bind, server) in [("echoes", echoes, servers.echoes), ("sends", sends, servers.sends)] {
            text += &format!("listen {what}\n  bind {bind} backlog 4096\n  server app {server}\n");
        }
        let path = place.path(&format!("{name}.cfg"));
        fs::write(&path, text).unwrap();
        let mut command = Command::new("haproxy");
        let mut child = program::start(command.arg("-db").arg("-f").arg(path).stdin(Stdio::null()));
        let way = Self { name, pid: child.id(), echoes, sends };
        std::thread::spawn(move || child.wait());
        until(name, || TcpStream::connect(echoes).is_ok());
        way
    }
}

/// How many files a process may have.
fn files() -> usize {
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)).unwrap()
}

struct Bench {
    direct: Way,
    ours: Way,
    haproxy: [Way; 2],
    length: Duration,
}

fn bench() {
    let parts = Parts::wanted();
    let place = Place::new();
    let direct = Way::to_role("servers", "");
    let ours = Way::to_role("embassy", &format!("{} {}", direct.echoes, direct.sends));
    let haproxy = [("haproxy", ""), ("haproxy with splice", "option splice-auto")]
        .map(|(name, options)| Way::to_haproxy(&place, name, options, &direct));
    let length = Duration::from_millis(number("QUARRY_MILLISECONDS", 3000).try_into().unwrap());
    let bench = Bench { direct, ours, haproxy, length };
    if parts.want("bulk") {
        bench.heading("bulk in Gbit per second");
        for streams in [1, 8] {
            let name = format!("{streams} stream{}", if streams == 1 { "" } else { "s" });
            bench.beside(&name, Best::Most, Promise::RatioAtLeast(1.2), |way| {
                load::bulk(way.sends, streams, bench.length)
            });
        }
    }
    if parts.want("connections") {
        bench.heading("new connections per second, each with one request");
        bench.beside("64 at once", Best::Most, Promise::RatioAtLeast(1.0), |way| {
            load::requests(way.echoes, AT_ONCE, After::Close, bench.length)
        });
    }
    if parts.want("requests") {
        bench.heading("requests per second over kept connections");
        for count in [AT_ONCE, 1] {
            let promise = if count == 1 { Promise::None } else { Promise::RatioAtLeast(1.0) };
            bench.beside(&format!("{count} at once"), Best::Most, promise, |way| {
                load::requests(way.echoes, count, After::Ask, bench.length)
            });
        }
    }
    if parts.want("p99") {
        bench.heading("99th percentile of a whole request in microseconds");
        let most = Promise::RatioAtMost(1.1);
        for (name, after, pace) in [
            ("1,500 new connections a second", After::Close, 1500.0),
            ("5,000 requests a second over 8 kept ones", After::Ask, 5000.0),
        ] {
            bench.beside(name, Best::Least, most, |way| load::p99(way.echoes, after, pace, bench.length));
        }
    }
    if parts.want("memory") {
        bench.memory();
    }
}

/// Which of two figures is the better one.
#[derive(Clone, Copy)]
enum Best {
    Most,
    Least,
}

impl Bench {
    fn heading(&self, title: &str) {
        heading(title);
    }

    /// All ways in turn, in an order that changes.
    fn beside(&self, case: &str, best: Best, promise: Promise, measure: impl Fn(&Way) -> f64) {
        let ways = [&self.ours, &self.haproxy[0], &self.haproxy[1], &self.direct];
        let mut all = [const { Vec::new() }; 4];
        for round in 0..rounds(7) {
            let mut found = [0.0; 4];
            for step in 0..ways.len() {
                let place = if round % 2 == 0 { step } else { ways.len() - 1 - step };
                found[place] = measure(ways[place]);
                // What has ended leaves the processors before the next one begins.
                std::thread::sleep(Duration::from_millis(200));
            }
            all.iter_mut().zip(found).for_each(|(all, found)| all.push(found));
        }
        // The better one of each round would only be the luckier one.
        let [first, second] = [1, 2].map(|place: usize| median(all[place].iter().copied()));
        let first_is_better = match best {
            Best::Most => first >= second,
            Best::Least => first <= second,
        };
        let reference = if first_is_better { 1 } else { 2 };
        let mut pairs = Pairs::default();
        all[0].iter().zip(&all[reference]).for_each(|(ours, theirs)| pairs.add(*ours, *theirs));
        row(case, &pairs, promise);
        for (way, all) in ways.iter().zip(&all).skip(1) {
            let name = if way.name == "servers" { "direct" } else { way.name };
            println!("  {name:<42}{:>10}{:>11.1}", "", median(all.iter().copied()));
        }
    }

    /// What connections that rest cost.
    fn memory(&self) {
        heading("resident memory in KiB for each idle connection");
        // Each has two files in a proxy, some of which are for others.
        let count = number("QUARRY_CONNECTIONS", IDLE).min((files() - 2000) / 2);
        for (way, promise) in [(&self.ours, Promise::AtMost(10.0)), (&self.haproxy[0], Promise::None)] {
            let before = resident(way.pid);
            let kept = load::idle(way.echoes, count);
            let each = (resident(way.pid) - before) * 1024.0 / count as f64;
            figure(&format!("{}, {count} connections", way.name), each, promise);
            drop(kept);
        }
    }
}
