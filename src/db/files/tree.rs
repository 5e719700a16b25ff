//! The blocking half: every operation on the folder, without leases and watches.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::folder::{Folder, Sort, Trouble};
use super::walk::{self, Walk, segments};
use crate::db::{DbError, Entry, Guard, Key, Version, paths};
use crate::units::hex::sha256;

/// Files that are being written; whoever opens the tree next removes what a crash left.
const TEMPORARY: &str = ".quarry-put-";
/// Held as long as the tree is open.
const LOCK: &str = ".lock";

/// An open root folder.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    temporaries: AtomicU64,
    /// The lock ends when the last descriptor of this file does.
    _lock: File,
}

/// The version of a content.
pub fn version(value: &[u8]) -> Version {
    Version(sha256(value))
}

impl Tree {
    /// Takes the folder at `path`, made when it is not there, for this process alone. Everybody may pass it, since
    /// nginx's workers have sites and logs below it; nobody but its owner may look into it, nor pass what holds values.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let (path, lock) = take(path)?;
        let tree = Self { path, temporaries: AtomicU64::new(0), _lock: lock };
        tree.sweep().map_err(|trouble| tree.error("clean", "", trouble))?;
        Ok(tree)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn root(&self) -> Result<Folder, Trouble> {
        Ok(Folder::root(&self.path)?)
    }

    /// The folder a key lies in; `None` when it is not there, or when a value lies where it should be.
    fn folder(&self, key: &Key) -> Result<Option<Folder>, Trouble> {
        match self.root()?.descend(parents(key)) {
            Err(Trouble::InTheWay(_)) => Ok(None),
            other => other,
        }
    }

    /// The value of a key.
    pub fn read(&self, key: &Key) -> Result<Option<Entry>, Trouble> {
        let value = match self.folder(key)? {
            Some(folder) => folder.read(key.last())?,
            None => None,
        };
        Ok(value.map(|value| Entry { key: key.clone(), version: version(&value), value }))
    }

    /// Entries under `prefix` in key order, after `after`, at most `limit`.
    pub fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, Trouble> {
        let mut entries = Vec::new();
        let mut take = |folder: &Folder, key: Key| {
            if entries.len() == limit {
                return Ok(Walk::Enough);
            }
            // A file that went since its name was read is simply not listed.
            if let Some(value) = folder.read(key.last())? {
                entries.push(Entry { key, version: version(&value), value });
            }
            Ok(Walk::On)
        };
        walk::keys(self.root()?, prefix, after, &mut take)?;
        Ok(entries)
    }

    /// Every key under `prefix`, in order.
    pub fn keys(&self, prefix: &str) -> Result<Vec<Key>, Trouble> {
        let mut keys = Vec::new();
        walk::keys(self.root()?, prefix, None, &mut |_, key| {
            keys.push(key);
            Ok(Walk::On)
        })?;
        Ok(keys)
    }

