//! The seam between the ways into HQ (SSH, the unix socket, the HTTP api) and what HQ does.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::hq::keys::PublicKey;
use crate::names::{CommitId, StackName, UserName};

/// What HQ does for those who come in.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// Whose key this is; `None` refuses. Asked for every key a client offers, so it answers from memory.
    async fn who(&self, key: &PublicKey) -> Option<UserName>;

    /// Whose token has this digest, as [`crate::hq::tokens::digest`] makes it; `None` refuses. Answers from memory, too.
    async fn bearer(&self, digest: &str) -> Option<UserName>;

    /// Moves whenever the answers of [`Door::who`] and [`Door::bearer`] may be others.
    fn keys(&self) -> watch::Receiver<u64>;

    /// The bare repository of a stack, for git to serve. For [`Service::Receive`] stack and repository are made when
    /// they are missing. The error is the one line the client sees.
    async fn repository(&self, caller: &Caller, stack: &StackName, service: Service) -> Result<PathBuf, String>;

    /// A push of a stack is over. A stack that only failed pushes have made goes again, unless somebody still pushes to
    /// it: `is_pushed` tells. Whoever pushes counts before asking for the repository.
    async fn pushed(&self, stack: &StackName, is_pushed: &(dyn Fn() -> bool + Send + Sync)) {
        let _ = (stack, is_pushed);
    }

    /// Runs a command given by its words and gives its exit code. What it sent to `io.output` before it returns
    /// arrives before the exit code; what is sent later is lost.
    async fn command(&self, caller: Caller, words: Vec<String>, io: Io) -> u8;

    /// The same for those to whom an exit code says too little.
    async fn ask(&self, caller: Caller, words: Vec<String>, io: Io) -> Ended {
        Ended::with(self.command(caller, words, io).await)
    }

    /// A change of a branch that a pusher asks for. HQ moves the branch itself (or not); the error is the reason the
    /// pusher sees. Runs to its end when the pusher goes away: `update.hung_up` tells.
    async fn update(&self, update: Update, say: Say) -> Result<(), String>;
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: u8,
    /// Why it is not 0; `None` for success, and for the code of a program that it ran.
    pub why: Option<Why>,
}

impl Ended {
    /// What an exit code alone says.
    pub fn with(code: u8) -> Self {
        let why = match code {
            1 => Some(Why::Mistake),
            2 => Some(Why::Usage),
            3 => Some(Why::Refused),
            70 => Some(Why::Bug),
            _ => None,
        };
        Self { code, why }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What is named does not exist, or it is kept from the caller that it does.
    Missing,
    /// The caller's mistake.
    Mistake,
    /// The command line is not one.
    Usage,
    /// The caller may not.
    Forbidden,
    /// A name is taken.
    Taken,
    /// It was understood and did not work out; nothing changed.
    Refused,
    /// What it takes does not answer at the moment.
    Away,
    /// Quarry's own fault.
    Bug,
}

/// Which side of git's conversation HQ takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `git-receive-pack`: the client pushes.
    Receive,
    /// `git-upload-pack`: the client clones or fetches.
    Upload,
}

/// Who calls and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The owner of the key, or of the machine.
    pub user: UserName,
    /// Which way they came.
    pub from: Origin,
}

/// Which way a caller came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By SSH or the HTTP api from this address.
    Address(IpAddr),
    /// By HQ's own unix socket.
    Socket,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Address(address) => address.fmt(f),
            Origin::Socket => f.write_str("socket"),
        }
    }
}

/// A branch update handed over by git's proc-receive hook.
#[derive(Debug, Clone)]
pub struct Update {
    /// The stack pushed to.
    pub stack: StackName,
    /// Who pushes.
    pub caller: Caller,
    /// The whole reference, such as `refs/heads/master`.
    pub reference: String,
    /// What the pusher believes it points to; `None` for a new one.
    pub old: Option<CommitId>,
    /// What it is to point to; `None` deletes it.
    pub new: Option<CommitId>,
    /// Cancelled when the pusher has gone away.
    pub hung_up: CancellationToken,
}

/// A command's streams.
pub struct Io {
    /// Standard input.
    pub stdin: Stdin,
    /// Standard output and error, in the order sent; full means the client is slow, an error that it is gone.
    pub output: mpsc::Sender<Frame>,
    /// The client's terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// What happens meanwhile; `None` from it means that the client has hung up.
    pub events: mpsc::Receiver<IoEvent>,
    /// Cancelled when the client has hung up.
    pub hung_up: CancellationToken,
    /// Variables the client asked to be set. Only git's `GIT_PROTOCOL` is ever looked at.
    pub env: BTreeMap<String, String>,
}

/// One chunk of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// A client's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The `TERM` variable.
    pub term: String,
    /// Width in characters; 0 when unknown.
    pub columns: u16,
    /// Height in characters; 0 when unknown.
    pub rows: u16,
}

