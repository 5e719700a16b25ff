//! Reads a backup into folders that are empty. Cut off at any instant it leaves a mark by which nobody opens them, and
//! by which the next try knows that what lies there is its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::io::StreamReader;

use super::{Home, MARK, Restored, is_bare, is_mark, moved, names};
use crate::db::{Db, Entry, Guard, Key, Version, layout};
use crate::docker::{Engine, EngineError};
use crate::hq::backup::tar::{Piece, is_known, manifest, move_into, read};
use crate::hq::backup::{BackupError, End, Manifest, releases};
use crate::hq::progress::detail;
use crate::launch::Identity;
use crate::launch::act::Say;
use crate::launch::files::remove_folder;

/// Below the root folder: what is unpacked until all of it is there.
const ASIDE: &str = ".quarry-restore";

/// Settings of a home that is left: hidden, so that they are none.
const FORMER_ETCD: &str = ".etcd-before-restore";

/// Values that are written at once.
const AT_ONCE: usize = 16;

/// What a backup is restored with.
pub struct Restore<'a> {
    /// The backup.
    pub file: &'a Path,
    /// HQ's root folder, which this process holds.
    pub root: &'a Path,
    /// The folder of its settings.
    pub etc: &'a Path,
    /// The state's files below the root.
    pub db: &'a dyn Db,
    /// Where images go.
    pub engine: Arc<dyn Engine>,
    /// Where the state goes.
    pub home: Home,
}

/// What a backup says of itself.
///
/// # Errors
/// When it is none, or one that this program does not read.
pub fn look(file: &Path) -> Result<Manifest, BackupError> {
    let manifest = manifest(file).map_err(at("read", file))?.ok_or_else(|| BackupError::Foreign(file.to_owned()))?;
    if !is_known(&manifest) {
        return Err(BackupError::Format { found: manifest.format, version: manifest.version });
    }
    Ok(manifest)
}

/// Refuses a root folder in which somebody lives. What an earlier restore has left is none, and goes.
///
/// # Errors
/// [`BackupError::NotEmpty`].
pub async fn clear(root: &Path, db: &dyn Db) -> Result<(), BackupError> {
    let begun = db.read(&layout::copying()).await.map_err(BackupError::State)?;
    let own = begun.is_some_and(|entry| is_mark(&entry.value));
    let left: Vec<PathBuf> = fs::read_dir(root)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(at("look into", root))?;
    let left = left.into_iter().filter(|path| !path.file_name().and_then(|name| name.to_str()).is_some_and(is_bare));
    for path in left {
        if !own {
            return Err(BackupError::NotEmpty(root.to_owned()));
        }
        // The mark stays until the end.
        if path.ends_with("hq") {
            continue;
        }
        let removed = if path.is_dir() && !path.is_symlink() { remove_folder(&path) } else { fs::remove_file(&path) };
        removed.map_err(at("remove", &path))?;
    }
    let begun = db.put(&layout::copying(), MARK, Guard::Any, None).await;
    begun.map(drop).map_err(BackupError::State)
}

