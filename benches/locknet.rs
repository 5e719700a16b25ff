//! Ten thousand peers: how long their rules take, and what a network is worth behind them beside one without rules.
//!
//! Two network namespaces on one cable. The rules are applied by the program itself, from its start to its end, in place
//! of others just as long; then bytes flow in one connection, and connections are opened one after the other, with the
//! rules and without, in turn. `QUARRY_ROUNDS` (the usual are 9).

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use self::common::program::{done, timed};
use self::common::table::{Pairs, Target, figure, heading, median, row};
use self::common::{end, ours_first, rounds};

mod common;

const PEERS: usize = 10_000;
/// How long bytes flow for one figure.
const FLOW: Duration = Duration::from_secs(1);
/// Connections opened for one figure.
const CONNECTIONS: usize = 1000;

fn main() -> ExitCode {
    end::run(|| {
        let cable = Cable::lay();
        let times = (0..rounds(9)).map(|round| timed(&mut cable.apply(round)));
        let applied = median(times.collect::<Vec<_>>());
        heading("milliseconds");
        figure("10,000 peers applied", applied, Target::AtMost(300.0));
        let (mut bytes, mut opened) = (Pairs::default(), Pairs::default());
        for round in 0..rounds(9) {
            let with = || {
                done(&mut cable.apply(round));
                (cable.flow(), cable.open())
            };
            let without = || {
                done(cable.locknet().arg("--off"));
                (cable.flow(), cable.open())
            };
            let (ours, reference) = if ours_first(round) {
                let ours = with();
                (ours, without())
            } else {
                let reference = without();
                (with(), reference)
            };
            bytes.add(ours.0, reference.0);
            opened.add(ours.1, reference.1);
        }
        heading("with 10,000 peers, beside no rules at all");
        row("Gbit/s in one connection", &bytes, Target::RatioAtLeast(0.9));
        row("connections opened a second", &opened, Target::None);
    })
}

/// A server and a peer.
struct Cable {
    server: String,
    peer: String,
    root: String,
    sink: SocketAddr,
}

impl Cable {
    fn lay() -> Self {
        let pid = std::process::id();
        let [server, peer] = ["server", "peer"].map(|name| format!("qb{pid}-{name}"));
        let root = std::env::temp_dir().join(format!("quarry-bench-locknet-{pid}"));
        fs::create_dir_all(&root).unwrap();
        let gone = (server.clone(), peer.clone(), root.clone());
        end::later(move || {
            for name in [gone.0, gone.1] {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
            let _ = fs::remove_dir_all(gone.2);
        });
        for name in [&server, &peer] {
            done(Command::new("ip").args(["netns", "add", name]));
        }
        done(
            Command::new("ip")
                .args(["-n", &server, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &peer]),
        );
        for (name, address) in [(&server, "10.99.0.1/24"), (&peer, "10.99.0.2/24")] {
            done(Command::new("ip").args(["-n", name, "address", "add", address, "dev", "eth0"]));
            for interface in ["lo", "eth0"] {
                done(Command::new("ip").args(["-n", name, "link", "set", interface, "up"]));
            }
        }
        let root = root.to_str().unwrap().to_owned();
        let listener = inside(&server, || TcpListener::bind("10.99.0.1:0").unwrap());
        let sink = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || swallow(stream.unwrap()));
            }
        });
        Self { server, peer, root, sink }
    }

    fn locknet(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server, env!("CARGO_BIN_EXE_quarry"), "locknet", "--root", &self.root]);
        command
    }

    /// Other addresses each round, but for the peer's.
    fn apply(&self, round: usize) -> Command {
        let others = (1..PEERS).map(|n| format!("10.{}.{}.{}", 100 + round % 100, n / 100, n % 100 * 2));
        let peers: Vec<String> = std::iter::once("10.99.0.2".to_owned()).chain(others).collect();
        let file = format!("{}/peers.json", self.root);
        let kept = json!({ "kept": { "links": [], "cluster": ["80", "443"] } });
        let policy = json!({ "peers": peers, "open": ["22", "80", "443"], "containers": kept });
        fs::write(&file, policy.to_string()).unwrap();
        let mut command = self.locknet();
        command.args(["--policy", &file]);
        command
    }

    /// Gbit/s from the peer to the server.
    fn flow(&self) -> f64 {
        let mut stream = inside(&self.peer, || TcpStream::connect(self.sink)).unwrap();
        let chunk = vec![0; 256 << 10];
        let (began, mut sent) = (Instant::now(), 0_u64);
        while began.elapsed() < FLOW {
            stream.write_all(&chunk).unwrap();
            sent += chunk.len() as u64;
        }
        finish(stream);
        sent as f64 * 8.0 / 1e9 / began.elapsed().as_secs_f64()
    }

    fn open(&self) -> f64 {
        let began = Instant::now();
        inside(&self.peer, || {
            for _ in 0..CONNECTIONS {
                finish(TcpStream::connect(self.sink).unwrap());
            }
        });
        CONNECTIONS as f64 / began.elapsed().as_secs_f64()
    }
}

/// Waits until the other end has everything.
fn finish(mut stream: TcpStream) {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn swallow(mut stream: TcpStream) {
    let mut chunk = vec![0; 256 << 10];
    while stream.read(&mut chunk).is_ok_and(|count| count > 0) {}
}

/// Does something with the network of this namespace.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    let work = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}
