//! The file itself: a gzipped tar, written to a queue and read from a file. Everything here blocks.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::{END, End, FORMAT, MANIFEST, Manifest, ROOT};
use crate::db::{Key, VALUE_LIMIT};

/// Output leaves in pieces of this size.
const PIECE: usize = 256 * 1024;

/// The queue that output goes to.
struct Queue(mpsc::Sender<Bytes>);

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A backup that is being written.
pub struct Writer {
    archive: Builder<GzEncoder<BufWriter<Queue>>>,
    mtime: u64,
    /// What is in it so far.
    pub end: End,
}

impl Writer {
    /// An empty one; entries that have no time of their own get `mtime`, in seconds since 1970.
    pub fn new(queue: mpsc::Sender<Bytes>, mtime: u64) -> Self {
        let out = BufWriter::with_capacity(PIECE, Queue(queue));
        // Most of it is compressed already (git's packs) or large (images): the fastest compression.
        let archive = Builder::new(GzEncoder::new(out, Compression::fast()));
        Self { archive, mtime, end: End::default() }
    }

    /// The first entry.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn manifest(&mut self, manifest: &Manifest) -> io::Result<()> {
        self.json(MANIFEST, manifest)
    }

    /// A value of the state.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn value(&mut self, key: &Key, value: &[u8]) -> io::Result<()> {
        self.end.values += 1;
        self.bytes(&format!("state/{key}"), 0o600, value)
    }

    /// A file with this content.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.end.files += 1;
        self.bytes(name, mode, content)
    }

    /// A piece of the archive of images.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn image_piece(&mut self, number: u64, piece: &[u8]) -> io::Result<()> {
        self.end.images += piece.len() as u64;
        self.bytes(&format!("images/{number:06}"), 0o600, piece)
    }

    /// A folder and what `wanted` says of what is in it, by its path below the folder. What goes meanwhile is left out.
    ///
    /// # Errors
    /// Something cannot be read, or nobody takes it.
    pub fn tree(&mut self, name: &str, folder: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
        self.below(name, folder, "", wanted)
    }

    fn below(&mut self, name: &str, folder: &Path, place: &str, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
        let Some(entries) = there(fs::read_dir(folder))? else { return Ok(()) };
        let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // Nothing that quarry makes is named otherwise; a volume may hold anything, and the tar takes bytes.
            let own = entry.file_name().to_string_lossy().into_owned();
            let place = if place.is_empty() { own.clone() } else { format!("{place}/{own}") };
            if !wanted(&place) {
                continue;
            }
            let path = entry.path();
            let name = Path::new(name).join(entry.file_name());
            // A folder of HQ's may be a link to where its owner keeps it; on the next machine it is one again.
            let metadata = if is_data(&name) { fs::symlink_metadata(&path) } else { fs::metadata(&path) };
            let Some(metadata) = there(metadata)? else { continue };
            self.one(&name, &path, &metadata)?;
            if metadata.is_dir() {
                self.below(&name.to_string_lossy(), &path, &place, wanted)?;
            }
        }
        Ok(())
    }

    /// Folders, files and symbolic links; sockets, pipes and devices are nobody's data.
    fn one(&mut self, name: &Path, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_metadata(metadata);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        if metadata.is_dir() {
            header.set_size(0);
            return self.archive.append_data(&mut header, name, io::empty());
        }
        if metadata.is_symlink() {
            let Some(target) = there(fs::read_link(path))? else { return Ok(()) };
            header.set_size(0);
            return self.archive.append_link(&mut header, name, target);
        }
        if !metadata.is_file() {
            return Ok(());
        }
        let Some(file) = there(File::open(path))? else { return Ok(()) };
        self.end.files += 1;
        // It may grow or shrink while it is read; its length has been promised by then.
        self.archive.append_data(&mut header, name, Exactly { inner: file, left: metadata.len() })
    }

    /// The last entry, and everything is on its way.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn finish(mut self) -> io::Result<End> {
        let end = self.end;
        self.json(END, &end)?;
        self.archive.into_inner()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(end)
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.bytes(name, 0o600, &serde_json::to_vec_pretty(value)?)
    }

    fn bytes(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(self.mtime);
        header.set_size(content.len() as u64);
        self.archive.append_data(&mut header, name, content)
    }
}

/// So many bytes of a file: no more of one that grew, zeros for what one has lost.
struct Exactly {
    inner: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let into = &mut into[..room];
        let read = match self.inner.read(into)? {
            0 => {
                into.fill(0);
                room
            }
            read => read,
        };
        self.left -= read as u64;
        Ok(read)
    }
}

