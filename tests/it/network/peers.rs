//! Peers reach everything, everybody else what is open.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::lab::Host::{Container, Outsider, Peer, Server};
use super::lab::{Host, Lab, PUBLISHED, connect, exchange};
use crate::harness::program::run;
use crate::harness::wait::until;

/// A lab whose server answers at 22, 80 and 2379 and whose container's 5000 is published.
pub fn lab() -> Lab {
    let lab = Lab::new();
    for port in [22, 80, 2379] {
        lab.listen(Server, port);
    }
    lab.listen(Container, 5000);
    // Interfaces that have just come up do not find their IPv6 neighbours in the first moment.
    for host in [Peer, Outsider] {
        for address in [Server.v4(), Server.v6()] {
            until("the published port answers", || lab.reaches(host, address, PUBLISHED).then_some(()));
        }
    }
    lab
}

#[track_caller]
fn check(lab: &Lab, from: Host, to: Host, expected: &[(u16, bool)]) {
    for address in [to.v4(), to.v6()] {
        for (port, reached) in expected {
            assert_eq!(lab.reaches(from, address, *port), *reached, "{from:?} to {address} {port}");
        }
    }
}

const EVERYTHING: [(u16, bool); 4] = [(22, true), (80, true), (2379, true), (PUBLISHED, true)];

fn peers() -> [String; 2] {
    [Peer.v4().to_string(), Peer.v6().to_string()]
}

#[test]
fn a_peer_reaches_everything_and_an_outsider_what_is_open_until_it_is_off() {
    let lab = lab();
    check(&lab, Outsider, Server, &EVERYTHING);
    let [four, six] = peers();
    lab.locknet(&[&four, &six]).succeeded();
    check(&lab, Peer, Server, &EVERYTHING);
    check(&lab, Outsider, Server, &[(22, true), (80, false), (2379, false), (PUBLISHED, false)]);
    lab.locknet(&[&four, &six, "--open", "80,8080"]).succeeded();
    check(&lab, Outsider, Server, &[(22, true), (80, true), (2379, false), (PUBLISHED, true)]);
    // The server itself and its containers go on as before.
    assert!(lab.reaches(Server, Server.v4(), 2379) && lab.reaches(Server, Container.v4(), 5000));
    lab.locknet(&["--off"]).succeeded();
    check(&lab, Outsider, Server, &EVERYTHING);
}

#[test]
fn the_original_port_counts_and_the_containers_own_opens_nothing() {
    let lab = lab();
    // 5000 is the container's side of 8080: to open it opens no published port, and no way past docker to the container.
    lab.locknet(&["192.0.2.1", "--open", "5000"]).succeeded();
    assert!(!lab.reaches(Outsider, Server.v4(), PUBLISHED));
    lab.ip(Outsider, "route add 172.30.0.0/24 via 10.99.0.1");
    lab.ip(Outsider, "-6 route add fd98::/64 via fd99::1");
    check(&lab, Outsider, Container, &[(5000, false)]);
    lab.locknet(&["--off"]).succeeded();
    check(&lab, Outsider, Container, &[(5000, true)]);
}

#[test]
fn rules_hold_beside_legacy_iptables_and_whatever_is_done_to_iptables() {
    let lab = lab();
    for table in ["nat", "filter"] {
        run(lab.command(Server, "iptables").args(["-t", table, "-F"])).succeeded();
    }
    run(lab.command(Server, "iptables").args(["-P", "FORWARD", "ACCEPT"])).succeeded();
    let dnat = "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination 172.30.0.4:5000\nCOMMIT\n";
    lab.docker_rules("iptables-legacy-restore", dnat);
    assert!(lab.reaches(Outsider, Server.v4(), PUBLISHED), "the legacy rules work");
    let [four, six] = peers();
    lab.locknet(&[&four, &six]).succeeded();
    let holds = || {
        assert!(lab.reaches(Peer, Server.v4(), PUBLISHED));
        assert!(!lab.reaches(Outsider, Server.v4(), PUBLISHED) && !lab.reaches(Outsider, Server.v4(), 2379));
        lab.locknet(&["--check"]).succeeded();
    };
    holds();
    // As dockerd does when it starts, and as people do.
    for program in ["iptables", "iptables-legacy"] {
        for words in [["-F", "FORWARD"], ["-F", "INPUT"], ["-I", "INPUT"], ["-I", "FORWARD"]] {
            let accept: &[&str] = if words[0] == "-I" { &["-j", "ACCEPT"] } else { &[] };
            run(lab.command(Server, program).args(words).args(accept)).succeeded();
        }
    }
    holds();
}

