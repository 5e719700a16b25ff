//! `kill -9` of HQ before and after every step of its journal: a debug build kills itself at the instant it is told.
//! After each restart the operation is finished or undone, everything agrees, and the site has answered all along.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;

use super::servers::{fleet, web};
use crate::harness::lab::Lab;
use crate::harness::program::{Done, run};
use crate::harness::web::request;
use crate::harness::{Hq, Repository, until};

/// Asks a site again and again and keeps what went wrong.
struct Visitor {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<Vec<String>>,
}

impl Visitor {
    fn of(http: SocketAddr, host: &'static str) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (stop.clone(), answers.clone());
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !until.load(Ordering::SeqCst) {
                match request(http, "GET", host, "/", b"") {
                    Ok(reply) if reply.status == 200 => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Ok(reply) => failures.push(format!("{} {}", reply.status, reply.text())),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        });
        Self { stop, answers, thread }
    }

    /// Every request was answered well, and there were some.
    fn leave(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failures = self.thread.join().unwrap();
        assert!(failures.is_empty(), "{} failures, first: {:?}", failures.len(), failures.first());
        assert!(self.answers.load(Ordering::SeqCst) > 10, "nobody visited");
    }
}

/// Performs `operation` with an HQ that dies at the first, second, … instant, until one survives it. `check` looks at
/// what the next HQ made of it. Gives the number of deaths.
pub fn die_at_every_instant(
    hq: &mut Hq,
    mut operation: impl FnMut(&mut Hq, u64),
    mut check: impl FnMut(&mut Hq, &str),
) -> u64 {
    for instant in 1.. {
        // What an earlier operation still retires would be counted too.
        until("rest before the operation", || journals(hq).is_empty().then_some(()));
        hq.stop(Signal::TERM);
        hq.serve_until(Some(instant));
        operation(hq, instant);
        // An operation ends when its old containers are gone: the journal is the last to know.
        let died = until("an end of the operation", || {
            if hq.has_died() {
                return Some(true);
            }
            // Killed right after its last write an HQ has an empty journal too; one that answers is alive.
            (journals(hq).is_empty() && answers(hq)).then_some(false)
        });
        if !died {
            // It still counts the instants of what comes next.
            hq.stop(Signal::TERM);
            hq.serve();
            check(hq, "survived");
            return instant - 1;
        }
        hq.serve();
        until("rest after a restart", || journals(hq).is_empty().then_some(()));
        check(hq, &format!("killed at instant {instant}"));
    }
    unreachable!("the loop only returns")
}

fn answers(hq: &Hq) -> bool {
    let done = hq.by_ssh(&["stacks"]);
    done.code == 0
}

