//! A server, a peer, an outsider and a container, each in a network namespace of its own.
//!
//! The first three are on one cable; the container hangs on a bridge of the server, and one of its ports is published
//! with the very rules docker 20.10 writes.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::program::{Done, Running, run, run_with};

/// How a host is called, with its last number in both families of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Server,
    Peer,
    Outsider,
    Container,
}

use Host::{Outsider, Peer, Server};

/// Where the server publishes the container's port 5000.
pub const PUBLISHED: u16 = 8080;

impl Host {
    fn number(self) -> u16 {
        match self {
            Self::Server => 1,
            Self::Peer => 2,
            Self::Outsider => 3,
            Self::Container => 4,
        }
    }

    pub fn v4(self) -> IpAddr {
        match self {
            Self::Container => IpAddr::from([172, 30, 0, 4]),
            Self::Server | Self::Peer | Self::Outsider => IpAddr::from([10, 99, 0, self.number() as u8]),
        }
    }

    pub fn v6(self) -> IpAddr {
        let network = if self == Self::Container { 0xfd98 } else { 0xfd99 };
        IpAddr::from([network, 0, 0, 0, 0, 0, 0, self.number()])
    }
}

/// The namespaces; they go with it.
pub struct Lab {
    prefix: String,
    pub root: tempfile::TempDir,
}

const SETUP: &str = "
link add br0 type bridge
link set br0 up
";

/// The rules dockerd 20.10 keeps for a bridge with one published port, and what it starts from.
const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {net} ! -o br-app -j MASQUERADE
-A DOCKER -i br-app -j RETURN
-A DOCKER ! -i br-app -p tcp -m tcp --dport 8080 -j DNAT --to-destination {to}:5000
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o br-app -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br-app -j DOCKER
-A FORWARD -i br-app ! -o br-app -j ACCEPT
-A FORWARD -i br-app -o br-app -j ACCEPT
-A DOCKER -d {container} ! -i br-app -o br-app -p tcp -m tcp --dport 5000 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
";

