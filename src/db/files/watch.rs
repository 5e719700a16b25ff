//! Noticing changes, hand edits included.
//!
//! One inotify instance serves all watchers. It is never asked to go down into folders by itself: checkouts and
//! volumes have a hundred thousand of them. It only says which key may have changed; each watcher looks for itself and
//! compares with what it knows, so a change comes once, however many events it made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use futures_util::stream::{self, BoxStream, StreamExt};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::warn;

use super::tree::Tree;
use crate::db::{Change, DbError, Key, Version, paths};

/// Changes a slow reader may lag behind before its watcher waits for it.
const BACKLOG: usize = 64;

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// This key.
    Key(Key),
    /// Everything under this prefix.
    Under(String),
}

impl Hint {
    fn everywhere() -> Self {
        Self::Under(String::new())
    }
}

type Ears = Arc<Mutex<Vec<mpsc::UnboundedSender<Hint>>>>;

/// Tells watchers where to look.
#[derive(Default)]
pub struct Bell {
    ears: Ears,
    /// Made with the first watch.
    inotify: Mutex<Option<RecommendedWatcher>>,
}

impl Bell {
    /// Tells every watcher.
    pub fn ring(&self, hint: &Hint) {
        ring(&self.ears, hint);
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Hint> {
        let (ear, hints) = mpsc::unbounded_channel();
        self.ears.lock().expect("no lock is held across a panic").push(ear);
        hints
    }

    /// Has the system tell of changes in these folders; one that went meanwhile is left out.
    fn watch_folders(&self, root: &Path, folders: &[PathBuf]) -> Result<(), notify::Error> {
        let mut inotify = self.inotify.lock().expect("no lock is held across a panic");
        let watcher = match &mut *inotify {
            Some(watcher) => watcher,
            None => {
                let (ears, root) = (Arc::clone(&self.ears), root.to_owned());
                let handler = move |event: notify::Result<notify::Event>| match event {
                    Ok(event) => hints(&event, &root).iter().for_each(|hint| ring(&ears, hint)),
                    Err(_) => ring(&ears, &Hint::everywhere()),
                };
                inotify.insert(notify::recommended_watcher(handler)?)
            }
        };
        for folder in folders {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn ring(ears: &Ears, hint: &Hint) {
    ears.lock().expect("no lock is held across a panic").retain(|ear| ear.send(hint.clone()).is_ok());
}

/// Where an event of the system asks to look.
fn hints(event: &notify::Event, root: &Path) -> Vec<Hint> {
    if event.need_rescan() {
        return vec![Hint::everywhere()];
    }
    match event.kind {
        // A file is looked at when its writer has closed it: half an edit is not a value.
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Create(CreateKind::Folder)
        | EventKind::Remove(_) => event.paths.iter().filter_map(|path| hint(event.kind, path, root)).collect(),
        EventKind::Any | EventKind::Access(_) | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {
            Vec::new()
        }
    }
}

fn hint(event: EventKind, path: &Path, root: &Path) -> Option<Hint> {
    let relative = path.strip_prefix(root).ok()?.to_str()?;
    if relative.is_empty() {
        return Some(Hint::everywhere());
    }
    let key: Key = relative.parse().ok()?;
    match event {
        EventKind::Access(_) => paths::is_key(&key).then_some(Hint::Key(key)),
        // What is made, renamed or removed may be a folder with all it holds.
        _ => paths::holds_keys(relative).then(|| Hint::Under(relative.to_owned())),
    }
}

/// What one watcher knows.
struct Watch {
    prefix: String,
    known: BTreeMap<Key, Version>,
    /// Folders of which the system tells.
    heard: BTreeSet<PathBuf>,
}

/// Changes under `prefix` from now on, until the stream is dropped or the tree is closed.
pub fn watch(tree: &Arc<Tree>, bell: &Arc<Bell>, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
    let hints = bell.listen();
    let mut watch = Watch { prefix: prefix.to_owned(), known: BTreeMap::new(), heard: BTreeSet::new() };
    watch.look_under(tree, bell, prefix)?;
    let (changes, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(follow(watch, Arc::downgrade(tree), Arc::downgrade(bell), hints, changes));
    Ok(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed())
}

/// Looks where it is told to and passes on what has changed.
///
/// Holds the tree only while it looks: a stream somebody forgot must not keep the tree locked.
async fn follow(
    mut watch: Watch,
    tree: Weak<Tree>,
    bell: Weak<Bell>,
    mut hints: mpsc::UnboundedReceiver<Hint>,
    changes: mpsc::Sender<Change>,
) {
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            () = changes.closed() => return,
            count = hints.recv_many(&mut heard, 1024) => if count == 0 { return },
        }
        let news: BTreeSet<Hint> = std::mem::take(&mut heard).into_iter().collect();
        let (Some(tree), Some(bell)) = (tree.upgrade(), bell.upgrade()) else { return };
        let looking = tokio::task::spawn_blocking(move || {
            let found = watch.look(&tree, &bell, &news);
            (watch, found)
        });
        let Ok((looked, found)) = looking.await else { return };
        watch = looked;
        for change in found {
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

impl Watch {
    /// What has changed where the hints point. Trouble is told in the log and leaves the rest alone.
    fn look(&mut self, tree: &Tree, bell: &Bell, hints: &BTreeSet<Hint>) -> Vec<Change> {
        let mut changes = Vec::new();
        for hint in hints {
            let scope = match hint {
                Hint::Key(key) => key.is_under(&self.prefix).then_some(key.as_str()),
                Hint::Under(place) => narrower(place, &self.prefix),
            };
            let Some(scope) = scope.map(str::to_owned) else { continue };
            match self.look_under(tree, bell, &scope) {
                Ok(found) => changes.extend(found),
                Err(error) => told(tree, &scope, &error),
            }
        }
        changes
    }

    fn look_under(&mut self, tree: &Tree, bell: &Bell, scope: &str) -> Result<Vec<Change>, DbError> {
        self.hear(tree, bell, scope)?;
        let mut keys = tree.keys(scope).map_err(|trouble| tree.error("watch", scope, trouble))?;
        keys.extend(self.known.keys().filter(|key| key.is_under(scope)).cloned());
        keys.sort();
        keys.dedup();
        Ok(keys.iter().filter_map(|key| self.compare(tree, key)).collect())
    }

    /// Has the system tell of changes in every folder on the way to `scope` and below it. Those below may have been
    /// removed and made again, which makes them new ones to the system, so it is asked again.
    fn hear(&mut self, tree: &Tree, bell: &Bell, scope: &str) -> Result<(), DbError> {
        let place = tree.path().join(scope);
        self.heard.retain(|folder| !folder.starts_with(&place));
        let mut folders = tree.folders(scope).map_err(|trouble| tree.error("watch", scope, trouble))?;
        folders.retain(|folder| !self.heard.contains(folder));
        bell.watch_folders(tree.path(), &folders).map_err(|source| DbError::Backend {
            doing: "watch",
            key: scope.to_owned(),
            source: Box::new(source),
        })?;
        self.heard.extend(folders);
        Ok(())
    }

    fn compare(&mut self, tree: &Tree, key: &Key) -> Option<Change> {
        match tree.read(key) {
            Ok(Some(entry)) => {
                let before = self.known.insert(key.clone(), entry.version.clone());
                (before.as_ref() != Some(&entry.version)).then_some(Change::Put(entry))
            }
            Ok(None) => self.known.remove(key).map(|_| Change::Deleted(key.clone())),
            Err(trouble) => {
                told(tree, key.as_str(), &tree.error("read", key.as_str(), trouble));
                None
            }
        }
    }
}

fn told(tree: &Tree, place: &str, error: &(dyn std::error::Error + 'static)) {
    warn!(root = %tree.path().display(), place, error, "a change cannot be read");
}

/// The one of two places that lies within the other; `None` when they lie apart.
fn narrower<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    let within = |inner: &str, outer: &str| {
        outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if within(one, other) { Some(one) } else { within(other, one).then_some(other) }
}
