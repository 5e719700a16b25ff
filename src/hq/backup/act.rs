//! Writes a backup while HQ serves: state, settings and where branches point at one instant, then everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::tar::{Writer, small_files};
use super::{BackupError, End, FORMAT, Images, Manifest, Wishes, images, is_instant, is_setting, stacks, travels};
use crate::db::copy::travels as is_content;
use crate::db::{DbError, Entry, Key, layout};
use crate::hq::progress::{detail, phase};
use crate::hq::{Hq, HqError};
use crate::launch::act::Say;
use crate::names::{ImageId, StackName};

/// How often a state that others write is read before it counts as restless.
const TRIES: u32 = 20;
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(250);

/// Images travel in entries of this size.
const PIECE: usize = 8 << 20;

/// What was backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backed {
    /// Stacks.
    pub stacks: usize,
    /// What is in it.
    pub end: End,
    /// Images that are wanted and are not on this machine.
    pub missing: BTreeSet<ImageId>,
    /// Stacks of which volumes on this machine stay behind.
    pub volumes: BTreeSet<StackName>,
}

/// A small file as it was at one instant: its name in the backup, mode and content.
type Small = (String, u32, Vec<u8>);

/// What must fit together.
struct Instant {
    state: BTreeMap<Key, Entry>,
    files: Vec<Small>,
}

impl Hq {
    /// Sends a backup to `queue`. `etc` is the folder of the settings.
    ///
    /// # Errors
    /// What cannot be read; what was sent by then is no backup.
    pub async fn backup(
        &self,
        etc: &Path,
        wishes: Wishes,
        queue: mpsc::Sender<Bytes>,
        say: Say<'_>,
    ) -> Result<Backed, HqError> {
        let instant = self.instant(etc).await?;
        let stacks = stacks(&instant.state);
        say(&phase(&format!("Backing up {} stacks, {} values", stacks.len(), instant.state.len())));
        let (saved, missing) = self.there(images(&instant.state, wishes.images)).await?;
        let manifest = Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: self.clock.now(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            root: self.root.clone(),
            home: if self.db.is_shared() { "etcd" } else { "files" }.to_owned(),
            stacks,
            images: saved.clone(),
            volumes: wishes.volumes == super::Volumes::Along,
        };
        let (root, etc, stacks) = (self.root.clone(), etc.to_owned(), manifest.stacks.len());
        let mtime = u64::try_from(manifest.created.as_second()).unwrap_or(0);
        let mut writer = Writer::new(queue, mtime);
        let began = blocking(move || {
            writer.manifest(&manifest)?;
            write_files(&mut writer, &instant, (&root, &etc), wishes).map(|()| writer)
        });
        let writer = began.await.map_err(|source| self.cut(source))?;
        if !saved.is_empty() {
            say(&detail(&format!("{} files; saving {} images", writer.end.files, saved.len())));
        }
        let writer = self.write_images(writer, &saved).await?;
        let end = blocking(move || writer.finish()).await.map_err(|source| self.cut(source))?;
        let volumes = match wishes.volumes {
            super::Volumes::Along => BTreeSet::new(),
            super::Volumes::Stay => self.stacks_with_volumes().await,
        };
        let missing = if wishes.images == Images::None { BTreeSet::new() } else { missing };
        Ok(Backed { stacks, end, missing, volumes })
    }

    fn cut(&self, source: io::Error) -> HqError {
        match source.kind() {
            io::ErrorKind::BrokenPipe => BackupError::Gone.into(),
            _ => BackupError::File { doing: "read everything in", path: self.root.clone(), source }.into(),
        }
    }

    /// State, settings and references that fit together. Writers of the files wait for a moment; a tree that others
    /// write too is read until it is the same twice.
    async fn instant(&self, etc: &Path) -> Result<Instant, HqError> {
        let gate = self.house().and_then(|house| house.gate.as_ref());
        let closed = match gate {
            Some(gate) => Some(gate.close().await),
            None => None,
        };
        for _ in 0..TRIES {
            let state = self.content().await?;
            let (root, etc, stacks) = (self.root.clone(), etc.to_owned(), stacks(&state));
            let files = blocking(move || small(&root, &etc, &stacks)).await.map_err(|source| self.cut(source))?;
            if closed.is_some() || !self.db.is_shared() || same(&state, &self.content().await?) {
                return Ok(Instant { state, files });
            }
            sleep(AGAIN).await;
        }
        Err(BackupError::Restless.into())
    }