/// What is gone by now is none.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What reading comes upon, in this order; settings and files of the root are put aside without a word.
pub enum Piece {
    /// A value of the state.
    Value(Key, Vec<u8>),
    /// A piece of the archive of images.
    Image(Bytes),
    /// All of it was there.
    End(End),
}

/// What a backup says of itself; `None` when it is none.
///
/// # Errors
/// The file cannot be read.
pub fn manifest(path: &Path) -> io::Result<Option<Manifest>> {
    let mut archive = open(path)?;
    let Some(Ok(mut first)) = archive.entries()?.next() else { return Ok(None) };
    if first.path()?.as_os_str() != MANIFEST {
        return Ok(None);
    }
    parsed(&mut first).map(Some)
}

/// Reads a backup to its end. Settings and files of the root are unpacked below `aside`, as `etc/…` and `root/…`.
///
/// # Errors
/// It is cut off or damaged, or `take` wants no more.
pub fn read(path: &Path, aside: &Path, mut take: impl FnMut(Piece) -> io::Result<()>) -> io::Result<()> {
    let mut archive = open(path)?;
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let mut seen = End::default();
    let mut ended = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let text = name.to_str().unwrap_or_default().to_owned();
        if let Some(key) = text.strip_prefix("state/") {
            let key = key.parse::<Key>().map_err(io::Error::other)?;
            let value = whole(&mut entry, VALUE_LIMIT as u64)?;
            seen.values += 1;
            take(Piece::Value(key, value))?;
        } else if text.starts_with("images/") {
            let piece = whole(&mut entry, LONGEST_PIECE)?;
            seen.images += piece.len() as u64;
            take(Piece::Image(piece.into()))?;
        } else if name.starts_with("etc") || name.starts_with("root") {
            check(&name, entry.header().entry_type())?;
            check_above(aside, &name)?;
            seen.files += u64::from(entry.header().entry_type().is_file());
            if !entry.unpack_in(aside)? {
                return Err(io::Error::other(format!("{} leads out of the backup", name.display())));
            }
        } else if text == END {
            ended = Some(parsed::<End>(&mut entry)?);
        }
    }
    // The last bytes are a sum of all before them.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    match ended {
        Some(end) if end == seen => take(Piece::End(end)),
        Some(_) => Err(io::Error::other("it does not hold what its end says")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Refuses what no backup holds: a link that stands for a folder of HQ's would lead what comes later, and what is moved
/// into its place, anywhere.
fn check(name: &Path, kind: EntryType) -> io::Result<()> {
    let known = match kind {
        EntryType::Directory => true,
        EntryType::Regular => name.components().count() > 1,
        EntryType::Symlink => is_data(name),
        _ => false,
    };
    let (top, place) = (Path::new("root"), name.strip_prefix("root"));
    let arrives =
        place.is_err() || name == top || place.is_ok_and(|place| ROOT.iter().any(|own| place.starts_with(own)));
    match known && arrives {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} is nothing that a backup holds", name.display()))),
    }
}

/// Refuses what would come through a link: a backup holds nothing behind the links that it holds.
fn check_above(aside: &Path, name: &Path) -> io::Result<()> {
    let mut above = name.ancestors().skip(1).map(|folder| aside.join(folder));
    match above.any(|folder| folder.is_symlink()) {
        true => Err(io::Error::other(format!("{} is behind a link", name.display()))),
        false => Ok(()),
    }
}

/// Whether this is the data of a stack, in which links are as they are.
fn is_data(name: &Path) -> bool {
    let inside = ["root/volumes", "root/sites"].iter().find_map(|folder| name.strip_prefix(folder).ok());
    inside.is_some_and(|inside| inside.components().count() > 1)
}

/// The longest piece of images that is read at once.
const LONGEST_PIECE: u64 = 64 << 20;

fn open(path: &Path) -> io::Result<Archive<GzDecoder<io::BufReader<File>>>> {
    Ok(Archive::new(GzDecoder::new(io::BufReader::with_capacity(PIECE, File::open(path)?))))
}

fn parsed<T: DeserializeOwned>(entry: &mut impl Read) -> io::Result<T> {
    let mut text = Vec::new();
    entry.take(LONGEST_PIECE).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn whole(entry: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    entry.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other("an entry is longer than any that is written"));
    }
    Ok(content)
}

/// Whether this program reads it.
pub fn is_known(manifest: &Manifest) -> bool {
    manifest.format == FORMAT
}

