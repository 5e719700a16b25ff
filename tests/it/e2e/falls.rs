//! What falls again and again, and what is too many.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::app;
use crate::harness::{Hq, until};

fn row(hq: &Hq) -> Value {
    let rows = hq.quarry(&["ps", "blog", "--json"]).succeeded().json();
    rows.as_array().unwrap().iter().find(|row| row["node"] == "worker").cloned().unwrap_or_default()
}

#[test]
fn what_may_exist_only_once_and_falls_again_and_again_is_started_ever_more_slowly() {
    let mut hq = Hq::start();
    let yml = "worker:\n  type: worker\n  dockerfile: Dockerfile\n  overlap: stop-first\n  scale: 1\n  run: sleep 4; exit 7\n";
    let repository = app(&[("quarry.yml", yml)]);
    hq.push(&repository, "blog").succeeded();
    let began = Instant::now();
    let waiting = || Some(row(&hq)).filter(|row| row["state"] == "backoff");
    let first = until("it to wait", waiting);
    assert!(began.elapsed() > Duration::from_secs(4), "the first time it is started at once");
    assert_eq!(first["code"], 7);
    assert!((1..=10).contains(&first["again_in"].as_i64().unwrap()), "{first}");
    let listing = hq.quarry(&["ps", "blog"]).succeeded().text();
    assert!(listing.contains("backoff (7), again in "), "{listing}");
    // Another HQ knows how often it has fallen.
    hq.stop(Signal::KILL);
    hq.serve();
    let second = until("it to wait for longer", || {
        Some(row(&hq)).filter(|row| row["state"] == "backoff" && row["again_in"].as_i64() > Some(10))
    });
    assert!(second["again_in"].as_i64() <= Some(20), "{second}");
    // What a person wants is done at once.
    repository.write("quarry.yml", &yml.replace("sleep 4; exit 7", "exec sleep infinity"));
    repository.commit("it stays");
    hq.push(&repository, "blog").succeeded();
    let running = || Some(row(&hq)).filter(|row| row["state"] == "running" && row["release"] == "2");
    until("the new release alone", running);
}

#[test]
fn a_stack_has_more_containers_on_a_server_than_its_network_once_held_and_the_limit_is_told() {
    let yml = |scale: u32| {
        format!(
            "worker:\n  type: worker\n  dockerfile: Dockerfile\n  size: 16mb\n  scale: {scale}\n  run: exec sleep infinity\n  grace: 100ms\n"
        )
    };
    // A small pool is cut into small networks.
    let hq = Hq::start_with(&[("subnets", "10.231.0.0/22")]);
    let refused = hq.push(&app(&[("quarry.yml", &yml(32))]), "blog").failed();
    refused.said(&["`worker` finds no place on hq", "holds 31 containers", "add a server"]);
    drop(hq);
    let hq = Hq::start_with(&[("subnets", "10.230.0.0/16")]);
    hq.push(&app(&[("quarry.yml", &yml(34))]), "blog").succeeded();
    assert_eq!(hq.containers(&["node=worker"]).len(), 34);
}