#[test]
fn a_bridge_that_leads_outside_is_no_way_around_the_rules() {
    let lab = lab();
    lab.ip(Server, "link add br0 type bridge");
    for words in [
        "addr flush dev eth0",
        "link set eth0 master br0",
        "link set br0 up",
        "addr add 10.99.0.1/24 dev br0",
        "route add default via 10.99.0.2 dev br0",
    ] {
        lab.ip(Server, words);
    }
    assert!(lab.reaches(Outsider, Server.v4(), 2379) && lab.reaches(Outsider, Server.v4(), PUBLISHED));
    let [four, six] = peers();
    lab.locknet(&[&four, &six]).succeeded();
    assert!(lab.reaches(Peer, Server.v4(), 2379) && lab.reaches(Peer, Server.v4(), PUBLISHED));
    assert!(!lab.reaches(Outsider, Server.v4(), 2379) && !lab.reaches(Outsider, Server.v4(), PUBLISHED));
    assert!(lab.reaches(Outsider, Server.v4(), 22));
}

#[test]
fn open_connections_and_the_machine_s_own_place_on_the_network_stay() {
    let lab = lab();
    let mut connection = lab.connection(Outsider, Server.v4(), 2379);
    let mut published = lab.connection(Outsider, Server.v6(), PUBLISHED);
    lab.locknet(&["192.0.2.1"]).succeeded();
    exchange(&mut connection);
    exchange(&mut published);
    // Neighbours forgotten on both sides have to be discovered again, by ARP and by ICMPv6.
    for host in [Server, Outsider] {
        lab.ip(host, "neigh flush all");
    }
    check(&lab, Outsider, Server, &[(22, true)]);
    // What the server begins is answered.
    lab.listen(Outsider, 443);
    assert!(lab.reaches(Server, Outsider.v4(), 443) && lab.reaches(Container, Outsider.v4(), 443));
}

/// Connects again and again to both ports until told to stop; how often it was refused and let in.
fn knock(lab: &Lab, from: Host, address: IpAddr, stop: &AtomicBool, counts: [&AtomicUsize; 2]) {
    lab.inside(from, || {
        while !stop.load(Ordering::Relaxed) {
            for port in [2379, PUBLISHED] {
                counts[usize::from(connect(address, port).is_some())].fetch_add(1, Ordering::Relaxed);
            }
        }
    });
}

