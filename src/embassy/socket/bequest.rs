//! How a legacy goes from a program to the one that replaces it in the same process: through a socket of the kernel's, which
//! holds a description of it and all of its files until they are taken out.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::super::legacy::Legacy;

/// Goes up when a description is not what it was: a successor that knows another takes nothing over.
const FORMAT: u32 = 1;

/// Files in one message; the kernel takes three more.
const FILES: usize = 250;

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    /// Read only where the format is known.
    legacy: serde_json::Value,
}

impl Legacy {
    /// The end of the socket that the successor takes it out of.
    ///
    /// # Errors
    /// There is no memory or file left for it, or it has more files than a socket holds; then all of it is lost.
    pub fn send(self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let mut files = Vec::new();
        let bare = self.map(|file| {
            files.push(file);
            Some(())
        });
        let description = Description { format: FORMAT, legacy: serde_json::to_value(bare)? };
        let mut paper = File::from(memfd_create("legacy", MemfdFlags::CLOEXEC)?);
        paper.write_all(&serde_json::to_vec(&description)?)?;
        paper.rewind()?;
        pass(&ours, &[paper.as_fd()])?;
        for some in files.chunks(FILES) {
            pass(&ours, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
        Ok(theirs)
    }

    /// Takes out what a predecessor has left there.
    ///
    /// # Errors
    /// There is nothing, it is damaged or in another format.
    pub fn receive(from: impl AsFd) -> io::Result<Self> {
        let mut files = Vec::new();
        while take(from.as_fd(), &mut files)? {}
        let mut files = files.into_iter();
        let mut text = Vec::new();
        let paper = files.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nothing was left"))?;
        File::from(paper).read_to_end(&mut text)?;
        let Description { format, legacy } = serde_json::from_slice(&text)?;
        if format != FORMAT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is in the format {format}")));
        }
        Ok(serde_json::from_value::<Legacy<()>>(legacy)?.map(|()| files.next()))
    }
}

/// Puts files into the socket. A byte has to go with them.
fn pass(into: &OwnedFd, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(files));
    match sendmsg(into, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(Errno::AGAIN) => Err(io::Error::other("it has more files than a socket holds")),
        Err(error) => Err(error.into()),
    }
}

/// Takes files out of it; whether there may be more.
fn take(from: BorrowedFd<'_>, files: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = match recvmsg(from, &mut [IoSliceMut::new(&mut [0])], &mut control, flags) {
        Ok(message) => message.bytes,
        Err(Errno::AGAIN) => 0,
        Err(error) => return Err(error.into()),
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            files.extend(some);
        }
    }
    Ok(got > 0)
}
