//! The etcd that HQ makes on its servers for its own state.

use rustix::process::Signal;
use serde_json::Value;

use super::servers::web;
use super::{app, greet};
use crate::harness::lab::{Lab, Server};
use crate::harness::program::Done;
use crate::harness::{Hq, Repository, until};

/// What keeps containers on HQ's own machine: here it is etcd that comes and goes.
const HERE: &str = "  filter: hq\n";

/// Where a member is on its server.
const FOLDER: &str = "/var/lib/quarry-etcd";

/// An HQ with three servers, and an app on its own machine.
fn three(lab: &Lab) -> (Hq, Repository) {
    let hq = Hq::start();
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    for number in 1..=3 {
        let address = format!("root@{}", lab.server(number).ip());
        hq.quarry_with(&["servers", "add", &address], &key).succeeded();
    }
    let repository = web(HERE);
    hq.push(&repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    (hq, repository)
}

/// The next release is live.
#[track_caller]
fn release(hq: &Hq, repository: &Repository, number: u32) {
    let greeting = format!("Number {number}");
    greet(repository, &greeting);
    hq.push(repository, "blog").succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), format!("{greeting} from release {number}\n"));
}

fn shown(hq: &Hq) -> Value {
    hq.quarry(&["cluster", "--json"]).succeeded().json()
}

/// `server state` of every member.
fn members(hq: &Hq) -> Vec<String> {
    let text = |member: &Value, name: &str| member[name].as_str().unwrap().to_owned();
    let members = shown(hq)["members"].as_array().unwrap().clone();
    members.iter().map(|member| format!("{} {}", text(member, "server"), text(member, "state"))).collect()
}

#[track_caller]
fn wait_for_members(hq: &Hq, expected: &[&str]) {
    until(&format!("{expected:?}"), || (members(hq) == expected).then_some(()));
}

/// etcd's own command, with a member's certificate.
fn etcdctl(server: Server<'_>, words: &[&str]) -> Done {
    let (endpoint, files) = (format!("https://{}:2379", server.ip()), ["ca", "cert", "key"]);
    let [ca, cert, key] = files.map(|name| format!("{FOLDER}/{name}.pem"));
    let command = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", &endpoint, "--cacert", &ca];
    server.ssh(&[&command[..], &["--cert", &cert, "--key", &key], words].concat())
}

/// It ends and nothing starts it again, as if somebody had seen to that.
fn stop_etcd(server: Server<'_>) {
    let script = format!("kill $(cat {FOLDER}/pid) && flock -w 20 {FOLDER}/lock true");
    server.ssh(&["sh", "-c", &script]).succeeded();
}

