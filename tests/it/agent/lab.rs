//! Agents on real servers, installed over SSH.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quarry::agent::config::Contents;
use quarry::agent::files::FOLDER;
use quarry::agent::http::{Client, Way};
use quarry::agent::ssh::{Came, Program, Routes, install};
use quarry::agent::vitals::Docker;
use quarry::agent::{Agent, AgentError, Config, Routing};
use quarry::embassy::{Endpoint, Exposed, Health, Sources, Table};
use quarry::network::act::Standing;
use quarry::network::hosts::Entries;
use quarry::network::wall::Wall;
use quarry::servers::ssh::{Line, State};
use quarry::units::port::Port;
use quarry::units::{Balance, Millis};
use tokio::time::timeout;

use super::{config, contract, policy, table, turn, vitals};
use crate::harness::lab::{Lab, Server};
use crate::harness::wait::{PATIENCE, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quarry");

/// A server with its line and its agent.
struct Site<'lab> {
    server: Server<'lab>,
    line: Arc<Line>,
    agent: Client,
}

impl<'lab> Site<'lab> {
    async fn new(server: Server<'lab>, program: &Program) -> Self {
        let line = Arc::new(server.line());
        assert_eq!(install(&line, program, FOLDER, Routes::Yes).await.unwrap(), Came::Started);
        let agent = Client::new(Way::Line(line.clone()), Path::new(FOLDER));
        Self { server, line, agent }
    }

    fn pid(&self) -> String {
        self.shell(&format!("cat {FOLDER}/lock")).trim().to_owned()
    }

    fn shell(&self, script: &str) -> String {
        self.server.ssh(&["sh", "-c", script]).succeeded().text()
    }

    /// Whether a connection to a port of this server comes about.
    fn reaches(&self, address: &str, port: u16) -> bool {
        let script = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port} && read -t 2 line <&3'");
        self.server.ssh(&["sh", "-c", &script]).code == 0
    }

    fn hosts(&self) -> String {
        self.shell("cat /etc/hosts")
    }

    /// Waits until HQ is connected.
    async fn up(&self) {
        let mut state = self.line.state();
        let seen = timeout(PATIENCE, state.wait_for(|state| *state == State::Up)).await;
        assert!(seen.is_ok(), "still {:?}", *self.line.state().borrow());
    }
}

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().map(|(address, name)| (address.parse().unwrap(), [name.parse().unwrap()].into())).collect()
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<quarry::network::config::ConfigPath, Contents> {
    pairs.iter().map(|(path, text)| (path.parse().unwrap(), Contents(text.as_bytes().to_vec()))).collect()
}

#[tokio::test]
async fn an_agent_over_ssh_keeps_the_promises_and_is_upgraded_in_place() {
    let lab = Lab::up(1);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let site = Site::new(lab.server(1), &program).await;
    let hq = format!("10.77.{}.1", lab.id());
    contract(&site.agent, &[&hq], format!("{}:80", site.server.ip()).parse().unwrap()).await;

    assert_eq!(install(&site.line, &program, FOLDER, Routes::No).await.unwrap(), Came::Runs);
    let pid = site.pid();
    let other = longer(&program, &lab.folder()).await;
    assert_eq!(install(&site.line, &other, FOLDER, Routes::No).await.unwrap(), Came::Changed);
    assert_eq!(site.pid(), pid, "it goes on under its process id");
    let told = vitals(&site.agent, "the new program", |vitals| vitals.program == other.digest()).await;
    assert_eq!(told.config.unwrap().turn, turn(11), "and with what it knew");
    let stale = site.agent.configure(&config(2)).await;
    assert_eq!(stale, Err(AgentError::Stale { held: turn(11) }));
}

/// Somebody on the server who has a connection through its embassy, and goes on with it once told to.
const VISITOR: &str = r#"
exec 3<>/dev/tcp/10.9.9.9/4000
read -r -t 10 first <&3
echo "$first" > /tmp/first
until [ -e /tmp/go ]; do sleep 0.05; done
printf "SSH-2.0-visitor\r\n" >&3
timeout 10 head -c 20 <&3 | wc -c > /tmp/second
"#;

