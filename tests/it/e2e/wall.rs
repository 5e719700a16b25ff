//! What a container reaches where there are several servers: its own stack, its services wherever they are, and what is
//! public; nothing else of any server.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use super::app;
use super::servers::{fleet, web};
use super::services::mongo;
use crate::harness::lab::{Lab, Server};
use crate::harness::program::run;
use crate::harness::{Hq, until};

/// Says of each address, from inside a container of the stack, whether a connection comes about.
#[track_caller]
fn check(hq: &Hq, stack: &str, expected: &[(&str, bool)]) {
    let script = "use IO::Socket::INET; \
                  print $_, IO::Socket::INET->new(PeerAddr => $_, Timeout => 5) ? ' 1' : ' 0', qq{\\n} for @ARGV";
    let addresses: Vec<&str> = expected.iter().map(|(address, _)| *address).collect();
    let words = [&["run", stack, "perl", "-e", script][..], &addresses].concat();
    let said = hq.quarry(&words).succeeded().text();
    let wanted: String =
        expected.iter().map(|(address, reached)| format!("{address} {}\n", u8::from(*reached))).collect();
    assert_eq!(said, wanted, "from {stack}");
}

/// Where the container of a stack on this server is published.
fn published(hq: &Hq, stack: &str, server: &str) -> String {
    let rows = hq.quarry(&["ps", stack, "--json"]).succeeded().json();
    let row = rows.as_array().unwrap().iter().find(|row| row["server"] == server && row["node"] == "web");
    row.unwrap()["address"].as_str().unwrap().to_owned()
}

/// Somebody listens on the server, as its engine might.
fn listen(server: Server<'_>, port: u16) {
    let script = format!(
        "setsid perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 9, LocalPort => {port}); \
         $s->accept while 1' >/dev/null 2>&1 </dev/null &"
    );
    server.ssh(&["sh", "-c", &script]).succeeded();
    let asks = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    until("the listener", || (server.ssh(&["bash", "-c", &asks]).code == 0).then_some(()));
}

fn ways(hq: &Hq, server: Server<'_>) -> String {
    server.ssh(&["nft", "list", "set", "inet", &format!("quarry_hq_{}", hq.id()), "ways"]).succeeded().text()
}

/// Ends at once when the service is not there for its first packet.
const AT_ONCE: &str = "mongo:
  type: service
  container: quarry-test/mongo:1
  filter: s1
web:
  dockerfile: Dockerfile
  run: >-
    perl -MIO::Socket::INET -e '$at = join q(:), map $ENV{\"MONGO_PORT_27017_TCP_$_\"}, qw(ADDR PORT);
    IO::Socket::INET->new(PeerAddr => $at, Timeout => 3) or die \"no mongo at $at: $!\"' && exec perl app.pl
  expose: 8080
  link: mongo
  filter: s2
  health: /
";

#[test]
fn a_container_reaches_its_own_stack_on_every_server_and_nothing_of_others() {
    mongo();
    let lab = Lab::with_etcd(3, 1);
    let hq = fleet(&lab, 2);
    let (one, two, stranger) = (lab.server(1), lab.server(2), lab.server(3));
    for server in [one, two] {
        listen(server, 2375);
    }
    let listener = TcpListener::bind(format!("10.77.{}.1:0", lab.id())).unwrap();
    let on_hq = listener.local_addr().unwrap().to_string();
    hq.push(&web("  scale: 2\n"), "shop").succeeded();
    hq.push(&app(&[("quarry.yml", AT_ONCE)]), "blog").succeeded();
    assert_eq!(hq.get("blog.localhost", "/").status, 200);

    let variable = |name: &str| hq.page("blog.localhost", &format!("/env/MONGO_PORT_27017_TCP_{name}"));
    let service = format!("{}:{}", variable("ADDR"), variable("PORT"));
    assert!(service.starts_with(&one.ip().to_string()), "{service} is not on s1");
    let shop = |server: &str| published(&hq, "shop", server);
    let inside = two.ssh(&["docker", "ps", "-q", "--filter", "label=quarry.stack=shop"]).succeeded().text();
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}:8080{{end}}";
    let inside = two.ssh(&["docker", "inspect", "--format", format, inside.trim()]).succeeded().text();
    let at = |server: Server<'_>, port: u16| format!("{}:{port}", server.ip());
    let public = at(stranger, 22);
    check(
        &hq,
        "blog",
        &[
            ("web:8080", true),
            (&service, true),
            (&public, true),
            (&shop("s1"), false),
            (&shop("s2"), false),
            (inside.trim(), false),
            (&at(one, 2375), false),
            (&at(two, 2375), false),
            (&at(one, 2379), false),
            (&at(one, 22), false),
            (&at(two, 22), false),
            (&on_hq, false),
        ],
    );
    // Another stack, on both servers, reaches neither the service nor what its own server has for itself.
    hq.quarry(&["scale", "shop", "web=1"]).succeeded();
    check(&hq, "shop", &[("web:8080", true), (&service, false), (&at(one, 2379), false), (&at(two, 2375), false)]);
    // On HQ's own server they are kept in as well.
    hq.quarry(&["servers", "resume", "hq"]).succeeded();
    hq.push(&web("  filter: hq\n"), "home").succeeded();
    check(&hq, "home", &[("web:8080", true), (&service, false), (&at(one, 2379), false), (&public, true)]);

    // Where the engine gives addresses of IPv6, ours are without: nothing leads around the wall.
    assert_eq!(hq.quarry(&["run", "blog", "sh", "-c", "cat /proc/net/if_inet6 | grep -v lo"]).text(), "");
    assert!(ways(&hq, two).contains(&one.ip().to_string()), "{}", ways(&hq, two));
    hq.quarry(&["destroy", "blog", "--force"]).succeeded();
    until("the way of a stack that is gone to be closed", || (!ways(&hq, two).contains("elements")).then_some(()));
}