#[test]
fn rules_change_under_traffic_without_a_gap_for_anybody() {
    let lab = lab();
    let [four, six] = peers();
    lab.locknet(&[&four, &six]).succeeded();
    let stop = AtomicBool::new(false);
    let [refused, let_in, kept_out, slipped_in] = [(); 4].map(|()| AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (lab, stop, insider, outsider) = (&lab, &stop, [&refused, &let_in], [&kept_out, &slipped_in]);
        for address in [Server.v4(), Server.v6()] {
            scope.spawn(move || knock(lab, Peer, address, stop, insider));
            // Each of its tries waits for an answer that does not come: many at once, to be there at the moment.
            for _ in 0..8 {
                scope.spawn(move || knock(lab, Outsider, address, stop, outsider));
            }
        }
        for round in 0..60 {
            let more = format!("10.98.{round}.0/24");
            lab.locknet(&[&four, &six, &more]).succeeded();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let counts = [refused, let_in, kept_out, slipped_in].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((counts[0], counts[3]), (0, 0), "{counts:?}");
    assert!(counts[1] > 100 && counts[2] > 50, "{counts:?}");
}

#[test]
fn ten_thousand_peers_are_applied_and_each_of_them_counts() {
    let lab = lab();
    let mut peers: Vec<String> =
        (0..10_000).map(|n| format!("10.{}.{}.{}", 100 + n / 5000, n / 20 % 250, n % 20 * 12)).collect();
    peers[7777] = Peer.v4().to_string();
    let words: Vec<&str> = peers.iter().map(String::as_str).collect();
    lab.locknet(&words).succeeded().said(&["10000 peers reach everything"]);
    assert!(lab.reaches(Peer, Server.v4(), 2379) && !lab.reaches(Outsider, Server.v4(), 2379));
    lab.locknet(&["--check"]).succeeded();
}

#[test]
fn bad_addresses_and_ports_are_named_all_at_once_and_nothing_changes() {
    let lab = lab();
    lab.locknet(&["192.0.2.1", "1.2.3", "0.0.0.0/0", "peer; drop", "--open", "80,http,0"]).ended(1).said(&[
        "`1.2.3` is no address",
        "`0.0.0.0/0` is everybody",
        "`peer; drop`",
        "`http` is no port",
        "`0` is no port",
    ]);
    assert!(lab.reaches(Outsider, Server.v4(), 2379));
    lab.locknet(&["--show"]).succeeded();
    lab.locknet(&[]).ended(2);
}

#[test]
fn a_dry_run_prints_what_nft_takes_and_changes_nothing() {
    let lab = lab();
    let rules = lab.locknet(&["192.0.2.1", "--dry-run"]).succeeded().text();
    assert!(rules.contains("elements = { 192.0.2.1 }"), "{rules}");
    assert!(lab.reaches(Outsider, Server.v4(), 2379));
    crate::harness::program::run_with(lab.command(Server, "nft").args(["-f", "-"]), rules.as_bytes()).succeeded();
    assert!(!lab.reaches(Outsider, Server.v4(), 2379));
}

#[test]
fn the_port_of_the_own_ssh_session_stays_open() {
    let lab = lab();
    let mut command = lab.locknet_command(&["192.0.2.1"]);
    run(command.env("SSH_CONNECTION", "10.99.0.3 51234 10.99.0.1 2379")).succeeded();
    assert!(lab.reaches(Outsider, Server.v4(), 2379) && !lab.reaches(Outsider, Server.v4(), 80));
    // sudo forgets the variable: then whoever started it has it.
    let mut shell = lab.command(Server, "sh");
    let quarry = env!("CARGO_BIN_EXE_quarry");
    shell
        .args(["-c", "env -u SSH_CONNECTION \"$0\" locknet --root \"$1\" 192.0.2.1; true", quarry])
        .arg(lab.root.path());
    run(shell.env("SSH_CONNECTION", "10.99.0.3 51234 10.99.0.1 80")).succeeded();
    assert!(lab.reaches(Outsider, Server.v4(), 80) && !lab.reaches(Outsider, Server.v4(), 2379));
}

#[test]
fn what_is_shown_is_what_was_asked_for() {
    let lab = lab();
    lab.locknet(&["192.0.2.1", "2001:db8::/64", "--open", "80,443/udp"]).succeeded();
    assert!(!lab.reaches(Outsider, Server.v4(), 2379));
    let shown = lab.locknet(&["--show", "--json"]).succeeded().json();
    assert_eq!(shown["standing"], "applied");
    assert_eq!(shown["policy"]["peers"], serde_json::json!(["192.0.2.1", "2001:db8::/64"]));
    assert_eq!(shown["policy"]["open"], serde_json::json!(["22", "80", "443/udp"]));
    assert!(shown["refused"].as_u64().unwrap() > 0, "{shown}");
}
