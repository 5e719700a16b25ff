//! Git's side of a push or a clone: the process, its streams, and which updates belong to which push.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::hq::door::{Caller, Door, Frame, Io, Service, Stdin};
use crate::hq::git::{self, GitError, Repository};
use crate::hq::shallow::{self, Opening};
use crate::hq::upgrade::{Traffic, Work};
use crate::names::{CommitId, StackName};
use crate::units::random;

/// Exit code for the person's mistake.
const MISTAKE: u8 = 1;

/// Exit code for a bug, or for something broken on HQ.
const BROKEN: u8 = 70;

/// Bytes read from git at once: two SSH packets.
const CHUNK: usize = 1 << 16;

/// The pushes under way. A push is known by a random id that only its own git and hook have in their environment:
/// no other process of the machine can hand over updates in a pusher's name.
#[derive(Debug)]
pub struct Pushes {
    /// A pusher who sends nothing for so long is done.
    silence: Duration,
    tickets: Mutex<BTreeMap<String, Ticket>>,
    /// Per repository, the commits at which the shallow pushes under way let history end. Held while the list in the
    /// repository is written.
    shallow: Mutex<BTreeMap<PathBuf, BTreeMap<String, BTreeSet<CommitId>>>>,
    /// Everybody who is inside, pushers or not.
    pub traffic: Arc<Traffic>,
}

/// What is known of a push under way.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The stack pushed to.
    pub stack: StackName,
    /// Who pushes.
    pub caller: Caller,
    /// Cancelled when the pusher has gone away.
    pub hung_up: CancellationToken,
    /// Counts among what is under way as long as this lives; of somebody who only fetches nothing does.
    pub work: Option<Arc<Work>>,
}

impl Default for Pushes {
    fn default() -> Self {
        Self::with_silence(Duration::from_secs(300))
    }
}

impl Pushes {
    /// No pushes yet. When a pusher sends nothing for `silence`, git sees its input end: it gives up a pack that has not
    /// come whole, and needs no more of one that has.
    pub fn with_silence(silence: Duration) -> Self {
        Self { silence, tickets: Mutex::default(), shallow: Mutex::default(), traffic: Arc::default() }
    }

    /// No pushes yet, of those who are counted here.
    pub fn of(traffic: Arc<Traffic>) -> Self {
        Self { traffic, ..Self::default() }
    }

    /// The push with this id.
    pub fn ticket(&self, id: &str) -> Option<Ticket> {
        self.lock().get(id).cloned()
    }

    /// Whether somebody pushes to this stack.
    pub fn is_pushed(&self, stack: &StackName) -> bool {
        self.lock().values().any(|ticket| ticket.stack == *stack)
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn admit(self: &Arc<Self>, ticket: Ticket) -> Admission {
        let id = random::hex::<16>();
        self.lock().insert(id.clone(), ticket);
        Admission { pushes: self.clone(), id }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shallow(&self, repository: &Path, id: &str) -> bool {
        let all = self.shallow.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(repository).is_some_and(|pushes| pushes.contains_key(id))
    }

    /// Lets history end at `roots` in `repository` for the push `id`; with none, the push is over. Blocks.
    fn set_shallow(&self, repository: &Path, id: &str, roots: BTreeSet<CommitId>) -> Result<(), GitError> {
        let mut all = self.shallow.lock().unwrap_or_else(PoisonError::into_inner);
        let pushes = all.entry(repository.to_owned()).or_default();
        if roots.is_empty() {
            pushes.remove(id);
        } else {
            pushes.insert(id.to_owned(), roots);
        }
        let expected = pushes.values().flatten().cloned().collect();
        if pushes.is_empty() {
            all.remove(repository);
        }
        Repository::open(repository)?.set_shallow(&expected)
    }
}

/// A push is under way as long as this lives.
struct Admission {
    pushes: Arc<Pushes>,
    id: String,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.pushes.lock().remove(&self.id);
    }
}

/// Where git's hook finds its way back to HQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The unix socket at which HQ waits for it.
    pub socket: PathBuf,
    /// The quarry program.
    pub program: PathBuf,
}

/// Serves one git client to its end and gives the exit code.
pub async fn serve(
    door: Arc<dyn Door>,
    pushes: Arc<Pushes>,
    paths: &Paths,
    caller: Caller,
    (service, stack): (Service, StackName),
    io: Io,
) -> u8 {
    // From the first byte: the hook comes when the whole pack is there, and nobody may have closed HQ's doors by then.
    let what = || format!("the push to {stack} by {}", caller.user);
    let work = (service == Service::Receive).then(|| Arc::new(pushes.traffic.work(what())));
    // Before the repository is asked for: whoever tidies after a failed push must see this one.
    let ticket = Ticket { stack: stack.clone(), caller, hung_up: io.hung_up.clone(), work: work.clone() };
    let admission = pushes.admit(ticket.clone());
    let code = admitted(&door, &pushes, paths, (service, ticket, &admission.id), io).await;
    drop(admission);
    if service == Service::Receive {
        door.pushed(&stack, &|| pushes.is_pushed(&stack)).await;
    }
    drop(work);
    code
}

