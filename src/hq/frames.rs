//! What is spoken on HQ's unix socket: a kind byte, four bytes of length (big endian) and the content.
//!
//! The client opens with [`Message::Command`] or [`Message::Update`]. Standard input is sent against credit, so that a
//! resize or a signal never waits behind input that nobody reads.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hq::door::Terminal;
use crate::names::CommitId;

/// The longest content of a frame in bytes.
pub const CONTENT_LIMIT: usize = 1 << 20;

/// The longest chunk of a stream in bytes.
pub const CHUNK: usize = 1 << 16;

/// Bytes of input a client may send before it is granted more.
pub const CREDIT: u32 = 4 * CHUNK as u32;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client: run this.
    Command {
        /// The command's words.
        words: Vec<String>,
        /// The terminal it is typed in.
        terminal: Option<Terminal>,
    },
    /// Client (git's hook): a branch is to change.
    Update {
        /// Which push this belongs to.
        push: String,
        /// The whole reference.
        reference: String,
        /// What it points to.
        old: Option<CommitId>,
        /// What it is to point to.
        new: Option<CommitId>,
    },
    /// Client: a chunk of standard input.
    Stdin(Bytes),
    /// Client: the end of standard input.
    StdinEnd,
    /// Client: the terminal has another size.
    Resize {
        /// Width in characters.
        columns: u16,
        /// Height in characters.
        rows: u16,
    },
    /// Client: a signal, by its name without `SIG`.
    Signal(String),
    /// HQ: a chunk of standard output.
    Stdout(Bytes),
    /// HQ: a chunk of standard error.
    Stderr(Bytes),
    /// HQ: so many more bytes of input may be sent.
    Credit(u32),
    /// HQ: the command is over, with this exit code.
    Exit(u8),
    /// HQ: the update is done.
    Done,
    /// HQ: the update is refused, and why.
    Refused(String),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A kind nobody knows.
    #[error("frame of unknown kind {0}; are both sides of the same version?")]
    Kind(u8),
    /// Beyond [`CONTENT_LIMIT`].
    #[error("frame of {0} bytes")]
    Long(usize),
    /// Content of another shape than its kind has.
    #[error("frame of kind {0} with malformed content")]
    Content(u8),
}

#[derive(Serialize, Deserialize)]
struct CommandContent {
    words: Vec<String>,
    terminal: Option<Terminal>,
}

#[derive(Serialize, Deserialize)]
struct UpdateContent {
    push: String,
    reference: String,
    old: Option<CommitId>,
    new: Option<CommitId>,
}

/// Bytes before the content.
pub const HEAD: usize = 5;

/// Reads a head: the kind and the length of the content.
///
/// # Errors
/// When the content would be too long.
pub fn head(bytes: [u8; HEAD]) -> Result<(u8, usize), BadFrame> {
    let [kind, a, b, c, d] = bytes;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length <= CONTENT_LIMIT { Ok((kind, length)) } else { Err(BadFrame::Long(length)) }
}

/// Reads the content of a frame.
///
/// # Errors
/// When kind or content are none.
pub fn decode(kind: u8, content: Bytes) -> Result<Message, BadFrame> {
    let bad = BadFrame::Content(kind);
    Ok(match kind {
        1 => json(kind, &content).map(|CommandContent { words, terminal }| Message::Command { words, terminal })?,
        2 => json(kind, &content).map(|content| {
            let UpdateContent { push, reference, old, new } = content;
            Message::Update { push, reference, old, new }
        })?,
        3 => Message::Stdin(content),
        4 => Message::StdinEnd,
        5 => {
            let [a, b, c, d]: [u8; 4] = content[..].try_into().map_err(|_| bad)?;
            Message::Resize { columns: u16::from_be_bytes([a, b]), rows: u16::from_be_bytes([c, d]) }
        }
        6 => Message::Signal(text(kind, &content)?),
        16 => Message::Stdout(content),
        17 => Message::Stderr(content),
        18 => Message::Credit(u32::from_be_bytes(content[..].try_into().map_err(|_| bad)?)),
        19 => match content[..] {
            [code] => Message::Exit(code),
            _ => return Err(bad),
        },
        20 => Message::Done,
        21 => Message::Refused(text(kind, &content)?),
        unknown => return Err(BadFrame::Kind(unknown)),
    })
}