#[test]
fn hq_s_state_moves_into_an_etcd_that_grows_and_nobody_notices_the_loss_of_a_member() {
    let lab = Lab::up(3);
    let (mut hq, repository) = three(&lab);
    assert_eq!(shown(&hq)["home"], "files");
    hq.quarry(&["cluster", "etcd", "s1", "s2"]).ended(1).said(&["1, 3 or 5 members and not 2"]);
    hq.quarry(&["cluster", "etcd", "s1", "s2", "s1"]).ended(1).said(&["`s1` is named twice"]);
    hq.quarry(&["cluster", "etcd", "hq"]).ended(1).said(&["HQ's own machine"]);
    hq.quarry(&["cluster", "etcd", "s9"]).ended(1).said(&["there is no server `s9`"]);

    // One member, and the state in it. It is the same process that goes on.
    let made = hq.by_ssh(&["cluster", "etcd", "s1"]).succeeded();
    made.said(&["Making an etcd on s1", "Moving HQ's state into etcd", " keys (", "HQ begins anew"]);
    wait_for_members(&hq, &["s1 healthy"]);
    assert!(!hq.has_died(), "HQ is another process: {}", hq.log());
    let one = lab.server(1);
    let status = etcdctl(one, &["get", "--print-value-only", "/quarry/stacks/blog/status"]).succeeded();
    assert_eq!(status.json()["branch"], "master", "{status}");
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    release(&hq, &repository, 2);

    // Whoever shows no certificate of this authority is not let in.
    let endpoint = format!("https://{}:2379", one.ip());
    let stranger = ["etcdctl", "--endpoints", &endpoint, "--cacert", &format!("{FOLDER}/ca.pem")];
    let asked = [&stranger[..], &["--command-timeout=3s", "get", "/quarry/stacks/blog/status"]].concat();
    one.ssh(&[&["env", "ETCDCTL_API=3"][..], &asked].concat()).failed();

    // Two more, while HQ goes on. Again is no mistake.
    let words = ["cluster", "etcd", "s1", "s2", "s3"];
    hq.quarry(&words).succeeded().said(&["Adding s2 to the etcd of s1", "Adding s3 to the etcd of s1, s2"]);
    assert_eq!(members(&hq), ["s1 healthy", "s2 healthy", "s3 healthy"]);
    let again = hq.quarry(&words).succeeded();
    assert!(!again.stderr.contains("----->"), "{again}");
    release(&hq, &repository, 3);
    hq.quarry(&["servers", "remove", "s2", "--force"]).ended(3).said(&["`s2` is a member", "cluster etcd"]);

    // The one that leads is lost.
    let all = shown(&hq)["members"].as_array().unwrap().clone();
    let leader = all.iter().find(|member| member["leader"] == true).unwrap()["server"].as_str().unwrap().to_owned();
    let lost = lab.server(leader[1..].parse().unwrap());
    lost.poweroff();
    release(&hq, &repository, 4);
    hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
    let away = format!("{leader} away");
    assert!(members(&hq).contains(&away), "{:?}", members(&hq));
    hq.quarry(&["cluster"]).succeeded().said(&[&format!("{leader} is away: ")]);
    // HQ finds its state also when it starts with a member lost, and the member comes back by itself.
    hq.stop(Signal::KILL);
    hq.serve();
    release(&hq, &repository, 5);
    lost.poweron();
    wait_for_members(&hq, &["s1 healthy", "s2 healthy", "s3 healthy"]);
}

