//! What comes after a deploy comes also when HQ is killed before it has: certificates of the repository, and commands.

use std::collections::BTreeSet;

use rustix::process::Signal;

use super::app;
use super::killed::{die_at_every_instant, journals};
use crate::harness::authority::TestAuthority;
use crate::harness::docker::{docker, list};
use crate::harness::{Hq, Repository, until};

#[test]
fn the_certificate_of_a_repository_is_shown_wherever_hq_was_killed() {
    let mut hq = Hq::start();
    let given = TestAuthority::new().issue(&["blog.test"]);
    let yml = "web:\n  type: static\n  document_root: site\n  domains: blog.test\n  ssl_cert: chain.pem\n  ssl_key: key.pem\n";
    let repository = Repository::with(&[
        ("site/index.html", "hello"),
        ("quarry.yml", yml),
        ("chain.pem", &given.chain()),
        ("key.pem", &given.key),
    ]);
    let certified = |hq: &Hq| {
        let rows = hq.quarry(&["certs", "--json"]).succeeded().json();
        rows.as_array().unwrap().iter().any(|row| row["domain"] == "blog.test" && row["kind"] == "custom")
    };
    let mut outcomes = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, _| drop(hq.push(&repository, "blog")),
        |hq, when| {
            let releases = hq.quarry(&["--json", "releases", "blog"]);
            let is_there = releases.code == 0;
            let is_live = is_there && !releases.json().as_array().unwrap().is_empty();
            assert_eq!(certified(hq), is_live, "{when}");
            outcomes.insert(is_live);
            if is_live {
                hq.quarry(&["certs", "remove", "blog.test"]).succeeded();
            }
            if is_there {
                hq.quarry(&["destroy", "blog", "--force"]).succeeded();
            }
        },
    );
    assert!(deaths >= 12, "{deaths} deaths are too few for a deploy and what comes after it");
    assert_eq!(outcomes, BTreeSet::from([false, true]), "both outcomes happened");
}

#[test]
fn a_command_that_hq_was_killed_in_runs_once_more() {
    let mut hq = Hq::start();
    let json = r#"{"scripts": {"dokku": {"postdeploy": "echo $QUARRY_RELEASE; while :; do sleep 0.1; done"}}}"#;
    let repository = app(&[("app.json", json)]);
    let of_hq = format!("label=quarry.hq={}", hq.id());
    let running = || list(&["ps", "-q", "--filter", &of_hq, "--filter", "label=quarry.role=once"]).pop();
    let push = hq.push_beside(&repository, "blog");
    let first = until("the command", running);
    hq.stop(Signal::KILL);
    push.wait();
    hq.serve();
    let second = until("the command once more", || running().filter(|id| *id != first));
    assert_eq!(hq.get("blog.localhost", "/").status, 200);
    assert_eq!(docker(&["inspect", &first]).code, 1, "the one that nobody waits for is gone");
    docker(&["kill", &second]).succeeded();
    until("rest", || journals(&hq).is_empty().then_some(()));

    // It has come now, and whatever becomes of it, it comes no more.
    hq.stop(Signal::KILL);
    hq.serve();
    hq.quarry(&["restart", "blog"]).succeeded();
    assert_eq!(running(), None);
}