impl Restore<'_> {
    /// Brings everything where it belongs. The root is clear, see [`clear`]; its mark stays until [`finish`].
    ///
    /// # Errors
    /// What stands in the way; the next try begins anew.
    pub async fn run(&self, manifest: &Manifest, identity: Named<'_>, say: Say<'_>) -> Result<Restored, BackupError> {
        let aside = self.root.join(ASIDE);
        fs::create_dir_all(&aside).map_err(at("make", &aside))?;
        let (values, end) = self.take(&aside).await?;
        say(&detail(&format!(
            "{} values, {} files, {} MB of images",
            end.values,
            end.files,
            end.images.div_ceil(1 << 20)
        )));
        self.check_settings(&aside.join("etc"))?;
        move_into(&aside.join("root"), self.root).map_err(at("move everything into", self.root))?;
        let identity = identity().map_err(at("read the secret of", self.root))?;
        let names = names(&releases(&entries(&values)), &manifest.images, &identity);
        if self.home == Home::Files {
            self.write(values, &manifest.root).await?;
        }
        move_into(&aside.join("etc"), self.etc).map_err(at("move the settings into", self.etc))?;
        remove_folder(&aside).map_err(at("remove", &aside))?;
        Ok(Restored { end, names })
    }

    /// Reads to the end: values are kept, images go to docker, all else lies aside.
    async fn take(&self, aside: &Path) -> Result<(BTreeMap<Key, Vec<u8>>, End), BackupError> {
        let (send, mut pieces) = mpsc::channel(8);
        let (file, to) = (self.file.to_owned(), aside.to_owned());
        let reading = spawn_blocking(move || {
            read(&file, &to, |piece| send.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into()))
        });
        let (mut values, mut loading, mut end) = (BTreeMap::new(), None, End::default());
        let mut refused = false;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Value(key, value) => drop(values.insert(key, value)),
                Piece::Image(bytes) => {
                    let load = loading.get_or_insert_with(|| Loading::begin(self.engine.clone()));
                    if load.feed(bytes).await.is_err() {
                        refused = true;
                        break;
                    }
                }
                Piece::End(found) => end = found,
            }
        }
        drop(pieces);
        let done = reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        if let Some(loading) = loading {
            loading.end(done.is_ok() || refused).await.map_err(BackupError::Images)?;
        }
        done.map_err(|source| BackupError::Damaged { path: self.file.to_owned(), source })?;
        self.put_etcd_aside(&aside.join("etc")).map_err(at("sort", aside))?;
        Ok((values, end))
    }

    fn put_etcd_aside(&self, etc: &Path) -> io::Result<()> {
        let named = etc.join("etcd");
        match self.home {
            Home::Files if named.is_dir() => fs::rename(named, etc.join(FORMER_ETCD)),
            Home::Files | Home::Etcd => Ok(()),
        }
    }

    /// Settings that are there already must be the same: whose they are is not known.
    fn check_settings(&self, from: &Path) -> Result<(), BackupError> {
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(from.join(&folder)) else { continue };
            for entry in entries {
                let place = folder.join(entry.map_err(at("read", from))?.file_name());
                let (own, there) = (from.join(&place), self.etc.join(&place));
                if own.is_dir() {
                    folders.push(place);
                } else if there.exists() && fs::read(&own).ok() != fs::read(&there).ok() {
                    return Err(BackupError::Differs(there));
                }
            }
        }
        Ok(())
    }

    async fn write(&self, values: BTreeMap<Key, Vec<u8>>, from: &Path) -> Result<(), BackupError> {
        let put = |(key, value): (Key, Vec<u8>)| async move {
            let value = moved(&key, value, from, self.root);
            self.db.put(&key, &value, Guard::Any, None).await
        };
        let mut puts = futures_util::stream::iter(values).map(put).buffer_unordered(AT_ONCE);
        while let Some(done) = puts.next().await {
            done.map_err(BackupError::State)?;
        }
        Ok(())
    }
}

/// Which HQ this is, once its root is filled.
pub type Named<'a> = &'a (dyn Fn() -> io::Result<Identity> + Send + Sync);

/// Gives images the names by which HQ finds them.
///
/// # Errors
/// What docker says.
pub async fn name(engine: &dyn Engine, restored: &Restored) -> Result<(), BackupError> {
    for (image, name) in &restored.names {
        engine.tag(image.as_str(), name).await.map_err(BackupError::Images)?;
    }
    Ok(())
}

/// Everything is on the disk, and HQ may open it.
///
/// # Errors
/// What the disk says.
pub async fn finish(root: &Path, db: &dyn Db) -> Result<(), BackupError> {
    let folder = fs::File::open(root).map_err(at("open", root))?;
    let synced = spawn_blocking(move || rustix::fs::syncfs(folder)).await;
    let synced = synced.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    synced.map_err(|error| at("keep everything in", root)(error.into()))?;
    db.delete(&layout::copying(), Guard::Any).await.map_err(BackupError::State)
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> BackupError + 'a {
    move |source| BackupError::File { doing, path: path.to_owned(), source }
}

fn entries(values: &BTreeMap<Key, Vec<u8>>) -> BTreeMap<Key, Entry> {
    let entry = |(key, value): (&Key, &Vec<u8>)| {
        let version = Version(String::new());
        (key.clone(), Entry { key: key.clone(), value: value.clone(), version })
    };
    values.iter().map(entry).collect()
}

/// Images on their way into docker.
struct Loading {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    work: JoinHandle<Result<(), EngineError>>,
}

impl Loading {
    fn begin(engine: Arc<dyn Engine>) -> Self {
        let (pieces, queue) = mpsc::channel(4);
        let stream = futures_util::stream::unfold(queue, |mut queue: mpsc::Receiver<io::Result<Bytes>>| async {
            queue.recv().await.map(|piece| (piece, queue))
        });
        let archive = Box::new(StreamReader::new(stream.boxed()));
        Self { pieces, work: tokio::spawn(async move { engine.load(archive).await }) }
    }

    /// An error is told by [`Loading::end`].
    async fn feed(&self, piece: Bytes) -> Result<(), ()> {
        self.pieces.send(Ok(piece)).await.map_err(drop)
    }

    async fn end(self, whole: bool) -> Result<(), EngineError> {
        if !whole {
            // The reading has an error of its own to tell.
            let _ = self.pieces.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
        }
        drop(self.pieces);
        let done = self.work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        if whole { done } else { Ok(()) }
    }
}
