//! `start` and `stop`: the same stack on the developer's own machine.

use std::process::Command;

use super::app;
use crate::harness::program::run;
use crate::harness::{Hq, docker};

#[test]
fn a_folder_starts_and_stops_without_hq() {
    // Only for its settings and for sweeping: it has no part in this.
    let hq = Hq::start();
    let repository = app(&[]);
    let local = Hq::local(repository.path());
    let quarry = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
        command.env("QUARRY_ROOT", hq.file("none")).env("QUARRY_ETC", hq.file("etc"));
        run(command.args([verb, "--stack", "demo"]).arg(repository.path()))
    };
    let done = quarry("start").succeeded();
    let url =
        done.stderr.lines().rev().find_map(|line| line.split_once("http://")).map(|(_, rest)| rest.trim().to_owned());
    let address = url.unwrap_or_else(|| panic!("no address in {done}")).parse().unwrap();
    let reply = crate::harness::web::request(address, "GET", "localhost", "/", b"").unwrap();
    assert_eq!(reply.text(), "Hello from release 1\n");
    assert!(repository.git(&["status", "--short"]).text().is_empty(), "its state would be committed");
    quarry("stop").succeeded().said(&["stopped 1 containers of demo"]);
    assert!(docker::list(&["ps", "-aq", "--filter", &format!("label=quarry.hq={}", local.id)]).is_empty());
}
