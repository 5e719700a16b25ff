//! State in etcd: what people notice of it, which is nothing until it is gone, and then a sentence.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use super::{app, greet};
use crate::harness::etcd::Cluster;
use crate::harness::program::run;
use crate::harness::{Hq, Repository, until};

/// An HQ whose state is in the cluster, and an app that is live on it as `blog`.
fn with_app_on(cluster: &Cluster) -> (Hq, Repository) {
    let hq = Hq::start_with(&[("etcd/endpoints", &cluster.endpoints().join("\n"))]);
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    (hq, repository)
}

#[test]
fn the_state_is_in_etcd_and_hq_starts_again_at_once() {
    let cluster = Cluster::start(1);
    let (mut hq, repository) = with_app_on(&cluster);
    let status = cluster.etcdctl(&["get", "--print-value-only", "/quarry/stacks/blog/status"]).succeeded();
    assert_eq!(status.json()["branch"], "master", "{status}");
    assert!(!hq.root().join("stacks/blog/status").exists() && hq.root().join("stacks/blog/repo.git").exists());
    let mode = fs::metadata(hq.root().join("stacks")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "repositories are nobody else's to read");
    for signal in [Signal::TERM, Signal::KILL] {
        hq.stop(signal);
        // Without a serve the command opens the tree itself.
        assert!(hq.quarry(&["stacks"]).succeeded().text().contains("blog"));
        hq.serve();
    }
    greet(&repository, "Again");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Again from release 2\n");
}

#[test]
fn a_second_hq_on_the_same_etcd_names_the_first_and_does_nothing() {
    let cluster = Cluster::start(1);
    let (hq, _repository) = with_app_on(&cluster);
    let elsewhere = tempfile::tempdir().unwrap();
    let quarry = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
        command.env("QUARRY_ROOT", elsewhere.path()).env("QUARRY_ETC", hq.file("etc")).env_remove("QUARRY_HQ");
        run(command.args(words))
    };
    for words in [
        &["serve", "--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "off", "--api", "off"][..],
        &["destroy", "blog", "--confirm", "blog"],
    ] {
        quarry(words).ended(3).said(&["quarry: another HQ (host ", ", pid ", ") acts on this state; stop it"]);
    }
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
}

#[test]
fn an_hq_that_lost_its_epoch_goes_on_alone_and_ends_after_another_one() {
    let cluster = Cluster::start(1);
    let (mut hq, _repository) = with_app_on(&cluster);
    let revoke = || {
        let epoch = cluster.etcdctl(&["get", "--print-value-only", "/quarry/hq/epoch"]).succeeded().json();
        cluster.etcdctl(&["lease", "revoke", epoch["lease"].as_str().unwrap()]).succeeded();
    };
    revoke();
    hq.by_ssh(&["scale", "blog", "web=2"]).ended(3).said(&["this HQ has lost its right to write"]);
    until("the epoch anew", || hq.log().contains("no other HQ has acted in between").then_some(()));
    hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
    let latest = cluster.etcdctl(&["get", "--print-value-only", "/quarry/hq/last-epoch"]).succeeded().text();
    let other = latest.replace("\"pid\": ", "\"pid\": 1").replace("\"number\": ", "\"number\": 1");
    assert_ne!(latest, other);
    cluster.etcdctl(&["put", "/quarry/hq/last-epoch", &other]).succeeded();
    revoke();
    until("the end of HQ", || hq.has_died().then_some(()));
    assert!(hq.log().contains("another HQ has acted on this state while this one was cut off"), "{}", hq.log());
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.serve();
    hq.by_ssh(&["scale", "blog", "web=1"]).succeeded();
}

