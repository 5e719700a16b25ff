//! The tree as files under one folder: each key is one file that a person can `cat`, edit and back up.
//!
//! The folder also holds repositories, checkouts and volumes; [`super::paths`] tells them from keys. One process has
//! the tree open at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::time::Instant;
use tracing::warn;

use self::folder::Trouble;
use self::tree::Tree;
use self::watch::{Bell, Hint};
use super::leases::{Kept, Leases};
use super::{Change, Db, DbError, Entry, Guard, Key, Lease, VALUE_LIMIT, Version, layout, paths};

use crate::units::random;

mod folder;
mod tree;
mod walk;
mod watch;

/// Which keys are under which lease, for the next process when this one dies.
const LEASES: &str = ".leases.json";

/// The tree of one root folder, open in this process alone.
pub struct Files {
    home: Arc<Home>,
}

/// A root folder whose tree is elsewhere, held so that no second process works with its repositories and volumes.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

impl Hold {
    /// Takes the folder at `root`, made when it is not there. Everybody may pass it, but not what the tree would keep
    /// from them by lying there: repositories and checkouts.
    ///
    /// # Errors
    /// [`DbError::InUse`] when another process has it.
    pub fn take(root: &Path) -> Result<Self, DbError> {
        let (root, lock) = tree::take(root)?;
        tree::make_private(&root.join(layout::STACKS))?;
        Ok(Self { _lock: lock })
    }
}

struct Home {
    tree: Arc<Tree>,
    bell: Arc<Bell>,
    /// Whoever holds it is the only one who changes names in the tree: guards and leases hold from check to change.
    turn: Mutex<Turn>,
}

struct Turn {
    leases: Leases,
    /// The list of leases on disk is an older one.
    unsaved: bool,
    /// Leases whose end nobody waits for yet: those an earlier process left.
    left_over: Vec<Lease>,
}

impl Files {
    /// Opens the tree at `root`, made with mode 0700 when it is not there; removes what a crash left half written.
    ///
    /// # Errors
    /// [`DbError::InUse`] when another process has it open.
    pub fn open(root: &Path) -> Result<Self, DbError> {
        let tree = Tree::open(root)?;
        let leases = left_leases(&tree);
        let turn = Turn { left_over: leases.all(), leases, unsaved: false };
        Ok(Self { home: Arc::new(Home { tree: Arc::new(tree), bell: Arc::default(), turn: Mutex::new(turn) }) })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.home.tree.path()
    }

    /// Runs `work` where waiting for the disk holds nobody up. It ends even when the caller goes away.
    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Home) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.tend_left_over();
        let home = Arc::clone(&self.home);
        match tokio::task::spawn_blocking(move || work(&home)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(error) => {
                    Err(DbError::Backend { doing: "wait for", key: "the disk".into(), source: Box::new(error) })
                }
            },
        }
    }

    fn tend_left_over(&self) {
        let left_over = std::mem::take(&mut self.home.turn().left_over);
        for lease in left_over {
            tokio::spawn(tend(Arc::downgrade(&self.home), lease));
        }
    }
}

/// What the last process kept of its leases. A broken list costs the leases, not the tree.
fn left_leases(tree: &Tree) -> Leases {
    let kept: BTreeMap<String, Kept> = match tree.read_own(LEASES) {
        Ok(Some(text)) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!(file = %tree.path().join(LEASES).display(), %error, "the list of leases is damaged; starting without");
            BTreeMap::new()
        }),
        Ok(None) => BTreeMap::new(),
        Err(trouble) => {
            warn!(error = %tree.error("read", LEASES, trouble), "cannot read the list of leases; starting without");
            BTreeMap::new()
        }
    };
    Leases::from_kept(kept, Instant::now())
}

/// Waits for the end of a lease, however often it is renewed, and removes its keys then.
async fn tend(home: Weak<Home>, lease: Lease) {
    loop {
        let Some(home) = home.upgrade() else { return };
        let Some(until) = home.turn().leases.until(&lease) else { return };
        if until <= Instant::now() {
            let ended = lease.clone();
            match tokio::task::spawn_blocking(move || home.end(&ended)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => warn!(lease = lease.0, %error, "cannot remove the keys of a lease that ended"),
            }
            return;
        }
        drop(home);
        tokio::time::sleep_until(until).await;
    }
}

