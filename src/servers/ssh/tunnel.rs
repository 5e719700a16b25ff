//! A connection to a socket of a server, as bytes both ways.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::guest::Fate;
use super::link::Link;

/// Bytes to and from a socket of the server. Where the connection is lost both directions fail; the end of the stream is
/// told only when the server's side has ended it.
pub struct Tunnel {
    stream: ChannelStream<Msg>,
    /// One for the reader and one for the writer: they may be two tasks, and each is to be woken.
    ended: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    fate: Arc<Fate>,
    /// A connection lives as long as what goes through it.
    _link: Arc<Link>,
}

impl Tunnel {
    pub(super) fn new(stream: ChannelStream<Msg>, fate: Arc<Fate>, link: Arc<Link>) -> Self {
        let ended = [(); 2].map(|()| Box::pin(fate.ended.clone().cancelled_owned()));
        Self { stream, ended, fate, _link: link }
    }

    /// A writer does not wait for a connection that has ended.
    fn unless_lost<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_pending() && self.ended[1].as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.lost()));
        }
        done
    }

    fn lost(&self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, format!("the SSH connection is lost: {}", self.fate.why()))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, into) {
            // A session that falls leaves its channels looking as if they had ended well.
            Poll::Ready(Ok(())) if into.filled().len() == before && self.fate.ended.is_cancelled() => {
                Poll::Ready(Err(self.lost()))
            }
            Poll::Pending if self.ended[0].as_mut().poll(cx).is_ready() => Poll::Ready(Err(self.lost())),
            other => other,
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_lost(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.unless_lost(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.unless_lost(cx, shut)
    }
}
