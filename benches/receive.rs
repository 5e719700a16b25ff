//! Pushes to quarry beside OpenSSH's sshd with git-receive-pack: large packs, a tiny push, a hundred at once.
//!
//! Both sides run on loopback with OpenSSH's client and its default algorithms. The reference has its best settings:
//! `receive.unpackLimit=1`, and sshd's MaxStartups raised. Quarry is the whole `serve`; the branch is one that does not
//! deploy. Names of parts to run may be given (`files10 files1 tiny hundred memory`), and `QUARRY_ROUNDS`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A branch that quarry stores without a deploy.
const BRANCH: &str = "refs/heads/stored";

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    let bench = Bench::start();
    println!("{:<34}{:>12}{:>12}{:>8}   target", "medians", "quarry", "sshd", "ratio");
    if wants("files10") {
        bench.large("files10", 50, 10 << 20);
    }
    if wants("files1") {
        bench.large("files1", 500, 1 << 20);
    }
    if wants("tiny") {
        bench.tiny();
    }
    if wants("hundred") {
        bench.hundred();
    }
    if wants("memory") {
        bench.memory();
    }
}

/// Where pushes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Quarry,
    Sshd,
}

const SIDES: [Side; 2] = [Side::Quarry, Side::Sshd];

struct Bench {
    folder: tempfile::TempDir,
    ports: [u16; 2],
    servers: Vec<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let pid = rustix::process::Pid::from_child(server);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = server.wait();
        }
        // The router outlives HQ by design.
        let pid = fs::read_to_string(self.path("root/router/nginx.pid")).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

