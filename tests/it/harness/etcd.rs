//! Real etcd servers on loopback addresses of this test alone, killed with the test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use quarry::db::etcd;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::program::{Done, run};
use super::wait::until;

/// A cluster of so many members.
pub struct Cluster {
    folder: TempDir,
    members: Vec<Member>,
    tls: bool,
    options: &'static [&'static str],
    /// Whom etcd's own command logs in as: `user:password`.
    pub login: Option<String>,
}

struct Member {
    client: u16,
    peer: u16,
    child: Option<Child>,
}

impl Cluster {
    /// One that answers.
    pub fn start(members: usize) -> Self {
        Self::start_with(members, false, &[])
    }

    /// One that holds a few megabytes.
    pub fn start_small() -> Self {
        Self::start_with(1, false, &["--quota-backend-bytes", "6000000"])
    }

    /// One that answers those who have a certificate of its authority.
    pub fn start_with_tls() -> Self {
        Self::start_with(1, true, &[])
    }

    fn start_with(members: usize, tls: bool, options: &'static [&'static str]) -> Self {
        let folder = tempfile::Builder::new().prefix("quarry-it-etcd-").tempdir().unwrap();
        if tls {
            certificates(folder.path());
        }
        let (mut held, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..members * 2 {
            let listener = TcpListener::bind((host(), 0)).unwrap();
            ports.push(listener.local_addr().unwrap().port());
            held.push(listener);
        }
        drop(held);
        let members = ports.chunks(2).map(|pair| Member { client: pair[0], peer: pair[1], child: None }).collect();
        let mut cluster = Self { folder, members, tls, options, login: None };
        for number in 0..cluster.members.len() {
            cluster.spawn(number);
        }
        cluster.wait_until_healthy();
        cluster
    }

    fn spawn(&mut self, number: usize) {
        let peers: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}=http://{}:{}", host(), member.peer))
            .collect();
        let member = &self.members[number];
        let peer = format!("http://{}:{}", host(), member.peer);
        let log = fs::File::options().create(true).append(true).open(self.file(&format!("m{number}.log"))).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{number}"), "--initial-cluster", &peers.join(",")])
            .arg("--data-dir")
            .arg(self.file(&format!("m{number}")))
            .args(["--listen-client-urls", &self.endpoint(number), "--advertise-client-urls", &self.endpoint(number)])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(self.options);
        if self.tls {
            command.args(["--client-cert-auth", "--trusted-ca-file"]).arg(self.file("ca.pem"));
            command.arg("--cert-file").arg(self.file("server.pem"));
            command.arg("--key-file").arg(self.file("server-key.pem"));
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.members[number].child = Some(child.expect("cannot run etcd; run bin/test, which installs etcd-server"));
    }

    fn wait_until_healthy(&self) {
        until("a healthy etcd", || (self.etcdctl(&["endpoint", "health", "--cluster"]).code == 0).then_some(()));
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    pub fn endpoint(&self, number: usize) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", host(), self.members[number].client)
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|number| self.endpoint(number)).collect()
    }

    /// How quarry reaches it.
    pub fn cluster(&self, prefix: &str) -> etcd::Cluster {
        etcd::Cluster { endpoints: self.endpoints(), prefix: prefix.to_owned(), ..etcd::Cluster::default() }
    }

    /// etcd's own command.
    pub fn etcdctl(&self, words: &[&str]) -> Done {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints().join(",")]).args(words);
        if let Some(login) = &self.login {
            command.args(["--user", login]);
        }
        if self.tls {
            command.arg("--cacert").arg(self.file("ca.pem"));
            command.arg("--cert").arg(self.file("client.pem")).arg("--key").arg(self.file("client-key.pem"));
        }
        run(&mut command)
    }

    /// The member that leads.
    pub fn leader(&self) -> usize {
        until("a leader", || {
            let status = self.etcdctl(&["endpoint", "status", "-w", "json"]).text();
            let members: serde_json::Value = serde_json::from_str(&status).ok()?;
            let leads =
                |member: &&serde_json::Value| member["Status"]["leader"] == member["Status"]["header"]["member_id"];
            let leader = members.as_array()?.iter().find(leads)?["Endpoint"].as_str()?.to_owned();
            self.endpoints().iter().position(|endpoint| *endpoint == leader)
        })
    }

    pub fn signal(&self, number: usize, signal: Signal) {
        kill_process(Pid::from_child(self.members[number].child.as_ref().unwrap()), signal).unwrap();
    }

    pub fn kill(&mut self, number: usize) {
        self.signal(number, Signal::KILL);
        self.members[number].child.take().unwrap().wait().unwrap();
    }

    pub fn kill_all(&mut self) {
        (0..self.members.len()).for_each(|number| self.kill(number));
    }

    /// Starts those that were killed again, on the data they left.
    pub fn start_again(&mut self) {
        for number in 0..self.members.len() {
            if self.members[number].child.is_none() {
                self.spawn(number);
            }
        }
        self.wait_until_healthy();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (number, member) in self.members.iter_mut().enumerate() {
            if let Some(mut child) = member.child.take() {
                // One that ended by itself is no reason to fail here.
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                let log = fs::read_to_string(self.folder.path().join(format!("m{number}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- log of etcd m{number}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
            }
        }
    }
}

/// An address of this process alone: tests run side by side.
fn host() -> std::net::Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let middle = u8::try_from(std::process::id() >> 16 & 0x3f).unwrap();
    std::net::Ipv4Addr::new(127, 64 + middle, high, low.clamp(1, 254))
}

/// An authority, a certificate for the server and one for a client.
fn certificates(folder: &Path) {
    let openssl = |words: &[&str]| drop(run(Command::new("openssl").current_dir(folder).args(words)).succeeded());
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem"];
    openssl(&[&authority[..], &key].concat());
    for (name, extensions) in [
        ("server", format!("subjectAltName=IP:{}\nextendedKeyUsage=serverAuth,clientAuth\n", host())),
        ("client", "subjectAltName=DNS:hq\nextendedKeyUsage=clientAuth\n".to_owned()),
    ] {
        let (request, private, public) = (format!("{name}.csr"), format!("{name}-key.pem"), format!("{name}.pem"));
        fs::write(folder.join("extensions"), extensions).unwrap();
        let subject = format!("/CN={name}");
        openssl(&[&["req", "-subj", &subject, "-keyout", &private, "-out", &request][..], &key].concat());
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &public,
        ]);
    }
}
