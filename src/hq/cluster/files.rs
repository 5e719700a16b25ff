//! The settings that say where the state is, and the authority beside them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;

use super::ClusterError;
use crate::etc;
use crate::names::ServerName;
use crate::servers::authority::{Authority, ETCD, Identity};

/// What is written here takes its place in one step; nobody takes it for a setting before.
const NEW: &str = ".etcd.new";

/// The authority, made when it is not there.
///
/// # Errors
/// When it cannot be read, made or kept.
pub fn authority(folder: &Path, now: Timestamp) -> Result<Authority, ClusterError> {
    if let Some(known) = known_authority(folder)? {
        return Ok(known);
    }
    let path = folder.join(etc::AUTHORITY);
    let made = Authority::make(ETCD, now).map_err(|source| ClusterError::Authority { path: path.clone(), source })?;
    let written = fs::create_dir_all(folder).and_then(|()| write_whole(&path, &made.text()));
    written.map_err(|source| ClusterError::Settings { doing: "write", path, source })?;
    Ok(made)
}

/// The authority, if one was ever made.
///
/// # Errors
/// When it cannot be read.
pub fn known_authority(folder: &Path) -> Result<Option<Authority>, ClusterError> {
    let path = folder.join(etc::AUTHORITY);
    match fs::read_to_string(&path) {
        Ok(text) => Authority::parse(ETCD, &text).map(Some).map_err(|source| ClusterError::Authority { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ClusterError::Settings { doing: "read", path, source }),
    }
}

/// The state is in this cluster from now on: all settings at once, or none.
///
/// # Errors
/// When they cannot be written, or there are some already.
pub fn move_in(
    folder: &Path,
    endpoints: &[String],
    authority: &Authority,
    identity: &Identity,
) -> Result<(), ClusterError> {
    let (new, home) = (folder.join(NEW), folder.join("etcd"));
    let write = || {
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&new)?;
        write_whole(&new.join("ca"), &authority.certificate())?;
        write_whole(&new.join("cert"), &identity.certificate)?;
        write_whole(&new.join("key"), &identity.key)?;
        write_whole(&new.join("endpoints"), &lines(endpoints))?;
        sync(&new)?;
        fs::rename(&new, &home)?;
        sync(folder)
    };
    write().map_err(|source| ClusterError::Settings { doing: "write", path: home.clone(), source })
}

/// The servers on which an etcd has been begun for a state that has not gone there.
///
/// # Errors
/// When it cannot be read.
pub fn begun(folder: &Path) -> Result<BTreeSet<ServerName>, ClusterError> {
    let path = folder.join(etc::BEGUN);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(ClusterError::Settings { doing: "read", path, source }),
    }
}

/// Notes them; with none, that nothing is left to remember.
///
/// # Errors
/// When that cannot be written.
pub fn note_begun(folder: &Path, servers: &BTreeSet<ServerName>) -> Result<(), ClusterError> {
    let path = folder.join(etc::BEGUN);
    let noted = if servers.is_empty() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    } else {
        write_whole(&path, &servers.iter().map(|server| format!("{server}\n")).collect::<String>())
    };
    noted.map_err(|source| ClusterError::Settings { doing: "write", path, source })
}

/// The cluster that the state is in has these members from now on.
///
/// # Errors
/// When that cannot be written; then those before stand there.
pub fn write_endpoints(folder: &Path, endpoints: &[String]) -> Result<(), ClusterError> {
    let path = folder.join("etcd/endpoints");
    write_whole(&path, &lines(endpoints)).map_err(|source| ClusterError::Settings { doing: "write", path, source })
}

fn lines(endpoints: &[String]) -> String {
    endpoints.iter().map(|endpoint| format!("{endpoint}\n")).collect()
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let (folder, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let new = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::etc::files::read;
    use crate::servers::authority::Whom;

    #[test]
    fn settings_are_complete_at_once_and_hold_what_they_should() {
        let folder = tempfile::tempdir().unwrap();
        let made = authority(folder.path(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(authority(folder.path(), Timestamp::UNIX_EPOCH).unwrap().text(), made.text());
        let mode = fs::metadata(folder.path().join(etc::AUTHORITY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read(folder.path()).unwrap().etcd, None, "an authority alone is no home");
        let identity = made.issue(&Whom::Hq, Timestamp::UNIX_EPOCH).unwrap();
        // One that was killed left a part.
        fs::create_dir(folder.path().join(NEW)).unwrap();
        fs::write(folder.path().join(NEW).join("key"), "half").unwrap();
        assert_eq!(read(folder.path()).unwrap().etcd, None);
        move_in(folder.path(), &["https://10.0.0.1:2379".into()], &made, &identity).unwrap();
        let etcd = read(folder.path()).unwrap().etcd.unwrap();
        assert_eq!(etcd.endpoints, ["https://10.0.0.1:2379"]);
        assert_eq!(etcd.ca, Some(made.certificate()));
        assert_eq!(etcd.identity.unwrap().0, identity.certificate);
        write_endpoints(folder.path(), &["https://10.0.0.1:2379".into(), "https://10.0.0.2:2379".into()]).unwrap();
        assert_eq!(read(folder.path()).unwrap().etcd.unwrap().endpoints.len(), 2);
        assert!(!folder.path().join(NEW).exists());
    }
}