/// What happens to a running command from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IoEvent {
    /// The terminal has another size.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in characters.
        rows: u16,
    },
    /// A signal by its name without `SIG`, such as `INT`.
    Signal(String),
    /// Ctrl-C was typed in a terminal. It is in the input too: who passes the input on to a terminal ignores this.
    Interrupt,
}

/// How many events wait for a command that does not look; further ones are dropped.
pub const EVENTS: usize = 16;

/// How many frames of output wait for a slow client.
pub const FRAMES: usize = 8;

/// Standard input as it arrives. Whoever feeds it learns how much has been taken and holds the client back by that.
pub struct Stdin {
    queue: mpsc::UnboundedReceiver<Bytes>,
    current: Bytes,
    taken: Arc<dyn Fn(usize) + Send + Sync>,
}

/// The feeding end of [`Stdin`]; dropping it is the end of the input.
#[derive(Clone)]
pub struct Feed(mpsc::UnboundedSender<Bytes>);

impl Feed {
    /// Adds a chunk; `false` when nobody will read it.
    pub fn send(&self, chunk: Bytes) -> bool {
        self.0.send(chunk).is_ok()
    }
}

impl Stdin {
    /// A pair of ends; `taken` hears the size of each chunk that leaves the queue, read or thrown away.
    pub fn pair(taken: impl Fn(usize) + Send + Sync + 'static) -> (Feed, Stdin) {
        let (sender, queue) = mpsc::unbounded_channel();
        (Feed(sender), Stdin { queue, current: Bytes::new(), taken: Arc::new(taken) })
    }

    /// An input with nothing in it.
    pub fn empty() -> Stdin {
        Stdin::pair(|_| ()).1
    }

    /// All of it; `None` as soon as it is longer than `limit` bytes.
    pub async fn at_most(mut self, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit {
                return None;
            }
        }
        Some(bytes)
    }

    /// The next chunk, `None` at the end. Spares the copy that reading makes.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        if self.current.has_remaining() {
            return Some(std::mem::take(&mut self.current));
        }
        let chunk = self.queue.recv().await?;
        (self.taken)(chunk.len());
        Some(chunk)
    }
}

impl AsyncRead for Stdin {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while !self.current.has_remaining() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(chunk) => {
                    (self.taken)(chunk.len());
                    self.current = chunk;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = into.remaining().min(self.current.len());
        into.put_slice(&self.current.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(chunk) = self.queue.try_recv() {
            (self.taken)(chunk.len());
        }
    }
}

/// Lines to the pusher. Sending never waits, so that a build does not depend on the pusher's terminal; of a pusher
/// who does not read, the lines beyond [`Say::BACKLOG`] are left out.
#[derive(Clone)]
pub struct Say {
    lines: mpsc::UnboundedSender<String>,
    waiting: Arc<AtomicUsize>,
}

/// The other end of [`Say`].
pub struct Lines {
    lines: mpsc::UnboundedReceiver<String>,
    waiting: Arc<AtomicUsize>,
}

impl Say {
    /// Lines that may wait for the pusher.
    pub const BACKLOG: usize = 10_000;

    /// A pair of ends.
    pub fn pair() -> (Say, Lines) {
        let (sender, lines) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        (Say { lines: sender, waiting: waiting.clone() }, Lines { lines, waiting })
    }

    /// Says one line (or several, separated by newlines). Nobody listening is no error.
    pub fn line(&self, text: impl Into<String>) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < Self::BACKLOG {
            // The pusher is gone: the deploy goes on without an audience.
            let _ = self.lines.send(text.into());
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Lines {
    /// The next line; `None` when every [`Say`] is gone.
    pub async fn next(&mut self) -> Option<String> {
        let line = self.lines.recv().await?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn every_byte_of_input_is_reported_taken_once_read_or_not() {
        let taken = Arc::new(Mutex::new(0));
        let total = taken.clone();
        let (feed, mut stdin) = Stdin::pair(move |bytes| *total.lock().unwrap() += bytes);
        feed.send(Bytes::from_static(b"hello "));
        feed.send(Bytes::from_static(b"world"));
        feed.send(Bytes::from_static(b"!!!"));
        let mut first = [0; 8];
        stdin.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"hello wo");
        assert_eq!(stdin.chunk().await, Some(Bytes::from_static(b"rld")));
        assert_eq!(*taken.lock().unwrap(), 11);
        drop(stdin);
        assert_eq!(*taken.lock().unwrap(), 14);
        assert!(!feed.send(Bytes::from_static(b"x")));
    }

    #[tokio::test]
    async fn a_pusher_who_does_not_read_costs_a_bounded_number_of_lines() {
        let (say, mut lines) = Say::pair();
        for number in 0..Say::BACKLOG + 5 {
            say.line(number.to_string());
        }
        assert_eq!(lines.next().await.as_deref(), Some("0"));
        say.line("last");
        drop(say);
        let mut seen = 1;
        let mut last = String::new();
        while let Some(line) = lines.next().await {
            seen += 1;
            last = line;
        }
        assert_eq!((seen, last.as_str()), (Say::BACKLOG + 1, "last"));
    }
}
