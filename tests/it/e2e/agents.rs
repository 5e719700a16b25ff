//! One HQ and the agents it brings to its servers: rules, files, routers, and who is there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{app, greet};
use crate::harness::lab::{Lab, Server};
use crate::harness::web::request;
use crate::harness::{Hq, until};

/// What `network show` says of a server.
fn row(hq: &Hq, server: &str) -> Option<Value> {
    let rows = hq.quarry(&["network", "show", "--json"]).succeeded().json();
    rows.as_array().unwrap().iter().find(|row| row["server"] == server).cloned()
}

#[track_caller]
fn wait_for(hq: &Hq, server: &str, field: &str, expected: &str) {
    until(&format!("{field} of {server} is {expected}"), || {
        row(hq, server).filter(|row| row[field] == expected && row["trouble"].as_array().unwrap().is_empty())
    });
}

fn file(server: Server<'_>, path: &str) -> String {
    server.ssh(&["sh", "-c", "cat \"$1\" 2>/dev/null || true", "sh", path]).succeeded().text()
}

/// What the router of a server answers.
fn page(server: Server<'_>, port: u16, host: &str) -> Option<String> {
    let reply = request(SocketAddr::from((server.ip(), port)), "GET", host, "/", b"").ok()?;
    (reply.status == 200).then(|| reply.text())
}

pub(super) fn add(hq: &Hq, lab: &Lab, number: u8, tags: &[&str]) {
    let address = format!("root@{}", lab.server(number).ip());
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    let words = [&["servers", "add", &address], tags].concat();
    hq.quarry_with(&words, &key).succeeded().said(&["its agent was started"]);
}

#[test]
fn servers_are_what_hq_wants_and_route_with_it() {
    let lab = Lab::up(2);
    let mut hq = Hq::start_with(&[("lease", "5s")]);
    let (one, two) = (lab.server(1), lab.server(2));
    add(&hq, &lab, 1, &[]);
    add(&hq, &lab, 2, &["--tags", "router"]);
    hq.quarry(&["servers", "drain", "hq"]).succeeded();
    for server in ["s1", "s2"] {
        wait_for(&hq, server, "rules", "applied");
        wait_for(&hq, server, "presence", "up");
    }

    // Config files and names are everywhere when the command is done.
    let began = Instant::now();
    hq.quarry_with(&["config", "write", "/etc/app/app.conf"], b"one\n").succeeded();
    let took = began.elapsed();
    eprintln!("config write on two servers: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    for server in [one, two] {
        assert_eq!(file(server, "/etc/app/app.conf"), "one\n");
        let hosts = file(server, "/etc/hosts");
        assert!(
            hosts.contains(&format!("{}\ts1", one.ip())) && hosts.contains(&format!("{}\ts2", two.ip())),
            "{hosts}"
        );
    }
    assert_eq!(hq.by_ssh(&["config", "show", "/etc/app/app.conf"]).succeeded().text(), "one\n");
    hq.quarry_with(&["config", "write", "/etc/hosts"], b"x").failed();
    hq.quarry(&["config", "remove", "/etc/other"]).ended(1).said(&["config list"]);

    // Both routers show the new release when the push is answered.
    let repository = app(&[("quarry.yml", "web:\n  expose: 8080\n  health: /\n  domains: blog.test\n")]);
    greet(&repository, "first");
    hq.push(&repository, "blog").succeeded();
    let port = hq.http.port();
    until("the router of s2 shows the app", || page(two, port, "blog.test").filter(|text| text.contains("first")));
    greet(&repository, "second");
    hq.push(&repository, "blog").succeeded();
    let text = page(two, port, "blog.test").unwrap_or_default();
    assert!(text.contains("second"), "{text}");
    assert!(page(one, port, "blog.test").is_none(), "s1 does not route");
    let six = ["curl", "-s", "-m", "5", "--noproxy", "*", "-H", "Host: blog.test", &format!("http://[::1]:{port}/")];
    assert!(two.ssh(&six).succeeded().text().contains("second"), "who comes by IPv6 is answered, too");
    until("ps of the app is written", || {
        let found = ["s1", "s2"].map(|server| std::fs::read_dir(hq.root().join("ps").join(server)));
        found.into_iter().flatten().flatten().flatten().next()
    });

    // HQ gone and back: the routers serve on, and hear it again.
    hq.stop(Signal::KILL);
    assert!(page(two, port, "blog.test").is_some_and(|text| text.contains("second")));
    hq.serve();
    wait_for(&hq, "s2", "presence", "up");
    hq.quarry_with(&["config", "write", "/etc/app/app.conf"], b"two\n").succeeded();
    assert_eq!(file(two, "/etc/app/app.conf"), "two\n");
    greet(&repository, "third");
    hq.push(&repository, "blog").succeeded();
    until("the router of s2 shows the third", || page(two, port, "blog.test").filter(|text| text.contains("third")));

    // An agent that is killed is brought back, and one whose server is gone is told so.
    let pid = || file(one, "/var/lib/quarry-agent/lock");
    let first = pid();
    one.ssh(&["kill", "-KILL", first.trim()]).succeeded();
    until("another agent runs on s1", || (pid() != first).then_some(()));
    wait_for(&hq, "s1", "presence", "up");
    let began = Instant::now();
    one.poweroff();
    until("s1 is gone", || row(&hq, "s1").filter(|row| row["presence"] == "gone"));
    eprintln!("a server that was switched off is gone after {:?}", began.elapsed());
    until("what it told is gone", || (!hq.root().join("servers/s1/vitals.json").exists()).then_some(()));
    hq.quarry(&["config", "remove", "/etc/app/app.conf"]).succeeded().said(&["s1 is told when it is back"]);
    one.poweron();
    wait_for(&hq, "s1", "presence", "up");
    until("it has heard what it missed", || file(one, "/etc/app/app.conf").is_empty().then_some(()));

    hq.quarry(&["network", "off"]).succeeded();
    wait_for(&hq, "s1", "rules", "off");
    hq.quarry(&["network", "apply"]).succeeded();
    wait_for(&hq, "s1", "rules", "applied");

    // What an agent did goes with it.
    let embassy = ["ip", "-oneline", "address", "show", "label", "lo:quarry"];
    assert!(one.ssh(&embassy).succeeded().text().contains(&hq.embassy()));
    hq.quarry(&["servers", "remove", "s1", "--force"]).succeeded();
    assert_eq!(one.ssh(&embassy).succeeded().text(), "");
    assert!(!hq.root().join("servers/s1").exists());
    assert!(!file(one, "/etc/hosts").contains("quarry") && file(one, "/var/lib/quarry-agent/lock").is_empty());
    assert!(one.ssh(&["nft", "list", "tables", "inet"]).succeeded().text().is_empty());
}