pub fn journals(hq: &Hq) -> Vec<String> {
    let folder = fs::read_dir(hq.root().join("journal"));
    let names = folder.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Containers, ports, routes, references and records of a stack agree, and nothing is left over. Gives the release.
fn agree(hq: &Hq, stack: &str, when: &str) -> Option<u64> {
    let label = format!("stack={stack}");
    agree_with(hq, stack, when, hq.containers(&[&label]))
}

/// The same where these are the stack's containers.
fn agree_with(hq: &Hq, stack: &str, when: &str, containers: Vec<String>) -> Option<u64> {
    let number = containers.len();
    let containers: BTreeSet<String> = containers.into_iter().collect();
    assert_eq!(containers.len(), number, "{when}: one name on two servers");
    let (releases, pins) = releases_and_pins(hq, stack);
    if releases.code != 0 || releases.json().as_array().unwrap().is_empty() {
        assert_eq!(containers, BTreeSet::new(), "{when}");
        assert_eq!(pins, BTreeMap::new(), "{when}");
        assert_eq!(hq.get(&format!("{stack}.localhost"), "/").status, 404, "{when}");
        return None;
    }
    let releases = releases.json();
    let releases = releases.as_array().unwrap();
    let current = &releases[0];
    let number = current["number"].as_u64().unwrap();
    let routes = fs::read_to_string(hq.root().join(format!("routes/{stack}.json"))).unwrap();
    let routes: serde_json::Value = serde_json::from_str(&routes).unwrap();
    assert_eq!(routes["release"], current["number"], "{when}");
    let mut routed = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for peer in routes["nodes"]["web"]["target"]["peers"].as_array().unwrap() {
        routed.insert(peer["container"].as_str().unwrap().to_owned());
        assert!(ports.insert(peer["address"].to_string()), "{when}: one port twice");
    }
    assert_eq!(containers, routed, "{when}: what runs is what is routed");
    let proc = fs::read_to_string(hq.root().join(format!("proc/{stack}/web.json"))).unwrap();
    let proc: serde_json::Value = serde_json::from_str(&proc).unwrap();
    assert_eq!(proc["count"].as_u64().unwrap() as usize, containers.len(), "{when}");
    let kept: BTreeMap<u64, String> = releases
        .iter()
        .map(|release| (release["number"].as_u64().unwrap(), release["commit"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(pins, kept, "{when}: a pin for each release");
    Some(number)
}

/// What `quarry releases` says and what is pinned, of one moment: old releases may be going.
fn releases_and_pins(hq: &Hq, stack: &str) -> (Done, BTreeMap<u64, String>) {
    let releases = || hq.quarry(&["--json", "releases", stack]);
    let mut latest = releases();
    until("releases that stay while the pins are read", || {
        let pins = pins(hq, stack);
        let earlier = std::mem::replace(&mut latest, releases());
        (earlier.text() == latest.text()).then_some((earlier, pins))
    })
}

fn pins(hq: &Hq, stack: &str) -> BTreeMap<u64, String> {
    let list = references(hq, stack);
    list.into_iter()
        .filter_map(|(name, id)| Some((name.strip_prefix("refs/quarry/releases/")?.parse().ok()?, id)))
        .collect()
}

fn references(hq: &Hq, stack: &str) -> BTreeMap<String, String> {
    let repository = hq.root().join(format!("stacks/{stack}/repo.git"));
    if !repository.exists() {
        return BTreeMap::new();
    }
    let done = run(std::process::Command::new("git")
        .arg("--git-dir")
        .arg(repository)
        .args(["for-each-ref", "--format=%(refname) %(objectname)"]));
    let text = done.succeeded().text();
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
}

fn site(text: &str) -> Repository {
    Repository::with(&[("index.html", text)])
}

#[test]
fn a_first_deploy_killed_at_any_step_is_finished_or_undone() {
    let mut hq = Hq::start();
    let repository = site("hello");
    let mut last = String::new();
    let mut outcomes = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, instant| {
            let stack = format!("first{instant}");
            drop(hq.push(&repository, &stack));
            fs::write(hq.file("last"), stack).unwrap();
        },
        |hq, when| {
            last = fs::read_to_string(hq.file("last")).unwrap();
            let release = agree(hq, &last, when);
            let branch = references(hq, &last).get("refs/heads/master").cloned();
            match release {
                Some(_) => {
                    assert_eq!(hq.page(&format!("{last}.localhost"), "/"), "hello", "{when}");
                    assert_eq!(branch, Some(repository.head()), "{when}");
                }
                None => {
                    assert_eq!(branch, None, "{when}");
                    hq.push(&repository, &last).succeeded();
                }
            }
            outcomes.insert(release.is_some());
            hq.quarry(&["destroy", &last, "--force"]).succeeded();
            assert_eq!(agree(hq, &last, "destroyed"), None);
        },
    );
    assert!(deaths >= 10, "{deaths} deaths are too few for a deploy");
    assert_eq!(outcomes, BTreeSet::from([false, true]), "both outcomes happened");
}

/// Whether the page is the one that was pushed; if not, it is the one shown before. The branch is where the release is.
fn is_finished(hq: &Hq, repository: &Repository, [page, wanted, shown]: [&String; 3], when: &str) -> bool {
    assert!(page == wanted || page == shown, "{when}: {page}");
    let tip = references(hq, "blog")["refs/heads/master"].clone();
    assert_eq!(tip == repository.head(), page == wanted, "{when}: the branch is where the release is");
    page == wanted
}

#[test]
fn a_redeploy_killed_at_any_step_is_finished_or_undone_and_the_site_answers_all_along() {
    let mut hq = Hq::start();
    let repository = site("0");
    hq.push(&repository, "blog").succeeded();
    let visitor = Visitor::of(hq.http, "blog.localhost");
    let mut shown = "0".to_owned();
    let mut outcomes = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, instant| {
            repository.write("index.html", &instant.to_string());
            repository.commit("again");
            drop(hq.push(&repository, "blog"));
        },
        |hq, when| {
            agree(hq, "blog", when).unwrap();
            let page = hq.page("blog.localhost", "/");
            let wanted = fs::read_to_string(repository.file("index.html")).unwrap();
            outcomes.insert(is_finished(hq, &repository, [&page, &wanted, &shown], when));
            shown = page;
        },
    );
    visitor.leave();
    assert!(deaths >= 10, "{deaths} deaths are too few for a deploy");
    assert_eq!(outcomes, BTreeSet::from([false, true]), "both outcomes happened");
}

#[test]
fn a_deploy_over_three_servers_killed_at_any_step_is_finished_or_undone_and_the_site_answers_all_along() {
    let lab = Lab::up(3);
    let mut hq = fleet(&lab, 3);
    let repository = web("  scale: 3\n");
    hq.push(&repository, "blog").succeeded();
    let before = hq.page("blog.localhost", "/");
    let greeting = |page: &str| page.split(' ').next().unwrap().to_owned();
    let visitor = Visitor::of(hq.http, "blog.localhost");
    let mut shown = greeting(&before);
    let mut outcomes = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, instant| {
            super::greet(&repository, &format!("greeting-{instant}"));
            drop(hq.push(&repository, "blog"));
        },
        |hq, when| {
            let everywhere = [1, 2, 3].map(|number| {
                let words = ["docker", "ps", "-a", "--filter", "label=quarry.stack=blog", "--format", "{{.Names}}"];
                lab.server(number).ssh(&words).succeeded().text()
            });
            let everywhere: Vec<String> = everywhere.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
            assert_eq!(everywhere.len(), 3, "{when}: {everywhere:?}");
            agree_with(hq, "blog", when, everywhere).unwrap();
            let page = greeting(&hq.page("blog.localhost", "/"));
            let wanted = fs::read_to_string(repository.file("greeting")).unwrap().trim().to_owned();
            outcomes.insert(is_finished(hq, &repository, [&page, &wanted, &shown], when));
            shown = page;
        },
    );
    visitor.leave();
    assert!(deaths >= 20, "{deaths} deaths are too few for a deploy over three servers");
    assert_eq!(outcomes, BTreeSet::from([false, true]), "both outcomes happened");
}

#[test]
fn scaling_and_rollback_killed_at_any_step_are_finished_or_undone_and_the_site_answers_all_along() {
    let mut hq = Hq::start();
    let repository = site("one");
    hq.push(&repository, "blog").succeeded();
    repository.write("index.html", "two");
    repository.commit("second");
    hq.push(&repository, "blog").succeeded();
    let visitor = Visitor::of(hq.http, "blog.localhost");
    let mut counts = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, _| {
            let wanted = if hq.containers(&["stack=blog"]).len() == 1 { "web=3" } else { "web=1" };
            drop(hq.quarry(&["scale", "blog", wanted]));
        },
        |hq, when| {
            agree(hq, "blog", when).unwrap();
            counts.insert(hq.containers(&["stack=blog"]).len());
        },
    );
    assert!(deaths >= 5, "{deaths} deaths are too few for scaling");
    assert_eq!(counts, BTreeSet::from([1, 3]));
    hq.quarry(&["scale", "blog", "web=1"]).succeeded();
    let mut pages = BTreeSet::new();
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, _| drop(hq.quarry(&["rollback", "blog"])),
        |hq, when| {
            agree(hq, "blog", when).unwrap();
            pages.insert(hq.page("blog.localhost", "/"));
        },
    );
    assert!(deaths >= 8, "{deaths} deaths are too few for a rollback");
    assert_eq!(pages, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    visitor.leave();
}