#[tokio::test]
async fn who_is_in_the_embassy_stays_when_the_agent_is_another_program() {
    let lab = Lab::up(1);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let site = Site::new(lab.server(1), &program).await;
    let wanted = Config { embassy: Some("10.9.9.9".parse().unwrap()), ..config(1) };
    let applied = site.agent.configure(&wanted).await.unwrap();
    assert!(applied.failed.is_empty(), "{applied:?}");
    // The server's own sshd speaks first, and then says more only to who has spoken.
    let sshd = Endpoint {
        address: std::net::SocketAddr::from((site.server.ip(), 22)),
        container: "blog.db.1.1".parse().unwrap(),
        health: Health::Healthy,
    };
    let exposed = Exposed {
        port: Port::tcp(4000),
        endpoints: vec![sshd],
        balance: Balance::default(),
        from: Sources::Anywhere,
        drain: Millis::seconds(1),
        connect: Millis::seconds(5),
    };
    site.agent.expose(turn(1), &Table { ports: vec![exposed] }).await.unwrap();
    let open = async || site.agent.ports().await.unwrap()[0].endpoints[0].open;
    assert_eq!(open().await, 0);
    site.shell(&format!("setsid bash -c '{}' >/dev/null 2>&1 </dev/null &", VISITOR));
    // Nothing as long as the visitor has not written it.
    let file = |name: &str| site.shell(&format!("cat /tmp/{name} 2>/dev/null || true")).trim().to_owned();
    until("the visitor to be greeted", || file("first").starts_with("SSH-2.0-").then_some(()));
    assert_eq!(open().await, 1);

    let other = longer(&program, &lab.folder()).await;
    assert_eq!(install(&site.line, &other, FOLDER, Routes::No).await.unwrap(), Came::Changed);
    vitals(&site.agent, "the new program", |vitals| vitals.program == other.digest()).await;
    site.shell("touch /tmp/go");
    until("the visitor to be answered", || (file("second") == "20").then_some(()));
}

/// Another program, as far as anybody can tell: the same with a byte behind it.
async fn longer(program: &Program, folder: &Path) -> Program {
    let other = folder.join("quarry");
    std::fs::copy(program.path(), &other).unwrap();
    let mut bytes = std::fs::OpenOptions::new().append(true).open(&other).unwrap();
    std::io::Write::write_all(&mut bytes, b"\n").unwrap();
    drop(bytes);
    Program::at(&other).await.unwrap()
}

