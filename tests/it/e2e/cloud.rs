//! A grid that sizes itself, on a cloud whose machines are lab servers.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use quarry::servers::cloud::process::Program;
use quarry::units::Millis;
use rustix::process::Signal;

use super::servers::{Load, places, wait_for_places, web};
use crate::cloud::contract::keeps_the_contract;
use crate::harness::lab::Lab;
use crate::harness::{Hq, until};

/// The program of a lab's cloud, as a person would write it who wraps a provider's own.
fn program(lab: &Lab, folder: &Path) -> PathBuf {
    assert!(Path::new("/usr/bin/jq").exists(), "install it: apt-get install jq");
    let path = folder.join("cloud");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/cloud");
    let text = format!("#!/bin/sh\nQUARRY_LAB={} exec '{script}' \"$@\"\n", lab.id());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Rows of `servers`, as `name state from`.
fn rows(hq: &Hq) -> Vec<String> {
    let list = hq.quarry(&["servers", "--json"]).succeeded().json();
    let word = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = list.as_array().unwrap().iter();
    rows.map(|row| format!("{} {} {}", word(row, "name"), word(row, "state"), word(row, "from"))).collect()
}

#[tokio::test]
async fn the_lab_s_cloud_keeps_the_contract() {
    let (lab, folder) = (Lab::up(1), tempfile::tempdir().unwrap());
    let cloud = Program::new(&program(&lab, folder.path()), Millis::seconds(60));
    let key = std::fs::read_to_string(lab.folder().join("key.pub")).unwrap();
    keeps_the_contract(&cloud, key.trim()).await;
}

#[test]
fn a_stack_that_is_too_large_gets_a_server_and_gives_it_back_without_a_failed_request() {
    let (lab, folder) = (Lab::up(1), tempfile::tempdir().unwrap());
    let cloud = program(&lab, folder.path());
    let mut hq = Hq::start_with(&[("cloud/command", cloud.to_str().unwrap()), ("cloud/create-timeout", "2m")]);
    let add = ["servers", "add", &format!("root@{}", lab.server(1).ip()), "--size", "1g"];
    hq.quarry_with(&add, &std::fs::read(lab.folder().join("key")).unwrap()).succeeded();
    hq.quarry(&["servers", "drain", "hq"]).succeeded();
    hq.quarry(&["grid", "autosize", "--max", "1"]).ended(1).said(&["--max 5 --size 2g"]);
    hq.quarry(&["grid", "autosize", "--max", "1", "--min", "2", "--size", "1g"]).ended(1).said(&["at least 2"]);
    // HQ's own server is drained, and counts.
    let words = ["grid", "autosize", "--max", "3", "--size", "1g", "--idle", "4s"];
    assert!(hq.by_ssh(&words).succeeded().text().starts_with("1 to 3 servers; a new one has 1024mb"));

    // The third container has room only on a server that is not there yet.
    let pushed = hq.push(&web("  size: 400mb\n  scale: 3\n"), "blog").succeeded();
    pushed.said(&["No room for all of 3 containers (1200mb)", "auto1 is up", "is live"]);
    let stands: BTreeSet<String> = places(&hq, "blog", "web").into_iter().collect();
    assert_eq!(stands, BTreeSet::from(["auto1".to_owned(), "s1".to_owned()]));
    assert_eq!(rows(&hq), ["auto1 up cloud", "hq draining here", "s1 up added"]);
    let mut seen = BTreeSet::new();
    until("an answer from each", || {
        seen.insert(hq.page("blog.localhost", "/env/QUARRY_INDEX"));
        (seen.len() == 3).then_some(())
    });
    hq.push(&web("  size: 1g\n  scale: 3\n"), "huge").failed().said(&["raise `max`"]);

    // HQ is killed while the server is being given back.
    let load = Load::on(hq.http, "blog.localhost", "/");
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    until("the server to leave", || (!rows(&hq).contains(&"auto1 up cloud".to_owned())).then_some(()));
    hq.stop(Signal::KILL);
    hq.serve();
    until("the server to be gone", || (rows(&hq) == ["hq draining here", "s1 up added"]).then_some(()));
    wait_for_places(&hq, "blog", "web", &["s1"]);
    assert!(load.end() > 10, "the load was no load");
    assert!(!lab.folder().join("s2").exists(), "the machine is still there");
    hq.quarry(&["grid", "autosize", "off"]).succeeded();
    assert_eq!(hq.quarry(&["grid", "autosize"]).succeeded().text(), "off\n");
}
