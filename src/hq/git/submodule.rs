//! Submodules: where they come from, and fetching them.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::build::limits;
use crate::hq::git::push::{MEMORY, TIME};
use crate::hq::git::socks::{self, Socks};
use crate::hq::git::weight::Budget;
use crate::hq::git::{GitError, Repository, Settings, command, oid};
use crate::hq::remote::{Remote, Scheme};
use crate::names::reach::Reach;
use crate::names::{CommitId, StackName};

/// The most that is kept of what git says.
const WORDS: u64 = 16 * 1024;

/// How submodules are fetched.
#[derive(Clone)]
pub struct Fetching {
    /// Each may take so long.
    pub limit: Duration,
    /// The SSH key that their servers see; none without.
    pub key: Option<PathBuf>,
    /// Ends what is being fetched.
    pub stop: Arc<Stop>,
    /// Hears of each one before it is fetched.
    pub say: Arc<dyn Fn(String) + Send + Sync>,
    /// Whether another stack's repository may be read. It may wait for the answer.
    pub may_read: Arc<dyn Fn(&StackName) -> bool + Send + Sync>,
    /// The servers they may come from.
    pub reach: Reach,
    /// The largest pack taken in bytes.
    pub most: u64,
}

impl Default for Fetching {
    fn default() -> Self {
        let (say, may_read) = (Arc::new(|_| ()), Arc::new(|_: &StackName| true));
        let (limit, reach) = (Duration::from_secs(600), Reach::default());
        Self { limit, key: None, stop: Arc::default(), say, may_read, reach, most: 2 << 30 }
    }
}

/// Ends a git at work from outside, with everything it has started.
#[derive(Debug, Default)]
pub struct Stop(Mutex<Work>);

#[derive(Debug, Default)]
enum Work {
    #[default]
    None,
    Git(Pid),
    Over,
}

impl Stop {
    /// Nothing is fetched any more.
    pub fn now(&self) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Work::Git(group) = *work {
            end(group);
        }
        *work = Work::Over;
    }

    /// A git has started; `false` when it is not wanted any more.
    fn begin(&self, group: Pid) -> bool {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = !matches!(*work, Work::Over);
        if wanted {
            *work = Work::Git(group);
        }
        wanted
    }

    /// The git is about to be waited for: from then on its number may be another process's.
    fn end(&self) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*work, Work::Git(_)) {
            *work = Work::None;
        }
    }
}

fn end(group: Pid) {
    // It may have ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
}

/// What a relative address is relative to.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// A stack of this HQ: `../lib` is the stack `lib`.
    Stack,
    /// A repository elsewhere.
    Address(String),
}

/// Where a submodule comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Stack(StackName),
    Address(String),
}

/// What a checkout leaves free on the disk, in bytes.
const SPARE: u64 = 16 << 20;

/// A checkout on its way: what its submodules are fetched with.
pub(super) struct Modules<'a> {
    pub(super) fetching: &'a Fetching,
    /// The folder with one folder for each stack.
    stacks: PathBuf,
    /// The repository that keeps all submodules of this stack.
    path: PathBuf,
    /// What may be written, submodules included.
    pub(super) budget: Budget,
}

impl<'a> Modules<'a> {
    /// Those of the stack whose repository is at `repository`.
    pub(super) fn of(repository: &Path, fetching: &'a Fetching) -> Self {
        let folder = repository.parent().unwrap_or(repository);
        let stacks = folder.parent().unwrap_or(folder).to_owned();
        // Where the disk cannot be asked, the write itself will tell.
        let free = limits::free(folder).unwrap_or(u64::MAX);
        let budget = Budget::new(free.saturating_sub(SPARE));
        Self { fetching, stacks, path: folder.join("modules.git"), budget }
    }

