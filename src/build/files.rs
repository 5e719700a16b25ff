//! Reads the texts of a checkout that describe its builds.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A text that describes a build is never larger.
const LARGEST: u64 = 1024 * 1024;

/// A text file of the checkout at `dir`; `None` when it is not there, is no text, or is reached through a link that
/// leaves the checkout.
///
/// # Errors
/// It is there and cannot be read, or is larger than 1 MiB.
pub async fn read(dir: &Path, path: &str) -> io::Result<Option<String>> {
    let (dir, path) = (dir.to_owned(), path.to_owned());
    tokio::task::spawn_blocking(move || inside(&dir, &path)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn inside(dir: &Path, path: &str) -> io::Result<Option<String>> {
    let (Some(root), Some(file)) = (resolved(dir.to_owned())?, resolved(dir.join(path))?) else { return Ok(None) };
    let metadata = file.metadata()?;
    if !file.starts_with(&root) || !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(String::from_utf8(fs::read(&file)?).ok())
}

fn resolved(path: PathBuf) -> io::Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn only_text_inside_the_checkout_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "text").unwrap();
        fs::write(dir.path().join("binary"), [0xff]).unwrap();
        symlink("file", dir.path().join("inner")).unwrap();
        symlink("/etc/passwd", dir.path().join("outer")).unwrap();
        for (path, expected) in [
            ("file", Some("text")),
            ("inner", Some("text")),
            ("outer", None),
            ("binary", None),
            ("no", None),
            ("file/x", None),
        ] {
            assert_eq!(read(dir.path(), path).await.unwrap().as_deref(), expected, "{path}");
        }
        fs::File::create(dir.path().join("large")).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(read(dir.path(), "large").await.unwrap_err().to_string().contains("1 MiB"));
    }
}
