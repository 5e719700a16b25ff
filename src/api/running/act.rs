//! Runs a command and passes its output on, to its end or as it comes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::endpoints::Order;
use crate::api::streams::{HEARTBEAT, Lines, trouble};
use crate::api::trouble::{Kind, Trouble};
use crate::hq::door::{Caller, Door, EVENTS, Ended, FRAMES, Frame, Io, IoEvent, Stdin, Why};
use crate::hq::upgrade::Guest;
use crate::names::UserName;

/// The longest output of a command that is answered with at once, in bytes.
const LONGEST: usize = 64 << 20;

/// Of what a command says beside its data the last bytes are kept.
const SAID: usize = 256 << 10;

/// How long a stream of events is silent before it is looked whether somebody listens.
const SILENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether a token has come to its end.
const LOOK: Duration = Duration::from_secs(10);

/// A command under way. Dropped it goes on as it does for a client of SSH that hangs up.
pub struct Running {
    pending: mpsc::Receiver<Frame>,
    work: JoinHandle<Ended>,
    ended: Option<Ended>,
    said: Vec<u8>,
    token: Option<Token>,
    door: Arc<dyn Door>,
    /// Whoever holds the other end takes its closing for a hang-up.
    _events: mpsc::Sender<IoEvent>,
    _hung_up: DropGuard,
    _guest: Guest,
}

/// The token that a stream hangs on.
struct Token {
    digest: String,
    user: UserName,
    changes: watch::Receiver<u64>,
    look: tokio::time::Interval,
}

impl Token {
    /// Waits until it may have come to its end.
    async fn turned(&mut self) {
        tokio::select! {
            Ok(()) = self.changes.changed() => {}
            _ = self.look.tick() => {}
        }
    }
}

impl Running {
    /// Begins to carry out an order. `guest` is inside until this is dropped.
    pub fn begin(door: Arc<dyn Door>, caller: Caller, order: Order, guest: Guest) -> Self {
        let (feed, stdin) = Stdin::pair(|_| ());
        feed.send(order.input.into());
        let (output, pending) = mpsc::channel(FRAMES);
        let (events, io_events) = mpsc::channel(EVENTS);
        let hung_up = CancellationToken::new();
        let env = Default::default();
        let io = Io { stdin, output, terminal: None, events: io_events, hung_up: hung_up.clone(), env };
        let behind = door.clone();
        let work = tokio::spawn(async move { behind.ask(caller, order.words, io).await });
        let (ended, said, token) = Default::default();
        let hung_up = hung_up.drop_guard();
        Self { pending, work, ended, said, token, door, _events: events, _hung_up: hung_up, _guest: guest }
    }

    /// From now on it ends with this token of this user.
    pub fn while_holds(&mut self, digest: String, user: UserName) {
        self.token = Some(Token { digest, user, changes: self.door.keys(), look: interval(LOOK) });
    }

    /// The next piece of its data; `None` when it has ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let turned = async {
                match &mut self.token {
                    Some(token) => token.turned().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = self.pending.recv() => match frame {
                    Some(Frame::Stdout(bytes)) if bytes.is_empty() => {}
                    Some(Frame::Stdout(bytes)) => return Some(bytes),
                    Some(Frame::Stderr(bytes)) => self.hear(&bytes),
                    None => {
                        if self.ended.is_none() {
                            let ended = (&mut self.work).await;
                            self.ended = Some(ended.unwrap_or_else(fallen));
                        }
                        return None;
                    }
                },
                ended = &mut self.work, if self.ended.is_none() => {
                    self.ended = Some(ended.unwrap_or_else(fallen));
                    self.pending.close();
                }
                () = turned => self.look().await,
            }
        }
    }

    /// Ends it when its token opens nothing any more.
    async fn look(&mut self) {
        let Some(token) = &self.token else { return };
        if self.ended.is_none() && self.door.bearer(&token.digest).await.as_ref() != Some(&token.user) {
            self.work.abort();
            self.ended = Some(Ended { code: 3, why: Some(Why::Forbidden) });
            self.hear(b"quarry: the token opens nothing any more\n");
            // Whoever writes sees that nobody reads, as if the client had hung up.
            self.pending.close();
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        let surplus = self.said.len().saturating_sub(SAID);
        self.said.drain(..surplus);
    }

    /// Why it did not do what it was asked to, once it has ended.
    pub fn trouble(&self) -> Option<Trouble> {
        Trouble::of(self.ended?, &String::from_utf8_lossy(&self.said))
    }

    /// Its data and what it said beside that.
    ///
    /// # Errors
    /// When it did not do what it was asked to.
    pub async fn to_end(mut self) -> Result<(Vec<u8>, String), Trouble> {
        let mut output = Vec::new();
        while let Some(chunk) = self.next().await {
            if output.len() + chunk.len() > LONGEST {
                return Err(Trouble::new(Kind::Bug, format!("the answer is longer than {LONGEST} bytes")));
            }
            output.extend_from_slice(&chunk);
        }
        match self.trouble() {
            Some(trouble) => Err(trouble),
            None => Ok((output, String::from_utf8_lossy(&self.said).into_owned())),
        }
    }

    /// Its data from `first` on; the stream breaks off where it ends in trouble.
    pub fn bytes(self, first: Bytes) -> BoxStream<'static, io::Result<Bytes>> {
        let begin = (Some(self), Some(first).filter(|first| !first.is_empty()));
        let chunks = unfold(begin, |(running, first)| async move {
            let mut running = running?;
            if let Some(first) = first {
                return Some((Ok(first), (Some(running), None)));
            }
            match running.next().await {
                Some(chunk) => Some((Ok(chunk), (Some(running), None))),
                None => running.trouble().map(|trouble| (Err(io::Error::other(trouble.message)), (None, None))),
            }
        });
        chunks.boxed()
    }

    /// Its lines from `first` on as events; trouble at its end is the last one.
    pub fn events(self, first: Bytes) -> BoxStream<'static, io::Result<Bytes>> {
        let mut lines = Lines::default();
        // Even of a silent stream the beginning is seen.
        let first = format!("{HEARTBEAT}{}", lines.add(&first));
        let events = unfold((Some(self), lines, Some(first)), |(running, mut lines, first)| async move {
            let mut running = running?;
            if let Some(first) = first {
                return Some((Ok(Bytes::from(first)), (Some(running), lines, None)));
            }
            loop {
                let text = match timeout(SILENCE, running.next()).await {
                    Err(_) => HEARTBEAT.to_owned(),
                    Ok(Some(chunk)) => lines.add(&chunk),
                    Ok(None) => {
                        let last = running.trouble().map(|last| trouble(&last.body("stream")["error"]))?;
                        return Some((Ok(last.into()), (None, lines, None)));
                    }
                };
                if !text.is_empty() {
                    return Some((Ok(text.into()), (Some(running), lines, None)));
                }
            }
        });
        events.boxed()
    }
}

/// A command that fell over.
fn fallen(bug: tokio::task::JoinError) -> Ended {
    tracing::warn!(%bug, "a command of the api fell over");
    Ended::with(70)
}
