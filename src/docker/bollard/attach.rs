//! Attaching to a container, byte for byte.
//!
//! Bollard guesses from a chunk's first byte whether the engine frames the stream, which garbles terminals that print
//! a control character there, and it keeps whole frames in memory. Here the container's own settings decide, and a
//! frame passes through in whatever pieces it arrives.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::SystemInfo;
use bollard::query_parameters::InspectContainerOptions;
use futures_util::stream::select;
use futures_util::{Stream, StreamExt, TryFutureExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Docker, QUIET, Subject};
use crate::docker::handover::socket::Offer;
use crate::docker::{Attached, EngineError, Lane, Output, Pipe, handover};
use crate::names::ContainerName;

/// The engine hands the connection over within this time.
const HIJACK: Duration = Duration::from_secs(20);

/// An answer's head is never longer, of an engine that is sane.
const HEAD: u64 = 16 * 1024;

/// Output is handed on in pieces of at most this size.
const CHUNK: usize = 32 * 1024;

/// A connection that has become the container's streams.
type Streams = Box<dyn Pipe>;

impl Docker {
    pub(super) async fn attach_container(&self, name: &ContainerName) -> Result<Attached, EngineError> {
        let subject = Subject::container("attach to", name);
        let options = None::<InspectContainerOptions>;
        let container = self.call(&subject, self.client().inspect_container(name.as_str(), options)).await?;
        let runtime = container.host_config.and_then(|config| config.runtime);
        if runtime.as_deref() == Some(handover::RUNTIME) {
            let offered = self.hand_over(name, &container.id.unwrap_or_default());
            let refused = |message: String| EngineError::Refused { doing: subject.doing(), message };
            return offered.map_err(|error| refused(error.to_string()));
        }
        let terminal = container.config.and_then(|config| config.tty).unwrap_or_default();
        let (reader, input) = match timeout(HIJACK, self.hijack(&subject, name)).await {
            Ok(streams) => streams?,
            Err(elapsed) => return Err(self.unreachable(elapsed)),
        };
        let framed = Framed { reader, frame: (!terminal).then_some(Frame::Ended) };
        let from = (self.clone(), name.clone(), framed);
        let chunks = futures_util::stream::try_unfold(from, |(docker, name, mut framed)| async {
            let subject = Subject::container("read the output of", &name);
            let next = framed.next().map_err(Error::from);
            let output = docker.patient(&subject, QUIET, next).await?;
            Ok(output.map(|output| (output, (docker, name, framed))))
        });
        Ok(Attached { output: chunks.boxed(), input: Box::pin(input) })
    }

    /// Offers the container of this id streams past the engine.
    fn hand_over(&self, name: &ContainerName, id: &str) -> std::io::Result<Attached> {
        let (offer, handed) = Offer::make(Path::new(handover::FOLDER), id)?;
        let (docker, name, over) = (self.clone(), name.clone(), CancellationToken::new());
        let (mut handing, told) = (JoinSet::new(), over.clone());
        handing.spawn(async move {
            let mut ended = pin!(docker.wait_for_first_end(&name));
            let answer = tokio::select! {
                fetched = offer.hand_over() => {
                    if let Err(error) = fetched {
                        tracing::warn!(%error, container = %name, "nobody can fetch its streams");
                    }
                    ended.await
                }
                answer = &mut ended => answer,
            };
            // Where the engine is away, the streams' own end tells.
            if answer.is_ok() {
                told.cancel();
            }
        });
        let output = pieces(handed.output, over.clone(), Output::Stdout);
        let output = select(output, pieces(handed.error, over, Output::Stderr)).map(move |piece| {
            // Whoever lets go of the output takes the offer back.
            let _ = &handing;
            let refused = |message| EngineError::Refused { doing: "read what a container prints".to_owned(), message };
            piece.map_err(|error| refused(error.to_string()))
        });
        Ok(Attached { output: output.boxed(), input: Box::pin(handed.input) })
    }

