//! The socket at which streams are handed over, from both sides.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use rustix::net::RecvFlags;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;

use crate::descriptors;

/// Standard input, output and error.
const STREAMS: usize = 3;

/// How long HQ may take to hand them over.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a pipe holds: as much as anybody may ask for.
const PIPE: usize = 1 << 20;

/// The ends of a container's streams that stay here.
#[derive(Debug)]
pub struct Streams {
    /// What it reads; its end is this one's.
    pub input: pipe::Sender,
    /// What it prints, until it has ended.
    pub output: pipe::Receiver,
    /// What it complains of.
    pub error: pipe::Receiver,
}

/// The other ends, until they are fetched. A killed process leaves the socket's file behind.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
    ends: [OwnedFd; STREAMS],
}

impl Offer {
    /// Pipes for the container of this id, which is not started yet, in a folder of which [`can_offer`] has said yes.
    ///
    /// # Errors
    /// The socket cannot be made, or there are no files left.
    pub fn make(folder: &Path, id: &str) -> io::Result<(Self, Streams)> {
        let path = folder.join(id);
        // Of an offer before this one, which ended without taking it along.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let (reads, input) = io::pipe()?;
        let (output, prints) = io::pipe()?;
        let (error, complains) = io::pipe()?;
        for pipe in [reads.as_fd(), prints.as_fd()] {
            // One of the usual size is only slower, and enough for complaints.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
        }
        let streams = Streams {
            input: pipe::Sender::from_owned_fd(input.into())?,
            output: pipe::Receiver::from_owned_fd(output.into())?,
            error: pipe::Receiver::from_owned_fd(error.into())?,
        };
        Ok((Self { listener, path, ends: [reads.into(), prints.into(), complains.into()] }, streams))
    }

    /// Waits for the runtime and gives it the ends.
    ///
    /// # Errors
    /// Nobody can come any more.
    pub async fn hand_over(self) -> io::Result<()> {
        loop {
            let (guest, _) = self.listener.accept().await?;
            // The folder lets nobody else in, but who has the streams has the container.
            if guest.peer_cred()?.uid() != 0 {
                continue;
            }
            match descriptors::put(&guest, &self.ends.each_ref().map(AsFd::as_fd)) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, path = %self.path.display(), "streams are not handed over"),
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // It is of no use to anybody when it stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether streams can be offered in this folder at all, which is made when it is not there.
pub fn can_offer(folder: &Path) -> bool {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.is_ok() && rustix::fs::access(folder, Access::WRITE_OK).is_ok()
}

/// Fetches the ends for the container of this id.
///
/// # Errors
/// Nobody offers them.
pub fn fetch(folder: &Path, id: &str) -> io::Result<[OwnedFd; STREAMS]> {
    let host = UnixStream::connect(folder.join(id))?;
    // Docker holds the container until this is over.
    host.set_read_timeout(Some(PATIENCE))?;
    let files = descriptors::take(&host, RecvFlags::empty())?;
    files.try_into().map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "no streams came"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_fetched_are_the_other_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (offer, mut streams) = Offer::make(folder.path(), "abc").unwrap();
        let waits = tokio::spawn(offer.hand_over());
        let place = folder.path().to_owned();
        let taken = tokio::task::spawn_blocking(move || {
            let [reads, prints, complains] = fetch(&place, "abc").unwrap();
            let mut text = String::new();
            fs::File::from(prints).write_all(b"out").unwrap();
            fs::File::from(complains).write_all(b"err").unwrap();
            fs::File::from(reads).read_to_string(&mut text).unwrap();
            text
        });
        let (mut out, mut err) = (String::new(), String::new());
        streams.output.read_to_string(&mut out).await.unwrap();
        streams.error.read_to_string(&mut err).await.unwrap();
        streams.input.write_all(b"in").await.unwrap();
        drop(streams.input);
        assert_eq!((taken.await.unwrap().as_str(), out.as_str(), err.as_str()), ("in", "out", "err"));
        waits.await.unwrap().unwrap();
        assert!(!folder.path().join("abc").exists(), "the socket goes when it has done its work");
    }

    #[tokio::test]
    async fn an_offer_that_is_taken_back_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (offer, mut streams) = Offer::make(folder.path(), "abc").unwrap();
        drop(offer);
        assert_eq!(fetch(folder.path(), "abc").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(streams.output.read(&mut [0]).await.unwrap(), 0, "the streams have ended");
    }
}
