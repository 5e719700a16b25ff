//! The same words mean the same through every door.

use super::with_app;
use crate::harness::program::run;
use crate::harness::{Running, until};

#[test]
fn a_listing_is_the_same_through_every_door() {
    let (hq, repository) = with_app(&[]);
    for words in [&["stacks", "--json"][..], &["releases", "blog", "--json"], &["env", "blog"], &["grid", "--json"]] {
        let here = hq.quarry(words);
        let there = hq.by_ssh(words);
        let elsewhere = hq.by_option(words);
        assert_eq!(here.code, there.code, "{here}{there}");
        assert_eq!(here.text(), there.text(), "{words:?}");
        assert_eq!(here.text(), elsewhere.text(), "{words:?}");
    }
    // Inside a repository with a remote, no stack needs to be named.
    repository.git(&["remote", "add", "quarry", &hq.url("blog")]).succeeded();
    let mut command = hq.elsewhere(repository.path());
    let done = run(command.args(["releases", "--json"])).succeeded();
    assert_eq!(done.json()[0]["number"], 1, "{done}");
    let done = run(hq.elsewhere(repository.path()).args(["scale", "web=2"])).succeeded();
    assert!(done.stderr.contains("-----> Scaling blog to web=2"), "{done}");
    assert_eq!(hq.containers(&["stack=blog"]).len(), 2);
    let done = run(hq.elsewhere(repository.path()).args(["env:set", "TEXT=two words 'quoted' $HOME"])).succeeded();
    assert!(done.stderr.contains("release 2"), "{done}");
    assert_eq!(hq.page("blog.localhost", "/env/TEXT"), "two words 'quoted' $HOME");
}

#[test]
fn mistakes_have_the_same_exit_code_through_every_door() {
    let (hq, _repository) = with_app(&[]);
    let check = |words: &[&str], code: i32, said: &str| {
        for done in [hq.quarry(words), hq.by_ssh(words), hq.by_option(words)] {
            assert!(done.stderr.contains(said), "`{said}` is not in the answer to {words:?}: {done}");
            assert_eq!(done.code, code, "{words:?}: {done}");
        }
    };
    check(&["releases", "nothing"], 1, "there is no stack `nothing`");
    check(&["rollback", "blog"], 1, "has no earlier release");
    check(&["rollback", "blog", "7"], 1, "release 7 of `blog` is not kept");
    check(&["destroy", "blog"], 3, "--confirm blog");
    check(&["scale", "blog", "web"], 2, "web");
    check(&["frobnicate"], 2, "frobnicate");
    check(&["deploy", "blog", "nowhere"], 1, "no branch, tag or commit `nowhere`");
    check(&["env", "get", "blog", "NOTHING"], 1, "has no variable `NOTHING`");
}

#[test]
fn a_command_ends_whether_or_not_its_input_does() {
    let (hq, _repository) = with_app(&[]);
    for words in [&["ps"][..], &["env", "set", "blog", "A=1", "--no-restart"], &["run", "blog", "true"]] {
        // Its standard input stays open, as that of a terminal.
        let mut running = hq.quarry_beside(words);
        until("the end of a command", || running.has_ended().then_some(()));
        let mut running = Running::start(&mut hq.ssh_command(words));
        until("the end of a command", || running.has_ended().then_some(()));
    }
}

#[test]
fn ssh_without_a_command_says_what_there_is() {
    let (hq, _repository) = with_app(&[]);
    let done = hq.by_ssh(&[]);
    let help = format!("{}{}", done.text(), done.stderr);
    for word in ["ps", "scale", "logs", "rollback"] {
        assert!(help.contains(word), "{help}");
    }
    let help = hq.by_ssh(&["help"]).succeeded().text();
    assert!(help.contains("rollback") && !help.contains("  serve "), "{help}");
    hq.by_ssh(&["cat", "/etc/passwd"]).ended(2);
    hq.by_ssh(&["git-upload-archive", "'blog'"]).failed();
}