impl Bench {
    fn start() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut bench = Bench { folder, ports: [free(), free()], servers: Vec::new() };
        for name in ["root", "etc", "sshd"] {
            fs::create_dir_all(bench.path(name)).unwrap();
        }
        // nginx's workers are somebody else.
        fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["id", "sshd_key"] {
            done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(bench.path(name)));
        }
        bench.start_sshd();
        bench.start_quarry(free());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_sshd(&mut self) {
        let folder = self.folder.path().display();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {folder}/sshd_key\nAuthorizedKeysFile {folder}/id.pub\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 1000\n",
            self.ports[1]
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(self.path("sshd_config")).stderr(Stdio::null());
        self.servers.push(sshd.spawn().expect("apt-get install openssh-server"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.ports[1])).is_err() {
            assert!(Instant::now() < deadline, "sshd does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn quarry(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
        command.env("QUARRY_ROOT", self.path("root")).env("QUARRY_ETC", self.path("etc"));
        command
    }

    fn start_quarry(&mut self, http: u16) {
        let mut serve = self.quarry();
        serve.args(["serve", "--ssh", &format!("127.0.0.1:{}", self.ports[0]), "--http", &format!("127.0.0.1:{http}")]);
        let log = fs::File::create(self.path("serve.log")).unwrap();
        let mut child = serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.servers.push(child);
        assert!(line.starts_with("ready"), "{}", fs::read_to_string(self.path("serve.log")).unwrap());
        let key = fs::File::open(self.path("id.pub")).unwrap();
        done(self.quarry().args(["keys", "add", "bench"]).stdin(key));
    }

    fn git(&self, folder: &str, words: &[&str]) -> Command {
        fs::create_dir_all(self.path(folder)).unwrap();
        let ssh = format!(
            "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o LogLevel=ERROR",
            self.path("id").display()
        );
        let mut command = Command::new("git");
        command.current_dir(self.path(folder)).args(words).env("GIT_SSH_COMMAND", ssh).env_remove("SSH_AUTH_SOCK");
        command.env("HOME", self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "A").env(format!("GIT_{role}_EMAIL"), "a@b.example");
        }
        command.stdin(Stdio::null());
        command
    }

    /// Makes sure that `stack` is there and empty, and gives its address.
    fn address(&self, side: Side, stack: &str) -> String {
        match side {
            Side::Quarry => format!("ssh://quarry@127.0.0.1:{}/{stack}", self.ports[0]),
            Side::Sshd => {
                let name = format!("sshd/{stack}.git");
                if !self.path(&name).exists() {
                    done(&mut self.git(&name, &["init", "-q", "--bare", "."]));
                    done(&mut self.git(&name, &["config", "receive.unpackLimit", "1"]));
                }
                format!("ssh://root@127.0.0.1:{}{}", self.ports[1], self.path(&name).display())
            }
        }
    }

    fn forget(&self, side: Side, stack: &str) {
        let folder = match side {
            Side::Quarry => format!("root/stacks/{stack}"),
            Side::Sshd => format!("sshd/{stack}.git"),
        };
        fs::remove_dir_all(self.path(&folder)).unwrap();
    }

    fn push(&self, folder: &str, address: &str, commit: &str) -> Command {
        self.git(folder, &["push", "-q", address, &format!("{commit}:{BRANCH}")])
    }

    fn timed(&self, folder: &str, address: &str, commit: &str) -> f64 {
        let begin = Instant::now();
        done(&mut self.push(folder, address, commit));
        begin.elapsed().as_secs_f64()
    }

    /// 500 MB of files that do not compress, already packed at the client, into a stack of its own each time.
    fn large(&self, name: &str, files: usize, size: usize) {
        self.make_pack(name, files, size);
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds(5) {
            for side in order(round) {
                let stack = format!("{name}-{round}");
                let address = self.address(side, &stack);
                times[side as usize].push(self.timed(name, &address, "HEAD"));
                self.forget(side, &stack);
            }
        }
        let megabytes = (files * size) as f64 / 1e6;
        let speeds = times.map(|times| megabytes / median(times));
        let label = format!("{files} files of {} MB (MB/s)", size >> 20);
        println!("{label:<34}{:>12.0}{:>12.0}{:>8.2}   ≥ 1.0", speeds[0], speeds[1], speeds[0] / speeds[1]);
    }

    fn make_pack(&self, name: &str, files: usize, size: usize) {
        done(&mut self.git(name, &["init", "-q", "-b", "master", "."]));
        let mut random = fs::File::open("/dev/urandom").unwrap();
        for number in 0..files {
            let mut file = fs::File::create(self.path(name).join(format!("{number}.bin"))).unwrap();
            let copied = std::io::copy(&mut std::io::Read::take(&mut random, size as u64), &mut file).unwrap();
            assert_eq!(copied, size as u64);
        }
        done(&mut self.git(name, &["add", "."]));
        done(&mut self.git(name, &["commit", "-q", "-m", "much"]));
        done(&mut self.git(name, &["repack", "-a", "-d", "-q"]));
    }

    /// Commits of one small file each, ready to be pushed one after another.
    fn make_commits(&self, folder: &str, count: usize) -> Vec<String> {
        done(&mut self.git(folder, &["init", "-q", "-b", "master", "."]));
        let commit = |number: usize| {
            fs::write(self.path(folder).join("file"), format!("{number}\n")).unwrap();
            done(&mut self.git(folder, &["add", "."]));
            done(&mut self.git(folder, &["commit", "-q", "-m", "little"]));
            done(&mut self.git(folder, &["rev-parse", "HEAD"])).trim().to_owned()
        };
        (0..count).map(commit).collect()
    }

    /// One small commit onto a branch that is there.
    fn tiny(&self) {
        let count = rounds(20);
        let commits = self.make_commits("tiny", count + 1);
        let addresses = SIDES.map(|side| self.address(side, "tiny"));
        for address in &addresses {
            done(&mut self.push("tiny", address, &commits[0]));
        }
        let mut times = [Vec::new(), Vec::new()];
        for (round, commit) in commits[1..].iter().enumerate() {
            for side in order(round) {
                times[side as usize].push(1e3 * self.timed("tiny", &addresses[side as usize], commit));
            }
        }
        let [quarry, sshd] = times.map(median);
        println!("{:<34}{quarry:>12.0}{sshd:>12.0}{:>8.2}   ≤ 0.8", "tiny push (ms)", quarry / sshd);
    }

    /// A hundred clients at once, each with a stack of its own.
    fn hundred(&self) {
        let count = rounds(3);
        let commits = self.make_commits("hundred", count + 1);
        let mut times = [Vec::new(), Vec::new()];
        for (round, commit) in commits.iter().enumerate() {
            for side in order(round) {
                let addresses: Vec<String> = (0..100).map(|number| self.address(side, &format!("s{number}"))).collect();
                let begin = Instant::now();
                let pushes: Vec<Child> =
                    addresses.iter().map(|to| self.push("hundred", to, commit).spawn().unwrap()).collect();
                let good =
                    pushes.into_iter().filter_map(|mut push| push.wait().ok()).filter(|end| end.success()).count();
                assert_eq!(good, 100, "pushes that arrived");
                // The first round makes the stacks.
                if round > 0 {
                    times[side as usize].push(begin.elapsed().as_secs_f64());
                }
            }
        }
        let [quarry, sshd] = times.map(median);
        println!("{:<34}{quarry:>12.2}{sshd:>12.2}{:>8.2}   ≤ 0.8", "100 tiny pushes at once (s)", quarry / sshd);
    }

    /// What HQ itself holds in memory, its children left out: at rest, and with 50 large pushes in flight.
    fn memory(&self) {
        let pid = self.servers[1].id();
        println!("{:<34}{:>12.1}{:>12}{:>8}   ≤ 25", "HQ resident at rest (MiB)", resident(pid), "", "");
        self.make_pack("flight", 20, 1 << 20);
        let addresses: Vec<String> =
            (0..50).map(|number| self.address(Side::Quarry, &format!("flight-{number}"))).collect();
        let mut pushes: Vec<Child> =
            addresses.iter().map(|to| self.push("flight", to, "HEAD").spawn().unwrap()).collect();
        let mut most: f64 = 0.0;
        while pushes.iter_mut().any(|push| push.try_wait().unwrap().is_none()) {
            most = most.max(resident(pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        for mut push in pushes {
            assert!(push.wait().unwrap().success());
        }
        println!("{:<34}{most:>12.1}{:>12}{:>8}   ≤ 150", "HQ resident, 50 pushes (MiB)", "", "");
        std::thread::sleep(Duration::from_secs(2));
        println!("{:<34}{:>12.1}", "HQ resident afterwards (MiB)", resident(pid));
    }
}

/// Who goes first changes from round to round.
fn order(round: usize) -> [Side; 2] {
    if round.is_multiple_of(2) { SIDES } else { [Side::Sshd, Side::Quarry] }
}

fn rounds(usual: usize) -> usize {
    std::env::var("QUARRY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len().is_multiple_of(2) { (times[middle - 1] + times[middle]) / 2.0 } else { times[middle] }
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Runs a command to its end and gives its output.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr).unwrap();
        panic!("{command:?}: {}", output.status);
    }
    String::from_utf8(output.stdout).unwrap()
}
