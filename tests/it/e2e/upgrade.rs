//! HQ becomes another program, or dies, while people push and visitors come: nobody is turned away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use super::{greet, with_app};
use crate::harness::program::{Running, run};
use crate::harness::wrk::Load;
use crate::harness::{Hq, until};

/// Builds for a few seconds each time, because its content is always new.
const SLOW: &str =
    "FROM debian:bookworm-slim\nWORKDIR /app\nCOPY . .\nRUN sleep 4\nEXPOSE 8080\nCMD exec perl app.pl\n";

/// HQ with the app, as a program of its own; that one and a copy.
fn upgradable() -> (Hq, crate::harness::Repository, String, String) {
    let (mut hq, repository) = with_app(&[]);
    let (own, copy) = hq.own_program();
    hq.stop(Signal::TERM);
    hq.serve();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    (hq, repository, text(own), text(copy))
}

#[test]
fn an_upgrade_drops_no_request_and_turns_no_client_away_and_the_push_under_way_is_live() {
    let (hq, repository, own, copy) = upgradable();
    let load = Load::on(hq.http, "blog.localhost");
    repository.write("Dockerfile", SLOW);
    greet(&repository, "Pushed during the upgrade");
    let mut push = hq.push_beside(&repository, "blog");
    push.wait_for("RUN sleep 4");
    let mut upgrade = hq.quarry_beside(&["upgrade", &copy]);
    upgrade.wait_for("waiting for the push to blog by ada");
    // Everybody who comes meanwhile, before, while and after HQ begins anew.
    let (over, mut ssh) = (Arc::new(AtomicBool::new(false)), hq.ssh_command(&["ps"]));
    let ended = over.clone();
    let visits = std::thread::spawn(move || {
        let mut visits = 0;
        while !ended.load(Ordering::Relaxed) {
            run(&mut ssh).succeeded();
            visits += 1;
        }
        visits
    });
    let done = upgrade.wait().succeeded();
    assert!(done.text().contains("serves"), "{done}");
    done.said(&["quarry 0.1.0 works here", "Letting nobody in", "HQ begins anew"]);
    push.wait().succeeded();
    hq.by_ssh(&["ps"]).succeeded();
    over.store(true, Ordering::Relaxed);
    assert!(visits.join().unwrap() > 3);
    load.all_answered();
    assert_eq!(hq.page("blog.localhost", "/"), "Pushed during the upgrade from release 2\n");
    // The same process, another file, and the one before is kept.
    let exe = fs::read_link(format!("/proc/{}/exe", hq.process().as_raw_nonzero())).unwrap();
    assert_eq!(exe.to_str(), Some(own.as_str()));
    assert!(fs::metadata(format!("{own}.before")).unwrap().len() > 0);
    let events = hq.quarry(&["events", "--json"]).succeeded().text();
    assert!(events.contains("upgrade /"), "{events}");
}

#[test]
fn a_push_in_the_middle_of_its_pack_comes_to_its_end_behind_closed_doors() {
    let (hq, repository, _own, copy) = upgradable();
    let (ssh, held, go) = (hq.file("ssh-slow"), hq.file("held"), hq.file("go"));
    let script = format!(
        "#!/bin/sh\n{{ head -c 4096; : >{held}; until [ -e {go} ]; do sleep 0.05; done; cat; }} | ssh -F {config} \"$@\"\n",
        held = held.display(),
        go = go.display(),
        config = hq.file("ssh_config").display()
    );
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    // More than fits before the middle.
    let noise = |at: u32| format!("{:08x}", at.wrapping_mul(2_654_435_761));
    repository.write("noise", &(0..8192).map(noise).collect::<String>());
    greet(&repository, "Pushed slowly");
    let mut push = hq.git_command(repository.path());
    // Else it asks the command first which kind of ssh it is.
    push.env("GIT_SSH_COMMAND", &ssh).env("GIT_SSH_VARIANT", "ssh");
    let push = Running::start(push.args(["push", &hq.url("blog"), "HEAD"]));
    until("the middle of the pack", || held.exists().then_some(()));
    let mut upgrade = hq.quarry_beside(&["upgrade", &copy, "--patience", "15s"]);
    upgrade.wait_for("waiting for the push to blog by ada");
    upgrade.wait_for("Letting nobody in");
    fs::write(&go, "").unwrap();
    push.wait().succeeded();
    upgrade.wait().succeeded();
    assert_eq!(hq.page("blog.localhost", "/"), "Pushed slowly from release 2\n");
}

