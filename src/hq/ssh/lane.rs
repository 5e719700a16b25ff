//! One SSH channel and what runs on it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::hq::door::{Caller, EVENTS, FRAMES, Feed, Frame, Io, IoEvent, Stdin, Terminal};
use crate::hq::exec::{self, Request};
use crate::hq::push;
use crate::hq::ssh::tcp::Control;
use crate::hq::ssh::{Phase, Server};

/// Exit code of a command line that cannot be read.
const USAGE: u8 = 2;

/// Exit code of a bug.
const BUG: u8 = 70;

/// One session channel.
pub(crate) struct Lane {
    /// Size and kind of the client's terminal, if it asked for one.
    pub(crate) terminal: Option<Terminal>,
    /// Variables the client asked for.
    pub(crate) env: BTreeMap<String, String>,
    state: State,
}

enum State {
    /// Open, nothing asked yet.
    Open(ChannelWriteHalf<Msg>, watch::Sender<Phase>),
    /// Runs something.
    Running(Running),
}

/// The client's side of a running command.
struct Running {
    /// `None` after the end of the input.
    feed: Option<Feed>,
    events: mpsc::Sender<IoEvent>,
    /// Cancelled when either side is done.
    over: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// A channel counts as present from when something is started on it until it is closed and that has ended.
struct Presence(watch::Sender<Phase>);

impl Presence {
    /// One more channel.
    fn new(phase: watch::Sender<Phase>) -> Self {
        let presence = Presence(phase);
        presence.count(|channels| channels + 1);
        presence
    }

    fn count(&self, change: impl Fn(usize) -> usize) {
        self.0.send_modify(|phase| {
            let before = match *phase {
                Phase::Login(_) => 0,
                Phase::In { channels, .. } => channels,
            };
            *phase = Phase::In { channels: change(before), since: Instant::now() };
        });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.count(|channels| channels.saturating_sub(1));
    }
}

impl Lane {
    /// A channel just opened.
    pub(crate) fn new(output: ChannelWriteHalf<Msg>, phase: watch::Sender<Phase>) -> Self {
        Self { terminal: None, env: BTreeMap::new(), state: State::Open(output, phase) }
    }

    /// Whether something has been started on it.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// Whether what was started on it has ended.
    pub(crate) fn is_over(&self) -> bool {
        match &self.state {
            State::Open(..) => false,
            State::Running(running) => running.over.is_cancelled(),
        }
    }

    /// Starts what the exec string asks for; `false` when something was started already.
    pub(crate) fn start(&mut self, server: Arc<Server>, caller: Caller, exec: Vec<u8>, control: Arc<Control>) -> bool {
        if self.is_running() {
            return false;
        }
        let (feed, stdin) = Stdin::pair({
            let control = control.clone();
            move |bytes| control.taken(bytes)
        });
        let (events, io_events) = mpsc::channel(EVENTS);
        let (output, frames) = mpsc::channel(FRAMES);
        let over = CancellationToken::new();
        let running = Running { feed: Some(feed), events, over: over.clone() };
        let State::Open(channel, phase) = std::mem::replace(&mut self.state, State::Running(running)) else {
            unreachable!("looked at above");
        };
        let presence = Presence::new(phase);
        let io = Io {
            stdin,
            output,
            terminal: self.terminal.clone(),
            events: io_events,
            // Whatever a command does to its own token, its answer is still sent.
            hung_up: over.child_token(),
            env: std::mem::take(&mut self.env),
        };
        let work = tokio::spawn(perform(server, caller, exec, io));
        tokio::spawn(async move {
            Outlet { channel, control, over: over.clone() }.run(work, frames).await;
            over.cancel();
            drop(presence);
        });
        true
    }

    /// A chunk of input; `false` when far too much waits.
    pub(crate) fn input(&self, data: &[u8], control: &Control) -> bool {
        if self.terminal.is_some() && data.contains(&3) {
            self.event(IoEvent::Interrupt);
        }
        let State::Running(Running { feed: Some(feed), .. }) = &self.state else { return true };
        let fits = control.arrived(data.len());
        if !feed.send(Bytes::copy_from_slice(data)) {
            control.taken(data.len());
        }
        fits
    }

    /// The input has ended.
    pub(crate) fn end_input(&mut self) {
        match &mut self.state {
            State::Open(..) => {}
            State::Running(running) => running.feed = None,
        }
    }

    /// Something happens to what runs. Lost when it does not look: then nobody waits for it.
    pub(crate) fn event(&self, event: IoEvent) {
        match &self.state {
            State::Open(..) => {}
            State::Running(running) => drop(running.events.try_send(event)),
        }
    }
}

async fn perform(server: Arc<Server>, caller: Caller, exec: Vec<u8>, io: Io) -> u8 {
    match exec::parse(&exec) {
        Ok(Request::Git(service, stack)) => {
            let (door, pushes) = (server.door.clone(), server.pushes.clone());
            push::serve(door, pushes, &server.paths, caller, (service, stack), io).await
        }
        Ok(Request::Command(words)) if words.is_empty() => server.door.command(caller, vec!["help".into()], io).await,
        Ok(Request::Command(words)) => server.door.command(caller, words, io).await,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            // A client that is gone needs no reason.
            let _ = io.output.send(Frame::Stderr(format!("quarry: {error}{cause}\n").into())).await;
            USAGE
        }
    }
}

/// The way out of a channel.
struct Outlet {
    channel: ChannelWriteHalf<Msg>,
    control: Arc<Control>,
    over: CancellationToken,
}

impl Outlet {
    /// Passes a command's output on: all of it, then the exit code. When the client goes, the queue is closed, and the
    /// command learns it from there.
    async fn run(&self, mut work: JoinHandle<u8>, mut frames: mpsc::Receiver<Frame>) {
        let mut code = None;
        loop {
            let frame = tokio::select! {
                frame = frames.recv() => frame,
                ended = &mut work, if code.is_none() => {
                    code = Some(exit(ended));
                    frames.close();
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            if !self.send(frame).await {
                drop(frames);
                // A client's absence does not end what runs for it; the channel counts until it has ended.
                if code.is_none() {
                    exit(work.await);
                }
                return;
            }
        }
        let code = match code {
            Some(code) => code,
            // Every sender is gone before the command is.
            None => exit(work.await),
        };
        // Errors here mean that the client has closed first.
        let _ = self.channel.exit_status(u32::from(code)).await;
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }

    /// Sends one frame; `false` when the client is gone. A channel that is closed never grows its window again, so
    /// waiting for it ends with the channel.
    async fn send(&self, frame: Frame) -> bool {
        let _starving = self.control.starve();
        let sent = async {
            match frame {
                Frame::Stdout(bytes) => self.channel.data_bytes(bytes).await,
                Frame::Stderr(bytes) => self.channel.extended_data_bytes(1, bytes).await,
            }
        };
        tokio::select! {
            sent = sent => sent.is_ok(),
            () = self.over.cancelled() => false,
        }
    }
}

fn exit(ended: Result<u8, JoinError>) -> u8 {
    ended.unwrap_or_else(|bug| {
        warn!(%bug, "a command fell over");
        BUG
    })
}
