//! Reads the packs of the server's owner.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::shelf::{BadPack, Shelf};

/// Bytes of one pack.
const LARGEST: u64 = 16 * 1024 * 1024;

/// A folder of packs that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Something cannot be read.
    #[error("cannot read the buildpack `{}`", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is no pack.
    #[error("`{}` is no buildpack", path.display())]
    Bad {
        /// What.
        path: PathBuf,
        /// Why.
        source: BadPack,
    },
}

/// The packs below `dir`, each a folder; none where there is no such folder. Names that start with a dot are left out.
///
/// # Errors
/// The first that cannot be read or is no pack.
pub fn shelf(dir: &Path) -> Result<Shelf, ShelfError> {
    let mut shelf = Shelf::default();
    let error = |source| ShelfError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(error)?,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(shelf),
        Err(source) => return Err(error(source)),
    };
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !path.is_dir() {
            continue;
        }
        let mut pack = Pack { root: path.clone(), files: BTreeMap::new(), left: LARGEST };
        pack.folder("").map_err(|source| ShelfError::Read { path: path.clone(), source })?;
        shelf.put(&name, pack.files).map_err(|source| ShelfError::Bad { path, source })?;
    }
    Ok(shelf)
}

struct Pack {
    root: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    left: u64,
}

impl Pack {
    fn folder(&mut self, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(prefix))? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name == ".git" {
                continue;
            }
            let (path, kind) = (format!("{prefix}{name}"), entry.file_type()?);
            if kind.is_dir() {
                self.folder(&format!("{path}/"))?;
                continue;
            }
            // The owner's own links are followed; what they lead to is a file like any other.
            let found = fs::metadata(entry.path())?;
            if found.is_file() {
                let too_large = || io::Error::other(format!("it has more than {LARGEST} bytes"));
                self.left = self.left.checked_sub(found.len()).ok_or_else(too_large)?;
                self.files.insert(path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_packs_and_none_are_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(shelf(&dir.path().join("missing")).unwrap(), Shelf::default());
        for (path, text) in [
            ("own/bin/detect", "x"),
            ("own/bin/compile", "y"),
            ("own/lib/a/b", "z"),
            ("own/.git/x", ""),
            ("README", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = shelf(dir.path()).unwrap();
        let files: Vec<&String> = found.scripts("own").unwrap().keys().collect();
        assert_eq!(files, ["bin/compile", "bin/detect", "lib/a/b"]);
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(matches!(shelf(dir.path()), Err(ShelfError::Bad { .. })));
    }
}