    /// Asks for the container's streams on a connection of their own.
    async fn hijack(
        &self,
        subject: &Subject<'_>,
        name: &ContainerName,
    ) -> Result<(BufReader<ReadHalf<Streams>>, WriteHalf<Streams>), EngineError> {
        let lost = |error: std::io::Error| self.unreachable(error);
        let (reader, mut writer) = split(self.wire.open(Lane::Reader).await.map_err(lost)?);
        let request = format!(
            "POST /containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        );
        writer.write_all(request.as_bytes()).await.map_err(lost)?;
        let mut reader = BufReader::with_capacity(CHUNK, reader);
        let status = head(&mut reader).await.map_err(lost)?;
        if matches!(status, 101 | 200) {
            return Ok((reader, writer));
        }
        let message = format!("the engine answered with status {status}");
        Err(match status {
            404 => EngineError::NotFound { what: subject.what() },
            409 => EngineError::Conflict { message },
            _ => EngineError::Refused { doing: subject.doing(), message },
        })
    }
}

/// Whether an engine of this machine has containers get their streams past it: it knows the runtime, and has no other way
/// of running them that this would go round.
pub(super) fn hands_over(info: &SystemInfo) -> bool {
    let runtimes = info.runtimes.iter().flatten();
    let path = runtimes.filter(|(name, _)| *name == handover::RUNTIME).find_map(|(_, runtime)| runtime.path.as_deref());
    let is_plain = info.default_runtime.as_deref() == Some(handover::RUNC);
    let ways = ["name=userns", "name=rootless", "name=selinux"];
    let has_ways = info.security_options.iter().flatten().any(|option| ways.contains(&option.as_str()));
    is_plain && !has_ways && path.is_some_and(|path| Path::new(path).exists())
}

/// What comes out of a pipe, in pieces, until its end; once the container is over, until it is empty: others may hold it open.
fn pieces(
    pipe: Receiver,
    over: CancellationToken,
    as_output: fn(Vec<u8>) -> Output,
) -> impl Stream<Item = std::io::Result<Output>> {
    futures_util::stream::try_unfold((pipe, over), move |(mut pipe, over)| async move {
        let mut piece = Vec::with_capacity(CHUNK);
        let count = tokio::select! {
            biased;
            count = pipe.read_buf(&mut piece) => count?,
            () = over.cancelled() => 0,
        };
        // A few bytes do not take the room of many along.
        if count < CHUNK / 2 {
            piece.shrink_to_fit();
        }
        Ok((count > 0).then(|| (as_output(piece), (pipe, over))))
    })
}

/// Reads an answer up to its empty line and gives its status.
async fn head(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<u16> {
    let odd = || std::io::Error::new(std::io::ErrorKind::InvalidData, "its answer is not HTTP");
    let mut reader = reader.take(HEAD);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(odd)?;
    while !matches!(line.as_str(), "\r\n" | "\n") {
        line.clear();
        if reader.read_line(&mut line).await? == 0 {
            return Err(odd());
        }
    }
    Ok(status)
}

/// The engine's output: raw for a terminal (no frame), else in frames of one stream each.
struct Framed<R> {
    reader: R,
    frame: Option<Frame>,
}

/// How far the current frame is read.
#[derive(Clone, Copy)]
enum Frame {
    Ended,
    Open { stderr: bool, left: usize },
}

impl<R: AsyncBufRead + Unpin> Framed<R> {
    /// The next piece of output; `None` when the container's streams have ended.
    async fn next(&mut self) -> std::io::Result<Option<Output>> {
        while let Some(Frame::Ended | Frame::Open { left: 0, .. }) = self.frame {
            if self.reader.fill_buf().await?.is_empty() {
                return Ok(None);
            }
            // One byte for the stream, three of nothing, four for the length.
            let mut header = [0; 8];
            self.reader.read_exact(&mut header).await?;
            let [stream, _, _, _, length @ ..] = header;
            self.frame = Some(Frame::Open { stderr: stream == 2, left: u32::from_be_bytes(length) as usize });
        }
        let available = self.reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let (bytes, stderr) = match &mut self.frame {
            Some(Frame::Open { stderr, left }) => {
                let taken = available.len().min(*left);
                *left -= taken;
                (available[..taken].to_vec(), *stderr)
            }
            Some(Frame::Ended) | None => (available.to_vec(), false),
        };
        self.reader.consume(bytes.len());
        Ok(Some(if stderr { Output::Stderr(bytes) } else { Output::Stdout(bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::Runtime;

    use super::*;

    async fn check(capacity: usize, framed: bool, bytes: &[u8], expected: &[Output]) {
        let reader = BufReader::with_capacity(capacity, bytes);
        let mut framed = Framed { reader, frame: framed.then_some(Frame::Ended) };
        let mut outputs = Vec::new();
        while let Some(output) = framed.next().await.unwrap() {
            outputs.push(output);
        }
        assert_eq!(outputs, expected);
    }

    #[tokio::test]
    async fn frames_come_apart_into_their_streams_in_any_pieces() {
        let out = |text: &str| Output::Stdout(text.into());
        let err = |text: &str| Output::Stderr(text.into());
        let bytes = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02de\x01\0\0\0\0\0\0\0";
        check(64, true, bytes, &[out("abc"), err("de")]).await;
        check(2, true, bytes, &[out("ab"), out("c"), err("de")]).await;
        check(64, true, b"", &[]).await;
    }

    #[test]
    fn an_engine_with_another_way_of_running_containers_passes_their_streams_on_itself() {
        let check = |path: &str, default: &str, option: &str, expected: bool| {
            let runtime = Runtime { path: Some(path.to_owned()), ..Default::default() };
            let info = SystemInfo {
                runtimes: Some([("quarry".to_owned(), runtime)].into()),
                default_runtime: Some(default.to_owned()),
                security_options: Some(vec!["name=seccomp,profile=default".to_owned(), option.to_owned()]),
                ..Default::default()
            };
            assert_eq!(hands_over(&info), expected, "{path} {default} {option}");
        };
        check("/bin/sh", "runc", "name=apparmor", true);
        check("/bin/sh", "crun", "name=apparmor", false);
        check("/bin/sh", "runc", "name=userns", false);
        check("/nonexistent/quarry-runc", "runc", "name=apparmor", false);
        assert!(!hands_over(&SystemInfo { default_runtime: Some("runc".to_owned()), ..Default::default() }));
    }

    #[tokio::test]
    async fn a_terminal_may_print_what_looks_like_a_frame() {
        check(64, false, b"\x01\0\0\0", &[Output::Stdout(b"\x01\0\0\0".to_vec())]).await;
    }

    #[tokio::test]
    async fn a_head_that_is_not_http_is_an_error() {
        assert_eq!(head(&mut &b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nrest"[..]).await.unwrap(), 101);
        assert!(head(&mut &b"nonsense\r\n\r\n"[..]).await.is_err());
        assert!(head(&mut &b"HTTP/1.1 101 UPGRADED\r\n"[..]).await.is_err());
    }
}
