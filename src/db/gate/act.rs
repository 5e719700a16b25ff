//! Lets writes through, or makes them wait.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::db::{Change, Db, DbError, Entry, Guard, Key, Lease, Version};

/// A home behind a gate. Reads pass always; writes while it is open.
pub struct Gate {
    home: Arc<dyn Db>,
    open: Arc<RwLock<()>>,
    /// What is done before the first write, until it was.
    first: Mutex<Option<First>>,
}

/// What is done before the first write.
pub type First = Box<dyn Fn() -> std::io::Result<()> + Send>;

/// The gate is closed until this is dropped.
pub struct Closed {
    _hold: OwnedRwLockWriteGuard<()>,
}

impl std::fmt::Debug for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closed")
    }
}

impl Gate {
    /// An open one.
    pub fn new(home: Arc<dyn Db>) -> Self {
        Self { home, open: Arc::default(), first: Mutex::default() }
    }

    /// An open one that does this before the first write. A write before which it cannot be done fails.
    pub fn after(first: First, home: Arc<dyn Db>) -> Self {
        Self { first: Mutex::new(Some(first)), ..Self::new(home) }
    }

    fn begin(&self, what: &str) -> Result<(), DbError> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begin) = &*first {
            begin().map_err(|source| DbError::Backend {
                doing: "begin to write",
                key: what.to_owned(),
                source: Box::new(source),
            })?;
        }
        *first = None;
        Ok(())
    }

    /// What is behind it.
    pub fn home(&self) -> &dyn Db {
        &*self.home
    }

    /// Waits for the writes under way; those that come later wait.
    pub async fn close(&self) -> Closed {
        Closed { _hold: self.open.clone().write_owned().await }
    }
}

#[async_trait]
impl Db for Gate {
    fn place(&self, key: &Key) -> String {
        self.home.place(key)
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        self.home.read(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        self.home.list(prefix, after, limit).await
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        self.home.names(prefix).await
    }

    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        let _pass = self.open.read().await;
        self.begin(key.as_str())?;
        self.home.put(key, value, guard, lease).await
    }

    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        let _pass = self.open.read().await;
        self.begin(key.as_str())?;
        self.home.delete(key, guard).await
    }

    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let _pass = self.open.read().await;
        self.begin(prefix)?;
        self.home.delete_under(prefix).await
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        self.home.watch(prefix).await
    }

    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        self.home.leased().await
    }

    fn is_shared(&self) -> bool {
        self.home.is_shared()
    }

    fn fence(&self, epoch: Key, version: Version) {
        self.home.fence(epoch, version);
    }

    fn relocate(&self, endpoints: &[String]) {
        self.home.relocate(endpoints);
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        let _pass = self.open.read().await;
        self.home.lease(ttl).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        self.home.renew(lease).await
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        let _pass = self.open.read().await;
        self.home.revoke(lease).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::db::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn writes_wait_before_a_closed_gate_and_reads_do_not() {
        let gate = Gate::new(Arc::new(Fake::new()));
        let key: Key = "stacks/a/status".parse().unwrap();
        let put = |value: &'static [u8]| gate.put(&key, value, Guard::Any, None);
        put(b"1").await.unwrap();
        let closed = gate.close().await;
        let waits = Duration::from_secs(60);
        assert!(timeout(waits, put(b"2")).await.is_err());
        assert!(timeout(waits, gate.delete(&key, Guard::Any)).await.is_err());
        assert_eq!(gate.read(&key).await.unwrap().unwrap().value, b"1");
        drop(closed);
        put(b"2").await.unwrap();
        assert_eq!(gate.read(&key).await.unwrap().unwrap().value, b"2");
    }

    #[tokio::test]
    async fn only_who_writes_has_begun_to_and_only_once() {
        let begun = Arc::new(Mutex::new(0));
        let count = begun.clone();
        let first = move || {
            *count.lock().unwrap() += 1;
            if *count.lock().unwrap() == 1 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let gate = Gate::after(Box::new(first), Arc::new(Fake::new()));
        let key: Key = "stacks/a/status".parse().unwrap();
        gate.read(&key).await.unwrap();
        gate.list("stacks", None, 1).await.unwrap();
        assert_eq!(*begun.lock().unwrap(), 0);
        assert!(gate.put(&key, b"1", Guard::Any, None).await.is_err(), "what could not be begun is not written");
        assert!(gate.read(&key).await.unwrap().is_none());
        gate.put(&key, b"1", Guard::Any, None).await.unwrap();
        gate.delete(&key, Guard::Any).await.unwrap();
        assert_eq!(*begun.lock().unwrap(), 2);
    }
}
