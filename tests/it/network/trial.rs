//! Rules come back by themselves: after a trial, a reboot, somebody's hand.

use rustix::process::Signal;

use super::lab::Host::{Outsider, Peer, Server};
use super::lab::Lab;
use super::peers::lab;
use crate::harness::program::run;
use crate::harness::wait::until;

fn outsider_reaches(lab: &Lab, port: u16) -> bool {
    lab.reaches(Outsider, Server.v4(), port)
}

/// Begins a trial; its id.
fn try_out(lab: &Lab, words: &[&str], seconds: &str) -> String {
    let words = [words, &["--trial", seconds]].concat();
    lab.locknet(&words).succeeded().text().trim().to_owned()
}

#[test]
fn rules_nobody_confirms_give_way_to_those_before() {
    let lab = lab();
    lab.locknet(&["192.0.2.1", "--open", "80"]).succeeded();
    let id = try_out(&lab, &["192.0.2.1", "--open", "2379"], "3");
    assert!(outsider_reaches(&lab, 2379) && !outsider_reaches(&lab, 80));
    until("the rules before are back", || outsider_reaches(&lab, 80).then_some(()));
    assert!(!outsider_reaches(&lab, 2379));
    lab.locknet(&["--check"]).ended(3).said(&["a trial was not confirmed"]);
    lab.locknet(&["--confirm", &id]).ended(3).said(&["the trial is over"]);
    lab.locknet(&["--restore"]).succeeded();
    lab.locknet(&["--check"]).succeeded();
    assert!(outsider_reaches(&lab, 80) && !outsider_reaches(&lab, 2379));
}

#[test]
fn the_first_rules_ever_give_way_to_none() {
    let lab = lab();
    try_out(&lab, &["192.0.2.1"], "2");
    assert!(!outsider_reaches(&lab, 2379));
    until("everybody reaches the server again", || outsider_reaches(&lab, 2379).then_some(()));
    lab.locknet(&["--restore"]).succeeded();
    assert!(run(lab.command(Server, "nft").args(["list", "tables", "inet"])).succeeded().text().is_empty());
}

#[test]
fn confirmed_rules_stay_and_only_their_own_id_confirms_them() {
    let lab = lab();
    let first = try_out(&lab, &["192.0.2.1"], "600");
    // Another one in its place: what comes back is what was confirmed last, and that is nothing.
    let id = try_out(&lab, &["192.0.2.1", "--open", "80"], "5");
    lab.locknet(&["--confirm", &first]).ended(3).said(&["no rules are on trial under"]);
    lab.locknet(&["--confirm", &id]).succeeded();
    lab.locknet(&["--check"]).succeeded();
    let left = run(lab.command(Server, "nft").args(["list", "tables", "inet"])).succeeded().text();
    assert_eq!(left.lines().count(), 1, "{left}");
    assert!(outsider_reaches(&lab, 80) && !outsider_reaches(&lab, 2379));
    // The same once more is in force already.
    let again = lab.locknet(&["192.0.2.1", "--open", "80", "--trial", "1"]).succeeded();
    assert_eq!(again.text(), "");
}

#[test]
fn rules_come_back_although_whoever_applied_them_was_killed() {
    let lab = lab();
    lab.locknet(&["192.0.2.1", "--open", "80"]).succeeded();
    let (mut rolled_back, mut round) = (0, 0);
    // Killed at every stage: before anything, while nft works, behind it, which a busy machine comes to late.
    while round < 12 || rolled_back == 0 {
        assert!(round < 60, "no round came as far as a trial");
        let applier = lab.locknet_beside(&["192.0.2.1", "--open", "2379", "--trial", "1"]);
        std::thread::sleep(std::time::Duration::from_millis(round * 8));
        // Where it has ended by itself there is nothing left to kill.
        let _ = rustix::process::kill_process_group(applier.pid(), Signal::KILL);
        applier.wait();
        until("the rules before are back", || outsider_reaches(&lab, 80).then_some(()));
        assert!(!outsider_reaches(&lab, 2379));
        let checked = lab.locknet(&["--check"]);
        rolled_back += usize::from(checked.code == 3);
        lab.locknet(&["--restore"]).succeeded();
        lab.locknet(&["--check"]).succeeded();
        round += 1;
    }
}

#[test]
fn a_reboot_and_a_strangers_hand_are_noticed_and_mended() {
    let lab = lab();
    lab.locknet(&["192.0.2.1", "--open", "80"]).succeeded();
    let hands: [&[&str]; 5] = [
        // A reboot leaves the kernel like this.
        &["flush", "ruleset"],
        &["insert", "rule", "inet", "quarry_N", "rules_input", "accept"],
        &["add", "element", "inet", "quarry_N", "open_tcp", "{ 2379 }"],
        &["flush", "set", "inet", "quarry_N", "peers4"],
        &["flush", "chain", "inet", "quarry_N", "input"],
    ];
    for hand in hands {
        let tables = run(lab.command(Server, "nft").args(["list", "tables", "inet"])).succeeded().text();
        let [table] = tables.lines().collect::<Vec<_>>()[..] else { panic!("{tables}") };
        let table = table.rsplit(' ').next().unwrap();
        let words = hand.iter().map(|word| if *word == "quarry_N" { table } else { word });
        run(lab.command(Server, "nft").args(words)).succeeded();
        lab.locknet(&["--check"]).ended(3).said(&["--restore"]);
        lab.locknet(&["--restore"]).succeeded();
        lab.locknet(&["--check"]).succeeded();
        assert!(outsider_reaches(&lab, 80) && !outsider_reaches(&lab, 2379), "{hand:?}");
    }
}

#[test]
fn rules_nft_refuses_leave_those_before_and_say_why() {
    let lab = lab();
    lab.locknet(&[&Peer.v4().to_string()]).succeeded();
    let quarry = env!("CARGO_BIN_EXE_quarry");
    let mut command = lab.command(Server, "setpriv");
    command.args(["--bounding-set=-net_admin", quarry, "locknet", "--root"]).arg(lab.root.path()).arg("192.0.2.9");
    run(&mut command).ended(3).said(&["Operation not permitted", "only root"]);
    lab.locknet(&["--check"]).succeeded();
    assert!(lab.reaches(Peer, Server.v4(), 2379) && !outsider_reaches(&lab, 2379));
}
