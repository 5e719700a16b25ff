//! A command's streams as one connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::hq::door::{Frame, Stdin};

/// The longest frame, in bytes.
const LONGEST: usize = 32 << 10;

/// What the client writes is read here; what is written here it reads.
pub struct Channel {
    input: Stdin,
    output: PollSender<Frame>,
}

impl Channel {
    /// Of standard input and output.
    pub fn new(input: Stdin, output: mpsc::Sender<Frame>) -> Self {
        Self { input, output: PollSender::new(output) }
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, into)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.output.poll_reserve(cx)).map_err(|_| gone())?;
        let taken = bytes.len().min(LONGEST);
        self.output.send_item(Frame::Stdout(Bytes::copy_from_slice(&bytes[..taken]))).map_err(|_| gone())?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_a_reader_who_waits_holds_the_writer_up() {
        let (feed, input) = Stdin::pair(|_| ());
        let (output, mut frames) = mpsc::channel(1);
        let mut channel = Channel::new(input, output);
        feed.send(Bytes::from_static(b"hello"));
        drop(feed);
        let mut read = Vec::new();
        channel.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello");

        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            channel.write_all(&sent).await.unwrap();
            channel.shutdown().await.unwrap();
        });
        let mut came = Vec::new();
        while let Some(Frame::Stdout(bytes)) = frames.recv().await {
            assert!(bytes.len() <= LONGEST);
            came.extend_from_slice(&bytes);
        }
        writing.await.unwrap();
        assert!(came == expected, "{} bytes", came.len());
    }

    #[tokio::test]
    async fn a_client_who_has_gone_breaks_the_connection() {
        let (output, frames) = mpsc::channel(1);
        drop(frames);
        let mut channel = Channel::new(Stdin::empty(), output);
        assert_eq!(channel.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
