//! One SSH client's TCP connection: read in large pieces, acknowledged at once, held back and cut on demand.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// The window in bytes a client is granted, as OpenSSH grants it: what may be under way to here.
pub(crate) const WINDOW: u32 = 2 << 20;

/// The window while the input waits. What is under way by then comes on top of [`BACKLOG`].
const SMALL_WINDOW: u32 = 1 << 13;

/// Input in bytes that may wait for its command before no more is granted.
const BACKLOG: usize = 1 << 18;

/// Input in bytes that may wait before reading stops, which it does only when grants could not be kept back.
const BACKLOG_PAUSE: usize = BACKLOG + 2 * WINDOW as usize;

/// Input in bytes that may wait at all.
const BACKLOG_LIMIT: usize = 64 << 20;

/// A grant alone, encrypted by any of the ciphers on offer, is no longer than this in bytes.
const GRANT: usize = 96;

/// Sizes in bytes between which the read buffer grows: an idle client costs the first.
const BUFFER: (usize, usize) = (1 << 12, 1 << 17);

/// What is known of a connection outside of it.
///
/// russh grants a client new window as soon as data has arrived, not when it has been used, and offers no way to grant
/// it later. So grants are kept back here, as encrypted packets on their way out, until the waiting input has been
/// taken: the client stops, and what it has to say besides (a signal, its own grants, that it hangs up) still arrives
/// at once. A packet cannot overtake another, so output takes a kept grant with it; therefore grants are small while
/// input waits. Should too much input come nevertheless, the connection is not read, unless output waits for a grant of
/// the client's, which lies behind its input.
#[derive(Debug, Default)]
pub struct Control {
    cut: AtomicBool,
    waiting: AtomicUsize,
    starving: AtomicUsize,
    granted: AtomicBool,
    reader: AtomicWaker,
}

impl Control {
    /// Ends the connection: everything that reads from it or writes to it fails from now on.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Input has arrived and waits. `false` when far too much does: the client sends and does not read.
    pub fn arrived(&self, bytes: usize) -> bool {
        self.waiting.fetch_add(bytes, Ordering::AcqRel) + bytes <= BACKLOG_LIMIT
    }

