//! Who may do what.

use std::fs;

use super::{app, greet, serving, with_app};
use crate::harness::program::run;
use crate::harness::{Hq, Repository, Running, until};

/// Every command about one stack, with the stack as `STACK`.
const ABOUT_A_STACK: [&[&str]; 27] = [
    &["links", "STACK"],
    &["ps", "STACK"],
    &["logs", "STACK"],
    &["releases", "STACK"],
    &["events", "STACK"],
    &["stacks", "show", "STACK"],
    &["env", "STACK"],
    &["env", "get", "STACK", "SECRET"],
    &["env", "set", "STACK", "A=1"],
    &["env", "unset", "STACK", "SECRET"],
    &["env", "import", "STACK"],
    &["run", "STACK", "id"],
    &["scale", "STACK", "web=0"],
    &["restart", "STACK"],
    &["rollback", "STACK"],
    &["deploy", "STACK", "master"],
    &["destroy", "STACK", "--force"],
    &["stacks", "destroy", "STACK", "--force"],
    &["stacks", "transfer", "STACK", "eve"],
    &["rights", "grant", "eve", "STACK", "admin"],
    &["rights", "revoke", "ada", "STACK"],
    &["ps", "--stack", "STACK"],
    &["jobs", "list", "STACK"],
    &["jobs", "run", "--stack", "STACK", "--image", "debian", "--", "id"],
    &["jobs", "logs", "STACK/import"],
    &["jobs", "kill", "STACK/import"],
    &["jobs", "history", "STACK/import"],
];

/// Every command about everybody.
const ABOUT_ALL: [&[&str]; 16] = [
    &["backup", "-"],
    &["backup", "x", "--volumes"],
    &["servers"],
    &["servers", "drain", "hq"],
    &["grid"],
    &["grid", "autosize", "off"],
    &["cluster"],
    &["cluster", "etcd", "hq"],
    &["network"],
    &["network", "off"],
    &["config"],
    &["config", "write", "/etc/app"],
    &["launch"],
    &["keys", "add", "mallory"],
    &["keys", "remove", "ada", "--confirm"],
    &["rights", "grant", "eve", "--operator"],
];

fn named(words: &[&str], stack: &str) -> Vec<String> {
    words.iter().map(|word| word.replace("STACK", stack)).collect()
}

#[test]
fn who_has_no_right_changes_nothing_and_learns_only_that_a_name_is_taken() {
    let (hq, repository) = with_app(&[]);
    hq.by_ssh(&["env", "set", "blog", "SECRET=hush", "--no-restart"]).succeeded();
    let eve = hq.person("eve");
    let before = (serving(&hq, "blog"), hq.quarry(&["rights", "--json"]).succeeded().json());
    for words in ABOUT_A_STACK {
        let told = |stack: &str| {
            let words = named(words, stack);
            let done = eve.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            (done.code, done.text().replace(stack, "STACK"), done.stderr.replace(stack, "STACK"))
        };
        let (code, out, err) = told("blog");
        assert!(code == 1 && out.is_empty() && err.contains("there is no stack `STACK`"), "{words:?}: {out}{err}");
        assert_eq!((code, out, err), told("nothing"), "{words:?}");
    }
    for words in ABOUT_ALL {
        eve.run(words).ended(3).said(&["only operators may do that"]);
    }
    for words in [&["stacks"][..], &["ps"], &["events", "-n", "1"], &["rights"]] {
        let done = eve.run(words).succeeded();
        assert!(!done.text().contains("ada"), "{words:?}: {done}");
    }
    assert!(!eve.run(&["keys"]).succeeded().text().contains("ada"));
    let gone = eve.git(&repository, &["ls-remote", &hq.url("blog")]).failed().stderr;
    let none = eve.git(&repository, &["ls-remote", &hq.url("nothing")]).failed().stderr;
    assert_eq!(gone.replace("blog", "nothing"), none);

    greet(&repository, "Taken over");
    eve.push(&repository, "blog").failed().said(&["the name `blog` is taken; choose another"]);
    eve.run(&["stacks", "create", "blog"]).ended(1).said(&["exists already"]);
    let thief = app(&[("quarry.yml", "web:\n  health: /\n  domains: www.example.com\n")]);
    let rightful = app(&[("quarry.yml", "web:\n  health: /\n  domains: www.example.com\n")]);
    hq.push(&rightful, "shop").succeeded();
    let refused = eve.push(&thief, "mine").failed().said(&["`www.example.com` belongs to another stack"]);
    assert!(!refused.stderr.contains("shop"), "{refused}");
    let reader = app(&[(".gitmodules", "[submodule \"theirs\"]\n\tpath = theirs\n\turl = ../blog\n")]);
    let entry = format!("160000,{},theirs", repository.git(&["rev-parse", "HEAD~1"]).succeeded().text().trim());
    reader.git(&["update-index", "--add", "--cacheinfo", &entry]).succeeded();
    reader.git(&["commit", "-q", "-m", "reads blog"]).succeeded();
    eve.push(&reader, "reader").failed().said(&["is the stack `blog` of this HQ, which does not exist"]);
    assert_eq!(before, (serving(&hq, "blog"), rights_but_shop(&hq)));
    hq.by_ssh(&["rights", "grant", "eve", "blog", "view"]).succeeded();
    eve.push(&reader, "reader").succeeded();
}

