//! Commands on a stack that runs.

use super::{app, greet, with_app};
use crate::harness::Hq;

#[test]
fn ps_and_grid_show_what_runs() {
    let (hq, _repository) = with_app(&[]);
    let text = hq.quarry(&["ps"]).succeeded().text();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["STACK", "NODE", "RELEASE", "STATE", "AGE", "CONTAINER"]);
    assert_eq!(lines[1][..4], ["blog", "web", "1", "running"]);
    assert_eq!(lines.len(), 2, "{text}");
    let rows = hq.quarry(&["ps", "blog", "--json"]).succeeded().json();
    assert_eq!((&rows[0]["node"], &rows[0]["state"]), (&"web".into(), &"running".into()));
    assert_eq!(hq.containers(&["stack=blog"]), [rows[0]["container"].as_str().unwrap()]);
    let grid = hq.quarry(&["grid"]).succeeded().text();
    assert!(grid.contains("blog") && grid.contains("web"), "{grid}");
    assert!(hq.quarry(&["grid", "--json"]).succeeded().json().is_object());
    hq.quarry(&["ps", "bolg"]).ended(1).said(&["quarry: there is no stack `bolg`", "`stacks` lists them"]);
}

#[test]
fn scale_changes_how_many_run_without_dropping_a_request() {
    let (hq, _repository) = with_app(&[]);
    hq.quarry(&["scale", "blog", "web=3"]).succeeded().said(&["-----> Scaling blog to web=3"]);
    assert_eq!(hq.containers(&["stack=blog"]).len(), 3);
    let table = hq.quarry(&["scale", "blog"]).succeeded().text();
    assert_eq!(table.lines().nth(1).map(|line| line.split_whitespace().collect()), Some(vec!["web", "3"]));
    // What a dry run prints is what would happen, and nothing happens.
    let plan = hq.quarry(&["scale", "blog", "web=1", "--dry-run"]).succeeded().text();
    assert!(plan.contains("retire") && plan.contains("route"), "{plan}");
    assert_eq!(hq.containers(&["stack=blog"]).len(), 3);
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    hq.wait_for_containers(&["stack=blog"], 1);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");

    hq.quarry(&["scale", "blog", "web=0"]).succeeded();
    hq.wait_for_containers(&["stack=blog"], 0);
    assert_eq!(hq.get("blog.localhost", "/").status, 503);
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");

    hq.quarry(&["scale", "blog", "wbe=2"]).ended(1).said(&["`blog` has no node `wbe`; it has: web"]);
    hq.quarry(&["scale", "blog", "web=many"]).ended(2).said(&["`web=many` is not NODE=N"]);
    hq.quarry(&["scale", "blog", "web=1000"]).ended(2);
}

#[test]
fn a_scale_outlives_the_next_push() {
    let (hq, repository) = with_app(&[]);
    hq.quarry(&["scale", "blog", "web=2"]).succeeded();
    greet(&repository, "Twice");
    hq.push(&repository, "blog").succeeded();
    hq.wait_for_containers(&["stack=blog"], 2);
    hq.wait_for_containers(&["stack=blog", "release=2"], 2);
}

#[test]
fn restart_replaces_the_containers() {
    let (hq, _repository) = with_app(&[]);
    let before = hq.containers(&["stack=blog"]);
    hq.quarry(&["restart", "blog"]).succeeded().said(&["-----> Restarting blog"]);
    let after = hq.wait_for_containers(&["stack=blog"], 1);
    assert_ne!(after, before);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.quarry(&["restart", "blog/wbe"]).ended(1).said(&["`blog` has no node `wbe`; it has: web"]);
}

