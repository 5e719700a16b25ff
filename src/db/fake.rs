//! The tree in memory, with faults on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::leases::Leases;
use super::{Change, Db, DbError, Entry, Guard, Key, Lease, VALUE_LIMIT, Version, layout, paths};

/// A tree that forgets everything when it is dropped.
#[derive(Default)]
pub struct Fake {
    memory: Arc<Mutex<Memory>>,
    fence: Mutex<Option<(Key, Version)>>,
}

#[derive(Default)]
struct Memory {
    values: BTreeMap<Key, (Vec<u8>, u64)>,
    leases: Leases,
    watchers: Vec<(String, mpsc::UnboundedSender<Change>)>,
    /// Goes up with each put, so that no version comes twice.
    counter: u64,
    lease_counter: u64,
    faults: Faults,
}

#[derive(Default)]
struct Faults {
    away: bool,
    next_put: Option<DbError>,
    /// Puts until the tree is full.
    room: Option<usize>,
}

impl Fake {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same tree as another process sees it.
    pub fn beside(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), fence: Mutex::default() }
    }

    /// As if the servers that hold the tree had gone: every call fails until they are back.
    pub fn set_away(&self, away: bool) {
        lock(&self.memory).faults.away = away;
    }

    /// The memory, unless it is out of reach.
    fn reach(&self) -> Result<MutexGuard<'_, Memory>, DbError> {
        let memory = lock(&self.memory);
        match memory.faults.away {
            true => Err(DbError::Away { place: "memory".into(), what: "away".into() }),
            false => Ok(memory),
        }
    }

    /// The memory for a write of `key`, unless that no longer counts.
    fn change(&self, key: &str) -> Result<MutexGuard<'_, Memory>, DbError> {
        let memory = self.reach()?;
        match &*self.fence.lock().expect("no lock is held across a panic") {
            Some((epoch, wanted))
                if key.split('/').next() != Some(layout::REIGN)
                    && memory.entry(epoch).is_none_or(|entry| entry.version != *wanted) =>
            {
                Err(DbError::Fenced { key: key.to_owned(), epoch: epoch.clone() })
            }
            Some(_) | None => Ok(memory),
        }
    }

    /// The next put fails with `error` and changes nothing.
    pub fn fail_next_put(&self, error: DbError) {
        lock(&self.memory).faults.next_put = Some(error);
    }

    /// After `puts` more puts each one fails with [`DbError::Full`]; `None` makes room again.
    pub fn full_after(&self, puts: Option<usize>) {
        lock(&self.memory).faults.room = puts;
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().expect("no lock is held across a panic")
}

fn version(counter: u64) -> Version {
    Version(counter.to_string())
}

impl Memory {
    fn entry(&self, key: &Key) -> Option<Entry> {
        let (value, counter) = self.values.get(key)?;
        Some(Entry { key: key.clone(), value: value.clone(), version: version(*counter) })
    }

    fn check(&self, key: &Key, guard: &Guard) -> Result<(), DbError> {
        let holds = match (guard, self.values.get(key)) {
            (Guard::Any, _) | (Guard::Absent, None) => true,
            (Guard::Unchanged(expected), Some((_, counter))) => *expected == version(*counter),
            (Guard::Absent, Some(_)) | (Guard::Unchanged(_), None) => false,
        };
        if holds { Ok(()) } else { Err(DbError::Changed { key: key.clone() }) }
    }

    fn check_nesting(&self, key: &Key) -> Result<(), DbError> {
        let others = self.values.keys().filter(|other| *other != key);
        match others.into_iter().find(|other| other.is_under(key.as_str()) || key.is_under(other.as_str())) {
            // The shorter of the two is what stands in the way.
            Some(other) => {
                let taken = if key.is_under(other.as_str()) { other } else { key };
                Err(DbError::Nested { key: key.clone(), taken: taken.to_string() })
            }
            None => Ok(()),
        }
    }

