//! The file with the keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Seal, SealError};

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system's words.
    #[error("cannot read or write the key of all variables, {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody could read it.
    #[error("others may read the key of all variables; chmod 600 {}", .0.display())]
    Open(PathBuf),
    /// It holds something else.
    #[error("{} does not hold the key of all variables", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
}

/// The keys in a file, which is made when there is none.
///
/// # Errors
/// [`KeyFileError`].
pub fn open_or_create(path: &Path) -> Result<Seal, KeyFileError> {
    let file = |source| KeyFileError::File { path: path.to_owned(), source };
    loop {
        match fs::read_to_string(path) {
            Ok(text) => {
                if fs::metadata(path).map_err(file)?.permissions().mode() & 0o077 != 0 {
                    return Err(KeyFileError::Open(path.to_owned()));
                }
                let damaged = |source| KeyFileError::Damaged { path: path.to_owned(), source };
                return Ok(Seal::parse(&text).map_err(damaged)?.kept_in(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(error)),
        }
        // Another process may come first: then it is that one's.
        let new = write_beside(path, &Seal::fresh()).map_err(file)?;
        let made = fs::hard_link(&new, path);
        fs::remove_file(&new).map_err(file)?;
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(file(error)),
            Ok(()) | Err(_) => sync_folder(path).map_err(file)?,
        }
    }
}

/// Puts keys in the place of those in a file, in one step.
///
/// # Errors
/// [`KeyFileError::File`].
pub fn replace(path: &Path, seal: &Seal) -> Result<(), KeyFileError> {
    let done = write_beside(path, seal).and_then(|new| fs::rename(new, path)).and_then(|()| sync_folder(path));
    done.map_err(|source| KeyFileError::File { path: path.to_owned(), source })
}

fn write_beside(path: &Path, seal: &Seal) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    // Hidden, so that it is no setting.
    let new = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let text =
        "# The key of all variables. Without it nobody reads them again: keep a copy where HQ's backups are not.\n";
    file.write_all(text.as_bytes())?;
    file.write_all(seal.text().as_bytes())?;
    file.sync_all()?;
    Ok(new)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/env_key");
        let first = open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open_or_create(&path).unwrap().text(), first.text());
        replace(&path, &first.turned()).unwrap();
        assert_eq!(open_or_create(&path).unwrap().text().lines().count(), 2);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open_or_create(&path), Err(KeyFileError::Open(_))));
        fs::write(&path, "nothing").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(open_or_create(&path), Err(KeyFileError::Damaged { .. })));
    }
}
