//! The record of what people did.

use super::{greet, with_app};
use crate::harness::{Hq, Running};
use rustix::process::Signal;

/// `(user, stack, result, what)` of the events that the words list.
fn listed(hq: &Hq, words: &[&str]) -> Vec<(String, String, String, String)> {
    let words = [&["events", "--json"], words].concat();
    let events = hq.quarry(&words).succeeded().json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let row = |event: &serde_json::Value| {
        (text(&event["user"]), text(&event["stack"]), text(&event["result"]), text(&event["what"]))
    };
    events.as_array().unwrap().iter().map(row).collect()
}

fn row(user: &str, stack: &str, result: &str, what: &str) -> (String, String, String, String) {
    (user.to_owned(), stack.to_owned(), result.to_owned(), what.to_owned())
}

#[test]
fn every_change_and_every_refusal_is_an_event() {
    let (mut hq, repository) = with_app(&[]);
    let commit = repository.head()[..10].to_owned();
    let broken = {
        repository.write("quarry.yml", "web:\n  helth: /\n");
        repository.commit("a slip");
        repository.head()[..10].to_owned()
    };
    hq.push(&repository, "blog").failed();
    hq.by_ssh(&["env", "set", "blog", "SECRET=hush"]).succeeded();
    hq.by_ssh(&["ps", "blog"]).succeeded();
    hq.by_ssh(&["run", "blog", "sh", "-c", "'exit 3'"]).ended(3);
    hq.by_ssh(&["scale", "blog", "nope=1"]).ended(1);
    let eve = hq.person("eve");
    eve.run(&["logs", "blog"]).ended(1);
    eve.run(&["servers"]).ended(3);
    eve.push(&repository, "blog").failed();
    let expected = [
        row("root", "-", "done", "keys add ada laptop"),
        row("ada", "blog", "done", &format!("push master {commit}")),
        row("ada", "blog", "failed", &format!("push master {broken}")),
        row("ada", "blog", "done", "env set blog SECRET=…"),
        row("ada", "blog", "done", "run blog sh -c exit 3"),
        row("ada", "blog", "failed", "scale blog nope=1"),
        row("root", "-", "done", "keys add eve laptop"),
        row("eve", "blog", "refused", "logs blog"),
        row("eve", "-", "refused", "servers"),
        row("eve", "blog", "refused", "push"),
    ];
    assert_eq!(listed(&hq, &[]), expected);
    let blog: Vec<_> = expected.iter().filter(|row| row.1 == "blog").cloned().collect();
    assert_eq!(listed(&hq, &["blog"]), blog);
    assert_eq!(listed(&hq, &["-n", "2"]), expected[8..]);
    let own = eve.run(&["events"]).succeeded().text();
    assert!(own.contains("logs blog") && !own.contains("ada"), "{own}");

    // A new HQ knows them still, also without one.
    hq.stop(Signal::TERM);
    assert_eq!(listed(&hq, &["blog"]), blog);
    let text = hq.quarry(&["events", "blog"]).succeeded().text();
    assert!(text.contains("127.0.0.1") && text.contains("(exit code 3)") && !text.contains("hush"), "{text}");
    hq.quarry(&["events", "-f"]).ended(3).said(&["no HQ serves"]);
}

#[test]
fn events_are_followed_and_what_hq_died_over_is_not_forgotten() {
    let (mut hq, repository) = with_app(&[]);
    let mut followed = Running::start(&mut hq.ssh_command(&["events", "-f", "-n", "0"]));
    // Its own beginning is none: it changes nothing. So something must be done until the follower hears it.
    crate::harness::until("the follower", || {
        hq.by_ssh(&["env", "set", "blog", "A=1", "--no-restart"]).succeeded();
        followed.stdout().contains("env set blog A=…").then_some(())
    });
    hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
    followed.wait_for("done  scale blog web=2");
    assert!(followed.stdout().contains("begun  scale blog web=2"), "{}", followed.stdout());
    drop(followed);

    repository.write("Dockerfile", "FROM debian:bookworm-slim\nRUN echo building; sleep 600\n");
    greet(&repository, "Never");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("building");
    let commit = repository.head()[..10].to_owned();
    let last = |hq: &Hq| listed(hq, &["-n", "1"]);
    assert_eq!(last(&hq), [row("ada", "blog", "begun", &format!("push master {commit}"))]);
    hq.stop(Signal::KILL);
    drop(push.wait());
    hq.serve();
    assert_eq!(last(&hq), [row("ada", "blog", "unknown", &format!("push master {commit}"))]);
}
