//! Git's proc-receive hook: a short process that hands a push's updates over to HQ's unix socket.
//!
//! It runs once per push and is on the pusher's time: no runtime, no threads, three kinds of blocking reads.

use std::env;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use bytes::{Bytes, BytesMut};

use crate::hq::frames::{self, BadFrame, Message};
use crate::hq::hooks::{self, BadConversation, Command, Packet};

/// What went wrong between git and HQ.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Not started by HQ's git.
    #[error("`{0}` is not set; this hook is run by the git that HQ starts")]
    Environment(&'static str),
    /// Git's streams.
    #[error("cannot talk to git")]
    Git(#[source] io::Error),
    /// Git's words.
    #[error("cannot understand git")]
    Conversation(#[source] BadConversation),
    /// HQ's socket.
    #[error("cannot reach HQ at {address}")]
    Socket {
        /// Where it was looked for.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// HQ's words.
    #[error("cannot understand HQ")]
    Frame(#[source] BadFrame),
    /// HQ has gone away.
    #[error("HQ was stopped; the deploy is finished or undone when it is back")]
    Stopped,
}

/// Runs the hook on this process's streams.
pub fn run() -> ExitCode {
    let (input, output) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    match proc_receive(input, output, &mut io::stderr().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            // Git shows standard error to the pusher; one that is gone needs no reason.
            let _ = writeln!(io::stderr(), "quarry: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn proc_receive(mut input: impl Read, mut output: impl Write, pusher: &mut impl Write) -> Result<(), RelayError> {
    let opening = section(&mut input)?;
    let offer = hooks::offer(opening.first().map(Vec::as_slice).unwrap_or_default());
    let offer = offer.map_err(RelayError::Conversation)?;
    output.write_all(&hooks::acceptance(offer)).and_then(|()| output.flush()).map_err(RelayError::Git)?;
    let commands: Result<Vec<Command>, _> = section(&mut input)?.iter().map(|line| hooks::command(line)).collect();
    let commands = commands.map_err(RelayError::Conversation)?;
    if offer.push_options {
        section(&mut input)?;
    }
    let mut report = Vec::new();
    if offer.atomic && commands.len() > 1 {
        for command in &commands {
            hooks::report(&mut report, &command.reference, Err("several branches cannot be pushed as one (--atomic)"));
        }
    } else {
        let mut hq = Hq::connect()?;
        for command in commands {
            let reference = command.reference.clone();
            let answer = hq.update(command, pusher)?;
            hooks::report(&mut report, &reference, answer.as_ref().map_err(String::as_str).copied());
        }
    }
    hooks::write(&mut report, Packet::Flush);
    output.write_all(&report).and_then(|()| output.flush()).map_err(RelayError::Git)
}

/// Git's lines up to the next flush.
fn section(input: &mut impl Read) -> Result<Vec<Vec<u8>>, RelayError> {
    let mut lines = Vec::new();
    loop {
        let mut digits = [0; 4];
        input.read_exact(&mut digits).map_err(RelayError::Git)?;
        let Some(length) = hooks::length(digits).map_err(RelayError::Conversation)? else { return Ok(lines) };
        let mut line = vec![0; length];
        input.read_exact(&mut line).map_err(RelayError::Git)?;
        if lines.len() == hooks::COMMANDS {
            return Err(RelayError::Conversation(BadConversation::TooMany));
        }
        lines.push(line);
    }
}

/// The connection to HQ, and the push it speaks for.
struct Hq {
    stream: UnixStream,
    address: String,
    push: String,
}

impl Hq {
    fn connect() -> Result<Hq, RelayError> {
        let variable = |name| env::var(name).map_err(|_| RelayError::Environment(name));
        let (address, push) = (variable("QUARRY_SOCKET")?, variable("QUARRY_PUSH")?);
        match UnixStream::connect(&address) {
            Ok(stream) => Ok(Hq { stream, address, push }),
            Err(source) => Err(RelayError::Socket { address, source }),
        }
    }

    /// Hands one update over, shows the pusher what HQ says meanwhile, and gives its answer.
    fn update(&mut self, command: Command, pusher: &mut impl Write) -> Result<Result<(), String>, RelayError> {
        let Command { old, new, reference } = command;
        let mut bytes = BytesMut::new();
        frames::encode(&Message::Update { push: self.push.clone(), reference, old, new }, &mut bytes);
        self.stream.write_all(&bytes).map_err(|source| self.lost(source))?;
        loop {
            match self.next()? {
                // The pusher may have gone away; HQ knows and decides.
                Message::Stderr(text) => drop(pusher.write_all(&text).and_then(|()| pusher.flush())),
                Message::Done => return Ok(Ok(())),
                Message::Refused(reason) => return Ok(Err(reason)),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Message, RelayError> {
        let mut head = [0; frames::HEAD];
        self.stream.read_exact(&mut head).map_err(|source| self.lost(source))?;
        let (kind, length) = frames::head(head).map_err(RelayError::Frame)?;
        let mut content = vec![0; length];
        self.stream.read_exact(&mut content).map_err(|source| self.lost(source))?;
        frames::decode(kind, Bytes::from(content)).map_err(RelayError::Frame)
    }

    fn lost(&self, source: io::Error) -> RelayError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                RelayError::Stopped
            }
            _ => RelayError::Socket { address: self.address.clone(), source },
        }
    }
}
