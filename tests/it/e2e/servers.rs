//! One HQ and several servers: real sshd and dockerd on each, and the router in front of all.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::app;
use super::services::{mongo, store};
use crate::harness::lab::{Lab, Server};
use crate::harness::program::{Done, Running};
use crate::harness::terminal::Terminal;
use crate::harness::web::request;
use crate::harness::{Hq, Repository, until};

/// No command may wait for a server that is away for longer than this, whatever else the machine does.
const AT_ONCE: Duration = Duration::from_secs(20);

fn address(server: Server<'_>) -> String {
    format!("root@{}", server.ip())
}

fn private_key(lab: &Lab) -> Vec<u8> {
    std::fs::read(lab.folder().join("key")).unwrap()
}

/// An HQ that keeps its own server for itself, and the first `count` servers of a lab, called s1, s2, …
pub fn fleet(lab: &Lab, count: u8) -> Hq {
    fleet_with(lab, count, &[])
}

/// The same, with these settings.
pub fn fleet_with(lab: &Lab, count: u8, etc: &[(&str, &str)]) -> Hq {
    let hq = Hq::start_with(etc);
    for number in 1..=count {
        hq.quarry_with(&["servers", "add", &address(lab.server(number))], &private_key(lab)).succeeded();
    }
    hq.quarry(&["servers", "drain", "hq"]).succeeded();
    hq
}

pub fn listed(hq: &Hq, name: &str) -> Value {
    hq.quarry(&["servers", "show", name, "--json"]).succeeded().json()
}

/// The servers a node's containers are on, in order.
pub fn places(hq: &Hq, stack: &str, node: &str) -> Vec<String> {
    let rows = hq.quarry(&["ps", stack, "--json"]).succeeded().json();
    let of_node = rows.as_array().unwrap().iter().filter(|row| row["node"] == node);
    let mut servers: Vec<String> = of_node.map(|row| row["server"].as_str().unwrap().to_owned()).collect();
    servers.sort();
    servers
}

/// Waits until a node's containers are on exactly these servers: old ones go in the background.
#[track_caller]
pub fn wait_for_places(hq: &Hq, stack: &str, node: &str, expected: &[&str]) {
    until(&format!("{node} of {stack} on {expected:?}"), || (places(hq, stack, node) == expected).then_some(()));
}

/// What docker on a server has of quarry's, images included.
fn left_on(server: Server<'_>) -> String {
    let script = "docker ps -aq --filter label=quarry.hq; docker network ls -q --filter label=quarry.hq; \
                  docker images --format '{{.Repository}}' | grep ^quarry/; true";
    server.ssh(&["sh", "-c", script]).succeeded().text()
}

/// A web node with these further lines of quarry.yml.
pub fn web(lines: &str) -> Repository {
    app(&[("quarry.yml", &format!("web:\n  expose: 8080\n  health: /\n{lines}"))])
}

/// Says how long it took when it took too long.
#[track_caller]
fn at_once(what: impl FnOnce() -> Done) -> Done {
    let began = Instant::now();
    let done = what();
    assert!(began.elapsed() < AT_ONCE, "it took {:?}: {done}", began.elapsed());
    done
}

/// Browsers that ask for a page again and again, each the next moment it has it.
pub struct Load {
    stop: Arc<AtomicBool>,
    browsers: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    pub fn on(to: SocketAddr, host: &'static str, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let browse = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut pages, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    pages += 1;
                    match request(to, "GET", host, path, b"") {
                        Ok(reply) if reply.status == 200 => {}
                        Ok(reply) => failed.push(reply.head),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (pages, failed)
            })
        };
        Self { browsers: (0..4).map(browse).collect(), stop }
    }

    /// How many pages came; every one must.
    #[track_caller]
    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (mut pages, mut failed) = (0, Vec::new());
        for browser in self.browsers {
            let (came, lost) = browser.join().unwrap();
            pages += came;
            failed.extend(lost);
        }
        assert!(failed.is_empty(), "{} of {pages} requests failed: {failed:?}", failed.len());
        pages
    }
}

