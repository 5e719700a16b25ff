//! Files of the server: replaced whole, with the mode and owner they had.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::hosts::{self, Entries};

pub mod machine;
pub mod state;

/// Where a machine's names of machines are.
pub const HOSTS: &str = "/etc/hosts";

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Of a file that is there.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self { mode: found.mode() & 0o7777, uid: found.uid(), gid: found.gid() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Of a file made now, with these permission bits.
    pub fn fresh(mode: u32) -> Self {
        Self { mode, uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }
}

/// Keeps the servers in a hosts file; whether it changed.
///
/// # Errors
/// It cannot be read or written; then it is as it was, but for a bind mount on a full disk, which has no second copy.
pub fn keep_hosts(path: &Path, entries: &Entries) -> io::Result<bool> {
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let new = hosts::with_block(&old, entries);
    if new == old {
        return Ok(false);
    }
    replace(path, &new, Owner::fresh(0o644))?;
    Ok(true)
}

/// Puts these bytes in the place of a file's: readers see the old or the new ones, whole. Mode and owner stay; a file
/// that was not there gets `fresh`. A symbolic link stays and what it leads to is replaced.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, bytes: &[u8], fresh: Owner) -> io::Result<()> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        // A link into nowhere is found by what is at the path itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => path.to_owned(),
        Err(error) => return Err(error),
    };
    let owner = Owner::of(&target)?;
    put(&target, bytes, owner.unwrap_or(fresh))
}

/// The same with this mode and owner, whatever was there.
///
/// # Errors
/// It cannot be written.
pub fn put(path: &Path, bytes: &[u8], owner: Owner) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    // A name as long as names may be leaves no room for more.
    hidden.push(name.to_string_lossy().chars().take(40).collect::<String>());
    hidden.push(".quarry-new");
    let new = folder.join(hidden);
    let written = write_new(&new, bytes, owner).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        // What is half written must not stay; that it cannot be removed adds nothing.
        let _ = fs::remove_file(&new);
        return match error.kind() {
            // A file mounted over the path, as /etc/hosts in containers: it can be written and not replaced.
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => write_over(path, bytes),
            _ => Err(error),
        };
    }
    sync(folder)
}

fn write_new(path: &Path, bytes: &[u8], owner: Owner) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    fchown(&file, Some(owner.uid), Some(owner.gid))?;
    // After the owner, whose change takes set-id bits away.
    file.set_permissions(Permissions::from_mode(owner.mode))?;
    file.sync_all()
}

fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes changes of names in a folder durable.
///
/// # Errors
/// The folder cannot be synchronised.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The bytes of a file; `None` when it is not there.
///
/// # Errors
/// It is no plain file, longer than `limit`, or cannot be read.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // NONBLOCK: somebody's pipe at the path must not hold up the reader for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn mode_and_owner_of_a_file_that_is_replaced_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let owner = Owner { mode: 0o4750, uid: 12, gid: 34 };
        put(&path, b"first", owner).unwrap();
        replace(&path, b"second", Owner::fresh(0o600)).unwrap();
        assert_eq!((fs::read(&path).unwrap(), Owner::of(&path).unwrap()), (b"second".to_vec(), Some(owner)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left in the folder");
    }

    #[test]
    fn a_link_stays_a_link_and_one_into_nowhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [link, real, stray] = ["link", "real", "stray"].map(|name| folder.path().join(name));
        fs::write(&real, "old").unwrap();
        symlink("real", &link).unwrap();
        symlink("nowhere", &stray).unwrap();
        replace(&link, b"new", Owner::fresh(0o600)).unwrap();
        assert_eq!((fs::read_link(&link).unwrap().to_str(), fs::read(&real).unwrap()), (Some("real"), b"new".to_vec()));
        assert!(replace(&stray, b"new", Owner::fresh(0o600)).is_err());
        assert!(fs::symlink_metadata(&stray).unwrap().is_symlink());
    }

    #[test]
    fn a_name_as_long_as_names_may_be_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ä".repeat(127));
        replace(&path, b"new", Owner::fresh(0o640)).unwrap();
        assert_eq!(Owner::of(&path).unwrap().unwrap().mode, 0o640);
    }

    #[test]
    fn a_hosts_file_changes_only_when_the_servers_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        let entries = Entries::from([("10.0.0.1".parse().unwrap(), ["one".parse().unwrap()].into())]);
        assert!(keep_hosts(&path, &entries).unwrap());
        let kept = fs::metadata(&path).unwrap().ino();
        assert!(!keep_hosts(&path, &entries).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), kept);
        assert!(keep_hosts(&path, &Entries::new()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
    }
}