/// A program that works while it is looked at, and does this before it serves.
fn broken(hq: &Hq, copy: &str, first: &str) -> PathBuf {
    let path = hq.file("broken");
    let script = format!("#!/bin/sh\ncase \"$*\" in\n*--rehearse*) ;;\nserve*) {first} ;;\nesac\nexec {copy} \"$@\"\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Somebody else has the state for longer than HQ waits for it.
fn without_state(hq: &Hq) -> String {
    format!("flock {}/.lock sleep 4.7 </dev/null >/dev/null 2>&1 & sleep 0.3", hq.root().display())
}

fn length(path: &str) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_program_that_does_not_come_to_serve_gives_its_place_back() {
    let (hq, repository, own, copy) = upgradable();
    let load = Load::on(hq.http, "blog.localhost");
    let broken = broken(&hq, &copy, &without_state(&hq));
    let before = length(&own);
    let done = hq.quarry(&["upgrade", broken.to_str().unwrap()]).ended(3);
    done.said(&["HQ begins anew", "is the one of before; its log says why"]);
    assert!(hq.log().contains("HQ becomes the program of before again"), "{}", hq.log());
    assert_eq!(length(&own), before);
    load.all_answered();
    greet(&repository, "Later");
    hq.push(&repository, "blog").succeeded();
}

#[test]
fn a_program_that_a_package_put_there_gives_its_place_back_and_a_better_one_keeps_it() {
    let (hq, _repository, own, copy) = upgradable();
    let before = length(&own);
    fs::rename(broken(&hq, &copy, &without_state(&hq)), &own).unwrap();
    let done = hq.quarry(&["upgrade"]).ended(3);
    done.said(&["HQ begins anew", "is the one of before; its log says why"]);
    assert_eq!(length(&own), before);
    let better = hq.file("better");
    fs::copy(&copy, &better).unwrap();
    fs::rename(better, &own).unwrap();
    let done = hq.quarry(&["upgrade"]).succeeded();
    assert!(done.text().contains("serves"), "{done}");
    hq.by_ssh(&["ps"]).succeeded();
}

#[test]
fn a_program_that_is_killed_before_it_serves_is_not_started_again() {
    let (mut hq, _repository, own, copy) = upgradable();
    let (crashed, root) = (hq.file("crashed"), hq.root());
    let (crashed, root) = (crashed.display(), root.display());
    let crash = format!(
        "if [ ! -e {crashed} ]; then exec 3<&0
         flock -o {root}/.lock sleep 4 </dev/null >/dev/null 2>&1 & lock=$!
         while flock -n {root}/.lock true; do sleep 0.05; done
         {copy} \"$@\" <&3 3<&- & child=$!
         until [ -e {root}/hq.trial-begun ]; do sleep 0.05; done
         : >{crashed}; kill -9 $child $lock $$; fi"
    );
    let broken = broken(&hq, &copy, &crash);
    let before = length(&own);
    let upgrade = hq.quarry_beside(&["upgrade", broken.to_str().unwrap()]);
    until("the end of HQ", || hq.has_died().then_some(()));
    // What systemd does.
    hq.serve();
    upgrade.wait().ended(3).said(&["is the one of before; its log says why"]);
    let why = "ended before it came to serve; HQ becomes the program of before again";
    assert!(hq.log().contains(why), "{}", hq.log());
    assert_eq!(length(&own), before);
}

#[test]
fn an_upgrade_is_given_up_with_its_command() {
    let (hq, _repository, own, copy) = upgradable();
    let mut work = hq.quarry_beside(&["run", "blog", "sh", "-c", "echo begun; exec sleep 600"]);
    work.wait_for("begun");
    let waiting = || {
        let mut upgrade = hq.quarry_beside(&["upgrade", &copy]);
        upgrade.wait_for("waiting for `run blog sh -c");
        upgrade
    };
    let upgrade = waiting();
    upgrade.interrupt();
    upgrade.wait().ended(130).said(&["interrupted; HQ stays as it is"]);
    // It is the next one's turn, whether the one before said goodbye or not.
    let next = || hq.quarry(&["upgrade", &copy, "--patience", "1s"]).ended(3);
    next().said(&["still under way: `run blog sh -c"]);
    drop(waiting());
    until("the end of an upgrade", || next().stderr.contains("still under way: `run blog sh -c").then_some(()));
    assert!(["before", "new"].iter().all(|ending| !PathBuf::from(format!("{own}.{ending}")).exists()));
    work.interrupt();
    work.wait();
}

#[test]
fn hq_stays_as_it_is_for_a_program_that_does_not_work_and_while_somebody_works() {
    let (hq, _repository, _own, copy) = upgradable();
    hq.quarry(&["upgrade", "/bin/false"]).ended(1).said(&["/bin/false does not work here"]);
    hq.by_ssh(&["upgrade", &copy]).ended(3).said(&["on HQ's machine only"]);
    let mut work = hq.quarry_beside(&["run", "blog", "sh", "-c", "echo begun; exec sleep 600"]);
    work.wait_for("begun");
    let following = hq.quarry_beside(&["logs", "-f", "blog"]);
    let busy = hq.quarry(&["upgrade", &copy, "--patience", "3s"]).ended(3);
    busy.said(&["waiting for `run blog sh -c", "still under way: `run blog sh -c", "HQ stays as it is"]);
    // Who only looked has been asked to come again, and the doors are open.
    following.wait().ended(3).said(&["HQ is being upgraded"]);
    hq.by_ssh(&["ps"]).succeeded();
    work.interrupt();
    work.wait();
    until("the end of the run", || (hq.containers(&["role=once"]).is_empty()).then_some(()));
    hq.quarry(&["upgrade", &copy]).succeeded();
}

#[test]
fn a_killed_hq_drops_no_request() {
    let (mut hq, _repository) = with_app(&[]);
    let load = Load::on(hq.http, "blog.localhost");
    for _ in 0..3 {
        hq.stop(Signal::KILL);
        hq.serve();
        hq.by_ssh(&["scale", "blog", "web=2"]).succeeded();
        hq.by_ssh(&["scale", "blog", "web=1"]).succeeded();
    }
    load.all_answered();
}