fn rights_but_shop(hq: &Hq) -> serde_json::Value {
    let mut rights = hq.quarry(&["rights", "--json"]).succeeded().json();
    rights.as_array_mut().unwrap().retain(|row| row["stack"] != "shop");
    rights
}

#[test]
fn rights_are_given_taken_and_passed_on() {
    let (hq, repository) = with_app(&[]);
    let (bob, eve) = (hq.person("bob"), hq.person("eve"));
    hq.by_ssh(&["rights", "grant", "bob", "blog", "view"]).succeeded().said(&["bob may view blog"]);
    for words in [&["ps", "blog"][..], &["releases", "blog"], &["logs", "blog"], &["stacks", "show", "blog"]] {
        bob.run(words).succeeded();
    }
    assert!(bob.run(&["stacks"]).succeeded().text().contains("blog"));
    bob.git(&repository, &["ls-remote", &hq.url("blog")]).succeeded();
    let how = "`bob` may only view `blog`; one of its admins can change that: rights grant bob blog deploy";
    bob.run(&["scale", "blog", "web=2"]).ended(3).said(&[how]);
    bob.run(&["env", "blog"]).ended(3).said(&[how]);
    greet(&repository, "Bob's");
    bob.push(&repository, "blog").failed().said(&[how]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");

    hq.by_ssh(&["rights", "grant", "bob", "blog", "deploy"]).succeeded().said(&["bob may deploy blog (so far: view)"]);
    bob.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Bob's from release 2\n");
    bob.run(&["destroy", "blog", "--force"]).ended(3).said(&["may only deploy `blog`"]);
    bob.run(&["rights", "grant", "eve", "blog", "view"]).ended(3).said(&["may only deploy `blog`"]);

    hq.by_ssh(&["rights", "grant", "bob", "blog", "admin"]).succeeded();
    bob.run(&["rights", "grant", "eve", "blog", "view"]).succeeded();
    bob.run(&["rights", "grant", "stranger", "blog", "view"]).succeeded().said(&["stranger has no key yet"]);
    bob.run(&["rights", "revoke", "ada", "blog"]).ended(3).said(&["`ada` owns `blog`", "stacks transfer blog USER"]);
    let listed = bob.run(&["rights"]).succeeded().text();
    assert!(listed.contains("admin (owner)") && listed.contains("eve"), "{listed}");
    bob.run(&["rights", "revoke", "eve", "blog"]).succeeded();
    bob.run(&["rights", "revoke", "eve", "blog"]).ended(1).said(&["`eve` has no right on `blog`"]);
    eve.run(&["ps", "blog"]).ended(1);

    bob.run(&["stacks", "transfer", "blog", "eve"]).succeeded().said(&["blog belongs to eve"]);
    eve.run(&["destroy", "blog", "--force"]).succeeded();
    // The next one of that name has nothing to do with the last one's people.
    eve.run(&["stacks", "create", "blog"]).succeeded();
    bob.run(&["ps", "blog"]).ended(1).said(&["there is no stack `blog`"]);
}

#[test]
fn operators_look_after_everything_and_may_keep_new_stacks_to_themselves() {
    let hq = Hq::start_with(&[("create-stacks", "operators\n")]);
    let bob = hq.person("bob");
    let repository: Repository = app(&[]);
    bob.push(&repository, "blog").failed().said(&["only operators make new stacks here", "stacks create blog"]);
    bob.run(&["stacks", "create", "blog"]).ended(3).said(&["only operators make new stacks here"]);
    hq.by_ssh(&["stacks", "create", "blog"]).succeeded();
    hq.by_ssh(&["rights", "grant", "bob", "blog", "deploy"]).succeeded();
    bob.push(&repository, "blog").succeeded();

    hq.by_ssh(&["rights", "grant", "bob", "--operator"]).succeeded().said(&["bob is an operator"]);
    bob.run(&["servers"]).succeeded();
    bob.run(&["stacks", "create", "shop"]).succeeded();
    bob.run(&["rights", "revoke", "ada", "--operator"]).succeeded().said(&["ada is no operator any more"]);
    hq.by_ssh(&["servers"]).ended(3);
    // Whoever is root on HQ's machine needs no right.
    hq.quarry(&["rights", "grant", "ada", "--operator"]).succeeded();
    hq.by_ssh(&["servers"]).succeeded();
}

#[test]
fn nobody_becomes_an_operator_by_the_way() {
    let hq = Hq::start();
    // The only operator is one no more.
    hq.quarry(&["rights", "revoke", "ada", "--operator"]).succeeded();
    hq.person("bob").run(&["servers"]).ended(3);
    // There is one, of whom nobody can read it; then not even another key.
    hq.quarry(&["rights", "grant", "ada", "--operator"]).succeeded();
    fs::write(hq.root().join("rights/ada.json"), "{").unwrap();
    hq.person("eve").run(&["servers"]).ended(3);
    for user in ["ada", "bob", "eve"] {
        hq.quarry(&["keys", "remove", user, "--confirm"]).succeeded();
    }
    hq.person("carl").run(&["servers"]).ended(3);
}

/// An HQ on which a worker that prints all the time is live as `jobs`.
fn with_worker() -> Hq {
    let hq = Hq::start();
    let repository = Repository::sample("six");
    repository.write("quarry.yml", "red:\n  type: worker\n  dockerfile: Dockerfile\n  run: perl worker.pl\n");
    repository.commit("a worker");
    hq.push(&repository, "jobs").succeeded();
    hq
}

#[test]
fn a_key_that_is_taken_away_opens_nothing_more_on_connections_that_are_open() {
    let hq = with_worker();
    let bob = hq.person("bob");
    hq.by_ssh(&["rights", "grant", "bob", "jobs", "deploy"]).succeeded();
    let path = format!("ControlPath={}", hq.file("control").display());
    let mut following =
        Running::start(&mut bob.command_with(&["-o", "ControlMaster=yes", "-o", &path], &["logs", "-f", "jobs"]));
    following.wait_for("red 1 works");
    let beside = |words: &[&str]| run(&mut bob.command_with(&["-o", "ControlMaster=no", "-o", &path], words));
    beside(&["ps", "jobs"]).succeeded();
    hq.by_ssh(&["keys", "remove", "bob", "laptop"]).succeeded();
    // The key is read again in a moment; until then HQ does not know.
    until("the end of the connection", || following.has_ended().then_some(()));
    beside(&["ps", "jobs"]).failed();
    following.wait().failed();

    // A key that has become somebody else's is not the one that logged in, and whoever takes their own away hears it.
    let eve = hq.person("eve");
    let gone = eve.run(&["keys", "remove", "eve", "laptop", "--confirm"]);
    gone.succeeded();
    until("the end of eve's key", || (eve.run(&["help"]).code != 0).then_some(()));
    hq.by_ssh(&["ps", "jobs"]).succeeded();
}

#[test]
fn what_somebody_follows_ends_with_their_right() {
    let hq = with_worker();
    let bob = hq.person("bob");
    hq.by_ssh(&["rights", "grant", "bob", "jobs", "view"]).succeeded();
    let mut logs = Running::start(&mut bob.command(&["logs", "-f", "jobs"]));
    let mut events = Running::start(&mut bob.command(&["events", "-f", "jobs"]));
    let mut all = Running::start(&mut bob.command(&["events", "-f"]));
    logs.wait_for("red 1 works");
    events.wait_for("rights grant bob jobs view");
    all.wait_for("rights grant bob jobs view");
    hq.by_ssh(&["rights", "revoke", "bob", "jobs"]).succeeded();
    hq.by_ssh(&["env", "set", "jobs", "HIDDEN=1", "--no-restart"]).succeeded();
    for following in [logs, events] {
        following.wait().ended(1).said(&["there is no stack `jobs`"]);
    }
    bob.run(&["stacks", "create", "mine"]).succeeded();
    all.wait_for("stacks create mine");
    assert!(!all.stdout().contains("HIDDEN"), "{}", all.stdout());
}
