//! The tree in etcd (3.4 and later), for HQs whose state must outlive their machine.
//!
//! Each key lies under a prefix beside other people's keys; versions are etcd's revisions, guards are comparisons of its
//! transactions. Every call ends within [`members::DEADLINE`], whatever the cluster does.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions};
use futures_util::stream::BoxStream;

pub use self::members::{Cluster, options, plain};
use self::members::{Members, NoAnswer, Why};
use self::space::Space;
use super::{Change, Db, DbError, Entry, Guard, Key, Lease, VALUE_LIMIT, Version, layout, paths};

mod members;
mod read;
mod space;
mod watch;
mod write;

/// The tree of one cluster.
pub struct Etcd {
    home: Arc<Home>,
}

struct Home {
    members: Members,
    space: Space,
    fence: RwLock<Option<Fence>>,
}

/// Writes count only while this key has this revision.
#[derive(Debug, Clone)]
struct Fence {
    key: Key,
    name: String,
    revision: i64,
}

impl Fence {
    fn compare(&self) -> Compare {
        Compare::mod_revision(self.name.clone(), CompareOp::Equal, self.revision)
    }
}

impl Home {
    /// The fence before a key or prefix, if there is one.
    fn fence_for(&self, key: &str) -> Option<Fence> {
        let fence = self.fence.read().unwrap_or_else(PoisonError::into_inner).clone();
        fence.filter(|_| key.split('/').next() != Some(layout::REIGN))
    }
}

fn lease_id(lease: &Lease) -> Result<i64, DbError> {
    i64::from_str_radix(&lease.0, 16).map_err(|_| DbError::LeaseEnded(lease.clone()))
}

impl Etcd {
    /// The tree of a cluster that need not be there yet.
    ///
    /// # Panics
    /// When `cluster` names no endpoint.
    pub fn new(cluster: &Cluster) -> Self {
        assert!(!cluster.endpoints.is_empty(), "a cluster has members");
        let home =
            Home { members: Members::new(cluster), space: Space::new(&cluster.prefix), fence: RwLock::default() };
        Self { home: Arc::new(home) }
    }

    /// Whether it answers and lets us in.
    ///
    /// # Errors
    /// [`DbError::Away`] or [`DbError::Refused`].
    pub async fn ping(&self) -> Result<(), DbError> {
        let page = self.home.get(&self.home.space.name(&layout::epoch()), GetOptions::new().with_keys_only()).await;
        page.map(drop).map_err(|no| self.home.members.read_error(no))
    }
}

#[async_trait]
impl Db for Etcd {
    fn place(&self, key: &Key) -> String {
        format!("the key {} in etcd at {}", self.home.space.name(key), self.home.members.place())
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        paths::check(key)?;
        self.home.read(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.home.list(paths::prefix(prefix)?, after, limit).await
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        self.home.names(paths::prefix(prefix)?).await
    }

    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        paths::check(key)?;
        if value.len() > VALUE_LIMIT {
            return Err(DbError::TooLarge { key: key.clone(), size: value.len() });
        }
        self.home.put(key, value, &guard, lease).await
    }

    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        paths::check(key)?;
        self.home.delete(key, &guard).await
    }

    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let prefix = paths::prefix(prefix)?;
        if prefix.is_empty() {
            return Err(DbError::BadKey { key: prefix.to_owned() });
        }
        self.home.delete_under(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        watch::watch(self.home.clone(), paths::prefix(prefix)?).await
    }

    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        self.home.leased().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn fence(&self, epoch: Key, version: Version) {
        // A version that is none of etcd's lets nothing through.
        let fence = Fence { name: self.home.space.name(&epoch), key: epoch, revision: version.0.parse().unwrap_or(-1) };
        *self.home.fence.write().unwrap_or_else(PoisonError::into_inner) = Some(fence);
    }

    fn relocate(&self, endpoints: &[String]) {
        self.home.members.relocate(endpoints);
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        // etcd counts in whole seconds; one that is granted twice because an answer got lost ends by itself.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000).max(1)).unwrap_or(i64::MAX).min(LONGEST_LEASE);
        let granted = self.home.members.ask(|client| async move { client.lease_client().grant(seconds, None).await });
        match granted.await {
            Ok(answer) => Ok(Lease(format!("{:x}", answer.value.id()))),
            Err(no) => Err(self.home.members.read_error(no)),
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        let id = lease_id(lease)?;
        let kept = self.home.members.ask(|client| async move { client.lease_client().keep_alive(id).await });
        self.lease_done(kept.await.map(drop), lease)
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        let Ok(id) = lease_id(lease) else { return Ok(()) };
        let revoked = self.home.members.ask(|client| async move { client.lease_client().revoke(id).await });
        match self.lease_done(revoked.await.map(drop), lease) {
            Err(DbError::LeaseEnded(_)) => Ok(()),
            other => other,
        }
    }
}

/// etcd's own limit.
const LONGEST_LEASE: i64 = 9_000_000_000;

impl Etcd {
    fn lease_done(&self, done: Result<(), NoAnswer>, lease: &Lease) -> Result<(), DbError> {
        done.map_err(|no| match no {
            NoAnswer::Refused(refusal) if refusal.why == Why::NoLease => DbError::LeaseEnded(lease.clone()),
            no => self.home.members.read_error(no),
        })
    }
}
