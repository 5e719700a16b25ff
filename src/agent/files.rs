//! The agent's folder.
//!
//! ```text
//! lock            held by the one that runs, with its process id
//! control/        agent.sock; the folder is closed to everybody but root
//! config.json     what HQ wanted last
//! embassy.json    the embassy's ports as HQ told them last
//! network/ config/ router/    what locknet, the config files and the router remember
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use super::config::Config;
use crate::embassy::Table;
use crate::network::files::{Owner, put, read};

/// Where an agent lives.
pub const FOLDER: &str = "/var/lib/quarry-agent";

/// A configuration with many large files.
const LIMIT: u64 = 512 << 20;

/// Why an agent cannot live in a folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another one does.
    #[error("an agent runs in {} already (process {holder})", folder.display())]
    Held {
        /// Where.
        folder: PathBuf,
        /// The other's process id as it wrote it.
        holder: String,
    },
    /// The system says no.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder of the agent that runs: no other one runs there while this is held.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    _lock: File,
}

/// The socket of the agent that lives there.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("control/agent.sock")
}

impl Home {
    /// Moves in. The folder can be passed through by nginx's workers, which are not root.
    ///
    /// # Errors
    /// [`FolderError::Held`], or it cannot be made.
    pub fn take(folder: &Path) -> Result<Self, FolderError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        for (name, mode) in [("", 0o711), ("control", 0o700)] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(at(&path))?;
        }
        let path = folder.join("lock");
        let mut lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(FolderError::Held { folder: folder.to_owned(), holder });
            }
            Err(fs::TryLockError::Error(source)) => return Err(FolderError::Io { path, source }),
        }
        let noted = lock.set_len(0).and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()));
        noted.map_err(at(&path))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Listens where HQ comes.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&self) -> Result<UnixListener, FolderError> {
        let path = socket(&self.folder);
        let bound = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => UnixListener::bind(&path),
        };
        let closed = bound.and_then(|bound| fs::set_permissions(&path, Permissions::from_mode(0o600)).map(|()| bound));
        closed.map_err(|source| FolderError::Io { path, source })
    }
}

/// What the folder keeps of what HQ wants.
pub trait Kept: Serialize + DeserializeOwned {
    /// Its file there.
    const FILE: &'static str;
}

impl Kept for Config {
    const FILE: &'static str = "config.json";
}

impl Kept for Table {
    const FILE: &'static str = "embassy.json";
}

/// What HQ wanted last, as the folder has it.
///
/// # Errors
/// It cannot be read or is damaged.
pub fn kept<T: Kept>(folder: &Path) -> io::Result<Option<T>> {
    match read(&folder.join(T::FILE), LIMIT)? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

/// Keeps it, on the disk when this returns.
///
/// # Errors
/// Then the one before is kept.
pub fn keep<T: Kept>(folder: &Path, wanted: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(wanted).expect("what HQ wants has string keys and serialises");
    put(&folder.join(T::FILE), &bytes, Owner::fresh(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_the_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = Home::take(folder.path()).unwrap();
        let refused = Home::take(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        Home::take(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn only_root_comes_to_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::take(folder.path()).unwrap();
        let _listener = home.listen().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let socket = socket(folder.path());
        assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
        drop(_listener);
        home.listen().unwrap();
    }
}
