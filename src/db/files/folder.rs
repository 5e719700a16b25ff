//! A folder held by its descriptor. Every step down refuses symbolic links, so that nothing outside the root is ever
//! read or written, whatever somebody puts into the tree meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::VALUE_LIMIT;

/// Only the owner reads the tree: it holds secrets.
const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Why a step in the tree failed.
#[derive(Debug)]
pub enum Trouble {
    /// Something is there that the tree does not read.
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file is where a folder should be, or the other way round.
    InTheWay(PathBuf),
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Further names.
    Folder,
    /// A plain file.
    File,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Other,
}

impl Sort {
    fn of(kind: FileType) -> Self {
        match kind {
            FileType::Directory => Self::Folder,
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }

    fn complaint(self) -> &'static str {
        match self {
            Self::Folder => "it is a folder",
            Self::File => "it is a file",
            Self::Link => "it is a symbolic link, which quarry does not follow",
            Self::Other => "it is a socket, pipe or device",
        }
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the root; a link that leads to it is followed.
    pub fn root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `name` in this one; `None` when it is not there.
    pub fn enter(&self, name: &str) -> Result<Option<Self>, Trouble> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => match self.sort(name)? {
                Some(Sort::File) => Err(Trouble::InTheWay(self.path.join(name))),
                Some(sort) => Err(self.damaged(name, sort.complaint())),
                None => Ok(None),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The folder below this one along `names`; `None` when it is not there.
    pub fn descend<'a>(self, names: impl Iterator<Item = &'a str>) -> Result<Option<Self>, Trouble> {
        let mut folder = self;
        for name in names {
            match folder.enter(name)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// The folder below this one along `names`, made durably where it is not there.
    pub fn make<'a>(self, names: impl Iterator<Item = &'a str>) -> Result<Self, Trouble> {
        let mut folder = self;
        for name in names {
            let next = match folder.enter(name)? {
                Some(next) => next,
                None => {
                    rustix::fs::mkdirat(&folder.fd, name, FOLDER_MODE)?;
                    folder.sync()?;
                    folder.enter(name)?.ok_or(Errno::NOENT)?
                }
            };
            folder = next;
        }
        Ok(folder)
    }

    /// What `name` is; `None` when it is not there.
    pub fn sort(&self, name: &str) -> Result<Option<Sort>, Trouble> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Sort::of(FileType::from_raw_mode(stat.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The content of the plain file `name`; `None` when it is a folder or not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        // NONBLOCK: somebody's pipe in the tree must not hold up the reader for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.damaged(name, Sort::Link.complaint())),
            Err(Errno::NXIO) => return Err(self.damaged(name, Sort::Other.complaint())),
            Err(error) => return Err(error.into()),
        };
        match Sort::of(FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode)) {
            Sort::File => {}
            Sort::Folder => return Ok(None),
            sort @ (Sort::Link | Sort::Other) => return Err(self.damaged(name, sort.complaint())),
        }
        let mut value = Vec::new();
        File::from(fd).take(VALUE_LIMIT as u64 + 1).read_to_end(&mut value)?;
        if value.len() > VALUE_LIMIT {
            return Err(self.damaged(name, &format!("it is longer than {VALUE_LIMIT} bytes")));
        }
        Ok(Some(value))
    }

    /// The names in it that are text, with what they are, in no order.
    pub fn names(&self) -> Result<Vec<(String, Sort)>, Trouble> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let sort = match entry.file_type() {
                // Some file systems do not say; asking by name may find it gone.
                FileType::Unknown => self.sort(name)?,
                kind => Some(Sort::of(kind)),
            };
            names.extend(sort.map(|sort| (name.to_owned(), sort)));
        }
        Ok(names)
    }

    /// A new file for writing.
    pub fn create(&self, name: &str) -> Result<File, Trouble> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, FILE_MODE)?))
    }

    /// Gives a file another name, in place of what had that name.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Trouble> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a file or link; whether it was there.
    pub fn remove(&self, name: &str) -> Result<bool, Trouble> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a folder if it is empty; whether it did.
    pub fn remove_empty(&self, name: &str) -> Result<bool, Trouble> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes changes of names in it durable.
    pub fn sync(&self) -> Result<(), Trouble> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    fn damaged(&self, name: &str, what: &str) -> Trouble {
        Trouble::Damaged { path: self.path.join(name), what: what.to_owned() }
    }
}
