//! A running HQ and everything a test asks of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::docker;
use super::program::{Done, Running, run, run_with};
use super::registry;
use super::repository::{Repository, git};
use super::slot::Slot;
use super::wait::until;
use super::web::{Reply, request};

/// Settings every HQ of a test has, besides its addresses: `(path, text)`.
pub const ETC_FILES: [(&str, &str); 1] = [
    // Builds must trust what this machine trusts, or pip and npm do not get through an inspecting proxy.
    ("build/ca-bundle", "/etc/ssl/certs/ca-certificates.crt\n"),
];

/// `quarry serve` with a root of its own.
pub struct Hq {
    folder: TempDir,
    slot: Slot,
    serve: Option<Child>,
    agent: Option<Child>,
    pub ssh: SocketAddr,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub api: SocketAddr,
    /// What HQ sees as /etc/hosts from its next start on.
    pub hosts: Option<PathBuf>,
    /// Its root and its settings in the folder.
    places: (&'static str, &'static str),
    /// What it is started from.
    program: PathBuf,
}

/// Whether no agent looks after an HQ's own server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alone {
    Yes,
    No,
}

/// Those of an HQ, and those of the one that comes after it has vanished.
const PLACES: [(&str, &str); 2] = [("root", "etc"), ("root-2", "etc-2")];

impl Hq {
    /// A running HQ with the key of one user, ada.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more files in its etc.
    pub fn start_with(etc: &[(&str, &str)]) -> Self {
        Self::prepare(etc, |_| ())
    }

    /// `before` may change the root before HQ first sees it.
    pub fn prepare(etc: &[(&str, &str)], before: impl FnOnce(&Path)) -> Self {
        Self::prepare_all(etc, Alone::Yes, before)
    }

    /// One whose own server has an agent, too, as a machine's main HQ brings it, and so an embassy.
    pub fn with_agent(etc: &[(&str, &str)]) -> Self {
        Self::prepare_all(etc, Alone::No, |_| ())
    }

