//! HQ's unix sockets: `hq.sock` for commands typed on HQ itself, `git.sock` for updates handed over by git's hook.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::hq::door::{Caller, Door, EVENTS, FRAMES, Feed, Frame, Io, IoEvent, Origin, Say, Stdin, Terminal, Update};
use crate::hq::frames::{self, BadFrame, CHUNK, CREDIT, Message};
use crate::hq::push::{Pushes, Ticket};
use crate::hq::upgrade::Traffic;
use crate::names::{CommitId, UserName};

pub mod call;
pub mod relay;

/// What went wrong on the socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// No HQ behind it.
    #[error("no HQ answers at {}; is `quarry serve` running?", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The other side has gone in the middle.
    #[error("HQ has gone away")]
    Lost(#[source] io::Error),
    /// The other side speaks another language.
    #[error("cannot understand the other side")]
    Frame(#[source] BadFrame),
}

/// Makes the socket. Only its owner can connect; one left behind by an earlier HQ is replaced.
///
/// # Errors
/// When it cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let listen = || {
        // Closed to others before it can be reached under its name.
        let new = path.with_extension("sock-new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    listen().map_err(|source| SocketError::Listen { path: path.to_owned(), source })
}

/// Serves commands until `stop`. Callers by socket own the machine; they are called `user`.
pub async fn serve(
    listener: UnixListener,
    door: Arc<dyn Door>,
    traffic: Arc<Traffic>,
    user: UserName,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = traffic.until(|state| state.held) => {
                let _closed = traffic.close();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = traffic.until(|state| !state.held) => continue,
                }
            }
            stream = next(&listener) => stream,
        };
        let (door, user, guest) = (door.clone(), user.clone(), traffic.guest());
        tokio::spawn(async move {
            let _guest = guest;
            if let Err(error) = attend(stream, door, user).await {
                debug!(%error, "a client of the socket is gone");
            }
        });
    }
}

/// Serves git's hooks until `stop`, also while nobody is let in: the pushes to which they belong are inside already, and
/// have to come to their end.
pub async fn serve_hooks(listener: UnixListener, door: Arc<dyn Door>, pushes: Arc<Pushes>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            stream = next(&listener) => stream,
        };
        let (door, pushes) = (door.clone(), pushes.clone());
        tokio::spawn(async move {
            if let Err(error) = attend_hook(stream, door, pushes).await {
                debug!(%error, "a hook is gone");
            }
        });
    }
}

/// The next client.
async fn next(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(%error, "cannot accept on the socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: UnixStream, door: Arc<dyn Door>, user: UserName) -> Result<(), SocketError> {
    let (reader, writer) = stream.into_split();
    let (mut reader, writer) = (Reader::new(reader), Writer::new(writer));
    match reader.next().await? {
        Some(Message::Command { words, terminal }) => {
            let caller = Caller { user, from: Origin::Socket };
            command(door, caller, words, terminal, reader, writer).await
        }
        // Nothing else opens a conversation.
        Some(_) | None => Ok(()),
    }
}

async fn attend_hook(stream: UnixStream, door: Arc<dyn Door>, pushes: Arc<Pushes>) -> Result<(), SocketError> {
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    while let Some(Message::Update { push, reference, old, new }) = reader.next().await? {
        update(&door, &pushes, Asked { push, reference, old, new }, &mut writer).await?;
    }
    Ok(())
}

/// What a hook asks for.
struct Asked {
    push: String,
    reference: String,
    old: Option<CommitId>,
    new: Option<CommitId>,
}

async fn update(door: &Arc<dyn Door>, pushes: &Pushes, asked: Asked, writer: &mut Writer) -> Result<(), SocketError> {
    let Asked { push, reference, old, new } = asked;
    let Some(ticket) = pushes.ticket(&push) else {
        return writer.send(&Message::Refused("this push is not under way".into())).await;
    };
    let Ticket { stack, caller, hung_up, work: counted } = ticket;
    let update = Update { stack, caller, reference, old, new, hung_up: hung_up.clone() };
    let (say, mut lines) = Say::pair();
    // A task of its own: the update runs to its end also when the hook is killed, and git with it.
    let work = tokio::spawn({
        let door = door.clone();
        async move {
            let _counted = counted;
            door.update(update, say).await
        }
    });
    while let Some(line) = lines.next().await {
        let text = Bytes::from(line + "\n");
        if let Err(error) = writer.send(&Message::Stderr(text)).await {
            hung_up.cancel();
            return Err(error);
        }
    }
    let answer = match work.await {
        Ok(Ok(())) => Message::Done,
        Ok(Err(reason)) => Message::Refused(reason),
        Err(bug) => {
            warn!(%bug, "an update fell over");
            Message::Refused("internal error; HQ's log has the details".into())
        }
    };
    writer.send(&answer).await
}

async fn command(
    door: Arc<dyn Door>,
    caller: Caller,
    words: Vec<String>,
    terminal: Option<Terminal>,
    reader: Reader,
    mut writer: Writer,
) -> Result<(), SocketError> {
    let (grant, mut grants) = mpsc::unbounded_channel();
    let credit = Arc::new(AtomicUsize::new(CREDIT as usize));
    let (feed, stdin) = Stdin::pair({
        let credit = credit.clone();
        move |bytes| {
            credit.fetch_add(bytes, Ordering::AcqRel);
            // The command is over and its input thrown away: nobody waits for credit any more.
            let _ = grant.send(bytes as u32);
        }
    });
    let (events, io_events) = mpsc::channel(EVENTS);
    let (output, mut pending) = mpsc::channel(FRAMES);
    let hung_up = CancellationToken::new();
    let intake = Intake { feed: Some(feed), credit, events, typed: terminal.is_some() };
    let io = Io { stdin, output, terminal, events: io_events, hung_up: hung_up.child_token(), env: Default::default() };
    let listening = tokio::spawn(take_in(reader, intake, hung_up.clone()));
    let mut work = tokio::spawn(async move { door.command(caller, words, io).await });
    let mut code = None;
    let sent = loop {
        let message = tokio::select! {
            frame = pending.recv() => match frame {
                Some(Frame::Stdout(bytes)) => Message::Stdout(bytes),
                Some(Frame::Stderr(bytes)) => Message::Stderr(bytes),
                None => break Ok(()),
            },
            Some(bytes) = grants.recv() => Message::Credit(bytes),
            ended = &mut work, if code.is_none() => {
                code = Some(ended);
                pending.close();
                continue;
            }
        };
        if let Err(error) = send(&mut writer, message).await {
            break Err(error);
        }
    };
    if sent.is_err() {
        hung_up.cancel();
        drop(pending);
    }
    let code = match code {
        Some(code) => code,
        None => work.await,
    };
    let code = code.unwrap_or_else(|bug| {
        warn!(%bug, "a command fell over");
        70
    });
    listening.abort();
    sent?;
    writer.send(&Message::Exit(code)).await
}

/// Sends a message, streams in chunks no longer than a frame may be.
async fn send(writer: &mut Writer, message: Message) -> Result<(), SocketError> {
    let (mut bytes, frame): (Bytes, fn(Bytes) -> Message) = match message {
        Message::Stdout(bytes) => (bytes, Message::Stdout),
        Message::Stderr(bytes) => (bytes, Message::Stderr),
        other => return writer.send(&other).await,
    };
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        writer.send(&frame(chunk)).await?;
    }
    Ok(())
}

