//! The authority that says whose certificates of docker's clients are, beside the settings.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::etc::DOCKER_AUTHORITY;
use crate::servers::authority::{Authority, AuthorityError, DOCK};
use crate::units::random::hex;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it, or cannot be put there.
    #[error("{} is no authority; without it a new one is made, and every certificate has to be made again", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        source: AuthorityError,
    },
}

/// The authority in the folder of the settings, made when it is not there. Of two that are made at once one counts.
///
/// # Errors
/// When it cannot be read, made or kept.
pub fn authority(etc: &Path, now: Timestamp) -> Result<Authority, FilesError> {
    let path = etc.join(DOCKER_AUTHORITY);
    if !path.exists() {
        let made = Authority::make(DOCK, now).map_err(|source| FilesError::Authority { path: path.clone(), source })?;
        write(&path, &made.text()).map_err(|source| FilesError::File { path: path.clone(), source })?;
    }
    let text = fs::read_to_string(&path).map_err(|source| FilesError::File { path: path.clone(), source })?;
    Authority::parse(DOCK, &text).map_err(|source| FilesError::Authority { path, source })
}

/// Writes a file that only its owner reads, whole, unless there is one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_added_extension(hex::<4>());
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&fresh, path));
    fs::remove_file(&fresh)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn there_is_one_authority_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = authority(folder.path(), Timestamp::UNIX_EPOCH).unwrap();
        write(&folder.path().join(DOCKER_AUTHORITY), "another one").unwrap();
        assert_eq!(authority(folder.path(), Timestamp::UNIX_EPOCH).unwrap().text(), first.text());
        let mode = fs::metadata(folder.path().join(DOCKER_AUTHORITY)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::read_dir(folder.path()).unwrap().count()), (0o600, 1));
        fs::write(folder.path().join(DOCKER_AUTHORITY), "nonsense").unwrap();
        assert!(matches!(authority(folder.path(), Timestamp::UNIX_EPOCH), Err(FilesError::Authority { .. })));
    }
}