#[test]
fn stacks_are_made_listed_shown_and_destroyed() {
    let hq = Hq::start();
    assert!(hq.quarry(&["stacks", "--json"]).succeeded().json().as_array().unwrap().is_empty());
    hq.by_ssh(&["stacks", "create", "blog"]).succeeded();
    hq.by_ssh(&["stacks", "create", "blog"]).ended(1).said(&["the stack `blog` exists already"]);
    hq.by_ssh(&["stacks", "create", "No Name"]).ended(2);
    // Before its first push it has variables and nothing else.
    hq.by_ssh(&["env", "set", "blog", "WORD=early"])
        .succeeded()
        .said(&["-----> Kept WORD for the next release of blog"]);
    hq.by_ssh(&["ps", "blog"]).ended(1).said(&["`blog` has never been deployed"]);
    let repository = app(&[]);
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "early");
    let shown = hq.quarry(&["stacks", "show", "blog"]).succeeded().text();
    assert!(shown.contains("ada") && shown.contains("master") && shown.contains("http://blog.localhost"), "{shown}");

    hq.quarry(&["destroy", "blog"]).ended(3).said(&["destroy blog --confirm blog"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.quarry(&["destroy", "blog", "--confirm", "blog"]).succeeded().said(&["-----> Destroying blog", "gone"]);
    assert!(hq.containers(&["stack=blog"]).is_empty());
    assert_eq!(hq.get("blog.localhost", "/").status, 404);
    assert!(!hq.root().join("stacks/blog").exists(), "its folder is still there");
    let images = crate::harness::docker::list(&["images", "-q", &format!("quarry/blog/web:1-*-{}", &hq.id()[..4])]);
    assert!(images.is_empty(), "{images:?}");
    // A new one of the same name begins at the beginning.
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/env/WORD"), "");
}

#[test]
fn a_tarball_of_build_is_launched_as_it_is() {
    let (hq, repository) = with_app(&[("quarry.yml", "web:\n  scale: 2\n")]);
    let (one, two) = (hq.file("one.tar.gz"), hq.file("two.tar.gz"));
    for path in [&one, &two] {
        let folder = repository.path().to_str().unwrap();
        hq.quarry(&["build", folder, "--stack", "copy", "--output", path.to_str().unwrap()]).succeeded();
    }
    let bytes = std::fs::read(&one).unwrap();
    assert_eq!(bytes, std::fs::read(&two).unwrap(), "the same folder gives the same bytes");
    let plan = hq.quarry_with(&["launch", "--dry-run"], &bytes).succeeded().text();
    assert!(plan.starts_with("stage") && plan.contains("switch") | plan.contains("route"), "{plan}");
    assert!(hq.containers(&["stack=copy"]).is_empty(), "a dry run ran something");
    hq.quarry(&["launch", two.to_str().unwrap()]).succeeded();
    assert_eq!(hq.page("copy.localhost", "/"), "Hello from release 1\n");
    assert_eq!(hq.containers(&["stack=copy"]).len(), 2);
    hq.quarry_with(&["launch"], b"no tarball").ended(1).said(&["this is not an instruction tarball"]);
}

#[test]
fn commands_that_mean_nothing_change_nothing_and_say_what_would() {
    let (hq, _repository) = with_app(&[]);
    let check = |words: &[&str], code: i32, said: &str| drop(hq.by_ssh(words).ended(code).said(&[said]));
    check(&["scale", "blog", "web"], 2, "how many containers of `web` shall run? write web=N");
    check(&["env", "set", "blog", "PORT=7", "QUARRY_STACK=zz"], 1, "quarry sets PORT QUARRY_STACK itself");
    check(&["env", "set", "blog", "1A=7"], 1, "`1A` is not an environment variable name");
    check(&["env", "unset", "blog", "NOPE"], 1, "blog has no variable NOPE; nothing was changed");
    check(&["env", "--bogus"], 2, "Usage: env ");
    let done = hq.by_ssh(&["restart", "blog/nope"]).ended(1).said(&["`blog` has no node `nope`"]);
    assert!(!done.stderr.contains("Restarting"), "{done}");
    assert_eq!(hq.by_ssh(&["env", "--json", "list", "blog"]).succeeded().text().trim(), "{}");
    assert_eq!(hq.quarry(&["releases", "blog", "--json"]).succeeded().json().as_array().unwrap().len(), 1);
}

#[test]
fn keys_open_and_close_the_door() {
    let hq = Hq::start();
    let other = hq.make_key("bob_key");
    hq.by_ssh_with(&["keys", "add", "bob", "desk"], other.as_bytes()).succeeded().said(&["added desk of bob: SHA256:"]);
    hq.by_ssh_with(&["keys", "add", "bob"], b"not a key").ended(1);
    hq.by_ssh_with(&["keys", "add", "eve"], other.as_bytes())
        .ended(3)
        .said(&["this key is known already: desk of bob"]);
    let text = hq.quarry(&["keys"]).succeeded().text();
    assert!(text.contains("ada") && text.contains("bob"), "{text}");
    hq.quarry(&["keys", "remove", "bob"]).succeeded();
    assert!(!hq.quarry(&["keys"]).succeeded().text().contains("bob"));
    hq.quarry(&["keys", "remove", "bob"]).ended(1);
    // The last one goes too, to those who say that they mean it: root's socket is the way back in.
    hq.quarry(&["keys", "remove", "ada", "laptop"])
        .ended(3)
        .said(&["nobody can push", "keys remove ada laptop --confirm"]);
    hq.quarry_with(&["keys", "add", "bob", "desk"], other.as_bytes()).succeeded();
    hq.by_ssh(&["keys", "remove", "ada"]).ended(3).said(&["you have no key left"]);
    hq.by_ssh(&["keys", "remove", "ada", "--confirm"]).succeeded();
    crate::harness::until("the closed door", || {
        let done = hq.by_ssh(&["ps"]);
        (done.code == 255 && done.stderr.contains("Permission denied")).then_some(())
    });
}