    /// The names directly below `prefix` that are keys or hold some.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, Trouble> {
        let folder = match self.root()?.descend(segments(prefix)) {
            Ok(Some(folder)) => folder,
            Ok(None) | Err(Trouble::InTheWay(_)) => return Ok(Vec::new()),
            Err(trouble) => return Err(trouble),
        };
        let mut names = Vec::new();
        for (name, _) in folder.names()? {
            let mut holds = false;
            walk::keys(self.root()?, &paths::join(prefix, &name), None, &mut |_, _| {
                holds = true;
                Ok(Walk::Enough)
            })?;
            if holds {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Begins a put: the folder is there and the value stands, durable, under a name that nobody reads.
    ///
    /// `turn` keeps the folder from being pruned before the file is in it.
    pub fn prepare<T>(&self, key: &Key, value: &[u8], turn: impl FnOnce() -> T) -> Result<Prepared, Trouble> {
        let held = turn();
        let folder = self.root()?.make(parents(key))?;
        let name = format!("{TEMPORARY}{}", self.temporaries.fetch_add(1, Ordering::Relaxed));
        let mut file = folder.create(&name)?;
        let prepared = Prepared { folder, name: Some(name), version: version(value) };
        drop(held);
        file.write_all(value)?;
        file.sync_all()?;
        Ok(prepared)
    }

    /// Whether the guard holds now.
    pub fn guard(&self, key: &Key, guard: &Guard) -> Result<bool, Trouble> {
        match guard {
            Guard::Any => Ok(true),
            Guard::Absent => match self.folder(key)? {
                Some(folder) => Ok(matches!(folder.sort(key.last())?, None | Some(Sort::Folder))),
                None => Ok(true),
            },
            Guard::Unchanged(version) => Ok(self.read(key)?.is_some_and(|entry| entry.version == *version)),
        }
    }

    /// Removes a key and the folders that are empty then; whether it was there.
    pub fn remove(&self, key: &Key) -> Result<bool, Trouble> {
        let Some(folder) = self.folder(key)? else { return Ok(false) };
        if matches!(folder.sort(key.last())?, None | Some(Sort::Folder)) {
            return Ok(false);
        }
        let removed = folder.remove(key.last())?;
        folder.sync()?;
        self.prune(key.as_str())?;
        Ok(removed)
    }

    /// Removes the empty folders above a path, up to the first that is shared.
    pub fn prune(&self, mut path: &str) -> Result<(), Trouble> {
        while let Some((above, _)) = path.rsplit_once('/') {
            let (over, name) = above.rsplit_once('/').unwrap_or(("", above));
            if paths::is_shared(above) {
                break;
            }
            match self.root()?.descend(segments(over))? {
                Some(folder) if folder.remove_empty(name)? => folder.sync()?,
                Some(_) => break,
                None => {}
            }
            path = above;
        }
        Ok(())
    }

    /// Removes every key under `prefix`, then the folders that are empty, in it and above it; the keys that went.
    pub fn remove_under(&self, prefix: &str) -> Result<Vec<Key>, Trouble> {
        let gone = walk::clear(self.root()?, prefix)?;
        if !gone.is_empty() {
            self.prune(prefix)?;
        }
        Ok(gone)
    }

    /// Every folder that may hold keys under `prefix`, and those on the way to it, as far as they are there.
    pub fn folders(&self, prefix: &str) -> Result<Vec<PathBuf>, Trouble> {
        walk::folders(self.root()?, prefix)
    }

    /// Writes a file of the root that is no key, whole or not at all.
    pub fn write_own(&self, name: &str, content: &[u8]) -> Result<(), Trouble> {
        let root = self.root()?;
        let temporary = format!("{TEMPORARY}{}", self.temporaries.fetch_add(1, Ordering::Relaxed));
        let mut file = root.create(&temporary)?;
        let mut prepared = Prepared { folder: root, name: Some(temporary), version: version(content) };
        file.write_all(content)?;
        file.sync_all()?;
        prepared.name_it(name)?;
        prepared.folder.sync()
    }

    /// Reads a file of the root that is no key.
    pub fn read_own(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.root()?.read(name)
    }

    /// Removes what puts of an earlier process left behind.
    fn sweep(&self) -> Result<(), Trouble> {
        for path in self.folders("")? {
            let folder = Folder::root(&path)?;
            for (name, sort) in folder.names()? {
                if sort == Sort::File && name.starts_with(TEMPORARY) {
                    folder.remove(&name)?;
                }
            }
        }
        Ok(())
    }

    /// What went wrong, in the words of the seam.
    pub fn error(&self, doing: &'static str, key: &str, trouble: Trouble) -> DbError {
        let relative = |path: &Path| path.strip_prefix(&self.path).unwrap_or(path).display().to_string();
        let known = |key: &str| key.parse::<Key>().ok();
        match trouble {
            Trouble::Damaged { path, what } => match known(&relative(&path)) {
                Some(key) => DbError::Damaged { key, what, place: path.display().to_string() },
                None => backend(doing, key, io::Error::other(format!("{}: {what}", path.display()))),
            },
            Trouble::InTheWay(path) => match known(key) {
                Some(key) => DbError::Nested { key, taken: relative(&path) },
                None => backend(doing, key, io::Error::from(io::ErrorKind::NotADirectory)),
            },
            Trouble::Io(source) => match (source.kind(), known(key)) {
                (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, Some(key)) => {
                    DbError::Full { key, place: self.path.display().to_string() }
                }
                _ => backend(doing, key, source),
            },
        }
    }
}

/// A value that stands ready under a temporary name; dropped without its real name, it goes.
#[derive(Debug)]
pub struct Prepared {
    folder: Folder,
    name: Option<String>,
    /// The version of its content.
    pub version: Version,
}

impl Prepared {
    /// Gives the value its name: from here on everybody sees it.
    pub fn name_it(&mut self, name: &str) -> Result<(), Trouble> {
        // An empty folder is no key; one that holds any stays and is an error.
        if self.folder.sort(name)? == Some(Sort::Folder) && !self.folder.remove_empty(name)? {
            return Err(Trouble::InTheWay(self.folder.path().join(name)));
        }
        if let Some(temporary) = &self.name {
            self.folder.rename(temporary, name)?;
            self.name = None;
        }
        Ok(())
    }

    /// Makes the name durable.
    pub fn sync(&self) -> Result<(), Trouble> {
        self.folder.sync()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // What cannot be removed now is swept when the tree is opened next.
            drop(self.folder.remove(&name));
        }
    }
}

/// The folders a key lies in.
fn parents(key: &Key) -> impl Iterator<Item = &str> {
    segments(key.as_str().rsplit_once('/').map_or("", |(above, _)| above))
}

fn backend(doing: &'static str, key: &str, source: io::Error) -> DbError {
    DbError::Backend { doing, key: key.to_owned(), source: Box::new(source) }
}

/// Takes the folder at `path` as [`Tree::open`] does, without looking into it; gives its whole path too.
pub fn take(path: &Path) -> Result<(PathBuf, File), DbError> {
    let cannot = |doing| move |source| backend(doing, &path.display().to_string(), source);
    DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(cannot("make"))?;
    let path = std::path::absolute(path).map_err(cannot("find"))?;
    let lock = lock(&path)?;
    Ok((path, lock))
}

/// A folder that nobody but its owner may pass, made when it is not there.
pub fn make_private(path: &Path) -> Result<(), DbError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| backend("make", &path.display().to_string(), source))
}

/// Takes the lock of the root at `path` and writes this process into it.
fn lock(path: &Path) -> Result<File, DbError> {
    let place = path.join(LOCK);
    let cannot = |source| backend("lock", &place.display().to_string(), source);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(32).read_to_string(&mut holder).map_err(cannot)?;
            // Between its lock and its words the holder is nobody for an instant.
            let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
            return Err(DbError::InUse { place: path.display().to_string(), holder: holder.to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(cannot(source)),
    }
    file.set_len(0).map_err(cannot)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(cannot)?;
    Ok(file)
}