impl Lab {
    pub fn new() -> Self {
        sweep();
        let lab = Self { prefix: format!("qn{}-", std::process::id()), root: tempfile::tempdir().unwrap() };
        for name in ["cable", "server", "peer", "outsider", "container"] {
            ip(&["netns", "add", &lab.name(name)]);
            lab.ip_in(name, "link set lo up");
        }
        lab.batch("cable", SETUP);
        for host in [Server, Peer, Outsider] {
            lab.plug(host);
        }
        lab.batch("server", "link add br-app type bridge\nlink set br-app up");
        lab.batch("server", &format!("link add app type veth peer name eth0 netns {}", lab.name("container")));
        lab.batch(
            "server",
            "link set app master br-app up\naddr add 172.30.0.1/24 dev br-app\naddr add fd98::1/64 dev br-app nodad",
        );
        lab.batch(
            "container",
            "link set eth0 up\naddr add 172.30.0.4/24 dev eth0\naddr add fd98::4/64 dev eth0 nodad\n\
             route add default via 172.30.0.1\nroute add ::/0 via fd98::1",
        );
        lab.inside(Server, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        for (program, net, container, to) in [
            ("iptables-restore", "172.30.0.0/24", "172.30.0.4/32", "172.30.0.4"),
            ("ip6tables-restore", "fd98::/64", "fd98::4/128", "[fd98::4]"),
        ] {
            lab.docker_rules(
                program,
                &DOCKER.replace("{net}", net).replace("{container}", container).replace("{to}", to),
            );
        }
        lab
    }

    fn plug(&self, host: Host) {
        let (name, number) = (self.host(host), host.number());
        self.batch(
            "cable",
            &format!("link add p{number} type veth peer name eth0 netns {name}\nlink set p{number} master br0 up"),
        );
        let setup =
            format!("link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad", host.v4(), host.v6());
        run_with(Command::new("ip").args(["-n", &name, "-batch", "-"]), setup.as_bytes()).succeeded();
    }

    pub fn docker_rules(&self, program: &str, rules: &str) {
        run_with(self.command(Server, program).arg("--noflush"), rules.as_bytes()).succeeded();
    }

    fn name(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    fn host(&self, host: Host) -> String {
        self.name(&format!("{host:?}").to_lowercase())
    }

    fn ip_in(&self, short: &str, words: &str) {
        let name = self.name(short);
        ip(&[&["-n", &name], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    }

    fn batch(&self, short: &str, lines: &str) {
        run_with(Command::new("ip").args(["-n", &self.name(short), "-batch", "-"]), lines.as_bytes()).succeeded();
    }

    /// `ip` with these words, in the host's namespace.
    pub fn ip(&self, host: Host, words: &str) {
        self.ip_in(&format!("{host:?}").to_lowercase(), words);
    }

    /// A program on that host.
    pub fn command(&self, host: Host, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host)]).arg(program);
        command
    }

    /// `quarry locknet` on the server.
    pub fn locknet_command(&self, words: &[&str]) -> Command {
        let mut command = self.command(Server, env!("CARGO_BIN_EXE_quarry"));
        command.args(["locknet", "--root"]).arg(self.root.path()).args(words);
        command.env_remove("SSH_CONNECTION").env("QUARRY_LOG", "off");
        command
    }

    pub fn locknet(&self, words: &[&str]) -> Done {
        run(&mut self.locknet_command(words))
    }

    pub fn locknet_beside(&self, words: &[&str]) -> Running {
        Running::start(&mut self.locknet_command(words))
    }

    /// A whole policy.
    pub fn policy(&self, policy: &serde_json::Value) -> Done {
        run_with(&mut self.locknet_command(&["--policy", "-"]), policy.to_string().as_bytes())
    }

    /// Does something with that host's network.
    pub fn inside<T: Send>(&self, host: Host, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(self.host(host))).unwrap();
        let work = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// Answers everybody at this port of a host, in both families, with the caller's address, until the test ends.
    pub fn listen(&self, host: Host, port: u16) {
        for address in [SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([0_u16; 8], port))] {
            let bind = move || {
                let socket = rustix::net::socket(
                    if address.is_ipv4() {
                        rustix::net::AddressFamily::INET
                    } else {
                        rustix::net::AddressFamily::INET6
                    },
                    rustix::net::SocketType::STREAM,
                    None,
                )
                .unwrap();
                rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
                if address.is_ipv6() {
                    rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
                }
                rustix::net::bind(&socket, &address).unwrap();
                rustix::net::listen(&socket, 1024).unwrap();
                TcpListener::from(socket)
            };
            let listener = self.inside(host, bind);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    thread::spawn(move || answer(stream.unwrap()));
                }
            });
        }
    }

    /// What comes of connecting to that address.
    pub fn reaches(&self, from: Host, address: IpAddr, port: u16) -> bool {
        self.inside(from, || connect(address, port).is_some())
    }

    /// A connection that stays.
    pub fn connection(&self, from: Host, address: IpAddr, port: u16) -> TcpStream {
        self.inside(from, || connect(address, port))
            .unwrap_or_else(|| panic!("{from:?} does not reach {address} {port}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(|name| name.starts_with(&self.prefix));
    }
}

fn ip(words: &[&str]) {
    run(Command::new("ip").args(words)).succeeded();
}

/// A refused packet is a silence; after a second it would be sent again, and rules may have changed by then.
const SILENCE: Duration = Duration::from_millis(950);

/// A connection over which the other end has answered.
pub fn connect(address: IpAddr, port: u16) -> Option<TcpStream> {
    let mut stream = match TcpStream::connect_timeout(&(address, port).into(), SILENCE) {
        Ok(stream) => stream,
        Err(error) => {
            let silent = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
            assert!(silent, "{address} {port} answers with a refusal: {error}");
            return None;
        }
    };
    exchange(&mut stream);
    Some(stream)
}

/// One byte there and back.
pub fn exchange(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"?").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"?");
}

fn answer(mut stream: TcpStream) {
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            return;
        }
    }
}

/// What tests that were killed have left.
fn sweep() {
    remove(|name| {
        let pid =
            name.strip_prefix("qn").and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}

fn remove(is_ours: impl Fn(&str) -> bool) {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_ours(&name) {
            // Another test may be sweeping too.
            let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}