    /// A repository that has the submodule's commit, and what addresses in it are relative to.
    pub(super) fn repository(
        &self,
        path: &str,
        url: &str,
        base: &Base,
        commit: &CommitId,
    ) -> Result<(Repository, Base), String> {
        let show = |error: GitError| error.to_string();
        let url = match source(url, base)? {
            Source::Stack(stack) => {
                let sibling = self.stacks.join(stack.as_str()).join("repo.git");
                let unknown =
                    || format!("`{url}` is the stack `{stack}` of this HQ, which does not exist; push it first");
                if !(self.fetching.may_read)(&stack) {
                    return Err(unknown());
                }
                let repository = Repository::open(&sibling).map_err(|_| unknown())?;
                repository.commit(commit).map_err(|_| {
                    format!("the stack `{stack}` has no commit {}; push it there first", commit.short())
                })?;
                return Ok((repository, Base::Stack));
            }
            Source::Address(url) => url,
        };
        let settings = Settings { hooks: self.path.join("no-hooks"), push_limit: 0 };
        let modules = Repository::open_or_create(&self.path, &settings).map_err(show)?;
        if modules.git.find_commit(oid(commit)).is_err() {
            (self.fetching.say)(format!("Fetching the submodule {path} from {}", without_password(&url)));
            self.fetch(&modules, &url, commit)?;
        }
        Ok((modules, Base::Address(url)))
    }

    fn fetch(&self, modules: &Repository, url: &str, commit: &CommitId) -> Result<(), String> {
        let remote = Remote::parse(url).map_err(|bad| format!("`{}`: {bad}", without_password(url)))?;
        let way = self.way(&remote)?;
        let keep = format!("+{commit}:refs/quarry/modules/{commit}");
        // Servers before protocol 2 give single commits only by branch: then everything is fetched.
        let attempts: [&[&str]; 2] =
            [&["--depth=1", "--", &way.url, &keep], &["--", &way.url, "+refs/*:refs/quarry/all/*"]];
        let mut reason = String::new();
        for attempt in attempts {
            reason = self.run(self.command(&way).args(attempt))?;
            if modules.git.find_commit(oid(commit)).is_ok() {
                return modules.keep(commit).map_err(|error| error.to_string());
            }
            if let Some(refused) = way.socks.as_ref().and_then(Socks::refused) {
                return Err(refused);
            }
        }
        let url = without_password(url);
        Err(if reason.is_empty() { format!("`{url}` has no commit {}", commit.short()) } else { reason })
    }

    /// How a server is reached: HTTP, which is led elsewhere by its servers, through a way out of ours; else the server's
    /// address is found out and looked at here, and git gets that.
    fn way(&self, remote: &Remote) -> Result<Way, String> {
        match remote.scheme {
            Scheme::Http { .. } => {
                let socks = Socks::open(self.fetching.reach.clone());
                let socks = socks.map_err(|error| format!("no way out can be opened: {error}"))?;
                Ok(Way { url: remote.at(&remote.host), socks: Some(socks), ssh: String::new() })
            }
            Scheme::Ssh { .. } => {
                let address = self.address(remote)?;
                let ssh = format!(" -o HostName={address} -o HostKeyAlias={}", remote.host);
                Ok(Way { url: remote.at(&remote.host), socks: None, ssh })
            }
            Scheme::Git => Ok(Way { url: remote.at(&self.address(remote)?), socks: None, ssh: String::new() }),
        }
    }

    /// An address of a server that answers and may be spoken to.
    fn address(&self, remote: &Remote) -> Result<String, String> {
        let answers = socks::connect(&self.fetching.reach, &remote.host, remote.port());
        let address = answers.and_then(|stream| stream.peer_addr());
        address.map(|address| address.ip().to_string()).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => error.to_string(),
            _ => format!("`{}` cannot be reached: {error}", remote.host),
        })
    }

    /// HQ runs as root: its keys, agent and settings are not for servers that a pusher names.
    fn command(&self, way: &Way) -> Command {
        let own = command(&self.path);
        let mut git = Command::new("prlimit");
        let limits = [format!("--data={MEMORY}"), format!("--fsize={}", self.fetching.most), format!("--cpu={TIME}")];
        git.args(limits).arg("--").arg(own.get_program()).args(own.get_args()).env_clear();
        git.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let known = self.path.with_file_name("known_hosts");
        let key = self.fetching.key.as_deref().unwrap_or(Path::new("none"));
        let ssh = format!(
            "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o IdentityFile={} \
             -o UserKnownHostsFile={} -o StrictHostKeyChecking=accept-new -o ConnectTimeout=30 \
             -o ServerAliveInterval=15{}",
            quoted(key),
            quoted(&known),
            way.ssh
        );
        git.env("HOME", "/nonexistent").env("GIT_SSH_COMMAND", ssh);
        git.env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git").env("GIT_TERMINAL_PROMPT", "0");
        git.args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"]);
        if let Some(socks) = &way.socks {
            git.arg("-c").arg(format!("http.proxy={}", socks.url()));
        }
        git.args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]);
        git
    }

    /// Runs git to its end, its limit or its stop, and gives what it complained of.
    fn run(&self, git: &mut Command) -> Result<String, String> {
        let Fetching { limit, stop, .. } = self.fetching;
        git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = git.spawn().map_err(|error| format!("cannot run git: {error}"))?;
        let group = Pid::from_child(&child);
        if !stop.begin(group) {
            end(group);
        }
        let said = listen(&mut child, *limit);
        if said.is_err() {
            end(group);
        }
        stop.end();
        // Its exit code says less than the repository does.
        let _ = child.wait();
        said.map_err(|_| format!("its server did not send it within {} s", limit.as_secs()))
    }
}