    /// Input has been taken.
    pub fn taken(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::AcqRel);
        let crosses = |limit| before > limit && before - bytes <= limit;
        if crosses(BACKLOG) || crosses(BACKLOG_PAUSE) {
            self.reader.wake();
        }
    }

    /// A grant is on its way out; the answer is the window to grant next time.
    pub(crate) fn granting(&self) -> u32 {
        self.granted.store(true, Ordering::Release);
        if self.is_congested() { SMALL_WINDOW } else { WINDOW }
    }

    /// Output waits for the client until the answer is dropped.
    pub fn starve(self: &Arc<Self>) -> Starving {
        self.starving.fetch_add(1, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > BACKLOG_PAUSE {
            self.reader.wake();
        }
        Starving(self.clone())
    }

    fn is_congested(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > BACKLOG
    }

    fn is_paused(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > BACKLOG_PAUSE && self.starving.load(Ordering::Acquire) == 0
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// Output waits for the client as long as this lives.
#[derive(Debug)]
pub struct Starving(Arc<Control>);

impl Drop for Starving {
    fn drop(&mut self) {
        self.0.starving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The connection itself.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    control: Arc<Control>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Encrypted grants kept back.
    kept: Vec<u8>,
    /// What has been said already and is about to be written once more.
    said: &'static [u8],
}

impl Line {
    /// Takes over an accepted connection and where it came from.
    ///
    /// The system looks after dead peers (after 30 s of silence three questions, 30 s apart): its probes are answered
    /// by the client's system even while the connection is held back, which an SSH keepalive's are not.
    ///
    /// # Errors
    /// When the client is gone already.
    pub fn new(stream: TcpStream) -> io::Result<(Line, IpAddr)> {
        let address = stream.peer_addr()?.ip();
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(30))?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
        let buffer = vec![0; BUFFER.0].into_boxed_slice();
        Ok((Line { stream, control: Arc::default(), buffer, start: 0, end: 0, kept: Vec::new(), said: &[] }, address))
    }

    /// Says something before whoever speaks SSH over this connection does, which must begin with the same: that is
    /// left out.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn say(&mut self, greeting: &'static [u8]) -> io::Result<()> {
        self.stream.write_all(greeting).await?;
        self.said = greeting;
        Ok(())
    }

    /// Listens until `judge` has a verdict on all that has been heard; `None` when the client ends before, or says more
    /// than fits into the smallest buffer. What was heard can be read all the same, also by whoever does not wait for
    /// the answer.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn listen<T>(&mut self, judge: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        while self.end < self.buffer.len() {
            let heard = self.stream.read(&mut self.buffer[self.end..]).await?;
            if heard == 0 {
                break;
            }
            self.end += heard;
            self.acknowledge()?;
            if let Some(verdict) = judge(&self.buffer[..self.end]) {
                return Ok(Some(verdict));
            }
        }
        Ok(None)
    }

    /// The handle on this connection.
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Fills the empty buffer; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end == self.buffer.len() && self.end < BUFFER.1 {
            self.buffer = vec![0; (self.end * 8).min(BUFFER.1)].into_boxed_slice();
        }
        (self.start, self.end) = (0, 0);
        let mut into = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
        self.end = into.filled().len();
        if self.end < BUFFER.0 {
            self.acknowledge()?;
        }
        Poll::Ready(Ok(self.end))
    }

    /// Small packets belong to a handshake. A client that has not switched off Nagle's algorithm sends its next one only
    /// after our acknowledgement, which the system would delay by 40 ms. The switch flips back by itself.
    fn acknowledge(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_quickack(&self.stream, true)?)
    }

    /// Sends the grants kept back.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept))?;
            self.kept.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended by the server")
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self;
        // Registered before looking, so that no change is missed in between.
        line.control.reader.register(cx.waker());
        if line.control.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        if !line.control.is_congested()
            && let Poll::Ready(Err(error)) = line.poll_release(cx)
        {
            return Poll::Ready(Err(error));
        }
        if line.start == line.end {
            if line.control.is_paused() {
                return Poll::Pending;
            }
            ready!(line.poll_fill(cx))?;
        }
        let length = into.remaining().min(line.end - line.start);
        into.put_slice(&line.buffer[line.start..line.start + length]);
        line.start += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.control.reader.register(cx.waker());
        if self.control.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let line = &mut *self;
        if !line.said.is_empty() {
            line.said = line.said.strip_prefix(bytes).ok_or_else(|| io::Error::other("another greeting was said"))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        if line.control.granted.swap(false, Ordering::AcqRel) && bytes.len() <= GRANT && line.control.is_congested() {
            line.kept.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(line.poll_release(cx))?;
        Pin::new(&mut line.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Line::new(listener.accept().await.unwrap().0).unwrap().0, client)
    }

    #[tokio::test]
    async fn a_grant_waits_until_the_input_has_been_taken() {
        let (mut line, mut client) = pair().await;
        let control = line.control();
        assert!(control.arrived(BACKLOG + 1));
        assert_eq!(control.granting(), SMALL_WINDOW);
        line.write_all(b"grant").await.unwrap();
        // What the client says besides still arrives, and nothing has gone out by then.
        client.write_all(b"x").await.unwrap();
        assert_eq!(line.read_u8().await.unwrap(), b'x');
        assert_eq!(client.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reading = tokio::spawn(async move { line.read_u8().await });
        control.taken(BACKLOG + 1);
        let mut grant = [0; 5];
        client.read_exact(&mut grant).await.unwrap();
        assert_eq!(&grant, b"grant");
        assert_eq!(control.granting(), WINDOW);
        client.write_all(b"y").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), b'y');
    }

    #[tokio::test]
    async fn what_is_written_later_never_overtakes_a_kept_grant() {
        let (mut line, mut client) = pair().await;
        let control = line.control();
        control.arrived(BACKLOG + 1);
        control.granting();
        line.write_all(b"grant").await.unwrap();
        line.write_all(b"output").await.unwrap();
        let mut both = [0; 11];
        client.read_exact(&mut both).await.unwrap();
        assert_eq!(&both, b"grantoutput");
    }

    #[tokio::test]
    async fn too_much_input_stops_reading_unless_output_waits() {
        let (mut line, mut client) = pair().await;
        let control = line.control();
        assert!(control.arrived(BACKLOG_PAUSE + 1));
        client.write_all(b"ab").await.unwrap();
        let mut reading = tokio::spawn(async move { (line.read_u8().await.unwrap(), line) });
        tokio::select! {
            _ = &mut reading => panic!("it was read"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let starving = control.starve();
        let (byte, line) = reading.await.unwrap();
        drop((starving, line));
        assert_eq!(byte, b'a');
        assert!(!control.arrived(BACKLOG_LIMIT));
    }

    #[tokio::test]
    async fn what_was_heard_is_read_and_what_was_said_is_not_said_again() {
        let (mut line, mut client) = pair().await;
        line.say(b"hello\r\n").await.unwrap();
        client.write_all(b"hi\nthere").await.unwrap();
        let heard = line.listen(|heard| heard.ends_with(b"there").then_some(heard.len())).await.unwrap();
        assert_eq!(heard, Some(8));
        client.write_all(b"!").await.unwrap();
        let mut read = [0; 9];
        line.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hi\nthere!");
        line.write_all(b"hel").await.unwrap();
        line.write_all(b"lo\r\n").await.unwrap();
        line.write_all(b"more").await.unwrap();
        let mut said = [0; 11];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello\r\nmore");
        line.say(b"hello\r\n").await.unwrap();
        assert!(line.write_all(b"hullo\r\n").await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_says_too_much_or_nothing_more_is_not_listened_to() {
        let (mut line, mut client) = pair().await;
        client.write_all(&[7; BUFFER.0 + 1]).await.unwrap();
        assert_eq!(line.listen(|_| None::<()>).await.unwrap(), None);
        let mut read = [0; BUFFER.0 + 1];
        line.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [7; BUFFER.0 + 1]);

        let (mut line, mut client) = pair().await;
        client.write_all(b"a").await.unwrap();
        drop(client);
        assert_eq!(line.listen(|_| None::<()>).await.unwrap(), None);
        assert_eq!(line.read_u8().await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn a_cut_connection_ends_whoever_waits_on_it() {
        let (mut line, _client) = pair().await;
        let control = line.control();
        let reading = tokio::spawn(async move { line.read_u8().await });
        control.cut();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
