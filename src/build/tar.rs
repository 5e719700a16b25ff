//! The build context: a checkout as a tar stream, the same bytes for the same files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::dockerignore::{Ignore, Verdict};
use crate::docker::Archive;

/// The archive travels in pieces of this size; [`AHEAD`] of them are made before one is taken.
const PIECE: usize = 256 * 1024;
const AHEAD: usize = 4;

/// What goes into a build.
#[derive(Debug, Clone)]
pub struct Context {
    /// The checkout.
    pub dir: PathBuf,
    /// What stays out of it.
    pub ignore: Ignore,
    /// Paths that go along whatever the rules say: the Dockerfile and its rules.
    pub always: Vec<String>,
    /// Further files by their path; they cover what the checkout has in their place, a link in place of their folder too.
    pub extra: BTreeMap<String, Vec<u8>>,
    /// Seconds since the epoch that every file gets.
    pub mtime: u64,
}

/// Streams the context: sorted, owned by root, modes 0644 and 0755, links as links. Memory is bounded, files are read
/// on a thread of their own while the stream is.
///
/// The stream fails on a named pipe, socket or device, by its name.
pub fn context(context: Context) -> Archive {
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let pieces = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = write(&context, pieces) {
            // Fails only when nobody reads any more.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece.map(io::Cursor::new), receiver))
    });
    Box::new(StreamReader::new(stream.boxed()))
}

/// Hands what is written to the stream.
struct Pieces(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Ok(bytes.to_vec())) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(context: &Context, to: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    for (path, bytes) in &context.extra {
        let mut header = header(tar::EntryType::Regular, 0o644, context.mtime);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes.as_slice())?;
    }
    folder(context, &mut tar, Path::new(""))?;
    tar.into_inner()?.flush()
}

/// Writes what is in a folder, by name.
fn folder<W: Write>(context: &Context, tar: &mut tar::Builder<W>, relative: &Path) -> io::Result<()> {
    let path = context.dir.join(relative);
    let names = fs::read_dir(&path).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    let mut names: Vec<OsString> = names.map_err(|error| named(&path, error))?;
    names.sort();
    for name in names {
        let relative = relative.join(name);
        let text = relative.to_string_lossy();
        if context.extra.contains_key(text.as_ref()) {
            continue;
        }
        let within = |path: &String| path.strip_prefix(text.as_ref()).is_some_and(|rest| rest.starts_with('/'));
        let holds = context.extra.keys().any(within);
        if holds && !fs::symlink_metadata(context.dir.join(&relative)).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        let verdict = match context.ignore.verdict(&text) {
            Verdict::Sent => Verdict::Sent,
            Verdict::Partly | Verdict::Ignored if context.always.contains(&text.clone().into_owned()) => Verdict::Sent,
            Verdict::Ignored if context.always.iter().any(|kept| kept.starts_with(&format!("{text}/"))) => {
                Verdict::Partly
            }
            other => other,
        };
        if verdict != Verdict::Ignored {
            entry(context, tar, &relative, verdict).map_err(|error| named(&relative, error))?;
        }
    }
    Ok(())
}

fn entry<W: Write>(context: &Context, tar: &mut tar::Builder<W>, relative: &Path, verdict: Verdict) -> io::Result<()> {
    let path = context.dir.join(relative);
    let metadata = fs::symlink_metadata(&path)?;
    let kind = metadata.file_type();
    let sent = verdict == Verdict::Sent;
    if kind.is_dir() {
        if sent {
            let mut header = header(tar::EntryType::Directory, 0o755, context.mtime);
            tar.append_data(&mut header, relative, io::empty())?;
        }
        return folder(context, tar, relative);
    }
    if !sent {
        return Ok(());
    }
    if kind.is_symlink() {
        let mut header = header(tar::EntryType::Symlink, 0o777, context.mtime);
        return tar.append_link(&mut header, relative, fs::read_link(&path)?);
    }
    match special(&metadata) {
        Some(what) => Err(io::Error::other(format!("it is {what}, which cannot be part of a build"))),
        None => file(context, tar, relative, &metadata),
    }
}

fn file<W: Write>(
    context: &Context,
    tar: &mut tar::Builder<W>,
    relative: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    let mode = if metadata.mode() & 0o100 == 0 { 0o644 } else { 0o755 };
    let mut header = header(tar::EntryType::Regular, mode, context.mtime);
    header.set_size(metadata.len());
    let mut options = File::options();
    options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(context.dir.join(relative))?;
    tar.append_data(&mut header, relative, Exactly { file, left: metadata.len() })
}

fn header(kind: tar::EntryType, mode: u32, mtime: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("a device")
    } else {
        None
    }
}

