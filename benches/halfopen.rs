//! 1,000 SSH connections that do nothing: what they cost HQ, and how long a push takes meanwhile.
//!
//! They stop before a word, after the greeting, in the middle of the key exchange, and logged in without a channel. Memory
//! is what the `serve` process holds (VmRSS) with all of them held open at once, the ones it ends being opened again, above
//! what it held before. The push, a tiny one from the same address, is taken in pairs with and without them.
//! Names of parts may be given (`silent greeted exchanging idle`), and `QUARRY_ROUNDS` and `QUARRY_CONNECTIONS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Config, Handle, Handler, connect};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::{done, resident, timed};
use self::common::repository::Repository;
use self::common::table::{Pairs, Target, figure, heading, row};
use self::common::{Parts, end, number, ours_first, rounds};

mod common;

/// A branch that quarry stores without a deploy.
const BRANCH: &str = "refs/heads/stored";

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        let bench = Bench::start();
        for (name, kind) in KINDS {
            if parts.want(name) {
                bench.measure(name, kind);
            }
        }
    })
}

/// Where a connection stops.
#[derive(Clone, Copy)]
enum Kind {
    Silent,
    Greeted,
    Exchanging,
    Idle,
}

const KINDS: [(&str, Kind); 4] =
    [("silent", Kind::Silent), ("greeted", Kind::Greeted), ("exchanging", Kind::Exchanging), ("idle", Kind::Idle)];

/// Connections held open.
enum Held {
    Streams(#[expect(dead_code, reason = "they are only kept")] Vec<TcpStream>),
    Sessions(Vec<Handle<Anyone>>),
}

/// A client that trusts every server.
struct Anyone;

impl Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

struct Bench {
    place: Place,
    hq: Hq,
    runtime: tokio::runtime::Runtime,
    repository: Repository,
}

impl Bench {
    fn start() -> Self {
        let place = Place::new();
        let hq = Hq::start(&place, &Engine::new());
        let repository = Repository::with(&place, "tiny", &[("file", b"first\n")]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bench = Self { place, hq, runtime, repository };
        // The stack is there, and HQ has done everything once.
        for text in ["1", "2", "3"] {
            done(&mut bench.push(text));
        }
        bench
    }

    /// One small commit onto a branch that is there.
    fn push(&self, text: &str) -> Command {
        self.repository.write("file", format!("{text}\n").as_bytes());
        self.repository.commit();
        let mut command = self.repository.git(&["push", "-q", &self.hq.url("tiny"), &format!("HEAD:{BRANCH}")]);
        command.env("GIT_SSH_COMMAND", self.place.ssh_words().join(" "));
        command
    }

    fn measure(&self, name: &str, kind: Kind) {
        let count = number("QUARRY_CONNECTIONS", 1000);
        let before = resident(self.hq.pid);
        let mut most: f64 = 0.0;
        let mut pairs = Pairs::default();
        for round in 0..rounds(11) {
            let alone = || timed(&mut self.push(&format!("{name} alone {round}")));
            let mut beside = || {
                let held = self.hold(kind, count);
                std::thread::sleep(Duration::from_millis(300));
                most = most.max(resident(self.hq.pid));
                let took = timed(&mut self.push(&format!("{name} {round}")));
                most = most.max(resident(self.hq.pid));
                self.release(held);
                took
            };
            let (ours, reference) = if ours_first(round) {
                let ours = beside();
                (ours, alone())
            } else {
                let reference = alone();
                (beside(), reference)
            };
            pairs.add(ours, reference);
        }
        heading(&format!("{count} connections, {name}: MiB, and milliseconds of a push with and without them"));
        figure("memory of HQ above before", most - before, Target::AtMost(50.0));
        row("a tiny push", &pairs, Target::RatioAtMost(1.2));
    }

    fn hold(&self, kind: Kind, count: usize) -> Held {
        let stream = || TcpStream::connect(("127.0.0.1", self.hq.ssh)).unwrap();
        let words: &[u8] = match kind {
            Kind::Silent => b"",
            Kind::Greeted => b"SSH-2.0-half\r\n",
            // A packet of a key exchange that says it is longer than what comes of it.
            Kind::Exchanging => b"SSH-2.0-half\r\n\0\0\x04\0\x04\x14quarry quarry quarry",
            Kind::Idle => return Held::Sessions(self.runtime.block_on(self.sessions(count))),
        };
        let said = |_| {
            let mut stream = stream();
            // One that was ended meanwhile is one of those that have gone.
            let _ = stream.write_all(words);
            stream
        };
        Held::Streams((0..count).map(said).collect())
    }

    async fn sessions(&self, count: usize) -> Vec<Handle<Anyone>> {
        let config = Arc::new(Config::default());
        let key = Arc::new(load_secret_key(self.place.path("id"), None).unwrap());
        let mut sessions = Vec::new();
        for _ in 0..count {
            let mut session = connect(config.clone(), ("127.0.0.1", self.hq.ssh), Anyone).await.unwrap();
            let key = PrivateKeyWithHashAlg::new(key.clone(), None);
            assert!(session.authenticate_publickey("quarry", key).await.unwrap().success());
            sessions.push(session);
        }
        sessions
    }

    fn release(&self, held: Held) {
        if let Held::Sessions(sessions) = held {
            // They end where their tasks are.
            self.runtime.block_on(async move { drop(sessions) });
        }
        // HQ notices, too.
        std::thread::sleep(Duration::from_millis(300));
    }
}