/// What the server's router answers for a domain; nothing when there is none.
fn answer(server: Server<'_>, domain: &str) -> Option<String> {
    use std::io::{Read, Write};
    let address = std::net::SocketAddr::from((server.ip(), 80));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    write!(stream, "GET / HTTP/1.0\r\nHost: {domain}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split(' ').nth(1).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hq_wanted_outlives_the_agent_hq_and_the_power() {
    let lab = Lab::up(1);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let site = Site::new(lab.server(1), &program).await;
    let server = site.server;
    let hq = format!("10.77.{}.1", lab.id());
    let wanted = Config {
        hosts: entries(&[("10.1.2.3", "db7")]),
        files: files(&[("/etc/app/settings", "one\n")]),
        locknet: Some(policy(&[&hq], &[80])),
        wall: Some(Wall {
            hq: "test".to_owned(),
            subnets: "10.208.0.0/12".to_owned(),
            open: [80].into(),
            ..Wall::default()
        }),
        router: Some(vec!["0.0.0.0:80".parse().unwrap()]),
        ..config(1)
    };
    let applied = site.agent.configure(&wanted).await.unwrap();
    assert!(applied.failed.is_empty(), "{applied:?}");
    site.agent.confirm(&applied.trial.unwrap()).await.unwrap();
    // Nobody listens at the address: a domain that is routed answers 502, any other 404.
    site.agent.route(turn(1), &Routing::Set(table("blog", "blog.test", "127.0.0.1:9".parse().unwrap()))).await.unwrap();
    assert_eq!(answer(server, "blog.test").as_deref(), Some("502"));
    assert_eq!(answer(server, "shop.test").as_deref(), Some("404"));

    let stands = || {
        let tables = site.shell("nft list tables inet");
        let file = site.shell("cat /etc/app/settings 2>/dev/null || true");
        let is_locknet = |line: &str| line.starts_with("table inet quarry_") && !line.contains("quarry_hq");
        tables.lines().any(is_locknet)
            && tables.contains("quarry_hq_test")
            && site.hosts().contains("10.1.2.3\tdb7")
            && file == "one\n"
            && answer(server, "blog.test").as_deref() == Some("502")
    };
    assert!(stands());
    site.shell(&format!("kill -KILL {}", site.pid()));
    assert!(site.agent.tables().await.is_err(), "the agent is gone");
    assert!(stands(), "all it has done is there without it");
    // A hand that tidies up while nobody looks.
    site.shell("echo 127.0.0.1 localhost > /etc/hosts; rm -r /etc/app");
    assert_eq!(install(&site.line, &program, FOLDER, Routes::Yes).await.unwrap(), Came::Started);
    until("what was taken away is back", || stands().then_some(()));

    server.poweroff();
    server.poweron();
    until("all of it is back after a reboot, with nobody there", || stands().then_some(()));
    site.up().await;
    let told = vitals(&site.agent, "the rules of before", |vitals| vitals.locknet == Some(Standing::Applied)).await;
    assert_eq!(told.config.unwrap().turn, turn(1));
    assert_eq!(site.agent.configure(&config(0)).await, Err(AgentError::Stale { held: turn(1) }));
    site.agent.configure(&config(2)).await.unwrap();
    assert!(!site.hosts().contains("db7") && answer(server, "blog.test").is_none());
    assert!(site.shell("nft list tables inet").is_empty());
}

/// A container that greets whoever connects, on both families of addresses.
const GREETER: &str = "docker run -d --name greeter -p 5000:5000 debian:bookworm-slim perl -MIO::Socket::INET -e \
    'my $s = IO::Socket::INET->new(Listen => 9, LocalPort => 5000, ReuseAddr => 1); \
     while (my $c = $s->accept) { print $c \"hello\\n\"; close $c }'";

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_refuse_strangers_and_change_together() {
    let lab = Lab::up(3);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let servers = [1, 2, 3].map(|number| lab.server(number));
    let sites = futures_util::future::join_all(servers.map(|server| Site::new(server, &program))).await;
    let [first, friend, stranger] = &sites[..] else { panic!("three were asked for") };
    for (number, site) in sites.iter().enumerate() {
        site.shell(&format!("ip address add fd77::{}/64 dev eth0 nodad", number + 1));
    }
    first.shell(GREETER);
    let four = first.server.ip().to_string();
    let ways = [four.as_str(), "fd77::1"];
    for address in ways {
        until("the container greets everybody", || stranger.reaches(address, 5000).then_some(()));
    }
    let hq = format!("10.77.{}.1", lab.id());
    let peer = friend.server.ip().to_string();
    let locked = |generation, peers: &[&str]| Config { locknet: Some(policy(peers, &[80])), ..config(generation) };
    let trial = first.agent.configure(&locked(1, &[&hq, &peer, "fd77::2"])).await.unwrap().trial.unwrap();
    first.agent.confirm(&trial).await.unwrap();
    for address in ways {
        assert!(friend.reaches(address, 5000), "a peer comes to {address}");
        assert!(!stranger.reaches(address, 5000), "a stranger comes to {address}");
    }
    assert!(stranger.reaches(&four, 22), "ssh is for everybody");
    let told = vitals(&first.agent, "the container", |vitals| matches!(vitals.docker, Docker::Answers(_))).await;
    assert_eq!(told.docker, Docker::Answers(Vec::new()), "it is not one of HQ's");

    // Rules that HQ does not confirm give way by themselves.
    first.agent.configure(&locked(2, &[&hq])).await.unwrap().trial.unwrap();
    assert!(!friend.reaches(&four, 5000));
    until("the peer is let in again", || friend.reaches(&four, 5000).then_some(()));
    assert!(!stranger.reaches(&four, 5000));
    vitals(&first.agent, "the rules of before", |vitals| vitals.locknet == Some(Standing::Applied)).await;

    let written = |generation, text: &str| Config {
        files: files(&[("/etc/app.conf", text)]),
        router: Some(vec!["0.0.0.0:80".parse().unwrap()]),
        ..config(generation)
    };
    let all = |config: Config| {
        let sites = &sites;
        async move {
            let told = sites.iter().map(|site| site.agent.configure(&config));
            for applied in futures_util::future::join_all(told).await {
                let applied = applied.unwrap();
                assert!(applied.failed.is_empty(), "{applied:?}");
            }
        }
    };
    all(written(3, "one\n")).await;
    let began = Instant::now();
    all(written(4, "two\n")).await;
    let took = began.elapsed();
    eprintln!("a config file on three servers: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    for site in &sites {
        assert_eq!(site.shell("cat /etc/app.conf"), "two\n");
    }
    let began = Instant::now();
    let routing = Routing::Set(table("blog", "blog.test", "127.0.0.1:9".parse().unwrap()));
    let told = sites.iter().map(|site| site.agent.route(turn(1), &routing));
    for routed in futures_util::future::join_all(told).await {
        routed.unwrap();
    }
    let took = began.elapsed();
    eprintln!("a table on three routers: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    for site in &sites {
        assert_eq!(answer(site.server, "blog.test").as_deref(), Some("502"));
    }
    all(config(5)).await;
}

/// Stands for systemd: notes what it is told, and starts the service as its file says.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/told
unit=/etc/systemd/system/quarry-agent.service
case "$1" in
    restart) setsid $(sed -n s/^ExecStart=//p $unit) >>/run/agent.log 2>&1 </dev/null & ;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn with_systemd_the_agent_is_a_service_whose_end_ends_nothing_else_and_whose_rules_precede_docker() {
    let lab = Lab::up(1);
    let program = Program::at(Path::new(PROGRAM)).await.unwrap();
    let server = lab.server(1);
    let shell = |script: &str| server.ssh(&["sh", "-c", script]).succeeded().text();
    shell(&format!(
        "mkdir -p /run/systemd/system /usr/local/bin; cat >/usr/local/bin/systemctl <<'END'\n{SYSTEMCTL}END\n\
         chmod 755 /usr/local/bin/systemctl"
    ));
    let line = Arc::new(server.line());
    assert_eq!(install(&line, &program, FOLDER, Routes::Yes).await.unwrap(), Came::Started);
    assert_eq!(install(&line, &program, FOLDER, Routes::Yes).await.unwrap(), Came::Runs);
    let told = shell("cat /run/told");
    assert_eq!(told.matches("restart quarry-agent.service").count(), 1, "{told}");
    assert!(told.contains("daemon-reload") && told.contains("enable -q quarry-agent.service"), "{told}");
    let unit = shell("cat /etc/systemd/system/quarry-agent.service");
    for line in ["KillMode=process", "Slice=quarry-agent.slice", "Before=docker.service", "Restart=always"] {
        assert!(unit.lines().any(|own| own == line), "{line} is not in\n{unit}");
    }
    // Docker is none that the verifier finds here.
    let verified =
        server.ssh(&["sh", "-c", "systemd-analyze verify /etc/systemd/system/quarry-agent.service 2>&1; true"]);
    assert!(!verified.text().contains("quarry-agent.service:"), "{}", verified.text());
    assert!(server.ssh(&["test", "-e", "/etc/quarry/boot"]).code != 0, "systemd starts it, nobody else");
    // Where systemd cannot be asked for a scope, the router serves all the same.
    let agent = Client::new(Way::Line(line.clone()), Path::new(FOLDER));
    let applied = agent.configure(&Config { router: Some(vec!["0.0.0.0:80".parse().unwrap()]), ..config(1) }).await;
    assert_eq!(applied.unwrap().failed, BTreeMap::new());
    assert_eq!(answer(server, "shop.test").as_deref(), Some("404"));
}