/// Adds the path to an error, once: inner folders have named theirs already.
fn named(path: &Path, error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Named>()) || error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    io::Error::new(error.kind(), Named(format!("`{}`: {error}", path.display())))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Named(String);

/// As many bytes as the header says: a file that grows or shrinks meanwhile must not shift what comes after it.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tokio::io::AsyncReadExt;

    use super::*;

    fn of(dir: &Path, rules: &str) -> Context {
        Context {
            dir: dir.to_owned(),
            ignore: Ignore::parse(".dockerignore", rules).unwrap(),
            always: vec!["Dockerfile".to_owned()],
            extra: BTreeMap::from([(".quarry/Dockerfile".to_owned(), b"FROM x".to_vec())]),
            mtime: 1_700_000_000,
        }
    }

    async fn bytes(of: Context) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        context(of).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// `path mode kind→target size` of each entry.
    fn listing(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        let mut lines = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            let link = entry.link_name().unwrap().map(|to| format!("→{}", to.display())).unwrap_or_default();
            lines.push(format!(
                "{} {:o} {}{link}",
                entry.path().unwrap().display(),
                header.mode().unwrap(),
                entry.size()
            ));
        }
        lines
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("b/inner.txt", "abc"),
            ("a.sh", "#!"),
            ("Dockerfile", "FROM y"),
            (".git/HEAD", "x"),
            (".quarry/Dockerfile", "theirs"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::set_permissions(dir.path().join("a.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        dir
    }

    #[tokio::test]
    async fn the_same_files_give_the_same_bytes() {
        let (one, two) = (tree(), tree());
        fs::set_permissions(two.path().join("b"), fs::Permissions::from_mode(0o777)).unwrap();
        let first = bytes(of(one.path(), "")).await.unwrap();
        assert_eq!(first, bytes(of(two.path(), "")).await.unwrap());
        assert_eq!(
            listing(&first),
            [
                ".quarry/Dockerfile 644 6",
                ".quarry 755 0",
                "Dockerfile 644 6",
                "a.sh 755 2",
                "b 755 0",
                "b/inner.txt 644 3",
                "link 777 0→/etc/passwd"
            ]
        );
    }

    #[tokio::test]
    async fn no_link_leads_past_a_file_that_was_put_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("theirs")).unwrap();
        fs::write(dir.path().join("theirs/Dockerfile"), "FROM y").unwrap();
        symlink("theirs", dir.path().join(".quarry")).unwrap();
        let sent = bytes(of(dir.path(), "")).await.unwrap();
        assert_eq!(listing(&sent), [".quarry/Dockerfile 644 6", "theirs 755 0", "theirs/Dockerfile 644 6"]);
    }

    #[tokio::test]
    async fn ignored_files_stay_out_but_for_the_dockerfile() {
        let dir = tree();
        let kept = bytes(of(dir.path(), "*\n!b/inner.txt")).await.unwrap();
        assert_eq!(listing(&kept), [".quarry/Dockerfile 644 6", "Dockerfile 644 6", "b/inner.txt 644 3"]);
    }

    #[tokio::test]
    async fn a_named_pipe_is_refused_by_name_unless_ignored() {
        let dir = tree();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("b/pipe")).status().unwrap();
        assert!(made.success());
        let error = bytes(of(dir.path(), "")).await.unwrap_err().to_string();
        assert!(error.contains("`b/pipe`") && error.contains("named pipe"), "{error}");
        bytes(of(dir.path(), "b/pipe")).await.unwrap();
    }

    #[tokio::test]
    async fn long_and_odd_names_come_through() {
        let dir = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..30).map(|i| format!("folder-number-{i}")).collect();
        fs::create_dir_all(dir.path().join(&deep)).unwrap();
        fs::write(dir.path().join(&deep).join("é x\n.txt"), "1").unwrap();
        symlink(&deep, dir.path().join("z")).unwrap();
        let bytes = bytes(of(dir.path(), "")).await.unwrap();
        let listed = listing(&bytes);
        assert!(
            listed.iter().any(|line| line.starts_with(deep.to_str().unwrap()) && line.ends_with("é x\n.txt 644 1"))
        );
        assert_eq!(*listed.last().unwrap(), format!("z 777 0→{}", deep.display()));
    }

    #[tokio::test]
    async fn a_large_tree_is_made_only_as_fast_as_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("large")).unwrap().set_len(64 * 1024 * 1024).unwrap();
        let mut archive = context(of(dir.path(), ""));
        let mut first = [0; 512];
        archive.read_exact(&mut first).await.unwrap();
        // Nobody reads on: the thread must end all the same, or the runtime would wait for it here for ever.
        drop(archive);
    }
}