/// Where a client's frames go while its command runs.
struct Intake {
    /// `None` after the end of the input.
    feed: Option<Feed>,
    /// Bytes of input the client may still send.
    credit: Arc<AtomicUsize>,
    events: mpsc::Sender<IoEvent>,
    /// The client's terminal is raw: it sends what is typed.
    typed: bool,
}

/// Takes in what a client sends to its running command, until it hangs up.
async fn take_in(mut reader: Reader, mut intake: Intake, hung_up: CancellationToken) {
    while let Ok(Some(message)) = reader.next().await {
        // An event that finds no room is dropped: nobody looks at them.
        match message {
            Message::Stdin(bytes) => {
                let spend = |credit: usize| credit.checked_sub(bytes.len());
                if intake.credit.fetch_update(Ordering::AcqRel, Ordering::Acquire, spend).is_err() {
                    warn!("a client of the socket sent more than it was granted");
                    break;
                }
                if intake.typed && bytes.contains(&3) {
                    let _ = intake.events.try_send(IoEvent::Interrupt);
                }
                if let Some(feed) = &intake.feed {
                    feed.send(bytes);
                }
            }
            Message::StdinEnd => intake.feed = None,
            Message::Resize { columns, rows } => drop(intake.events.try_send(IoEvent::Resize { columns, rows })),
            Message::Signal(name) => drop(intake.events.try_send(IoEvent::Signal(name))),
            _ => {}
        }
    }
    hung_up.cancel();
}

/// Reads frames.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    pub(crate) fn new(stream: OwnedReadHalf) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; `None` at the end. May be dropped while it waits: what has been read stays.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, SocketError> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<{ frames::HEAD }>() {
                let (kind, length) = frames::head(*head).map_err(SocketError::Frame)?;
                if self.buffer.len() >= frames::HEAD + length {
                    let frame = self.buffer.split_to(frames::HEAD + length).freeze();
                    return frames::decode(kind, frame.slice(frames::HEAD..)).map(Some).map_err(SocketError::Frame);
                }
                self.buffer.reserve(frames::HEAD + length - self.buffer.len());
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(SocketError::Lost)? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(SocketError::Lost(io::ErrorKind::UnexpectedEof.into()))
                };
            }
        }
    }
}

/// Writes frames.
pub(crate) struct Writer {
    stream: OwnedWriteHalf,
    buffer: BytesMut,
}

impl Writer {
    pub(crate) fn new(stream: OwnedWriteHalf) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, message: &Message) -> Result<(), SocketError> {
        self.buffer.clear();
        frames::encode(message, &mut self.buffer);
        self.stream.write_all(&self.buffer).await.map_err(SocketError::Lost)
    }
}