/// HQ on a server of a lab, where it is the main one of its machine.
struct Main<'lab> {
    server: Server<'lab>,
}

impl<'lab> Main<'lab> {
    fn start(lab: &'lab Lab, server: Server<'lab>) -> Self {
        let key = lab.folder().join("key").display().to_string();
        let options = ["-q", "-i", &key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
        for (from, to) in [(env!("CARGO_BIN_EXE_quarry"), "/usr/local/bin/quarry"), (&key, "/root/key")] {
            let to = format!("root@{}:{to}", server.ip());
            run(Command::new("scp").args(options).args([from, &to])).succeeded();
        }
        let main = Self { server };
        main.serve();
        main
    }

    fn serve(&self) {
        self.shell("cd /; setsid quarry serve >>/var/log/quarry 2>&1 </dev/null & echo $! >/run/hq.pid");
        until("HQ on the server to answer", || (self.server.ssh(&["quarry", "servers"]).code == 0).then_some(()));
    }

    #[track_caller]
    fn shell(&self, script: &str) -> String {
        self.server.ssh(&["sh", "-c", script]).succeeded().text()
    }

    /// Waits until `network show` says this of HQ's own server, and that nothing is amiss.
    #[track_caller]
    fn wait_for(&self, rules: &str) {
        until(&format!("the rules of HQ's own server are {rules}"), || {
            let rows = self.server.ssh(&["quarry", "network", "show", "--json"]).succeeded().json();
            let row = rows.as_array().unwrap().iter().find(|row| row["server"] == "hq").cloned()?;
            let is_well = row["presence"] == "up" && row["trouble"].as_array().unwrap().is_empty();
            (is_well && row["rules"] == rules).then_some(())
        });
    }

    fn agent(&self) -> String {
        self.shell("cat /var/lib/quarry-agent/lock").trim().to_owned()
    }
}

#[test]
fn hqs_own_machine_is_looked_after_like_all_others() {
    let lab = Lab::up(2);
    let (one, two) = (lab.server(1), lab.server(2));
    let main = Main::start(&lab, one);
    main.wait_for("off");
    main.shell("printf 'one\\n' | quarry config write /etc/app/app.conf");
    assert_eq!(main.shell("cat /etc/app/app.conf"), "one\n");
    main.shell(&format!("quarry servers add root@{} </root/key", two.ip()));
    until("the servers in the hosts file of HQ's", || {
        let hosts = main.shell("cat /etc/hosts");
        (hosts.contains(&format!("{}\ts2", two.ip())) && hosts.contains(&format!("{}\thq", one.ip()))).then_some(())
    });

    // Until somebody says so it is open: nobody knows what else the machine is there for.
    listen(one, 7000);
    let stranger = || std::net::TcpStream::connect_timeout(&(one.ip(), 7000).into(), Duration::from_secs(2)).is_ok();
    assert!(stranger());
    main.shell("quarry network apply");
    main.wait_for("applied");
    assert!(!stranger());
    for port in [22, 80, 2222] {
        std::net::TcpStream::connect_timeout(&(one.ip(), port).into(), Duration::from_secs(2)).unwrap();
    }
    let asks = format!("exec 3<>/dev/tcp/{}/7000", one.ip());
    two.ssh(&["bash", "-c", &asks]).succeeded();

    // The agent outlives HQ, and HQ brings it back.
    let first = main.agent();
    main.shell("kill -KILL $(cat /run/hq.pid)");
    assert_eq!(main.shell(&format!("readlink /proc/{first}/exe")), "/usr/local/lib/quarry/quarry\n");
    assert!(!stranger());
    main.serve();
    main.wait_for("applied");
    assert_eq!(main.agent(), first);
    main.shell(&format!("kill -KILL {first}"));
    until("another agent", || (main.agent() != first).then_some(()));
    main.wait_for("applied");
    main.shell("quarry network off");
    main.wait_for("off");
    assert!(stranger());
}

#[test]
fn what_a_push_runs_while_its_image_is_built_reaches_no_other_server() {
    mongo();
    let lab = Lab::up(1);
    let hq = fleet(&lab, 1);
    let one = lab.server(1);
    hq.push(&web("  filter: s1\n"), "shop").succeeded();
    let (shop, sshd) = (published(&hq, "shop", "s1"), format!("{}:22", one.ip()));
    let dockerfile = format!(
        "FROM debian:bookworm-slim\nRUN perl -MIO::Socket::INET -e 'print qq{{$_ }}, \
         (IO::Socket::INET->new(PeerAddr => $_, Timeout => 5) ? q{{open}} : q{{shut}}), qq{{\\n}} for @ARGV' {shop} {sshd}\n"
    );
    let spy = app(&[
        ("quarry.yml", "web:\n  dockerfile: Dockerfile\n  run: perl app.pl\n  expose: 8080\n"),
        ("Dockerfile", &dockerfile),
    ]);
    let pushed = hq.push(&spy, "spy").stderr;
    for address in [&shop, &sshd] {
        assert!(pushed.contains(&format!("{address} shut")), "{pushed}");
    }
}