#[test]
fn servers_are_added_by_every_door_and_only_the_right_ones() {
    let lab = Lab::up(3);
    let hq = Hq::start();
    let (one, two, three) = (lab.server(1), lab.server(2), lab.server(3));

    // Whoever listens in is not let in, and learns nothing.
    let others = two.host_key().fingerprint();
    let wrong = ["servers", "add", &address(one), "--fingerprint", &others];
    hq.quarry_with(&wrong, &private_key(&lab)).ended(3).said(&["shows the host key", &one.host_key().fingerprint()]);
    hq.quarry(&["servers", "add", &address(one)]).ended(3).said(&["does not know HQ's key", "ssh-ed25519 "]);
    hq.quarry_with(&["servers", "add", &address(one)], b"wrong password\n").ended(3).said(&["with the password"]);
    let too_much = ["servers", "add", &address(one), "--size", "9000g"];
    hq.quarry_with(&too_much, &private_key(&lab)).ended(1).said(&["`s1` has ", "--size takes at most that"]);
    hq.quarry(&["servers", "add", "10.0.0.7"]).ended(2).said(&["USER@ADDRESS"]);
    hq.quarry(&["servers", "add", "root@127.0.0.1:1"]).ended(3).said(&["cannot reach"]);
    hq.quarry(&["servers", "add", &address(one), "--tags", "SSD!"]).ended(1).said(&["is not a tag"]);
    let names = |hq: &Hq| -> Vec<String> {
        let list = hq.quarry(&["servers", "--json"]).succeeded().json();
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&hq), ["hq"]);

    // A key, a password, and a line in authorized_keys: each opens once, then HQ's own key does.
    let right = one.host_key().fingerprint();
    let words = ["servers", "add", &address(one), "--fingerprint", &right, "--tags", "ssd,db", "--size", "2g"];
    hq.quarry_with(&words, &private_key(&lab)).succeeded().said(&["added s1"]);
    two.ssh(&["sh", "-c", "echo root:one-time | chpasswd"]).succeeded();
    hq.by_ssh_with(&["servers", "add", &address(two)], b"one-time\n").succeeded().said(&["added s2"]);
    let refused = hq.by_option(&["servers", "add", &address(three)]).ended(3);
    let line = refused.stderr.lines().find(|line| line.starts_with("ssh-")).unwrap().to_owned();
    three.ssh(&["sh", "-c", "echo \"$1\" >> ~/.ssh/authorized_keys", "sh", &line]).succeeded();
    hq.by_option(&["servers", "add", &address(three), "--name", "third"]).succeeded().said(&["added third"]);
    assert_eq!(names(&hq), ["hq", "s1", "s2", "third"]);

    let shown = listed(&hq, "s1");
    assert_eq!((&shown["state"], &shown["size"]), (&"up".into(), &2048.into()));
    assert_eq!(shown["tags"], serde_json::json!(["db", "ssd"]));
    assert_eq!(shown["host_key"], right.as_str());
    let folder = hq.root().join("servers/s1");
    assert_eq!(std::fs::read_to_string(folder.join("ip")).unwrap(), format!("{}\n", one.ip()));
    assert!(folder.join("settings.json").exists());

    // Again is no mistake: it mends, and what a person decided stays.
    hq.quarry(&["servers", "tag", "s1", "fast", "--remove", "db"]).succeeded().said(&["fast, ssd"]);
    one.ssh(&["sed", "-i", "$d", ".ssh/authorized_keys"]).succeeded();
    hq.quarry(&["servers", "add", &address(one)]).ended(3).said(&["does not know HQ's key"]);
    hq.quarry_with(&["servers", "add", &address(one)], &private_key(&lab)).succeeded().said(&["added s1"]);
    assert_eq!(listed(&hq, "s1")["tags"], serde_json::json!(["fast", "ssd"]));
    // The same machine is not counted twice.
    let name = ["servers", "add", &address(two), "--name", "other"];
    hq.quarry_with(&name, &private_key(&lab)).ended(1).said(&["added as `s2` already"]);

    // One that leaves knows HQ no more.
    hq.quarry(&["servers", "remove", "third"]).succeeded();
    assert_eq!(names(&hq), ["hq", "s1", "s2"]);
    assert!(!hq.root().join("servers/third").exists());
    let keys = three.ssh(&["cat", ".ssh/authorized_keys"]).succeeded().text();
    assert!(!keys.contains(&line), "{keys}");
    hq.quarry(&["servers", "remove", "hq"]).ended(3).said(&["servers drain hq"]);
    hq.quarry(&["servers", "show", "third"]).ended(1).said(&["servers list"]);
}

