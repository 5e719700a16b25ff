//! A push to three servers beside the same push to one, and what travels to each.
//!
//! Two HQs, each with an empty server of its own: one has three more, the other one. Both get the same repository, with
//! three web containers; every push changes one file of a megabyte that cannot be compressed. A push goes from `git
//! push` to its exit. What travels is counted on each server's cable, from before the push until the old containers are
//! gone, everything that HQ says to it included. The sides take turns. `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::lab::Lab;
use self::common::place::Place;
use self::common::program::{timed, until};
use self::common::repository::Repository;
use self::common::table::{Pairs, Target, figure, heading, median, row};
use self::common::{app, end, ours_first, rounds};

mod common;

/// What changes with every push.
const CHANGED: u64 = 1024 * 1024;

const QUARRY: &str = "web:
  dockerfile: Dockerfile
  expose: 8080
  health: /
  scale: 3
";

fn main() -> ExitCode {
    end::run(|| {
        let lab = Lab::up(4);
        let engine = Engine::new();
        let three = Grid::start(&engine, &lab, &[1, 2, 3]);
        let one = Grid::start(&engine, &lab, &[4]);
        for _ in 0..2 {
            three.push();
            one.push();
        }
        let (mut pairs, mut beyond) = (Pairs::default(), Vec::new());
        heading("milliseconds");
        for round in 0..rounds(9) {
            let ours = || {
                let before = [1, 2, 3].map(|number| lab.received(number));
                let took = three.push();
                let after = [1, 2, 3].map(|number| lab.received(number));
                (took, before.into_iter().zip(after).map(|(before, after)| (after - before) as f64))
            };
            let ((took, travelled), reference) = if ours_first(round) {
                let ours = ours();
                (ours, one.push())
            } else {
                let reference = one.push();
                (ours(), reference)
            };
            beyond.extend(travelled.map(|bytes| (bytes - CHANGED as f64) / 1000.0));
            pairs.add(took, reference);
        }
        row("push of three containers: to three, to one", &pairs, Target::RatioAtMost(1.5));
        heading("KB for each server");
        figure("beyond the changed layer, usually", median(beyond.iter().copied()), Target::AtMost(100.0));
        figure("beyond the changed layer, the most", beyond.iter().copied().fold(0.0, f64::max), Target::AtMost(100.0));
    })
}

/// An HQ whose containers run on some servers of a lab.
struct Grid {
    hq: Hq,
    place: Place,
    app: Repository,
}

impl Grid {
    fn start(engine: &Engine, lab: &Lab, servers: &[u8]) -> Self {
        let place = Place::new();
        let hq = Hq::start(&place, engine);
        for number in servers {
            hq.add_server(lab, *number);
        }
        timed(hq.quarry().args(["servers", "drain", "hq"]));
        let app = app::repository(&place, "app");
        app.write("quarry.yml", QUARRY.as_bytes());
        Self { hq, place, app }
    }

    /// Milliseconds from `git push` to its exit; returns when the old containers are gone.
    fn push(&self) -> f64 {
        let mut content = Vec::new();
        File::open("/dev/urandom").unwrap().take(CHANGED).read_to_end(&mut content).unwrap();
        self.app.write("changed", &content);
        self.app.commit();
        let took = timed(&mut self.hq.push(&self.app, "app"));
        let journal = self.place.path("root/journal/app.json");
        until("the old containers to go", || !journal.exists());
        took
    }
}