impl Home {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().expect("no turn is held across a panic")
    }

    fn put(&self, key: &Key, value: &[u8], guard: &Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        let cannot = |trouble| self.tree.error("write", key.as_str(), trouble);
        let prepared = self.tree.prepare(key, value, || self.turn());
        let mut prepared = prepared.inspect_err(|_| self.prune(key)).map_err(cannot)?;
        let version = prepared.version.clone();
        let named = {
            let mut turn = self.turn();
            self.check(&mut turn, key, guard, lease).and_then(|()| prepared.name_it(key.last()).map_err(cannot))
        };
        let named = named.and_then(|()| prepared.sync().map_err(cannot));
        drop(prepared);
        named.inspect_err(|_| self.prune(key))?;
        self.bell.ring(&Hint::Key(key.clone()));
        Ok(version)
    }

    /// Whether the change may happen now; if so the key is under `lease` from here on.
    ///
    /// The list of leases is kept before the value: after a crash between the two, a listed key goes too early, where
    /// the other order would leave one that never goes.
    fn check(&self, turn: &mut Turn, key: &Key, guard: &Guard, lease: Option<&Lease>) -> Result<(), DbError> {
        if !self.tree.guard(key, guard).map_err(|trouble| self.tree.error("read", key.as_str(), trouble))? {
            return Err(DbError::Changed { key: key.clone() });
        }
        if let Some(lease) = lease {
            turn.leases.check(lease, Instant::now())?;
        }
        turn.unsaved |= turn.leases.bind(key, lease);
        self.save(turn).map_err(|trouble| self.tree.error("write", key.as_str(), trouble))
    }

    fn save(&self, turn: &mut Turn) -> Result<(), Trouble> {
        if turn.unsaved {
            let text = serde_json::to_vec_pretty(&turn.leases.kept()).expect("leases have string keys and serialise");
            self.tree.write_own(LEASES, &text)?;
            turn.unsaved = false;
        }
        Ok(())
    }

    /// After keys went, a list that still names them does no harm: it is written when there is room for it again.
    fn save_soon(&self, turn: &mut Turn) {
        if let Err(trouble) = self.save(turn) {
            warn!(error = %self.tree.error("write", LEASES, trouble), "the list of leases is written later");
        }
    }

    /// Takes back the folders a failed put made. They are empty and harm nobody, so a failure here is not told.
    fn prune(&self, key: &Key) {
        let _turn = self.turn();
        drop(self.tree.prune(key.as_str()));
    }

    fn delete(&self, key: &Key, guard: &Guard) -> Result<(), DbError> {
        let mut turn = self.turn();
        let cannot = |trouble: Trouble| self.tree.error("delete", key.as_str(), trouble);
        if !self.tree.guard(key, guard).map_err(cannot)? {
            return Err(DbError::Changed { key: key.clone() });
        }
        let removed = self.tree.remove(key).map_err(cannot)?;
        turn.unsaved |= turn.leases.bind(key, None);
        self.save_soon(&mut turn);
        drop(turn);
        if removed {
            self.bell.ring(&Hint::Key(key.clone()));
        }
        Ok(())
    }

    fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let mut turn = self.turn();
        let removed = self.tree.remove_under(prefix).map_err(|trouble| self.tree.error("delete", prefix, trouble));
        let removed = removed?;
        turn.unsaved |= turn.leases.free(prefix);
        self.save_soon(&mut turn);
        drop(turn);
        for key in removed {
            self.bell.ring(&Hint::Key(key));
        }
        Ok(())
    }

    /// Ends a lease and removes its keys; a key that cannot be removed does not hold up the others.
    fn end(&self, lease: &Lease) -> Result<(), DbError> {
        let mut turn = self.turn();
        let keys = turn.leases.end(lease);
        let mut result = Ok(());
        for key in &keys {
            let removed = self.tree.remove(key);
            result = result.and(removed.map(drop).map_err(|trouble| self.tree.error("delete", key.as_str(), trouble)));
        }
        turn.unsaved |= !keys.is_empty();
        self.save_soon(&mut turn);
        drop(turn);
        for key in keys {
            self.bell.ring(&Hint::Key(key));
        }
        result
    }
}

#[async_trait]
impl Db for Files {
    fn place(&self, key: &Key) -> String {
        format!("the file {}", self.root().join(key.as_str()).display())
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        paths::check(key)?;
        let key = key.clone();
        self.off(move |home| home.tree.read(&key).map_err(|t| home.tree.error("read", key.as_str(), t))).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        let (prefix, after) = (paths::prefix(prefix)?.to_owned(), after.cloned());
        self.off(move |home| {
            let listed = home.tree.list(&prefix, after.as_ref(), limit);
            listed.map_err(|trouble| home.tree.error("list", &prefix, trouble))
        })
        .await
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        let prefix = paths::prefix(prefix)?.to_owned();
        self.off(move |home| home.tree.names(&prefix).map_err(|t| home.tree.error("list", &prefix, t))).await
    }

    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        paths::check(key)?;
        if value.len() > VALUE_LIMIT {
            return Err(DbError::TooLarge { key: key.clone(), size: value.len() });
        }
        let (key, value, lease) = (key.clone(), value.to_owned(), lease.cloned());
        self.off(move |home| home.put(&key, &value, &guard, lease.as_ref())).await
    }

    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        paths::check(key)?;
        let key = key.clone();
        self.off(move |home| home.delete(&key, &guard)).await
    }

    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let prefix = paths::prefix(prefix)?.to_owned();
        if prefix.is_empty() {
            return Err(DbError::BadKey { key: prefix });
        }
        self.off(move |home| home.delete_under(&prefix)).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        let prefix = paths::prefix(prefix)?.to_owned();
        self.off(move |home| watch::watch(&home.tree, &home.bell, &prefix)).await
    }

    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        Ok(self.home.turn().leases.keys())
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        let lease = Lease(random::hex::<16>());
        self.home.turn().leases.begin(&lease, ttl, Instant::now());
        tokio::spawn(tend(Arc::downgrade(&self.home), lease.clone()));
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        self.home.turn().leases.renew(lease, Instant::now())
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        let lease = lease.clone();
        self.off(move |home| home.end(&lease)).await
    }
}