#[test]
fn a_server_that_is_slow_to_join_holds_up_no_other() {
    let lab = Lab::up(2);
    let hq = Hq::start();
    let (one, two) = (lab.server(1), lab.server(2));
    one.stall("dockerd");
    let mut slow = hq.quarry_beside(&["servers", "add", &address(one)]);
    slow.write(&private_key(&lab));
    slow.end_of_input();
    slow.wait_for("docker does not answer");
    at_once(|| hq.quarry_with(&["servers", "add", &address(two)], &private_key(&lab))).succeeded();
    assert!(!slow.has_ended(), "it was not slow");
    one.resume("dockerd");
    slow.wait().succeeded().said(&["added s1"]);
}

#[test]
fn a_server_that_another_hq_has_is_refused_until_that_lets_go() {
    let lab = Lab::up(1);
    let (first, second) = (fleet(&lab, 1), Hq::start());
    first.push(&web("  filter: s1\n"), "shop").succeeded();
    let add = || second.quarry_with(&["servers", "add", &address(lab.server(1))], &private_key(&lab));
    add().ended(3).said(&["another HQ", &first.id(), "shop.web"]);
    // The other one goes on as if nothing had been.
    first.quarry(&["scale", "shop", "web=2"]).succeeded();
    first.quarry(&["servers", "remove", "s1", "--force"]).succeeded();
    add().succeeded().said(&["added s1"]);
}

#[test]
fn a_password_is_typed_unseen() {
    let lab = Lab::up(1);
    let hq = Hq::start();
    let server = lab.server(1);
    server.ssh(&["sh", "-c", "echo root:one-time | chpasswd"]).succeeded();
    let command = format!(
        "QUARRY_ROOT={} QUARRY_ETC={} {} servers add {}; stty -a",
        hq.root().display(),
        hq.file("etc").display(),
        env!("CARGO_BIN_EXE_quarry"),
        address(server)
    );
    let mut terminal = Terminal::open(100, 30, &command, |_| ());
    terminal.wait_for("from standard input");
    terminal.write("one-time\r");
    terminal.wait_for("added s1");
    // Afterwards the terminal shows again what is typed.
    terminal.wait_for(" echo ");
    let shown = terminal.shown();
    assert!(!shown.contains("one-time"), "{shown}");
    terminal.wait().succeeded();
}

#[test]
fn a_server_without_docker_gets_it_and_a_half_added_one_is_mended() {
    let lab = Lab::bare(1);
    let mut hq = Hq::start();
    let words = ["servers", "add", &address(lab.server(1))];
    let mut add = hq.quarry_beside(&words);
    add.write(&private_key(&lab));
    add.wait_for("installing it from the distribution");
    hq.stop(Signal::KILL);
    drop(add);
    hq.serve();
    assert!(!hq.root().join("servers/s1/settings.json").exists());
    // No secret is needed any more: HQ's key was let in.
    hq.quarry(&words).succeeded().said(&["added s1"]);
    lab.server(1).ssh(&["docker", "version"]).succeeded();
    assert_eq!(listed(&hq, "s1")["state"], "up");
}

