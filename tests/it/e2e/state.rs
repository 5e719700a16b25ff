//! State on disk: one HQ per root, damage told by name, a killed HQ that comes back.

use std::process::Command;

use rustix::process::Signal;

use super::{app, greet, serving, with_app};
use crate::harness::program::run;

#[test]
fn a_second_hq_on_the_same_root_is_refused() {
    let (hq, _repository) = with_app(&[]);
    let mut second = Command::new(env!("CARGO_BIN_EXE_quarry"));
    second.env("QUARRY_ROOT", hq.root()).env("QUARRY_ETC", hq.file("etc"));
    second.args(["serve", "--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "off", "--api", "off"]);
    run(&mut second).ended(3).said(&["quarry: ", hq.root().to_str().unwrap()]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.by_ssh(&["ps"]).succeeded();
}

#[test]
fn a_broken_state_file_is_reported_by_name_and_spreads_no_further() {
    let (mut hq, repository) = with_app(&[]);
    let healthy = app(&[("greeting", "Healthy\n")]);
    hq.push(&healthy, "other").succeeded();
    for name in ["stacks/blog/status", "routes/blog.json", "proc/blog/web.json", "journal/blog.json"] {
        let path = hq.root().join(name);
        // A stack at rest has no journal.
        let good = std::fs::read(&path).unwrap_or_default();
        assert!(!good.is_empty() || name.starts_with("journal"), "{name} is not there");
        for broken in [&good[..good.len() / 2], b"{\"active\": ", b"\xff\xfe{}"] {
            std::fs::write(&path, broken).unwrap();
            if name.starts_with("journal") {
                // HQ reads it when it starts, and writes it from then on.
                hq.stop(Signal::TERM);
                hq.serve();
            }
            greet(&repository, "Never seen");
            let done = hq.push(&repository, "blog").failed();
            assert!(done.stderr.contains(name), "`{name}` is not named: {done}");
            assert_eq!(std::fs::read(&path).unwrap(), broken, "{name} was written over");
        }
        assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n", "{name}");
        // The other stack does not notice, not even after a restart of HQ.
        hq.stop(Signal::TERM);
        hq.serve();
        assert_eq!(hq.page("other.localhost", "/"), "Healthy from release 1\n", "{name}");
        assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n", "{name}");
        hq.by_ssh(&["run", "other", "true"]).succeeded();
        if good.is_empty() {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, good).unwrap();
        }
    }
    hq.stop(Signal::TERM);
    hq.serve();
    greet(&repository, "Mended");
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Mended from release 2\n");
}

#[test]
fn a_killed_hq_undoes_what_it_had_begun_and_the_site_answers_all_along() {
    let (mut hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    let slow = "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD sleep 5; exec perl app.pl\n";
    repository.write("Dockerfile", slow);
    greet(&repository, "Never finished");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("-----> Launching release 2");
    crate::harness::until("the new container", || (hq.containers(&["stack=blog"]).len() == 2).then_some(()));
    hq.stop(Signal::KILL);
    push.wait().failed();
    assert_eq!(hq.page("blog.localhost", "/"), before.page);
    hq.serve();
    hq.wait_for_containers(&["stack=blog"], 1);
    assert_eq!(serving(&hq, "blog"), before);
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Never finished from release 2\n");
}

#[test]
fn a_key_edited_by_hand_counts_at_once() {
    let (hq, _repository) = with_app(&[]);
    let path = hq.root().join("keys/ada/laptop.pub");
    let away = hq.file("laptop.pub");
    std::fs::rename(&path, &away).unwrap();
    crate::harness::until("the closed door", || (hq.by_ssh(&["ps"]).code == 255).then_some(()));
    std::fs::copy(&away, &path).unwrap();
    crate::harness::until("the open door", || (hq.by_ssh(&["ps"]).code == 0).then_some(()));
}

#[test]
fn without_hq_commands_open_the_tree_themselves() {
    let (mut hq, _repository) = with_app(&[]);
    hq.stop(Signal::TERM);
    let rows = hq.quarry(&["ps", "--json"]).succeeded().json();
    assert_eq!(rows[0]["stack"], "blog");
    hq.quarry(&["env", "set", "blog", "WORD=offline", "--no-restart"]).succeeded();
    hq.serve();
    hq.quarry(&["restart", "blog"]).succeeded();
    assert_eq!(hq.quarry(&["env", "get", "blog", "WORD"]).succeeded().text(), "offline\n");
}

#[test]
fn a_state_that_was_copied_by_half_is_not_taken_for_the_whole() {
    let (mut hq, _repository) = with_app(&[]);
    hq.stop(Signal::TERM);
    std::fs::create_dir_all(hq.root().join("hq")).unwrap();
    std::fs::write(hq.root().join("hq/copying"), "").unwrap();
    for words in
        [&["stacks"][..], &["serve", "--ssh", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "off", "--api", "off"]]
    {
        hq.quarry(words).ended(1).said(&["only a part", "copy it again with --replace"]);
    }
    std::fs::remove_file(hq.root().join("hq/copying")).unwrap();
    hq.serve();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}