/// How git reaches a server.
struct Way {
    url: String,
    socks: Option<Socks>,
    /// Options of ssh.
    ssh: String,
}

/// What git says until it closes its standard error. A thread reads, because reading alone knows no limit.
fn listen(child: &mut Child, limit: Duration) -> Result<String, RecvTimeoutError> {
    let (sender, receiver) = channel();
    let stderr = child.stderr.take();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read has been said to nobody.
            let _ = stderr.by_ref().take(WORDS).read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
        }
        // Whoever waited may have given up.
        let _ = sender.send(String::from_utf8_lossy(&text).trim().replace('\n', "; "));
    });
    receiver.recv_timeout(limit)
}

/// A word as git's shell reads it back, and ssh after it.
fn quoted(path: &Path) -> String {
    format!("'\"{}\"'", path.display().to_string().replace('\'', r"'\''"))
}

/// An address as it may be shown: passwords in it are nobody else's business.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

/// Where an address of `.gitmodules` leads, as git resolves it: `../` takes the last part of the base away.
fn source(url: &str, base: &Base) -> Result<Source, String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Ok(Source::Address(url.to_owned()));
    }
    let mut rest = url;
    let mut ups = 0;
    loop {
        if let Some(next) = rest.strip_prefix("../") {
            ups += 1;
            rest = next;
        } else if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else {
            break;
        }
    }
    match base {
        Base::Stack => {
            let name = rest.trim_end_matches('/').trim_end_matches(".git");
            let stack = name.parse().ok().filter(|_| ups == 1);
            stack.map(Source::Stack).ok_or_else(|| {
                format!("its address `{url}` leads to no stack of this HQ; write `../STACK`, or an address in full")
            })
        }
        Base::Address(base) => {
            let mut base = base.trim_end_matches('/');
            for _ in 0..ups {
                let end = base.rfind(['/', ':']).filter(|end| !base[..*end].ends_with([':', '/']));
                base = &base[..end.ok_or_else(|| format!("its address `{url}` leads out of its server"))?];
            }
            Ok(Source::Address(format!("{base}/{rest}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_are_resolved_as_git_does_it() {
        let check = |url: &str, base: Base, expected: Option<Source>| {
            assert_eq!(source(url, &base).ok(), expected, "{url} in {base:?}");
        };
        let stack = |name: &str| Some(Source::Stack(name.parse().unwrap()));
        let address = |text: &str| Some(Source::Address(text.to_owned()));
        check("../lib", Base::Stack, stack("lib"));
        check("../lib.git/", Base::Stack, stack("lib"));
        check("./lib", Base::Stack, None);
        check("../../lib", Base::Stack, None);
        check("../../../etc", Base::Stack, None);
        check("../a/b", Base::Stack, None);
        check("https://h/x", Base::Stack, address("https://h/x"));
        let base = |text: &str| Base::Address(text.to_owned());
        check("../lib", base("https://h/team/app.git/"), address("https://h/team/lib"));
        check("../../lib.git", base("https://h/team/app"), address("https://h/lib.git"));
        check("./sub", base("git://h/app"), address("git://h/app/sub"));
        check("../../lib", base("https://h/app"), None);
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        assert_eq!(without_password("https://me:secret@h/x"), "https://h/x");
        assert_eq!(without_password("git@h:x"), "git@h:x");
    }
}
