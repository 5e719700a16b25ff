//! Config files on the disk, and what quarry remembers of them in `config` below its folder.
//!
//! ```text
//! manifest.json   what was written where      before/<digest>   what was there before      lock
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Content, LIMIT, Manifest};
use crate::network::files::{Owner, put, read, sync};
use crate::units::hex::sha256;

/// What was there before may have been larger than what quarry takes.
const BEFORE_LIMIT: u64 = 64 << 20;

/// The folder.
#[derive(Debug, Clone)]
pub struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// Below quarry's folder.
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("config") }
    }

    /// Waits until nobody else changes config files. Makes the folder.
    ///
    /// # Errors
    /// It cannot be made or locked.
    pub fn alone(&self) -> io::Result<File> {
        fs::create_dir_all(self.folder.parent().unwrap_or(&self.folder))?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join("before"))?;
        let lock = File::options().write(true).create(true).truncate(false).open(self.folder.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// What was written.
    ///
    /// # Errors
    /// It cannot be read, or is damaged: then nothing is taken away.
    pub fn manifest(&self) -> io::Result<Manifest> {
        match read(&self.path(), BEFORE_LIMIT)? {
            None => Ok(Manifest::new()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        }
    }

    /// Remembers it.
    ///
    /// # Errors
    /// Then what was remembered is.
    pub fn keep(&self, manifest: &Manifest) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(manifest).map_err(io::Error::from)?;
        put(&self.path(), &bytes, Owner::fresh(0o600))
    }

    /// Keeps bytes that quarry is about to write over; which.
    ///
    /// # Errors
    /// They cannot be kept.
    pub fn set_aside(&self, bytes: &[u8]) -> io::Result<Content> {
        let content = content(bytes);
        put(&self.folder.join("before").join(&content), bytes, Owner::fresh(0o600))?;
        Ok(content)
    }

    /// Bytes that were kept.
    ///
    /// # Errors
    /// They are gone or cannot be read.
    pub fn set_aside_before(&self, kept: &Content) -> io::Result<Vec<u8>> {
        let bytes = read(&self.folder.join("before").join(kept), BEFORE_LIMIT)?.ok_or(io::ErrorKind::NotFound)?;
        if content(&bytes) == *kept { Ok(bytes) } else { Err(io::Error::other("what was kept of it is damaged")) }
    }

    /// Forgets what no file of the manifest needs any more.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn tidy(&self, manifest: &Manifest) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join("before"))? {
            let entry = entry?;
            let name = entry.file_name();
            let needed = |kept: &Content| name == kept.as_str();
            if !manifest.values().any(|written| written.before.as_ref().is_some_and(|before| needed(&before.kept))) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where it is remembered.
    pub fn path(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }
}

/// A file as it is now, with mode and owner; `None` when it is not there.
///
/// # Errors
/// It is no plain file or cannot be read.
pub fn now(path: &Path) -> io::Result<Option<(Vec<u8>, Owner)>> {
    match (read(path, BEFORE_LIMIT)?, Owner::of(path)?) {
        (Some(bytes), Some(owner)) => Ok(Some((bytes, owner))),
        (Some(_) | None, Some(_) | None) => Ok(None),
    }
}

/// Where a path leads once every link on the way is followed; what is not there yet is added as it is named.
///
/// # Errors
/// A link leads nowhere or in a circle.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    let mut there = path;
    let mut missing = Vec::new();
    loop {
        match fs::canonicalize(there) {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(there).is_err() => {
                missing.push(there.file_name().ok_or(io::ErrorKind::NotFound)?);
                there = there.parent().ok_or(io::ErrorKind::NotFound)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The folders that are missing on the way to a file, outermost first.
pub fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let folders = path.ancestors().skip(1).take_while(|folder| !folder.exists());
    let mut missing: Vec<PathBuf> = folders.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Makes folders, outermost first.
///
/// # Errors
/// One cannot be made.
pub fn make_folders(folders: &[PathBuf]) -> io::Result<()> {
    for folder in folders {
        match DirBuilder::new().mode(0o755).create(folder) {
            Ok(()) => sync(folder.parent().unwrap_or(Path::new("/")))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a file, and those of the folders that are empty then.
///
/// # Errors
/// The file cannot be removed. A folder that is used by now stays.
pub fn remove(path: &Path, made: &[PathBuf]) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for folder in made.iter().rev() {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// The digest of bytes.
pub fn content(bytes: &[u8]) -> Content {
    sha256(bytes)
}

/// Whether bytes are more than a config file may have.
pub fn is_too_long(bytes: &[u8]) -> bool {
    bytes.len() > LIMIT
}
