//! HQ at rest: its memory, its memory while 50 pushes are in flight, and `ssh … ps` beside `ssh … true` of OpenSSH.
//!
//! Memory is what the `serve` process itself holds (VmRSS), its children left out. The pushes stop in the middle of
//! their packs, all 50 of them; the most that was seen from their start to their end counts. `ps` lists 200 stacks:
//! three run, the others have a record each and a container that was made and not started, which docker lists alike.
//! Names of parts may be given (`rest flight ps`), and `QUARRY_ROUNDS` and `QUARRY_STACKS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::json;

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::{self, done, resident, timed, until};
use self::common::repository::Repository;
use self::common::sshd::Sshd;
use self::common::table::{Pairs, Target, figure, heading, row};
use self::common::{Parts, app, end, number, ours_first, rounds};

mod common;

/// Pushes at once.
const FLIGHT: usize = 50;
/// Bytes of random files in each.
const PACK: usize = 20 << 20;
/// A held push stops after so many bytes.
const HELD_AFTER: usize = 8 << 20;
/// The folder by whose files held pushes show that they stop, and hear that they may go on.
const HOLD: &str = "QUARRY_BENCH_HOLD";

fn main() -> ExitCode {
    if let Some(folder) = std::env::var_os(HOLD) {
        return hold(Path::new(&folder));
    }
    end::run(|| {
        let parts = Parts::wanted();
        let bench = Bench::start();
        if parts.want("rest") {
            bench.rest();
        }
        if parts.want("flight") {
            bench.flight();
        }
        if parts.want("ps") {
            bench.ps();
        }
    })
}

struct Bench {
    place: Place,
    engine: Engine,
    hq: Hq,
    sshd: Sshd,
}

impl Bench {
    fn start() -> Self {
        let place = Place::new();
        let engine = Engine::new();
        let (sshd, hq) = (Sshd::start(&place), Hq::start(&place, &engine));
        Self { place, engine, hq, sshd }
    }

    /// Fresh, and after it has worked.
    fn rest(&self) {
        heading("MiB");
        figure("resident, just started", resident(self.hq.pid), Target::AtMost(25.0));
        let repository = app::repository(&self.place, "app");
        for release in 0..rounds(5) {
            repository.write("version", format!("{release}\n").as_bytes());
            repository.commit();
            done(&mut self.hq.push(&repository, "app"));
            self.hq.wait_for_rest("app", 1);
            done(&mut self.place.ssh("quarry", self.hq.ssh, &["ps"]));
        }
        std::thread::sleep(Duration::from_secs(2));
        figure("resident, at rest after deploys", resident(self.hq.pid), Target::AtMost(25.0));
    }

    fn flight(&self) {
        let holding = self.place.path("hold");
        fs::create_dir(&holding).unwrap();
        let mut random = vec![0; PACK];
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
        let repository = Repository::with(&self.place, "flight", &[("data", &random)]);
        let mut pushes: Vec<_> =
            (0..FLIGHT).map(|number| program::start(&mut self.held_push(&repository, number, &holding))).collect();
        let mut most: f64 = 0.0;
        let held = |most: &mut f64| {
            *most = most.max(resident(self.hq.pid));
            fs::read_dir(&holding).unwrap().count() >= FLIGHT
        };
        until("50 pushes to be in flight", || held(&mut most));
        std::thread::sleep(Duration::from_secs(1));
        let middle = resident(self.hq.pid);
        fs::write(holding.join("go"), "").unwrap();
        until("50 pushes to end", || {
            most = most.max(resident(self.hq.pid));
            pushes.iter_mut().all(|push| push.try_wait().unwrap().is_some())
        });
        for mut push in pushes {
            assert!(push.wait().unwrap().success(), "a push failed");
        }
        heading("MiB");
        figure("resident, 50 pushes held in mid-pack", middle, Target::AtMost(150.0));
        figure("resident, the most while they came", most.max(middle), Target::AtMost(150.0));
        std::thread::sleep(Duration::from_secs(2));
        figure("resident, two seconds after them", resident(self.hq.pid), Target::None);
    }

    /// A push to a branch that does not deploy, through this program in the place of ssh.
    fn held_push(&self, repository: &Repository, number: usize, holding: &Path) -> Command {
        let url = self.hq.url(&format!("flight-{number}"));
        let mut command = repository.git(&["push", "-q", &url, "HEAD:refs/heads/stored"]);
        let ssh = std::env::current_exe().unwrap();
        command.env("GIT_SSH_COMMAND", format!("{} {}", ssh.display(), self.place.ssh_words().join(" ")));
        command
            .env(HOLD, holding)
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.place.path("flight.log")).unwrap());
        command
    }

    fn ps(&self) {
        let stacks = number("QUARRY_STACKS", 200);
        self.make_stacks(stacks);
        let listed = done(&mut self.place.ssh("quarry", self.hq.ssh, &["ps"]));
        assert!(listed.lines().count() > stacks, "ps does not list all stacks:\n{listed}");
        let mut pairs = Pairs::default();
        for round in 0..rounds(31) {
            let ours = || timed(&mut self.place.ssh("quarry", self.hq.ssh, &["ps"]));
            let reference = || timed(&mut self.place.ssh("root", self.sshd.port, &["true"]));
            let (ours, reference) = if ours_first(round) {
                let ours = ours();
                (ours, reference())
            } else {
                let reference = reference();
                (ours(), reference)
            };
            pairs.add(ours, reference);
        }
        heading("milliseconds");
        row(&format!("ssh … ps, {stacks} stacks, beside ssh … true"), &pairs, Target::RatioAtMost(1.3));
    }

    fn make_stacks(&self, count: usize) {
        let repository = app::repository(&self.place, "stacks");
        for number in 0..count {
            let stack = format!("stack-{number}");
            if number < 3 {
                done(&mut self.hq.push(&repository, &stack));
                continue;
            }
            done(self.hq.quarry().args(["stacks", "create", &stack]));
            let labels = json!({
                "quarry.hq": self.hq.id, "quarry.stack": stack, "quarry.node": "web", "quarry.release": "1",
                "quarry.index": "1", "quarry.role": "node", "quarry.address": format!("172.17.0.1:{}", 40_000 + number),
            });
            let name = format!("{stack}.web.1.1-{}", self.hq.id);
            self.engine.create(&name, json!({ "Image": "debian:bookworm-slim", "Labels": labels }));
        }
    }
}

/// In the place of ssh: runs it, and passes on only the start of the pack until the benchmark says `go`.
fn hold(folder: &Path) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut child = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::piped()).spawn().unwrap();
    let into = child.stdin.take().unwrap();
    let (own, go) = (folder.join(std::process::id().to_string()), folder.join("go"));
    std::thread::spawn(move || pass_on(into, &own, &go));
    let status = child.wait().unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255))
}

fn pass_on(mut into: ChildStdin, own: &Path, go: &Path) {
    let mut chunk = vec![0; 64 << 10];
    let mut passed = 0;
    let mut stdin = std::io::stdin().lock();
    while let Ok(count @ 1..) = stdin.read(&mut chunk) {
        if into.write_all(&chunk[..count]).is_err() {
            return;
        }
        passed += count;
        if passed >= HELD_AFTER && !own.exists() {
            fs::write(own, "").unwrap();
            // The folder goes when the benchmark ends early.
            while !go.exists() && own.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
