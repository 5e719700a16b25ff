//! Bollard's requests over a [`Wire`]: a connection for each of them, which is cheap on a unix socket, a channel's price
//! over SSH, and never a stale one after dockerd was restarted.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::docker::{Lane, Pipe, Wire};

/// Bollard's own limit must never be the one that ends a call: streams live for days.
const FOREVER: u64 = 10 * 365 * 86_400;

/// No list or description is longer: some thousand bytes for each container of a server. An engine that somebody has taken
/// over must not fill HQ's memory.
const LONGEST: usize = 64 << 20;

/// A client of the engine at the end of `wire`.
pub(super) fn client(wire: &Arc<dyn Wire>, lane: Lane) -> bollard::Docker {
    let wire = wire.clone();
    let transport = move |request: BollardRequest| {
        let wire = wire.clone();
        async move { send(&*wire, lane, request).await }
    };
    bollard::Docker::connect_with_custom_transport(transport, Some("http://docker"), FOREVER, API_DEFAULT_VERSION)
        .expect("a transport of our own is taken as it is")
}

async fn send(wire: &dyn Wire, lane: Lane, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let left = if is_read_whole(request.uri().path()) { LONGEST } else { usize::MAX };
    let pipe = Bounded { pipe: wire.open(lane).await?, left };
    let (mut sender, connection) = http1::handshake(TokioIo::new(pipe)).await?;
    // It ends with the answer, or when nobody waits for that any more.
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    // The engine answers 400 to an absolute address, and to a request without a host.
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = Uri::from(path.clone());
    }
    parts.headers.insert(HOST, HeaderValue::from_static("docker"));
    Ok(sender.send_request(BollardRequest::from_parts(parts, body)).await?)
}

/// Whether the answer is one JSON value, which is in memory before anybody looks at it.
fn is_read_whole(path: &str) -> bool {
    path.ends_with("/json") || path.ends_with("/version") || path.starts_with("/networks")
}

/// A pipe that ends in an error when more comes than there may.
struct Bounded {
    pipe: Box<dyn Pipe>,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, into);
        match self.left.checked_sub(into.filled().len() - before) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other(format!("its answer is longer than {LONGEST} bytes")))),
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// An engine of this machine.
#[derive(Debug)]
pub(super) struct Local(PathBuf);

impl Local {
    pub(super) fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }
}

#[async_trait]
impl Wire for Local {
    fn engine(&self) -> String {
        format!("docker at {}", self.0.display())
    }

    async fn open(&self, _: Lane) -> io::Result<Box<dyn Pipe>> {
        match UnixStream::connect(&self.0).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(io::Error::new(error.kind(), "is dockerd running? (`systemctl start docker`)"))
            }
            Err(error) => Err(error),
        }
    }

    fn is_here(&self) -> bool {
        true
    }
}