    /// What the tree holds for longer than a lease.
    async fn content(&self) -> Result<BTreeMap<Key, Entry>, DbError> {
        let leased = self.db.leased().await?;
        let entries = layout::all(&*self.db, "").await?.into_iter();
        let lasting = entries.filter(|entry| is_content(&entry.key) && !leased.contains(&entry.key));
        Ok(lasting.map(|entry| (entry.key.clone(), entry)).collect())
    }

    /// Which images are on this machine, and which are not.
    async fn there(&self, wanted: BTreeSet<ImageId>) -> Result<(BTreeSet<ImageId>, BTreeSet<ImageId>), HqError> {
        let (mut there, mut missing) = (BTreeSet::new(), BTreeSet::new());
        for image in wanted {
            match self.engines().local().image(image.as_str()).await? {
                Some(_) => there.insert(image),
                None => missing.insert(image),
            };
        }
        Ok((there, missing))
    }

    async fn write_images(&self, mut writer: Writer, images: &BTreeSet<ImageId>) -> Result<Writer, HqError> {
        if images.is_empty() {
            return Ok(writer);
        }
        let wanted: Vec<ImageId> = images.iter().cloned().collect();
        let mut archive = self.engines().local().save(&wanted).await.map_err(BackupError::Images)?;
        let (mut number, mut piece) = (0, BytesMut::with_capacity(PIECE));
        loop {
            let next = archive.next().await.transpose().map_err(BackupError::Images)?;
            piece.extend_from_slice(next.as_deref().unwrap_or_default());
            if piece.len() >= PIECE || (next.is_none() && !piece.is_empty()) {
                let whole = piece.split().freeze();
                number += 1;
                let writing = blocking(move || writer.image_piece(number, &whole).map(|()| writer));
                writer = writing.await.map_err(|source| self.cut(source))?;
            }
            if next.is_none() {
                return Ok(writer);
            }
        }
    }

    async fn stacks_with_volumes(&self) -> BTreeSet<StackName> {
        let folder = self.root.join("volumes");
        let names = blocking(move || {
            let entries = std::fs::read_dir(folder)?.flatten();
            Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
        });
        // Where there is no such folder, no stack has volumes.
        names.await.unwrap_or_default()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn same(one: &BTreeMap<Key, Entry>, other: &BTreeMap<Key, Entry>) -> bool {
    let versions = |state: &BTreeMap<Key, Entry>| -> Vec<_> {
        state.values().map(|entry| (entry.key.clone(), entry.version.clone())).collect()
    };
    versions(one) == versions(other)
}

/// Settings, and where the branches and pins of every repository point.
fn small(root: &Path, etc: &Path, stacks: &BTreeSet<StackName>) -> io::Result<Vec<Small>> {
    let mut files = Vec::new();
    for (place, mode, content) in small_files(etc, &|place| place.split('/').all(is_setting))? {
        files.push((format!("etc/{place}"), mode, content));
    }
    for stack in stacks {
        let repository = PathBuf::from("stacks").join(stack.as_str()).join("repo.git");
        // Loose references first: one that is packed in between is then found twice, never missed.
        let loose = |place: &str| place == "refs" || (place.starts_with("refs/") && !place.ends_with(".lock"));
        for wanted in [&loose as &dyn Fn(&str) -> bool, &is_instant] {
            for (place, mode, content) in small_files(&root.join(&repository), wanted)? {
                files.push((format!("root/{}/{place}", repository.display()), mode, content));
            }
        }
    }
    Ok(files)
}

fn write_files(writer: &mut Writer, instant: &Instant, (root, _): (&Path, &Path), wishes: Wishes) -> io::Result<()> {
    for entry in instant.state.values() {
        writer.value(&entry.key, &entry.value)?;
    }
    for (name, mode, content) in &instant.files {
        writer.file(name, *mode, content)?;
    }
    writer.tree("root", root, &|place| travels(place, wishes.volumes))
}
