//! The client's side of HQ's unix socket: a command typed on HQ's machine, run by the HQ that is up.

use std::io::{self, IsTerminal};
use std::path::Path;

use bytes::Bytes;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::hq::door::{EVENTS, IoEvent, Terminal};
use crate::hq::frames::{CHUNK, CREDIT, Message};
use crate::hq::socket::{Reader, SocketError, Writer};

/// What becomes of the terminal the command is typed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It stays as it is: lines are edited here, Ctrl-C is a signal.
    Plain,
    /// What is typed is not shown: it may be a password.
    Silent,
    /// Every key goes to the command, as for a shell in a container.
    Raw,
}

/// Runs a command on the HQ behind `path`, with this process's streams, and gives its exit code.
///
///
/// # Errors
/// When there is no HQ, or when it goes away.
pub async fn call(path: &Path, words: Vec<String>, mode: Mode) -> Result<u8, SocketError> {
    let (events, pending) = mpsc::channel(EVENTS);
    let changed = Changed::enter(mode);
    let raw = changed.is_some() && mode == Mode::Raw;
    let terminal = if raw || io::stdout().is_terminal() { Some(terminal()) } else { None };
    let watching = tokio::spawn(watch(events, changed.as_ref().map(|changed| changed.0.clone())));
    let streams = Streams { stdin: tokio::io::stdin(), stdout: tokio::io::stdout(), stderr: tokio::io::stderr() };
    let code = converse(path, words, terminal, streams, pending).await;
    watching.abort();
    drop(changed);
    code
}

/// A caller's streams.
pub struct Streams<I, O, E> {
    /// What the command reads.
    pub stdin: I,
    /// Where its output goes.
    pub stdout: O,
    /// Where its complaints go.
    pub stderr: E,
}

/// Runs a command on the HQ behind `path` and gives its exit code. All output has been written by then.
///
/// # Errors
/// When there is no HQ, when it goes away, or when the output cannot be written.
pub async fn converse<I, O, E>(
    path: &Path,
    words: Vec<String>,
    terminal: Option<Terminal>,
    streams: Streams<I, O, E>,
    mut events: mpsc::Receiver<IoEvent>,
) -> Result<u8, SocketError>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let Streams { mut stdin, mut stdout, mut stderr } = streams;
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| SocketError::Connect { path: path.to_owned(), source })?;
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    writer.send(&Message::Command { words, terminal }).await?;
    let mut chunk = vec![0; CHUNK];
    let mut credit = CREDIT as usize;
    let mut input = Input::Open;
    loop {
        // Read is only what may be sent: a chunk is asked for when a whole one is granted.
        let message = tokio::select! {
            read = stdin.read(&mut chunk), if input == Input::Open && credit >= CHUNK => match read {
                Ok(length @ 1..) => {
                    credit -= length;
                    Message::Stdin(Bytes::copy_from_slice(&chunk[..length]))
                }
                Ok(0) | Err(_) => {
                    input = Input::Ended;
                    Message::StdinEnd
                }
            },
            Some(event) = events.recv() => told(event),
            answer = reader.next() => match answer? {
                Some(Message::Stdout(bytes)) => {
                    write(&mut stdout, &bytes).await?;
                    continue;
                }
                Some(Message::Stderr(bytes)) => {
                    write(&mut stderr, &bytes).await?;
                    continue;
                }
                Some(Message::Credit(bytes)) => {
                    credit += bytes as usize;
                    continue;
                }
                Some(Message::Exit(code)) => return Ok(code),
                Some(_) => continue,
                None => return Err(SocketError::Lost(io::ErrorKind::UnexpectedEof.into())),
            },
        };
        // HQ has closed its ear: what it still says, above all the exit code, is read on.
        let _ = writer.send(&message).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

fn told(event: IoEvent) -> Message {
    match event {
        IoEvent::Resize { columns, rows } => Message::Resize { columns, rows },
        IoEvent::Signal(name) => Message::Signal(name),
        IoEvent::Interrupt => Message::Signal("INT".into()),
    }
}

async fn write(into: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), SocketError> {
    into.write_all(bytes).await.map_err(SocketError::Lost)?;
    into.flush().await.map_err(SocketError::Lost)
}

/// The terminal this process is in.
fn terminal() -> Terminal {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    let (columns, rows) = size.map_or((0, 0), |size| (size.ws_col, size.ws_row));
    Terminal { term: std::env::var("TERM").unwrap_or_else(|_| "dumb".into()), columns, rows }
}

/// Turns this process's signals into events. The second Ctrl-C ends the process, as a person expects who waits.
/// It leaves the terminal as it was before.
async fn watch(events: mpsc::Sender<IoEvent>, before: Option<Termios>) {
    let kinds = [SignalKind::window_change(), SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    let Ok([mut resize, mut interrupt, mut terminate, mut quit]) = signals(kinds) else { return };
    let mut times = 0;
    loop {
        let event = tokio::select! {
            _ = resize.recv() => {
                let Terminal { columns, rows, .. } = terminal();
                IoEvent::Resize { columns, rows }
            }
            _ = interrupt.recv() => {
                times += 1;
                if times > 1 {
                    before.into_iter().for_each(restore);
                    std::process::exit(130);
                }
                IoEvent::Signal("INT".into())
            }
            _ = terminate.recv() => IoEvent::Signal("TERM".into()),
            _ = quit.recv() => IoEvent::Signal("QUIT".into()),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn signals<const N: usize>(kinds: [SignalKind; N]) -> io::Result<[Signal; N]> {
    let signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    Ok(signals.try_into().unwrap_or_else(|_| unreachable!("one signal per kind")))
}

/// The terminal is another one as long as this lives; how it was before.
struct Changed(Termios);

impl Changed {
    /// `None` when it stays as it is, or standard input is no terminal.
    fn enter(mode: Mode) -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut terminal = before.clone();
        match mode {
            Mode::Plain => return None,
            Mode::Silent => terminal.local_modes.remove(LocalModes::ECHO),
            Mode::Raw => terminal.make_raw(),
        }
        tcsetattr(io::stdin(), OptionalActions::Now, &terminal).ok()?;
        Some(Self(before))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        restore(self.0.clone());
    }
}

fn restore(before: Termios) {
    // A terminal that is gone cannot be restored.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
}
