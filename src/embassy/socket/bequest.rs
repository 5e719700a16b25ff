//! How a legacy goes from a program to the one that replaces it in the same process: through a socket of the kernel's, which
//! holds a description of it and all of its files until they are taken out.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::super::legacy::Legacy;
use crate::descriptors::{self, MOST};

/// Goes up when a description is not what it was: a successor that knows another takes nothing over.
const FORMAT: u32 = 1;

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
        descriptors::put(&ours, &[paper.as_fd()])?;
        for some in files.chunks(MOST) {
            let put = descriptors::put(&ours, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>());
            put.map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::other("it has more files than a socket holds"),
                _ => error,
            })?;
        }
        Ok(theirs)
    }

    /// Takes out what a predecessor has left there.
    ///
    /// # Errors
    /// There is nothing, it is damaged or in another format.
    pub fn receive(from: impl AsFd) -> io::Result<Self> {
        let mut all = Vec::new();
        loop {
            // Whatever socket this is, nobody puts anything in any more.
            match descriptors::take(&from, RecvFlags::DONTWAIT) {
                Ok(files) if files.is_empty() => break,
                Ok(files) => all.extend(files),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut files = all.into_iter();
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
