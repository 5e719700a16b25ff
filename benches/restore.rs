//! An HQ restored from its backup: from `quarry restore` on an empty root until each of 20 stacks answers.
//!
//! Each stack has an image with a layer of 16 MB of its own on the common base. Before, HQ, its router, containers,
//! networks and images are gone; the base's layers stay with docker, as on a machine that has them. `QUARRY_STACKS`
//! changes the number. Also how long the backup takes while HQ serves, and its size.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use self::common::engine::Engine;
use self::common::hq::Hq;
use self::common::place::Place;
use self::common::program::done;
use self::common::table::{Target, figure, heading};
use self::common::{app, end, number};

mod common;

fn main() -> ExitCode {
    end::run(|| {
        let (place, engine) = (Place::new(), Engine::new());
        let mut hq = Hq::start(&place, &engine);
        let stacks: Vec<String> = (0..number("QUARRY_STACKS", 20)).map(|number| format!("stack-{number}")).collect();
        let repository = app::repository(&place, "app");
        for stack in &stacks {
            repository.write("dependencies", format!("library of {stack}\n").as_bytes());
            repository.commit();
            done(&mut hq.push(&repository, stack));
        }
        let file = place.path("backup.tar.gz");
        let began = Instant::now();
        done(hq.quarry().arg("backup").arg(&file));
        let backed = began.elapsed();
        let size = fs::metadata(&file).unwrap().len() as f64 / f64::from(1 << 20);
        let began = Instant::now();
        hq.replace(&file);
        let served = began.elapsed();
        for stack in &stacks {
            hq.wait_for_page(&format!("{stack}.localhost"));
        }
        let answered = began.elapsed();
        heading(&format!("seconds, {} stacks, a backup of {size:.0} MiB", stacks.len()));
        figure("backup", backed.as_secs_f64(), Target::None);
        figure("restore until HQ serves", served.as_secs_f64(), Target::None);
        figure("restore until every stack answers", answered.as_secs_f64(), Target::AtMost(60.0));
    })
}
