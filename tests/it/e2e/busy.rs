//! Several things at once, and people who change their mind.

use rustix::process::Signal;

use super::{app, greet, serving, with_app};
use crate::harness::{Hq, Running, until};

#[test]
fn a_second_push_waits_for_the_first_and_is_told_for_whom() {
    let (hq, first) = with_app(&[]);
    let second = crate::harness::Repository::empty();
    second.git(&["pull", "-q", first.path().to_str().unwrap(), "master"]).succeeded();
    // The first takes its time in the build.
    first.write("Dockerfile", SLOW);
    greet(&first, "First");
    greet(&second, "Second");
    let mut one = hq.push_beside(&first, "blog");
    one.wait_for("building slowly");
    let done = hq.push(&second, "blog");
    one.wait().succeeded();
    // Its commit does not contain what came before it: git's own answer to two who push at once.
    let done = done.failed().said(&[&format!("-----> Waiting for the push of {} by ada", &first.head()[..10])]);
    assert!(done.stderr.contains("[remote rejected]"), "{done}");
    assert_eq!(hq.page("blog.localhost", "/"), "First from release 2\n");
    second.git(&["pull", "-q", "--rebase", "-X", "theirs", &hq.url("blog")]);
    hq.push_as(&second, "blog", &["--force", "HEAD"]).succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Second from release 3\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}

/// A Dockerfile whose build takes its time and says `building slowly`.
const SLOW: &str = "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nRUN echo building slowly && sleep 4\nEXPOSE 8080\nCMD [\"perl\", \"app.pl\"]\n";

#[test]
fn a_command_given_up_while_it_waits_in_line_is_never_performed() {
    let (hq, repository) = with_app(&[]);
    repository.write("Dockerfile", SLOW);
    greet(&repository, "Slow");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("building slowly");
    let commands: [&[&str]; 5] = [
        &["destroy", "blog", "--confirm", "blog"],
        &["scale", "blog", "web=3"],
        &["env", "set", "blog", "A=1"],
        &["restart", "blog"],
        &["rollback", "blog", "1"],
    ];
    let waiting = commands.map(|words| Running::start(&mut hq.ssh_command(words)));
    for mut command in waiting {
        command.wait_for("-----> Waiting for the push of");
        command.interrupt();
        command.wait().failed();
    }
    greet(&repository, "Given up");
    let mut second = hq.push_beside(&repository, "blog");
    second.wait_for("-----> Waiting for the push of");
    second.interrupt();
    second.wait().failed();
    push.wait().succeeded();
    // Whoever stood in line before this one has had its turn when this one has.
    hq.quarry(&["env", "set", "blog", "B=2", "--no-restart"]).succeeded();
    assert_eq!(hq.quarry(&["env", "list", "blog"]).succeeded().text(), "B=2\n");
    assert_eq!(hq.quarry(&["releases", "blog", "--json"]).succeeded().json().as_array().unwrap().len(), 2);
    assert_eq!(hq.page("blog.localhost", "/"), "Slow from release 2\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn a_push_that_waited_for_its_own_commit_or_ancestor_needs_nothing_from_the_pusher() {
    let (hq, repository) = with_app(&[]);
    repository.write("Dockerfile", SLOW);
    greet(&repository, "First");
    let mut first = hq.push_beside(&repository, "blog");
    first.wait_for("building slowly");
    let mut same = hq.push_beside(&repository, "blog");
    same.wait_for("-----> Waiting for the push of");
    greet(&repository, "Second");
    let done = hq.push(&repository, "blog").succeeded();
    done.said(&["-----> Waiting for the push of", "-----> Release 3 of blog is live"]);
    first.wait().succeeded();
    same.wait().succeeded().said(&["is live already"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Second from release 3\n");
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn two_stacks_deploy_at_once() {
    let hq = Hq::start();
    let (one, two) = (app(&[("greeting", "One\n")]), app(&[("greeting", "Two\n")]));
    let (first, second) = (hq.push_beside(&one, "one"), hq.push_beside(&two, "two"));
    first.wait().succeeded();
    second.wait().succeeded();
    assert_eq!(hq.page("one.localhost", "/"), "One from release 1\n");
    assert_eq!(hq.page("two.localhost", "/"), "Two from release 1\n");
}

#[test]
fn ctrl_c_in_the_build_cancels_it() {
    let (hq, repository) = with_app(&[]);
    let before = serving(&hq, "blog");
    let endless = "FROM debian:bookworm-slim\nRUN echo building for ever && sleep 600\nCMD [\"true\"]\n";
    repository.write("Dockerfile", endless);
    repository.commit("endless");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("building for ever");
    push.interrupt();
    push.wait().failed();
    // The turn is free again although the build would go on for minutes, and the build's container is gone.
    hq.quarry(&["restart", "blog"]).succeeded();
    until("the end of the build's container", || {
        let running = crate::harness::docker::list(&["ps", "--no-trunc", "--format", "{{.Command}}"]);
        (!running.iter().any(|command| command.contains("building for ever"))).then_some(())
    });
    hq.wait_for_containers(&["stack=blog"], 1);
    let after = serving(&hq, "blog");
    assert_eq!((after.page, after.branch, after.releases), (before.page, before.branch, before.releases));
}

#[test]
fn ctrl_c_in_the_launch_detaches_and_the_launch_finishes() {
    // A start-up of two seconds gives time to press the keys in.
    let (hq, repository) = with_app(&[]);
    repository.write(
        "Dockerfile",
        "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD sleep 2; exec perl app.pl\n",
    );
    greet(&repository, "Detached");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("-----> Launching release 2");
    push.interrupt();
    push.wait().failed();
    until("the page of release 2", || (hq.page("blog.localhost", "/") == "Detached from release 2\n").then_some(()));
    until("the branch", || {
        let refs = hq.git(&hq.root(), &["ls-remote", &hq.url("blog")]).succeeded().text();
        refs.contains(&repository.head()).then_some(())
    });
    // The pusher's repository catches up, and the next push is an ordinary one.
    hq.push(&repository, "blog").succeeded().said(&["Everything up-to-date"]);
    hq.wait_for_containers(&["stack=blog"], 1);
}

#[test]
fn a_push_is_not_disturbed_by_commands_of_other_stacks_and_hq_ends_cleanly() {
    let (mut hq, _repository) = with_app(&[]);
    let other = app(&[("greeting", "Other\n")]);
    let push = hq.push_beside(&other, "other");
    for _ in 0..3 {
        hq.by_ssh(&["ps"]).succeeded();
        hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
        hq.by_ssh(&["scale", "blog", "web=1"]).succeeded();
    }
    push.wait().succeeded();
    assert_eq!(hq.page("other.localhost", "/"), "Other from release 1\n");
    // Sites stay up with HQ off.
    hq.stop(Signal::TERM);
    assert_eq!(hq.page("other.localhost", "/"), "Other from release 1\n");
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    hq.serve();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
}