#[test]
fn a_stack_spreads_over_its_servers_and_leaves_nothing_behind() {
    mongo();
    let lab = Lab::up(3);
    let hq = fleet(&lab, 3);
    hq.quarry(&["servers", "tag", "s1", "db"]).succeeded();
    let yml = "mongo:\n  type: service\n  container: quarry-test/mongo:1\n  volumes: /data/db\n  filter: db\nweb:\n  \
               dockerfile: Dockerfile\n  expose: 8080\n  link: mongo\n  health: /\n  scale: 3\n";
    hq.push(&app(&[("quarry.yml", yml)]), "blog").succeeded();
    assert_eq!(places(&hq, "blog", "web"), ["s1", "s2", "s3"]);
    assert_eq!(places(&hq, "blog", "mongo"), ["s1"]);

    // Each of them answers, and each finds the service where it is.
    assert_eq!(store(&hq, "POST", "colour", "green"), "OK\n");
    let mut seen = BTreeSet::new();
    until("an answer from each server", || {
        seen.insert(hq.page("blog.localhost", "/env/QUARRY_INDEX"));
        assert_eq!(store(&hq, "GET", "colour", ""), "green\n");
        (seen.len() == 3).then_some(())
    });
    let volume = hq.root().join("volumes/blog/mongo/data_db");
    let kept = ["cat", &volume.join("colour").display().to_string()].map(str::to_owned);
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    assert_eq!(lab.server(1).ssh(&kept).succeeded().text(), "green\n");
    assert!(!volume.exists(), "the volume is on HQ, where nothing runs");

    // What no server can take is refused before anything changes.
    let before = places(&hq, "blog", "web");
    let refused = hq.push(&web("  filter: gpu\n"), "shop").failed();
    refused.said(&["no server that is up has the tag `gpu`", "servers tag"]);
    hq.push(&web("  size: 20g\n  scale: 4\n"), "shop").failed().said(&["servers add"]);
    assert_eq!(places(&hq, "blog", "web"), before);

    // A new release moves as one, wherever its containers are.
    let load = Load::on(hq.http, "blog.localhost", "/");
    hq.quarry(&["env", "set", "blog", "COLOUR=red"]).succeeded();
    hq.quarry(&["scale", "blog", "web=2"]).succeeded();
    load.end();
    hq.quarry(&["destroy", "blog", "--force"]).succeeded();
    for number in 1..=3 {
        assert_eq!(left_on(lab.server(number)), "", "on s{number}");
    }
    let folder = volume.parent().unwrap().parent().unwrap().display().to_string();
    lab.server(1).ssh(&["test", "-e", &folder]).failed();
}

#[test]
fn a_drain_drops_no_request_and_goes_on_after_a_restart_of_hq() {
    let lab = Lab::up(2);
    let mut hq = fleet(&lab, 2);
    hq.push(&web("  scale: 2\n"), "blog").succeeded();
    hq.push(&web("  filter: s1\n  volumes: /data\n"), "kept").succeeded();
    assert_eq!(places(&hq, "blog", "web"), ["s1", "s2"]);
    hq.quarry(&["servers", "remove", "s1"]).ended(3).said(&["runs", "`kept.web.", "servers drain s1"]);

    let load = Load::on(hq.http, "blog.localhost", "/");
    let drained = hq.quarry(&["servers", "drain", "s1"]).succeeded();
    drained.said(&["Moving web of blog", "on s1 stays", "kept.web."]);
    assert_eq!(places(&hq, "blog", "web"), ["s2", "s2"]);
    assert!(load.end() > 10, "the load was no load");
    // What keeps its data there still answers, and nothing new comes.
    assert_eq!(hq.get("kept.localhost", "/").status, 200);
    hq.quarry(&["scale", "blog", "web=4"]).succeeded();
    assert_eq!(places(&hq, "blog", "web"), ["s2"; 4]);

    hq.quarry(&["servers", "resume", "s1"]).succeeded();
    hq.quarry(&["scale", "blog", "web=2"]).succeeded();
    hq.quarry(&["servers", "drain", "s2"]).succeeded();
    wait_for_places(&hq, "blog", "web", &["s1", "s1"]);
    hq.quarry(&["servers", "resume", "s2"]).succeeded();

    // A drain that HQ did not live to finish.
    let load = Load::on(hq.http, "blog.localhost", "/");
    let mut drain = hq.quarry_beside(&["servers", "drain", "s1"]);
    drain.wait_for("Moving web of blog");
    hq.stop(Signal::KILL);
    drop(drain);
    hq.serve();
    wait_for_places(&hq, "blog", "web", &["s2", "s2"]);
    assert_eq!(listed(&hq, "s1")["state"], "draining");
    load.end();

    // What stays can be given up: it begins anew where there is room for it.
    hq.quarry(&["servers", "remove", "s1"]).ended(3);
    hq.quarry(&["servers", "tag", "s2", "s1"]).succeeded();
    hq.quarry(&["servers", "remove", "s1", "--force"]).succeeded().said(&["web of kept had its data on s1"]);
    wait_for_places(&hq, "kept", "web", &["s2"]);
    until("the node that lost its home to answer", || (hq.get("kept.localhost", "/").status == 200).then_some(()));
    assert_eq!(left_on(lab.server(1)), "");
}