    fn check_faults(&mut self, key: &Key) -> Result<(), DbError> {
        if let Some(error) = self.faults.next_put.take() {
            return Err(error);
        }
        match &mut self.faults.room {
            Some(0) => Err(DbError::Full { key: key.clone(), place: "memory".into() }),
            Some(room) => {
                *room -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put(&mut self, key: &Key, value: &[u8], guard: &Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        self.check_nesting(key)?;
        self.check(key, guard)?;
        if let Some(lease) = lease {
            self.leases.check(lease, Instant::now())?;
        }
        self.check_faults(key)?;
        self.leases.bind(key, lease);
        self.counter += 1;
        self.values.insert(key.clone(), (value.to_owned(), self.counter));
        let version = version(self.counter);
        self.tell(&Change::Put(Entry { key: key.clone(), value: value.to_owned(), version: version.clone() }), key);
        Ok(version)
    }

    fn remove(&mut self, key: &Key) {
        self.leases.bind(key, None);
        if self.values.remove(key).is_some() {
            self.tell(&Change::Deleted(key.clone()), key);
        }
    }

    fn end(&mut self, lease: &Lease) {
        for key in self.leases.end(lease) {
            self.remove(&key);
        }
    }

    fn tell(&mut self, change: &Change, key: &Key) {
        self.watchers.retain(|(prefix, watcher)| !key.is_under(prefix) || watcher.send(change.clone()).is_ok());
    }
}

/// Waits for the end of a lease, however often it is renewed, and removes its keys then.
async fn tend(memory: Weak<Mutex<Memory>>, lease: Lease) {
    loop {
        let Some(memory) = memory.upgrade() else { return };
        let Some(until) = lock(&memory).leases.until(&lease) else { return };
        if until <= Instant::now() {
            lock(&memory).end(&lease);
            return;
        }
        drop(memory);
        tokio::time::sleep_until(until).await;
    }
}

#[async_trait]
impl Db for Fake {
    fn place(&self, key: &Key) -> String {
        format!("the key {key} in memory")
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, DbError> {
        paths::check(key)?;
        Ok(self.reach()?.entry(key))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Entry>, DbError> {
        let prefix = paths::prefix(prefix)?;
        let memory = self.reach()?;
        let keys = memory.values.keys().filter(|key| key.is_under(prefix) && after.is_none_or(|after| *key > after));
        Ok(keys.take(limit).filter_map(|key| memory.entry(key)).collect())
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, DbError> {
        let prefix = paths::prefix(prefix)?;
        let depth = prefix.split('/').filter(|segment| !segment.is_empty()).count();
        let memory = self.reach()?;
        let keys = memory.values.keys().filter(|key| key.is_under(prefix));
        let names = keys.filter_map(|key| key.segments().nth(depth).map(str::to_owned));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn put(&self, key: &Key, value: &[u8], guard: Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        paths::check(key)?;
        if value.len() > VALUE_LIMIT {
            return Err(DbError::TooLarge { key: key.clone(), size: value.len() });
        }
        self.change(key.as_str())?.put(key, value, &guard, lease)
    }

    async fn delete(&self, key: &Key, guard: Guard) -> Result<(), DbError> {
        paths::check(key)?;
        let mut memory = self.change(key.as_str())?;
        memory.check(key, &guard)?;
        memory.remove(key);
        Ok(())
    }

    async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let prefix = paths::prefix(prefix)?;
        if prefix.is_empty() {
            return Err(DbError::BadKey { key: String::new() });
        }
        let mut memory = self.change(prefix)?;
        let keys: Vec<Key> = memory.values.keys().filter(|key| key.is_under(prefix)).cloned().collect();
        for key in keys {
            memory.remove(&key);
        }
        Ok(())
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Change>, DbError> {
        let (watcher, changes) = mpsc::unbounded_channel();
        self.reach()?.watchers.push((paths::prefix(prefix)?.to_owned(), watcher));
        Ok(stream::unfold(changes, async |mut changes| Some((changes.recv().await?, changes))).boxed())
    }

    async fn leased(&self) -> Result<BTreeSet<Key>, DbError> {
        Ok(self.reach()?.leases.keys())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn fence(&self, epoch: Key, version: Version) {
        *self.fence.lock().expect("no lock is held across a panic") = Some((epoch, version));
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, DbError> {
        let lease = {
            let mut memory = self.reach()?;
            memory.lease_counter += 1;
            let lease = Lease(memory.lease_counter.to_string());
            memory.leases.begin(&lease, ttl, Instant::now());
            lease
        };
        tokio::spawn(tend(Arc::downgrade(&self.memory), lease.clone()));
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<(), DbError> {
        self.reach()?.leases.renew(lease, Instant::now())
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), DbError> {
        self.reach()?.end(lease);
        Ok(())
    }
}
