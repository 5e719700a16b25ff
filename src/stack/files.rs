//! Reads a checked out repository for detection. Nothing outside of it is opened, nothing that could block is read.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::buildpacks::{Repository, Unreadable};
use crate::names::InnerPath;

/// Files listed at most. Folders are read from the top down, so what is left out lies deepest.
const MOST_PATHS: usize = 20_000;

/// A checkout that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A folder that cannot be listed.
    #[error("cannot list the folder `{}`", folder.display())]
    List {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads the repository checked out at `dir`. Names that are not UTF-8 are left out.
///
/// # Errors
/// A folder cannot be listed. Well-known files that cannot be read are recorded instead, in
/// [`Repository::unreadable`].
pub fn read(dir: &Path) -> Result<Repository, RepositoryError> {
    read_at_most(MOST_PATHS, dir)
}

fn read_at_most(most: usize, dir: &Path) -> Result<Repository, RepositoryError> {
    let mut repository = Repository::default();
    let root = dir.canonicalize().map_err(|source| RepositoryError::List { folder: dir.to_owned(), source })?;
    let mut folders = VecDeque::from([(dir.to_owned(), String::new())]);
    while let Some((folder, prefix)) = folders.pop_front() {
        let error = |source| RepositoryError::List { folder: folder.clone(), source };
        for entry in sorted(&folder).map_err(error)? {
            let Some(path) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
            if path == ".git" {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push_back((entry.path(), format!("{path}/")));
            } else if repository.paths.len() < most {
                take(&mut repository, &root, path, &entry.path());
            } else {
                repository.cut = true;
                folders.clear();
                break;
            }
        }
    }
    repository.pointers = pointers(&repository, dir);
    Ok(repository)
}

/// How a pointer of Git LFS begins, and how long one is at most.
const POINTER: (&str, u64) = ("version https://git-lfs.github.com/spec/v1", 1024);

/// Files that Git LFS keeps elsewhere. They are looked for only where a .gitattributes says that there are any.
fn pointers(repository: &Repository, dir: &Path) -> BTreeSet<String> {
    let says = |(path, text): (&String, &String)| path.ends_with(".gitattributes") && text.contains("filter=lfs");
    if !repository.contents.iter().any(says) {
        return BTreeSet::new();
    }
    let is_pointer = |path: &&String| {
        let file = dir.join(path);
        let small = fs::symlink_metadata(&file).is_ok_and(|found| found.is_file() && found.len() <= POINTER.1);
        small && text(&file).is_ok_and(|text| text.starts_with(POINTER.0))
    };
    repository.paths.iter().filter(is_pointer).cloned().collect()
}

/// The text of one file of the checkout at `dir`, by whatever links inside of it.
///
/// # Errors
/// It is not there, not text, too large, or leads out of the repository.
pub fn read_text(dir: &Path, path: &InnerPath) -> Result<String, Unreadable> {
    let root = dir.canonicalize().map_err(|_| Unreadable::Refused)?;
    let file = root.join(path.as_str()).canonicalize().map_err(|_| Unreadable::Dangling)?;
    // Folders on the way may be links, too.
    match file.strip_prefix(&root).is_ok_and(|inside| !inside.starts_with(".git")) {
        true => text(&file),
        false => Err(Unreadable::Outside),
    }
}

/// By name, so that what is left out of a repository with too many files is always the same.
fn sorted(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

fn take(repository: &mut Repository, root: &Path, path: String, file: &Path) {
    if Repository::is_well_known(&path) {
        match followed(root, file).and_then(|file| text(&file)) {
            Ok(text) => {
                repository.contents.insert(path.clone(), text);
            }
            Err(reason) => {
                repository.unreadable.insert(path.clone(), reason);
            }
        }
    }
    repository.paths.insert(path);
}

/// The file itself, or the one a link leads to, as long as that is in the repository too.
fn followed(root: &Path, file: &Path) -> Result<PathBuf, Unreadable> {
    if !fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink()) {
        return Ok(file.to_owned());
    }
    let target = file.canonicalize().map_err(|_| Unreadable::Dangling)?;
    // What git left out of the checkout is no file of the repository.
    let inside = target.strip_prefix(root).is_ok_and(|inside| !inside.starts_with(".git"));
    if inside { Ok(target) } else { Err(Unreadable::Outside) }
}

/// No link is followed here, a pipe is opened without waiting for its other end.
fn text(path: &Path) -> Result<String, Unreadable> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let opened = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let file = opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Unreadable::NotAFile,
        Some(_) | None => Unreadable::Refused,
    })?;
    let found = file.metadata().map_err(|_| Unreadable::Refused)?;
    if !found.is_file() {
        return Err(Unreadable::NotAFile);
    }
    if found.len() > Repository::LARGEST {
        return Err(Unreadable::TooLarge);
    }
    let mut bytes = Vec::new();
    file.take(Repository::LARGEST).read_to_end(&mut bytes).map_err(|_| Unreadable::Refused)?;
    String::from_utf8(bytes).map_err(|_| Unreadable::NotText)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_named_file_is_read_and_none_that_lies_outside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("certs")).unwrap();
        fs::create_dir_all(inside.join(".git")).unwrap();
        fs::write(inside.join("certs/a.pem"), "a").unwrap();
        fs::write(inside.join(".git/config"), "secret").unwrap();
        fs::write(dir.path().join("key.pem"), "secret").unwrap();
        symlink("certs/a.pem", inside.join("link.pem")).unwrap();
        symlink("../key.pem", inside.join("key.pem")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        let read = |path: &str| read_text(&inside, &path.parse().unwrap());
        assert_eq!((read("certs/a.pem"), read("link.pem")), (Ok("a".to_owned()), Ok("a".to_owned())));
        for outside in ["key.pem", "up/key.pem", ".git/config"] {
            assert_eq!(read(outside), Err(Unreadable::Outside), "{outside}");
        }
        assert_eq!((read("none"), read("certs")), (Err(Unreadable::Dangling), Err(Unreadable::NotAFile)));
    }

    #[test]
    fn files_are_listed_and_the_well_known_ones_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        fs::create_dir_all(dir.path().join("web/src")).unwrap();
        for (path, text) in
            [("Procfile", "web: x"), ("web/Dockerfile", "FROM a"), ("web/src/Procfile", "no"), (".git/HEAD", "")]
        {
            fs::write(dir.path().join(path), text).unwrap();
        }
        let repository = read(dir.path()).unwrap();
        assert_eq!(repository.paths.iter().collect::<Vec<_>>(), ["Procfile", "web/Dockerfile", "web/src/Procfile"]);
        assert_eq!(repository.contents.keys().collect::<Vec<_>>(), ["Procfile", "web/Dockerfile"]);
        assert!(repository.has_folder("web/src") && !repository.cut && repository.unreadable.is_empty());
    }

    #[test]
    fn links_are_followed_inside_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("reqs")).unwrap();
        fs::write(dir.path().join("reqs/prod.txt"), "flask").unwrap();
        symlink("reqs/prod.txt", dir.path().join("requirements.txt")).unwrap();
        let repository = read(dir.path()).unwrap();
        assert_eq!(repository.text("requirements.txt"), Some("flask"));
        assert!(repository.unreadable.is_empty());
    }

    #[test]
    fn whatever_stands_in_place_of_a_file_is_recorded_and_never_followed_out_or_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("/etc/passwd", at("Procfile")).unwrap();
        symlink("/etc", at("outside")).unwrap();
        symlink("nowhere", at("app.json")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("quarry.yml"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("package.json")).unwrap();
        fs::write(at("Dockerfile"), b"FROM \xff").unwrap();
        fs::write(at("requirements.txt"), "x".repeat(256 * 1024 + 1)).unwrap();
        fs::write(at("pyproject.toml"), "x".repeat(256 * 1024)).unwrap();
        let repository = read(dir.path()).unwrap();
        let found: Vec<_> = repository.unreadable.iter().map(|(path, reason)| (path.as_str(), *reason)).collect();
        assert_eq!(
            found,
            [
                ("Dockerfile", Unreadable::NotText),
                ("Procfile", Unreadable::Outside),
                ("app.json", Unreadable::Dangling),
                ("package.json", Unreadable::NotAFile),
                ("quarry.yml", Unreadable::NotAFile),
                ("requirements.txt", Unreadable::TooLarge),
            ]
        );
        assert!(repository.has("outside") && !repository.has_folder("outside"));
        assert!(repository.text("pyproject.toml").is_some());
    }

    #[test]
    fn pointers_of_git_lfs_are_found_where_gitattributes_names_the_filter() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("img")).unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12345\n";
        fs::write(dir.path().join("img/logo.png"), pointer).unwrap();
        fs::write(dir.path().join("img/small.png"), [0x89, b'P']).unwrap();
        assert!(read(dir.path()).unwrap().pointers.is_empty());
        fs::write(dir.path().join("img/.gitattributes"), "*.png filter=lfs diff=lfs merge=lfs -text\n").unwrap();
        assert_eq!(read(dir.path()).unwrap().pointers.iter().collect::<Vec<_>>(), ["img/logo.png"]);
    }

    #[test]
    fn the_files_nearest_the_top_are_kept_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        for path in ["a/1", "a/2", "a/3", "z"] {
            File::create(dir.path().join(path)).unwrap();
        }
        let repository = read_at_most(3, dir.path()).unwrap();
        assert!(repository.cut);
        assert_eq!(repository.paths.iter().collect::<Vec<_>>(), ["a/1", "a/2", "z"]);
    }
}
