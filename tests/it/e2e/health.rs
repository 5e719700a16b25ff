//! Containers that have come up are asked on and on; what is sick is made anew, and nobody notices.

use super::app;
use crate::harness::docker::docker;
use crate::harness::{Hq, until};

/// Its check is a file: with it, the container is sick.
const CHECKED: &str = "web:\n  expose: 8080\n  health: {command: [sh, -c, \"! test -e /tmp/sick\"], interval: 1s, retries: 2, grace: 2s}\n";

fn names(hq: &Hq, stack: &str, state: &str) -> Vec<String> {
    let rows = hq.quarry(&["ps", stack, "--json"]).succeeded().json();
    let rows = rows.as_array().unwrap().iter().filter(|row| row["state"] == state);
    rows.map(|row| row["container"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_turns_sick_is_made_anew_without_a_failed_request() {
    let hq = Hq::start();
    hq.push(&app(&[("quarry.yml", CHECKED)]), "blog").succeeded();
    let first = names(&hq, "blog", "running").pop().unwrap();
    docker(&["exec", &first, "touch", "/tmp/sick"]).succeeded();
    until("another container in its place", || {
        assert_eq!(hq.get("blog.localhost", "/").status, 200);
        let now = names(&hq, "blog", "running");
        (now.len() == 1 && now[0] != first).then_some(())
    });
}

#[test]
fn what_is_sick_stays_as_long_as_nothing_better_comes_up() {
    let hq = Hq::start();
    let yml = CHECKED.replace("! test -e /tmp/sick", "test $QUARRY_INDEX = 1 && ! test -e /tmp/sick");
    hq.push(&app(&[("quarry.yml", &yml)]), "blog").succeeded();
    let first = names(&hq, "blog", "running").pop().unwrap();
    docker(&["exec", &first, "touch", "/tmp/sick"]).succeeded();
    until("HQ to have tried in vain", || hq.log().contains("could not be healed").then_some(()));
    assert_eq!((names(&hq, "blog", "unhealthy"), hq.get("blog.localhost", "/").status), (vec![first.clone()], 200));
    docker(&["exec", &first, "rm", "/tmp/sick"]).succeeded();
    until("it to be well again", || (names(&hq, "blog", "running") == [first.clone()]).then_some(()));
}

#[test]
fn a_job_says_by_its_variables_how_it_is_asked() {
    let hq = Hq::start();
    // It listens until it is told not to, and lives on.
    let deaf = r#"use IO::Socket::INET; my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 9, ReuseAddr => 1) or die;
        $SIG{USR1} = sub { close $server }; while (1) { $server->accept or sleep 1 }"#;
    let job = ["jobs", "run", "--name", "ear", "--daemonize", "--image", "debian:bookworm-slim", "--port", "7000"];
    let wrong = [&job[..], &["-e", "VIKING_HEALTH_0=tcp", "--", "true"]].concat();
    hq.quarry(&wrong).failed().said(&["`VIKING_HEALTH_0` names no port from 1 to 65535"]);
    hq.quarry(&[&job[..], &["-e", "VIKING_HEALTH_7000=tcp", "--", "perl", "-e", deaf]].concat()).succeeded();
    let first = until("it to run", || names(&hq, "jobs", "running").pop());
    docker(&["kill", "--signal", "USR1", &first]).succeeded();
    until("ps to say that it is sick", || (names(&hq, "jobs", "unhealthy") == [first.clone()]).then_some(()));
    until("another one in its place", || {
        let now = names(&hq, "jobs", "running");
        (now.len() == 1 && now[0] != first).then_some(())
    });
}
