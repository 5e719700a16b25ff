//! Open files on their way from one process to another, through a unix socket that holds them until they are taken out.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Files that go at once; the kernel takes three more.
pub const MOST: usize = 250;

/// Puts files into a socket, [`MOST`] at most.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for more; [`io::ErrorKind::WouldBlock`] when a socket that does not wait holds no more;
/// else what the kernel says.
pub fn put(into: impl AsFd, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if files.len() > MOST || !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("more than {MOST} files at once")));
    }
    // A byte has to go with them.
    sendmsg(into, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes out what was put into a socket at once; nothing when its other end is closed and it is empty. Whether to wait is
/// for the socket to say, and for [`RecvFlags::DONTWAIT`].
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is nothing yet, and no waiting for it, or no longer; else what the kernel says.
pub fn take(from: impl AsFd, flags: RecvFlags) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(from, &mut [IoSliceMut::new(&mut [0])], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn files_come_out_as_they_were_put_in() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(take(&theirs, RecvFlags::DONTWAIT).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let file = tempfile::tempfile().unwrap();
        for count in [1, MOST] {
            put(&ours, &vec![file.as_fd(); count]).unwrap();
        }
        assert_eq!(put(&ours, &[file.as_fd(); MOST + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(ours);
        let counts: Vec<usize> = (0..3).map(|_| take(&theirs, RecvFlags::empty()).unwrap().len()).collect();
        assert_eq!(counts, [1, MOST, 0]);
    }
}