#[test]
fn a_destruction_killed_at_any_step_is_finished() {
    let mut hq = Hq::start();
    let repository = site("hello");
    let deaths = die_at_every_instant(
        &mut hq,
        |hq, instant| {
            // The instants of the deploy come first; HQ must live through them to be asked to destroy.
            hq.stop(Signal::TERM);
            hq.serve();
            hq.push(&repository, "blog").succeeded();
            until("rest after a deploy", || journals(hq).is_empty().then_some(()));
            hq.stop(Signal::TERM);
            hq.serve_until(Some(instant));
            drop(hq.quarry(&["destroy", "blog", "--force"]));
        },
        |hq, when| {
            // Killed before its first word an HQ has promised nothing.
            if agree(hq, "blog", when).is_some() {
                assert_eq!(when, "killed at instant 1");
                hq.quarry(&["destroy", "blog", "--force"]).succeeded();
            }
            assert!(!hq.root().join("stacks/blog").exists(), "{when}");
            assert!(!hq.root().join("routes/blog.json").exists(), "{when}");
        },
    );
    assert!(deaths >= 5, "{deaths} deaths are too few for a destruction");
}

#[test]
fn an_hq_killed_while_images_are_built_leaves_nothing_and_builds_again() {
    let mut hq = Hq::start();
    let dockerfile = "FROM debian:bookworm-slim\nRUN echo building; while :; do sleep 0.1; done\n";
    let repository = Repository::with(&[("Dockerfile", dockerfile)]);
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("building");
    hq.stop(Signal::KILL);
    push.wait().failed();
    hq.serve();
    until("rest after a restart", || journals(&hq).is_empty().then_some(()));
    assert_eq!(agree(&hq, "blog", "killed in the build"), None);
    repository.write("Dockerfile", "FROM debian:bookworm-slim\nCMD [\"sh\", \"-c\", \"while :; do sleep 1; done\"]\n");
    repository.write("quarry.yml", "work:\n  type: worker\n");
    repository.commit("quick");
    hq.push(&repository, "blog").succeeded();
}
