//! A redeploy and a rollback beside the least that they can take: a push over OpenSSH, a cached build, a container.
//!
//! A redeploy goes from `git push` to its exit: one file has changed, the dependencies have not. Its floor is the sum
//! of the same push to OpenSSH's sshd, the same build through docker's API and one container made, started and asked
//! until it answers at a published port. A rollback goes from `quarry rollback` on HQ to its exit. The sides take
//! turns; the floor's files differ from ours in as much as one release from another, so that neither finds the other's
//! layers in docker's cache. Names of parts may be given (`deploy rollback`), and `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::Instant;

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::{milliseconds, timed};
use self::common::repository::Repository;
use self::common::sshd::Sshd;
use self::common::table::{Pairs, Target, figure, heading, median, row};
use self::common::{Parts, app, end, ours_first, rounds};

mod common;

/// The image of the floor.
const IMAGE: &str = "quarry-bench/floor";

fn main() -> ExitCode {
    end::run(|| {
        let parts = Parts::wanted();
        let bench = Bench::start();
        heading("milliseconds");
        if parts.want("deploy") {
            bench.deploy();
        }
        if parts.want("rollback") {
            bench.rollback();
        }
    })
}

struct Bench {
    hq: Hq,
    sshd: Sshd,
    engine: Engine,
    ours: Repository,
    theirs: Repository,
}

/// What the floor consists of, in milliseconds.
#[derive(Default)]
struct Floor {
    push: Vec<f64>,
    build: Vec<f64>,
    reply: Vec<f64>,
}

impl Bench {
    /// Both sides have had two releases: the stack is there, the layers are in the cache.
    fn start() -> Self {
        let place = Place::new();
        let engine = Engine::new();
        let (sshd, hq) = (Sshd::start(&place), Hq::start(&place, &engine));
        let (ours, theirs) = (app::repository(&place, "ours"), app::repository(&place, "theirs"));
        let bench = Self { hq, sshd, engine, ours, theirs };
        for release in ["first", "second"] {
            bench.redeploy(release);
            bench.floor(release, &mut Floor::default());
        }
        bench
    }

    /// Milliseconds from `git push` to its exit.
    fn redeploy(&self, release: &str) -> f64 {
        self.ours.write("version", format!("ours {release}\n").as_bytes());
        self.ours.commit();
        let took = timed(&mut self.hq.push(&self.ours, "app"));
        self.hq.wait_for_rest("app", 1);
        took
    }

    /// Milliseconds of the least that does the same.
    fn floor(&self, release: &str, parts: &mut Floor) -> f64 {
        self.theirs.write("version", format!("theirs {release}\n").as_bytes());
        self.theirs.commit();
        let push = timed(&mut self.sshd.push(&self.theirs, "app"));
        let began = Instant::now();
        self.engine.build(IMAGE, self.theirs.tar());
        let build = milliseconds(began);
        let reply = self.engine.first_reply(IMAGE, app::PORT, self.hq.peer("app").ip());
        parts.push.push(push);
        parts.build.push(build);
        parts.reply.push(reply);
        push + build + reply
    }

    fn deploy(&self) {
        let (mut pairs, mut parts) = (Pairs::default(), Floor::default());
        for round in 0..rounds(11) {
            let release = round.to_string();
            let (ours, floor) = if ours_first(round) {
                let ours = self.redeploy(&release);
                (ours, self.floor(&release, &mut parts))
            } else {
                let floor = self.floor(&release, &mut parts);
                (self.redeploy(&release), floor)
            };
            pairs.add(ours, floor);
        }
        row("redeploy, from git push to its exit", &pairs, Target::RatioAtMost(1.5));
        let parts = [("push over OpenSSH", parts.push), ("cached build", parts.build), ("first reply", parts.reply)];
        for (name, times) in parts {
            figure(&format!("  of the floor: {name}"), median(times), Target::None);
        }
    }

    /// Back and forth between the last two releases.
    fn rollback(&self) {
        let mut pairs = Pairs::default();
        for round in 0..rounds(11) {
            let back = || {
                let took = timed(self.hq.quarry().args(["rollback", "app"]));
                self.hq.wait_for_rest("app", 1);
                took
            };
            let reply = || self.engine.first_reply(IMAGE, app::PORT, self.hq.peer("app").ip());
            let (ours, floor) = if ours_first(round) {
                let ours = back();
                (ours, reply())
            } else {
                let floor = reply();
                (back(), floor)
            };
            pairs.add(ours, floor);
        }
        row("rollback", &pairs, Target::MoreAtMost(100.0));
    }
}
