//! What a container, and what runs while an image is built, reaches: its own stack and what is public. Not what other
//! stacks publish on the server, nor anything of the server's own, nor where its cloud tells it its secrets.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::app;
use crate::harness::program::run;
use crate::harness::{Hq, docker, until};

/// Perl that prints of each address whether a connection comes about.
const ASK: &str = "use IO::Socket::INET; print qq{asked $_ }, \
                   (IO::Socket::INET->new(PeerAddr => $_, Timeout => 5) ? q{open} : q{shut}), qq{\\n} for @ARGV";

/// What was said of each address, wherever it was asked.
#[track_caller]
fn check(from: &str, said: &str, expected: &[(&str, &str)]) {
    for (address, answer) in expected {
        assert!(said.contains(&format!("asked {address} {answer}")), "from {from}, {address} is not {answer}:\n{said}");
    }
}

/// Somewhere outside of the server that only its own link leads to, as a cloud's service for its machines is.
struct Cloud {
    namespace: String,
    listener: Child,
}

impl Cloud {
    /// Below 169.254.77.0, which no cloud uses.
    const PLACE: &str = "169.254.77.2:80";

    fn start() -> Self {
        let namespace = format!("quarry-cloud-{}", std::process::id());
        let ip = |words: &str| run(Command::new("ip").args(words.split(' '))).succeeded();
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add qcloud0 type veth peer name qcloud1 netns {namespace}"));
        ip("addr add 169.254.77.1/30 dev qcloud0");
        ip("link set qcloud0 up");
        for words in ["addr add 169.254.77.2/30 dev qcloud1", "link set qcloud1 up", "link set lo up"] {
            ip(&format!("-n {namespace} {words}"));
        }
        ip(&format!("-n {namespace} route add default via 169.254.77.1"));
        let script = "use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 9, LocalPort => 80, ReuseAddr => 1); \
                      $s->accept while 1";
        let mut command = Command::new("ip");
        let listener = command.args(["netns", "exec", &namespace, "perl", "-e", script]).stdout(Stdio::null()).spawn();
        let cloud = Self { namespace, listener: listener.unwrap() };
        until("the cloud's service", || std::net::TcpStream::connect(Self::PLACE).ok());
        cloud
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        // Its end of the pair goes with it, and ours with that.
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

/// The server's own address on docker's bridge. Docker itself names it only from its second start on a machine on.
fn bridge() -> IpAddr {
    let shown = run(Command::new("ip").args(["-4", "-json", "address", "show", "dev", "docker0"])).succeeded().json();
    shown[0]["addr_info"][0]["local"].as_str().unwrap().parse().unwrap()
}

/// Where a stack's container is published, and where it is itself.
fn places(hq: &Hq, stack: &str) -> [String; 2] {
    let ps = hq.quarry(&["ps", stack, "--json"]).succeeded().json();
    let published = ps[0]["address"].as_str().unwrap().to_owned();
    let name = hq.containers(&[&format!("stack={stack}")]).remove(0);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}:8080{{end}}";
    [published, docker::docker(&["inspect", "--format", format, &name]).succeeded().text().trim().to_owned()]
}

#[test]
fn nothing_a_pusher_runs_reaches_another_stack_the_server_or_its_cloud() {
    // What HQ, its agent and an etcd are to it: programs of the server that listen everywhere.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let own = SocketAddr::new(bridge(), listener.local_addr().unwrap().port()).to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let cloud = Cloud::start();
    let hq = Hq::start();
    hq.push(&app(&[]), "shop").succeeded();
    let [published, inside] = places(&hq, "shop");
    let metadata = "169.254.169.254:80";
    let asked = [&published, &inside, &own, Cloud::PLACE, metadata];
    let expected: Vec<(&str, &str)> = asked.iter().map(|address| (*address, "shut")).collect();

    // A container of a stack, a release command, and a one-off command.
    let yml = format!(
        "web:\n  health: /\n  release:\n    - perl\n    - -e\n    - '{ASK}'\n{}",
        asked.iter().map(|address| format!("    - '{address}'\n")).collect::<String>()
    );
    let pushed = hq.push(&app(&[("quarry.yml", &yml)]), "blog").succeeded().stderr;
    check("a release command", &pushed, &expected);
    let words = [&["run", "blog", "perl", "-e", ASK, "web:8080"][..], &asked].concat();
    let said = hq.quarry(&words).succeeded().text();
    check("a one-off command", &said, &[&expected[..], &[("web:8080", "open")]].concat());
    assert_eq!(hq.page("shop.localhost", "/"), "Hello from release 1\n", "the router still reaches it");

    // Builds, by the classic builder and by BuildKit.
    for (stack, flags) in [("classic", ""), ("kit", "--mount=type=tmpfs,target=/scratch ")] {
        let script = ASK.replace('$', "\\$");
        let dockerfile = format!(
            "FROM debian:bookworm-slim\nRUN {flags}perl -e \"{}\" {}\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\n\
             CMD exec perl app.pl\n",
            script.replace('"', "\\\""),
            asked.join(" ")
        );
        let pushed = hq.push(&app(&[("Dockerfile", &dockerfile)]), stack).succeeded().stderr;
        check(&format!("a build by {stack}"), &pushed, &expected);
    }
    drop(cloud);
}

#[test]
fn builds_reach_the_ports_of_the_server_that_its_owner_lends_them() {
    let hq = Hq::start_with(&[("build/ports", "3128\n")]);
    // Looked at and not tried: the walls of other HQs that tests have on this machine stand in the way as well.
    let table = format!("quarry_hq_{}", hq.id());
    let rules = run(Command::new("nft").args(["list", "chain", "inet", &table, "input"])).succeeded().text();
    assert!(rules.contains("iifname \"docker0\" tcp dport 3128 accept"), "{rules}");
}
