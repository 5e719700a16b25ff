//! A server is lost, and comes back.

use std::time::{Duration, Instant};

use super::servers::{fleet_with, listed, places, wait_for_places, web};
use crate::harness::lab::Lab;
use crate::harness::until;

/// From the power cut until every stateless node answers from somewhere else, with a lease of five seconds.
const AGAIN: Duration = Duration::from_secs(15);

#[test]
fn what_a_lost_server_ran_runs_elsewhere_and_once() {
    let lab = Lab::up(3);
    let hq = fleet_with(&lab, 3, &[("lease", "5s")]);
    hq.push(&web("  scale: 3\n"), "blog").succeeded();
    hq.push(&web("  scale: 1\n"), "single").succeeded();
    let lost = places(&hq, "single", "web").pop().unwrap();
    let number: u8 = lost.trim_start_matches('s').parse().unwrap();
    hq.quarry(&["servers", "tag", &lost, "unlucky"]).succeeded();
    hq.push(&web("  filter: unlucky\n  fixed: true\n"), "kept").succeeded();
    hq.push(&web("  overlap: stop-first\n"), "once").succeeded();
    let once = places(&hq, "once", "web");
    assert_eq!(places(&hq, "blog", "web"), ["s1", "s2", "s3"]);

    let server = lab.server(number);
    server.poweroff();
    let began = Instant::now();
    until("the only container of a stack to run elsewhere", || {
        (hq.get("single.localhost", "/").status == 200).then_some(())
    });
    let took = began.elapsed();
    assert!(took <= AGAIN, "it took {took:?}");
    let others: Vec<String> = ["s1", "s2", "s3"].map(str::to_owned).into_iter().filter(|one| *one != lost).collect();
    until("three containers on two servers", || {
        let now = places(&hq, "blog", "web");
        (now.iter().filter(|place| **place != lost).count() == 3).then_some(())
    });
    assert_eq!(listed(&hq, &lost)["state"], "lost");
    // Nobody knows what the lost ones print; the others are heard all the same.
    let logs = hq.quarry(&["logs", "blog"]).succeeded().said(&[&format!("what is on {lost} is left out")]);
    assert!(logs.text().contains("web."), "{logs}");
    hq.quarry(&["logs", "kept"]).ended(3).said(&["on servers that answer"]);
    for _ in 0..20 {
        assert_eq!(hq.page("blog.localhost", "/env/QUARRY_NODE"), "web", "a browser is sent to the lost server");
    }
    // What is fixed stays where it is; and one that may exist only once may still run there, for all HQ knows.
    assert_eq!(places(&hq, "kept", "web"), std::slice::from_ref(&lost));
    assert_eq!(places(&hq, "once", "web"), once);

    // Meanwhile the others can be worked with, and a new HQ comes to the same conclusions.
    hq.quarry(&["scale", "blog", "web=4"]).succeeded();
    let hq = {
        let mut hq = hq;
        hq.stop(rustix::process::Signal::KILL);
        hq.serve();
        hq
    };
    until("the new HQ to give it up, too", || (listed(&hq, &lost)["state"] == "lost").then_some(()));

    server.poweron();
    until("it to count again", || (listed(&hq, &lost)["state"] == "up").then_some(()));
    let back = places(&hq, "blog", "web");
    assert!(back.len() == 4 && back.iter().all(|place| others.contains(place)), "{back:?}");
    until("what waited for it to answer", || (hq.get("kept.localhost", "/").status == 200).then_some(()));
    assert_eq!(places(&hq, "kept", "web"), std::slice::from_ref(&lost));
    wait_for_places(&hq, "once", "web", &once.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(places(&hq, "single", "web").len(), 1);
    // It takes new work again.
    hq.quarry(&["scale", "blog", "web=6"]).succeeded();
    assert!(places(&hq, "blog", "web").contains(&lost));
}