async fn admitted(
    door: &Arc<dyn Door>,
    pushes: &Arc<Pushes>,
    paths: &Paths,
    (service, ticket, id): (Service, Ticket, &str),
    io: Io,
) -> u8 {
    let repository = match door.repository(&ticket.caller, &ticket.stack, service).await {
        Ok(repository) => repository,
        Err(reason) => return refuse(&io.output, &reason, MISTAKE).await,
    };
    let mut command = match service {
        Service::Receive => program("receive-pack", &repository),
        Service::Upload => program("upload-pack", &repository),
    };
    if let Some(protocol) =
        io.env.get("GIT_PROTOCOL").filter(|value| matches!(value.as_str(), "version=1" | "version=2"))
    {
        command.env("GIT_PROTOCOL", protocol);
    }
    command.env("QUARRY_PUSH", id);
    command.env("QUARRY_SOCKET", &paths.socket).env("QUARRY_PROGRAM", &paths.program);
    match command.spawn() {
        Ok(child) => {
            let history = History { pushes: pushes.clone(), repository, push: id.to_owned() };
            let code = match service {
                Service::Receive => attend(child, io, Some(history.clone())).await,
                Service::Upload => attend(child, io, None).await,
            };
            history.settle().await;
            code
        }
        Err(error) => refuse(&io.output, &format!("cannot run git: {error}"), BROKEN).await,
    }
}

async fn refuse(output: &mpsc::Sender<Frame>, reason: &str, code: u8) -> u8 {
    let line = format!("quarry: {reason}\n");
    // A client that is gone needs no reason.
    let _ = output.send(Frame::Stderr(line.into())).await;
    code
}

/// Memory of git's for one push or fetch, in bytes.
pub(super) const MEMORY: u64 = 2 << 30;

/// Processor time of each of git's processes for one push or fetch, in seconds: a pack of a few kilobytes can stand for
/// any number of bytes to go through, and the largest that are real take minutes.
pub(super) const TIME: u64 = 1200;

fn program(service: &str, repository: &Path) -> Command {
    // What a pack makes git hold at once has a limit: a few bytes can stand for any number of them.
    let mut command = Command::new("prlimit");
    command.arg(format!("--data={MEMORY}")).arg(format!("--cpu={TIME}")).args(["--", "git"]);
    command.env_clear().envs(git::environment(repository)).arg(service).arg(repository);
    // A group of its own: Ctrl-C in the terminal that runs `quarry serve` is not for git.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The list of commits at which a repository's history ends, on behalf of one push.
#[derive(Clone)]
struct History {
    pushes: Arc<Pushes>,
    repository: PathBuf,
    push: String,
}

impl History {
    async fn end_at(&self, roots: BTreeSet<CommitId>) -> Result<(), String> {
        let History { pushes, repository, push } = self.clone();
        let work = move || pushes.set_shallow(&repository, &push, roots).map_err(|error| error.to_string());
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|bug| Err(bug.to_string()))
    }

    /// The push is over: what it asked for and did not need goes.
    async fn settle(&self) {
        if self.pushes.is_shallow(&self.repository, &self.push)
            && let Err(error) = self.end_at(BTreeSet::new()).await
        {
            warn!(error, "cannot tidy the list of shallow commits");
        }
    }
}

/// Connects the streams and waits for git. Git is never killed: when the client hangs up its input ends, and a hook
/// that waits for HQ's answer still gets it.
async fn attend(mut child: Child, io: Io, history: Option<History>) -> u8 {
    let Io { stdin, output, hung_up, .. } = io;
    let feeding = child.stdin.take().map(|into| {
        let complaints = output.clone();
        tokio::spawn(async move {
            let fed = tokio::select! {
                fed = feed(stdin, into, history) => fed,
                () = hung_up.cancelled() => Ok(()),
            };
            if let Err(reason) = fed {
                refuse(&complaints, &reason, MISTAKE).await;
            }
        })
    });
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = async {
        if let Some(stdout) = stdout {
            relay(stdout, &output, Frame::Stdout).await;
        }
    };
    let err = async {
        if let Some(stderr) = stderr {
            relay(stderr, &output, Frame::Stderr).await;
        }
    };
    tokio::join!(out, err);
    let status = child.wait().await;
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    status.map_or(BROKEN, code)
}

/// Passes input on to git, without the lines at the start of a push that HQ acts on itself. The error is for the
/// client; git then sees its input end.
async fn feed(mut stdin: Stdin, mut into: ChildStdin, history: Option<History>) -> Result<(), String> {
    let mut silence = None;
    if let Some(history) = history {
        silence = Some(history.pushes.silence);
        let mut start = BytesMut::new();
        let (roots, length) = loop {
            match shallow::opening(&start).map_err(|error| error.to_string())? {
                Opening::Over { roots, length } => break (roots, length),
                Opening::More => match chunk(&mut stdin, silence).await {
                    Some(chunk) => start.extend_from_slice(&chunk),
                    None => return Ok(()),
                },
            }
        };
        if !roots.is_empty() {
            history.end_at(roots.into_iter().collect()).await?;
        }
        if into.write_all(&start[length..]).await.is_err() {
            return Ok(());
        }
    }
    while let Some(chunk) = chunk(&mut stdin, silence).await {
        // Git has closed its input: it has read enough, or has failed and says so itself.
        if into.write_all(&chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The next input; `None` at its end, or when nothing has come for so long.
async fn chunk(stdin: &mut Stdin, silence: Option<Duration>) -> Option<Bytes> {
    match silence {
        Some(silence) => tokio::time::timeout(silence, stdin.chunk()).await.ok().flatten(),
        None => stdin.chunk().await,
    }
}

/// Passes a stream on to its end, also when nobody takes it any more: git must not fail halfway for want of a reader.
async fn relay(mut from: impl AsyncRead + Unpin, output: &mpsc::Sender<Frame>, frame: fn(Bytes) -> Frame) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let _ = output.send(frame(buffer.split().freeze())).await;
            }
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}
