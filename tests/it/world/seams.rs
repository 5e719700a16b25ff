//! The tree and the router as one HQ reaches them: with delays, faults, and its own end at any instant.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use quarry::db::{self, Change, Db, DbError, Entry, Guard, Key, Lease, Version, layout};
use quarry::front::Snippet;
use quarry::names::StackName;
use quarry::router::StackRoutes;
use quarry::router::edge::{Edge, EdgeError, Tally};
use quarry::router::tls::{TlsChange, TlsState};

use super::World;
use super::life::Life;

/// The tree of one HQ.
pub struct Tree {
    pub world: Arc<World>,
    pub life: Arc<Life>,
    pub tree: db::fake::Fake,
}

impl Tree {
    async fn asked(&self) -> Result<(), DbError> {
        self.life.alive().await;
        self.world.asked();
        tokio::time::sleep(Duration::from_millis(1 + self.world.dice.below(2))).await;
        self.life.alive().await;
        match self.life.is_cut_off() {
            true => Err(DbError::Away { place: "memory".into(), what: "this HQ is cut off".into() }),
            false => Ok(()),
        }
    }

    /// What a write came to; its answer may get lost on the way.
    async fn written<T>(&self, key: &str, done: Result<T, DbError>) -> Result<T, DbError> {
        self.life.instant().await;
        match done {
            Ok(_) if self.world.loses_answer() => Err(DbError::Unclear {
                key: key.to_owned(),
                place: "memory".into(),
                what: "the answer got lost".into(),
            }),
            done => done,
        }
    }
}

#[async_trait]
impl Db for Tree {
    fn place(&self, key: &Key) -> String {
        self.tree.place(key)
    }
    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        self.asked().await?;
        self.tree.read(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.asked().await?;
        self.tree.list(prefix, after, limit).await
    }
    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        self.asked().await?;
        self.tree.names(prefix).await
    }
    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        self.asked().await?;
        self.life.instant().await;
        let put = self.tree.put(key, value, guard, lease).await;
        self.written(key.as_str(), put).await
    }
    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        self.asked().await?;
        self.life.instant().await;
        let deleted = self.tree.delete(key, guard).await;
        self.written(key.as_str(), deleted).await
    }
    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        self.asked().await?;
        self.life.instant().await;
        if !self.life.tick() {
            // With files, HQ can end among the keys of a folder.
            for entry in layout::all(&self.tree, prefix).await?.iter().step_by(2) {
                self.tree.delete(&entry.key, Guard::Any).await?;
            }
            self.life.alive().await;
        }
        let deleted = self.tree.delete_under(prefix).await;
        self.written(prefix, deleted).await
    }
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        self.asked().await?;
        self.tree.watch(prefix).await
    }
    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        self.asked().await?;
        self.tree.leased().await
    }
    fn is_shared(&self) -> bool {
        self.tree.is_shared()
    }
    fn fence(&self, epoch: Key, version: Version) {
        self.tree.fence(epoch, version);
    }
    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        self.asked().await?;
        self.tree.lease(ttl).await
    }
    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        self.asked().await?;
        self.tree.renew(lease).await
    }
    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        self.asked().await?;
        self.tree.revoke(lease).await
    }
}

/// The router of one HQ.
pub struct Router {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

impl Router {
    async fn asked(&self) {
        self.life.alive().await;
        tokio::time::sleep(Duration::from_millis(1 + self.world.dice.below(8))).await;
        self.life.alive().await;
    }
}

#[async_trait]
impl Edge for Router {
    async fn try_snippet(&self, snippet: &Snippet) -> Result<(), EdgeError> {
        self.asked().await;
        self.world.edge.try_snippet(snippet).await
    }
    async fn set(&self, routes: &StackRoutes) -> Result<(), EdgeError> {
        self.asked().await;
        self.life.instant().await;
        let set = self.world.edge.set(routes).await;
        self.world.note(|| format!("route {routes:?}: {}", set.is_ok()));
        self.world.check(&format!("a table of {}", routes.stack));
        self.life.instant().await;
        set
    }
    async fn remove(&self, stack: &StackName) -> Result<(), EdgeError> {
        self.asked().await;
        self.life.instant().await;
        let removed = self.world.edge.remove(stack).await;
        self.world.note(|| format!("unroute {stack}: {}", removed.is_ok()));
        self.life.instant().await;
        removed
    }
    async fn tables(&self) -> Result<Vec<StackRoutes>, EdgeError> {
        self.asked().await;
        self.world.edge.tables().await
    }
    async fn secure(&self, change: &TlsChange) -> Result<(), EdgeError> {
        self.asked().await;
        self.world.edge.secure(change).await
    }
    async fn secured(&self) -> Result<TlsState, EdgeError> {
        self.asked().await;
        self.world.edge.secured().await
    }
    async fn in_flight(&self, peer: SocketAddr) -> Result<u64, EdgeError> {
        self.asked().await;
        self.world.edge.in_flight(peer).await
    }
    async fn tallies(&self) -> Result<Vec<Tally>, EdgeError> {
        self.asked().await;
        self.world.edge.tallies().await
    }
}