    fn prepare_all(etc: &[(&str, &str)], alone: Alone, before: impl FnOnce(&Path)) -> Self {
        docker::required();
        let mut slot = Slot::take(sweep);
        let folder = tempfile::Builder::new().prefix("quarry-it-").tempdir().unwrap();
        slot.write(folder.path());
        // The router's workers are not root and must reach the sites.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let own = [("port-range", slot.ports()), ("subnets", slot.subnets()), ("embassy/address", slot.embassy())];
        let own = own.iter().map(|(name, text)| (*name, text.as_str()));
        for (name, text) in own.chain(ETC_FILES).chain(etc.iter().copied()) {
            let path = folder.path().join("etc").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        before(&folder.path().join("root"));
        let (http, https, api) = (slot.http(), slot.https(), slot.api());
        let ssh = SocketAddr::from(([127, 0, 0, 1], 0));
        let program = env!("CARGO_BIN_EXE_quarry").into();
        let (serve, agent, hosts, places) = (None, None, None, PLACES[0]);
        let mut hq = Self { folder, slot, serve, agent, ssh, http, https, api, hosts, places, program };
        if alone == Alone::No {
            hq.start_agent();
        }
        hq.serve();
        let key = hq.make_key("id_ed25519");
        hq.quarry_with(&["keys", "add", "ada", "laptop"], key.as_bytes()).succeeded();
        hq.write_ssh();
        hq
    }

    /// Starts the agent of HQ's own server and waits until it can be spoken to.
    pub fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "the agent runs already");
        let folder = self.folder.path().join(self.places.0).join("agent");
        let hosts = self.file("hosts-of-the-agent");
        let log = fs::File::options().create(true).append(true).mode(0o600).open(self.file("agent.log")).unwrap();
        let mut command = self.quarry_command();
        command.arg("agent").arg("--folder").arg(&folder).arg("--hosts").arg(hosts);
        self.agent = Some(command.stdout(Stdio::null()).stderr(log).process_group(0).spawn().unwrap());
        until("the agent's socket", || UnixStream::connect(folder.join("control/agent.sock")).ok());
    }

    /// Kills it.
    pub fn kill_agent(&mut self) {
        let mut child = self.agent.take().expect("the agent runs");
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    /// Where its embassy listens.
    pub fn embassy(&self) -> String {
        self.slot.embassy()
    }

    /// Starts `quarry serve` and waits until it says that it is ready.
    pub fn serve(&mut self) {
        self.serve_until(None);
    }

    /// The same, with a HQ that kills itself with SIGKILL at this instant of its journal, counted from 1.
    pub fn serve_until(&mut self, instant: Option<u64>) {
        assert!(self.serve.is_none(), "HQ runs already");
        let log = fs::File::options().create(true).append(true).mode(0o600).open(self.log_path()).unwrap();
        let mut command = self.serve_command();
        if let Some(instant) = instant {
            command.env("QUARRY_KILL_AT", instant.to_string());
        }
        let addresses = [self.ssh, self.http, self.https, self.api].map(|address| address.to_string());
        command.args(["serve", "--ssh", &addresses[0], "--http", &addresses[1], "--https", &addresses[2]]);
        command.args(["--api", &addresses[3]]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).process_group(0).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.serve = Some(child);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ready:", "ssh", ssh, "http", _] => self.ssh = ssh.parse().unwrap(),
            _ => panic!("HQ does not become ready; it says: {line}{}", self.log()),
        }
    }

    /// Ends `quarry serve`; router and containers run on.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut child) = self.serve.take() else { return };
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = until("the end of HQ", || child.try_wait().unwrap());
        assert!(signal == Signal::KILL || ended.success(), "HQ ended with {ended}:\n{}", self.log());
    }

    /// The process of `quarry serve`.
    pub fn pid(&self) -> u32 {
        self.serve.as_ref().expect("HQ runs").id()
    }

    /// Whether `quarry serve` has ended by itself; it is gone for good then.
    pub fn has_died(&mut self) -> bool {
        let dead = self.serve.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if dead {
            self.serve = None;
        }
        dead
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join(self.places.0).canonicalize().unwrap()
    }

    /// What is left of a machine that is lost: nothing. The next HQ has this one's addresses, and empty folders under
    /// other names.
    pub fn vanish(&mut self) {
        self.stop(Signal::KILL);
        let root = self.root();
        end_router(&root);
        docker::sweep(&id(&root));
        fs::remove_dir_all(root).unwrap();
        fs::remove_dir_all(self.file(self.places.1)).unwrap();
        self.places = PLACES[1];
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What docker's objects of this HQ are labelled with.
    pub fn id(&self) -> String {
        id(&self.root())
    }

    /// Names of this HQ's containers with these further labels.
    pub fn containers(&self, labels: &[&str]) -> Vec<String> {
        let filters = labels.iter().map(|label| format!("label=quarry.{label}"));
        let filters: Vec<String> = filters.chain([format!("label=quarry.hq={}", self.id())]).collect();
        let mut words = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| words.extend(["--filter", filter]));
        let mut names = docker::list(&words);
        names.sort();
        names
    }

    /// Waits until that is exactly what is there: old containers go after the pusher has been answered.
    #[track_caller]
    pub fn wait_for_containers(&self, labels: &[&str], count: usize) -> Vec<String> {
        until(&format!("{count} containers with {labels:?}"), || {
            let names = self.containers(labels);
            (names.len() == count).then_some(names)
        })
    }

    /// What runs inside the containers of a one-off command.
    pub fn processes_of(&self, node: &str) -> String {
        let named = self.containers(&["role=once"]).into_iter().filter(|name| name.contains(node));
        named.map(|name| docker::docker(&["top", &name]).text()).collect()
    }

    /// Sweeps what `quarry start` makes in a folder when the test ends.
    pub fn local(folder: &Path) -> Local {
        let root = folder.join(".quarry");
        fs::create_dir_all(&root).unwrap();
        Local { id: id(&root.canonicalize().unwrap()) }
    }

    // The three doors.

    /// `quarry` that sees the test's own hosts file.
    fn serve_command(&self) -> Command {
        let Some(hosts) = &self.hosts else { return self.quarry_command() };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
        self.placed(command.arg(&self.program));
        command
    }

    fn quarry_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        self.placed(&mut command);
        command
    }

    /// From its next start on HQ is a program of its own, which may be replaced. Where it lies, and where a copy does.
    pub fn own_program(&mut self) -> (PathBuf, PathBuf) {
        let (own, copy) = (self.file("quarry-own"), self.file("quarry-copy"));
        for path in [&own, &copy] {
            fs::copy(env!("CARGO_BIN_EXE_quarry"), path).unwrap();
        }
        self.program.clone_from(&own);
        (own, copy)
    }

    /// The process that serves.
    pub fn process(&self) -> Pid {
        Pid::from_child(self.serve.as_ref().unwrap())
    }

    /// With this HQ's folders.
    fn placed(&self, command: &mut Command) {
        command.env("QUARRY_ROOT", self.file(self.places.0)).env("QUARRY_ETC", self.file(self.places.1));
        command.env_remove("QUARRY_HQ").current_dir(self.folder.path());
    }

    /// On HQ as root.
    pub fn quarry(&self, words: &[&str]) -> Done {
        self.quarry_with(words, b"")
    }

    pub fn quarry_with(&self, words: &[&str], input: &[u8]) -> Done {
        run_with(self.quarry_command().args(words), input)
    }

    pub fn quarry_beside(&self, words: &[&str]) -> Running {
        Running::start(self.quarry_command().args(words))
    }

    /// By `ssh quarry@hq words`.
    pub fn by_ssh(&self, words: &[&str]) -> Done {
        self.by_ssh_with(words, b"")
    }

    pub fn by_ssh_with(&self, words: &[&str], input: &[u8]) -> Done {
        run_with(&mut self.ssh_command(words), input)
    }

    pub fn ssh_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.file("ssh_config")).arg("hq").args(words);
        command
    }

    /// By `quarry --hq` from another machine, in this folder.
    pub fn by_option(&self, words: &[&str]) -> Done {
        self.by_option_with(words, b"")
    }

    pub fn by_option_with(&self, words: &[&str], input: &[u8]) -> Done {
        let mut command = self.elsewhere(self.folder.path());
        command.args(["--hq", &self.address()]).args(words);
        run_with(&mut command, input)
    }

    /// `quarry` on a machine without an HQ, whose ssh knows the test's key.
    pub fn elsewhere(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarry"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.file("bin").display()));
        command.env("QUARRY_ROOT", self.file("no-root-here")).env("QUARRY_ETC", self.file("no-etc-here"));
        command.env_remove("QUARRY_HQ").current_dir(folder);
        command
    }

    fn address(&self) -> String {
        format!("quarry@127.0.0.1:{}", self.ssh.port())
    }

    // Git.

    pub fn url(&self, stack: &str) -> String {
        format!("ssh://{}/{stack}", self.address())
    }

    /// Git in a folder, with the test's key.
    pub fn git(&self, folder: &Path, words: &[&str]) -> Done {
        run(self.git_command(folder).args(words))
    }

    pub fn git_command(&self, folder: &Path) -> Command {
        let mut command = git(folder);
        command.env("GIT_SSH_COMMAND", format!("ssh -F {}", self.file("ssh_config").display()));
        command
    }

    /// `git push` of the branch that is checked out.
    pub fn push(&self, repository: &Repository, stack: &str) -> Done {
        self.push_as(repository, stack, &["HEAD"])
    }

    pub fn push_as(&self, repository: &Repository, stack: &str, words: &[&str]) -> Done {
        let url = self.url(stack);
        self.git(repository.path(), &[&["push", url.as_str()], words].concat())
    }

    pub fn push_beside(&self, repository: &Repository, stack: &str) -> Running {
        Running::start(self.git_command(repository.path()).args(["push", &self.url(stack), "HEAD"]))
    }

    // Browsers.

    pub fn get(&self, host: &str, path: &str) -> Reply {
        request(self.http, "GET", host, path, b"").unwrap()
    }

    /// The body of a page that must be there.
    #[track_caller]
    pub fn page(&self, host: &str, path: &str) -> String {
        let reply = self.get(host, path);
        assert_eq!(reply.status, 200, "{host}{path}: {}\n{}", reply.head, reply.text());
        reply.text()
    }

    // Keys.

    /// Makes a key pair and gives the public one.
    pub fn make_key(&self, name: &str) -> String {
        let path = self.file(name);
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path))
            .succeeded();
        fs::read_to_string(path.with_extension("pub")).unwrap()
    }

    fn write_ssh(&self) {
        let folder = self.folder.path().display();
        let config = format!(
            "Host hq\n  HostName 127.0.0.1\n  Port {}\n  User quarry\nHost *\n  IdentityFile {folder}/id_ed25519\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking accept-new\n  \
             BatchMode yes\n  LogLevel ERROR\n",
            self.ssh.port()
        );
        fs::write(self.file("ssh_config"), config).unwrap();
        fs::create_dir(self.file("bin")).unwrap();
        let wrapper = format!("#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config \"$@\"\n");
        fs::write(self.file("bin/ssh"), wrapper).unwrap();
        fs::set_permissions(self.file("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Hq {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- HQ's log\n{}", self.log());
            eprintln!("--- the agent's log\n{}", fs::read_to_string(self.file("agent.log")).unwrap_or_default());
        }
        if let Some(mut child) = self.serve.take() {
            // It may have ended already; what it left is swept all the same.
            let _ = kill_process(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
        if self.agent.is_some() {
            self.kill_agent();
            run(Command::new("ip").args(["address", "del", &format!("{}/32", self.embassy()), "dev", "lo"]));
        }
        sweep(self.folder.path());
        self.slot.clear();
    }
}

/// A folder whose stack runs without HQ.
pub struct Local {
    pub id: String,
}

impl Drop for Local {
    fn drop(&mut self) {
        docker::sweep(&self.id);
    }
}

fn id(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes what an HQ in this folder has made, and the folder.
fn sweep(folder: &Path) {
    for root in PLACES.map(|(root, _)| folder.join(root)) {
        end_router(&root);
        // A registry stays for the next HQ.
        registry::kill(&root);
        if let Ok(root) = root.canonicalize() {
            docker::sweep(&id(&root));
        }
        if is_mounted(&root) {
            run(Command::new("umount").arg("-l").arg(&root));
        }
    }
    let _ = fs::remove_dir_all(folder);
}

/// Ends the nginx that has its pid file here; a pid that has become someone else's is left alone.
fn end_router(root: &Path) {
    let read = || fs::read_to_string(root.join("router/nginx.pid")).ok()?.trim().parse().ok();
    let Some(pid): Option<i32> = read() else { return };
    let of_this_root = |pid: i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&root.display().to_string())
    };
    if of_this_root(pid) {
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM);
        until("the end of the router", || (!of_this_root(pid)).then_some(()));
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}