fn json<T: DeserializeOwned>(kind: u8, content: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(content).map_err(|_| BadFrame::Content(kind))
}

fn text(kind: u8, content: &[u8]) -> Result<String, BadFrame> {
    String::from_utf8(content.to_vec()).map_err(|_| BadFrame::Content(kind))
}

/// Writes a frame behind `into`.
pub fn encode(message: &Message, into: &mut BytesMut) {
    let json = |content: serde_json::Result<Vec<u8>>| content.expect("words and ids have a JSON form");
    match message {
        Message::Command { words, terminal } => {
            let content = CommandContent { words: words.clone(), terminal: terminal.clone() };
            frame(into, 1, &json(serde_json::to_vec(&content)));
        }
        Message::Update { push, reference, old, new } => {
            let (push, reference, old, new) = (push.clone(), reference.clone(), old.clone(), new.clone());
            frame(into, 2, &json(serde_json::to_vec(&UpdateContent { push, reference, old, new })));
        }
        Message::Stdin(chunk) => frame(into, 3, chunk),
        Message::StdinEnd => frame(into, 4, &[]),
        Message::Resize { columns, rows } => {
            frame(into, 5, &[columns.to_be_bytes(), rows.to_be_bytes()].concat());
        }
        Message::Signal(name) => frame(into, 6, name.as_bytes()),
        Message::Stdout(chunk) => frame(into, 16, chunk),
        Message::Stderr(chunk) => frame(into, 17, chunk),
        Message::Credit(bytes) => frame(into, 18, &bytes.to_be_bytes()),
        Message::Exit(code) => frame(into, 19, &[*code]),
        Message::Done => frame(into, 20, &[]),
        Message::Refused(reason) => frame(into, 21, reason.as_bytes()),
    }
}

fn frame(into: &mut BytesMut, kind: u8, content: &[u8]) {
    into.reserve(HEAD + content.len());
    into.put_u8(kind);
    into.put_u32(content.len() as u32);
    into.put_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        let id: CommitId = "1".repeat(40).parse().unwrap();
        let terminal = Terminal { term: "xterm".into(), columns: 80, rows: 24 };
        let messages = [
            Message::Command { words: vec!["ps".into(), "a b\n".into()], terminal: Some(terminal) },
            Message::Update { push: "p".into(), reference: "refs/heads/x".into(), old: None, new: Some(id) },
            Message::Stdin(Bytes::from_static(&[0, 255, 10])),
            Message::StdinEnd,
            Message::Resize { columns: 300, rows: 2 },
            Message::Signal("INT".into()),
            Message::Stdout(Bytes::new()),
            Message::Stderr(Bytes::from_static(b"\xff")),
            Message::Credit(CREDIT),
            Message::Exit(255),
            Message::Done,
            Message::Refused("no".into()),
        ];
        for message in messages {
            let mut bytes = BytesMut::new();
            encode(&message, &mut bytes);
            let (kind, length) = head(bytes[..HEAD].try_into().unwrap()).unwrap();
            assert_eq!(length, bytes.len() - HEAD);
            assert_eq!(decode(kind, bytes.split_off(HEAD).freeze()), Ok(message));
        }
    }

    #[test]
    fn malformed_frames_are_refused() {
        assert_eq!(head([1, 0, 16, 0, 1]), Err(BadFrame::Long(CONTENT_LIMIT + 1)));
        for kind in [1, 2, 5, 18, 19] {
            assert_eq!(decode(kind, Bytes::from_static(b"xx")), Err(BadFrame::Content(kind)));
        }
        assert_eq!(decode(6, Bytes::from_static(b"\xff")), Err(BadFrame::Content(6)));
        assert_eq!(decode(99, Bytes::new()), Err(BadFrame::Kind(99)));
    }
}