#[test]
fn with_etcd_gone_sites_answer_commands_say_so_and_all_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start(1);
    let (mut hq, repository) = with_app_on(&cluster);
    cluster.kill_all();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    greet(&repository, "Later");
    for done in [hq.by_ssh(&["releases", "blog"]).ended(3), hq.push(&repository, "blog").failed()] {
        assert!(done.stderr.contains("etcd does not answer at http://127."), "{done}");
    }
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    cluster.start_again();
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Later from release 2\n");

    // An HQ that starts while it is gone waits for it.
    hq.stop(Signal::TERM);
    cluster.kill_all();
    let http = hq.http.to_string();
    let mut waiting =
        hq.quarry_beside(&["serve", "--ssh", "127.0.0.1:0", "--http", &http, "--https", "off", "--api", "off"]);
    waiting.wait_for("HQ waits for its state");
    hq.quarry(&["ps"]).ended(3).said(&["quarry: ", "etcd does not answer at http://127."]);
    assert_eq!(hq.page("blog.localhost", "/"), "Later from release 2\n");
    cluster.start_again();
    waiting.wait_for("ready: ");
    assert!(hq.quarry(&["ps", "blog"]).succeeded().text().contains("running"));
    waiting.signal_alone(Signal::TERM);
    waiting.wait().succeeded();
    hq.serve();
}

#[test]
fn etcd_lost_in_the_middle_of_a_launch_refuses_the_push_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start(1);
    let (hq, repository) = with_app_on(&cluster);
    let quick = fs::read_to_string(repository.file("Dockerfile")).unwrap();
    let slow = "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD sleep 3; exec perl app.pl\n";
    repository.write("Dockerfile", slow);
    greet(&repository, "Never seen");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("-----> Launching release 2");
    until("the new container", || (hq.containers(&["stack=blog"]).len() == 2).then_some(()));
    cluster.kill_all();
    let done = push.wait().failed();
    assert!(done.stderr.contains("etcd does not answer"), "{done}");
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    cluster.start_again();
    // Nobody does anything: HQ clears its journal by itself.
    until("an empty journal", || {
        let journal = cluster.etcdctl(&["get", "--prefix", "/quarry/journal/"]).succeeded().text();
        journal.is_empty().then_some(())
    });
    hq.wait_for_containers(&["stack=blog"], 1);
    repository.write("Dockerfile", &quick);
    greet(&repository, "Seen");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Seen from release 2\n");
}

#[test]
fn db_copy_moves_an_hq_to_etcd_and_back() {
    let cluster = Cluster::start(1);
    let mut hq = Hq::start();
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    let there = ["db", "copy", "--from", "files", "--to", "etcd"];
    let back = ["db", "copy", "--from", "etcd", "--to", "files"];
    hq.quarry(&there).ended(3).said(&["an HQ (pid ", "stop it before its state is copied"]);
    hq.stop(Signal::TERM);
    hq.quarry(&there).ended(1).said(&["no etcd is known; write its addresses into ", "etc/etcd/endpoints"]);
    fs::create_dir(hq.file("etc/etcd")).unwrap();
    fs::write(hq.file("etc/etcd/endpoints"), cluster.endpoint(0)).unwrap();
    hq.quarry(&there).succeeded().said(&[
        "copied ",
        " keys (",
        "and read them back",
        "the next `quarry serve` uses it",
    ]);
    hq.quarry(&there).ended(1).said(&["the target holds values already", "--replace"]);
    hq.serve();
    greet(&repository, "From etcd");
    hq.push(&repository, "blog").succeeded();
    hq.quarry(&back).ended(3);
    hq.stop(Signal::TERM);
    hq.quarry(&back).ended(1).said(&["the target holds values already"]);
    // The files are what they were before: an HQ that took them for the state would take back what was done since.
    fs::rename(hq.file("etc/etcd"), hq.file("etc/.etcd")).unwrap();
    for words in [&["stacks"][..], &["serve", "--ssh", "127.0.0.1:0"]] {
        hq.quarry(words).ended(1).said(&["HQ's state went to etcd at http://127.", "db copy --from etcd --to files"]);
    }
    fs::rename(hq.file("etc/.etcd"), hq.file("etc/etcd")).unwrap();
    hq.quarry(&[&back[..], &["--replace"]].concat()).succeeded().said(&["copied ", "is gone"]);
    fs::remove_dir_all(hq.file("etc/etcd")).unwrap();
    hq.serve();
    let releases = hq.quarry(&["releases", "blog", "--json"]).succeeded().json();
    assert_eq!(releases.as_array().unwrap().len(), 2, "{releases}");
    hq.by_ssh(&["rollback", "blog"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 3\n");
}
