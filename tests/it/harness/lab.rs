//! Several servers on this machine, as `bin/lab` makes them: real addresses, sshd and dockerd, to be cut and killed.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use quarry::servers::ssh::{Address, HostKey, KeyPair, Line, Login, quote};

use super::program::{Done, Running, run};

/// A lab of the test's own. It goes when it is dropped, or, after a test that was killed, when the next lab is made.
pub struct Lab {
    id: String,
}

/// The first one on a machine makes a Debian of packages.
const TAKING: Duration = Duration::from_secs(300);

impl Lab {
    /// Servers 1 to `count`, with the base image; all answer.
    pub fn up(count: usize) -> Self {
        Self::take(count, &[])
    }

    /// The same, with etcd on the first `members`.
    pub fn with_etcd(count: usize, members: usize) -> Self {
        Self::take(count, &["--etcd", &members.to_string()])
    }

    /// Servers with nothing but Debian and sshd.
    pub fn bare(count: usize) -> Self {
        Self::take(count, &["--bare"])
    }

    fn take(count: usize, more: &[&str]) -> Self {
        Self::owned_by(std::process::id(), count, more)
    }

    /// One that lives as long as another process.
    pub fn owned_by(owner: u32, count: usize, more: &[&str]) -> Self {
        let (owner, count) = (owner.to_string(), count.to_string());
        let taking = Running::start(command().args([&["take", &owner, &count], more].concat()));
        let done = taking.wait_within(TAKING).succeeded();
        Self { id: done.text().trim().to_owned() }
    }

    /// Its number: 10.77.ID.0/24.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where all it has on disk is.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from("/var/tmp/quarry-lab").join(&self.id)
    }

    /// The key that every server lets in as root.
    pub fn key(&self) -> KeyPair {
        KeyPair::open_or_create(&self.folder().join("key")).unwrap()
    }

    /// Server 1, 2, …
    pub fn server(&self, number: u8) -> Server<'_> {
        Server { lab: self, number }
    }

    /// `bin/lab` with these words.
    pub fn tell(&self, words: &[&str]) -> Done {
        run(command().env("QUARRY_LAB", &self.id).args(words))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let done = self.tell(&["down"]);
        if done.code != 0 && !std::thread::panicking() {
            panic!("lab {} cannot be taken down: {done}", self.id);
        }
    }
}

fn command() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bin/lab"))
}

/// One server of a lab.
#[derive(Clone, Copy)]
pub struct Server<'lab> {
    lab: &'lab Lab,
    number: u8,
}

impl Server<'_> {
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.lab.id.parse().unwrap(), 10 + self.number)
    }

    /// Where to log in, as root.
    pub fn address(self) -> Address {
        Address { user: "root".to_owned(), host: self.ip().to_string(), port: 22 }
    }

    /// The key its sshd shows.
    pub fn host_key(self) -> HostKey {
        let path = self.lab.folder().join(format!("s{}/host_key.pub", self.number));
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    }

    /// Quarry's line to it.
    pub fn line(self) -> Line {
        let name = format!("s{}", self.number).parse().unwrap();
        Line::open(name, self.address(), Login::Key(self.lab.key()), self.host_key())
    }

    /// Runs words on it.
    pub fn ssh(self, words: &[&str]) -> Done {
        self.tell("ssh", &[&quote(words.iter().copied())])
    }

    /// Everything in it ends at once; its disk stays.
    pub fn poweroff(self) {
        self.tell("poweroff", &[]).succeeded();
    }

    /// On again; returns when it answers.
    pub fn poweron(self) {
        self.tell("poweron", &[]).succeeded();
    }

    /// Pulls its cable: connections hang.
    pub fn cut(self) {
        self.tell("cut", &[]).succeeded();
    }

    /// Plugs it in again.
    pub fn heal(self) {
        self.tell("heal", &[]).succeeded();
    }

    /// Between these two only.
    pub fn cut_from(self, other: Server<'_>) {
        self.tell("cut", &[&other.number.to_string()]).succeeded();
    }

    pub fn heal_with(self, other: Server<'_>) {
        self.tell("heal", &[&other.number.to_string()]).succeeded();
    }

    /// Both directions of its cable, such as `10mbit`; `off` ends it.
    pub fn slow(self, rate: &str) {
        self.tell("slow", &[rate]).succeeded();
    }

    /// SIGKILL for `dockerd`, `sshd`, `etcd` or `agent`; nothing starts it again.
    pub fn kill(self, daemon: &str) {
        self.tell("kill", &[daemon]).succeeded();
    }

    /// SIGSTOP: it takes connections and never says a word.
    pub fn stall(self, daemon: &str) {
        self.tell("stall", &[daemon]).succeeded();
    }

    pub fn resume(self, daemon: &str) {
        self.tell("resume", &[daemon]).succeeded();
    }

    pub fn start(self, daemon: &str) {
        self.tell("start", &[daemon]).succeeded();
    }

    fn tell(self, verb: &str, words: &[&str]) -> Done {
        let number = self.number.to_string();
        self.lab.tell(&[&[verb, &number], words].concat())
    }
}