#[test]
fn with_all_members_gone_sites_answer_commands_say_so_and_all_goes_on_when_they_are_back() {
    let lab = Lab::up(3);
    let (hq, repository) = three(&lab);
    hq.quarry(&["cluster", "etcd", "s1", "s2", "s3"]).succeeded();
    wait_for_members(&hq, &["s1 healthy", "s2 healthy", "s3 healthy"]);
    release(&hq, &repository, 2);
    for number in 1..=3 {
        stop_etcd(lab.server(number));
    }
    assert_eq!(hq.page("blog.localhost", "/"), "Number 2 from release 2\n");
    for done in [hq.by_ssh(&["releases", "blog"]).ended(3), hq.push(&repository, "blog").failed()] {
        assert!(done.stderr.contains("etcd does not answer at https://10.77."), "{done}");
    }
    let told = hq.quarry(&["cluster"]).succeeded();
    assert!(told.text().contains("HQ's state is in etcd at https://10.77."), "{told}");
    assert_eq!(members(&hq), ["s1 away", "s2 away", "s3 away"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Number 2 from release 2\n");

    // Two of three are enough, and the command starts whoever is down.
    for number in 1..=2 {
        lab.server(number).ssh(&["/etc/quarry/boot.d/etcd"]).succeeded();
    }
    wait_for_members(&hq, &["s1 healthy", "s2 healthy", "s3 away"]);
    release(&hq, &repository, 3);
    hq.quarry(&["cluster", "etcd", "s1", "s2", "s3"]).succeeded().said(&["Starting etcd on s3 again"]);
    assert_eq!(members(&hq), ["s1 healthy", "s2 healthy", "s3 healthy"]);
}

#[test]
fn an_hq_that_is_killed_while_it_makes_an_etcd_goes_on_where_it_was() {
    let lab = Lab::up(3);
    let (mut hq, repository) = three(&lab);
    let words = ["cluster", "etcd", "s1", "s2", "s3"];
    for line in ["Making an etcd on s1", "Adding s2", "Adding s3", "Moving HQ's state into etcd"] {
        let mut make = hq.quarry_beside(&words);
        make.wait_for(line);
        hq.stop(Signal::KILL);
        drop(make);
        hq.serve();
        assert!(hq.quarry(&["stacks"]).succeeded().text().contains("blog"), "after `{line}`");
    }
    hq.quarry(&words).succeeded();
    wait_for_members(&hq, &["s1 healthy", "s2 healthy", "s3 healthy"]);
    release(&hq, &repository, 2);
    let releases = hq.quarry(&["releases", "blog", "--json"]).succeeded().json();
    assert_eq!(releases.as_array().unwrap().len(), 2, "{releases}");

    // One that has lost its disk begins anew.
    let three = lab.server(3);
    stop_etcd(three);
    three.ssh(&["rm", "-r", &format!("{FOLDER}/data")]).succeeded();
    hq.quarry(&words).succeeded().said(&["Taking s3 out of etcd", "Adding s3 to the etcd of s1, s2"]);
    assert_eq!(members(&hq), ["s1 healthy", "s2 healthy", "s3 healthy"]);

    // Whoever is not named leaves, with its copy of the state, and can be removed then.
    hq.quarry(&["cluster", "etcd", "s3"]).succeeded().said(&["Taking s", "out of etcd"]);
    assert_eq!(members(&hq), ["s3 healthy"]);
    for number in 1..=2 {
        lab.server(number).ssh(&["test", "-e", FOLDER]).failed();
    }
    hq.quarry(&["servers", "remove", "s1"]).succeeded();
    release(&hq, &repository, 3);
    hq.stop(Signal::TERM);
    hq.serve();
    release(&hq, &repository, 4);
}

#[test]
fn an_etcd_that_was_begun_elsewhere_ends_when_other_servers_are_named() {
    let lab = Lab::up(3);
    let (mut hq, _) = three(&lab);
    let mut make = hq.quarry_beside(&["cluster", "etcd", "s1", "s2", "s3"]);
    make.wait_for("Adding s2");
    hq.stop(Signal::KILL);
    drop(make);
    hq.serve();
    hq.quarry(&["cluster", "etcd", "s3"]).succeeded().said(&["Adding s3", "Taking s1 out of etcd"]);
    wait_for_members(&hq, &["s3 healthy"]);
    for number in 1..=2 {
        let server = lab.server(number);
        server.ssh(&["test", "-e", FOLDER]).failed();
        server.ssh(&["pidof", "etcd"]).failed();
    }
    hq.quarry(&["servers", "remove", "s1"]).succeeded();
}

#[test]
fn a_server_without_etcd_gets_it_from_its_distribution() {
    let lab = Lab::bare(1);
    let hq = Hq::start();
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    let one = lab.server(1);
    hq.quarry_with(&["servers", "add", &format!("root@{}", one.ip())], &key).succeeded();
    let words = ["cluster", "etcd", "s1"];
    hq.quarry(&words).succeeded().said(&["installing it from the distribution", "HQ begins anew"]);
    wait_for_members(&hq, &["s1 healthy"]);
    // Not as root, and the package's own member does not run beside it.
    let owners = one.ssh(&["sh", "-c", "for pid in $(pidof etcd); do stat -c %U /proc/$pid; done"]).succeeded();
    assert_eq!(owners.text(), "etcd\n", "{owners}");
    // Nor may it change what root reads or runs there.
    let touch = format!("touch {FOLDER}/keep {FOLDER}/key.pem.new {FOLDER}/new");
    one.ssh(&["setpriv", "--reuid=etcd", "--regid=etcd", "--clear-groups", "sh", "-c", &touch]).failed();
    let new = one.ssh(&["sh", "-c", &format!("ls {FOLDER}; stat -c %U {FOLDER} {FOLDER}/ca.pem {FOLDER}/data")]).text();
    assert!(!new.contains("new") && new.ends_with("root\nroot\netcd\n"), "{new}");
}

#[test]
fn a_push_under_way_ends_before_the_state_moves() {
    let lab = Lab::up(1);
    let hq = Hq::start();
    let key = std::fs::read(lab.folder().join("key")).unwrap();
    hq.quarry_with(&["servers", "add", &format!("root@{}", lab.server(1).ip())], &key).succeeded();
    let slow = "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD sleep 3; exec perl app.pl\n";
    let repository = app(&[("Dockerfile", slow)]);
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("-----> Launching release 1");
    hq.quarry(&["cluster", "etcd", "s1"]).succeeded().said(&["Waiting for the push of", "Moving HQ's state"]);
    push.wait().succeeded();
    wait_for_members(&hq, &["s1 healthy"]);
    assert_eq!(hq.page("blog.localhost", "/"), "Hello from release 1\n");
    let releases = hq.quarry(&["releases", "blog", "--json"]).succeeded().json();
    assert_eq!(releases.as_array().unwrap().len(), 1, "{releases}");
}