#[test]
fn a_server_that_is_away_holds_up_nobody_and_is_cleared_when_it_is_back() {
    let lab = Lab::up(2);
    let mut hq = fleet(&lab, 2);
    let one = lab.server(1);
    hq.push(&web("  filter: s1\n"), "away").succeeded();
    let here = web("  filter: s2\n");
    hq.push(&here, "here").succeeded();
    let state = |hq: &Hq| listed(hq, "s1")["state"].as_str().unwrap().to_owned();

    // Stalled: its docker takes calls and says nothing.
    one.stall("dockerd");
    hq.quarry(&["scale", "here", "web=2"]).succeeded();
    at_once(|| hq.quarry(&["scale", "here", "web=3"])).succeeded();
    assert_eq!(state(&hq), "down");
    assert!(listed(&hq, "s1")["why"].as_str().unwrap().contains("does not answer"));
    one.resume("dockerd");
    until("s1 to be up again", || (state(&hq) == "up").then_some(()));

    // Cut: connections hang.
    one.cut();
    until("the loss of s1 to be noticed", || (state(&hq) == "down").then_some(()));
    at_once(|| hq.quarry(&["servers"])).succeeded().said(&["s1 is down: "]);
    super::greet(&here, "Second");
    at_once(|| hq.push(&here, "here")).succeeded();
    assert_eq!(hq.page("here.localhost", "/"), "Second from release 2\n");
    hq.quarry(&["servers", "remove", "s1"]).ended(3);
    at_once(|| hq.quarry(&["destroy", "away", "--force"])).succeeded().said(&["s1 cannot be cleared of away now"]);
    hq.push(&web(""), "away").failed().said(&["still has something on s1"]);

    // It does not hold up HQ's start either, and is connected to when it is back.
    hq.stop(Signal::TERM);
    let began = Instant::now();
    hq.serve();
    assert!(began.elapsed() < AT_ONCE, "HQ took {:?} to be ready", began.elapsed());
    assert_eq!(state(&hq), "down");
    assert_eq!(hq.page("here.localhost", "/"), "Second from release 2\n");
    one.heal();
    until("s1 to be cleared", || left_on(one).is_empty().then_some(()));
    until("the name to be free again", || (hq.push(&web(""), "away").code == 0).then_some(()));
}

/// What is in the file of keys after HQ's was taken away, and how that ended.
fn let_go(before: &str, limit: &str) -> (i32, String) {
    let home = tempfile::tempdir().unwrap();
    let keys = home.path().join(".ssh/authorized_keys");
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::fs::write(&keys, before).unwrap();
    let script = format!("{limit}{}", quarry::hq::servers::leave::LET_GO);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("HOME", home.path());
    let mut running = Running::start(&mut command);
    running.write(b"ssh-ed25519 HQ hq\n");
    let done = running.wait();
    let folder = std::fs::read_dir(home.path().join(".ssh")).unwrap();
    assert_eq!(folder.count(), 1, "something is left beside the keys");
    (done.code, std::fs::read_to_string(&keys).unwrap())
}

#[test]
fn hqs_key_goes_alone_and_on_a_full_disk_none_does() {
    let (ada, hq) = ("ssh-ed25519 ADA ada\n", "ssh-ed25519 HQ hq\n");
    assert_eq!(let_go(&format!("{ada}{hq}"), ""), (0, ada.to_owned()));
    assert_eq!(let_go(hq, ""), (0, String::new()));
    assert_eq!(let_go(ada, ""), (0, ada.to_owned()));
    // Nothing can be written any more.
    let both = format!("{ada}{hq}");
    assert_eq!(let_go(&both, "trap '' XFSZ; ulimit -f 0\n"), (1, both.clone()));
}