/// Moves everything out of `from` into `to`, beside what is there; across disks it is copied.
///
/// # Errors
/// What the disk says, or `from` is no folder: what a link leads to belongs to somebody else.
pub fn move_into(from: &Path, to: &Path) -> io::Result<()> {
    let Some(metadata) = there(fs::symlink_metadata(from))? else { return Ok(()) };
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let entries = fs::read_dir(from)?;
    fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match fs::rename(entry.path(), &target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy(&entry.path(), &target)?,
            Err(error) if entry.file_type()?.is_dir() && is_there(&error) => move_into(&entry.path(), &target)?,
            moved => moved?,
        }
    }
    Ok(())
}

fn is_there(error: &io::Error) -> bool {
    [io::ErrorKind::AlreadyExists, io::ErrorKind::DirectoryNotEmpty].contains(&error.kind())
}

/// Only settings are ever on another disk: plain files with their modes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        return fs::read_dir(from)?.try_for_each(|entry| {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))
        });
    }
    fs::copy(from, to).map(drop)
}

/// Files directly in and below a folder that hold little, with their modes: settings, references.
///
/// # Errors
/// What the disk says.
pub fn small_files(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<Vec<(String, u32, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders: Vec<(PathBuf, String)> = vec![(folder.to_owned(), String::new())];
    while let Some((folder, place)) = folders.pop() {
        let Some(entries) = there(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let place = if place.is_empty() { name } else { format!("{place}/{name}") };
            if !wanted(&place) {
                continue;
            }
            // Settings may be links to where their owner keeps them.
            let Some(metadata) = there(fs::metadata(entry.path()))? else { continue };
            if metadata.is_dir() {
                folders.push((entry.path(), place));
            } else if metadata.is_file()
                && let Some(content) = there(fs::read(entry.path()))?
            {
                found.push((place, metadata.mode() & 0o7777, content));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::Volumes;
    use super::*;

    fn written(work: impl FnOnce(&mut Writer) + Send + 'static) -> tempfile::NamedTempFile {
        let (queue, mut pieces) = mpsc::channel(4);
        let writing = std::thread::spawn(move || {
            let mut writer = Writer::new(queue, 0);
            let manifest = Manifest {
                format: FORMAT,
                version: "1".into(),
                created: jiff::Timestamp::UNIX_EPOCH,
                hostname: "a".into(),
                root: "/r".into(),
                home: "files".into(),
                stacks: Default::default(),
                images: Default::default(),
                volumes: true,
            };
            writer.manifest(&manifest).unwrap();
            work(&mut writer);
            writer.finish().unwrap();
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        while let Some(piece) = pieces.blocking_recv() {
            file.write_all(&piece).unwrap();
        }
        writing.join().unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("volumes/blog/db")).unwrap();
        fs::create_dir_all(root.path().join("router")).unwrap();
        fs::write(root.path().join("router/nginx.pid"), "1").unwrap();
        fs::write(root.path().join("volumes/blog/db/data"), "rows").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("volumes/blog/db/link")).unwrap();
        let folder = root.path().to_owned();
        let file = written(move |writer| {
            writer.value(&"stacks/blog/status".parse().unwrap(), b"{}").unwrap();
            writer.file("etc/size", 0o640, b"1gb\n").unwrap();
            writer.tree("root", &folder, &|place| super::super::travels(place, Volumes::Along)).unwrap();
            writer.image_piece(1, b"first ").unwrap();
            writer.image_piece(2, b"second").unwrap();
        });
        assert_eq!(manifest(file.path()).unwrap().unwrap().hostname, "a");
        let aside = tempfile::tempdir().unwrap();
        let (mut values, mut images, mut end) = (Vec::new(), Vec::new(), None);
        read(file.path(), aside.path(), |piece| {
            match piece {
                Piece::Value(key, value) => values.push((key.to_string(), value)),
                Piece::Image(bytes) => images.extend_from_slice(&bytes),
                Piece::End(found) => end = Some(found),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(values, [("stacks/blog/status".to_owned(), b"{}".to_vec())]);
        assert_eq!(images, b"first second");
        assert_eq!(end, Some(End { values: 1, files: 2, images: 12 }));
        assert_eq!(fs::read(aside.path().join("etc/size")).unwrap(), b"1gb\n");
        assert_eq!(fs::read(aside.path().join("root/volumes/blog/db/data")).unwrap(), b"rows");
        let link = fs::read_link(aside.path().join("root/volumes/blog/db/link")).unwrap();
        assert_eq!(link, Path::new("/etc/passwd"));
        assert!(!aside.path().join("root/router").exists());
    }

    #[test]
    fn a_backup_that_was_cut_off_or_changed_is_refused() {
        let file = written(|writer| {
            writer.value(&"stacks/blog/status".parse().unwrap(), &[b'x'; 5000]).unwrap();
            let noise = |at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes();
            writer.image_piece(1, &(0..50_000).flat_map(noise).collect::<Vec<u8>>()).unwrap();
        });
        let good = fs::read(file.path()).unwrap();
        let aside = tempfile::tempdir().unwrap();
        let whole = |bytes: &[u8]| {
            fs::write(file.path(), bytes).unwrap();
            read(file.path(), aside.path(), |_| Ok(())).is_ok()
        };
        assert!(whole(&good));
        for length in [0, 20, good.len() / 2, good.len() - 1] {
            assert!(!whole(&good[..length]), "{length} of {} bytes", good.len());
        }
        let mut changed = good.clone();
        changed[good.len() / 2] ^= 0x20;
        assert!(!whole(&changed));
    }

    #[test]
    fn nothing_leads_out_of_a_backup() {
        let file = written(|writer| {
            let mut header = Header::new_gnu();
            header.set_size(1);
            let name = b"root/../../out";
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            writer.archive.append(&header, &b"x"[..]).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let aside = folder.path().join("aside");
        fs::create_dir(&aside).unwrap();
        assert!(read(file.path(), &aside, |_| Ok(())).is_err());
        assert!(!folder.path().join("out").exists());
    }

    #[test]
    fn nothing_is_a_link_that_should_be_a_folder_of_hqs() {
        let machine = tempfile::tempdir().unwrap();
        fs::write(machine.path().join("precious"), "own").unwrap();
        let refused = |name: &'static str, kind: EntryType| {
            let target = machine.path().to_owned();
            let file = written(move |writer| {
                let mut header = Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(0);
                match kind.is_symlink() || kind.is_hard_link() {
                    true => writer.archive.append_link(&mut header, name, target).unwrap(),
                    false => writer.archive.append_data(&mut header, name, io::empty()).unwrap(),
                }
            });
            let folder = tempfile::tempdir().unwrap();
            let aside = folder.path().join("aside");
            fs::create_dir(&aside).unwrap();
            let found = read(file.path(), &aside, |_| Ok(())).map_err(|error| error.to_string());
            assert_eq!(found, Err(format!("{name} is nothing that a backup holds")), "{kind:?}");
        };
        for name in
            ["root", "etc", "root/volumes", "root/volumes/blog", "root/sites/blog", "root/stacks/blog", "etc/env"]
        {
            refused(name, EntryType::Symlink);
        }
        refused("root/volumes/blog/db/data", EntryType::Link);
        refused("root", EntryType::Regular);
        // Where this is unpacked, beside settings that have been looked at.
        refused("root/.quarry-restore/etc/size", EntryType::Directory);

        let (link, to) = (machine.path().join("link"), machine.path().join("to"));
        std::os::unix::fs::symlink(machine.path(), &link).unwrap();
        assert!(move_into(&link, &to).is_err());
        assert!(machine.path().join("precious").exists() && !to.exists());
    }

    #[test]
    fn nothing_comes_through_a_link_of_the_same_backup() {
        let file = written(|writer| {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            for set in [Header::set_size, Header::set_mtime, Header::set_uid, Header::set_gid] {
                set(&mut header, 0);
            }
            header.set_mode(0o777);
            let link = "root/volumes/blog/db/link";
            writer.archive.append_link(&mut header, link, "../../../../etc").unwrap();
            writer.file("root/volumes/blog/db/link/size", 0o600, b"1mb\n").unwrap();
        });
        let aside = tempfile::tempdir().unwrap();
        fs::create_dir(aside.path().join("etc")).unwrap();
        let error = read(file.path(), aside.path(), |_| Ok(())).unwrap_err().to_string();
        assert_eq!(error, "root/volumes/blog/db/link/size is behind a link");
        assert!(!aside.path().join("etc/size").exists());
    }

    #[test]
    fn a_folder_that_its_owner_keeps_elsewhere_goes_along_as_a_folder() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(elsewhere.path().join("blog")).unwrap();
        fs::write(elsewhere.path().join("blog/data"), "rows").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.path().join("volumes")).unwrap();
        let folder = root.path().to_owned();
        let file = written(move |writer| {
            writer.tree("root", &folder, &|place| super::super::travels(place, Volumes::Along)).unwrap();
        });
        let aside = tempfile::tempdir().unwrap();
        read(file.path(), aside.path(), |_| Ok(())).unwrap();
        assert_eq!(fs::read(aside.path().join("root/volumes/blog/data")).unwrap(), b"rows");
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_keeps_its_promised_length() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "four").unwrap();
        let read = |left| {
            let mut content = String::new();
            Exactly { inner: File::open(file.path()).unwrap(), left }.read_to_string(&mut content).unwrap();
            content
        };
        assert_eq!((read(2), read(6)), ("fo".to_owned(), "four\0\0".to_owned()));
    }
}
